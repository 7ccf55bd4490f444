"""Settings of the evaluation on held-out questions."""

import dataclasses

from lmsi_jax.core.settings import require, require_at_least


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Held-out scores with Standard prompting, CoT greedy and self-consistency."""

    self_consistency: bool = True  # score self-consistency too, with sample.paths paths
    valid_first: bool = True  # where answers are numbers, score self-consistency also with the vote of select.vote=valid_first
    standard_tokens: int = 32  # token limit of a direct answer
    transfer: int = 128  # held-out questions that are also asked with other prompts, and questions of each other task; 0 = none
    other_tasks: tuple[str, ...] = ()  # tasks that are not trained on; for source=files and tfds, data sets of the same folder
    texts: str = ""  # JSON Lines with `text`: the loss on them shows what training forgets; builtin = the built-in model's

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "standard_tokens")
        require_at_least(0, self, path, "transfer")
        require(
            self.transfer > 0 or not self.other_tasks,
            f"{path}other_tasks={self.other_tasks} with {path}transfer=0: no question of them would be asked; raise it.",
        )
