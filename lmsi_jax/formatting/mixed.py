"""The four formats of section 3.2, table 2: each kept path becomes up to four training rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lmsi_jax.core.errors import UserError
from lmsi_jax.formatting.packing import Piece
from lmsi_jax.tasks import prompts
from lmsi_jax.tasks.registry import Task
from lmsi_jax.tokenizers import ChatTemplate, Tokenizer


@dataclass(frozen=True)
class Prompts:
    """The prompts of a task: what stands before a question in each format, and how the question itself is laid out."""

    cot_examples: str
    direct_examples: str
    no_examples: str = ""
    opening: str = ""  # of a question's turn in a chat, behind examples
    after: str | None = None  # what ends a question of a chat, whose next turn is the answer; None = "Q: ... A:"
    before_answer: str = " "  # between a prompt and its answer
    after_answer: str = ""  # between an answer and the token that ends it

    @classmethod
    def of(cls, task: Task, chat: ChatTemplate | None = None) -> "Prompts":
        """The plain prompts of a task, or those of a model's chat template."""
        if chat is None:
            return cls(*(prompts.few_shot(task.exemplars, task.answer_type, reasoning=r) for r in (True, False)))
        turns = [
            [
                (prompts.with_choices(e.question, e.choices), prompts.solution(e, task.answer_type, reasoning=reasoning))
                for e in task.exemplars
            ]
            for reasoning in (True, False)
        ]
        cot, direct, none = chat.around(*turns, [])
        before_answer, after_answer, _ = chat.answer()
        zero_shot = none.before + none.opening
        return cls(cot.before, direct.before, zero_shot, cot.opening, cot.after, before_answer, after_answer)

    def question(self, question: str, choices: Sequence[str] | None = None) -> str:
        """What follows the examples, up to where the answer begins."""
        if self.after is None:
            return prompts.question_text(question, choices)
        return self.opening + prompts.with_choices(question, choices) + self.after

    def render(self, format: str, question: str, choices: Sequence[str] | None = None) -> str:
        """The whole prompt of one format."""
        if format.startswith("few_shot"):
            examples = self.cot_examples if format == "few_shot_cot" else self.direct_examples
            return examples + self.question(question, choices)
        if self.after is None:
            step = f" {prompts.STEP_BY_STEP}" if format == "zero_shot_cot" else ""
            return prompts.question_text(question, choices) + step
        step = f"\n{prompts.STEP_BY_STEP}" if format == "zero_shot_cot" else ""
        return self.no_examples + prompts.with_choices(question, choices) + step + self.after

    def target(self, text: str) -> str:
        """An answer as it follows its prompt."""
        text = text.strip()
        opened = self.before_answer.split()[:1]  # a model that opened a block of thought itself needs no empty one before it
        before = "" if opened and text.startswith(opened[0]) else self.before_answer
        return before + text + self.after_answer


def check_control_tokens(questions: Sequence[dict], tokenizer: Tokenizer) -> None:
    """Raise UserError when a question holds the name of a control token, which a chat prompt would take for that token."""
    for row in questions:
        text = prompts.with_choices(row["question"], row["choices"])
        names = [name for name in tokenizer.control_names if name in text]
        if names:
            raise UserError(
                f"Question '{row['id']}' holds {names[0]!r}, which the model's chat template would take for a control token; "
                f"reword it, or set --config.data.chat=False."
            )


@dataclass(frozen=True)
class Solution:
    """A path to train on: its index, its text, and the answer it came to."""

    path: int
    text: str
    answer: str


def examples(
    id: str,
    question: str,
    choices: Sequence[str] | None,
    solutions: Sequence[Solution],
    answer_type: str,
    all_prompts: Prompts,
    formats: Sequence[str],
    *,
    distinct_direct: bool = False,
) -> list[dict]:
    """The training rows of one question.

    A chain-of-thought target is the path as it was sampled, a direct target the concluding sentence alone. With
    `distinct_direct` a direct row that would repeat, as the paths of one vote do, comes once a question.
    """
    rows: list[dict] = []
    seen: set[tuple[str, str]] = set()
    for solution in solutions:
        for format in formats:
            direct = format.endswith("direct")
            target = all_prompts.target(prompts.conclusion(solution.answer, answer_type) if direct else solution.text)
            if direct and distinct_direct and (format, target) in seen:
                continue
            seen.add((format, target))
            prompt = all_prompts.render(format, question, choices)
            rows.append({"id": id, "path": solution.path, "format": format, "prompt": prompt, "target": target})
    return rows


def tokenize(rows: Sequence[dict], tokenizer: Tokenizer, weighting: str = "token") -> list[Piece]:
    """Token ids of training rows, from beginning- to end-of-sequence; only the targets carry loss.

    All tokens of targets count alike, or all "row"s whatever their length, or all "question"s whatever their number of
    rows. The paper does not say; tokens alike are the usual loss of fine-tuning, in which long reasoning counts most.

    Raises UserError when a row is not one to train on, or there is none.
    """
    _check_rows(rows)
    end = [tokenizer.eos] if tokenizer.eos >= 0 else []
    questions = [row.get("id", i) for i, row in enumerate(rows)]  # rows that name no question are each one of their own
    siblings = Counter(questions)
    pieces = []
    for question, row in zip(questions, rows, strict=True):
        prompt = tokenizer.start(row["prompt"])
        target = [*tokenizer.encode_completion(row["target"], prompt), *end]
        if not target:
            raise UserError(f"The target of {row['prompt'][-60:]!r} is empty, so that there is nothing to learn; leave it out.")
        whole = {"token": len(target), "row": 1.0, "question": 1 / siblings[question]}[weighting]
        pieces.append(Piece([*prompt, *target], len(prompt), row.get("format", ""), whole / len(target)))
    return pieces


def _check_rows(rows: Sequence[dict]) -> None:
    if not rows:
        raise UserError("There is no training row; a file of them has one JSON object a line, with `prompt` and `target`.")
    for number, row in enumerate(rows, start=1):
        for field in ("prompt", "target", *({"id", "format"} & row.keys())):
            if not isinstance(row.get(field), str):
                raise UserError(
                    f"Training row {number} has the `{field}` {row.get(field)!r:.60}. `prompt` and `target` must be text; so "
                    f"must `id` and `format` where a row has them."
                )
