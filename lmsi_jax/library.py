"""lmsi_jax as a library: the commands on files, as functions on lists of records.

    import lmsi_jax as lmsi

    model = lmsi.load("builtin")
    paths = lmsi.sample(model, questions, {"sample.paths": 32})
    votes = lmsi.vote(paths)
    better = lmsi.finetune(model, lmsi.format(questions, paths, votes), "runs/better")

Records are those of the README's table of files. `settings` are those of the config, by their full names; a wrong one raises
`UserError`. The imports are local, so that reading answers, voting and fitting need no JAX.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import build, part
from lmsi_jax.recipes.config import Config
from lmsi_jax.recipes.shared_config import require_likelihood
from lmsi_jax.tasks.task import answer_reader

if TYPE_CHECKING:
    from lmsi_jax.evaluation.compare import Comparison
    from lmsi_jax.pipeline.runtime import Runtime
    from lmsi_jax.recipes.parts import Parts
    from lmsi_jax.scaling.points import Count

Settings = Mapping[str, Any]
OF_MODELS = ("model.", "mesh.")  # sections whose settings belong to a loaded model


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model that `load` has put on the devices of this process."""

    checkpoint: epath.Path
    settings: Settings
    runtime: "Runtime"


def load(checkpoint: str = "builtin", settings: Settings | None = None) -> LanguageModel:
    """Load a checkpoint folder, a Hugging Face folder, or the built-in model; `settings` are of the sections model and mesh.

    >>> load().checkpoint.name
    'builtin'
    """
    from lmsi_jax.checkpoint.config import Numerics
    from lmsi_jax.pipeline.runtime import ModelStore, Runtime

    given = {**(settings or {}), "model.checkpoint": str(checkpoint)}
    if strange := [name for name in given if not name.startswith(OF_MODELS)]:
        raise UserError(f"{strange[0]} is not a setting of a model; give it to the function that uses the model.")
    parts, config = _parts(given)
    runtime = Runtime(config.mesh, epath.Path(tempfile.gettempdir()), models=ModelStore(capacity=2))
    with _quiet():
        runtime.load(parts.checkpoint, part(config.model, Numerics))
    return LanguageModel(parts.checkpoint, given, runtime)


def sample(model: LanguageModel, questions: Sequence[str | Record], settings: Settings | None = None) -> list[Record]:
    """Return `sample.paths` chain-of-thought paths of each question, in the order of the questions.

    A question is a text, or a record with `id`, `question` and `choices`. The prompt is that of `data.task`, by default the
    generated word problems. A path depends on the seed, the id and its number, and not on the other questions.

    >>> paths = sample(load(), ["Tom has 3 pens and Ann has 4 pens. How many pens do they have?"], {"sample.paths": 2})
    >>> [(path["id"], path["path"], path["finish"]) for path in paths]
    [('1', 0, 'stop'), ('1', 1, 'stop')]
    """
    from lmsi_jax.stages.sample import run_sample

    parts, _ = _parts(settings, model)
    with _Folder(model, questions=_questions(questions)) as folder:
        outputs = {"paths": folder.output("paths")}
        run_sample(folder.runtime(model, "sample"), parts.sample_settings(), folder.inputs, outputs, folder.scratch)
        return folder.read("paths")


def extract(texts: Sequence[str], answer_type: str = "number", choices: Sequence[str] | None = None) -> list[str | None]:
    """Return the answer that each text declares, or None. Equivalent answers are replaced by the first of them.

    >>> extract(["3 + 4 = 7. The answer is 7.", "The answer is 7.0", "I do not know."])
    ['7', '7', None]
    """
    return AnswerReader(answer_type).read([{"text": text} for text in texts], choices).values


def vote(
    paths: Sequence[Record], questions: Sequence[str | Record] | None = None, settings: Settings | None = None
) -> list[Record]:
    """Return the majority vote of each question over its paths. Votes by valid steps need the `questions`.

    >>> row = vote([{"id": "1", "path": i, "text": f"The answer is {n}."} for i, n in enumerate((7, 8, 7))])[0]
    >>> row["answer"], row["confidence"], row["kept"]
    ('7', 0.6666666666666666, [0, 2])
    """
    from lmsi_jax.stages.steps import StepsSettings, run_steps
    from lmsi_jax.stages.vote import VoteSettings, run_vote
    from lmsi_jax.tasks.sources import question_source

    config = _config(settings)
    reader, select = answer_reader(config.data), config.select
    if select.reads_steps and questions is None:
        raise UserError(f"select.vote='{select.vote}' checks the steps of paths; give the questions too.")
    named = "data.task" in (settings or {})  # the contract of the default task holds for its own questions only
    contract = question_source(config.data).contract if named else config.data.contract
    checks = select.resolved_checks(contract) if select.reads_steps else ()
    with _Folder(paths=paths, **({} if questions is None else {"questions": _questions(questions)})) as folder:
        if select.reads_steps:
            run_steps(None, StepsSettings(reader), folder.inputs, {"steps": folder.output("steps")})
        run_vote(None, VoteSettings(reader, select, checks=checks), folder.inputs, {"votes": folder.output("votes")})
        return folder.read("votes")


def format(
    questions: Sequence[str | Record], paths: Sequence[Record], votes: Sequence[Record], settings: Settings | None = None
) -> list[Record]:
    """Return the training rows of the paths that agree with their vote, in the formats of `format.formats`.

    >>> paths = [{"id": "1", "path": i, "text": "3 + 4 = 7. The answer is 7."} for i in range(2)]
    >>> rows = format(["What are 3 and 4?"], paths, vote(paths))
    >>> sorted({row["format"] for row in rows})
    ['few_shot_cot', 'few_shot_direct', 'zero_shot_cot', 'zero_shot_direct']
    """
    from lmsi_jax.formatting.prompts import Prompts
    from lmsi_jax.stages.format import FormatSettings, run_format
    from lmsi_jax.tasks.task import load_task

    config = _config(settings)
    wanted = FormatSettings(
        config.seed, answer_reader(config.data), Prompts.of(load_task(config.data)), config.select, config.format
    )
    with _Folder(questions=_questions(questions), paths=paths, votes=votes) as folder:
        run_format(None, wanted, folder.inputs, {"examples": folder.output("examples")})
        return folder.read("examples")


def finetune(model: LanguageModel, examples: Sequence[Record], output: str, settings: Settings | None = None) -> LanguageModel:
    """Train a model on rows with `prompt` and `target`, write it to the folder `output`, and return it.

    >>> import tempfile
    >>> rows = [{"prompt": "Q: What is 1 + 1?\\nA:", "target": " The answer is 2."}]
    >>> few = {"finetune.steps": 1, "finetune.batch": 8, "finetune.row_length": 64, "finetune.warmup": 0}
    >>> finetune(load(), rows, f"{tempfile.mkdtemp()}/better", few).checkpoint.name
    'better'
    """
    from lmsi_jax.checkpoint.folder import check_absent
    from lmsi_jax.stages.finetune import run_finetune

    check_absent(epath.Path(output), "output")
    parts, config = _parts(settings, model)
    require_likelihood(config, "finetune trains on rows, not on pairs")
    with _Folder(model, examples=examples) as folder:
        outputs = {"trained": epath.Path(output)}
        run_finetune(folder.runtime(model, "finetune"), parts.finetune_settings(), folder.inputs, outputs, folder.scratch)
    return load(output, {name: value for name, value in model.settings.items() if name != "model.checkpoint"})


def evaluate(model: LanguageModel, questions: Sequence[Record], settings: Settings | None = None) -> list[Record]:
    """Return a row for each question, which has an `answer`, and each prompting: standard, greedy CoT, self-consistency.

    >>> asked = [{"question": "Tom has 3 pens and Ann has 4 pens. How many pens do they have?", "answer": "7"}]
    >>> rows = evaluate(load(), asked, {"evaluate.self_consistency": False})
    >>> [(row["prompting"], row["gold"]) for row in rows]
    [('standard', '7'), ('cot', '7')]
    """
    from lmsi_jax.stages.evaluate import promptings, run_evaluate

    parts, config = _parts(settings, model)
    name, names = str(model.checkpoint), promptings(config.evaluate, parts.reader.answer_type)
    with _Folder(model, held_out=_questions(questions)) as folder:
        outputs, wanted = {each: folder.output(each) for each in names}, parts.evaluate_settings(name, 0, name)
        run_evaluate(folder.runtime(model, "evaluate"), wanted, folder.inputs, outputs, folder.scratch)
        return [row for each in names for row in folder.read(each)]


def compare(before: Sequence[Record], after: Sequence[Record]) -> "list[Comparison]":
    """Return the gain of each task and prompting between rows of `evaluate`: interval, exact McNemar test, Holm.

    >>> asked = [{"question": "Tom has 3 pens and Ann has 4 pens. How many pens do they have?", "answer": "7"}]
    >>> rows = evaluate(load(), asked, {"evaluate.self_consistency": False})
    >>> [(row.prompting, row.n, row.gain) for row in compare(rows, rows)]
    [('standard', 1, 0.0), ('cot', 1, 0.0)]
    """
    from lmsi_jax.evaluation import compare as evaluation

    sides: list[dict[tuple[str, str], list[Record]]] = [{}, {}]
    for side, rows in zip(sides, (before, after), strict=True):
        for row in rows:
            side.setdefault((row["task"], row["prompting"]), []).append(row)
    return evaluation.compare(*sides)


def reward(model: LanguageModel, questions: Sequence[str | Record], paths: Sequence[Record]) -> list[float]:
    """Return the scores of paths by a reward model. They have mean 0 and variance 1 on the answers that it was trained on.

    >>> reward(load(), ["What are 3 and 4?"], [{"id": "1", "path": 0, "text": "The answer is 7."}])
    Traceback (most recent call last):
    lmsi_jax.core.errors.UserError: ... is not a reward model: ... `lmsi reward` trains one on rankings.
    """
    from lmsi_jax.checkpoint.config import Numerics
    from lmsi_jax.stages.prompts import load_prompts
    from lmsi_jax.stages.reward import TextScorer, score_file

    _, config = _parts(None, model)
    prompts = load_prompts(config.data, config.model.checkpoint)
    with _Folder(questions=_questions(questions), paths=paths) as folder:
        scorer = TextScorer(model.runtime, model.checkpoint, part(config.model, Numerics), prompts)
        score_file(folder.inputs["paths"], folder.inputs["questions"], folder.output("scores"), scorer)
        return [row["score"] for row in folder.read("scores")]


def fit(law: str, points: Sequence[Record], *, count: "Count" = "total", draws: int = 1000) -> Record:
    """Return a scaling law that is fitted to points with `params`, `tokens` and `loss`, with intervals of `draws` resamples.

    >>> import math
    >>> grid = [(n, d) for n in (1e6, 1e7, 1e8, 1e9) for d in (1e8, 1e9, 1e10, 1e11)]
    >>> points = [{"params": n, "tokens": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28} for n, d in grid]
    >>> round(fit("chinchilla_parametric", points, draws=0)["constants"]["alpha"]["value"], 4)
    0.34
    """
    from lmsi_jax.scaling.records import fit_record

    with _Folder(points=points) as folder:
        return fit_record(law, folder.inputs["points"], count, draws, None)


def _config(settings: Settings | None) -> Config:
    """Return the checked root config of settings by their full names."""
    tree: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        *sections, key = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return build(Config, tree)


def _parts(settings: Settings | None, model: LanguageModel | None = None) -> "tuple[Parts, Config]":
    """Return the builder of the settings of stages, and the config, whose number formats suit the platform."""
    import jax

    from lmsi_jax.checkpoint.config import resolve_numerics
    from lmsi_jax.pipeline.run_folder import RunFolder
    from lmsi_jax.recipes.parts import Parts

    if model and (strange := [name for name in settings or {} if name.startswith(OF_MODELS)]):
        raise UserError(f"{strange[0]} belongs to a loaded model; give it to load.")
    config = resolve_numerics(_config({**(model.settings if model else {}), **(settings or {})}), jax.default_backend())
    return Parts(config, RunFolder(epath.Path(tempfile.gettempdir())), config.model), config


def _questions(questions: Sequence[str | Record]) -> list[Record]:
    """Return questions as records; one without an id has its number, counted from 1."""
    return [
        {"id": str(number), **({"question": question} if isinstance(question, str) else question)}
        for number, question in enumerate(questions, 1)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


class _Folder:
    """A folder with the input records of a stage, which lasts as long as a call; meanwhile nothing is printed.

    `inputs` are the files, `model` among them if the stage uses one.
    """

    def __init__(self, model: LanguageModel | None = None, /, **records: Sequence[Record]):
        self._model, self._records = model, records

    def __enter__(self) -> "_Folder":
        with contextlib.ExitStack() as stack:
            self._folder = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(_quiet())
            self.inputs = {name: self._folder / f"{name}.jsonl" for name in self._records}
            for name, rows in self._records.items():
                write_jsonl(self.inputs[name], rows)
            if self._model:
                self.inputs["model"] = self._model.checkpoint
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def output(self, name: str) -> epath.Path:
        """Return the file of an output, which is also an input of later stages."""
        self.inputs[name] = self._folder / f"{name}.jsonl"
        return self.inputs[name]

    def read(self, name: str) -> list[Record]:
        return list(read_jsonl(self.inputs[name]))

    @property
    def scratch(self) -> epath.Path:
        return self._folder / "scratch"

    def runtime(self, model: LanguageModel, stage: str) -> "Runtime":
        """Return the runtime of a stage, which writes its metrics into this folder."""
        return model.runtime.within(stage, metrics=self._folder / "metrics")
