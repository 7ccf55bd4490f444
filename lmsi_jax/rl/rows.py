"""Packs sampled paths into training rows: the paths of a question continue its prompt, which is computed once."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lmsi_jax.formatting.packing import assign_rows

PROMPT_BUCKET = 32  # prompts are padded to a multiple of this, so that few programs compile


@dataclasses.dataclass(frozen=True)
class Path:
    """One sampled path: its tokens as sampled, and their log-probabilities. `trained`: whether it has loss."""

    prompt: int  # the number of its prompt, from 0
    tokens: Sequence[int]
    logprobs: Sequence[float]
    trained: bool = True


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of a step, each array (rows, row_length) but `prompt` (rows,), and the prompts that they continue.

    A path of n tokens takes n slots: the last token of its prompt and its own tokens but the last, each of which predicts the
    next one, in `targets`. `sequences` is the number of the path within its row, 0 where a token has no loss. `places` has the
    row and the slots of each path.
    """

    arrays: dict[str, np.ndarray]
    prompts: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, slice], ...]

    def spread(self, values: Sequence[float | Sequence[float]]) -> np.ndarray:
        """Return an array (rows, row_length) with the value of each path, or its list of values, at its tokens."""
        result = np.zeros(self.arrays["tokens"].shape, np.float32)
        for place, value in zip(self.places, values, strict=True):
            result[place] = value
        return result


def padded(count: int, multiple: int) -> int:
    """Return `count` rounded up to one of few sizes: multiples of `multiple` in steps of at most a quarter."""
    units = -(-count // multiple)
    step = max(1, 2 ** (units.bit_length() - 3))
    return -(-units // step) * step * multiple


def pack_paths(
    prompts: Sequence[Sequence[int]], paths: Sequence[Path], row_length: int, multiple: int, *, whole: bool = False
) -> Rows:
    """Pack paths into rows of one prompt each. The number of rows is `padded` to a multiple of `multiple`.

    With `whole`, all paths of a prompt are in one row, in their order. Raises UserError when a path, or with `whole` all of a
    prompt, are longer than a row.
    """
    rows: list[tuple[int, list[int]]] = []
    for number in range(len(prompts)):
        own = [i for i, path in enumerate(paths) if path.prompt == number]
        lengths = [len(paths[i].tokens) for i in own]
        if whole:
            assign_rows([sum(lengths)], row_length)  # refuses what is too long
        assigned = [range(len(own))] if whole else assign_rows(lengths, row_length)
        rows += [(number, [own[i] for i in row]) for row in assigned]
    shape = (padded(max(len(rows), 1), multiple), row_length)
    arrays = {name: np.zeros(shape, np.int32) for name in ("tokens", "targets", "segments", "positions", "sequences")}
    prompt_of, old = np.zeros(shape[0], np.int32), np.zeros(shape, np.float32)
    places: dict[int, tuple[int, slice]] = {}
    for r, (number, members) in enumerate(rows):
        prompt, start = prompts[number], 0
        prompt_of[r] = number + 1
        for segment, i in enumerate(members, start=1):
            path, n = paths[i], len(paths[i].tokens)
            places[i] = at = (r, slice(start, start + n))
            arrays["tokens"][at] = [prompt[-1], *path.tokens[:-1]]
            arrays["targets"][at] = path.tokens
            arrays["segments"][at] = segment
            arrays["positions"][at] = len(prompt) - 1 + np.arange(n)
            arrays["sequences"][at] = segment if path.trained else 0
            old[at] = path.logprobs
            start += n
    found = {**arrays, "prompt": prompt_of, "old_logprobs": old}
    return Rows(found, tuple(tuple(prompt[:-1]) for prompt in prompts), tuple(places[i] for i in range(len(paths))))
