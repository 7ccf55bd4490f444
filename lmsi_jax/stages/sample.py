"""Samples m chain-of-thought paths for each question (section 3.1), on the mesh or from a server."""

import dataclasses
from collections.abc import Mapping, Sequence

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching, EndpointConfig
from lmsi_jax.decoding.scheduler import Enough, SampledPath
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.stages.decode import Decoding, Job, requests
from lmsi_jax.stages.jobs import once, run_job
from lmsi_jax.stages.spread import spread
from lmsi_jax.stages.templates import load_templates
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.voting.adaptive import RULES, paths_needed
from lmsi_jax.voting.config import AdaptiveConfig


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What is sampled, and when a question's vote is decided."""

    decoding: Decoding
    reader: AnswerReader  # for the answers that adaptive stopping counts
    adaptive: AdaptiveConfig
    engine: str  # "mesh" or "openai"
    endpoint: EndpointConfig
    batching: Batching = untraced(Batching())


def run_sample(runtime: Runtime, settings: SampleSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Sample `paths` for `questions` from `model`. When a server samples, `model` provides only the tokenizer.

    With the input `exemplars` the paths are spread over its templates.
    """
    decoding, questions = settings.decoding, inputs["questions"]
    templates = load_templates(inputs, decoding.prompts, settings.reader.answer_type)
    prompts = templates[0].prompts
    tokenizer = runtime.tokenizer(inputs["model"], control=prompts.chat is not None)
    job = Job(
        decoding=dataclasses.replace(decoding, prompts=prompts),
        batching=settings.batching,
        prefix=prompts.cot_examples,
        requests=requests(questions, prompts, tokenizer),
        checkpoint=inputs["model"],
        output=outputs["paths"],
        scratch=scratch,
        enough=_enough(settings, questions),
    )
    if "exemplars" in inputs:
        spread(runtime, job, templates, questions, settings.engine, settings.endpoint)
        return
    known = _known(runtime, job)
    left, sampled = [request for request in job.requests if request.id not in known], job
    if known:
        console.print(f"{runtime.stage}: paths of {len(known)} of {len(job.requests)} questions are reused from the store")
        sampled = dataclasses.replace(job, requests=left, output=scratch / "sampled.jsonl")
    if left:
        run_job(runtime, sampled, settings.engine, settings.endpoint)
    if known:
        once(settings.engine, lambda: _merge(job, known, sampled.output if left else None))


def _known(runtime: Runtime, job: Job) -> dict[str, list[Record]]:
    """Return the paths that earlier runs sampled for equal prompts of this job, by question."""
    wanted = {request.id: job.prompt_hash(request) for request in job.requests}
    known: dict[str, list[Record]] = {}
    for outputs in runtime.reusable:
        rows: dict[str, list[Record]] = {}
        for row in read_jsonl(outputs["paths"]):
            if wanted.get(row["id"]) == row["prompt_hash"]:
                rows.setdefault(row["id"], []).append(row)
        known |= rows
    return known


def _merge(job: Job, known: Mapping[str, list[Record]], sampled: epath.Path | None) -> None:
    """Write known and sampled paths in the order of the requests."""
    rows = dict(known)
    for row in read_jsonl(sampled) if sampled else ():
        rows.setdefault(row["id"], []).append(row)
    write_jsonl(job.output, (row for request in job.requests for row in rows[request.id]))


def _enough(settings: SampleSettings, questions: epath.Path) -> Enough | None:
    """Return the test of whether a question has enough paths; None to sample the m paths of the paper.

    The test reads answers as the vote does, with the options of each question.
    """
    config = settings.adaptive
    if config.rule == "none":
        return None
    choices = {row["id"]: row["choices"] for row in load_questions(questions)}
    decided = RULES[config.rule](config, settings.decoding.sampling.paths)

    def enough(paths: Sequence[SampledPath]) -> int:
        rows = [{"text": path.text, "finish": path.finish} for path in paths]
        return paths_needed(settings.reader.read(rows, choices[paths[0].id]).values, decided, config.floor) or 0

    return enough
