"""Other prompts for the same questions: how much a score depends on the words and exemplars of its prompt."""

import dataclasses
from collections.abc import Sequence

from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.tasks.prompts import STEP_BY_STEP
from lmsi_jax.tasks.task import Task
from lmsi_jax.tokenizers import ChatTemplate

QUESTION, ANSWER = "Question:", "Answer:"  # in place of "Q:" and "A:" in one variant
OTHER_CONCLUSION = "So the final answer is"
OTHER_INSTRUCTIONS = ("Work it out one step at a time.", "Explain your reasoning, then give the answer.")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to ask for reasoning: prompts, with some of their words replaced."""

    name: str
    prompts: Prompts
    replaced: tuple[tuple[str, str], ...] = ()  # (words of the prompt, other words)
    zero_shot: bool = False

    def render(self, question: str, choices: Sequence[str] | None = None) -> str:
        """Return the complete prompt of a question."""
        prompts, whole = self.prompts, self.zero_shot
        text = prompts.render("zero_shot_cot" if whole else "few_shot_cot", question, choices)
        before, asked, after = text.rpartition(question)
        for old, new in self.replaced:
            before, after = before.replace(old, new), after.replace(old, new)
        return before + asked + after


def prompt_variants(task: Task, template: ChatTemplate | None = None) -> list[Variant]:
    """Return the task's own prompt, as "given", and then other ones: at least six if there are two exemplars.

    Exemplars in another order, half of them, other words for the question, the answer and its conclusion, and zero-shot prompts
    with several instructions. A variant whose prompt equals an earlier one is left out, as in a chat template, which has its
    own words for "Q:" and "A:".
    """

    def shown(exemplars: Sequence) -> Prompts:
        return Prompts.of(dataclasses.replace(task, exemplars=tuple(exemplars)), template)

    given, half = shown(task.exemplars), len(task.exemplars) // 2
    found = [Variant("given", given)]
    if len(task.exemplars) > 1:
        found += [
            Variant("exemplars in reverse order", shown(task.exemplars[::-1])),
            Variant("first half of the exemplars", shown(task.exemplars[:half])),
            Variant("second half of the exemplars", shown(task.exemplars[half:])),
        ]
    if task.exemplars:
        words = (("Q: ", f"{QUESTION} "), ("\nA:", f"\n{ANSWER}"))
        found += [
            Variant("other words for question and answer", given, words),
            Variant("other words for the conclusion", given, (("The answer is", OTHER_CONCLUSION),)),
            Variant("zero-shot", given, zero_shot=True),
        ]
    instructions = [((STEP_BY_STEP, other),) for other in OTHER_INSTRUCTIONS]
    found += [Variant(f"zero-shot: “{words[0][1]}”", given, words, zero_shot=True) for words in instructions]
    sample = {variant.render("?"): variant for variant in reversed(found)}
    return [variant for variant in found if sample[variant.render("?")] is variant]
