"""Stop strings of any length, matched on the device across token boundaries.

The stop strings become one automaton over bytes (Aho and Corasick 1975). Feeding a whole token's bytes through it gives a table
from (state, token) to state, so that a decode step costs one lookup a row.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

START = 0


def stop_table(stops: Sequence[str], token_bytes: Sequence[bytes]) -> tuple[np.ndarray, int]:
    """The transition table (states, vocab) int32 and the state that means "a stop string is complete".

    That state is never left. Without stop strings the table has it too, and nothing leads there.
    """
    delta = _byte_automaton([stop.encode("utf-8") for stop in stops])
    matched = len(delta)
    table = np.empty((matched + 1, len(token_bytes)), np.int32)
    table[matched] = matched
    for state in range(matched):
        for token, text in enumerate(token_bytes):
            table[state, token] = _run(delta, matched, state, text)
    return table, matched


def _run(delta: list[dict[int, int]], matched: int, state: int, text: bytes) -> int:
    for byte in text:
        state = delta[state].get(byte, START)
        if state == matched:
            break
    return state


def _byte_automaton(stops: list[bytes]) -> list[dict[int, int]]:
    """`delta[state][byte]` for every state but the matched one; a byte that is not there leads to START."""
    children: list[dict[int, int]] = [{}]
    final: set[int] = set()
    for stop in stops:
        node = START
        for byte in stop:
            if byte not in children[node]:
                children.append({})
                children[node][byte] = len(children) - 1
            node = children[node][byte]
        final.add(node)
    fail = [START] * len(children)
    delta: list[dict[int, int]] = [dict(c) for c in children]
    queue = deque(children[START].values())
    while queue:  # breadth first, so that a node's failure state is complete before the node is
        node = queue.popleft()
        final |= {node} if fail[node] in final else set()
        delta[node] = {**delta[fail[node]], **children[node]}
        for byte, child in children[node].items():
            fail[child] = delta[fail[node]].get(byte, START)
            queue.append(child)
    numbers = {node: i for i, node in enumerate(n for n in range(len(children)) if n not in final)}
    matched = len(numbers)
    return [{byte: numbers.get(target, matched) for byte, target in delta[node].items()} for node in numbers]


def cut(text: str, stops: Sequence[str]) -> str:
    """`text` before the first stop string in it."""
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(ends)] if ends else text
