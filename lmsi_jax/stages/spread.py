"""Spreads the paths of a question over several prompts with other exemplars, which then vote together (section 3.3)."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.decoding.config import EndpointConfig
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.stages.decode import Job, requests
from lmsi_jax.stages.jobs import once, run_job
from lmsi_jax.stages.templates import Template
from lmsi_jax.tasks.questions import load_questions


def spread(
    runtime: Runtime, job: Job, templates: Sequence[Template], questions: epath.Path, engine: str, endpoint: EndpointConfig
) -> None:
    """Write the paths of a job whose prompts are those of the first template, spread evenly over all templates.

    The row of a path has the number of its `template`. A template that shows a question with its solution gives that question
    no paths. Path p of template t is path p T + t of its question, where T is the number of templates, so that the first paths
    of a question are of different templates. Raises UserError when no question is left.
    """
    paths = job.decoding.sampling.paths
    used, texts = templates[:paths], {row["id"]: row["question"] for row in load_questions(questions)}
    if all(text in template.asked for text in texts.values() for template in used):
        raise UserError(
            f"All {len(texts)} questions are exemplars of every template, so that none is left to sample paths for; give more "
            f"questions, or lower --config.data.templates or --config.data.shots."
        )
    if len(used) == 1:
        left = [request for request in job.requests if texts[request.id] not in used[0].asked]
        run_job(runtime, dataclasses.replace(job, requests=left), engine, endpoint)
        return
    tokenizer = runtime.tokenizer(job.checkpoint, control=job.decoding.prompts.chat is not None)
    shards = runtime.mesh.size("batch")
    counts = [paths // len(used) + (number < paths % len(used)) for number in range(len(used))]
    parts = []
    for number, (template, count) in enumerate(zip(used, counts, strict=True)):
        part = _part(job, number, template.prompts, count, shards)
        asked = requests(questions, template.prompts, tokenizer)
        part = dataclasses.replace(part, requests=[request for request in asked if texts[request.id] not in template.asked])
        run_job(runtime, part, engine, endpoint)
        parts.append(part.output)
    order = [request.id for request in job.requests]
    once(engine, lambda: _merge(order, parts, job.output))


def _part(job: Job, number: int, prompts: Prompts, count: int, shards: int) -> Job:
    """Return the job of one template, which samples `count` paths per question. As many rows are in flight as otherwise."""
    decoding, batching = job.decoding, job.batching
    slots = min(batching.slots, count)
    widened = batching.lanes * min(batching.slots, decoding.sampling.paths) // slots // shards * shards
    return dataclasses.replace(
        job,
        decoding=dataclasses.replace(
            decoding,
            prompts=prompts,
            stream=(*decoding.stream, "template", number),
            sampling=dataclasses.replace(decoding.sampling, paths=count),
        ),
        batching=dataclasses.replace(batching, lanes=widened, slots=slots),
        prefix=prompts.cot_examples,
        output=job.scratch / f"{job.output.stem}-template-{number}.jsonl",
        scratch=job.scratch / f"{job.output.stem}-template-{number}",
        part=f"{job.part} template {number}".strip().replace(" ", "-"),
        largest=job.largest or (decoding.sampling, batching),
    )


def _merge(order: Sequence[str], parts: Sequence[epath.Path], output: epath.Path) -> None:
    rows: dict[str, list[Record]] = {id: [] for id in order}
    for number, part in enumerate(parts):
        for row in read_jsonl(part):
            rows[row["id"]].append({**row, "path": row["path"] * len(parts) + number, "template": number})
    write_jsonl(output, (row for id in order for row in sorted(rows[id], key=lambda row: row["path"])))
