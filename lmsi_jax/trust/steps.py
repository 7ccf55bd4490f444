"""Check the steps of a reasoning path: its arithmetic, where its numbers come from, and the answer that it declares."""

import bisect
import itertools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.numbers import plain
from lmsi_jax.trust.expressions import distance
from lmsi_jax.trust.mismatch import RIGHT, UNCHECKED, WRONG
from lmsi_jax.trust.quantities import Quantities, quantities
from lmsi_jax.trust.statements import Statement, statements
from lmsi_jax.trust.tokens import Number
from lmsi_jax.trust.wording import place_value_statements, verbal_statements

FOLLOWS_ERROR = "follows_error"
CHECKS = {
    "arithmetic": "no statement is wrong or follows from an error, and at least one can be checked",
    "carry": "an operand that is neither given nor an earlier result does not stand where an earlier result is still unused",
    "provenance": "each operand is given in the question or an earlier result",
    "units": "a sum of quantities of one unit has that unit",
    "sign": "no result is negative, unless the question mentions a negative quantity",
    "answer": "the declared answer is the last result",
}
CONTRACTS = {  # checks that hold for the solutions of some tasks only, which declare them
    "each_once": "each operand is a given quantity or an earlier result, and each of these is used at most once",
    "all_used": "each given quantity is used",
}
CONTRACT = "contract"  # in a list of checks: those of `CONTRACTS` that the task declares
_BOUNDARY = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=\S)|\s*\n\s*")
_CANONICAL = re.compile(r"-?\d{1,50}(?:\.\d{1,50}|/0*[1-9]\d{0,49})?", re.ASCII)  # a number as `number` writes it
_ENUMERATOR = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*\u2022])\s*")


@dataclass(frozen=True)
class Step:
    """One sentence or line of a path, with its statements. `start` and `end` are positions in the text of the path."""

    start: int
    end: int
    statements: tuple[Statement, ...]

    @property
    def verdict(self) -> str:
        """The worst verdict of the statements; UNCHECKED when there is none."""
        verdicts = {statement.verdict for statement in self.statements}
        return next((v for v in (WRONG, FOLLOWS_ERROR, UNCHECKED, RIGHT) if v in verdicts), UNCHECKED)


@dataclass(frozen=True)
class Failure:
    """A check that a path fails, at a step (counted from 0), with the reason in words."""

    check: str
    step: int
    reason: str


@dataclass(frozen=True)
class Checked:
    """A path with its steps and the checks that it fails."""

    steps: tuple[Step, ...]
    failures: tuple[Failure, ...]

    def is_valid(self, checks: Collection[str]) -> bool:
        """Return whether the path passes these checks. A path without any readable statement does not pass arithmetic."""
        return not any(failure.check in checks for failure in self.failures)


def with_contract(checks: Sequence[str], contract: Sequence[str]) -> tuple[str, ...]:
    """Return the names of checks, with those of a task's contract in place of "contract"."""
    return tuple(dict.fromkeys(name for check in checks for name in (contract if check == CONTRACT else (check,))))


def split(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) of each sentence or line of a text."""
    spans, start = [], 0
    for boundary in _BOUNDARY.finditer(text):
        if _ENUMERATOR.fullmatch(text, start, boundary.start()):
            continue  # "1. " begins a step
        if boundary.start() > start:
            spans.append((start, boundary.start()))
        start = boundary.end()
    if text[start:].strip():
        spans.append((start, len(text.rstrip())))
    return spans


def statements_in_context(text: str, given: Collection[Number] = ()) -> list[Statement]:
    """Return the statements of a path in order, each with its verdict in the context of the path.

    A right statement one of whose operands is a wrong earlier result has the verdict FOLLOWS_ERROR. A result that equals a
    number in `given` is not taken for wrong.
    """
    found = _without_parts([*statements(text), *verbal_statements(text)], list(place_value_statements(text)))
    tainted: set[Number] = set()
    results: list[Number] = []
    made = []
    for statement in found:
        if statement.is_running:
            statement = _running(statement, results)
        if statement.verdict == RIGHT and any(operand in tainted for operand in statement.operands):
            statement = replace(statement, verdict=FOLLOWS_ERROR)
        if statement.result is not None:
            results.append(statement.result)
            if statement.verdict in (WRONG, FOLLOWS_ERROR) and statement.result not in given:
                tainted.add(statement.result)
            elif statement.verdict == RIGHT:
                tainted.discard(statement.result)
        made.append(statement)
    return made


def _without_parts(found: list[Statement], wholes: list[Statement]) -> list[Statement]:
    """Merge the statements of a text, in order, and drop those that repeat a calculator mark.

    A calculation of tens and ones apart follows from an error when one of its parts is wrong and its parts add up to it.
    """
    marks = [each for each in found if each.is_mark]
    kept = [
        each
        for each in found
        if each.is_mark
        or not any(
            each.start <= mark.start
            and mark.end <= each.end + 200
            and (each.operands, each.result) == (mark.operands, mark.result)
            for mark in marks
        )
    ]
    for whole in wholes:
        parts = [each for each in kept if whole.start <= each.start and each.end <= whole.end]
        total = sum(part.result for part in parts if part.result is not None)
        if whole.verdict == WRONG and total == whole.result and any(part.verdict == WRONG for part in parts):
            whole = replace(whole, verdict=FOLLOWS_ERROR, expected=None)
        kept = [each for each in kept if each not in parts] + [replace(part, is_part=True) for part in parts] + [whole]
    return sorted(kept, key=lambda each: each.end)


def _running(statement: Statement, results: Sequence[Number]) -> Statement:
    """Return a running total with its first operand and its verdict."""
    if not results or statement.result is None:
        return statement
    operands = (results[-1], *statement.operands)
    statement = replace(statement, operands=operands, compute=sum)
    if sum(operands) == statement.result:
        return replace(statement, verdict=RIGHT)
    return replace(statement, verdict=WRONG, expected=sum(operands))


def steps_of(text: str, given: Collection[Number] = ()) -> list[Step]:
    """Return the steps of a text, each with the statements that end in it."""
    spans = split(text)
    ends = [end for _, end in spans]
    inside: list[list[Statement]] = [[] for _ in spans]
    for statement in statements_in_context(text, given):
        number = bisect.bisect_left(ends, statement.end)
        if number < len(spans) and spans[number][0] < statement.end:
            inside[number].append(statement)
    return [Step(start, end, tuple(each)) for (start, end), each in zip(spans, inside, strict=True)]


def check(text: str, question: Quantities, answer: Number | None) -> Checked:
    """Return the steps of a path and the checks that it fails. `answer` is the number that the path declares, if any."""
    steps = steps_of(text, question.known)
    ledger = _Ledger(question)
    failures: list[Failure] = []
    for number, step in enumerate(steps):
        for statement in step.statements:
            failures += [Failure(name, number, reason) for name, reason in ledger.enter(statement)]
    last = max(len(steps) - 1, 0)
    failures += [Failure(name, last, reason) for name, reason in ledger.close(answer)]
    return Checked(tuple(steps), tuple(failures))


def check_paths(question: str, texts: Sequence[str], answers: Sequence[str | None]) -> list[Checked]:
    """Return the checks of each path of a question. `answers` are the canonical answers that the paths declare."""
    given = quantities(question)
    return [check(truncate_at_next_turn(text), given, _as_number(answer)) for text, answer in zip(texts, answers, strict=True)]


def _as_number(answer: str | None) -> Number | None:
    is_number = answer is not None and _CANONICAL.fullmatch(answer)
    return Fraction(answer) if answer and is_number else None


class _Ledger:
    """Follows the numbers of a path: which are given, derived, used, and left."""

    def __init__(self, question: Quantities):
        self._question = question
        self._pool = Counter(question.written)  # given quantities that no step has used
        self._results: list[Number] = []
        self._unused: list[Number] = []  # results that no step has used
        self._readable = 0

    def enter(self, statement: Statement) -> list[tuple[str, str]]:
        """Return the (check, reason) of each failure of one statement."""
        failed = []
        if statement.verdict == WRONG:
            right = "the two sides differ" if statement.expected is None else f"the right value is {plain(statement.expected)}"
            failed.append(("arithmetic", right))
        if statement.verdict == FOLLOWS_ERROR:
            failed.append(("arithmetic", "it follows from an error"))
        if statement.is_part or statement.result is None:
            return failed
        self._readable += statement.verdict != UNCHECKED
        failed += self._operands(statement)
        if statement.units_differ:
            failed.append(("units", "the result has another unit than what is added"))
        if statement.result < 0 and not self._question.has_negative:
            failed.append(("sign", f"the result {plain(statement.result)} is negative"))
        self._results.append(statement.result)
        self._unused.append(statement.result)
        return failed

    def _operands(self, statement: Statement) -> list[tuple[str, str]]:
        failed = []
        continues = any(operand in self._unused for operand in statement.operands)
        for signed in statement.operands:
            operand = signed if signed in self._results else distance(signed, 0)  # quantities of the question have no sign
            if operand in self._unused:
                self._unused.remove(operand)
            elif self._pool[operand]:
                self._pool[operand] -= 1
            elif not self._take_product(operand):
                if operand not in self._results and operand not in self._question.known:
                    names = ("provenance",) if continues or not self._unused else ("carry", "provenance")
                    failed += [(name, f"{plain(operand)} is neither given nor an earlier result") for name in names]
                failed.append(("each_once", f"{plain(operand)} is used more often than it is given"))
        return failed

    def _take_product(self, operand: Number) -> bool:
        """Use up two neighbouring quantities of the question whose product is `operand`, a step that was not written."""
        for first, second in itertools.pairwise(self._question.written):
            if first * second == operand and self._pool[first] and self._pool[second] > (first == second):
                self._pool.subtract((first, second))
                return True
        return False

    def close(self, answer: Number | None) -> list[tuple[str, str]]:
        """Return the (check, reason) of each failure of the path as a whole."""
        failed = []
        if not self._readable:
            failed.append(("arithmetic", "no statement can be read"))
        left = list(self._pool.elements())
        if left:
            failed.append(("all_used", f"{', '.join(map(plain, left))} of the question is not used"))
        if answer is not None and self._results and answer != self._results[-1]:
            failed.append(("answer", f"the answer is {plain(answer)} and the last result is {plain(self._results[-1])}"))
        return failed
