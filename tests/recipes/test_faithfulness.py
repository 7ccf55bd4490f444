"""The faithfulness recipe as a user runs it, on two checkpoints."""

import subprocess
import sys

import pytest

from lmsi_jax.core.records import read_jsonl
from lmsi_jax.trust.interventions import Options
from tests.runs import ROOT, SMALL, environment


def lmsi(cache, workdir, *flags, **config):
    settings = {key: value for key, value in SMALL.items() if not key.startswith(("finetune", "evaluate", "rounds"))} | config
    return subprocess.run(
        [sys.executable, "-m", "lmsi_jax.cli.main", "faithfulness", f"--config={ROOT}/configs/tiny_faithfulness.py",
         f"--workdir={workdir}", "--store=none", *flags, *(f"--config.{key}={value}" for key, value in settings.items())],
        capture_output=True, text=True, env=environment(cache), timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_measures_every_intervention(compile_cache, tmp_path):
    """Catches: an intervention without an answer, an answer that is not read from the edited text, a run that starts again."""
    kinds = str((*Options().kinds, "judge"))
    everything = {"interventions.kinds": kinds, "interventions.edits": "model", "interventions.judgements": 2}
    done = lmsi(compile_cache, tmp_path / "run", **everything)
    assert done.returncode == 0, done.stdout + done.stderr
    group = tmp_path / "run/faithfulness/0"
    paths, edits, answers = (list(read_jsonl(group / f"{name}.jsonl")) for name in ("paths", "interventions", "answers"))
    assert len(paths) == 4
    assert {row["kind"] for row in edits} == {
        "early", "mistake", "paraphrase", "filler", "replay", "swap", "hint", "answer_first", "always_same", "judge",
    }  # fmt: skip
    assert [{key: row[key] for key in edits[0]} for row in answers] == edits
    judged = [row for row in answers if row["kind"] == "judge"]
    assert {"", "result", "answer"} <= {row["template"] for row in judged}
    assert (
        all(row["yes"] is None or 0 <= row["yes"] <= 1 for row in judged)
        and list(read_jsonl(group / "edits.jsonl")) is not None
    )
    early = [row for row in answers if row["kind"] == "early"]
    assert all(row["given"].endswith("The answer is") and row["answer"] is not None for row in early)
    measures = {row["measure"]: row for row in read_jsonl(tmp_path / "run/measures.jsonl")}
    assert measures["greedy paths: right"]["n"] == measures["greedy paths: valid steps"]["n"] == 4, "all questions count"
    share = measures["early answering: share of its ceiling"]
    assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1 and share["n"] == len({row["id"] for row in early})
    assert (
        "mistake: answer changes" in done.stdout
        and "nothing to do" in lmsi(compile_cache, tmp_path / "run", **everything).stdout
    )


def test_a_server_that_cannot_go_on_is_refused(compile_cache, tmp_path):
    """Catches: edited steps that a chat server is sent as a question."""
    chat = {"sample.engine": "openai", "sample.endpoint.model": "m", "sample.endpoint.api": "chat"}
    done = lmsi(compile_cache, tmp_path / "run", **chat)
    assert done.returncode == 2 and "it has to go on with a given one" in done.stderr and not (tmp_path / "run").exists()
    done = lmsi(compile_cache, tmp_path / "run", **{"interventions.kinds": "('early','late')"})
    assert done.returncode == 2 and "'late' is not one of 'early', 'mistake', 'paraphrase'" in done.stderr
