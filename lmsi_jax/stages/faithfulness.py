"""Tests whether a model's answers depend on its reasoning: paths, edited beginnings, the model's answers to them, measures."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from etils import epath

from lmsi_jax.analysis.faithfulness import Answered, GreedyPath, measure
from lmsi_jax.analysis.measure_table import show_measures
from lmsi_jax.answers.extract import canonical
from lmsi_jax.answers.reader import AnswerReader, accepted_answers
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.decoding.config import Batching, EndpointConfig
from lmsi_jax.decoding.scheduler import Request
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.pipeline.runtime import Runtime
from lmsi_jax.sharding import processes
from lmsi_jax.stages.decode import Decoding, Job, requests
from lmsi_jax.stages.jobs import run_job
from lmsi_jax.stages.path_files import paths_by_question
from lmsi_jax.tasks.prompts import conclusion
from lmsi_jax.tasks.questions import check_gold, load_questions
from lmsi_jax.trust.bias import other_answers
from lmsi_jax.trust.edit_prompts import LONGEST, STOP, edit_prefix, edit_request, edited
from lmsi_jax.trust.interventions import Options, interventions, uneditable
from lmsi_jax.trust.steps import check_paths

YES_NO = AnswerReader("yes_no")


@dataclasses.dataclass(frozen=True)
class GreedySettings:
    """How a model answers, by greedy decoding. `answer_tokens` is the token limit of an answer after the edited steps.

    Only the first `limit` questions are asked (0 = all). `one_answer` are the prompts of "always_same", whose exemplars all
    have one answer. `judgements` is how often "judge" asks the model about a solution, at temperature 1.
    """

    decoding: Decoding
    reader: AnswerReader
    engine: str
    endpoint: EndpointConfig
    answer_tokens: int = 16
    limit: int = 0
    one_answer: Prompts | None = None
    judgements: int = 8
    batching: Batching = untraced(Batching())


def run_paths(runtime: Runtime, settings: GreedySettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Write the greedy path of `model` for each question of `held_out`."""
    prompts = settings.decoding.prompts
    asked = requests(inputs["held_out"], prompts, runtime.tokenizer(inputs["model"], control=prompts.chat is not None))
    asked, longest = asked[: settings.limit or None], settings.decoding.sampling.max_tokens
    _decode(runtime, settings, asked, longest, inputs["model"], outputs["paths"], scratch, "paths")


def run_edits(runtime: Runtime, settings: GreedySettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Let `model` write the mistakes and paraphrases of steps of `paths` that no program can edit, as `edits`."""
    paths = list(read_jsonl(inputs["paths"]))
    rows: list[Record] = []
    for kind in ("mistake", "paraphrase"):
        wanted = [(path, k, text) for path in paths for k, text in uneditable(path["text"], kind)]
        prompts = dataclasses.replace(settings.decoding.prompts, cot_examples=edit_prefix(kind))
        sampling = dataclasses.replace(settings.decoding.sampling, stops=(STOP,))
        decoding = dataclasses.replace(settings.decoding, prompts=prompts, sampling=sampling)
        asked = [Request(str(n), edit_request(kind, text)) for n, (_, _, text) in enumerate(wanted)]
        file = scratch / f"{kind}.jsonl"
        if asked:
            each = dataclasses.replace(settings, decoding=decoding)
            _decode(runtime, each, asked, LONGEST, inputs["model"], file, scratch, kind)
        for written in read_jsonl(file) if asked else ():
            path, k, text = wanted[int(written["id"])]
            sentence = edited(text, written["text"])
            if sentence is not None:
                rows.append({"id": path["id"], "path": path["path"], "kind": kind, "step": k, "text": sentence})
    processes.by_first(lambda: write_jsonl(outputs["edits"], rows))


@dataclasses.dataclass(frozen=True)
class InterventionSettings:
    """How paths are edited. `common_answer` is that of the exemplars of "always_same", or "" where there are none."""

    seed: int
    reader: AnswerReader
    options: Options
    common_answer: str = ""


def run_interventions(runtime: object, settings: InterventionSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Write the `interventions` on the `paths` of `held_out` questions, each with the answer of the complete path.

    With the input `edits`, sentences that a model edited stand where no program can edit.
    """
    questions = {row["id"]: row for row in load_questions(inputs["held_out"])}
    lead = conclusion("\0", settings.reader.answer_type).partition("\0")[0].rstrip()
    kinds = tuple(kind for kind in settings.options.kinds if kind != "always_same" or settings.common_answer)
    options = dataclasses.replace(settings.options, kinds=kinds)
    edits: dict[str, dict[tuple[str, int], str]] = {}
    for row in read_jsonl(inputs["edits"]) if "edits" in inputs else ():
        edits.setdefault(row["id"], {})[row["kind"], row["step"]] = row["text"]

    count = Counter[str]()

    def rows() -> Iterator[Record]:
        for (path,) in paths_by_question(inputs["paths"]):
            count["paths"] += 1
            (answer,) = settings.reader.read([path], questions[path["id"]]["choices"]).values
            draw = random.Random(f"intervention {settings.seed} {path['id']}")
            if answer is None:
                continue
            question = questions[path["id"]]
            asked, choices, suggestible = question["question"], question["choices"] or (), _suggestible(settings, question)
            edited = edits.get(path["id"], {})
            for each in interventions(asked, path["text"], answer, choices, lead, suggestible, options, draw, edited):
                about = {"id": path["id"], "path": path["path"], "original": answer, "options": len(choices)}
                common = {"expected": settings.common_answer} if each.kind == "always_same" else {}
                yield {**about, **dataclasses.asdict(each), **common}

    total = write_jsonl(outputs["interventions"], rows())
    console.print(f"interventions: {total} on the paths of {count['paths']} questions")


def _suggestible(settings: InterventionSettings, question: Record) -> list[str]:
    """Return the wrong answers that may be suggested for a question."""
    accepted = accepted_answers(question)
    right = canonical(accepted[0], settings.reader.answer_type)
    others = other_answers(right, question["choices"] or (), settings.options.changes) if right else []
    return [other for other in others if not settings.reader.is_right(other, accepted)]


def run_answers(runtime: Runtime, settings: GreedySettings, inputs: Files, outputs: Files, scratch: epath.Path) -> None:
    """Let `model` go on from each of `interventions`, and write them with its `answer`."""
    questions = {row["id"]: row for row in load_questions(inputs["held_out"])}
    rows = list(read_jsonl(inputs["interventions"]))
    if not rows:
        raise UserError(
            f"{inputs['interventions']} is empty: none of interventions.kinds applies to the greedy paths. Most kinds edit "
            f"steps of arithmetic before a declared answer; 'hint' and 'answer_first' need an answer that is a number, an "
            f"option, yes or no."
        )
    longest_path = settings.decoding.sampling.max_tokens
    one_answer = dataclasses.replace(settings.decoding, prompts=settings.one_answer or settings.decoding.prompts)
    parts = {
        "answers": (settings.decoding, settings.answer_tokens, 1),
        "steps": (settings.decoding, longest_path, 1),
        "one_answer": (one_answer, longest_path, 1),
        "judgements": (settings.decoding, longest_path, settings.judgements),
    }
    written: dict[str, list[Record]] = {}
    for name, (decoding, longest, paths) in parts.items():
        asked = [
            _request(str(n), decoding.prompts, row, questions[row["id"]]) for n, row in enumerate(rows) if _part(row) == name
        ]
        file = scratch / f"{name}.jsonl"
        if asked:
            each = dataclasses.replace(settings, decoding=decoding)
            _decode(runtime, each, asked, longest, inputs["model"], file, scratch, name, paths)
            for row in read_jsonl(file):
                written.setdefault(row["id"], []).append(row)
    processes.by_first(lambda: write_jsonl(outputs["answers"], _answered(settings.reader, rows, written, questions)))


def _part(row: Record) -> str:
    """Return which decoding an intervention belongs to."""
    of_kind = {"always_same": "one_answer", "judge": "judgements"}
    return of_kind.get(row["kind"], "answers" if row["concludes"] else "steps")


def _request(id: str, prompts: Prompts, row: Record, question: Record) -> Request:
    choices = None if row["kind"] == "judge" else question["choices"]  # a question about a solution has its options inside
    asked = prompts.question(row["question"] or question["question"], choices)
    return Request(id, asked, prompts.begun(row["given"]) if row["given"] else "")


def _answered(
    reader: AnswerReader, rows: Sequence[Record], written: dict[str, list[Record]], questions: dict[str, Record]
) -> Iterator[Record]:
    for number, row in enumerate(rows):
        paths, choices = written[str(number)], questions[row["id"]]["choices"]
        if row["kind"] == "judge":
            verdicts = YES_NO.read(paths, None).values
            unread = sum(verdict not in ("yes", "no") for verdict in verdicts)
            yes = (verdicts.count("yes") + unread / 2) / len(verdicts)
            yield {**row, "text": paths[0]["text"], "answer": verdicts[0], "yes": yes, "unread": unread / len(verdicts)}
        else:
            complete = {"text": f"{row['given']}{paths[0]['text']}", "finish": paths[0]["finish"]}
            yield {**row, "text": paths[0]["text"], "answer": reader.read([complete], choices).values[0]}


def _decode(
    runtime: Runtime,
    settings: GreedySettings,
    asked: Sequence[Request],
    longest: int,
    model: epath.Path,
    output: epath.Path,
    scratch: epath.Path,
    part: str,
    paths: int = 1,
) -> None:
    """Write one greedy continuation of each request, or several at temperature 1."""
    decoding, batching = settings.decoding, settings.batching
    sampling = decoding.sampling.greedy(longest)
    if paths > 1:
        sampling = dataclasses.replace(sampling, paths=paths, temperature=1.0)
    shards = runtime.mesh.size("batch")
    job = Job(
        decoding=dataclasses.replace(decoding, stream=(*decoding.stream, part), sampling=sampling),
        batching=batching.for_greedy(shards, decoding.sampling.paths) if paths == 1 else batching,
        prefix=decoding.prompts.cot_examples,
        requests=asked,
        checkpoint=model,
        output=output,
        scratch=scratch,
        part=part,
        largest=(decoding.sampling, batching),
    )
    run_job(runtime, job, settings.engine, settings.endpoint)


@dataclasses.dataclass(frozen=True)
class MeasureSettings:
    """The models, in the order of the table. The first is the one that the others are compared with.

    `checks` are those of steps that make a path valid.
    """

    reader: AnswerReader
    models: tuple[str, ...]
    checks: tuple[str, ...] = ()


def run_measures(runtime: object, settings: MeasureSettings, inputs: Files, outputs: Files, scratch: object) -> None:
    """Write the `measures` of all models from their greedy paths and their answers to interventions, and print them."""
    questions = load_questions(inputs["held_out"])
    check_gold(questions, settings.reader.answer_type, str(inputs["held_out"]))
    accepted = {row["id"]: accepted_answers(row) for row in questions}
    by_id = {row["id"]: row for row in questions}
    models = {}
    for name in settings.models:
        paths = [_checked(settings, by_id[path["id"]], path) for (path,) in paths_by_question(inputs[f"{name} paths"])]
        models[name] = Answered.of(read_jsonl(inputs[name]), accepted, settings.reader, paths)
    rows = measure(models)
    write_jsonl(outputs["measures"], rows)
    show_measures(rows)


def _checked(settings: MeasureSettings, question: Record, path: Record) -> GreedyPath:
    """Return whether a greedy path is right, and whether its steps pass the checks."""
    (answer,) = settings.reader.read([path], question["choices"]).values
    (checked,) = check_paths(question["question"], [path["text"]], [answer])
    valid = all(failure.check not in settings.checks for failure in checked.failures)
    return GreedyPath(path["id"], settings.reader.is_right(answer, accepted_answers(question)), valid)
