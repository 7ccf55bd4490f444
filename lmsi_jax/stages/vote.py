"""Reads the answers of sampled paths and votes on each question, without a model or JAX."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from etils import epath

from lmsi_jax.answers import extract
from lmsi_jax.answers.reader import AnswerReader, paths_hash
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, fingerprint, finite, write_jsonl
from lmsi_jax.pipeline.run_folder import Files
from lmsi_jax.stages.path_files import paths_by_question, read_paths
from lmsi_jax.stages.steps import read_failures
from lmsi_jax.tasks.questions import load_questions
from lmsi_jax.voting.adaptive import expected_margin, expected_share
from lmsi_jax.voting.config import VoteConfig
from lmsi_jax.voting.majority import probabilities, validity_weights, vote


@dataclasses.dataclass(frozen=True)
class VoteSettings:
    """How paths are read and counted.

    `planned` is the planned number of paths per question; 0 means that sampling never ended early. Where a decided vote
    ended it early, the confidence is the expected share of the winner among all planned paths, and the margin the expected
    margin, since 4 of 4 agreeing paths are weaker evidence than 32 of 32.
    """

    reader: AnswerReader
    vote: VoteConfig
    planned: int = 0
    checks: tuple[str, ...] = ()  # what makes a path valid, where the vote depends on it


def run_vote(runtime: object, settings: VoteSettings, inputs: Files, outputs: Files, scratch: object = None) -> None:
    """Vote on `paths`, and write `votes`.

    With the input `questions`, the vote knows the options of each question. A vote by valid steps needs the input `steps`.
    """
    if settings.vote.reads_steps and "steps" not in inputs:
        raise UserError(
            f"select.vote='{settings.vote.vote}' and select.steps={settings.vote.steps} depend on the steps of paths; check "
            f"them by `lmsi steps`, and name its output by --steps."
        )
    failures = read_failures(inputs["steps"]) if "steps" in inputs else None
    choices = {r["id"]: r["choices"] for r in load_questions(inputs["questions"])} if "questions" in inputs else {}
    paths = inputs["paths"]
    records = [
        _vote(settings, rows, choices.get(rows[0]["id"]), _valid(settings, rows, failures, inputs), paths)
        for rows in paths_by_question(paths)
    ]
    write_jsonl(outputs["votes"], records)
    decided = sum(r["answer"] is not None for r in records)
    abstained = sum(len(r["abstained"]) for r in records) / sum(r["num_paths"] for r in records)
    share = sum(r["confidence"] for r in records) / len(records)
    console.print(
        f"vote: {decided} of {len(records)} questions decided, mean vote share {share:.2f}, {abstained:.1%} of paths abstain"
    )


def _valid(
    settings: VoteSettings, rows: Sequence[Record], failures: Mapping[str, Mapping[str, set[str]]] | None, inputs: Files
) -> list[bool] | None:
    """Return whether each path of a question passes the checks, or None when no steps are given."""
    if failures is None:
        return None
    by_text = failures.get(rows[0]["id"], {})
    hashes = [fingerprint(row["text"]) for row in rows]
    missing = [row["path"] for row, text in zip(rows, hashes, strict=True) if text not in by_text]
    if missing:
        raise UserError(
            f"{inputs['steps']} lacks path {missing[0]} of question '{rows[0]['id']}'; check the steps of {inputs['paths']} "
            f"again."
        )
    return [by_text[text].isdisjoint(settings.checks) for text in hashes]


def _vote(
    settings: VoteSettings,
    rows: Sequence[Record],
    choices: Sequence[str] | None,
    valid: Sequence[bool] | None,
    file: epath.Path,
) -> Record:
    """Return the row of one question in votes.jsonl."""
    answers, id, planned = settings.reader.read(rows, choices), rows[0]["id"], settings.planned
    weights, aggregate = _weights(rows, answers.values, valid, settings.vote, file)
    outcome = vote(answers.values, settings.vote.tie, id, weights, aggregate)
    early = planned > len(rows) and outcome.answer is not None
    numbers = [row["path"] for row in rows]
    return {
        "id": id,
        "answer": outcome.answer,
        "confidence": expected_share(len(outcome.kept), len(rows), planned) if early else outcome.confidence,
        "margin": expected_margin(round(outcome.margin * len(rows)), len(rows), planned) if early else outcome.margin,
        "entropy": outcome.entropy,
        "counts": outcome.counts,
        **({} if weights is None else {"scores": outcome.scores}),
        "answers": answers.values,
        **({} if numbers == list(range(len(rows))) else {"paths": numbers}),
        "abstained": [{"path": numbers[i], "reason": reason} for i, reason in answers.reasons.items()],
        "num_paths": outcome.num_paths,
        **({"planned": planned} if early else {}),
        "kept": [numbers[i] for i in outcome.kept],
        **({} if valid is None else {"valid": list(itertools.compress(numbers, valid)), "checks": settings.checks}),
        "paths_hash": paths_hash(rows),
        "extractor": settings.reader.extractor,
    }


def _weights(
    rows: Sequence[Record], read: Sequence[str | None], valid: Sequence[bool] | None, config: VoteConfig, file: epath.Path
) -> tuple[list[float] | None, str]:
    """Return the weight of each path, or None for a majority vote, and how weights are aggregated."""
    rule = config.vote
    if rule == "majority":
        return None, "sum"
    if valid is not None and rule in ("valid_first", "valid_weighted"):
        return validity_weights(valid, None if rule == "valid_first" else config.invalid_weight), "sum"
    aggregate, _, measure = rule.partition("_")
    for row in rows:
        if finite(row.get("logprob")) is None or finite(row.get("num_tokens")) is None:
            raise UserError(
                f"{file}: path {row['path']} of question '{row['id']}' has no finite `logprob` and `num_tokens`, which "
                f"select.vote='{rule}' weighs it by; vote by --config.select.vote=majority."
            )
    voting = [answer is not None for answer in read]
    logprobs, tokens = [float(row["logprob"]) for row in rows], [int(row["num_tokens"]) for row in rows]
    return probabilities(logprobs, tokens, voting, normalised=measure == "normalised"), aggregate


def extract_file(paths: epath.Path, output: epath.Path, reader: AnswerReader, flexible: bool = False) -> None:
    """Write every row of `paths` with its `answer` (canonical, or null) and, when it is null, the `reason`."""
    reasons: Counter[str] = Counter()

    def rows() -> Iterator[Record]:
        for row in read_paths(paths, ("text",)):
            finish = row.get("finish", "stop")
            read = extract.extract(row["text"], reader.answer_type, finish, flexible=flexible, allowed=reader.labels)
            answer, reason = (read.value, None) if isinstance(read, extract.Answer) else (None, read.reason)
            reasons[reason or ""] += 1
            yield {**row, "answer": answer, "reason": reason, "extractor": reader.extractor}

    total = write_jsonl(output, rows())
    silent = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common() if reason) or "none"
    console.print(f"extract: {reasons['']} of {total} paths have an answer; without one: {silent}")
