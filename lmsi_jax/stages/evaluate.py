"""Held-out scores of a model: standard prompting, greedy CoT and self-consistency (paper, table 3)."""

import dataclasses
import functools
from collections.abc import Sequence

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching, EndpointConfig, Sampling
from lmsi_jax.evaluation.config import ScoreConfig
from lmsi_jax.evaluation.scores import PROMPTINGS, score
from lmsi_jax.evaluation.statistics import mean_estimate, share_estimate
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.stages.decode import Decoding, Job, requests
from lmsi_jax.stages.path_files import paths_by_question
from lmsi_jax.stages.spread import spread
from lmsi_jax.stages.templates import load_templates
from lmsi_jax.tasks.questions import check_gold, load_questions


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How a model is scored. `checkpoint` and `model` name the model in the records of its scores."""

    decoding: Decoding  # for self-consistency; greedy decoding uses its stop strings and, for CoT, its max_tokens
    reader: AnswerReader
    task: str
    evaluate: ScoreConfig
    model: str
    checks: tuple[str, ...]  # what makes a path valid in the vote of valid paths first
    checkpoint: int | str  # in a self-improvement run, the round that trained the model; 0 for the base
    batching: Batching = untraced(Batching())


def promptings(config: ScoreConfig, answer_type: str) -> list[str]:
    """Return the prompting methods that a model is scored with, in the order of the paper's tables."""
    voted = config.self_consistency
    left_out = {"self_consistency": not voted, "valid_first": not (voted and config.valid_first and answer_type == "number")}
    return [name for name in PROMPTINGS if not left_out.get(name)]


def run_evaluate(runtime: Runtime, settings: EvaluateSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Score `model` on `held_out` questions with each prompting method in `outputs`, and write a file for each."""
    decoding, batching, held_out = settings.decoding, settings.batching, inputs["held_out"]
    templates = load_templates(inputs, decoding.prompts, settings.reader.answer_type)
    sampling, prompts = decoding.sampling, templates[0].prompts
    greedy_batching = batching.for_greedy(runtime.mesh.size("batch"), sampling.paths)
    methods = {
        "standard": (sampling.greedy(settings.evaluate.standard_tokens), greedy_batching),
        "cot": (sampling.greedy(sampling.max_tokens), greedy_batching),
        "self_consistency": (sampling, batching),
    }
    questions = load_questions(held_out)
    check_gold(questions, settings.reader.answer_type, str(held_out))
    tokenizer = runtime.tokenizer(inputs["model"], control=prompts.chat is not None)
    for prompting, (drawn, batched) in methods.items():
        if prompting not in outputs:
            continue
        paths, reasons = scratch / f"{prompting}.jsonl", prompting != "standard"
        job = Job(
            decoding=dataclasses.replace(decoding, prompts=prompts, stream=(*decoding.stream, prompting), sampling=drawn),
            batching=dataclasses.replace(batched, profile=(0, 0)),
            prefix=prompts.cot_examples if reasons else prompts.direct_examples,
            requests=requests(held_out, prompts, tokenizer, reasoning=reasons),
            checkpoint=inputs["model"],
            output=paths,
            scratch=scratch,
            part=prompting.replace("_", "-"),
            largest=(sampling, batching),
        )
        spread(runtime, job, templates, held_out, "mesh", EndpointConfig())
        processes.by_first(
            functools.partial(_write_scores, runtime.stage, settings, questions, paths, outputs, prompting, drawn)
        )


def _write_scores(
    stage: str,
    settings: EvaluateSettings,
    questions: Sequence[Record],
    paths: epath.Path,
    outputs: Files,
    prompting: str,
    sampling: Sampling,
) -> None:
    """Write the scores of decoded paths, and for self-consistency those of the vote of valid paths first too."""
    votes = {prompting: None} | ({"valid_first": settings.checks} if prompting == "self_consistency" else {})
    decoded = list(paths_by_question(paths))
    for name, checks in votes.items():
        if name not in outputs:
            continue
        about = {"prompting": name, "checkpoint": settings.checkpoint, "temperature": sampling.temperature}
        rows = score(questions, decoded, settings.reader, checks)
        write_jsonl(outputs[name], ({**row, "task": settings.task, **about, "model": settings.model} for row in rows))
        share = share_estimate(sum(r["correct"] for r in rows), len(rows))
        f1 = f", F1 {mean_estimate([r['f1'] for r in rows]).value:.1%}" if "f1" in rows[0] else ""
        title = f"{stage} {name.replace('_', '-')}"
        console.print(f"{title}: {share.value:.1%} [{share.low:.1%}, {share.high:.1%}] of {len(rows)}{f1}")
