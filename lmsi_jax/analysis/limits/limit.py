"""One limit of self-improvement, as a run measured it."""

from dataclasses import dataclass

from lmsi_jax.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Limit:
    """What was measured, in a sentence, a table and a drawing. `warns` marks a limit that a user has to look at.

    `drawn` has (name, share after training, share before).
    """

    title: str
    sentence: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    warns: bool = False
    drawn: tuple[tuple[str, Estimate, Estimate | None], ...] = ()
