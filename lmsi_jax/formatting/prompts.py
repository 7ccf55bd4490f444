"""The prompts of a task, as plain text or in a model's chat template."""

from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.config import FORMATS
from lmsi_jax.tasks import prompts
from lmsi_jax.tasks.task import Task
from lmsi_jax.tokenizers import ChatTemplate, Tokenizer


@dataclass(frozen=True)
class Chat:
    """The text that a chat template writes around a question and its answer."""

    no_examples: str  # precedes a question without exemplars
    opening: str  # opens the turn of a question after exemplars
    after: str  # ends a question's turn and opens the answer's turn
    before_answer: str  # between a prompt and its answer
    after_answer: str  # between an answer and the token that ends it


@dataclass(frozen=True)
class Prompts:
    """The exemplars before a question, and the layout of the question: that of `chat`, or "Q: ... A:" without it.

    Without exemplars the prompts are `zero_shot`: a question that is to be answered by reasoning ends with "Let's think step by
    step." (Kojima et al. 2022).
    """

    cot_examples: str
    direct_examples: str
    chat: Chat | None = None
    zero_shot: bool = False

    @classmethod
    def of(cls, task: Task, template: ChatTemplate | None = None) -> "Prompts":
        """Return the prompts of a task, in a model's chat template if given, else as plain text."""
        if template is None:
            cot, direct = (prompts.few_shot(task.exemplars, task.answer_type, reasoning=r) for r in (True, False))
            return cls(cot, direct, zero_shot=not task.exemplars)
        turns = [
            [
                (prompts.with_choices(e.question, e.choices), prompts.solution(e, task.answer_type, reasoning=reasoning))
                for e in task.exemplars
            ]
            for reasoning in (True, False)
        ]
        around_cot, around_direct, around_none = template.around(*turns, [])
        before_answer, after_answer, _ = template.answer()
        no_examples = around_none.before + around_none.opening
        chat = Chat(no_examples, around_cot.opening, around_cot.after, before_answer, after_answer)
        return cls(around_cot.before, around_direct.before, chat, zero_shot=not task.exemplars)

    def question(self, question: str, choices: Sequence[str] | None = None, *, reasoning: bool = True) -> str:
        """Return the part of a prompt after the exemplars, up to where the answer begins."""
        return self._asked(self.chat.opening if self.chat else "", question, choices, steps=self.zero_shot and reasoning)

    def render(self, format: str, question: str, choices: Sequence[str] | None = None) -> str:
        """Return the complete prompt of a question in one of `FORMATS`."""
        kind = FORMATS[format]
        if kind.few_shot:
            examples = self.cot_examples if kind.reasoning else self.direct_examples
            return examples + self.question(question, choices, reasoning=kind.reasoning)
        return self._asked(self.chat.no_examples if self.chat else "", question, choices, steps=kind.reasoning)

    def _asked(self, opening: str, question: str, choices: Sequence[str] | None, *, steps: bool) -> str:
        """Return a question up to where its answer begins; `steps` asks for reasoning without exemplars."""
        if self.chat is None:
            return prompts.question_text(question, choices) + (f" {prompts.STEP_BY_STEP}" if steps else "")
        step = f"\n{prompts.STEP_BY_STEP}" if steps else ""
        return opening + prompts.with_choices(question, choices) + step + self.chat.after

    def target(self, text: str) -> str:
        """Return the text of an answer as it follows its prompt."""
        text = text.strip()
        if self.chat is None:
            return f" {text}"
        opened = self.chat.before_answer.split()[:1]
        # An answer that opens a thinking block itself needs no empty one before it.
        before = "" if opened and text.startswith(opened[0]) else self.chat.before_answer
        return before + text + self.chat.after_answer

    def begun(self, text: str) -> str:
        """Return the beginning of an answer, which a model goes on with, as it follows its prompt."""
        return f" {text}" if self.chat is None else self.chat.before_answer + text


def check_control_tokens(questions: Sequence[dict], tokenizer: Tokenizer) -> None:
    """Raise UserError when a question contains the name of a control token, which a chat prompt would encode as that token."""
    for row in questions:
        text = prompts.with_choices(row["question"], row["choices"])
        names = [name for name in tokenizer.control_names if name in text]
        if names:
            raise UserError(
                f"Question '{row['id']}' contains {names[0]!r}, which the model's chat template would read as a control token; "
                f"reword it, or set --config.data.chat=False."
            )
