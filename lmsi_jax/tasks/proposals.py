"""Questions that a model writes itself (section 3.3): the prompt, the reading of what it wrote, and the filters."""

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmsi_jax.answers.declared import strip_thinking
from lmsi_jax.answers.labels import LETTERS
from lmsi_jax.core.records import Record
from lmsi_jax.tasks.prompts import with_choices
from lmsi_jax.tasks.similarity import NearCopies

REASONS = {  # why a proposal is refused
    "no_question": "it has fewer than three words, or a control token of the model",
    "cut_off": "it does not end as a sentence does",
    "asks_nothing": "it has no question mark, and every given question has one",
    "asks_twice": "it has more question marks than any given question",
    "answered": "it goes on after its question, or gives an answer",
    "options": "it has no options where the given questions have some, or repeats one, or has some where they have none",
    "like_given": "it is a near copy of a given question",
    "like_held_out": "it is a near copy of a held-out question",
    "like_proposal": "it is a near copy of an earlier proposal",
    "no_agreement": "the vote over its paths has a share below select.min_confidence",
}
STOPS = ("\nA:", "\nQ:", "\n\n")  # what follows a question in a plain prompt
_LEAD = re.compile(r"[\s*]*(?:(?:Q|Question)\s*\d*\s*[:.]|\d+[.)](?=\s))?[\s*]*")
_PREAMBLE = re.compile(r"\s*(?:Sure|Okay|OK|Certainly|Of course|Here)\b[^:?\n]{0,100}:\s*", re.IGNORECASE)
_OPTIONS = re.compile(r"\s*Answer choices:\s*(?=\(A\))")
_OPTION = re.compile(r"\s*\(([A-Z])\)\s*")
_ANSWERS = re.compile(r"\banswer\s+is\b|\b(?:answer|solution)\s*:|(?:^|\s)A:", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.?!:\u3002\uff1f\uff01\u061f][\"')\]\u201d\u2019]*$")
_MARK = re.compile(r"[?\uff1f\u061f]")
_WORDS = re.compile(r"[^\W\u3040-\u9fff]+|[\u3040-\u9fff]")  # Chinese and Japanese have no spaces between words


@dataclass(frozen=True)
class Form:
    """What the given questions have in common, by which a proposal is judged. What one of them does is allowed.

    `marks` is the largest number of question marks in one of them, or 0 if some have none. `has_options` is whether all have
    options, or None if only some have. `answers` is whether one of them reads as if it gave an answer.
    """

    marks: int
    has_options: bool | None
    answers: bool = False

    @classmethod
    def of(cls, questions: Sequence[Record], answer_type: str) -> "Form":
        """Return the form of these questions.

        Without any, a question has one question mark, and options if its answer is a choice.
        """
        if not questions:
            return cls(1, answer_type == "choice")
        marks = [len(_MARK.findall(row["question"])) for row in questions]
        offers = {bool(row["choices"]) for row in questions}
        answers = any(_ANSWERS.search(row["question"]) for row in questions)
        return cls(max(marks) if min(marks) else 0, offers.pop() if len(offers) == 1 else None, answers)


def draw_shown(given: Sequence[Record], kept: Sequence[Record], count: int, rng: random.Random) -> list[Record]:
    """Return `count` questions in random order for the prompt of a proposal, at most half of them proposals that were kept."""
    own = min(count // 2, len(kept)) if given else min(count, len(kept))
    shown = [*rng.sample(given, min(count - own, len(given))), *rng.sample(kept, own)]
    rng.shuffle(shown)
    return shown


def proposal_prompt(shown: Sequence[Record], description: str, *, instructs: bool) -> str:
    """Return the text that a model goes on from to write one more question.

    A base model continues the list of questions. A chat model, which `instructs` is for, is asked for one more.
    """
    listed = "".join(f"Q: {with_choices(row['question'], row['choices'])}\n\n" for row in shown)
    if not instructs:
        return f"{description}\n\n{listed}Q:".lstrip("\n")
    opening = description or "These questions are of one kind."
    return f"{opening}\n\n{listed}Write one more question of this kind, in the same form. Write only the question."


@dataclass(frozen=True)
class Proposal:
    """A question as a model wrote it. `reason` is one of `REASONS` when it is refused, or "" when it is kept."""

    question: str
    choices: tuple[str, ...] = ()
    reason: str = ""


def read_proposal(text: str, finish: str, form: Form) -> Proposal:
    """Return the question in a model's continuation, judged by itself; `finish` is "length" if it reached the token limit."""
    text = _PREAMBLE.sub("", strip_thinking(text) or "", count=1)
    body = _LEAD.sub("", text, count=1).strip()
    parts = _OPTIONS.split(body, maxsplit=1)
    question, choices = " ".join(parts[0].split()), _choices(parts[1]) if len(parts) > 1 else ()
    reason = _refusal(question, choices, len(parts) > 1, finish, form)
    return Proposal(question, choices, reason)


def _choices(text: str) -> tuple[str, ...]:
    """Return the options of "(A) one (B) two", or none when their letters are not in order."""
    pieces = _OPTION.split(text)[1:]
    letters, options = pieces[::2], tuple(" ".join(piece.split()) for piece in pieces[1::2])
    return options if letters == [chr(ord("A") + i) for i in range(len(letters))] else ()


def _refusal(question: str, choices: tuple[str, ...], offers: bool, finish: str, form: Form) -> str:
    marks = _MARK.findall(question)
    after = _MARK.split(question)[-1].strip() if form.marks else ""
    if len(_WORDS.findall(question)) < 3:
        return "no_question"
    if _ANSWERS.search(question) and not form.answers:
        return "answered"
    if form.marks and not marks:
        return "cut_off" if finish == "length" or not _SENTENCE_END.search(question) else "asks_nothing"
    if form.marks and len(marks) > form.marks:
        return "asks_twice"
    if after.strip("\"')]\u201d\u2019"):
        return "answered" if _SENTENCE_END.search(after) or after[-1].isdigit() else "cut_off"
    if finish == "length" or not _SENTENCE_END.search(question):
        return "cut_off"
    distinct = len({choice.lower() for choice in choices}) == len(choices)
    whole = all(choices) and distinct and 2 <= len(choices) <= len(LETTERS)
    fits = whole if offers else not form.has_options
    return "" if fits and not (offers and form.has_options is False) else "options"


class Screen:
    """Judges proposals one after another: by themselves, and as copies of given, held-out and earlier questions."""

    def __init__(
        self,
        form: Form,
        given: Iterable[Record],
        held_out: Iterable[Record],
        similarity: float,
        control_names: Sequence[str] = (),
    ):
        self._form, self._known, self._control = form, NearCopies(similarity), control_names
        for kind, rows in (("given", given), ("held_out", held_out)):
            for row in rows:
                self._known.add(f"like_{kind} {row['id']}", with_choices(row["question"], row["choices"]))

    def judge(self, id: str, written: Mapping[str, Any]) -> Record:
        """Return the record of a proposal: its question and choices, and `reason`, which is null when it is kept.

        `like` and `similarity` are the id of the question that it copies, and how similar they are.
        """
        proposal = read_proposal(written["text"], written["finish"], self._form)
        row: Record = {"id": id, "question": proposal.question, "choices": list(proposal.choices) or None}
        if proposal.reason:
            return row | {"reason": proposal.reason}
        text = with_choices(proposal.question, proposal.choices)
        if any(name in text for name in self._control):
            return row | {"reason": "no_question"}
        copied = self._known.nearest(text)
        if copied:
            reason, _, like = copied[0].partition(" ")
            return row | {"reason": reason, "like": like, "similarity": round(copied[1], 3)}
        self._known.add(f"like_proposal {id}", text)
        return row | {"reason": None}


def with_votes(proposals: Iterable[Record], votes: Mapping[str, Record], least: float) -> list[Record]:
    """Return the proposals with the vote on each that was kept. One whose vote has a share below `least` is refused."""
    result = []
    for row in proposals:
        if row["reason"] is None and row["id"] in votes:
            vote = votes[row["id"]]
            refused = vote["answer"] is None or vote["confidence"] < least
            row = row | {"confidence": vote["confidence"], "reason": "no_agreement" if refused else None}
        result.append(row)
    return result
