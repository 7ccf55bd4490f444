"""Texts, JSON values and rows that have broken programs like this one, as hypothesis strategies."""

import functools
import itertools
import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lmsi_jax.core.text import clean

FRAGMENTS = (
    "", " ", "\n", "\t", "\r\n", "\n\n", "\x00", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\u00a0", "\u2028", "\u2029", "\ufeff",
    "\u200b", "\u200f", "\u202e", "\u2066", "\u2581", "\ufffd", "\ud83d", "\ude00", "\ud83d\ude00", "\U0001f600", "\U0010ffff",
    "\u0130", "\u00df", "\uff21", "e\u0301", "\u00e9", "\u4e03", "\u0663", "\u0967", "\u00b2", "\u00bd",
    "[/INST]", "[v2]", "[bold]", "[/]", "[link=x]", ":smile:", "<s>", "</s>", "<|im_end|>", "<eos>", "<unk>", "<0x0A>",
    "<think>", "</think>", "\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\b", "\r", "</script>", "<!--", "-->", "{{ x }}",
    "{% raw %}", "&lt;", "'", '"', "\\", "\\u0000", "\\boxed{", "}", "\\frac", "\\frac{1}{0}", "\\text{", "$", "$$", "\\(",
    "\\[", "<<3*4=12>>", "0", "7", "-0", "-0.0", "1,000", "1e99", "1/0", "$7.50", "50%", "NaN", "Infinity", "1" * 600,
    "9" * 5000, "(A)", "(b)", "(Z)", "yes", "No", "true and false", "it depends", "not possible to tell", "neither",
    "the answer is ", "The answer is", "Answer:", "####", "Q: ", "\nQ: ", "A:", "None", "null", "a" * 300, "* " * 100,
)  # fmt: skip
# A model's text around a nasty one, which stands in the place of %.
TEMPLATES = (
    "%", "The answer is %.", "% The answer is 7.", "So it is %.\n#### %", "\\boxed{%} is the answer",
    "<think>%</think>Answer: (B)", "It depends: %. The answer is yes.", "The answer is 7.%\n\nQ: %\nA: The answer is 8.",
    "The answer is %7", "% = 7 (A) yes",
)  # fmt: skip
FINISHES = ("stop", "length", "", "content_filter", "\ud83d")

characters = st.text(st.characters(codec=None, exclude_categories=()), max_size=6)  # lone surrogates among them
texts = st.lists(st.sampled_from(FRAGMENTS) | characters, max_size=6).map("".join)
questions = texts.filter(lambda text: text.strip())
numbers = st.one_of(
    st.sampled_from((0, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, 10**400, -(10**4000), True, False)),
    st.integers(-(2**70), 2**70),
    st.floats(),
)
leaves = st.none() | numbers | texts
objects = functools.partial(st.dictionaries, texts, max_size=3)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=8)
deep = st.integers(0, 98).map(lambda depth: functools.reduce(lambda inner, _: [inner], range(depth), []))
records = objects(values | deep)


def examples(count: int) -> settings:
    """`count` examples, the same ones each time: where a test begins to fail, the code has changed and not the examples."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def outputs(nasty: list[str]) -> list[str]:
    """What a model may write: every nasty text in every template."""
    return [template.replace("%", text) for text, template in itertools.product(nasty, TEMPLATES)]


def as_read(value):
    """What a value is after it was written and read: no lone surrogates, no NaN, no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [as_read(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): as_read(item) for key, item in value.items()}
    return clean(value)


def same(a, b) -> bool:
    """Equal in type too: True is no 1, and -0.0 no 0.0."""
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)
