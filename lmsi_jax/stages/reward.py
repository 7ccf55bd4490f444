"""Trains a reward model on human rankings, and scores answers with one."""

import dataclasses
import functools
import json
import random
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lmsi_jax.checkpoint import folder
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import write_text
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.rng import stable_hash
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.model.config import ModelConfig
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.rl.config import RewardConfig
from lmsi_jax.rl.head import ModelWithHead, WithHead
from lmsi_jax.rl.rankings import Ranking, annotators_agree, load_rankings
from lmsi_jax.rl.reward_model import (
    Answers,
    RewardHead,
    bucket,
    pack_rankings,
    quality,
    reward_objective,
    scores,
)
from lmsi_jax.rl.rows import PROMPT_BUCKET
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.mesh import Mesh
from lmsi_jax.sharding.rules import jit, use_mesh
from lmsi_jax.stages.finetune import training_run
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tokenizers import Tokenizer
from lmsi_jax.training.batches import batch_rows
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.loop import train
from lmsi_jax.training.objective import Batch, place_batch, place_prompts
from lmsi_jax.training.trainable import trainable

ROWS = 8  # per shard, in scoring
ANSWERS = 4  # to one question in a row, in scoring: they share its prompt


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """How a reward model is trained."""

    seed: int
    numerics: Numerics
    prompts: Prompts
    reward: RewardConfig
    train: UpdateConfig


def run_reward(runtime: Runtime, settings: RewardSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Train `model` on a part of the `rankings`, and write the checkpoint folder `trained`, with the head of its scores.

    `quality` is what the scores are worth on the other rankings, which have other prompts. Raises UserError when either part
    would be empty, or a ranking does not fit into a row.
    """
    config, source, mesh = settings.train, folder.name_of(inputs["model"]), runtime.mesh
    model = runtime.load(inputs["model"], settings.numerics, control=settings.prompts.chat is not None)
    rankings = load_rankings(inputs["rankings"])
    check_lengths(rankings, settings, model.tokenizer, model.config.context)
    kept, held_out = split(rankings, settings.reward.held_out, settings.seed)
    items = [tokens_of(ranking, settings, model.tokenizer) for ranking in kept]
    most = max(len(item.ranks) for item in items)
    arrays = WithHead(trainable(model.config, config), model.config)
    seed, shards = stable_hash(f"{settings.seed} reward"), mesh.size("batch") * config.accumulate
    rows = -(-settings.reward.batch // shards) * shards

    def batches(step: int, model: Any) -> Batch:
        chosen = [items[i] for i in batch_rows(seed, step - 1, len(items), settings.reward.batch)]
        packed, prompts = pack_rankings(chosen, config.row_length, most, rows)
        return Batch(packed, place_prompts(mesh, prompts, PROMPT_BUCKET))

    with training_run(runtime, config, seed, scratch) as run:
        objective = reward_objective(model.config, settings.reward.centring, config.remat)
        trained = train(objective, batches, arrays, (), model.params, config, run)
        params, head = arrays.merged(model.params, trained), processes.to_host(trained["head"])
        scorer = ModelWithHead(params, jnp.asarray(head))
        found = score_items(mesh, model.config, scorer, items, config.row_length)
        flat = np.concatenate(found)
        wraps = settings.reward.prompt == "question"
        normal = RewardHead(tuple(map(float, head)), float(flat.mean()), float(flat.std()) or 1.0, wraps)
        tested = [tokens_of(ranking, settings, model.tokenizer) for ranking in held_out]
        on_tested = score_items(mesh, model.config, scorer, tested, config.row_length)
        measured = quality(
            [list(map(float, each)) for each in on_tested],
            [list(item.ranks) for item in tested],
            [[len(answer) for answer in item.answers] for item in tested],
        )
        files = {**folder.companions(source), folder.REWARD_HEAD: normal.to_json()}
        stored = dataclasses.replace(folder.load_config(source), dtype=model.config.dtype)
        folder.save(outputs["trained"], stored, params, files, finetuned_from=source)
    agreement = annotators_agree(rankings)
    about = {
        "rankings": len(rankings),
        "held_out_rankings": len(held_out),
        **dataclasses.asdict(measured),
        "annotators_agree": None if agreement is None else agreement.raw,
        "mean": normal.mean,
        "deviation": normal.deviation,
    }
    processes.by_first(lambda: write_text(outputs["quality"], json.dumps(about, indent=2) + "\n"))
    console.print(
        f"{runtime.stage}: {measured.accuracy:.1%} of {measured.pairs:,} held-out pairs in the right order, calibration error "
        f"{measured.calibration_error:.3f}"
    )


def split(rankings: Sequence[Ranking], share: float, seed: int) -> tuple[list[Ranking], list[Ranking]]:
    """Return the rankings to train on, and the held-out share of the prompts with all their rankings."""
    prompts = sorted({ranking.prompt for ranking in rankings})
    count = round(share * len(prompts))
    if not 0 < count < len(prompts):
        raise UserError(
            f"reward.held_out={share} of {len(prompts)} different prompts leaves {len(prompts) - count} to train on and "
            f"{count} to test with; both need at least one."
        )
    held_out = set(random.Random(f"held out {seed}").sample(prompts, count))
    kept, tested = ([r for r in rankings if (r.prompt in held_out) == out] for out in (False, True))
    return kept, tested


def tokens_of(ranking: Ranking, settings: RewardSettings, tokenizer: Tokenizer) -> Answers:
    """Return the tokens of a ranking: its prompt as a question of the task or as it is, and its answers, each with an end."""
    wraps = settings.reward.prompt == "question"
    prompt = settings.prompts.render("zero_shot_direct", ranking.prompt) if wraps else ranking.prompt
    texts = [settings.prompts.target(answer) if wraps else answer for answer in ranking.answers]
    end = [tokenizer.eos] if tokenizer.eos >= 0 else []
    return Answers(tokenizer.start(prompt), [[*tokenizer.encode(text), *end] for text in texts], ranking.ranks)


def check_lengths(rankings: Sequence[Ranking], settings: RewardSettings, tokenizer: Tokenizer, context: int) -> int:
    """Return the most tokens that the answers of a ranking take in their row. Raises UserError for one that does not fit."""
    longest, row_length = 0, settings.train.row_length
    for number, ranking in enumerate(rankings, 1):
        item = tokens_of(ranking, settings, tokenizer)
        taken, whole = item.row_tokens, len(item.prompt) + max(map(len, item.answers))
        which = f"Ranking {number:,} of {len(rankings):,}, whose prompt begins with {ranking.prompt[:60]!r},"
        if taken > row_length:
            raise UserError(
                f"{which} has {len(item.answers)} answers of {taken:,} tokens in all, and a row in training has "
                f"row_length={row_length:,}; raise it to {taken:,} or more, or leave the ranking out."
            )
        if whole > context:
            raise UserError(f"{which} has {whole:,} tokens with its longest answer; the model's context has {context:,}.")
        longest = max(longest, taken)
    return longest


def load_scorer(
    runtime: Runtime, checkpoint: epath.Path | str, numerics: Numerics, *, control: bool = False
) -> tuple[Model, ModelWithHead, RewardHead]:
    """Return a reward model, and its head; `control` is that of its tokenizer. Raises UserError for one without a head."""
    file = folder.locate(str(checkpoint)) / folder.REWARD_HEAD
    if not file.exists():
        raise UserError(f"{checkpoint} is not a reward model: it has no {file.name}. `lmsi reward` trains one on rankings.")
    model, head = runtime.load(checkpoint, numerics, control=control), RewardHead.from_json(file.read_bytes())
    return model, ModelWithHead(model.params, jnp.asarray(head.head, jnp.float32)), head


class TextScorer:
    """Scores answers to questions with the reward model of a checkpoint, whose tokenizer may be another than the policy's.

    Scores are normalised: those of the answers that the reward model was trained on have mean 0 and variance 1. Prompts are
    laid out as `reward.prompt` was in training.
    """

    def __init__(
        self, runtime: Runtime, checkpoint: epath.Path | str, numerics: Numerics, prompts: Prompts, row_length: int = 0
    ):
        self._mesh, self._prompts, self._row_length = runtime.mesh, prompts, row_length
        model, self._scorer, self._head = load_scorer(runtime, checkpoint, numerics, control=prompts.chat is not None)
        self._config, self._tokenizer = model.config, model.tokenizer

    def score(self, asked: Sequence[tuple[str, Sequence[str] | None, Sequence[str]]]) -> list[list[float]]:
        """Return the scores of each (question, its choices, answers to it)."""
        end = [self._tokenizer.eos] if self._tokenizer.eos >= 0 else []
        items = []
        for question, choices, texts in asked:
            prompt = self._prompts.render("zero_shot_direct", question, choices) if self._head.wraps else question
            written = [self._prompts.target(text) if self._head.wraps else text for text in texts]
            answers = [[*self._tokenizer.encode(text), *end] for text in written]
            parts = [answers[i : i + ANSWERS] for i in range(0, len(answers), ANSWERS)]
            items += [Answers(self._tokenizer.start(prompt), part, [0] * len(part)) for part in parts]
        found = np.concatenate(score_items(self._mesh, self._config, self._scorer, items, 0)).tolist()
        normal = [(value - self._head.mean) / self._head.deviation for value in found]
        result, start = [], 0
        for _, _, texts in asked:
            result.append(normal[start : start + len(texts)])
            start += len(texts)
        return result


def score_file(paths: epath.Path, questions: epath.Path, output: epath.Path, scorer: TextScorer) -> None:
    """Write the rows of `paths`, each with its `score`. Raises UserError for a path whose question is missing."""
    asked, rows = {row["id"]: row for row in load_questions(questions)}, list(read_jsonl(paths))
    missing = next((row["id"] for row in rows if row.get("id") not in asked), None)
    if missing is not None:
        raise UserError(f"{paths} has a path of the question '{missing}', which is not in {questions}.")
    of_question: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_question.setdefault(row["id"], []).append(place)
    found = scorer.score(
        [
            (asked[id]["question"], asked[id]["choices"], [rows[place]["text"] for place in places])
            for id, places in of_question.items()
        ]
    )
    values = dict[int, float]()
    for places, own in zip(of_question.values(), found, strict=True):
        values |= zip(places, own, strict=True)
    write_jsonl(output, ({**row, "score": round(values[place], 6)} for place, row in enumerate(rows)))
    console.print(f"wrote {output}")


def score_items(
    mesh: Mesh, config: ModelConfig, scorer: ModelWithHead, items: Sequence[Answers], row_length: int
) -> list[np.ndarray]:
    """Return the scores of the answers of each item, on the host. The score of an answer does not depend on its batch."""
    found: list[np.ndarray] = []
    rows, most = ROWS * mesh.size("batch"), max(len(item.answers) for item in items)
    longest = max(item.row_tokens for item in items)
    compiled = _scores(config)
    with use_mesh(mesh):
        for first in range(0, len(items), rows):
            chosen = items[first : first + rows]
            packed, prompts = pack_rankings(chosen, max(bucket(longest), row_length), most, rows)
            placed = place_batch(mesh, Batch(packed, place_prompts(mesh, prompts, PROMPT_BUCKET)))
            values = processes.to_host(compiled(scorer, placed))
            found += [values[r, : len(item.answers)] for r, item in enumerate(chosen)]
    return found


@functools.cache
def _scores(config: ModelConfig) -> Any:
    @jit
    def compiled(scorer: ModelWithHead, batch: Batch) -> jax.Array:
        return scores(config, scorer, batch)

    return compiled
