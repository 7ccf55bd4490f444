"""`lmsi ask`: one question, many paths, and their vote, live in the terminal."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import flags
from etils import epath
from rich.live import Live
from rich.table import Table

from lmsi_jax.analysis.limits.votes import BINS
from lmsi_jax.checkpoint.config import resolve_numerics
from lmsi_jax.core import rng
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, dumps, read_jsonl
from lmsi_jax.core.settings import part, require
from lmsi_jax.decoding import memory
from lmsi_jax.decoding.config import Batching
from lmsi_jax.decoding.scheduler import Engine, Request, SampledPath
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.formatting.prompts import check_control_tokens
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.parts import Parts
from lmsi_jax.recipes.shared_config import require_given_exemplars
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.voting.majority import Vote, vote

TOKENS = 96  # least length of a question that decoding is compiled for, so that other questions reuse the programs
BLOCK = 32  # tokens to whose multiple longer questions are padded
SHOWN = 8  # answers in the table
WIDTH = 40  # characters of the longest bar

Seen = Callable[[Sequence[SampledPath], int], None]  # what is called with the finished paths and the number of all


def ask(config: Config, values: flags.FlagValues, argv: list[str]) -> None:
    """Answer the question of the command line, or each line of standard input."""
    require(config.sample.engine == "mesh", f"sample.engine='{config.sample.engine}': lmsi ask samples on this machine.")
    require_given_exemplars(config)
    asker = Asker(resolve_numerics(config, jax.default_backend()))
    if values.question:
        _show(asker, values.question, as_json=bool(values.json))
        return
    while True:
        try:
            question = input("" if values.json else "question> ").strip()
        except EOFError:
            return
        try:
            if question:
                _show(asker, question, as_json=bool(values.json))
        except UserError as error:  # of one question; the next may be another
            console.print(str(error))


class Asker:
    """A loaded model that answers questions by vote."""

    def __init__(self, config: Config):
        source = config.model
        parts = Parts(config, RunFolder(epath.Path("runs")), source)
        self._decoding, self._reader = parts.sample_settings().decoding, parts.reader
        self._runtime, self._batching = Runtime(config.mesh, epath.Path("runs")), part(config.sample, Batching)
        prompts = self._decoding.prompts
        self._model = self._runtime.load(parts.checkpoint, self._decoding.numerics, control=prompts.chat is not None)
        self._engine: Engine | None = None
        self._scored = held_out_votes(parts.checkpoint)

    def answer(self, question: str, seen: Seen | None = None) -> Record:
        """Return the vote on a question as a record, with its paths. `seen` is called with the paths that are finished."""
        decoding, model, mesh = self._decoding, self._model, self._runtime.mesh
        check_control_tokens([{"id": question[:40], "question": question, "choices": None}], model.tokenizer)
        text, total = decoding.prompts.question(question), decoding.sampling.paths
        length = len(model.tokenizer.encode(text))
        with use_mesh(mesh):
            if self._engine is None or length > self._engine.limits.question:
                longest = -(-max(length, TOKENS) // BLOCK) * BLOCK
                limits = memory.limits(decoding.sampling, self._batching, longest, mesh.size("batch"))
                limits = dataclasses.replace(limits, slots=total)
                self._engine = Engine(mesh, model.config, model.tokenizer, limits)
                self._prefix = self._engine.prefill(model.params, decoding.prompts.cot_examples)

            def enough(paths: Sequence[SampledPath]) -> int:
                if seen:
                    seen(paths, total)
                return 0

            key = rng.stage_key(decoding.seed, "ask")
            request = Request("question", text)
            (paths,) = self._engine.sample(model.params, self._prefix, [request], decoding.sampling, key, enough)
        outcome, answers = self.voted(paths)
        return {
            "question": question,
            "answer": outcome.answer,
            "confidence": outcome.confidence,
            "right": meaning(self._scored, outcome.confidence) if outcome.kept else None,
            "counts": outcome.counts,
            "path": paths[outcome.kept[0]].text if outcome.kept else None,
            "paths": [{"text": path.text, "answer": answer} for path, answer in zip(paths, answers, strict=True)],
        }

    def voted(self, paths: Sequence[SampledPath]) -> tuple[Vote, list[str | None]]:
        """Return the vote of finished paths, and the answer of each."""
        answers = self._reader.read([path.record() for path in paths], None).values
        return vote(answers), answers


def held_out_votes(checkpoint: epath.Path) -> list[Record]:
    """Return scored votes of a model: rows with `confidence`, `correct` and `count`, or none if it was never scored.

    Those of a model of a run are in its work directory; those of the built-in model come with it.
    """
    own = checkpoint / "votes.jsonl"
    of_run = checkpoint.parent.parent / "eval" / checkpoint.name / "self_consistency.jsonl"
    file = own if own.exists() else of_run
    rows = list(read_jsonl(file)) if file.exists() else []
    return [{"count": 1, **row} for row in rows]


def meaning(scored: Sequence[Record], share: float) -> Record | None:
    """Return how often votes with a share in the same range were right on held-out questions, with a 95% interval."""
    low, high = next((low, high) for low, high in BINS if low < share <= high or share == low == 0)
    alike = [row for row in scored if low < row["confidence"] <= high or row["confidence"] == low == 0]
    total = sum(row["count"] for row in alike)
    if not total:
        return None
    right = sum(row["count"] * row["correct"] for row in alike)
    bounds = wilson_interval(round(right), total)
    return {"share": right / total, "low": bounds[0], "high": bounds[1], "n": total, "from": low, "to": high}


def _show(asker: Asker, question: str, *, as_json: bool) -> None:
    """Print the vote on a question. On a terminal, the votes are shown while paths are still sampled."""
    if as_json:
        print(dumps(asker.answer(question)), flush=True)
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def seen(paths: Sequence[SampledPath], total: int) -> None:
            if console.is_terminal:
                live.update(_table(asker.voted(paths)[0].counts, len(paths), total), refresh=True)

        answered = asker.answer(question, seen)
    counts, answer, paths = answered["counts"], answered["answer"], answered["paths"]
    if answer is None:
        console.print(f"None of the {len(paths)} paths declares an answer. The first one says:\n{paths[0]['text'].strip()}")
        return
    console.print(_table(counts, len(paths), len(paths)))
    console.print(f"\n{answered['path'].strip()}\n")
    console.print(f"{answer}: {counts[answer]} of {len(paths)} paths agree. {_right(answered['right'])}")


def _table(counts: Mapping[str, int], finished: int, total: int) -> Table:
    """Return the answers so far with their votes as bars, the most frequent first."""
    table = Table(box=None, show_header=False, caption=f"{finished} of {total} paths", caption_justify="left")
    for answer, count in list(counts.items())[:SHOWN]:
        table.add_row(answer, str(count), "█" * max(1, round(WIDTH * count / total)))
    others = sum(list(counts.values())[SHOWN:])
    if others:
        table.add_row("others", str(others), "█" * max(1, round(WIDTH * others / total)))
    if none := finished - sum(counts.values()):
        table.add_row("no answer", str(none), "")
    return table


def _right(found: Record | None) -> str:
    if found is None:
        return "The model has no scored votes, so that nothing is known about how often such a vote is right."
    return (
        f"On {found['n']:,} held-out questions with a vote share of {found['from']:.0%} to {found['to']:.0%}, "
        f"{found['share']:.0%} of the votes were right ({found['low']:.0%} to {found['high']:.0%})."
    )
