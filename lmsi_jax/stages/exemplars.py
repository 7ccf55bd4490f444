"""Makes few-shot exemplars of unlabelled questions: the model's own step-by-step reasoning (section 3.3)."""

import dataclasses
import random
import re

from etils import epath

from lmsi_jax.answers.declared import strip_thinking
from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching, EndpointConfig
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.formatting.prompts import check_control_tokens
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.stages.decode import Decoding, Job
from lmsi_jax.stages.jobs import once, run_job
from lmsi_jax.tasks.prompts import conclusion
from lmsi_jax.tasks.questions import load_questions

_DECLARES = re.compile(
    r"(?:(?:so|therefore|thus|hence)\b,?\s*)?\**(?:the\s+)?(?:final\s+)?answer\**\s*(?:is\b|:)|####", re.IGNORECASE
)
SHOTS = 4  # exemplars of a template, as in the paper
ASKED = 2  # questions that the model is asked for each exemplar, since not every answer can be read


@dataclasses.dataclass(frozen=True)
class ExemplarSettings:
    """How many exemplars are made. The prompts of `decoding` are zero-shot."""

    decoding: Decoding
    reader: AnswerReader
    templates: int
    shots: int
    engine: str
    endpoint: EndpointConfig
    batching: Batching = untraced(Batching())


def run_exemplars(runtime: Runtime, settings: ExemplarSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Let `model` reason about some `questions` by greedy decoding, and write `exemplars` of those whose answers can be read.

    A row has the `template` that the exemplar belongs to, and the fields of an exemplar. Raises UserError when too few answers
    can be read.
    """
    decoding, wanted = settings.decoding, settings.templates * settings.shots
    rows = load_questions(inputs["questions"])
    draw = random.Random(f"exemplars {decoding.seed}")
    drawn = draw.sample(rows, min(ASKED * wanted, len(rows)))
    check_control_tokens(drawn, runtime.tokenizer(inputs["model"], control=decoding.prompts.chat is not None))
    sampling = decoding.sampling.greedy(decoding.sampling.max_tokens)
    job = Job(
        decoding=dataclasses.replace(decoding, sampling=sampling),
        batching=settings.batching.for_greedy(runtime.mesh.size("batch"), decoding.sampling.paths),
        prefix=decoding.prompts.cot_examples,
        requests=[Request(row["id"], decoding.prompts.question(row["question"], row["choices"])) for row in drawn],
        checkpoint=inputs["model"],
        output=scratch / "solutions.jsonl",
        scratch=scratch,
        largest=(decoding.sampling, settings.batching),
    )
    run_job(runtime, job, settings.engine, settings.endpoint)
    once(settings.engine, lambda: _write(settings, drawn, job.output, wanted, outputs))


def _write(settings: ExemplarSettings, drawn: list[Record], solutions: epath.Path, wanted: int, outputs: Files) -> None:
    solved = {row["id"]: row for row in read_jsonl(solutions)}
    found = [each for row in drawn if (each := exemplar(row, solved[row["id"]], settings.reader))]
    if len(found) < wanted:
        raise UserError(
            f"{settings.templates} templates of {settings.shots} exemplars need {wanted} solutions, and the "
            f"model's step-by-step reasoning ends with an answer for {len(found)} of {len(drawn)} questions. Lower "
            f"--config.data.templates or --config.data.shots, or name a file with --config.data.exemplars."
        )
    write_jsonl(outputs["exemplars"], ({"template": i // settings.shots, **row} for i, row in enumerate(found[:wanted])))
    console.print(
        f"exemplars: {settings.templates} templates of {settings.shots}; {len(found)} of {len(drawn)} answers can be read"
    )


def exemplar(question: Record, solution: Record, reader: AnswerReader) -> Record | None:
    """Return a question with its solution as an exemplar, or None without an answer that can be read, or without reasoning."""
    answer = reader.read([solution], question["choices"]).values[0]
    if answer is None or solution.get("finish") == "length":
        return None
    concluding = conclusion(answer, reader.answer_type)
    text = truncate_at_next_turn(strip_thinking(solution["text"]) or "").strip()
    declared = [each.start() for each in _DECLARES.finditer(text)]
    reasoning = (text[: declared[-1]] if declared else text).strip(" *\n")
    if not reasoning or concluding in reasoning:
        return None
    choices = question["choices"]
    return {"id": question["id"], "question": question["question"], "reasoning": reasoning, "answer": answer} | (
        {"choices": choices} if choices else {}
    )
