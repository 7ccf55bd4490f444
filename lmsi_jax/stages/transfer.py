"""What a score of held-out questions does not show: accuracy with other prompts and on other tasks, and what was forgotten."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.checkpoint.config import Numerics
from lmsi_jax.checkpoint.folder import load_chat_template
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.evaluation.scores import score
from lmsi_jax.formatting.packing import PackedRows, Piece, pack
from lmsi_jax.formatting.prompts import check_control_tokens
from lmsi_jax.formatting.variants import QUESTION, Variant, prompt_variants
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.sharding.rules import use_mesh
from lmsi_jax.stages.decode import Decoding, Job, decode_to_file
from lmsi_jax.stages.path_files import paths_by_question
from lmsi_jax.stages.templates import read_exemplars
from lmsi_jax.tasks.config import QuestionConfig
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import Task
from lmsi_jax.tasks.word_corpus import BUILT_IN, documents
from lmsi_jax.tokenizers import ChatTemplate, Tokenizer
from lmsi_jax.training.hooks import losses
from lmsi_jax.training.objective import cross_entropy

TEXTS = 128  # documents of the built-in corpus
NO_SEED_OF_A_CORPUS = -1  # so that no model was trained on these documents
ROWS_AT_ONCE = 2  # per shard of the batch; also the size of what the interval of the loss is over


@dataclasses.dataclass(frozen=True)
class Asked:
    """Questions that are asked with one prompt: the held-out questions of the run, or those of another task."""

    variant: Variant
    reader: AnswerReader
    questions: QuestionConfig | None = None  # of another task
    task: str = ""  # its name

    @property
    def kind(self) -> str:
        return "task" if self.questions else "prompt"

    @property
    def name(self) -> str:
        return self.task or self.variant.name


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """`limit` is the number of questions that are asked with each prompt of the run's task."""

    decoding: Decoding
    reader: AnswerReader
    asked: tuple[Asked, ...]
    limit: int
    model: str
    batching: Batching = untraced(Batching())


def asked_with(task: Task, template: ChatTemplate | None) -> list[Asked]:
    """Return the prompts that the questions of the run's task are asked with."""
    return [Asked(variant, task.reader) for variant in prompt_variants(task, template)]


def asked_of(task: Task, template: ChatTemplate | None, questions: QuestionConfig) -> Asked:
    """Return how the questions of another task are asked: with its own prompt."""
    return Asked(prompt_variants(task, template)[0], task.reader, questions, task.name)


def run_transfer(runtime: Runtime, settings: TransferSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Answer the first `held_out` questions by greedy decoding with each other prompt, and those of each other task.

    All prompts are in one job, each in full, so that one program decodes them. A row of `transfer` is a score (see
    evaluation/scores.py) with the `kind`, "prompt" or "task", and the `name` of what is other.
    """
    decoding, chat = settings.decoding, settings.decoding.prompts.chat is not None
    asked = settings.asked
    if "exemplars" in inputs:  # of the model's own: those of its first template
        task = Task("", settings.reader, read_exemplars(inputs["exemplars"])[0])
        own = asked_with(task, load_chat_template(str(inputs["model"])) if chat else None)
        asked = (*own, *(each for each in asked if each.questions))
    held_out = load_questions(inputs["held_out"])[: settings.limit]
    questions = [question_source(each.questions).held_out(decoding.seed) if each.questions else held_out for each in asked]
    tokenizer = runtime.tokenizer(inputs["model"], control=chat)
    for rows in questions:
        check_control_tokens(rows, tokenizer)
    greedy = decoding.sampling.greedy(decoding.sampling.max_tokens)
    greedy = dataclasses.replace(greedy, stops=(*greedy.stops, f"\n{QUESTION}"), keep=())
    paths = scratch / "paths.jsonl"
    job = Job(
        decoding=dataclasses.replace(decoding, sampling=greedy),
        batching=settings.batching.for_greedy(runtime.mesh.size("batch"), decoding.sampling.paths),
        prefix="",
        requests=[
            Request(f"{number}/{row['id']}", each.variant.render(row["question"], row["choices"]))
            for number, (each, rows) in enumerate(zip(asked, questions, strict=True))
            for row in rows
        ],
        checkpoint=inputs["model"],
        output=paths,
        scratch=scratch,
        largest=(decoding.sampling, settings.batching),
    )
    decode_to_file(runtime, job)
    processes.by_first(functools.partial(_write, settings.model, asked, questions, paths, outputs))


def _write(
    model: str, asked: Sequence[Asked], questions: Sequence[Sequence[Record]], paths: epath.Path, outputs: Files
) -> None:
    decoded = {rows[0]["id"]: [{**row, "id": row["id"].partition("/")[2]} for row in rows] for rows in paths_by_question(paths)}
    rows = []
    for number, (each, of_task) in enumerate(zip(asked, questions, strict=True)):
        of_prompt = [decoded[f"{number}/{question['id']}"] for question in of_task]
        scored = score(of_task, of_prompt, each.reader)
        rows += [{**row, "kind": each.kind, "name": each.name, "model": model} for row in scored]
        right = sum(row["correct"] for row in scored) / len(scored)
        console.print(f"transfer {model}, {each.kind} {each.name}: {right:.1%} of {len(scored)}", markup=False)
    write_jsonl(outputs["transfer"], rows)


@dataclasses.dataclass(frozen=True)
class TextLossSettings:
    """`texts` is a file, or "builtin" for documents like those that the built-in model was trained on."""

    texts: str
    numerics: Numerics
    row_length: int
    model: str


def run_text_loss(runtime: Runtime, settings: TextLossSettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Measure the loss of `model` on `texts`. A row has the total `loss`, in nats, and the `tokens` of a few packed rows."""
    model, mesh = runtime.load(inputs["model"], settings.numerics), runtime.mesh
    texts = read_texts(inputs["texts"]) if "texts" in inputs else documents(BUILT_IN, NO_SEED_OF_A_CORPUS, TEXTS)
    rows = _packed(texts, model.tokenizer, settings.row_length)
    with use_mesh(mesh):
        objective = cross_entropy(model.config)
        found = losses(mesh, objective, rows, ROWS_AT_ONCE * mesh.size("batch"))(model.params)
    written: list[Record] = [{"model": settings.model, "loss": total, "tokens": int(count)} for total, count in found]
    processes.by_first(lambda: write_jsonl(outputs["texts"], written))
    mean = sum(row["loss"] for row in written) / sum(row["tokens"] for row in written)
    console.print(f"{runtime.stage}: {mean:.3f} nats a token of {settings.texts}", markup=False)


def read_texts(file: epath.Path) -> Iterator[str]:
    """Yield the texts of a file. Raises UserError with file and row for a row without text."""
    for number, row in enumerate(read_jsonl(file), start=1):
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise UserError(f"{file} row {number}: no text in the field `text`; it has {', '.join(row) or 'no fields'}.")
        yield row["text"]


def _packed(texts: Iterable[str], tokenizer: Tokenizer, length: int) -> PackedRows:
    """Return texts in packed rows of `length` tokens. A longer text continues in another row, without what precedes it."""
    pieces = []
    for text in texts:
        ids = tokenizer.start(text)
        parts = [ids[i : i + length] for i in range(0, len(ids), length)]
        pieces += [Piece(part, target_start=1) for part in parts if len(part) > 1]
    if not pieces:
        raise UserError("evaluate.texts has no text of two tokens or more, so that it has no loss.")
    return pack(pieces, length)
