"""Write report.html: what a run did and how far its numbers can be trusted, on one page that needs no network.

Everything comes from the work directory, so the page can be written again at any time, even for an unfinished run.
"""

import datetime
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from etils import epath

from lmsi_jax.analysis.browser import read_questions, round_payload
from lmsi_jax.analysis.limits.cost import cost
from lmsi_jax.analysis.limits.remarks import biases, limits, method
from lmsi_jax.analysis.limits.sizes import sizes
from lmsi_jax.analysis.limits.transfer import transfer_limits
from lmsi_jax.analysis.limits.votes import vote_limits
from lmsi_jax.analysis.measure_table import measure_rows, measured_models
from lmsi_jax.analysis.plan import Planned, read_plan, title
from lmsi_jax.analysis.proposals import proposal_facts
from lmsi_jax.analysis.reviews import audit, audit_rows
from lmsi_jax.analysis.rollouts import read_course
from lmsi_jax.analysis.rounds import (
    REUSED,
    Gold,
    Round,
    label_precision,
    label_rows,
    read_gold,
    read_manifests,
    read_rounds,
    stage_times,
)
from lmsi_jax.analysis.summary import Score, p_text, read_scores, summarise
from lmsi_jax.analysis.validity import read_steps, validity_rows
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.files import read_json, write_text
from lmsi_jax.core.metric_log import read_metrics
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.core.settings import build
from lmsi_jax.evaluation.scores import PROMPTINGS
from lmsi_jax.evaluation.statistics import wilson_interval
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.tasks.config import DataConfig
from lmsi_jax.tasks.overlap import describe
from lmsi_jax.tasks.sources import question_source
from lmsi_jax.tasks.task import answer_reader

SPOKEN = {"cot": "CoT greedy", "self_consistency": "Self-consistency", "standard": "Standard prompting"}  # in verdict's order
RECIPES = {
    "self_improve": "self-improvement",
    "rl": "reinforcement-learning",
    "rlhf": "human-feedback",
    "reward": "reward-model",
    "scaling": "scaling",
}
UNMEASURED = "Nothing has been scored or voted yet."
EVIDENT = 0.05  # from this p-value on, the verdict says that chance alone can explain the change
MARKDOWN = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>|"})  # what has a meaning in Markdown
LISTED = 0.5  # seconds; categories on which a stage spent less are not listed


def write_report(workdir: epath.Path) -> epath.Path:
    """Write `report.html` and `card.md` into a work directory, from its files only, and return the path of the report.

    Without evaluation, gold answers, rounds or metrics, the page has a note for the missing part. Raises UserError when the
    folder is not a work directory.
    """
    folder = RunFolder(workdir)
    if not folder.config.exists():
        raise UserError(f"{workdir} holds no config.json, so it is not the --workdir of a run; name one that `lmsi run` wrote.")
    context = _context(folder)
    write_text(folder.report, _environment(escapes=True).get_template("report.html.jinja").render(context))
    card = _environment(escapes=False).get_template("card.md.jinja").render(context)
    write_text(folder.card, re.sub(r"\n{3,}", "\n\n", card))
    return folder.report


def _environment(*, escapes: bool) -> jinja2.Environment:
    """Return the environment of a template: with escapes for HTML, or without for Markdown."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=escapes,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: " ".join(str(text).split()).translate(MARKDOWN)
    return environment


def _context(folder: RunFolder) -> dict[str, Any]:
    from lmsi_jax.analysis import plots  # matplotlib is slow to import, and only a report needs it
    from lmsi_jax.analysis.figures import figures
    from lmsi_jax.analysis.plots import Series
    from lmsi_jax.analysis.scaling import scaling_figures, scaling_verdict

    config, planned = read_json(folder.config), read_plan(folder)
    about = read_json(folder.history) if folder.history.exists() else {}
    reader = answer_reader(build(DataConfig, config.get("data", {})))
    scores, rounds, gold = read_scores(folder), read_rounds(folder, planned), read_gold(folder, reader)
    voted = [r for r in rounds if r.votes]
    steps = [read_steps(folder, r.group) for r in voted]
    contract = question_source(build(DataConfig, config["data"])).contract if voted and "data" in config else ()
    rows, questions = summarise(scores), read_questions(folder)
    held_out = list(read_jsonl(folder.held_out)) if folder.held_out.exists() else []
    leaks = list(read_jsonl(folder.leaks)) if folder.leaks.exists() else None
    measures = list(read_jsonl(folder.measures)) if folder.measures.exists() else []
    audits, manifests = {r.name: audit(folder, r.group) for r in voted}, read_manifests(folder, planned)
    course = read_course(folder, _texts(questions.values()), gold)
    quality = _quality(folder)
    measured = vote_limits(scores, rounds, _texts(questions.values()), _texts(held_out))
    measured += filter(None, [sizes(scores.of("cot"), _texts(held_out))])
    measured += [*transfer_limits(folder, scores.models), *filter(None, [cost(manifests, rows, config)])]
    return {
        "name": folder.root.name,
        "verdict": verdict(rows, voted) or quality or scaling_verdict(folder) or _last_losses(folder, planned) or UNMEASURED,
        "recipe": RECIPES.get(name := about.get("recipe", "self_improve"), name),
        "votes": bool(planned.groups) or "rounds" in config,
        "remark": remark(voted, gold),
        "unfinished": [r.status for r in rounds if r.status],
        "facts": _facts(config, about, len(questions), rows, leaks),
        "method": method(config),
        "measured": measured_models(measures),
        "measures": measure_rows(measures),
        "biases": biases(measures),
        "measured_limits": measured,
        "drawings": {limit.title: plots.accuracy_by_arm(limit.drawn) for limit in measured if limit.drawn},
        "limits": limits(config, voted, steps, rows),
        "reviews": {name: audit_rows(found) for name, found in audits.items() if found},
        "command": shlex.join(about.get("command_line", [])),
        "versions": about.get("versions", {}),
        "headline": _headline(rows),
        "figures": scaling_figures(folder) or figures(folder, planned, rows, scores, rounds),
        "course": course,
        "quality": quality,
        "course_drawings": [
            (caption, plots.course({Series(i, name): points for i, (name, points) in enumerate(curves.items())}))
            for caption, curves in (
                ("Rollouts: moving means over ten batches.", course.sampled if course else {}),
                ("Probe questions and their twins.", course.probed if course else {}),
                ("Audit: right by the gold answers.", course.audited if course else {}),
            )
            if curves
        ],
        "proposals": proposal_facts(folder, voted[0].votes if voted else [], gold),
        "rounds": [r.name for r in voted],
        "labels": label_rows(voted, gold) if voted else [],
        "validity": validity_rows(voted, steps, gold, contract),
        "has_gold": bool(gold),
        "payloads": [round_payload(folder, r, s, questions, gold) for r, s in zip(voted, steps, strict=True)],
        "stages": _stages(folder, manifests),
        "config": json.dumps(config, indent=2, ensure_ascii=False),
    }


def _texts(questions: Iterable[Record]) -> dict[str, str]:
    """Return the texts of questions by id."""
    return {row["id"]: row["question"] for row in questions}


def verdict(rows: Sequence[Score], voted: Sequence[Round]) -> str:
    """Return the run in one sentence: the change of CoT greedy accuracy, else of another prompting, else the vote; or ""."""
    for prompting, name in SPOKEN.items():
        of_prompting = [r for r in rows if r.prompting == prompting]
        if not of_prompting:
            continue
        first, last = of_prompting[0], of_prompting[-1]
        if first.place or not last.place:
            when = f"after {title(last.model)}" if last.place else "before any training"
            return (
                f"{name} is at {last.accuracy:.1%} [{last.low:.1%}, {last.high:.1%}] on {last.n:,} held-out questions {when}."
            )
        change = f"from {first.accuracy:.1%} to {last.accuracy:.1%}"
        word = "rose" if last.accuracy > first.accuracy else "fell" if last.accuracy < first.accuracy else "stayed"
        change = f"at {last.accuracy:.1%}" if word == "stayed" else change
        doubt = ", which chance alone can explain" if word != "stayed" and (last.p_value or 0.0) >= EVIDENT else ""
        p = "" if last.p_value is None else f" (exact McNemar p = {p_text(last.p_value)}{doubt})"
        return f"{name} {word} {change} on {last.n:,} held-out questions {_between(first, last)}{p}."
    if not voted:
        return ""
    last_round = voted[-1]
    decided = sum(v["answer"] is not None for v in last_round.votes)
    share = sum(v["confidence"] for v in last_round.votes) / len(last_round.votes)
    return (
        f"In {last_round.name} the vote decided {decided:,} of {len(last_round.votes):,} questions, with a mean vote "
        f"share of {share:.1%}; there are no scores of held-out questions."
    )


def _quality(folder: RunFolder) -> str:
    """Return how well a reward model predicts held-out rankings, as sentences, or ""."""
    if not folder.quality.exists():
        return ""
    found = read_json(folder.quality)
    sentences = [
        f"The reward model orders {found['accuracy']:.1%} of {found['pairs']:,} held-out pairs of answers as people do (NLL "
        f"{found['nll']:.3f}, calibration error {found['calibration_error']:.3f}).",
        f"Its scores correlate with the length of answers by {found['length_correlation']:+.2f}.",
    ]
    if found["shorter"] is not None:
        sentences.append(f"Where people prefer the shorter answer it is right in {found['shorter']:.1%}.")
    if found["annotators_agree"] is not None:
        sentences.append(f"Annotators agree on {found['annotators_agree']:.1%} of the pairs that several of them ranked.")
    return " ".join(sentences)


def _last_losses(folder: RunFolder, planned: Planned) -> str:
    """Return the last losses of training as a sentence, or "" when nothing has trained yet."""
    for stage in reversed(planned.stages):
        measured = [row for row in read_metrics(folder.stage_metrics(stage)) if "loss" in row]
        held_out = [row["validation_loss"] for row in measured if "validation_loss" in row]
        if measured:
            suffix = f", and {held_out[-1]:.3f} on held-out texts" if held_out else ""
            return f"After step {measured[-1]['step']:,} the training loss is {measured[-1]['loss']:.3f} nats a token{suffix}."
    return ""


def _between(first: Score, last: Score) -> str:
    """Return how the run gets from one model to the other, in words."""
    rounds = last.model.removeprefix("round-")
    if rounds.isdigit():
        return f"after {'one round' if rounds == '1' else f'{rounds} rounds'} of self-improvement"
    return f"from model {title(first.model)} to {title(last.model)}"


def remark(voted: Sequence[Round], gold: Gold) -> str:
    """Return a sentence on the precision of the self-made labels, or "" without gold answers to audit them against."""
    right, known = label_precision(voted[-1].votes, gold) if voted else (0, 0)
    if not known:
        return ""
    low, high = wilson_interval(right, known)
    return (
        f"Of the {known:,} labels voted in {voted[-1].name}, {right / known:.1%} [{low:.1%}, {high:.1%}] agree with "
        f"the gold answer (audit only: the loop never reads gold)."
    )


def _headline(rows: Sequence[Score]) -> list[dict[str, Any]]:
    """Return the rows of the table. `span` is the number of rows of a prompting on its first row, and 0 on the others."""
    table = []
    for i, row in enumerate(rows):
        first = i == 0 or rows[i - 1].prompting != row.prompting
        table.append(
            {
                "span": sum(r.prompting == row.prompting for r in rows) if first else 0,
                "prompting": PROMPTINGS[row.prompting],
                "model": title(row.model),
                "is_first": row.place == 0,
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
    """Return facts about the run, as text by label."""
    facts = {}
    if "started" in about:
        started = datetime.datetime.fromisoformat(about["started"]).astimezone(datetime.UTC)
        facts["Last started"] = f"{started:%Y-%m-%d %H:%M} UTC"
    if about.get("git"):
        facts["Git"] = about["git"]
    if "lmsi_jax" in about.get("versions", {}):
        facts["lmsi_jax"] = about["versions"]["lmsi_jax"]
    checkpoints = {key: v["checkpoint"] for key, v in config.items() if isinstance(v, dict) and v.get("checkpoint")}
    if checkpoints:
        single = len(checkpoints) == 1
        facts["Model"] = ", ".join(name if single else f"{key} {name}" for key, name in checkpoints.items())
    if "data" in config:
        facts["Task"] = config["data"]["task"]
        facts["Questions"] = f"{questions:,} unlabelled" + (f", {rows[0].n:,} held out" if rows else "")
    if config.get("more_tasks"):
        facts["Trained together with"] = ", ".join(f"{name} (tasks/{name}/report.html)" for name in config["more_tasks"])
    if "sample" in config:
        facts["Paths"] = f"{config['sample']['paths']} per question"
    if "rounds" in config:
        facts["Rounds"] = f"{config['rounds']}, each from the {'base' if config['train_from'] == 'base' else 'previous'} model"
    facts["Seed"] = str(config["seed"])
    if leaks is not None and rows:
        kinds = [row["overlap"] for row in leaks]
        facts["Overlap"] = describe(kinds.count("equal"), kinds.count("shared"), rows[0].n)
    return facts


def _stages(folder: RunFolder, manifests: Sequence[Record]) -> list[dict[str, Any]]:
    """Return each finished stage with its time, its share of the total and, where measured, its tokens per second."""
    times = stage_times(manifests)
    total, table = sum(spent for spent, _ in times.values()), []
    for name, (spent, categories) in times.items():
        metrics = read_metrics(folder.stage_metrics(name))
        rate = _throughput(metrics)
        parts = [f"{category} {duration(part)}" for category, part in categories.items() if part >= LISTED]
        parts += [REUSED] if REUSED in categories else []
        table.append(
            {
                "name": _stage_title(name),
                "time": duration(spent),
                "share": f"{100 * spent / total if total else 0:.1f}",
                "rate": f"{rate:,.0f}" if rate is not None else "",
                "kinds": ", ".join([*parts, *_spendings(metrics[-1] if metrics else {})]),
            }
        )
    return [*table, {"name": "All stages", "time": duration(total), "share": "", "rate": "", "kinds": ""}] if table else []


def _throughput(metrics: Sequence[Record]) -> float | None:
    """Return the median tokens per second of a stage, or None when it was not measured."""
    values = sorted(r["tokens_per_second"] for r in metrics if "tokens_per_second" in r)
    return values[len(values) // 2] if values else None


def _spendings(metrics: Record) -> list[str]:
    """Return what a stage used besides time: its share of the possible paths, or a server's requests, tokens and cost."""
    parts = [f"{metrics['drawn']:.0%} of the paths that could be drawn"] if "drawn" in metrics else []
    if "requests" in metrics:
        tokens = f"{metrics['prompt_tokens']:,.0f} prompt and {metrics['completion_tokens']:,.0f} completion tokens"
        parts.append(f"{metrics['requests']:,.0f} requests, {tokens}")
    return parts + ([f"{metrics['dollars']:,.2f} dollars"] if metrics.get("dollars") else [])


def _stage_title(name: str) -> str:
    group, _, short_name = name.rpartition("/")
    if group.startswith("eval/"):
        return f"Evaluate {title(group.removeprefix('eval/'))}"
    if name == "rl":
        return "Reinforcement learning"
    return f"{title(group).capitalize()}: {short_name}" if group else short_name.capitalize()


def duration(seconds: float) -> str:
    """Return a number of seconds in words: "4.2 s", "3 min 20 s", "1 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
