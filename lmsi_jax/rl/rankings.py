"""Human rankings of answers, from the formats that tools write; each is one row or several of `Ranking`.

ours             prompt, answers, ranks (1 = best, ties allowed), annotator
TRL              prompt, chosen, rejected, as texts or as messages; margin; without a prompt, the common beginning is it
HH-RLHF          chosen, rejected: whole dialogues, which differ in the last turn of the assistant
UltraFeedback    instruction, completions with scores; or its binarised form, which is TRL's with scores
Label Studio     data with a prompt and answers, annotations with a ranker or a pairwise choice
Argilla          fields with a prompt and answers, responses with a ranking
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import Record, finite, numbered_jsonl
from lmsi_jax.trust.reviewers import Agreement, agreement

ASSISTANT, HUMAN = "\n\nAssistant:", "\n\nHuman:"  # how HH-RLHF marks turns
PROMPTS = ("prompt", "instruction", "question", "text")  # names of a prompt's field in annotation tools


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Answers to one prompt with their ranks: 1 = best, equal ranks are ties. `margin` is given for pairs, else 0."""

    prompt: str
    answers: tuple[str, ...]
    ranks: tuple[int, ...]
    annotator: str = ""
    source: str = ""
    margin: float = 0.0


def load_rankings(path: os.PathLike | str) -> list[Ranking]:
    """Return the rankings of a JSON Lines file. Its rows may be of several formats.

    Raises UserError with file, line and field for a row that cannot be read, and for a file without a ranking.
    """
    rankings: list[Ranking] = []
    for number, row in numbered_jsonl(path):
        where = f"{path} line {number}"
        form = next((form for form in FORMATS if form.fits(row)), None)
        if form is None:
            raise UserError(
                f"{where}: a ranking of no known format; it has {', '.join(row) or 'no fields'}. Known are "
                f"{', '.join(form.name for form in FORMATS)}; the simplest row has prompt, answers and ranks."
            )
        try:
            rankings += [_checked(ranking) for ranking in form.read(row)]
        except _Bad as bad:
            raise UserError(f"{where} ({form.name}): {bad}") from bad
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: not as {form.name} has it ({type(error).__name__}: {error}).") from error
    if not rankings:
        raise UserError(f"{path} has no ranking.")
    return rankings


class _Bad(Exception):
    """What is wrong with a row: the field and the reason."""


@dataclasses.dataclass(frozen=True)
class _Format:
    name: str
    fits: Callable[[Record], bool]
    read: Callable[[Record], Iterator[Ranking]]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Bad(f"the field `{name}` is {value!r:.60}, not text.")
    return value


def _checked(ranking: Ranking) -> Ranking:
    if len(ranking.answers) < 2 or len(ranking.answers) != len(ranking.ranks):
        raise _Bad(f"{len(ranking.answers)} answers and {len(ranking.ranks)} ranks; a ranking needs at least two of both.")
    for place, answer in enumerate(ranking.answers):
        _text(answer, f"answers[{place}]")
    if not all(type(rank) is int and rank >= 1 for rank in ranking.ranks):
        raise _Bad(f"the field `ranks` is {list(ranking.ranks)!r:.60}; ranks are whole numbers from 1 on.")
    return ranking


def _ours(row: Record) -> Iterator[Ranking]:
    for name in ("answers", "ranks"):
        if not isinstance(row[name], list):
            raise _Bad(f"the field `{name}` is {row[name]!r:.60}, not a list.")
    annotator, source = str(row.get("annotator") or ""), str(row.get("source") or "")
    if row["ranks"] or row["answers"]:  # a row without ranks takes an earlier one back
        yield Ranking(_text(row.get("prompt"), "prompt"), tuple(row["answers"]), tuple(row["ranks"]), annotator, source)


def _messages(value: Any, name: str) -> str:
    """Return messages as text: turns of a person and of the assistant."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in value):
        raise _Bad(f"the field `{name}` is {value!r:.60}; it must be text, or a list of messages with role and content.")
    turns = {"assistant": ASSISTANT, "system": "\n\nSystem:"}
    return "".join(f"{turns.get(message.get('role', ''), HUMAN)} {message['content'].strip()}" for message in value)


def _preferences(row: Record) -> Iterator[Ranking]:
    chosen, rejected = (_text(_messages(row[name], name), name) for name in ("chosen", "rejected"))
    if row.get("prompt") is not None:
        prompt = _messages(row["prompt"], "prompt")
        if isinstance(row["chosen"], list):  # messages may repeat the prompt
            asked = prompt if isinstance(row["prompt"], list) else f"{HUMAN} {prompt.strip()}"
            chosen, rejected = (text.removeprefix(asked) for text in (chosen, rejected))
            prompt, (chosen, rejected) = asked + ASSISTANT, (_answer(text) for text in (chosen, rejected))
    else:
        prompt = _common(chosen, rejected)
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    margin = finite(row.get("margin"))
    if margin is None and {"score_chosen", "score_rejected"} <= row.keys():
        scores = [finite(row[name]) for name in ("score_chosen", "score_rejected")]
        margin = None if None in scores else float(scores[0] or 0) - float(scores[1] or 0)
    yield Ranking(prompt, (chosen, rejected), (1, 2), str(row.get("annotator") or ""), "preference", max(margin or 0.0, 0.0))


def _answer(text: str) -> str:
    return text.removeprefix(ASSISTANT)


def _common(chosen: str, rejected: str) -> str:
    """Return the prompt of two texts that begin with it: up to the last turn of the assistant, if they have turns."""
    common = os.path.commonprefix([chosen, rejected])
    at = common.rfind(ASSISTANT)
    if at >= 0:
        return common[: at + len(ASSISTANT)]
    return common[: common.rfind(" ") + 1] if " " in common else ""


def _ultrafeedback(row: Record) -> Iterator[Ranking]:
    answers, scores = [], []
    if not isinstance(row["completions"], list) or not all(isinstance(each, dict) for each in row["completions"]):
        raise _Bad("the field `completions` is not a list of objects.")
    for place, each in enumerate(row["completions"]):
        score = finite(each.get("overall_score", each.get("score")))
        if score is None:
            raise _Bad(f"the field `completions[{place}].overall_score` is {each.get('overall_score')!r:.40}, not a number.")
        answers.append(_text(each.get("response"), f"completions[{place}].response"))
        scores.append(score)
    yield Ranking(_text(row.get("instruction"), "instruction"), tuple(answers), ranks_of(scores), "", "UltraFeedback")


def ranks_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Return the rank of each score: 1 = the highest; equal scores have equal ranks."""
    return tuple(1 + sum(other > score for other in scores) for score in scores)


def _prompt_of(data: Mapping[str, Any], where: str) -> str:
    name = next((name for name in PROMPTS if isinstance(data.get(name), str)), None)
    if name is None:
        raise _Bad(f"`{where}` has no prompt; name its field {', '.join(PROMPTS)}.")
    return str(data[name])


def _label_studio(row: Record) -> Iterator[Ranking]:
    data = row["data"]
    prompt = _prompt_of(data, "data")
    for annotation in row["annotations"]:
        who = str(annotation.get("completed_by") or "")
        for result in annotation.get("result", []):
            value = result.get("value", {})
            if result.get("type") == "ranker":
                yield _ranker(prompt, data, value.get("ranker"), who)
            elif result.get("type") == "pairwise":
                sides = [_text(data.get(name), f"data.{name}") for name in ("answer1", "answer2")]
                best = {"left": (1, 2), "right": (2, 1)}.get(value.get("selected"))
                yield Ranking(prompt, tuple(sides), best or (1, 1), who, "Label Studio")


def _ranker(prompt: str, data: Mapping[str, Any], ranked: Any, who: str) -> Ranking:
    """Return a ranking by the list of items from the best on, or by buckets, of which the items of one are ties."""
    items = next((value for value in data.values() if isinstance(value, list)), None)
    if not items or not all(isinstance(item, dict) and "id" in item for item in items):
        raise _Bad("`data` has no list of items with `id` and `body`, which a ranker ranks.")
    texts = {str(item["id"]): str(item.get("body") or item.get("title") or "") for item in items}
    groups = [list(map(str, ids)) for name, ids in ranked.items() if name != "_"] if isinstance(ranked, dict) else []
    if isinstance(ranked, dict):
        groups.append(list(map(str, ranked.get("_", []))))  # what was put into no bucket is last
    if isinstance(ranked, list):
        groups = [[str(id)] for id in ranked]
    groups = [group for group in groups if group]
    unknown = [id for group in groups for id in group if id not in texts]
    if unknown or not groups:
        raise _Bad(f"the ranker names the items {unknown!r:.60}, and there are {', '.join(texts)}.")
    pairs = [(texts[id], rank) for rank, group in enumerate(groups, start=1) for id in group]
    return Ranking(prompt, tuple(text for text, _ in pairs), tuple(rank for _, rank in pairs), who, "Label Studio")


def _argilla(row: Record) -> Iterator[Ranking]:
    fields = row["fields"]
    prompt = _prompt_of(fields, "fields")
    for response in row["responses"]:
        for value in response.get("values", {}).values():
            ranked = value.get("value") if isinstance(value, dict) else None
            if not isinstance(ranked, list) or not all(isinstance(each, dict) and "rank" in each for each in ranked):
                continue  # a question of another kind
            answers = tuple(_text(fields.get(each.get("value")), f"fields.{each.get('value')}") for each in ranked)
            yield Ranking(
                prompt, answers, tuple(each["rank"] for each in ranked), str(response.get("user_id") or ""), "Argilla"
            )


def _has(row: Record, mapping: str, listed: str) -> bool:
    return isinstance(row.get(mapping), dict) and isinstance(row.get(listed), list)


FORMATS = (
    _Format("prompt, answers and ranks", lambda row: {"answers", "ranks"} <= row.keys(), _ours),
    _Format("TRL or HH-RLHF preferences", lambda row: {"chosen", "rejected"} <= row.keys(), _preferences),
    _Format("UltraFeedback", lambda row: {"instruction", "completions"} <= row.keys(), _ultrafeedback),
    _Format("Label Studio", lambda row: _has(row, "data", "annotations"), _label_studio),
    _Format("Argilla", lambda row: _has(row, "fields", "responses"), _argilla),
)


def annotators_agree(rankings: Sequence[Ranking]) -> Agreement | None:
    """Return the agreement of annotators on pairs of answers to a prompt; None when no pair has two annotators."""
    items: dict[str, dict[str, str]] = {}
    for ranking in rankings:
        for i, first in enumerate(ranking.answers):
            for j, second in enumerate(ranking.answers[:i]):
                low, high = sorted(((first, ranking.ranks[i]), (second, ranking.ranks[j])))
                verdict = "first" if low[1] < high[1] else "second" if low[1] > high[1] else "tie"
                items.setdefault(json.dumps([ranking.prompt, low[0], high[0]]), {})[ranking.annotator] = verdict
    return agreement(list(items.values()))
