"""Other prompts for the same questions."""

import pytest

from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.formatting.variants import prompt_variants
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.sets import DATASETS
from lmsi_jax.tasks.sources import SOURCES
from lmsi_jax.tasks.task import load_task
from lmsi_jax.tokenizers import ChatTemplate
from tests.tokenizers.test_chat import QWEN

HARD = "Q: Which line begins with Q: and which with A:? The answer is here.\nA: Let's think step by step."


@pytest.mark.parametrize("name", [*SOURCES, *DATASETS])
@pytest.mark.parametrize("template", [None, ChatTemplate(QWEN)], ids=["plain", "chat"])
def test_each_task_has_six_other_prompts_for_the_same_question(name, template):
    """Catches: two prompts that are the same, a question whose own words are replaced, a prompt that is not the given one."""
    task = load_task(DataConfig(task=name))
    variants = prompt_variants(task, template)
    prompts = [variant.render(HARD) for variant in variants]
    assert len(set(prompts)) == len(prompts) >= 7
    assert all(prompt.count(HARD) == 1 for prompt in prompts)
    assert prompts[0] == Prompts.of(task, template).render("few_shot_cot", HARD)
    assert ("other words for question and answer" in [variant.name for variant in variants]) == (template is None)


def test_words_are_replaced_around_the_question():
    """Catches: a variant that renders what the given prompt does."""
    texts = {variant.name: variant.render("2 + 3?") for variant in prompt_variants(load_task(DataConfig()))}
    assert texts["other words for question and answer"].endswith("\n\nQuestion: 2 + 3?\nAnswer:")
    assert texts["other words for the conclusion"].count("So the final answer is") == 2
    assert texts["zero-shot"] == "Q: 2 + 3?\nA: Let's think step by step."
    assert texts["zero-shot: “Work it out one step at a time.”"] == "Q: 2 + 3?\nA: Work it out one step at a time."
    assert texts["exemplars in reverse order"].index("A farm has") < texts["exemplars in reverse order"].index("Paul has")


def test_a_zero_shot_task_varies_its_instruction():
    """Catches: a task without exemplars that is asked with few-shot prompts, or with one prompt twice."""
    variants = prompt_variants(load_task(DataConfig(exemplars="none")))
    assert [variant.name for variant in variants][0] == "given" and len(variants) == 3
