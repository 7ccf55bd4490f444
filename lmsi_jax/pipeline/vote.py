"""Voting and formatting on files: pure functions on records, no model and no JAX."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from lmsi_jax.core.config import Config, SelectConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, finite, read_jsonl, write_jsonl
from lmsi_jax.formatting.mixed import Prompts, Solution, examples
from lmsi_jax.tasks import answers
from lmsi_jax.tasks.reading import accepted_answers, answers_by_path, is_right, paths_hash, read_answers
from lmsi_jax.tasks.registry import Task, load_questions
from lmsi_jax.voting.adaptive import expected_share
from lmsi_jax.voting.majority import probabilities, vote
from lmsi_jax.voting.select import narrow, select, select_random

PATH_FIELDS = {"id": str, "path": int, "text": str}


def _read_paths(file: epath.Path, fields: Iterable[str] = PATH_FIELDS) -> Iterator[Record]:
    """The rows of a file of paths. Raises UserError when one lacks one of `fields`, or has a `finish` that is no text."""
    for row in read_jsonl(file):
        if row.get("finish", "") is None:  # how some programs write that it is not known
            del row["finish"]
        for field in fields:
            if type(row.get(field)) is not PATH_FIELDS[field]:  # and not isinstance: True is no number of a path
                raise UserError(f"{file}: a path needs `{field}` ({PATH_FIELDS[field].__name__}); this row has {row!r:.120}.")
        if not isinstance(row.get("finish", "stop"), str):
            raise UserError(
                f'{file}: `finish` of a path is {row["finish"]!r:.60}; it must be "length" where the text was cut, "stop" '
                f"where it ended by itself, and left out where that is not known."
            )
        yield row


def paths_by_question(file: epath.Path) -> Iterator[list[Record]]:
    """The paths of each question, in path order; they may stand anywhere in the file."""
    found: dict[str, list[Record]] = {}
    for row in _read_paths(file):
        found.setdefault(row["id"], []).append(row)
    if not found:
        raise UserError(f"{file} holds no paths; run the sample stage first.")
    for id, rows in found.items():
        numbers = [row["path"] for row in rows]
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            raise UserError(f"{file}: question '{id}' has path {twice} more than once; each path may vote once.")
        yield sorted(rows, key=lambda row: row["path"])


def extract_file(paths: epath.Path, output: epath.Path, task: Task, flexible: bool = False) -> None:
    """Every row of `paths` with its `answer` (canonical, or null) and, where it is null, the `reason`."""
    reasons: Counter[str] = Counter()

    def rows() -> Iterator[Record]:
        for row in _read_paths(paths, ("text",)):
            read = answers.extract(
                row["text"], task.answer_type, row.get("finish", "stop"), flexible=flexible, allowed=task.labels
            )
            answer, reason = (read.value, None) if isinstance(read, answers.Answer) else (None, read.reason)
            reasons[reason or ""] += 1
            yield {**row, "answer": answer, "reason": reason, "extractor": answers.VERSION}

    total = write_jsonl(output, rows())
    silent = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common() if reason) or "none"
    console.print(f"extract: {reasons['']} of {total} paths have an answer; without one: {silent}")


def vote_file(
    paths: epath.Path,
    votes: epath.Path,
    task: Task,
    config: SelectConfig,
    questions: epath.Path | None = None,
    planned: int = 0,
) -> None:
    """Read the answers of the paths and vote; needs no model and no JAX. Where `questions` are known, so are their options.

    `planned` is the number of paths that were to be sampled of each question: where a decided vote ended the sampling early,
    the confidence is the share of all of them that the winner is expected to have, since 4 of 4 is no 32 of 32.
    """
    choices = {r["id"]: r["choices"] for r in load_questions(questions)} if questions else {}
    records = [_vote(rows, task, choices.get(rows[0]["id"]), config, planned, paths) for rows in paths_by_question(paths)]
    write_jsonl(votes, records)
    decided = sum(r["answer"] is not None for r in records)
    abstained = sum(len(r["abstained"]) for r in records) / sum(r["num_paths"] for r in records)
    share = sum(r["confidence"] for r in records) / len(records)
    console.print(
        f"vote: {decided} of {len(records)} questions decided, mean vote share {share:.2f}, {abstained:.1%} of paths abstain"
    )


def _vote(
    rows: Sequence[Record], task: Task, choices: Sequence[str] | None, config: SelectConfig, planned: int, file: epath.Path
) -> Record:
    """The row of votes.jsonl of one question."""
    reading, id = read_answers(rows, task, choices), rows[0]["id"]
    weights, aggregate = _weights(rows, reading.answers, config.vote, file)
    outcome = vote(reading.answers, config.tie, id, weights, aggregate)
    early = planned > len(rows) and outcome.answer is not None
    numbers = [row["path"] for row in rows]
    return {
        "id": id,
        "answer": outcome.answer,
        "confidence": expected_share(len(outcome.kept), len(rows), planned) if early else outcome.confidence,
        "margin": outcome.margin,
        "entropy": outcome.entropy,
        "counts": outcome.counts,
        **({} if weights is None else {"scores": outcome.scores}),
        "answers": reading.answers,
        **({} if numbers == list(range(len(rows))) else {"paths": numbers}),
        "abstained": [{"path": numbers[i], "reason": reason} for i, reason in reading.reasons.items()],
        "num_paths": outcome.num_paths,
        **({"planned": planned} if early else {}),
        "kept": [numbers[i] for i in outcome.kept],
        "paths_hash": paths_hash(rows),
        "extractor": answers.VERSION,
    }


def _weights(rows: Sequence[Record], read: Sequence[str | None], rule: str, file: epath.Path) -> tuple[list[float] | None, str]:
    """The weight of each path, and how they are joined; none for a majority."""
    if rule == "majority":
        return None, "sum"
    aggregate, _, kind = rule.partition("_")
    for row in rows:
        if finite(row.get("logprob")) is None or finite(row.get("num_tokens")) is None:
            raise UserError(
                f"{file}: path {row['path']} of question '{row['id']}' has no finite `logprob` and `num_tokens`, which "
                f"select.vote='{rule}' weighs it by; vote by --config.select.vote=majority."
            )
    voting = [answer is not None for answer in read]
    logprobs, tokens = [float(row["logprob"]) for row in rows], [int(row["num_tokens"]) for row in rows]
    return probabilities(logprobs, tokens, voting, normalised=kind == "normalised"), aggregate


def format_file(
    config: Config,
    task: Task,
    all_prompts: Prompts,
    questions: epath.Path,
    paths: epath.Path,
    votes: epath.Path,
    examples_file: epath.Path,
    gold: epath.Path | None = None,
) -> None:
    """Select paths and write them in the four formats (section 3.2). `gold` is read by the upper-bound control alone."""
    asked = {r["id"]: r for r in load_questions(questions)}
    voted = _read_votes(votes)
    if config.select.rule == "gold" and gold is None:
        raise UserError("select.rule='gold' is a control of `lmsi run`, which knows the gold answers; here there are none.")
    accepted = {r["id"]: accepted_answers(r) for r in read_jsonl(gold)} if gold else {}
    rows, used = [], 0
    for found in paths_by_question(paths):
        id = found[0]["id"]
        if id not in asked or id not in voted:
            raise UserError(f"Question '{id}' of {paths} is not in {questions} and {votes}; the three must be of one run.")
        solutions = _solutions(config.select, found, voted[id], task.answer_type, config.seed, accepted.get(id, ()))
        used += bool(solutions)
        rows += examples(
            id,
            asked[id]["question"],
            asked[id]["choices"],
            solutions,
            task.answer_type,
            all_prompts,
            config.format.formats,
            distinct_direct=config.format.distinct_direct,
        )
    if not rows:
        reasons = Counter(str(path.get("reason")) for row in voted.values() for path in row.get("abstained", ()))
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()) or "none"
        raise UserError(
            f"No path of {len(voted)} questions is kept, so there is nothing to train on. Paths that abstained: {said}. Check "
            f"--config.data.answer_type (now '{task.answer_type}'), the exemplars, and --config.select."
        )
    write_jsonl(examples_file, rows)
    console.print(f"format: {len(rows)} training rows from {used} of {len(voted)} questions")


def _read_votes(file: epath.Path) -> dict[str, Record]:
    """The votes of a file by question. Raises UserError when a row is not what `vote_file` writes."""
    votes: dict[str, Record] = {}
    for row in read_jsonl(file):
        texts, lists = ("id", "paths_hash"), {"answers": str | None, "kept": int, "abstained": dict}
        wrong = [field for field in texts if not isinstance(row.get(field), str)]
        wrong += [field for field, kind in lists.items() if not _is_list(row.get(field), kind)]
        wrong += ["confidence"] if finite(row.get("confidence")) is None else []
        if wrong:
            raise UserError(
                f"{file}: the vote of question {row.get('id')!r:.60} has the `{wrong[0]}` {row.get(wrong[0])!r:.60}, which "
                f"lmsi does not write; vote again."
            )
        if row["id"] in votes:
            raise UserError(f"{file}: question '{row['id']}' has more than one vote; vote again.")
        votes[row["id"]] = row
    return votes


def _is_list(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _solutions(
    config: SelectConfig, rows: Sequence[Record], voted: Record, answer_type: str, seed: int, accepted: Sequence[str]
) -> list[Solution]:
    """The paths of one question to train on, with the answers that they voted for."""
    position = {row["path"]: i for i, row in enumerate(rows)}
    numbers = voted.get("paths", list(range(len(rows))))
    same = numbers == list(position) and len(voted["answers"]) == len(rows) and position.keys() >= set(voted["kept"])
    if voted["paths_hash"] != paths_hash(rows) or not same:
        raise UserError(
            f"The vote of question '{voted['id']}' was made from other paths than these; votes and paths are of different "
            f"runs. Vote again."
        )
    answer_of = answers_by_path(voted)
    texts, read = [answers.own_text(row["text"]) for row in rows], [answer_of[row["path"]] for row in rows]
    if config.rule == "majority":
        chosen = select(
            [position[path] for path in voted["kept"]],
            voted["confidence"],
            texts,
            min_confidence=config.min_confidence,
            max_paths=config.max_paths,
            distinct=config.distinct,
        )
    elif config.rule == "random":
        chosen = select_random(read, config.max_paths or 1, f"{seed} {voted['id']}")
    else:  # the upper bound with gold answers: not self-improvement, for comparison only
        right = [i for i, answer in enumerate(read) if is_right(answer, accepted, answer_type)]
        chosen = narrow(right, texts, max_paths=config.max_paths, distinct=config.distinct)
    return [Solution(rows[i]["path"], texts[i], read[i] or "") for i in chosen]
