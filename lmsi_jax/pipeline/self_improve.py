"""Large Language Models Can Self-Improve (Huang et al. 2022, arXiv 2210.11610), as a list of stages.

    questions -> sample m paths -> vote -> format in four styles -> fine-tune -> evaluate -> next round

Read top to bottom, this is the paper. No stage of a round reads a gold answer.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from etils import epath

from lmsi_jax.analysis.report import write_report
from lmsi_jax.checkpoint.folder import locate
from lmsi_jax.core.build import to_dict
from lmsi_jax.core.records import fingerprint
from lmsi_jax.evaluation.compare import PROMPTINGS
from lmsi_jax.pipeline import steps
from lmsi_jax.pipeline.evaluate import evaluate
from lmsi_jax.pipeline.session import Session
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.pipeline.vote import format_file, vote_file
from lmsi_jax.tasks import answers
from lmsi_jax.tasks.registry import is_scored

UNSEEN = ("save_every", "log_every", "profile")  # settings of training that leave no trace in its result


class SelfImprove:
    """The stages of a run under one work directory."""

    def __init__(self, session: Session, workdir: epath.Path):
        self.session, self.config, self.workdir = session, session.config, workdir
        self.questions = workdir / "questions.jsonl"
        self.gold = workdir / "audit" / "gold.jsonl"
        self.held_out = workdir / "held_out.jsonl"
        self.leaks = workdir / "audit" / "leaks.jsonl"
        self.metrics = workdir / "metrics"
        self.scored = is_scored(self.config.data)
        self.sections = to_dict(self.config)

    def stages(self) -> Iterator[Stage]:
        yield self.prepare()
        made: list[Stage] = []
        for number in range(self.config.rounds + 1):
            if number:
                made += [self.sample(number), self.vote(number), self.format(number), self.finetune(number)]
            if self.scored:
                made.append(self.evaluate(number))
        yield from made
        yield self.report(made)

    def round(self, round: int) -> epath.Path:
        return self.workdir / "rounds" / str(round)

    def checkpoint(self, number: int) -> epath.Path:
        """The model after round `number`; 0 is the base."""
        return locate(self.config.model.checkpoint) if number == 0 else self.round(number) / "model"

    def settings(self, section: str, *without: str) -> dict[str, Any]:
        """What a stage's result depends on, of one section: not how often it is saved or how it is batched."""
        return {section: {key: value for key, value in self.sections[section].items() if key not in without}}

    def decoding(self, number: int) -> dict[str, Any]:
        """What decoding with the model after round `number` depends on, beside model and questions."""
        sample = self.config.sample
        names = ("paths", "top_k", "top_p", "max_tokens", "stops")
        return {
            "seed": self.config.seed,
            **self.prompt(),
            "dtype": self.config.model.dtype,
            "temperature": self.session.temperature(number),
            **{name: getattr(sample, name) for name in names},
            **({"weights": sample.weights} if sample.weights != "stored" else {}),
        }

    def server(self) -> dict[str, Any]:
        """Which model of a server samples, if it is not the one here; its address may change."""
        endpoint = self.config.sample.endpoint
        asked = {"model": endpoint.model, "api": endpoint.api}
        return {"endpoint": asked} if self.config.sample.engine == "openai" else {}

    def prompt(self) -> dict[str, Any]:
        """What the prompts depend on, beside the questions."""
        return {"prompts": fingerprint(dataclasses.asdict(self.session.prompts))}

    def reading(self) -> dict[str, Any]:
        """What the extraction of answers depends on."""
        task = self.session.task
        return {"answer_type": task.answer_type, "labels": task.labels, "extractor": answers.VERSION}

    def prepare(self) -> Stage:
        data = self.config.data
        files = tuple(epath.Path(name) for name in (data.questions, data.eval_questions) if name)
        outputs = (self.questions, self.gold, self.held_out, self.leaks)
        return Stage(
            "prepare",
            files,
            outputs,
            {"seed": self.config.seed, **self.settings("data", "exemplars", "shots", "chat")},
            lambda scratch: steps.prepare(self.session, *outputs),
        )

    def sample(self, round: int) -> Stage:
        checkpoint, output = self.checkpoint(round - 1), self.round(round) / "paths.jsonl"
        return Stage(
            f"rounds/{round}/sample",
            (self.questions, checkpoint),
            (output,),
            {**self.decoding(round - 1), "adaptive": self.sections["sample"]["adaptive"], **self.server()},
            lambda scratch: steps.sample(self.session, round, str(checkpoint), self.questions, output, scratch, self.metrics),
            on_mesh=self.config.sample.engine == "mesh",
        )

    def vote(self, round: int) -> Stage:
        paths, output = self.round(round) / "paths.jsonl", self.round(round) / "votes.jsonl"
        select, sample = self.config.select, self.config.sample
        planned = 0 if sample.adaptive.rule == "none" else sample.paths
        return Stage(
            f"rounds/{round}/vote",
            (self.questions, paths),
            (output,),
            {**self.reading(), "tie": select.tie, "vote": select.vote, **({"planned": planned} if planned else {})},
            lambda scratch: vote_file(paths, output, self.session.task, select, self.questions, planned),
        )

    def format(self, round: int) -> Stage:
        folder = self.round(round)
        inputs = (self.questions, folder / "paths.jsonl", folder / "votes.jsonl")
        gold = (self.gold,) if self.config.select.rule == "gold" else ()  # the upper-bound control, by name only
        output = folder / "examples.jsonl"
        return Stage(
            f"rounds/{round}/format",
            inputs + gold,
            (output,),
            {
                "seed": self.config.seed,
                **self.prompt(),
                **self.reading(),
                **self.settings("select"),
                **self.settings("format"),
            },
            lambda scratch: format_file(self.config, self.session.task, self.session.prompts, *inputs, output, *gold),
        )

    def finetune(self, round: int) -> Stage:
        start = self.checkpoint(0 if self.config.train_from == "base" else round - 1)
        examples, target = self.round(round) / "examples.jsonl", self.round(round) / "model"
        return Stage(
            f"rounds/{round}/finetune",
            (examples, start),
            (target,),
            {"seed": self.config.seed, "dtype": self.config.model.dtype, **self.settings("finetune", *UNSEEN)},
            lambda scratch: steps.finetune(self.session, round, str(start), examples, target, scratch, self.metrics),
            on_mesh=True,
        )

    def evaluate(self, number: int) -> Stage:
        checkpoint, folder = self.checkpoint(number), self.workdir / "eval" / str(number)
        wanted = [name for name in PROMPTINGS if name != "self_consistency" or self.config.evaluate.self_consistency]
        scores = {name: folder / f"{name}.jsonl" for name in wanted}
        return Stage(
            f"eval/{number}/evaluate",
            (self.held_out, checkpoint),
            tuple(scores.values()),
            {**self.decoding(number), **self.reading(), **self.settings("evaluate")},
            lambda scratch: evaluate(self.session, number, str(checkpoint), self.held_out, scores, scratch, self.metrics),
            on_mesh=True,
        )

    def report(self, made: list[Stage]) -> Stage:
        output = self.workdir / "report.html"
        records = [path for stage in made for path in stage.outputs if path.suffix == ".jsonl"]
        return Stage(
            "report",
            (self.questions, self.gold, self.leaks, *records),
            (output,),
            {"config": self.sections},
            lambda scratch: write_report(self.workdir),
        )
