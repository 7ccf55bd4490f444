"""Settings of the vote, of selection and of adaptive stopping."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from lmsi_jax.core.settings import require, require_at_least, require_one_of, require_share, untraced
from lmsi_jax.trust.steps import CHECKS, CONTRACT, CONTRACTS, with_contract
from lmsi_jax.voting import adaptive, select
from lmsi_jax.voting.adaptive import StoppingOptions
from lmsi_jax.voting.select import PathLimits


@dataclasses.dataclass(frozen=True)
class VoteConfig:
    """How the paths of a question vote."""

    tie: Literal["first", "random", "abstain"] = "first"
    vote: Literal[
        "majority",
        "sum_probability",
        "average_probability",
        "sum_normalised",
        "average_normalised",
        "valid_first",
        "valid_weighted",
    ] = "majority"  # the score that the winning answer maximises; see voting/majority.py
    checks: tuple[str, ...] = (
        "arithmetic",
        "answer",
        "contract",
    )  # what makes a path valid; "contract" is what the task declares
    invalid_weight: float = 0.2  # valid_weighted: the weight of a path that is not valid
    steps: bool = False  # train on valid paths only, after the vote

    def check(self, path: str) -> None:
        for name in self.checks:
            require_one_of(f"{path}checks", name, (*CHECKS, *CONTRACTS, CONTRACT))
        require_share(self, path, "invalid_weight")
        require(self.invalid_weight > 0, f"{path}invalid_weight=0 would leave questions without a valid path undecided.")

    @property
    def reads_steps(self) -> bool:
        """Whether the vote, or what is selected after it, depends on the checks of steps."""
        return self.steps or self.vote.startswith("valid")

    def resolved_checks(self, contract: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the checks, with those of a task's contract in place of "contract"."""
        return with_contract(self.checks, contract)


@dataclasses.dataclass(frozen=True)
class SelectConfig(VoteConfig, PathLimits):
    """Which voted paths to train on. The defaults are the paper's: every agreeing path of every question."""

    rule: str = "majority"  # or "random" and "gold", which are controls; see voting/select.py
    reviews: str = untraced("")  # a file of human reviews that overrule the vote (`lmsi review`); "" = none

    def check(self, path: str) -> None:
        super().check(path)
        require_one_of(f"{path}rule", self.rule, select.RULES)
        require_share(self, path, "min_confidence")
        require(
            not self.reviews or self.rule == "majority",
            f"{path}reviews={self.reviews} with {path}rule={self.rule}: this control ignores the vote, and so its reviews.",
        )
        require(self.max_paths >= 0, f"{path}max_paths={self.max_paths} is negative; 0 means no cap.")


@dataclasses.dataclass(frozen=True)
class AdaptiveConfig(StoppingOptions):
    """When to stop sampling paths of a question whose vote is decided; see voting/adaptive.py. The paper samples all."""

    rule: str = "none"  # or "forecast", "beta", "window"

    def check(self, path: str) -> None:
        require_one_of(f"{path}rule", self.rule, ("none", *adaptive.RULES))
        require_at_least(1, self, path, "floor")
        require(self.window >= 2, f"{path}window={self.window}: one path always agrees with itself; set 2 or more.")
        require(0.5 < self.threshold < 1, f"{path}threshold={self.threshold} is not within (0.5, 1).")
