"""What the checks of steps say about the paths of a run, and what a vote or a selection by them does to its labels."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lmsi_jax.analysis.rounds import NOTHING, Gold, LabelRow, Round, interval, share
from lmsi_jax.answers.reader import answers_by_path
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.trust.steps import CHECKS, CONTRACTS, FOLLOWS_ERROR
from lmsi_jax.voting.majority import validity_weights, vote

Steps = dict[str, dict[int, Record]]  # rows of steps.jsonl by question and path
GENERAL = ("arithmetic", "answer")
DRAWS = 16  # random choices of as many paths as are valid, for the control


@dataclass(frozen=True)
class _Question:
    """The paths of one question: their answers, and whether each is valid by the general checks and with the contract."""

    id: str
    answers: list[str | None]
    general: list[bool]
    contract: list[bool]
    failed: list[set[str]]


def read_steps(folder: RunFolder, group: str) -> Steps:
    """Return the checked steps of a group; none where they are not stored."""
    steps: Steps = {}
    for row in read_jsonl(folder.steps(group)) if folder.steps(group).exists() else ():
        steps.setdefault(row["id"], {})[row["path"]] = row
    return steps


def validity_rows(rounds: Sequence[Round], steps: Sequence[Steps], gold: Gold, contract: Sequence[str]) -> list[LabelRow]:
    """Return the table of valid steps of rounds that have votes. `steps` are those of each round."""
    questions = [_questions(r, s, (*GENERAL, *contract)) for r, s in zip(rounds, steps, strict=True)]
    if not any(questions):
        return []
    rows = [*_statement_rows(steps), *_failure_rows(questions)]
    if not gold:
        return rows
    audited = [[q for q in each if q.id in gold] for each in questions]
    rows += [
        LabelRow("Right among valid paths", [_right(each, gold, lambda q, i: q.general[i]) for each in audited], audit=True),
        LabelRow(
            "Right among other paths, abstentions included",
            [_right(each, gold, lambda q, i: not q.general[i]) for each in audited],
            audit=True,
        ),
        LabelRow(
            "Right answers whose arithmetic fails or cannot be read",
            [_by_wrong_steps(each, gold) for each in audited],
            audit=True,
        ),
    ]
    return rows + _vote_rows(audited, gold, contract)


def _questions(round: Round, steps: Steps, checks: Collection[str]) -> list[_Question]:
    result = []
    for row in round.votes:
        answers, by_path = answers_by_path(row), steps.get(row["id"], {})
        if answers.keys() <= by_path.keys():
            failed = [{failure["check"] for failure in by_path[path]["failures"]} for path in answers]
            general, contract = [[f.isdisjoint(names) for f in failed] for names in (GENERAL, checks)]
            result.append(_Question(row["id"], list(answers.values()), general, contract, failed))
    return result


def _statement_rows(steps: Sequence[Steps]) -> list[LabelRow]:
    counts = [
        Counter(
            each["verdict"]
            for paths in s.values()
            for row in paths.values()
            for step in row["steps"]
            for each in step["statements"]
        )
        for s in steps
    ]
    names = {"wrong": "Wrong", FOLLOWS_ERROR: "Right, and follow from an error", "unchecked": "Not checked"}
    rows = [LabelRow("Arithmetic statements", [f"{c.total():,}" for c in counts])]
    return rows + [LabelRow(name, [share(c[verdict], c.total()) for c in counts], part=True) for verdict, name in names.items()]


def _failure_rows(questions: Sequence[Sequence[_Question]]) -> list[LabelRow]:
    totals = [sum(len(q.answers) for q in each) for each in questions]
    rows = [
        LabelRow(
            f"Paths with valid steps ({', '.join(GENERAL)})",
            [share(sum(map(sum, (q.general for q in each))), total) for each, total in zip(questions, totals, strict=True)],
        )
    ]
    for name, meaning in {**CHECKS, **CONTRACTS}.items():
        failed = [sum(name in f for q in each for f in q.failed) for each in questions]
        if any(failed):
            cells = [share(count, total) for count, total in zip(failed, totals, strict=True)]
            rows.append(LabelRow(f"fail {name} (required: {meaning})", cells, part=True))
    return rows


def _right(questions: Sequence[_Question], gold: Gold, chosen: Callable[[_Question, int], bool]) -> str:
    known = [gold.right(q.id, answer) for q in questions for i, answer in enumerate(q.answers) if chosen(q, i)]
    return share(sum(known), len(known))


def _by_wrong_steps(questions: Sequence[_Question], gold: Gold) -> str:
    failed = ["arithmetic" in q.failed[i] for q in questions for i, answer in enumerate(q.answers) if gold.right(q.id, answer)]
    return share(sum(failed), len(failed))


def _vote_rows(questions: Sequence[Sequence[_Question]], gold: Gold, contract: Sequence[str]) -> list[LabelRow]:
    """Return the labels of each vote, and the paths of each selection, with the control of as many random paths."""
    rows = [LabelRow("Labels right by the majority", [_labels(each, gold, None) for each in questions], audit=True)]
    kinds: dict[str, Callable[[_Question], list[bool]]] = {"valid first": lambda q: q.general}
    if contract:
        kinds["valid first, with the contract"] = lambda q: q.contract
    for name, valid in kinds.items():
        rows += [
            LabelRow(f"Labels right, {name}", [_labels(each, gold, valid) for each in questions], audit=True),
            LabelRow(
                "as many paths at random", [_random_labels(each, gold, valid) for each in questions], audit=True, part=True
            ),
            LabelRow("questions with a valid path", [_coverage(each, valid) for each in questions], part=True),
            LabelRow("agreeing and valid paths right", [_kept(each, gold, valid) for each in questions], audit=True, part=True),
        ]
    rows.append(LabelRow("Agreeing paths right", [_kept(each, gold, None) for each in questions], audit=True))
    return rows


def _labels(questions: Sequence[_Question], gold: Gold, valid: Callable[[_Question], list[bool]] | None) -> str:
    voted = [vote(q.answers, weights=validity_weights(valid(q)) if valid else None).answer for q in questions]
    known = [gold.right(q.id, answer) for q, answer in zip(questions, voted, strict=True) if answer is not None]
    return interval(sum(known), len(known))


def _random_labels(questions: Sequence[_Question], gold: Gold, valid: Callable[[_Question], list[bool]]) -> str:
    right = total = 0
    for q in questions:
        draw, flags = random.Random(f"control {q.id}"), valid(q)
        for _ in range(DRAWS):
            answer = vote(q.answers, weights=validity_weights(draw.sample(flags, len(flags)))).answer
            right, total = right + gold.right(q.id, answer), total + (answer is not None)
    return share(right, total)


def _coverage(questions: Sequence[_Question], valid: Callable[[_Question], list[bool]]) -> str:
    return share(sum(any(valid(q)) for q in questions), len(questions))


def _kept(questions: Sequence[_Question], gold: Gold, valid: Callable[[_Question], list[bool]] | None) -> str:
    """Return the precision of the paths that agree with their vote and, with `valid`, are valid."""
    right = total = 0
    for q in questions:
        outcome = vote(q.answers, weights=validity_weights(valid(q)) if valid else None)
        kept = [i for i in outcome.kept if valid is None or valid(q)[i]]
        total += len(kept)
        right += len(kept) * gold.right(q.id, outcome.answer)
    return share(right, total) if total else NOTHING
