"""Voting and formatting on files: pure functions on records, no model and no JAX."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from etils import epath

from lmsi_jax.core.config import Config, SelectConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, read_jsonl, write_jsonl
from lmsi_jax.formatting.mixed import Prompts, Solution, examples
from lmsi_jax.tasks import answers
from lmsi_jax.tasks.reading import accepted_answers, answers_by_path, is_right, paths_hash, read_answers
from lmsi_jax.tasks.registry import Task, load_questions
from lmsi_jax.voting.adaptive import expected_share
from lmsi_jax.voting.majority import probabilities, vote
from lmsi_jax.voting.select import narrow, select, select_random


def paths_by_question(file: epath.Path) -> Iterator[list[Record]]:
    """The paths of each question, in path order; they may stand anywhere in the file."""
    found: dict[str, list[Record]] = {}
    for row in read_jsonl(file):
        for field, kind in (("id", str), ("path", int), ("text", str)):
            if not isinstance(row.get(field), kind):
                raise UserError(f"{file}: a path needs `{field}` ({kind.__name__}); this row has {row!r:.120}.")
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
        for row in read_jsonl(paths):
            if not isinstance(row.get("text"), str):
                raise UserError(f"{paths}: a path needs `text` (str); this row has {row!r:.120}.")
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
        logprob = row.get("logprob")
        if not isinstance(logprob, int | float) or not math.isfinite(logprob) or not isinstance(row.get("num_tokens"), int):
            raise UserError(
                f"{file}: path {row['path']} of question '{row['id']}' has no finite `logprob` and `num_tokens`, which "
                f"select.vote='{rule}' weighs it by; vote by --config.select.vote=majority."
            )
    voting = [answer is not None for answer in read]
    tokens = [row["num_tokens"] for row in rows]
    return probabilities([row["logprob"] for row in rows], tokens, voting, normalised=kind == "normalised"), aggregate


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
    voted = {r["id"]: r for r in read_jsonl(votes)}
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
        reasons = Counter(path["reason"] for row in voted.values() for path in row.get("abstained", ()))
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()) or "none"
        raise UserError(
            f"No path of {len(voted)} questions is kept, so there is nothing to train on. Paths that abstained: {said}. Check "
            f"--config.data.answer_type (now '{task.answer_type}'), the exemplars, and --config.select."
        )
    write_jsonl(examples_file, rows)
    console.print(f"format: {len(rows)} training rows from {used} of {len(voted)} questions")


def _solutions(
    config: SelectConfig, rows: Sequence[Record], voted: Record, answer_type: str, seed: int, accepted: Sequence[str]
) -> list[Solution]:
    """The paths of one question to train on, with the answers that they voted for."""
    answer_of = answers_by_path(voted)
    if voted.get("paths_hash") != paths_hash(rows):
        raise UserError(
            f"The vote of question '{voted['id']}' was made from other paths than these; votes and paths are of different "
            f"runs. Vote again."
        )
    texts, read = [answers.own_text(row["text"]) for row in rows], [answer_of[row["path"]] for row in rows]
    if config.rule == "majority":
        position = {row["path"]: i for i, row in enumerate(rows)}
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
