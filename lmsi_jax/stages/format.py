"""Selects voted paths and writes them as training rows in four formats (section 3.2), without a model or JAX."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.reader import AnswerReader, accepted_answers, answers_by_path, paths_hash
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, fingerprint, read_jsonl, write_jsonl
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.examples import Solution, examples
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.stages.path_files import paths_by_question, read_votes
from lmsi_jax.tasks.prompts import conclusion
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.trust.bias import NEARBY, as_suggested, other_answers, with_hint
from lmsi_jax.trust.corruptions import corrupted, judgement
from lmsi_jax.trust.reviews import Reviews
from lmsi_jax.voting.config import SelectConfig
from lmsi_jax.voting.select import RULES, VotedQuestion


@dataclasses.dataclass(frozen=True)
class FormatSettings:
    """Which paths are trained on, and how they are written."""

    seed: int
    reader: AnswerReader
    prompts: Prompts
    select: SelectConfig
    format: FormatConfig


def run_format(runtime: object, settings: FormatSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Select `paths` by their `votes` on `questions`, and write `examples`. Only rules with `reads_gold` read `gold`.

    Where there are `reviews`, people overrule the vote: see `_overruled`.
    """
    select, questions, paths = settings.select, inputs["questions"], inputs["paths"]
    by_id = {r["id"]: r for r in load_questions(questions)}
    votes = read_votes(inputs["votes"])
    reads_gold = RULES[select.rule].reads_gold
    if reads_gold and "gold" not in inputs:
        raise UserError(
            f"select.rule='{select.rule}' is a control for `lmsi run`, which has the gold answers; this command has none."
        )
    accepted = {r["id"]: accepted_answers(r) for r in read_jsonl(inputs["gold"])} if reads_gold else {}
    reviews = Reviews.of(read_jsonl(inputs["reviews"]), str(inputs["reviews"])) if "reviews" in inputs else Reviews({}, {})
    rows, used = [], 0
    for sampled in paths_by_question(paths):
        id = sampled[0]["id"]
        if id not in by_id or id not in votes:
            raise UserError(
                f"Question '{id}' of {paths} is missing in {questions} or {inputs['votes']}; all three must be from one run."
            )
        solutions = _hinted(settings, by_id[id], _solutions(settings, sampled, votes[id], accepted.get(id, ()), reviews))
        used += bool(solutions)
        rows += examples(
            id,
            by_id[id]["question"],
            by_id[id]["choices"],
            solutions,
            settings.reader.answer_type,
            settings.prompts,
            settings.format.formats,
            distinct_direct=settings.format.distinct_direct,
        )
        rows += _judged(settings, by_id[id], solutions)
    if not rows:
        raise _nothing_kept(settings, votes)
    write_jsonl(outputs["examples"], rows)
    console.print(f"format: {len(rows)} training rows from {used} of {len(votes)} questions")


def _hinted(settings: FormatSettings, question: Record, solutions: Sequence[Solution]) -> list[Solution]:
    """Return solutions whose questions suggest another answer, as consistency training needs (Chua et al. 2024).

    Chua et al. (arXiv 2403.05518) train on the path that the model writes without the suggestion. The suggested answer is wrong
    by the vote, so that no gold answer is needed.
    """
    hints, choices = settings.format.hints, question["choices"] or ()
    result = []
    for solution in solutions:
        draw = random.Random(f"hint {settings.seed} {question['id']} {solution.path}")
        others = [each for each in other_answers(solution.answer, choices, NEARBY) if each != solution.answer]
        if hints and others and draw.random() < settings.format.hinted:
            text = with_hint(question["question"], draw.choice(hints), as_suggested(draw.choice(others), choices))
            solution = dataclasses.replace(solution, question=text)
        result.append(solution)
    return result


def _judged(settings: FormatSettings, question: Record, solutions: Sequence[Solution]) -> list[Record]:
    """Return rows that ask whether a solution is right: yes for each path, no for a copy of it that is corrupted by program."""
    rows, prompts = [], settings.prompts
    for solution in solutions if settings.format.corruptions else ():
        draw = random.Random(f"judge {settings.seed} {question['id']} {solution.path}")
        kind = draw.choice(settings.format.corruptions)
        for text, answer in ((solution.text, "yes"), (corrupted(solution.text, kind, draw), "no")):
            if text is not None:
                asked = prompts.cot_examples + prompts.question(judgement(question["question"], text), question["choices"])
                target = prompts.target(conclusion(answer, "yes_no"))
                rows.append({"id": question["id"], "path": solution.path, "format": "judge", "prompt": asked, "target": target})
    return rows


def _valid(voted: Record) -> list[int]:
    if "valid" not in voted:
        raise UserError(
            f"The vote of question '{voted['id']}' does not say which of its paths have valid steps, which select.steps=True "
            f"needs; vote again with --config.select.steps=True and --steps."
        )
    valid: list[int] = voted["valid"]
    return valid


def _nothing_kept(settings: FormatSettings, votes: Mapping[str, Record]) -> UserError:
    reasons = Counter(str(path.get("reason")) for row in votes.values() for path in row.get("abstained", ()))
    counted = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common()) or "none"
    return UserError(
        f"No path of {len(votes)} questions is kept, so there is nothing to train on. Paths that abstained: {counted}. Check "
        f"--config.data.answer_type (now '{settings.reader.answer_type}'), the exemplars, and --config.select."
    )


def _solutions(
    settings: FormatSettings, rows: Sequence[Record], voted: Record, accepted: Sequence[str], reviews: Reviews
) -> list[Solution]:
    """Return the paths of one question to train on, with the answers that they voted for."""
    position = {row["path"]: i for i, row in enumerate(rows)}
    numbers = voted.get("paths", list(range(len(rows))))
    same = numbers == list(position) and len(voted["answers"]) == len(rows) and position.keys() >= set(voted["kept"])
    if voted["paths_hash"] != paths_hash(rows) or not same:
        raise UserError(
            f"The vote of question '{voted['id']}' was made from other paths than these; votes and paths are from "
            f"different runs. Vote again."
        )
    answer_of = answers_by_path(voted)
    texts, answers = [truncate_at_next_turn(row["text"]) for row in rows], [answer_of[row["path"]] for row in rows]
    rule = RULES[settings.select.rule]
    right = [settings.reader.is_right(answer, accepted) for answer in answers] if rule.reads_gold else []
    kept = [position[path] for path in voted["kept"] if not settings.select.steps or path in _valid(voted)]
    kept, confidence = _overruled(reviews, voted, rows, kept)
    question = VotedQuestion(voted["id"], texts, answers, kept, confidence, right)
    chosen = rule.choose(settings.select, question, settings.seed)
    return [Solution(rows[i]["path"], texts[i], answers[i] or "") for i in chosen]


def _overruled(reviews: Reviews, voted: Record, rows: Sequence[Record], kept: Sequence[int]) -> tuple[list[int], float]:
    """Return the positions of the paths to keep, and the vote share, after people have reviewed the label and its paths.

    A label that they call wrong keeps no path. One that they call right is sure, whatever its vote share. A path that they
    call wrong is left out, and one that they call right is kept even if its steps fail a check.
    """
    verdict = reviews.of_label(voted["id"], voted["answer"])
    if verdict == "wrong":
        return [], voted["confidence"]
    agreeing = set(voted["kept"])
    judged = {
        i: reviews.of_path(voted["id"], fingerprint(row["text"])) for i, row in enumerate(rows) if row["path"] in agreeing
    }
    final = [i for i, word in judged.items() if word == "right" or (word is None and i in kept)]
    return final, 1.0 if verdict == "right" else voted["confidence"]
