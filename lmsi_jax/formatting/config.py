"""The formats of training rows, and their settings."""

import dataclasses
from typing import Literal

from lmsi_jax.core.settings import require, require_one_of, require_share
from lmsi_jax.trust.bias import require_place_for_answer
from lmsi_jax.trust.corruptions import CORRUPTIONS


@dataclasses.dataclass(frozen=True)
class Format:
    """One way to write a question and its answer (table 2)."""

    few_shot: bool  # whether exemplars precede the question
    reasoning: bool  # whether the answer is a chain of thought


FORMATS = {
    "few_shot_cot": Format(few_shot=True, reasoning=True),
    "few_shot_direct": Format(few_shot=True, reasoning=False),
    "zero_shot_cot": Format(few_shot=False, reasoning=True),
    "zero_shot_direct": Format(few_shot=False, reasoning=False),
}


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """The mixed formats of section 3.2. Leave some out to reproduce the paper's ablation."""

    formats: tuple[str, ...] = tuple(FORMATS)
    weights: tuple[float, ...] = ()  # of each of `formats` in the loss; () = 1
    distinct_direct: bool = False  # one direct row per question; else one per path, as in the paper, all equal
    hints: tuple[str, ...] = ()  # consistency training: suggestions of another answer than the vote, with {} for it
    hinted: float = 1.0  # share of the paths whose rows have one of `hints`
    difficulty: Literal["none", "vote_share", "length"] = "none"  # what rows record for a curriculum, finetune.curriculum
    corruptions: tuple[str, ...] = ()  # adds questions whether a path, or a copy corrupted so, is right

    def check(self, path: str) -> None:
        require_share(self, path, "hinted")
        for kind in self.corruptions:
            require_one_of(f"{path}corruptions", kind, CORRUPTIONS)
        for hint in self.hints:
            require_place_for_answer(f"{path}hints", hint)
        require(
            len(self.weights) in (0, len(self.formats)) and all(weight > 0 for weight in self.weights),
            f"{path}weights={self.weights} must be () or one positive number for each of {path}formats={self.formats}.",
        )
        unknown = sorted(set(self.formats) - set(FORMATS))
        require(
            bool(self.formats) and not unknown,
            f"{path}formats={self.formats} must name at least one of {', '.join(FORMATS)}"
            + (f"; unknown: {', '.join(unknown)}." if unknown else "."),
        )
