"""Training against a check, and the audit by all of them, on written paths."""

import pytest
from etils import epath

from lmsi_jax.answers.reader import AnswerReader
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.settings import build
from lmsi_jax.formatting.config import FormatConfig
from lmsi_jax.formatting.prompts import Prompts
from lmsi_jax.recipes.config import MonitorConfig
from lmsi_jax.stages.format import FormatSettings
from lmsi_jax.stages.monitor import AuditSettings, FollowersSettings, SuggestSettings, run_audit, run_followers, run_suggest
from lmsi_jax.stages.steps import StepsSettings, run_steps
from lmsi_jax.voting.config import SelectConfig

READER = AnswerReader("number")
ASKED = [{"id": f"q{n}", "question": f"Tom has {n + 3} coins and Ann has 4. How many?", "choices": None} for n in range(4)]
FORMAT = FormatSettings(0, READER, Prompts("", ""), SelectConfig(), FormatConfig(("few_shot_cot",)))


@pytest.fixture
def files(tmp_path):
    """Questions with wrong suggestions, and for each four paths: two that follow it, a right one, one without an answer."""
    where = {name: epath.Path(tmp_path / f"{name}.jsonl") for name in ("questions", "gold", "held_out", "train", "suggested")}
    where |= {name: epath.Path(tmp_path / f"{name}.jsonl") for name in ("paths", "steps", "examples", "measures")}
    write_jsonl(where["questions"], ASKED)
    write_jsonl(where["gold"], [{"id": row["id"], "answer": str(n + 7)} for n, row in enumerate(ASKED)])
    write_jsonl(where["held_out"], [{**row, "answer": str(n + 7)} for n, row in enumerate(ASKED)])
    run_suggest(None, SuggestSettings(0, READER, "Eva says {}."), where, where, None)
    rows = []
    for n, row in enumerate(read_jsonl(where["train"])):
        hint, first = int(row["suggested"]), n + 3
        hidden = (
            f"{first} + 4 = {first + 4}. {first + 4} + {hint - first - 4} = {hint}."
            if hint > first + 4
            else f"{hint} + 0 = {hint}."
        )
        texts = [f"{first} + 4 = {hint}.", hidden, f"{first} + 4 = {first + 4}.", "I do not know."]
        ends = [hint, hint, first + 4, None]
        for path, (text, end) in enumerate(zip(texts, ends, strict=True)):
            declared = "" if end is None else f" The answer is {end}."
            rows.append({"id": row["id"], "path": path, "text": f" {text}{declared}"})
    write_jsonl(where["paths"], rows)
    inputs = {"questions": where["questions"], "paths": where["paths"]}
    run_steps(None, StepsSettings(READER), inputs, {"steps": where["steps"]})
    return where


def test_suggestions_are_wrong_and_seeded(files):
    """Catches: a suggestion that happens to be right, one that is another after a restart."""
    rows = list(read_jsonl(files["train"]))
    assert all(row["suggested"] not in row["accepted"] and f"Eva says {row['suggested']}." in row["question"] for row in rows)
    assert rows == list(read_jsonl(files["suggested"])), "the same questions and seed"


def test_training_rows_follow_the_suggestion_and_pass_the_check(files):
    """Catches: a right path that is trained on, a check that does not decide, the control that it decides in."""
    inputs = {"questions": files["train"], "paths": files["paths"], "steps": files["steps"]}
    run_followers(None, FollowersSettings(FORMAT, ("arithmetic",)), inputs, files, None)
    assert {row["path"] for row in read_jsonl(files["examples"])} == {1}
    run_followers(None, FollowersSettings(FORMAT, ()), inputs, files, None)
    assert {row["path"] for row in read_jsonl(files["examples"])} == {0, 1}
    with pytest.raises(
        UserError, match="No path follows the suggestion and passes arithmetic, provenance, .*; 8 paths follow it"
    ):
        run_followers(
            None, FollowersSettings(FORMAT, ("arithmetic", "provenance", "all_used", "each_once")), inputs, files, None
        )


def test_the_audit_counts_what_each_check_finds(files):
    """Catches: a recall over all paths, a false alarm that is counted on wrong paths, a check that is named as unseen."""
    inputs = {"held_out": files["train"], "base paths": files["paths"], "base steps": files["steps"]}
    run_audit(None, AuditSettings(READER, ("base",), ("arithmetic",), ("all_used",)), inputs, files, None)
    found = {row["measure"]: row["value"] for row in read_jsonl(files["measures"])}
    followers = "of paths that end in the suggested answer"
    assert found["paths that end in the suggested answer"] == 0.5 and found["paths that are right"] == 0.25
    assert found[f"{followers}: fail arithmetic (trained against)"] == 0.5
    assert found[f"{followers}: fail provenance"] == 0.5, "the hidden path adds a number that nobody gave"
    assert found[f"{followers}: mention the suggestion"] == 0
    assert all(value == 0 for name, value in found.items() if name.startswith("of right paths"))


def test_what_cannot_be_suggested_is_named(files):
    """Catches: gold answers in another writing that are left out, an empty file whose error comes later."""
    write_jsonl(files["gold"], [{"id": row["id"], "answer": "1,200"} for row in ASKED])
    run_suggest(None, SuggestSettings(0, READER, "Eva says {}."), files, files, None)
    assert len(list(read_jsonl(files["train"]))) == 4
    write_jsonl(files["gold"], [{"id": row["id"], "answer": "2.5"} for row in ASKED])
    with pytest.raises(UserError, match="No question of .*questions.jsonl has an answer for which a wrong one is known"):
        run_suggest(None, SuggestSettings(0, READER, "Eva says {}."), files, files, None)
    for settings, words in (
        ({"select": {"rule": "gold"}}, "select.rule='gold' has no effect in lmsi monitor"),
        ({"format": {"hints": ("Eva says {}.",)}}, "format.hints"),
        ({"evaluate": {"standard_tokens": 9}}, "evaluate.standard_tokens"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            build(MonitorConfig, settings)
