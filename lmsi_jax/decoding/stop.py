"""Stop strings of any length, matched on the device across token boundaries.

The stop strings are compiled into one automaton over bytes (Aho and Corasick 1975). Running it over the bytes of each token
gives a table from (state, token) to state, so that a decode step costs one lookup per row.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

START = 0


class StopTables:
    """Builds the stop tables of one vocabulary. The token bytes are laid out once, so that a table takes milliseconds.

    `token_bytes`: the bytes of each token. `vocab`: the rows of the embedding; ids beyond `token_bytes` have no bytes.
    """

    def __init__(self, token_bytes: Sequence[bytes], vocab: int = 0):
        sizes = np.array([len(text) for text in token_bytes], np.int64)
        self._vocab = max(vocab, len(sizes))
        self._by_length = np.argsort(-sizes, kind="stable")  # longest first: those that have a j-th byte come first
        self._sizes = sizes[self._by_length]
        self._bytes = np.frombuffer(b"".join(token_bytes), np.uint8)
        self._starts = (np.cumsum(sizes) - sizes)[self._by_length]

    def table(self, stop_sets: Sequence[Sequence[str]]) -> tuple[np.ndarray, list[int]]:
        """Return the transition table (states, vocab), int32, of several sets of stop strings, and each set's start state.

        The last state means "a stop string is complete" and leads only to itself. A set without stop strings never reaches it.
        """
        automata = [_byte_automaton([stop.encode("utf-8") for stop in stops]) for stops in stop_sets]
        starts = [int(start) for start in np.cumsum([0, *map(len, automata)])]
        matched = starts.pop()
        delta = np.zeros((matched + 1, 256), np.int32)
        delta[matched] = matched
        for start, automaton in zip(starts, automata, strict=True):
            for state, moves in enumerate(automaton):
                delta[start + state] = start + START
                for byte, target in moves.items():
                    delta[start + state, byte] = matched if target == len(automaton) else start + target
        table = np.repeat(np.arange(matched + 1, dtype=np.int32)[:, None], self._vocab, axis=1)
        for state in range(matched):
            table[state, self._by_length] = self._feed(delta, state)
        return table, starts

    def _feed(self, delta: np.ndarray, state: int) -> np.ndarray:
        """Return the state after each token, longest tokens first."""
        states = np.full(len(self._sizes), state, np.int32)
        for byte in range(int(self._sizes[0]) if len(self._sizes) else 0):
            longer = int(np.searchsorted(-self._sizes, -byte, side="left"))  # number of tokens that have this byte
            states[:longer] = delta[states[:longer], self._bytes[self._starts[:longer] + byte]]
        return states


def _byte_automaton(stops: list[bytes]) -> list[dict[int, int]]:
    """Return `delta[state][byte]` for every state but the matched one, whose number is the list's length.

    Bytes that are not in `delta[state]` lead to START.
    """
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
    """Return `text` up to the first stop string in it."""
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(ends)] if ends else text
