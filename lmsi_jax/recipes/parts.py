"""The stages and checks that recipes share, built from the sections of a root config."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmsi_jax.analysis.summary import read_scores, score_table, summarise
from lmsi_jax.checkpoint import folder as checkpoints
from lmsi_jax.checkpoint.config import Numerics, SourceConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.settings import part
from lmsi_jax.decoding.config import Batching, Sampling
from lmsi_jax.evaluation.config import ScoreConfig
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.recipe import Check
from lmsi_jax.pipeline.run_folder import Files, RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.recipes.shared_config import InterventionConfig, LoopConfig
from lmsi_jax.stages import checks
from lmsi_jax.stages.decode import Decoding
from lmsi_jax.stages.evaluate import EvaluateSettings, promptings, run_evaluate
from lmsi_jax.stages.exemplars import SHOTS, ExemplarSettings, run_exemplars
from lmsi_jax.stages.faithfulness import (
    GreedySettings,
    InterventionSettings,
    MeasureSettings,
    run_answers,
    run_edits,
    run_interventions,
    run_measures,
    run_paths,
)
from lmsi_jax.stages.finetune import FinetuneSettings, run_finetune
from lmsi_jax.stages.format import FormatSettings, run_format
from lmsi_jax.stages.pairs import PairsSettings, run_pairs
from lmsi_jax.stages.prefer import PreferSettings, run_prefer
from lmsi_jax.stages.prepare import PrepareSettings, run_prepare
from lmsi_jax.stages.prompts import load_one_answer_prompts, load_prompts
from lmsi_jax.stages.propose import AgreementSettings, ProposeSettings, run_agreement, run_propose
from lmsi_jax.stages.report import ReportSettings, run_report
from lmsi_jax.stages.sample import SampleSettings, run_sample
from lmsi_jax.stages.steps import StepsSettings, run_steps
from lmsi_jax.stages.transfer import (
    Asked,
    TextLossSettings,
    TransferSettings,
    asked_of,
    asked_with,
    run_text_loss,
    run_transfer,
)
from lmsi_jax.stages.vote import VoteSettings, run_vote
from lmsi_jax.tasks.config import OWN, DataConfig, QuestionConfig
from lmsi_jax.tasks.question_files import question_files
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import answer_reader, load_task
from lmsi_jax.tokenizers import ChatTemplate
from lmsi_jax.training.config import TrainConfig
from lmsi_jax.voting.config import SelectConfig, VoteConfig
from lmsi_jax.voting.select import RULES

# What another task has its own of.
OTHER_TASK: dict[str, Any] = {
    "exemplars": "",
    "shots": 0,
    "answer_type": "",
    "eval_split": "",
    "questions": "",
    "eval_questions": "",
}


class Parts:
    """Builds the stages for one base model, `source`, and for the models that are trained from it.

    With `trained_here` the run trains the base model itself and writes it to the source's checkpoint.
    """

    def __init__(self, config: LoopConfig, folder: RunFolder, source: SourceConfig, *, trained_here: bool = False):
        self._config, self._folder, self._source, self._trained_here = config, folder, source, trained_here
        self._numerics = part(source, Numerics)
        self.reader = answer_reader(config.data)

    @functools.cached_property
    def _prompts(self) -> Prompts:
        return load_prompts(self._config.data, self._source.checkpoint)

    @property
    def checkpoint(self) -> epath.Path:
        """The checkpoint folder of the base model."""
        return epath.Path(self._source.checkpoint) if self._trained_here else checkpoints.locate(self._source.checkpoint)

    @property
    def is_scored(self) -> bool:
        return question_source(self._config.data).is_scored

    def _decoding(self, *stream: str | int, is_trained: bool) -> Decoding:
        """Return how to sample from the base model or a model that the run trained. A base may already be fine-tuned."""
        config, sampling = self._config, part(self._config.sample, Sampling)
        if is_trained or not self._trained_here and checkpoints.is_finetuned(self._source.checkpoint):
            sampling = dataclasses.replace(sampling, temperature=config.sample.temperature_after)
        return Decoding(seed=config.seed, stream=stream, prompts=self._prompts, numerics=self._numerics, sampling=sampling)

    @property
    def contract(self) -> tuple[str, ...]:
        """The checks that hold for the solutions of all questions."""
        return question_source(self._config.data).contract

    @property
    def _checks(self) -> tuple[str, ...]:
        """What makes a path valid, in training and at test time."""
        return self._config.select.resolved_checks(self.contract)

    @property
    def _promptings(self) -> list[str]:
        return promptings(self._config.evaluate, self.reader.answer_type)

    def prepare(self) -> Stage:
        data = self._config.data
        files = {
            f"{name}-{number}" if number else name: file
            for name in ("questions", "eval_questions")
            if getattr(data, name)
            for number, file in enumerate(question_files(getattr(data, name)))
        }
        names, folder = ("questions", "gold", "leaks"), self._folder
        outputs = {name: folder.given(name) if self.writes_questions else getattr(folder, name) for name in names}
        outputs |= {"held_out": folder.held_out} | ({"copies": folder.copies} if data.near_copies else {})
        exemplars = tuple(exemplar.question for exemplar in load_task(data).exemplars)
        settings = PrepareSettings(self._config.seed, part(data, QuestionConfig), exemplars)
        return Stage("prepare", run_prepare, settings, files, outputs)

    @property
    def writes_questions(self) -> bool:
        """Whether the model writes the questions to train on."""
        return self._config.data.source == OWN

    def propose(self, model: epath.Path) -> Stage:
        """Return the stage in which a model writes the questions of the run."""
        folder, sample, data = self._folder, self._config.sample, part(self._config.data, QuestionConfig)
        decoding = self._decoding("propose", is_trained=False)
        settings = ProposeSettings(decoding, data, self._config.propose, sample.engine, sample.endpoint, part(sample, Batching))
        inputs = {"given": folder.given("questions"), "held_out": folder.held_out, "model": model}
        outputs = {name: getattr(folder, name) for name in ("written", "questions", "gold", "leaks")}
        return Stage("propose", run_propose, settings, inputs, outputs, on_mesh=sample.engine == "mesh")

    def agreement(self, group: str) -> Stage:
        """Return the stage that says which of the model's questions its vote agrees on."""
        folder, settings = self._folder, AgreementSettings(self._config.select.min_confidence)
        inputs = {"written": folder.written, "votes": folder.votes(group)}
        return Stage(f"{group}/agreement", run_agreement, settings, inputs, {"proposals": folder.proposals})

    @property
    def _own_exemplars(self) -> Files:
        """The exemplars that the model writes itself, as an input of the stages that use prompts."""
        return {"exemplars": self._folder.exemplars} if self.writes_exemplars else {}

    @property
    def writes_exemplars(self) -> bool:
        """Whether the model writes the exemplars of its prompts."""
        return self._config.data.exemplars == OWN

    def exemplars(self, model: epath.Path) -> Stage:
        """Return the stage in which a model solves questions step by step, as exemplars of the prompts."""
        sample, data, folder = self._config.sample, self._config.data, self._folder
        decoding, batching = self._decoding("exemplars", is_trained=False), part(sample, Batching)
        shots = data.shots or SHOTS
        settings = ExemplarSettings(decoding, self.reader, data.templates, shots, sample.engine, sample.endpoint, batching)
        inputs = {"questions": folder.questions, "model": model}
        outputs, on_mesh = {"exemplars": folder.exemplars}, sample.engine == "mesh"
        return Stage("exemplars", run_exemplars, settings, inputs, outputs, on_mesh=on_mesh)

    def sample_settings(self, number: int = 1) -> SampleSettings:
        """Return the settings for sampling in round `number`, from the model that the round starts with."""
        sample = self._config.sample
        return SampleSettings(
            self._decoding("sample", number, is_trained=number > 1),
            self.reader,
            sample.adaptive,
            sample.engine,
            sample.endpoint,
            part(sample, Batching),
        )

    def sample(self, group: str, number: int, model: epath.Path, questions: epath.Path | None = None) -> Stage:
        """Return the stage that samples paths for `questions`, by default those that the run trains on."""
        settings = self.sample_settings(number)
        inputs = {"questions": questions or self._folder.questions, "model": model, **self._own_exemplars}
        outputs = {"paths": self._folder.paths(group)}
        on_mesh = settings.engine == "mesh"
        return Stage(f"{group}/sample", run_sample, settings, inputs, outputs, on_mesh=on_mesh, by_row="questions")

    def steps(self, group: str, questions: epath.Path | None = None) -> Stage:
        inputs = {"questions": questions or self._folder.questions, "paths": self._folder.paths(group)}
        return Stage(f"{group}/steps", run_steps, StepsSettings(self.reader), inputs, {"steps": self._folder.steps(group)})

    def vote(self, group: str) -> Stage:
        sample, folder, select = self._config.sample, self._folder, part(self._config.select, VoteConfig)
        planned = 0 if sample.adaptive.rule == "none" else sample.paths
        settings = VoteSettings(self.reader, select, planned, self._checks if select.reads_steps else ())
        inputs = {"questions": folder.questions, "paths": folder.paths(group)}
        inputs |= {"steps": folder.steps(group)} if select.reads_steps else {}
        return Stage(f"{group}/vote", run_vote, settings, inputs, {"votes": folder.votes(group)})

    @property
    def format_settings(self) -> FormatSettings:
        return FormatSettings(self._config.seed, self.reader, self._prompts, self._config.select, self._config.format)

    def format(self, group: str) -> Stage:
        config, folder, settings = self._config, self._folder, self.format_settings
        inputs = {"questions": folder.questions, "paths": folder.paths(group), "votes": folder.votes(group)}
        inputs |= {"gold": folder.gold} if RULES[config.select.rule].reads_gold else {}  # a control, not the method
        inputs |= reviews_of(config.select)
        inputs |= self._own_exemplars
        if self.writes_exemplars and config.data.chat:
            inputs["model"] = self.checkpoint  # has the chat template
        return Stage(f"{group}/format", run_format, settings, inputs, {"examples": folder.examples(group)})

    def finetune_settings(self, number: int = 1) -> FinetuneSettings:
        return FinetuneSettings(
            self._config.seed,
            f"finetune {number}",
            self._numerics,
            part(self._config.finetune, TrainConfig),
            self._config.data.chat,
        )

    @property
    def learns_from_pairs(self) -> bool:
        """Whether training compares winning paths with others."""
        return self._config.finetune.objective == "scpo"

    def pairs(self, group: str) -> Stage:
        """Return the stage that makes pairs of winning and other paths."""
        config, folder = self._config, self._folder
        settings = PairsSettings(config.seed, self._prompts, config.finetune.pairs, config.select.min_confidence)
        inputs = {"questions": folder.questions, "paths": folder.paths(group), "votes": folder.votes(group)}
        return Stage(f"{group}/pairs", run_pairs, settings, inputs, {"pairs": folder.pairs(group)})

    def prefer(self, group: str, number: int, model: epath.Path, trained: epath.Path) -> Stage:
        """Return the stage that trains a model on the pairs of a group."""
        config = self._config
        settings = PreferSettings(config.seed, f"prefer {number}", self._numerics, config.finetune, config.data.chat)
        inputs = {"pairs": self._folder.pairs(group), "model": model}
        return Stage(f"{group}/finetune", run_prefer, settings, inputs, {"trained": trained}, on_mesh=True)

    def finetune(
        self, group: str, number: int, model: epath.Path, trained: epath.Path, rows: epath.Path | None = None
    ) -> Stage:
        """Return the stage that trains a model on `rows`, by default those of the group."""
        inputs, settings = {"examples": rows or self._folder.examples(group), "model": model}, self.finetune_settings(number)
        return Stage(f"{group}/finetune", run_finetune, settings, inputs, {"trained": trained}, on_mesh=True)

    def greedy_settings(self, name: str, number: int, options: InterventionConfig, limit: int = 0) -> GreedySettings:
        """Return the settings for the answers of a model, the `number`-th of a run, to the first `limit` questions."""
        sample = self._config.sample
        decoding = self._decoding("greedy", name, is_trained=number > 0)
        return GreedySettings(
            dataclasses.replace(decoding, sampling=dataclasses.replace(decoding.sampling, keep=())),
            self.reader,
            sample.engine,
            sample.endpoint,
            options.answer_tokens,
            limit,
            self._one_answer(options)[0],
            options.interventions.judgements,
            part(sample, Batching),
        )

    def _one_answer(self, options: InterventionConfig) -> tuple[Prompts | None, str]:
        """Return the prompts whose exemplars all have one answer, and that answer, if an intervention needs them."""
        if "always_same" not in options.interventions.kinds:
            return None, ""
        return load_one_answer_prompts(self._config.data, self._source.checkpoint, self._config.seed)

    def faithfulness(self, options: InterventionConfig, models: Mapping[str, epath.Path], limit: int = 0) -> list[Stage]:
        """Return the stages that test whether the answers of models depend on their reasoning. The first one is the base."""
        folder, held_out = self._folder, {"held_out": self._folder.held_out}
        result: list[Stage] = []
        answers: dict[str, epath.Path] = {}
        edits = InterventionSettings(self._config.seed, self.reader, options.interventions, self._one_answer(options)[1])
        for number, (name, model) in enumerate(models.items()):
            greedy, group = self.greedy_settings(name, number, options, limit), f"faithfulness/{number}"
            result += self._answers(group, greedy, edits, {**held_out, "model": model})
            answers |= {name: folder.answers(group), f"{name} paths": folder.paths(group)}
        measured, settings = {**held_out, **answers}, MeasureSettings(self.reader, tuple(models), self._checks)
        return [*result, Stage("faithfulness/measures", run_measures, settings, measured, {"measures": folder.measures})]

    def _answers(self, group: str, greedy: GreedySettings, edits: InterventionSettings, asked: Files) -> list[Stage]:
        """Return the stages that edit the paths of one model and let it go on from the edits."""
        folder, paths, edited = self._folder, self._folder.paths(group), self._folder.interventions(group)
        made: dict[str, epath.Path] = {"held_out": asked["held_out"], "paths": paths}
        result = [Stage(f"{group}/paths", run_paths, greedy, asked, {"paths": paths}, on_mesh=True)]
        if edits.options.edits == "model":
            made["edits"], of_paths = folder.edits(group), {"paths": paths, "model": asked["model"]}
            result.append(Stage(f"{group}/edits", run_edits, greedy, of_paths, {"edits": made["edits"]}, on_mesh=True))
        given, answers = {**asked, "interventions": edited}, {"answers": folder.answers(group)}
        return [
            *result,
            Stage(f"{group}/interventions", run_interventions, edits, made, {"interventions": edited}),
            Stage(f"{group}/answers", run_answers, greedy, given, answers, on_mesh=True),
        ]

    def evaluate_settings(self, name: str, number: int, checkpoint: int | str) -> EvaluateSettings:
        config = self._config
        decoding, batching = self._decoding("evaluate", number, is_trained=number > 0), part(config.sample, Batching)
        decoding = dataclasses.replace(decoding, sampling=dataclasses.replace(decoding.sampling, keep=()))
        return EvaluateSettings(
            decoding,
            self.reader,
            config.data.task,
            part(config.evaluate, ScoreConfig),
            name,
            self._checks,
            checkpoint,
            batching,
        )

    def evaluate(self, name: str, model: epath.Path, number: int, checkpoint: int | str | None = None) -> Stage:
        """Return the stage that scores a model. `number` is the round that trained it, or 0 for the base model."""
        settings = self.evaluate_settings(name, number, number if checkpoint is None else checkpoint)
        outputs = {prompting: self._folder.scores(name, prompting) for prompting in self._promptings}
        inputs = {"held_out": self._folder.held_out, "model": model, **self._own_exemplars}
        return Stage(f"eval/{name}/evaluate", run_evaluate, settings, inputs, outputs, on_mesh=True)

    def transfer(self, name: str, model: epath.Path, number: int) -> list[Stage]:
        """Return the stages that measure a model with other prompts, on other tasks and on texts, as far as they are set."""
        config, data, numerics = self._config.evaluate, self._config.data, self._numerics
        result: list[Stage] = []
        if config.transfer:
            template = checkpoints.load_chat_template(self._source.checkpoint) if data.chat else None
            other = dataclasses.replace(data, **OTHER_TASK, num_eval=config.transfer)
            others = [_other_task(dataclasses.replace(other, task=task), template) for task in config.other_tasks]
            settings = TransferSettings(
                self._decoding("transfer", is_trained=number > 0),
                self.reader,
                (*asked_with(load_task(data), template), *others),
                config.transfer,
                name,
                part(self._config.sample, Batching),
            )
            inputs = {"held_out": self._folder.held_out, "model": model, **self._own_exemplars}
            outputs = {"transfer": self._folder.transfer(name)}
            result.append(Stage(f"transfer/{name}/prompts", run_transfer, settings, inputs, outputs, on_mesh=True))
        if config.texts:
            files = {} if config.texts == "builtin" else {"texts": epath.Path(config.texts)}
            measured = TextLossSettings(config.texts, numerics, self._config.finetune.row_length, name)
            outputs = {"texts": self._folder.text_loss(name)}
            stage = Stage(f"transfer/{name}/texts", run_text_loss, measured, {"model": model, **files}, outputs, on_mesh=True)
            result.append(stage)
        return result


def _other_task(data: DataConfig, template: ChatTemplate | None) -> Asked:
    try:
        if not question_source(data).is_scored:
            raise UserError(f"'{data.task}' has no held-out questions with data.source='{data.source}'; use files or tfds.")
        return asked_of(load_task(data), template, part(data, QuestionConfig))
    except UserError as error:
        raise UserError(f"evaluate.other_tasks: {error}") from error


def reviews_of(select: SelectConfig) -> Files:
    """Return the file of human reviews as an input of the format stage. Raises UserError when it does not exist."""
    if not select.reviews:
        return {}
    file = epath.Path(select.reviews)
    if not file.exists():
        raise UserError(f"select.reviews={file} does not exist; `lmsi review --workdir=W` writes W/rounds/1/reviews.jsonl.")
    return {"reviews": file}


def report(config: Any, folder: RunFolder, made: Sequence[Stage], *, is_part: bool = False) -> Stage:
    """Return the stage that writes the report and the card.

    It runs again when any record of the stages `made` has changed, or any human review. With `is_part` the folder is a part of
    a run, and the stage also writes the files that describe it.
    """
    outputs = [path for stage in made for path in stage.outputs.values() if path.suffix == ".jsonl"]
    reviews = [folder.reviews(stage.name.rpartition("/")[0]) for stage in made if stage.short_name == "vote"]
    records = {folder.label(path): path for path in (*outputs, *(path for path in reviews if path.exists()))}
    settings = ReportSettings(config, tuple(stage.name for stage in made) if is_part else ())
    written = {"report": folder.report, "card": folder.card}
    written |= {"config": folder.config, "history": folder.history} if is_part else {}
    return Stage("report", run_report, settings, records, written, is_shared=False)


def model_checks(section: str, *, samples: bool = True, trains: bool = True) -> list[Check[Any]]:
    """Return the checks of the model in a section of the root config, which the run samples from, trains, or both."""
    prefix, bind = "" if section == "model" else f"{section} ", functools.partial
    result = [
        Check[Any]("devices", checks.devices),
        Check(f"{prefix}checkpoint", bind(checks.checkpoint, section=section)),
        Check(f"{prefix}tokenizer", bind(checks.tokenizer, section=section)),
        Check(f"{prefix}sharding", bind(checks.sharding, section=section, samples=samples, trains=trains)),
    ]
    result += [Check("server", checks.server)] if samples else []
    result += [Check(f"{prefix}memory", bind(checks.training_memory, section=section))] if trains else []
    result.append(Check("texts", checks.texts))
    lengths = Check[Any](f"{prefix}prompts", bind(checks.lengths, section=section, trains=trains))
    return [*result, Check("stop strings", checks.stop_strings), lengths]


def show_scores(folder: RunFolder) -> None:
    """Print the main table of scores, and the path of the report."""
    rows = summarise(read_scores(folder))
    if rows:
        console.print(score_table(rows))
    console.print(f"report: {folder.report}")
