"""Held-out scores of a model: standard prompting, greedy CoT and self-consistency (paper, table 3)."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching
from lmsi_jax.evaluation.config import EvaluateConfig
from lmsi_jax.evaluation.scores import PROMPTINGS, score
from lmsi_jax.evaluation.statistics import mean_estimate, share_estimate
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.stages.decode import Decoding, Job, decode_to_file, requests
from lmsi_jax.stages.path_files import paths_by_question
from lmsi_jax.tasks.questions import check_gold, load_questions


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How a model is scored. `checkpoint` and `model` name the model in the records of its scores."""

    decoding: Decoding  # for self-consistency; greedy decoding uses its stop strings and, for CoT, its max_tokens
    reader: AnswerReader
    task: str
    evaluate: EvaluateConfig
    model: str
    checkpoint: int | str  # in a self-improvement run, the round that trained the model; 0 for the base
    batching: Batching = untraced(Batching())


def promptings(config: EvaluateConfig) -> list[str]:
    """Return the prompting methods that a model is scored with, in the order of the paper's tables."""
    return [name for name in PROMPTINGS if name != "self_consistency" or config.self_consistency]


def run_evaluate(runtime: Runtime, settings: EvaluateSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Score `model` on `held_out` questions with each prompting method in `outputs`, and write a file for each."""
    decoding, batching, held_out = settings.decoding, settings.batching, inputs["held_out"]
    sampling, prompts = decoding.sampling, decoding.prompts
    greedy_batching = batching.for_greedy(runtime.mesh.size("batch"), sampling.paths)
    methods = {
        "standard": (prompts.direct_examples, sampling.greedy(settings.evaluate.standard_tokens), greedy_batching),
        "cot": (prompts.cot_examples, sampling.greedy(sampling.max_tokens), greedy_batching),
        "self_consistency": (prompts.cot_examples, sampling, batching),
    }
    questions = load_questions(held_out)
    check_gold(questions, settings.reader.answer_type, str(held_out))
    question_requests = requests(held_out, prompts, runtime.tokenizer(inputs["model"], control=prompts.chat is not None))
    for prompting, file in outputs.items():
        prefix, drawn, batched = methods[prompting]
        paths = scratch / f"{prompting}.jsonl"
        job = Job(
            decoding=dataclasses.replace(decoding, stream=(*decoding.stream, prompting), sampling=drawn),
            batching=dataclasses.replace(batched, profile=(0, 0)),
            prefix=prefix,
            requests=question_requests,
            checkpoint=inputs["model"],
            output=paths,
            scratch=scratch,
            part=prompting.replace("_", "-"),
            largest=(sampling, batching),
        )
        decode_to_file(runtime, job)
        about = {"prompting": prompting, "checkpoint": settings.checkpoint, "temperature": drawn.temperature}
        title = f"{runtime.stage} {job.part}"
        processes.by_first(functools.partial(_write_scores, settings, questions, paths, file, about, title))


def _write_scores(
    settings: EvaluateSettings,
    questions: Sequence[Record],
    paths: epath.Path,
    file: epath.Path,
    about: Mapping[str, Any],
    title: str,
) -> None:
    rows = score(questions, list(paths_by_question(paths)), settings.reader)
    write_jsonl(file, ({**row, "task": settings.task, **about, "model": settings.model} for row in rows))
    share = share_estimate(sum(r["correct"] for r in rows), len(rows))
    f1 = f", F1 {mean_estimate([r['f1'] for r in rows]).value:.1%}" if "f1" in rows[0] else ""
    console.print(f"{title}: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}] of {len(rows)}{f1}")
