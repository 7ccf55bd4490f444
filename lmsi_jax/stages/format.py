"""Selects voted paths and writes them as training rows in four formats (section 3.2), without a model or JAX."""

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence

from lmsi_jax.answers.extract import truncate_at_next_turn
from lmsi_jax.answers.reader import AnswerReader, accepted_answers, answers_by_path, paths_hash
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, fingerprint, read_growing, read_jsonl, write_jsonl
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.examples import Solution, examples
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.stages.path_files import paths_by_question, read_votes
from lmsi_jax.stages.templates import load_templates
from lmsi_jax.tasks.prompts import conclusion
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.trust.bias import NEARBY, as_suggested, other_answers, with_hint
from lmsi_jax.trust.corruptions import corrupted
from lmsi_jax.trust.reviews import Reviews
from lmsi_jax.trust.verification import verification, verification_question
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

    Where there are `reviews`, people overrule the vote: see `_overruled`. With the input `exemplars` the few-shot rows of a
    path have the template that it was sampled with.
    """
    select, questions, paths = settings.select, inputs["questions"], inputs["paths"]
    by_id = {r["id"]: r for r in load_questions(questions)}
    votes = read_votes(inputs["votes"])
    templates = load_templates(inputs, settings.prompts, settings.reader.answer_type)
    reads_gold = RULES[select.rule].reads_gold
    if reads_gold and "gold" not in inputs:
        raise UserError(
            f"select.rule='{select.rule}' is a control for `lmsi run`, which has the gold answers; this command has none."
        )
    accepted = {r["id"]: accepted_answers(r) for r in read_jsonl(inputs["gold"])} if reads_gold else {}
    reviews = Reviews.of(read_growing(inputs["reviews"]), str(inputs["reviews"])) if "reviews" in inputs else Reviews({}, {})
    rows: list[Record] = []
    used = hinted = 0
    for sampled in paths_by_question(paths):
        id = sampled[0]["id"]
        if id not in by_id or id not in votes:
            raise UserError(
                f"Question '{id}' of {paths} is missing in {questions} or {inputs['votes']}; all three must be from one run."
            )
        solutions = _hinted(settings, by_id[id], _solutions(settings, sampled, votes[id], accepted.get(id, ()), reviews))
        used += bool(solutions)
        hinted += sum(bool(solution.question) for solution in solutions)
        sampled_with = {row["path"]: row.get("template", 0) for row in sampled}
        if max(sampled_with.values()) >= len(templates):
            raise UserError(
                f"{paths} was sampled with {max(sampled_with.values()) + 1} or more templates of exemplars that the model "
                f"wrote, and this command has {len(templates)}. Format such paths by lmsi run."
            )
        first = len(rows)
        for number, template in enumerate(templates):
            own = [solution for solution in solutions if sampled_with[solution.path] == number]
            written = _rows(settings, by_id[id], own, template.prompts)
            rows += [{**row, "template": number} for row in written] if len(templates) > 1 else written
        if settings.format.distinct_direct:
            rows[first:] = _distinct_direct(rows[first:])
        if settings.format.difficulty != "none":
            rows[first:] = [{**row, "difficulty": _difficulty(settings, row, votes[id])} for row in rows[first:]]
    if not rows:
        raise _nothing_kept(settings, votes)
    special = _check_used(settings, hinted, rows)
    write_jsonl(outputs["examples"], rows)
    console.print(f"format: {len(rows)} training rows from {used} of {len(votes)} questions{special}")


def _difficulty(settings: FormatSettings, row: Record, vote: Record) -> float:
    """Return how hard a row is, without a gold answer: the share of paths that disagree, or the words of the target."""
    if settings.format.difficulty == "vote_share":
        return round(1 - float(vote["confidence"]), 6)
    return float(len(row["target"].split()))


def _distinct_direct(rows: Sequence[Record]) -> list[Record]:
    """Return the rows of one question without repetitions of direct ones, which several templates may give."""
    kept = {(row["prompt"], row["target"], row["path"] if row["format"].endswith("cot") else -1): row for row in reversed(rows)}
    return [row for row in rows if any(row is each for each in kept.values())]


def _rows(settings: FormatSettings, question: Record, solutions: Sequence[Solution], prompts: Prompts) -> list[Record]:
    """Return the training rows of paths that were sampled with these prompts."""
    rows = examples(
        question["id"],
        question["question"],
        question["choices"],
        solutions,
        settings.reader.answer_type,
        prompts,
        settings.format.formats,
        distinct_direct=settings.format.distinct_direct,
    )
    if settings.format.weights:
        weights = dict(zip(settings.format.formats, settings.format.weights, strict=True))
        rows = [{**row, "weight": weights[row["format"]]} for row in rows]
    return rows + _judged(settings, question, solutions, prompts)


def _hinted(settings: FormatSettings, question: Record, solutions: Sequence[Solution]) -> list[Solution]:
    """Return solutions whose questions suggest another answer, as consistency training needs (Chua et al. 2024).

    Chua et al. (arXiv 2403.05518) train on the path that the model writes without the suggestion. The suggested answer is wrong
    by the vote, so that no gold answer is needed. An answer for which no other one is known, such as a span, has no suggestion.
    """
    hints, choices = settings.format.hints, question["choices"] or ()
    result = []
    for solution in solutions:
        draw = random.Random(f"hint {settings.seed} {question['id']} {solution.path}")
        others = other_answers(solution.answer, choices, NEARBY)
        if hints and others and draw.random() < settings.format.hinted:
            text = with_hint(question["question"], draw.choice(hints), as_suggested(draw.choice(others), choices))
            result.append(dataclasses.replace(solution, question=text))
        else:
            result.append(solution)
    return result


def _judged(settings: FormatSettings, question: Record, solutions: Sequence[Solution], prompts: Prompts) -> list[Record]:
    """Return pairs of rows that ask whether a solution is right: each path, and a copy of it that a program has corrupted.

    The target computes each step again, up to the first wrong one, and concludes with yes or no. A path that no kind of
    corruption applies to, or whose corruption the steps do not show, has no rows.
    """
    rows, choices = [], question["choices"] or ()
    for solution in solutions if settings.format.corruptions else ():
        draw = random.Random(f"judge {settings.seed} {question['id']} {solution.path}")
        kinds = draw.sample(settings.format.corruptions, len(settings.format.corruptions))
        copies = (corrupted(question["question"], solution.text, kind, draw) for kind in kinds)
        copy = next((each for each in copies if each is not None and not verification(each)[1]), None)
        if copy is None or not verification(solution.text)[1]:
            continue
        for text in (solution.text, copy):
            asked = verification_question(question["question"], choices, text)
            check, is_right = verification(text)
            target = prompts.target(f"{check} {conclusion('yes' if is_right else 'no', 'yes_no')}")
            prompt = prompts.cot_examples + prompts.question(asked)
            rows.append({"id": question["id"], "path": solution.path, "format": "judge", "prompt": prompt, "target": target})
    return rows


def _check_used(settings: FormatSettings, hinted: int, rows: Sequence[Record]) -> str:
    """Return what hints and corruptions did, in words. Raises UserError when one of these settings had no effect."""
    format, judged = settings.format, sum(row["format"] == "judge" for row in rows)
    for name, count in (("hints", hinted if format.hinted else 1), ("corruptions", judged)):
        if getattr(format, name) and not count:
            raise UserError(
                f"format.{name}={getattr(format, name)} changed no training row. Suggestions need answers that are options, "
                f"whole numbers, yes or no; corruptions need arithmetic steps."
            )
    words = [f"{hinted} paths with a suggestion"] if format.hints else []
    return "".join(f"; {each}" for each in words + ([f"{judged} rows about solutions"] if format.corruptions else []))


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
