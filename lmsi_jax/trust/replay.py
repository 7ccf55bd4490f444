"""Replay the equations of a path with other quantities, and ask its question with them.

A path explains its answer if its equations predict the answer to a changed question (counterfactual simulatability, Chen et
al. 2023, arXiv 2307.08678). The replay needs no judge: it is exact.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.trust.expressions import UnreadableError
from lmsi_jax.trust.statements import Statement
from lmsi_jax.trust.tokens import Number, tokens


def replay(statements: Sequence[Statement], changes: Mapping[Number, Number]) -> Number | None:
    """Return the last result of a path whose given quantities are changed, or None when a step cannot be replayed.

    An error in the arithmetic of a step stays in it, by the same amount.
    """
    values, last = dict(changes), None
    for each in statements:
        if each.is_part:
            continue
        if each.result is None or each.compute is None:
            return None
        operands = [values.get(operand, operand) for operand in each.operands]
        last = each.result
        if operands != list(each.operands):
            try:
                last = each.compute(operands) + each.result - each.compute(each.operands)
            except UnreadableError:
                return None
            values[each.result] = last
    return last


def replaceable(question: str, statements: Sequence[Statement]) -> list[Number]:
    """Return the quantities of a question that can be changed: integers that occur once in it and once as an operand.

    There are none if two results are equal, or a result equals a quantity, since the replay could not tell the two apart.
    """
    written = Counter(item.value for item in tokens(question) if item.kind == "number")
    used = Counter(operand for each in statements if not each.is_part for operand in each.operands)
    results = Counter(each.result for each in statements if not each.is_part)
    if max(results.values(), default=0) > 1 or not written.keys().isdisjoint(results):
        return []
    return [n for n, count in written.items() if count == used[n] == 1 and isinstance(n, int)]


def replace_quantities(question: str, changes: Mapping[Number, Number]) -> str:
    """Return a question with other quantities."""
    text = question
    for item in reversed(tokens(question)):
        if item.kind == "number" and item.value in changes:
            text = f"{text[: item.start]}{changes[item.value]}{text[item.end :]}"
    return text
