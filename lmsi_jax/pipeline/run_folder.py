"""The paths of the files of a run. No other module spells them out."""

import dataclasses
from collections.abc import Mapping

from etils import epath

from lmsi_jax.core.files import absolute

Files = Mapping[str, epath.Path]  # the inputs or outputs of a stage by its own names for them, such as "questions"


def stage_file(folder: epath.Path, stage: str, ending: str, part: str = "") -> epath.Path:
    """Return the path in `folder` of a stage or of one part of it, such as FOLDER/rounds-1-sample.json for ".json"."""
    return folder / f"{'-'.join(filter(None, (stage.replace('/', '-'), part)))}{ending}"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths in the work directory of a run, on a disk or in a bucket. Nothing is read or written here.

    A group, such as "rounds/1", is what a recipe samples, votes and formats together. Models have names, such as "base" and
    "round-1". The run does not copy a base model: it reads the model from its own checkpoint folder.
    """

    root: epath.Path

    @classmethod
    def at(cls, workdir: str) -> "RunFolder":
        """Return the run folder of a --workdir."""
        return cls(absolute(workdir))

    @property
    def config(self) -> epath.Path:
        """The resolved config."""
        return self.root / "config.json"

    @property
    def history(self) -> epath.Path:
        """The recipe, the order of its stages, and the command line and versions of each start."""
        return self.root / "run.json"

    @property
    def questions(self) -> epath.Path:
        """The questions to train on, without gold answers."""
        return self.root / "questions.jsonl"

    def given(self, name: str) -> epath.Path:
        """The questions, gold answers or leaks of the questions from which a model writes those to train on."""
        return self.root / "given" / f"{name}.jsonl"

    @property
    def written(self) -> epath.Path:
        """The questions that a model wrote, also those that the filters refuse."""
        return self.root / "given" / "written.jsonl"

    @property
    def proposals(self) -> epath.Path:
        """The questions that a model wrote, with what the vote of the first round says of them."""
        return self.root / "proposals.jsonl"

    @property
    def exemplars(self) -> epath.Path:
        """The few-shot exemplars that a model wrote."""
        return self.root / "exemplars.jsonl"

    @property
    def held_out(self) -> epath.Path:
        """The questions to score, with gold answers."""
        return self.root / "held_out.jsonl"

    @property
    def gold(self) -> epath.Path:
        """The gold answers of the questions to train on, for the audit only."""
        return self.root / "audit" / "gold.jsonl"

    @property
    def leaks(self) -> epath.Path:
        """The held-out questions that overlap with questions to train on."""
        return self.root / "audit" / "leaks.jsonl"

    @property
    def copies(self) -> epath.Path:
        """The questions that were left out, since they are near copies of others."""
        return self.root / "audit" / "copies.jsonl"

    @property
    def report(self) -> epath.Path:
        return self.root / "report.html"

    @property
    def card(self) -> epath.Path:
        """What the report says, on one page of Markdown."""
        return self.root / "card.md"

    def paths(self, group: str) -> epath.Path:
        return self.root / group / "paths.jsonl"

    def steps(self, group: str) -> epath.Path:
        """The steps of the paths, with verdicts."""
        return self.root / group / "steps.jsonl"

    def votes(self, group: str) -> epath.Path:
        return self.root / group / "votes.jsonl"

    def reviews(self, group: str) -> epath.Path:
        """People's verdicts on the votes and paths of a group."""
        return self.root / group / "reviews.jsonl"

    def rankings(self, group: str) -> epath.Path:
        """People's rankings of paths of one question."""
        return self.root / group / "rankings.jsonl"

    def interventions(self, group: str) -> epath.Path:
        """The edited beginnings of paths, from which a model goes on."""
        return self.root / group / "interventions.jsonl"

    def edits(self, group: str) -> epath.Path:
        """The sentences of paths that a model edited."""
        return self.root / group / "edits.jsonl"

    def answers(self, group: str) -> epath.Path:
        """The interventions with the answers of a model."""
        return self.root / group / "answers.jsonl"

    @property
    def measures(self) -> epath.Path:
        """The measures of faithfulness of all models."""
        return self.root / "measures.jsonl"

    def suggested(self, name: str) -> epath.Path:
        """Questions with a suggested answer: those to train on ("train") or those to audit with ("held_out")."""
        return self.root / "suggested" / f"{name}.jsonl"

    def examples(self, group: str) -> epath.Path:
        """The training rows of a group."""
        return self.root / group / "examples.jsonl"

    def pairs(self, group: str) -> epath.Path:
        """The preference pairs of a group."""
        return self.root / group / "pairs.jsonl"

    def mixture(self, group: str) -> epath.Path:
        """The training rows of a group for all tasks of the run, if it has several."""
        return self.root / group / "mixture.jsonl"

    def model(self, name: str) -> epath.Path:
        """The checkpoint folder of a model that the run trains."""
        return self.root / "models" / name

    def scores(self, model: str, prompting: str) -> epath.Path:
        return self.root / "eval" / model / f"{prompting}.jsonl"

    @property
    def rollouts(self) -> epath.Path:
        """The paths of reinforcement learning, with their rewards and advantages."""
        return self.root / "rollouts.jsonl"

    @property
    def quality(self) -> epath.Path:
        """How well a reward model predicts held-out rankings."""
        return self.root / "quality.json"

    @property
    def guard(self) -> epath.Path:
        """What the guard of reinforcement learning saw: why it ended the run, and which state it kept."""
        return self.root / "guard.json"

    def transfer(self, model: str) -> epath.Path:
        """The scores of a model with other prompts and on other tasks."""
        return self.root / "transfer" / f"{model}.jsonl"

    def text_loss(self, model: str) -> epath.Path:
        """The loss of a model on texts like those that its base was trained on."""
        return self.root / "transfer" / f"{model}-texts.jsonl"

    def corpus(self, name: str) -> epath.Path:
        """The texts to pre-train on ("train"), or those of the validation loss ("held_out")."""
        return self.root / "corpus" / f"{name}.jsonl"

    def curve(self, model: str) -> epath.Path:
        """The held-out losses of a pre-training run."""
        return self.root / "curves" / f"{model}.jsonl"

    def scaling(self, name: str) -> epath.Path:
        """The `points`, `curves` or `rates` of scaling runs, or the `fits` of laws to them."""
        return self.root / "scaling" / f"{name}.jsonl"

    @property
    def tokenizer(self) -> epath.Path:
        """The tokenizer that a pre-training run trains."""
        return self.root / "tokenizer" / "tokenizer.model"

    @property
    def metrics(self) -> epath.Path:
        """The folder of the metrics of all stages."""
        return self.root / "metrics"

    def stage_metrics(self, stage: str, part: str = "") -> epath.Path:
        """The metrics of one stage, or of one part of it."""
        return stage_file(self.metrics, stage, ".jsonl", part)

    def manifest(self, stage: str) -> epath.Path:
        """The manifest of a finished stage: the inputs, settings and code that it ran with."""
        return stage_file(self.root / "manifests", stage, ".json")

    def scratch(self, stage: str) -> epath.Path:
        """The folder of a stage's partial results."""
        return stage_file(self.root / "scratch", stage, "")

    def label(self, path: epath.Path) -> str:
        """Return a path as messages and manifests show it: relative to the work directory if it is inside."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
