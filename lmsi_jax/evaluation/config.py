"""Settings of the evaluation on held-out questions."""

import dataclasses

from lmsi_jax.core.settings import require_at_least


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Held-out scores with Standard prompting, CoT greedy and self-consistency."""

    self_consistency: bool = True  # score self-consistency too, with sample.paths paths
    valid_first: bool = True  # where answers are numbers, score self-consistency also with the vote of select.vote=valid_first
    standard_tokens: int = 32  # token limit of a direct answer

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "standard_tokens")
