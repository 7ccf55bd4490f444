"""Settings of the evaluation on held-out questions."""

import dataclasses

from lmsi_jax.core.settings import require_at_least


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Held-out scores with Standard prompting, CoT greedy and self-consistency."""

    self_consistency: bool = True  # score self-consistency too, with sample.paths paths
    valid_first: bool = True  # where answers are numbers, score self-consistency also with the vote of select.vote=valid_first
    standard_tokens: int = 32  # token limit of a direct answer


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(ScoreConfig):
    """Held-out scores, and what they do not show: accuracy with other prompts and on other tasks, and what was forgotten."""

    transfer: int = 128  # held-out questions asked with other prompts too, and questions of each other task; 0 = none of both
    other_tasks: tuple[str, ...] = ()  # tasks that are not trained on; for source=files and tfds, data sets of the same folder
    texts: str = ""  # JSON Lines with `text`: the loss on them shows what training forgets; builtin = the built-in model's

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "standard_tokens")
        require_at_least(0, self, path, "transfer")
