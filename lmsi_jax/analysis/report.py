"""report.html: what a run did and how far its numbers can be trusted, on one page that needs no network.

Everything comes from the work directory, so the page can be made again at any time, also of an unfinished run.
"""

import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from etils import epath

from lmsi_jax.analysis.browser import read_questions, round_payload
from lmsi_jax.analysis.rounds import (
    Gold,
    Round,
    label_precision,
    label_rows,
    metric_rows,
    read_gold,
    read_rounds,
    stage_times,
    throughput,
)
from lmsi_jax.analysis.summary import TITLES, Score, checkpoint_name, p_text, read_scores, summarise
from lmsi_jax.core.build import build
from lmsi_jax.core.config import DataConfig
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json, write_text
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.tasks import registry
from lmsi_jax.tasks.overlap import describe

SPOKEN = {"cot": "CoT greedy", "self_consistency": "Self-consistency", "standard": "Standard prompting"}  # verdict's choice
EVIDENT = 0.05  # p-values from here on are worded as what chance alone can do
TOLD = 0.5  # seconds; what a stage spent less on is not told


def write_report(workdir: epath.Path) -> epath.Path:
    """Write `report.html` into a work directory, from its files alone; returns its path.

    Missing evaluation, gold answers, rounds or metrics leave their part out and say so. Raises UserError when the
    folder is no work directory.
    """
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds no config.json, so it is not the --workdir of a run; name one that `lmsi run` wrote.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    target = workdir / "report.html"
    write_text(target, environment.get_template("report.html.jinja").render(_context(workdir)))
    return target


def _context(workdir: epath.Path) -> dict[str, Any]:
    from lmsi_jax.analysis.figures import figures  # matplotlib is slow to import, and only a report needs it

    config = read_json(workdir / "config.json")
    about = read_json(workdir / "run.json") if (workdir / "run.json").exists() else {}
    answer_type = registry.answer_type(build(DataConfig, config["data"]))
    scores, rounds, gold = (
        read_scores(workdir),
        read_rounds(workdir, config["rounds"]),
        read_gold(workdir, answer_type),
    )
    voted, leaks = [r for r in rounds if r.votes], workdir / "audit" / "leaks.jsonl"
    rows, questions = summarise(scores), read_questions(workdir)
    return {
        "name": workdir.name,
        "verdict": verdict(rows, voted),
        "remark": remark(voted, gold),
        "unfinished": [r.status for r in rounds if r.status],
        "facts": _facts(config, about, len(questions), rows, list(read_jsonl(leaks)) if leaks.exists() else None),
        "command": shlex.join(about.get("command_line", [])),
        "versions": about.get("versions", {}),
        "headline": _headline(rows),
        "figures": figures(workdir, rows, scores, rounds),
        "rounds": [r.number for r in voted],
        "labels": label_rows(voted, gold) if voted else [],
        "has_gold": bool(gold),
        "payloads": [round_payload(r, questions, gold) for r in voted],
        "stages": _stages(workdir),
        "config": json.dumps(config, indent=2, ensure_ascii=False),
    }


def verdict(rows: Sequence[Score], voted: Sequence[Round]) -> str:
    """The run in one sentence: what became of CoT greedy accuracy, or of the next best thing that was scored."""
    for prompting, name in SPOKEN.items():
        found = [r for r in rows if r.prompting == prompting]
        if not found:
            continue
        base, last = found[0], found[-1]
        if base.checkpoint or not last.checkpoint:
            when = f"after round {last.checkpoint}" if last.checkpoint else "before self-improvement"
            return (
                f"{name} is at {last.accuracy:.1%} [{last.low:.1%}, {last.high:.1%}] on {last.n:,} held-out questions {when}."
            )
        change = f"from {base.accuracy:.1%} to {last.accuracy:.1%}"
        word = "rose" if last.accuracy > base.accuracy else "fell" if last.accuracy < base.accuracy else "stayed"
        change = f"at {last.accuracy:.1%}" if word == "stayed" else change
        rounds = "one round" if last.checkpoint == 1 else f"{last.checkpoint} rounds"
        doubt = ", which chance alone can do" if word != "stayed" and (last.p_value or 0.0) >= EVIDENT else ""
        p = "" if last.p_value is None else f" (exact McNemar p = {p_text(last.p_value)}{doubt})"
        return f"{name} {word} {change} on {last.n:,} held-out questions after {rounds} of self-improvement{p}."
    if not voted:
        return "Nothing has been scored or voted yet."
    last_round = voted[-1]
    decided = sum(v["answer"] is not None for v in last_round.votes)
    share = sum(v["confidence"] for v in last_round.votes) / len(last_round.votes)
    return (
        f"In round {last_round.number} the vote decided {decided:,} of {len(last_round.votes):,} questions, with a mean vote "
        f"share of {share:.1%}; there are no scores of held-out questions."
    )


def remark(voted: Sequence[Round], gold: Gold) -> str:
    """A second sentence, on the self-made labels; empty without gold answers to audit them against."""
    right, known = label_precision(voted[-1].votes, gold) if voted else (0, 0)
    if not known:
        return ""
    low, high = wilson_interval(right, known)
    return (
        f"Of the {known:,} labels voted in round {voted[-1].number}, {right / known:.1%} [{low:.1%}, {high:.1%}] agree with "
        f"the gold answer (audit only: the loop never reads gold)."
    )


def _headline(rows: Sequence[Score]) -> list[dict[str, Any]]:
    """The rows of the table; `span` is the number of rows of a prompting, on its first."""
    table = []
    for i, row in enumerate(rows):
        first = i == 0 or rows[i - 1].prompting != row.prompting
        table.append(
            {
                "span": sum(r.prompting == row.prompting for r in rows) if first else 0,
                "prompting": TITLES[row.prompting],
                "model": checkpoint_name(row.checkpoint),
                "accuracy": f"{row.accuracy:.1%}",
                "interval": f"{row.low:.1%} to {row.high:.1%}",
                "low": f"{100 * row.low:.2f}",
                "width": f"{100 * (row.high - row.low):.2f}",
                "at": f"{100 * row.accuracy:.2f}",
                "gain": f"{100 * row.gain:+.1f}".replace("-", "−") if row.gain is not None else "",
                "p": p_text(row.p_value) if row.p_value is not None else "",
                "evident": row.p_value is not None and row.p_value < EVIDENT,
                "n": f"{row.n:,}",
                "paths": row.paths,
                "unparsed": f"{row.unparsed:.1%}",
                "truncated": f"{row.truncated:.1%}",
            }
        )
    return table


def _facts(
    config: dict[str, Any], about: dict[str, Any], questions: int, rows: Sequence[Score], leaks: list[Record] | None
) -> dict[str, str]:
    """What the run was, as label and text."""
    facts = {}
    if "started" in about:
        started = datetime.datetime.fromisoformat(about["started"]).astimezone(datetime.UTC)
        facts["Last started"] = f"{started:%Y-%m-%d %H:%M} UTC"
    if about.get("git"):
        facts["Git"] = about["git"]
    if "lmsi_jax" in about.get("versions", {}):
        facts["lmsi_jax"] = about["versions"]["lmsi_jax"]
    facts |= {
        "Model": config["model"]["checkpoint"],
        "Task": config["data"]["task"],
        "Questions": f"{questions:,} unlabelled" + (f", {rows[0].n:,} held out" if rows else ""),
        "Paths": f"{config['sample']['paths']} per question",
        "Rounds": f"{config['rounds']}, each from the {'base' if config['train_from'] == 'base' else 'previous'} model",
        "Seed": str(config["seed"]),
    }
    if leaks is not None and rows:
        kinds = [row["overlap"] for row in leaks]
        facts["Overlap"] = describe(kinds.count("equal"), kinds.count("shared"), rows[0].n)
    return facts


def _stages(workdir: epath.Path) -> list[dict[str, Any]]:
    """Each finished stage with its time, its share of the whole and, where it was measured, its tokens per second."""
    times = stage_times(workdir)
    whole, table = sum(spent for spent, _ in times.values()), []
    for name, (spent, kinds) in times.items():
        parts = name.split("/")
        metrics = metric_rows(workdir, f"round-{parts[1]}-{parts[2]}") if parts[0] == "rounds" else []
        rate = throughput(metrics)
        told = [f"{kind} {duration(part)}" for kind, part in kinds.items() if part >= TOLD]
        table.append(
            {
                "name": _stage_title(parts),
                "time": duration(spent),
                "share": f"{100 * spent / whole if whole else 0:.1f}",
                "rate": f"{rate:,.0f}" if rate is not None else "",
                "kinds": ", ".join([*told, *_spendings(metrics[-1] if metrics else {})]),
            }
        )
    return [*table, {"name": "All stages", "time": duration(whole), "share": "", "rate": "", "kinds": ""}] if table else []


def _spendings(metrics: Record) -> list[str]:
    """What a stage took beside time: of the paths that it could draw, or of a server."""
    told = [f"{metrics['drawn']:.0%} of the paths that could be drawn"] if "drawn" in metrics else []
    if "requests" in metrics:
        tokens = f"{metrics['prompt_tokens']:,.0f} prompt and {metrics['completion_tokens']:,.0f} completion tokens"
        told.append(f"{metrics['requests']:,.0f} requests, {tokens}")
    return told + ([f"{metrics['dollars']:,.2f} dollars"] if metrics.get("dollars") else [])


def _stage_title(parts: Sequence[str]) -> str:
    if parts[0] == "rounds" and len(parts) == 3:
        return f"Round {parts[1]}: {parts[2]}"
    if parts[0] == "eval" and len(parts) == 3:
        return f"Evaluate {checkpoint_name(int(parts[1]))}"
    return parts[-1].capitalize()


def duration(seconds: float) -> str:
    """Seconds in words: "4.2 s", "3 min 20 s", "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
