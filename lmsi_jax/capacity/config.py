"""Settings of `lmsi plan`."""

import dataclasses

from lmsi_jax.core.settings import require_at_least


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """Assumptions of `lmsi plan` about the quantities that a run would measure; lengths are in tokens."""

    preset: str = ""  # a published architecture of model/presets.py; "" = that of model.checkpoint
    questions: int = 7473  # training questions per round; the default is GSM8K's
    eval_questions: int = 1319  # held-out questions, scored once per round; 0 = no evaluation
    prompt: int = 900  # length of the few-shot prompt
    question: int = 100  # length of a question
    tokens: float = 0.0  # average length of a path; 0 = half of sample.max_tokens
    price: float = 0.0  # dollars per chip hour
    watts: float = 0.0  # per chip

    def check(self, path: str) -> None:
        require_at_least(1, self, path, "questions", "prompt", "question")
        require_at_least(0, self, path, "eval_questions")
