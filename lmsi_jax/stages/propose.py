"""Makes the questions of a run: a model goes on from a few given ones, and what it writes is filtered (section 3.3)."""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

from etils import epath

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
from lmsi_jax.stages.path_files import read_votes
from lmsi_jax.stages.prepare import write_leaks
from lmsi_jax.tasks.config import ProposeConfig, QuestionConfig
from lmsi_jax.tasks.proposals import REASONS, STOPS, Form, Screen, draw_shown, proposal_prompt, with_votes
from lmsi_jax.tasks.sources import question_source


@dataclasses.dataclass(frozen=True)
class ProposeSettings:
    """How questions are proposed and filtered. The questions of `data` are those that are given."""

    decoding: Decoding
    data: QuestionConfig
    propose: ProposeConfig
    engine: str
    endpoint: EndpointConfig
    batching: Batching = untraced(Batching())


def run_propose(runtime: Runtime, settings: ProposeSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Let `model` write questions like those of `given`, and write all as `written`, and those that are kept as `questions`.

    `gold` has the answers of those that a program can solve, for the audit only. `leaks` has what they share with `held_out`.
    Raises UserError when fewer than two questions are given and no description, or when no proposal is kept.
    """
    given, held_out, options = list(read_jsonl(inputs["given"])), list(read_jsonl(inputs["held_out"])), settings.propose
    if len(given) < 2 and not options.description:
        raise UserError(
            f"data.source='self' starts from at least two questions, or from a description of the task, and {len(given)} "
            f"{'question is' if len(given) == 1 else 'questions are'} given; name a file with --config.data.questions, raise "
            f"--config.data.num_questions (10 in the paper; word_problems has its own), or set --config.propose.description."
        )
    tokenizer = runtime.tokenizer(inputs["model"], control=settings.decoding.prompts.chat is not None)
    check_control_tokens(given, tokenizer)
    source = question_source(settings.data)
    screen = Screen(Form.of(given, source.answer_type), given, held_out, options.similarity, tokenizer.control_names)
    proposals: list[Record] = []
    for number in range(1, options.passes + 1):
        file = scratch / f"pass-{number}.jsonl"
        kept = [row for row in proposals if row["reason"] is None]
        shown = _shown(settings, given, kept, number)
        run_job(runtime, _job(runtime, settings, shown, inputs["model"], file), settings.engine, settings.endpoint)
        for row in read_jsonl(file):
            judged = screen.judge(row["id"], row)
            seen = [each["id"] for each in shown[row["id"]]]
            proposals.append({**judged, "pass": number, "shown": seen, "text": row["text"], "finish": row["finish"]})
    once(settings.engine, lambda: _write(settings, proposals, held_out, outputs))


def _shown(settings: ProposeSettings, given: Sequence[Record], kept: Sequence[Record], number: int) -> dict[str, list[Record]]:
    """Return the questions that the prompt of each proposal of a pass shows, by the id of the proposal."""
    count = settings.propose.proposals
    ids = [f"proposal-{i:05d}" for i in range((number - 1) * count, number * count)]
    seed = settings.decoding.seed
    return {id: draw_shown(given, kept, settings.propose.shown, random.Random(f"propose {seed} {id}")) for id in ids}


def _job(
    runtime: Runtime, settings: ProposeSettings, shown: dict[str, list[Record]], model: epath.Path, output: epath.Path
) -> Job:
    """Return what a model writes in one pass: one continuation for each proposal."""
    decoding, options, chat = settings.decoding, settings.propose, settings.decoding.prompts.chat
    instructs = chat is not None or (settings.engine == "openai" and settings.endpoint.api == "chat")
    before, after = (chat.no_examples, chat.after) if chat else ("", "")
    texts = {id: proposal_prompt(rows, options.description, instructs=instructs) for id, rows in shown.items()}
    sampling = dataclasses.replace(
        decoding.sampling.greedy(options.max_tokens), temperature=options.temperature, stops=() if instructs else STOPS
    )
    return Job(
        decoding=dataclasses.replace(decoding, sampling=sampling),
        batching=settings.batching.for_greedy(runtime.mesh.size("batch"), decoding.sampling.paths),
        prefix=before,
        requests=[Request(id, text + after) for id, text in texts.items()],
        checkpoint=model,
        output=output,
        scratch=output.parent,
        part=output.stem,
        largest=(decoding.sampling, settings.batching),
    )


def _write(settings: ProposeSettings, proposals: Sequence[Record], held_out: Sequence[Record], outputs: Files) -> None:
    kept = [row for row in proposals if row["reason"] is None]
    write_jsonl(outputs["written"], proposals)
    if not kept:
        raise UserError(
            f"None of {len(proposals)} proposals is kept, so that there is no question to train on: {refusals(proposals)}. "
            f"The first one is {proposals[0]['text'].strip()[:200]!r}. Show more questions (--config.propose.shown), write "
            f"more tokens (--config.propose.max_tokens, now {settings.propose.max_tokens}), or use a larger model."
        )
    questions = [{name: row[name] for name in ("id", "question", "choices")} for row in kept]
    source = question_source(settings.data)
    solved = [(row["id"], source.solve(row["question"])) for row in questions]
    write_jsonl(outputs["gold"], ({"id": id, "answer": gold, "answers": [gold]} for id, gold in solved if gold is not None))
    write_leaks(questions, held_out, outputs["leaks"])
    write_jsonl(outputs["questions"], questions)
    console.print(f"propose: {len(kept)} of {len(proposals)} proposals are kept; refused: {refusals(proposals) or 'none'}")


def refusals(proposals: Sequence[Record]) -> str:
    """Return how many proposals were refused for each reason, most frequent first."""
    counts = Counter(row["reason"] for row in proposals if row["reason"] is not None)
    return ", ".join(f"{count} {reason} ({REASONS[reason]})" for reason, count in counts.most_common())


@dataclasses.dataclass(frozen=True)
class AgreementSettings:
    """The least vote share of a question to train on."""

    least: float


def run_agreement(runtime: object, settings: AgreementSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Write `proposals`: the proposals of `written` with the vote on each, and those without agreement refused."""
    rows = with_votes(read_jsonl(inputs["written"]), read_votes(inputs["votes"]), settings.least)
    write_jsonl(outputs["proposals"], rows)
    kept = sum(row["reason"] is None for row in rows)
    console.print(f"agreement: {kept} of {len(rows)} proposals are trained on")
