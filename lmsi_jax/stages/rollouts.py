"""Rollouts: the paths that a model in training samples, with their rewards and advantages, as batches for the training loop."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Array, Float

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.core import counters, rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.metric_log import MetricWriter
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.decoding.prefill import Prefix
from lmsi_jax.decoding.scheduler import Engine, Request, SampledPath
from lmsi_jax.formatting.prompts import Prompts, check_control_tokens
from lmsi_jax.model.flops import decoding_flops, training_flops
from lmsi_jax.pipeline.runtime import Model, Runtime
from lmsi_jax.rl import rewards
from lmsi_jax.rl.advantages import ESTIMATORS, path_advantages, positives_weighted
from lmsi_jax.rl.config import GAE, RlConfig
from lmsi_jax.rl.head import policy_of
from lmsi_jax.rl.losses import weights
from lmsi_jax.rl.metrics import Groups, group_metrics, vote_shares
from lmsi_jax.rl.objective import policy_logprobs
from lmsi_jax.rl.rows import PROMPT_BUCKET, Path, Rows, pack_paths
from lmsi_jax.rl.signals import counterpart, twin
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.rules import gather, jit
from lmsi_jax.stages.reward import TextScorer
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.training.batches import batch_rows
from lmsi_jax.training.config import UpdateConfig
from lmsi_jax.training.objective import Batch, hidden_states, place_batch, place_prompts


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How rollouts are sampled, and what they are worth. `sampling` is of rl.paths paths at rl.temperature."""

    seed: int
    numerics: Numerics
    prompts: Prompts
    reader: AnswerReader
    sampling: Sampling
    rl: RlConfig
    batching: Batching = untraced(Batching())


class Rollouts:
    """Batches for the training loop: paths that the present model samples.

    The rollouts of a number are a function of the seed and of the model. They are written before they are trained on. A run
    that resumes among their steps reads them again, so that it trains on the same numbers.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: RolloutSettings,
        train: UpdateConfig,
        questions: epath.Path,
        gold: Mapping[str, Sequence[str]],
        model: Model,
        scratch: epath.Path,
        reward_model: epath.Path | None = None,
    ):
        self._settings, self._rl, self._train, self._gold = settings, settings.rl, train, gold
        self._mesh, self._model, self._scratch = runtime.mesh, model, scratch
        self._questions = load_questions(questions)
        _check(self._questions, self._rl, gold, model)
        self._rewards = {
            name: rewards.make(name, settings.reader, settings.seed, self._rl.checks)
            for name in self._rl.rewards
            if name != rewards.MODEL
        }
        self._scorer = None
        if reward_model:
            self._scorer = TextScorer(runtime, reward_model, settings.numerics, settings.prompts)
        prompts, tokenizer = settings.prompts, model.tokenizer
        self._prefix = tokenizer.start(prompts.cot_examples)
        self.probes = self._questions[: self._rl.probes] if self._rl.check_every else []
        self.twins, others = (self._reworded(kind) for kind in (twin, counterpart))
        differ = all(row["question"] != other["question"] for row, other in zip(self.probes, others, strict=True))
        self.counterparts = others if differ else []
        rows = (*self._questions, *self.twins, *self.counterparts)
        asked = {row["id"]: prompts.question(row["question"], row["choices"]) for row in rows}
        self._asked = {id: tokenizer.encode(text) for id, text in asked.items()}
        shards, longest = self._mesh.size("batch"), max(map(len, self._asked.values()))
        lanes = settings.batching.lanes or -(-self._rl.questions // shards) * shards
        self._gathers = settings.batching.gather
        mesh = self._mesh.gathered if self._gathers else self._mesh
        limits = memory.limits(settings.sampling, settings.batching, longest, lanes)
        self._engine = Engine(mesh, model.config, tokenizer, limits)
        self._metrics = runtime.metrics_file("rollouts")
        self._writer: MetricWriter | None = None
        self._number, self._batches = -1, list[Batch]()
        self.note = ""

    def __call__(self, step: int, model: Any) -> Batch:
        """Return the batch of a step, counted from 1. `model` returns the model before that step."""
        number, part = divmod(step - 1, self._rl.steps_per_batch)
        if number != self._number:
            groups = self._groups(number, model)
            parts = np.array_split(np.arange(len(groups)), self._rl.updates)
            self._number, self._batches = number, [self._batch([groups[i] for i in part]) for part in parts]
        return self._batches[part % self._rl.updates]

    def _reworded(self, kind: Callable[[str, str], str]) -> list[Record]:
        """Return a question of some kind for each probe."""
        seed, name = str(self._settings.seed), kind.__name__
        return [{**row, "id": f"{name} {row['id']}", "question": kind(row["question"], seed)} for row in self.probes]

    def answers(self, questions: Sequence[Record], model: Any, key: Any) -> list[list[str | None]]:
        """Return the answers of `rl.probe_paths` paths of each question: probes, twins or counterparts."""
        sampling = dataclasses.replace(self._settings.sampling, paths=self._rl.probe_paths)
        requests = [Request(row["id"], tokens=tuple(self._asked[row["id"]])) for row in questions]
        policy = self._decoded(model)
        prefix = self._engine.prefill(policy, self._prefix)
        paths = {each[0].id: each for each in self._engine.sample(policy, prefix, requests, sampling, key)}
        read = self._settings.reader.read
        return [read([path.record() for path in paths[row["id"]]], row["choices"]).values for row in questions]

    def end(self, output: epath.Path) -> None:
        """Write all rollouts to one file. Raises UserError when no group had rewards that differ: then nothing was learnt."""
        count = processes.by_first(lambda: len(list(self._scratch.glob("*.jsonl"))))  # a guard may have ended training
        files = [self._file(number) for number in range(count)]
        processes.by_first(lambda: write_jsonl(output, (row for file in files for row in read_jsonl(file))))
        if self._writer is not None:
            self._writer.close()
        if not processes.by_first(lambda: self._taught(read_jsonl(output))):
            raise UserError(
                f"Nothing was learnt: in each of {len(files)} batches of rollouts all paths of a question have equal rewards "
                f"({', '.join(self._rl.rewards)}). Look at rewards in {output}; take other questions, a higher "
                f"--config.rl.temperature, more --config.rl.paths, or another reward."
            )

    def _taught(self, rows: Iterable[Record]) -> bool:
        """Whether some path had an advantage, and scores differed: those of one question, or with values of states any.

        Differences of a penalty or of values alone teach nothing about the rewards.
        """
        trained, scores = False, dict[str, set[float]]()
        for row in rows:
            trained = trained or bool(row["advantage"])
            group = "" if self._rl.advantage == GAE else f"{row['step']} {row['id']}"
            scores.setdefault(group, set()).add(row["score"])
        return trained and any(len(of_group) > 1 for of_group in scores.values())

    def _decoded(self, model: Any) -> Any:
        """Return the policy of a model, gathered once for all steps of decoding if `sample.gather` says so."""
        policy = policy_of(model)
        return gather(self._mesh, policy) if self._gathers else policy

    def _file(self, number: int) -> epath.Path:
        return self._scratch / f"{number:06d}.jsonl"

    def _groups(self, number: int, model: Any) -> Groups:
        """Return the rollouts of a number: those that were written, or new ones."""
        file = self._file(number)
        if processes.by_first(lambda: file.exists()):
            rows = list(read_jsonl(file))
        else:
            present = model()
            rows = [
                row for group in self._with_advantages(self._drawn(number, self._decoded(present)), present) for row in group
            ]
            processes.by_first(lambda: write_jsonl(file, rows))
        groups: dict[str, list[Record]] = {}
        for row in rows:
            groups.setdefault(row["id"], []).append(row)
        measured = group_metrics(list(groups.values()), list(rows[0]["rewards"]))
        self.note = f"reward {measured['reward']:.3f}, vote share {measured['vote_share']:.2f}"
        self._writer = self._writer or MetricWriter(self._metrics, resume_step=number)
        self._writer.write(number + 1, **measured)
        return list(groups.values())

    def _drawn(self, number: int, params: Any) -> Groups:
        """Sample and reward groups. With `redraws`, groups that teach nothing are replaced by those of further questions."""
        rl = self._rl
        key = rng.stage_key(self._settings.seed, "rl", number)
        prefix = self._engine.prefill(params, self._prefix)
        counters.add(operations=decoding_flops(self._model.config, 0, len(self._prefix), ()))
        varied: dict[str, list[Record]] = {}
        equal: dict[str, list[Record]] = {}
        for draw in range(1 + rl.redraws):
            place = number * (1 + rl.redraws) + draw
            rows = batch_rows(self._settings.seed, place, len(self._questions), rl.questions)
            asked = {self._questions[i]["id"]: self._questions[i] for i in rows}  # an epoch may end within a batch
            new = [question for id, question in asked.items() if id not in varied and id not in equal]
            for group in self._sampled(new, params, prefix, key, number):
                teaches = len({row["score"] for row in group}) > 1 and rl.trains_on(*vote_shares([group]))
                (varied if teaches else equal)[group[0]["id"]] = group
            if len(varied) >= rl.questions:
                break
        chosen = [*varied.values(), *equal.values()] if rl.redraws else [(varied | equal)[id] for id in asked]
        return chosen[: rl.questions]

    def _sampled(self, questions: Sequence[Record], params: Any, prefix: Prefix, key: Any, number: int) -> list[list[Record]]:
        """Return the rollouts of each question, with rewards."""
        requests = [Request(row["id"], tokens=tuple(self._asked[row["id"]])) for row in questions]
        sampled = self._engine.sample(params, prefix, requests, self._settings.sampling, key)
        paths = {each[0].id: each for each in sampled}
        for row in questions:
            lengths = [path.num_tokens for path in paths[row["id"]]]
            operations = decoding_flops(self._model.config, len(self._prefix), len(self._asked[row["id"]]), lengths)
            counters.add(tokens=float(sum(lengths)), operations=operations)
        if not questions:
            return []
        asked = [(row["question"], row["choices"], [path.text for path in paths[row["id"]]]) for row in questions]
        scored = self._scorer.score(asked) if self._scorer else [None] * len(questions)
        return [self._rewarded(row, paths[row["id"]], number, own) for row, own in zip(questions, scored, strict=True)]

    def _rewarded(
        self, question: Record, paths: Sequence[SampledPath], number: int, scores: Sequence[float] | None
    ) -> list[Record]:
        rows = [{"step": number + 1, **path.record(("tokens", "logprobs"))} for path in paths]
        answers = self._settings.reader.read(rows, question["choices"]).values
        group = rewards.Group(question, rows, answers, self._settings.sampling.max_tokens, self._gold.get(question["id"]))
        found = processes.by_first(lambda: {name: list(reward(group)) for name, reward in self._rewards.items()})
        found |= {rewards.MODEL: list(scores)} if scores is not None else {}
        totals = [
            sum(weight * found[name][i] for name, weight in zip(self._rl.rewards, self._rl.weights, strict=True))
            for i in range(len(rows))
        ]
        return [
            {
                **row,
                "answer": answers[i],
                "rewards": {name: found[name][i] for name in found},
                "score": totals[i],
                "reward": totals[i],
            }
            for i, row in enumerate(rows)
        ]

    def _with_advantages(self, groups: Groups, model: Any) -> Groups:
        """Return groups with advantages: of each path, or with values of states also of each of its tokens."""
        rl = self._rl
        if rl.beta and rl.kl_where == "reward":
            groups = self._penalised(groups)
        if rl.advantage == GAE:
            return self._with_values(groups, model)
        found = self._limited(ESTIMATORS[rl.advantage](np.array([[row["reward"] for row in group] for group in groups])))
        found = np.where([[rl.trains_on(share)] for share in vote_shares(groups)], found, 0.0)
        return [
            [{**row, "advantage": value} for row, value in zip(group, _rounded(values), strict=True)]
            for group, values in zip(groups, found, strict=True)
        ]

    def _limited(self, advantages: np.ndarray) -> np.ndarray:
        limit = self._rl.advantage_limit
        return np.clip(positives_weighted(advantages, self._rl.positive_weight), -limit, limit)

    def _penalised(self, groups: Groups) -> Groups:
        """Return groups whose rewards are their scores less beta times k1, which is `kl` of each token, summed over a path."""
        packed, batch = self._packed(groups)
        differences = packed.arrays["old_logprobs"] - self._reference(batch)
        of_paths = iter([_rounded(differences[place]) for place in packed.places])

        def penalised(row: Record, kl: list[float]) -> Record:
            rewards = {**row["rewards"], "kl": -sum(kl)}
            return {**row, "rewards": rewards, "reward": row["score"] - self._rl.beta * sum(kl), "kl": kl}

        return [[penalised(row, next(of_paths)) for row in group] for group in groups]

    def _with_values(self, groups: Groups, model: Any) -> Groups:
        """Return groups with lists of `values`, `returns` and `advantages` of tokens; `advantage` is the mean of a path."""
        rl, (packed, batch) = self._rl, self._packed(groups)
        on_tokens = processes.to_host(_values_of(self._model.config)(model, place_batch(self._mesh, batch)))
        values = [np.round(on_tokens[place].astype(np.float64), 6) for place in packed.places]
        paths = [row for group in groups for row in group]
        penalties = [rl.beta * np.array(row.get("kl") or [0.0] * row["num_tokens"]) for row in paths]
        trained = [self._is_trained(row) for row in paths]
        scores = [row["score"] for row in paths]
        advantages, returns = path_advantages(scores, values, penalties, trained, rl.value.gamma, rl.value.lam)
        limited = [_rounded(self._limited(each)) for each in advantages]
        found = iter(
            {"advantage": round(float(np.mean(a)), 6), "advantages": a, "values": v.tolist(), "returns": _rounded(r)}
            for a, v, r in zip(limited, values, returns, strict=True)
        )
        return [[{**row, **next(found)} for row in group] for group in groups]

    def _is_trained(self, path: Record) -> bool:
        return self._rl.truncated == "scored" or bool(path["finish"] != "length")

    def _packed(self, groups: Groups) -> tuple[Rows, Batch]:
        """Return the rows of groups, and the same as a batch."""
        prompts = [[*self._prefix, *self._asked[group[0]["id"]]] for group in groups]
        paths = [
            Path(number, row["tokens"], row["logprobs"], self._is_trained(row))
            for number, group in enumerate(groups)
            for row in group
        ]
        packed = pack_paths(prompts, paths, self._train.row_length, self._mesh.size("batch") * self._train.accumulate)
        return packed, Batch(packed.arrays, place_prompts(self._mesh, packed.prompts, PROMPT_BUCKET))

    def _batch(self, groups: Groups) -> Batch:
        """Return the rows of a step. `weights` are those of all its paths together."""
        packed, batch = self._packed(groups)
        sequences, paths = packed.arrays["sequences"], [row for group in groups for row in group]
        arrays = {
            **packed.arrays,
            "advantages": packed.spread([row["advantages"] if "advantages" in row else row["advantage"] for row in paths]),
            "weights": weights(sequences, self._rl.aggregate, self._settings.sampling.max_tokens).astype(np.float32),
        }
        if self._rl.beta and self._rl.kl_where == "loss":
            arrays["reference_logprobs"] = self._reference(batch)
        if self._rl.advantage == GAE:
            arrays["old_values"] = packed.spread([row["values"] for row in paths])
            arrays["returns"] = packed.spread([row["returns"] for row in paths])
        (count, length), longest = sequences.shape, batch.shared.tokens.shape[1] if batch.shared else 0
        trains = not self._train.lora.rank
        flops = training_flops(self._model.config, count, length, len(packed.prompts), longest, trains_weights=trains)
        counters.add(tokens=float(count * length), operations=flops)
        return Batch(arrays, batch.shared)

    def _reference(self, batch: Batch) -> np.ndarray:
        """Return the log-probabilities of the targets under the initial model."""
        placed = place_batch(self._mesh, batch)
        return processes.to_host(_logprobs_of(self._model.config, self._rl.temperature)(self._model.params, placed))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]


def _check(questions: Sequence[Record], rl: RlConfig, gold: Mapping[str, Sequence[str]], model: Model) -> None:
    """Raise UserError for too few questions, for a gold reward without gold answers, and for control tokens in a question."""
    check_control_tokens(questions, model.tokenizer)
    if len(questions) < rl.questions:
        raise UserError(f"rl.questions={rl.questions}, and there are {len(questions)} questions; lower it, or give more.")
    missing = [row["id"] for row in questions if row["id"] not in gold]
    if set(rewards.READS_GOLD) & set(rl.rewards) and missing:
        raise UserError(
            f"The reward 'gold' needs an answer for each question, and {len(missing)} of {len(questions)} have none, such as "
            f"'{missing[0]}'. The reward 'vote' needs no answers."
        )


@functools.cache
def _values_of(config: Any) -> Any:
    @jit
    def values(model: Any, batch: Batch) -> Float[Array, "n t"]:
        return model.read(hidden_states(config, model.model, batch))

    return values


@functools.cache
def _logprobs_of(config: Any, temperature: float) -> Any:
    @jit
    def logprobs(params: Any, batch: Batch) -> Float[Array, "n t"]:
        return policy_logprobs(config, params, batch, temperature)

    return logprobs
