"""Questions that a model wrote: how they are read, refused and told from copies."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.tasks.proposals import REASONS, Form, Screen, draw_shown, proposal_prompt, read_proposal, with_votes
from lmsi_jax.tasks.similarity import NearCopies, jaccard, trigrams

ASKS, OFFERS, STATES = Form(1, False), Form(1, True), Form(0, False)
QUESTION = "Tom has 3 nuts and Ann has 4. How many nuts is that in all?"


@pytest.mark.parametrize(
    ("text", "finish", "form", "reason"),
    [
        (f" {QUESTION}", "stop", ASKS, ""),
        (f"Sure! Here is one more question of this kind: {QUESTION}", "stop", ASKS, ""),
        (f"**Question:** {QUESTION}", "stop", ASKS, ""),
        (f"<think>Which one?</think> {QUESTION}", "stop", ASKS, ""),
        ("3.5 kg of apples cost 7 dollars. How much is 1 kg?", "stop", ASKS, ""),
        ("小明有3个苹果，小红有4个。一共有几个苹果？", "stop", ASKS, ""),
        ("If the answer is 7, what was the question?", "stop", ASKS, "answered"),
        ("If the answer is 7, what was the question?", "stop", Form(1, False, answers=True), ""),
        (f" {QUESTION}\nAnswer choices: (A) 7 (B) 8", "stop", Form(1, None), ""),
        (f" {QUESTION}", "stop", Form(1, None), ""),
        (f" {QUESTION}\nAnswer choices: {' '.join(f'({c}) {c}' for c in 'ABCDEFGHIJK')}", "stop", OFFERS, "options"),
        (f"Q: {QUESTION}", "stop", ASKS, ""),
        (f"7. {QUESTION}\n", "stop", ASKS, ""),
        ("How? No.", "stop", ASKS, "no_question"),
        ("", "stop", ASKS, "no_question"),
        (" Tom has 3 nuts and Ann", "length", ASKS, "cut_off"),
        (" Tom has 3 nuts and Ann", "stop", ASKS, "cut_off"),
        (" Does Tom have 3 nuts? Then he", "stop", ASKS, "cut_off"),
        (" Tom has 3 nuts and Ann has 4.", "stop", ASKS, "asks_nothing"),
        (f" {QUESTION} Who has more?", "stop", ASKS, "asks_twice"),
        (f" {QUESTION} Who has more?", "stop", Form(2, False), ""),
        (f" {QUESTION} 7", "stop", ASKS, "answered"),
        (f" {QUESTION} They have 7.", "stop", ASKS, "answered"),
        (f" {QUESTION} The answer is 7.", "stop", ASKS, "answered"),
        (f" {QUESTION} A: 7", "stop", ASKS, "answered"),
        (f" {QUESTION}\nAnswer choices: (A) 7 (B) 8", "stop", ASKS, "options"),
        (f" {QUESTION}\nAnswer choices: (A) 7 (B) 8", "stop", OFFERS, ""),
        (f" {QUESTION}\nAnswer choices: (A) 7 (B) 7", "stop", OFFERS, "options"),
        (f" {QUESTION}\nAnswer choices: (A) 7 (C) 8", "stop", OFFERS, "options"),
        (f" {QUESTION}\nAnswer choices: (A) 7", "stop", OFFERS, "options"),
        (f" {QUESTION}\nAnswer choices: (A) 7 (B)", "stop", OFFERS, "options"),
        (f" {QUESTION}", "stop", OFFERS, "options"),
        (" Simplify 3x + 4x.", "stop", STATES, ""),
        (" Simplify 3x + 4x", "length", STATES, "cut_off"),
        (" Simplify 3x + 4x. Answer: 7x.", "stop", STATES, "answered"),
        (" “Is it so?” he asked: is it?", "stop", Form(2, False), ""),
    ],
)
def test_a_proposal_is_judged_by_the_form_of_the_given_questions(text, finish, form, reason):
    """Catches: a filter that lets through what it names, or refuses a good question for another form."""
    proposal = read_proposal(text, finish, form)
    assert proposal.reason == reason
    assert not reason or reason in REASONS


@given(st.text(max_size=300), st.sampled_from(["stop", "length"]), st.sampled_from([ASKS, OFFERS, STATES]))
def test_anything_a_model_writes_is_kept_or_refused_with_a_reason(text, finish, form):
    """Catches: an exception on odd text; a kept question that is blank or has options of another form."""
    proposal = read_proposal(text, finish, form)
    assert proposal.reason in ("", *REASONS)
    if not proposal.reason:
        assert proposal.question and bool(proposal.choices) == form.has_options and len(proposal.choices) <= len(LETTERS)


def test_the_form_is_that_of_all_given_questions():
    """Catches: options or question marks that one given question has and another lacks."""
    rows = [{"question": "Is it? Or not?", "choices": None}, {"question": "Is it?", "choices": ["a", "b"]}]
    assert Form.of(rows, "number") == Form(2, None)
    assert Form.of([*rows, {"question": "Compute it.", "choices": None}], "number") == Form(0, None)
    assert Form.of([], "choice") == Form(1, True)


def test_a_copy_of_a_given_held_out_or_earlier_question_is_refused():
    """Catches: a held-out question in training; a thousand times the same question; a seed that comes back."""
    row = lambda id, question: {"id": id, "question": question, "choices": None}  # noqa: E731
    held_out = "A farm has 21 cows, 3 pigs and 8 hens. How many animals are there in all?"
    screen = Screen(ASKS, [row("g", QUESTION)], [row("h", held_out)], 0.7)
    written = (QUESTION.replace("3 nuts", "3 NUTS!"), held_out, "Eva made 5 coins on Monday. How many coins is that?")
    rows = [screen.judge(f"p{i}", {"text": f" {text}", "finish": "stop"}) for i, text in enumerate((*written, written[2]))]
    assert [row["reason"] for row in rows] == ["like_given", "like_held_out", None, "like_proposal"]
    assert [row.get("like") for row in rows] == ["g", "h", None, "p2"]
    guarded = Screen(ASKS, [], [], 1.0, ("<|im_end|>",))
    assert guarded.judge("p", {"text": f" <|im_end|> {QUESTION}", "finish": "stop"})["reason"] == "no_question"
    twice = [guarded.judge(f"p{i}", {"text": f" {QUESTION}", "finish": "stop"})["reason"] for i in range(2)]
    assert twice == [None, "like_proposal"], "a similarity of 1 refuses equal words"
    other = screen.judge("p9", {"text": " Eva made 9 beads on Friday. How many beads is that now?", "finish": "stop"})
    assert other["reason"] is None


words = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=12), words)
def test_near_copies_have_the_exact_similarity(texts, wanted):
    """Catches: a similarity that is MinHash's estimate; an equal text that is missed; the wrong one of two copies."""
    index = NearCopies(0.7)
    for i, text in enumerate(texts):
        index.add(str(i), text)
    found = index.nearest(wanted)
    if found:
        id, similarity = found
        assert similarity == jaccard(trigrams(texts[int(id)]), trigrams(wanted)) >= 0.7
    exact = [i for i, text in enumerate(texts) if trigrams(text) == trigrams(wanted)]
    assert not exact or found == (str(exact[0]), 1.0)


def test_a_prompt_shows_given_questions_and_at_most_half_of_ones_own():
    """Catches: a model that drifts away from the given questions over passes; a question that is shown twice."""
    rows = lambda kind, count: [{"id": f"{kind}{i}", "question": f"{kind} {i}?", "choices": None} for i in range(count)]  # noqa: E731
    for seed in range(50):
        shown = draw_shown(rows("given", 10), rows("own", 30), 5, random.Random(seed))
        assert len({row["id"] for row in shown}) == 5 and sum(row["id"].startswith("own") for row in shown) == 2
    assert len(draw_shown(rows("given", 3), [], 5, random.Random(0))) == 3
    assert len(draw_shown([], rows("own", 9), 5, random.Random(0))) == 5


def test_a_base_model_goes_on_and_a_chat_model_is_asked():
    """Catches: a list that a chat model would answer; a description that is left out."""
    rows = [{"question": "Is it?", "choices": ["yes", "no"]}]
    listed = "Q: Is it?\nAnswer choices: (A) yes (B) no\n\n"
    assert proposal_prompt(rows, "", instructs=False) == f"{listed}Q:"
    assert proposal_prompt([], "Sums.", instructs=False) == "Sums.\n\nQ:"
    asked = proposal_prompt(rows, "Sums.", instructs=True)
    assert asked.startswith(f"Sums.\n\n{listed}") and asked.endswith("Write only the question.")


def test_a_vote_without_agreement_refuses():
    """Catches: a threshold that is not used, or an undecided question that is trained on."""
    rows = [{"id": id, "reason": reason} for id, reason in (("a", None), ("b", None), ("c", None), ("d", "answered"))]
    votes = {
        id: {"answer": answer, "confidence": share}
        for id, answer, share in (("a", "7", 0.5), ("b", "7", 0.2), ("c", None, 0.9))
    }
    assert [row["reason"] for row in with_votes(rows, votes, 0.25)] == [None, "no_agreement", "no_agreement", "answered"]
