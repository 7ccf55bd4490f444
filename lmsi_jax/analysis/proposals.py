"""What became of the questions that a model wrote: refused for which reasons, kept, and, in the audit, labelled how well."""

from collections import Counter
from collections.abc import Sequence

from lmsi_jax.analysis.rounds import Gold, interval
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.tasks.proposals import REASONS


def proposal_facts(folder: RunFolder, votes: Sequence[Record], gold: Gold) -> list[tuple[str, str]]:
    """Return facts about the questions that the model of a run wrote, as (label, text); [] when it wrote none.

    `votes` are those of the first round. The audit counts a kept question that no program can answer, because it contradicts
    itself, as one without a right label.
    """
    file = folder.proposals if folder.proposals.exists() else folder.written
    rows = list(read_jsonl(file)) if file.exists() else []
    if not rows:
        return []
    counts, n = Counter(row["reason"] for row in rows), len(rows)
    kept = [row["id"] for row in rows if row["reason"] is None]
    facts = [("Written", f"{n:,} questions"), ("Kept", _share(counts[None], n))]
    facts += [(f"Refused: {REASONS[reason]}", _share(counts[reason], n)) for reason in REASONS if counts[reason]]
    answers = {vote["id"]: vote["answer"] for vote in votes}
    if gold and kept and answers:
        solvable = [id for id in kept if id in gold]
        right = sum(gold.right(id, answers.get(id)) for id in solvable)
        facts.append(("Kept with an answer that a program can tell (audit only)", _share(len(solvable), len(kept))))
        facts.append(("Kept with a right label (audit only)", _share(right, len(kept))))
    return facts


def _share(count: int, n: int) -> str:
    return f"{count:,} of {n:,}, {interval(count, n)}"
