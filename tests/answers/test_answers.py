import json
import os
import random
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsi_jax.answers import equality
from lmsi_jax.answers.extract import TYPES, Abstention, Answer, canonical, equivalent, extract, group
from lmsi_jax.answers.numbers import plain

CASES = Path(__file__).parent / "cases"

NUMBERS = [
    ("The answer is 18.", "18"),
    ("So the answer is $1,080.", "1080"),
    ("The answer is 10,800.00 dollars.", "10800"),
    ("The answer is -5.", "-5"),
    ("The answer is \u22125.", "-5"),
    ("The answer is 0.50.", "0.5"),
    ("The answer is .5.", "0.5"),
    ("The answer is 1/2.", "0.5"),
    (r"The answer is $\frac{1}{2}$.", "0.5"),
    ("The answer is 2/3.", "2/3"),
    ("The answer is 15%.", "15"),
    ("The answer is: 7", "7"),
    ("the Answer is  -$3.20", "-3.2"),
    ("The answer is 4. No, the answer is 5.", "5"),
    ("The answer is 12 apples\nQ: next? A: The answer is 99.", "12"),
    ("The answer is 10 - 3 = 7.", "7"),
    ("The answer is 16 - 3 - 4 = 9 dollars.", "9"),
    ("The answer is 9 * 2 = $18. So 18.", "18"),
    (r"The answer is $-\frac{1}{2}$.", "-0.5"),
    (r"The answer is \dfrac12.", "0.5"),
    ("The answer is 1 1/2 cups.", "1.5"),
    (r"The answer is 1\frac{1}{4}.", "1.25"),
    ("The answer is 1,00,000 rupees.", "100000"),
    ("The answer is 50 000.", "50000"),
    ("The answer is 1.5e3.", "1500"),
    ("The answer is:\n\n42", "42"),
    (r"The final answer is\n$\boxed{42}$".replace(r"\n", "\n"), "42"),
    (r"so we get \boxed{1,234}.", "1234"),
    ("48 + 24 = 72\n#### 72", "72"),
    ("Twelve in all.\nAnswer: 12", "12"),
    ("**Answer:** 12", "12"),
    ("The answer is **12**.", "12"),
    ("The answer is 18. The answer is", "18"),
    ("The answer is 7.5.", "7.5"),
    ("The answer is 007.", "7"),
    ("Therefore, the correct answer is: **1,250**.", "1250"),
    ("**Final Answer:** 12 apples", "12"),
    ("**Answer**: $3.50", "3.5"),
    ("Answer : 15 km", "15"),
    ("A: 12", "12"),
    ("The answer would be 4 weeks.", "4"),
    ("The final answer is approximately 3.14.", "3.14"),
    ("The answer = 17", "17"),
    ("The answer is twelve.", "12"),
    ("The answer is Twenty-five dollars.", "25"),
    ("The answer is only seven apples.", "7"),
    ("The answer is forty two.", "42"),
    ("The answer is $1.5 million.", "1500000"),
    ("The answer is 3 thousand dollars.", "3000"),
    ("The answer is $600/month.", "600"),
    ("The answer is 60 km/h.", "60"),
    ("The answer is 25\\%.", "25"),
    ("The answer is $25\\%$.", "25"),
    ("The answer is \u20ac12.50.", "12.5"),
    ("The answer is \u00a34.", "4"),
    ("The answer is \\$4.20.", "4.2"),
    ("The answer is 10{,}000.", "10000"),
    ("The answer is 1.5e-3.", "0.0015"),
    ("The answer is +5.", "5"),
    ("Thus the answer is \\(42\\).", "42"),
    ("Thus the answer is \\[ 42 \\]", "42"),
    ("The answer is: $\\boxed{7}$", "7"),
    ("$\\boxed{\\frac{3}{4}}$", "0.75"),
    ("$\\boxed{\\$18}$", "18"),
    ("We find the answer is 18 here.\n#### 20", "20"),
    ("#### 20\nThe answer is 18.", "18"),
    ("The answer is 12.\n\nQuestion 2: What is 5 + 5?\nThe answer is 10.", "12"),
    ("The answer is 12.\nHuman: and 3 + 4?\nThe answer is 7.", "12"),
    ("The answer is 12.\n### Problem: 3 + 4?\nThe answer is 7.", "12"),
    ("The answer is 12.<|im_end|>\n<|im_start|>user\nThe answer is 7.", "12"),
    ("The answer is 12 (3 boxes of 4).", "12"),
    ("The answer is 1 and 1/2.", "1.5"),
    ("The answer is 1/3 of 90 = 30.", "30"),
]
OTHERS = [
    ("choice", "The answer is (b).", "B"),
    ("choice", "The answer is C.", "C"),
    ("choice", "The answer is (A) a big dog.", "A"),
    ("choice", "The answer is b", "B"),
    ("choice", "The answer is c) dog.", "C"),
    ("choice", "The answer is option D.", "D"),
    ("choice", "The answer is A cat, so (C).", "C"),
    ("choice", "The answer is, I think, B.", "B"),
    ("choice", "The correct option is (C) a pear.", "C"),
    ("choice", "The best choice is D.", "D"),
    ("choice", "Answer: **B**", "B"),
    ("choice", "**B) a pear** is right, so the answer is **B) a pear**", "B"),
    ("choice", "The answer is (B), not (C).", "B"),
    ("choice", "$\\boxed{E}$", "E"),
    ("choice", "A: a car\nB: a pear\nThe answer is B.", "B"),
    ("yes_no", "The answer is **Yes**.", "yes"),
    ("yes_no", "The answer is True.", "yes"),
    ("yes_no", "Answer: false", "no"),
    ("yes_no", "So the answer is Yes.", "yes"),
    ("yes_no", "The answer is no, it cannot.", "no"),
    ("text", "The answer is the Home Team.", "home team"),
    ("text", "The answer is Karl Brandt.", "karl brandt"),
]
NONE = [
    ("number", "", "empty"),
    ("number", "  \n", "empty"),
    ("number", "I do not know", "no_answer_phrase"),
    ("number", "The answer is unclear.", "no_number"),
    ("number", "The answer is 1/0.", "no_number"),
    ("number", "The answer is 1,2 and 3.", "no_number"),
    ("number", "The answer is 1234,567.", "no_number"),
    ("number", "The answer is 10/15/2020.", "no_number"),
    ("number", "The answer is 2^10.", "no_number"),
    ("number", "The answer is 3:30.", "no_number"),
    ("number", "The answer is 5-6 apples.", "no_number"),
    ("number", "The answer is 5 or 6.", "no_number"),
    ("number", "The answer is 5 to 7 days.", "no_number"),
    ("number", "The answer is between 5 and 6.", "no_number"),
    ("number", "The answer is not 5.", "no_number"),
    ("number", "The answer is 12, 13.", "no_number"),
    ("number", "The answer is 5 hours and 30 minutes.", "no_number"),
    ("number", "The answer is 3 + 4.", "no_number"),
    ("number", "The answer is one of the two.", "no_number"),
    ("number", "The answer is two hundred.", "no_number"),
    ("number", "The answer is none of these.", "no_number"),
    ("number", "It costs $5 and takes 3 days.", "no_answer_phrase"),
    ("choice", "The answer is (A) or (B).", "no_choice"),
    ("choice", "The answer is A, B.", "no_choice"),
    ("choice", "The answer is neither (A) nor (B).", "no_choice"),
    ("choice", "The answer is not B.", "no_choice"),
    ("choice", "A: a car", "no_answer_phrase"),
    ("yes_no", "The answer is neither yes nor no.", "no_yes_no"),
    ("number", "The answer is " + "9" * 5000, "no_number"),
    ("choice", "The answer is unclear.", "no_choice"),
    ("choice", "The answer is a dog.", "no_choice"),
    ("yes_no", "The answer is maybe.", "no_yes_no"),
    ("text", "The answer is .", "no_text"),
    ("number", "Q: only the next question\n", "no_answer_phrase"),
]


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers(text, value):
    """Catches: a way of writing a number that is read as another number, or that splits a vote."""
    assert extract(text, "number") == Answer(value)


@pytest.mark.parametrize(("answer_type", "text", "value"), OTHERS)
def test_other_types(answer_type, text, value):
    """Catches: a letter taken from a word, case or articles that split a vote."""
    assert extract(text, answer_type) == Answer(value)


@pytest.mark.parametrize(("answer_type", "text", "reason"), NONE)
def test_abstentions_have_a_reason(answer_type, text, reason):
    """Catches: a guess where there is no answer."""
    assert extract(text, answer_type) == Abstention(reason)


def test_a_path_cut_at_its_longest_is_truncated():
    """Catches: truncation that looks like a parse failure."""
    assert extract("3 + 4 = 7. 7 + ", "number", "length") == Abstention("truncated")
    assert extract("The answer is", "number", "length") == Abstention("truncated")
    assert extract("The answer is 7. And", "number", "length") == Answer("7")
    assert extract("The answer is 12", "number", "length") == Abstention("truncated"), "it may have become 123"


@pytest.mark.parametrize(
    ("answer_type", "text", "value"),
    [
        ("number", "He has 3 + 4 = 7 apples for 2 days.", "7"),
        ("number", "So 20 people came.\nThat is all.", "20"),
        ("number", "It takes 12 days. It costs $1,200.", "1200"),
        ("choice", "It grows on trees, like (B).", "B"),
        ("yes_no", "Yes, it can, if it is fed well and kept warm.", "yes"),
        ("text", "It was long ago.\nKarl Brandt", "karl brandt"),
    ],
)
def test_a_guess_where_no_answer_is_named(answer_type, text, value):
    """Catches: a guess that is made without being asked for, or from the wrong end of a text."""
    assert extract(text, answer_type) == Abstention("no_answer_phrase")
    assert extract(text, answer_type, flexible=True) == Answer(value)
    assert extract(text, answer_type, "length", flexible=True) == Abstention("truncated")


def _table(name):
    rows = [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]
    return [pytest.param(row, id=f"{row['type']}-{row.get('pattern', row.get('why'))}") for row in rows]


@pytest.mark.parametrize("case", [*_table("extraction.jsonl"), *_table("outputs.jsonl"), *_table("hedged.jsonl")])
def test_a_way_that_models_write(case):
    """Catches: a pattern of real models that is misread, or read where it says nothing."""
    found = extract(case["text"], case["type"], case.get("finish", "stop"))
    value = found.value if isinstance(found, Answer) else None
    if case["type"] in ("math", "span") and value is not None and case["answer"] is not None:
        assert equivalent(value, case["answer"], case["type"])
    else:
        assert value == case["answer"]
    if "reason" in case:
        assert found == Abstention(case["reason"])


@pytest.mark.parametrize("case", _table("equivalence.jsonl"))
def test_equivalence(case):
    """Catches: one answer that counts as two votes, or two that count as one."""
    a, b, kind = case["a"], case["b"], case["type"]
    assert equivalent(a, b, kind) is case["same"]
    assert equivalent(b, a, kind) is case["same"]


def test_the_tables_are_as_large_as_they_should_be():
    """Catches: a table that lost its rows."""
    sizes = [len(_table(name)) for name in ("extraction.jsonl", "outputs.jsonl", "hedged.jsonl", "equivalence.jsonl")]
    assert all(size >= least for size, least in zip(sizes, (650, 380, 60, 270), strict=True)), sizes


def test_votes_are_counted_on_classes_of_equivalence():
    """Catches: equal expressions that split a vote, and abstentions that join one."""
    said = ["\\frac{\\pi}{2}", None, "\\pi/2", "2\\sqrt{3}", "\\sqrt{12}", "x"]
    assert group(said, "math") == [said[0], None, said[0], said[3], said[3], "x"]
    assert group(["1", None, "2"], "number") == ["1", None, "2"]


def started(worker):
    """The process id of a worker that has compared once."""
    assert worker.ask("x+1", "1+x")
    return worker._process.pid


def test_a_comparison_that_does_not_end_is_killed():
    """Catches: one expression that hangs a vote over a million paths; a worker that stays dead."""
    worker = equality.Worker(cpu_seconds=1.0)
    assert worker.ask("x+1", "1+x")
    start = time.perf_counter()
    assert not worker.ask("10^{10^{10^{10}}}+1", "10^{10^{10^{10}}}+2")
    assert time.perf_counter() - start < equality.WAIT_SECONDS / 2
    assert worker.ask("x+1", "1+x")
    worker.stop()


def test_equality_does_not_depend_on_the_load_of_the_machine():
    """Catches: a limit of wall-clock time, by which a process that others keep from running decides "not equal"."""
    worker = equality.Worker(cpu_seconds=0.5)
    process = started(worker)
    os.kill(process, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (process, signal.SIGCONT)).start()
    assert worker.ask("x+2", "2+x")
    worker.stop()


def test_a_worker_that_does_not_answer_is_given_up():
    """Catches: a vote that waits for ever for a process that neither works nor ends."""
    worker = equality.Worker(wait_seconds=2.0)
    os.kill(started(worker), signal.SIGSTOP)
    assert not worker.ask("x+2", "2+x")
    assert worker._process is None, "the next comparison starts another"


@given(st.integers(-(10**9), 10**9))
def test_formatted_integers_come_back(number):
    """Catches: separators, signs or units that change the value."""
    for shown in (f"{number}", f"{number:,}", f"{number}.", f"{number}.00", f"{number} dollars", f" {number:,}.0"):
        assert canonical(shown, "number") == str(number)


@given(st.fractions(-(10**6), 10**6, max_denominator=1000))
def test_formatted_fractions_come_back(number):
    """Catches: a fraction or a mixed number that is read as another number."""
    top, bottom = number.numerator, number.denominator
    whole, rest = divmod(abs(top), bottom)
    sign = "-" if top < 0 else ""
    shown = [f"{top}/{bottom}", rf"{sign}\frac{{{abs(top)}}}{{{bottom}}}", rf"${sign}\dfrac{{{abs(top)}}}{{{bottom}}}$."]
    if whole and rest:
        shown += [f"{sign}{whole} {rest}/{bottom} cups", rf"{sign}{whole}\frac{{{rest}}}{{{bottom}}}"]
    for text in shown:
        assert extract(f"So the answer is {text}", "number") == Answer(plain(number)), text


@given(st.decimals(-(10**7), 10**7, places=2, allow_nan=False))
def test_formatted_money_comes_back(number):
    """Catches: cents, separators or currency that change the value."""
    sign, size = ("-" if number < 0 else ""), abs(number)
    for text in (
        f"{sign}${size:,}",
        f"${number}.",
        f"**{sign}${size}**",
        rf"\boxed{{{sign}\${size}}}",
        f"{sign}{size:,} dollars",
    ):
        assert extract(f"So the answer is {text}", "number") == Answer(plain(Fraction(number))), text


@given(st.text(max_size=200), st.sampled_from(TYPES))
def test_nothing_raises_and_canonical_is_idempotent(text, answer_type):
    """Catches: an exception on text nobody thought of; a canonical form that is not one."""
    extract(f"The answer is {text}", answer_type)
    extract(f"\\boxed{{{text}", answer_type, flexible=True)
    value = canonical(text, answer_type)
    if value is not None:
        assert canonical(value, answer_type) == value


PIECES = (
    "1,",
    "answer is ",
    "(",
    "-",
    "1 ",
    "\\boxed{",
    "a ",
    "\n",
    "no ",
    "$",
    "answer (",
    " is the answer",
    "A: ",
    "= ",
    "Q",
    ".",
)


def test_long_text_is_read_in_no_time():
    """Catches: a pattern that backtracks without end, on one piece repeated or on a random mix of 10 kB."""
    rng = random.Random(0)
    texts = [(piece * 10_000)[:10_000] for piece in PIECES]
    texts += ["".join(rng.choices(PIECES, k=4000))[:10_000] for _ in range(50)]
    texts += ["".join(map(chr, rng.choices(range(32, 1000), k=10_000))) for _ in range(50)]
    slowest = 0.0
    for text in texts:
        for answer_type in TYPES:
            start = time.perf_counter()
            extract(f"The answer is {text}", answer_type, flexible=True)
            slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 1.0, "seconds for one text"


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed{1}, ", "it depends on how. "])
def test_a_megabyte_is_read_in_two_seconds(piece):
    """Catches: work that grows with the square of the number of boxes, braces or markers."""
    text = (piece * 200_000)[:1_000_000]
    start = time.process_time()
    extract(text, "number", flexible=True)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\boxed{(1, 2)} and \\boxed{(3, 4)}", "(1,2),(3,4)"),
        ("\\boxed{1}, \\boxed{2}, and \\boxed{3}", "1,2,3"),
        ("\\boxed{\\frac{1}{\\{2\\}}}. \\boxed{{x} + {y", "\\frac{1}{\\{2\\}}"),
        ("\\boxed{4} \\boxed{" + "x" * 500 + "}", "4"),
    ],
)
def test_boxes(text, value):
    """Catches: braces that are paired wrongly, and boxes joined by "and" of which only the last counts."""
    assert extract(text, "math") == Answer(value)


def test_a_canonical_answer_is_read_as_itself():
    """Catches: text that grows in lower case and is cut again; digits of two scripts that are two votes for one number."""
    for answer_type in ("text", "span"):
        value = canonical("\u0130" * 400, answer_type)
        assert value and canonical(value, answer_type) == value
    assert canonical("1\u0663", "number") == canonical("\u0661\u0663", "number") == "13"
    assert canonical("\u0663.50", "span") == "3.5"
