"""The store of finished stages: what runs share, what they do not, and what happens to what was changed."""

import dataclasses
import json
import os
import subprocess
import time

import pytest
from etils import epath

from lmsi_jax.cli.main import main
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.settings import untraced
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.pipeline.store import Store, open_store
from tests.runs import environment, records, run_workdir


@dataclasses.dataclass(frozen=True)
class Settings:
    factor: int = 2
    threads: int = untraced(1)


def make(folder, name="double", settings=None, **options):
    """A stage of a run folder that multiplies numbers, and its folder; it is run by hand."""
    run = RunFolder(epath.Path(folder))
    inputs, outputs = {"rows": run.root / "in.jsonl"}, {"doubled": run.root / f"{name}.jsonl", "model": run.model("m")}
    return Stage(name, multiply, settings or Settings(), inputs, outputs, **options), run


def multiply(runtime, settings, inputs, outputs, scratch):
    write_jsonl(outputs["doubled"], ({"n": settings.factor * row["n"]} for row in read_jsonl(inputs["rows"])))
    (outputs["model"] / "params").mkdir(parents=True)
    (outputs["model"] / "params/0").write_text("weights")


def finished(folder, numbers=(1, 2), **options):
    """A run whose stage is done."""
    write_jsonl(folder / "in.jsonl", ({"n": n} for n in numbers))
    stage, run = make(folder, **options)
    multiply(None, stage.settings, stage.inputs, stage.outputs, None)
    write_jsonl(run.stage_metrics(stage.name), [{"step": 1, "loss": 2.0}])
    write_jsonl(run.stage_metrics(stage.name, "cot"), [{"step": 1, "loss": 3.0}])
    return stage, run


def test_what_one_run_made_another_takes(tmp_path):
    """Catches: a key that holds the run's own folder or stage name; metrics left behind; settings that change nothing."""
    store = Store(epath.Path(tmp_path / "store"))
    store.publish(*finished(tmp_path / "one"))
    write_jsonl(tmp_path / "two/in.jsonl", [{"n": 1}, {"n": 2}])
    stage, run = make(tmp_path / "two", name="other/name", settings=Settings(threads=8))
    entry = store.find(stage, {})
    store.fetch(entry, stage, run)
    assert [row["n"] for row in read_jsonl(stage.outputs["doubled"])] == [2, 4]
    assert (run.model("m") / "params/0").read_text() == "weights"
    assert json.loads(run.stage_metrics("other/name").read_text())["loss"] == 2.0
    assert json.loads(run.stage_metrics("other/name", "cot").read_text())["loss"] == 3.0
    os.truncate(stage.outputs["doubled"], 0)
    assert store.find(stage, {}), "a record is a copy: what is done to it in a run does not reach the store"
    for other in (make(tmp_path / "two", settings=Settings(3)), make(tmp_path / "two", is_shared=False)):
        assert store.find(other[0], {}) is None
    write_jsonl(tmp_path / "two/in.jsonl", [{"n": 1}])
    assert store.find(stage, {}) is None


def test_an_entry_that_was_changed_or_cut_off_is_not_used(tmp_path, monkeypatch):
    """Catches: a half-written entry, a file that somebody edited, or code of another version, taken for the stage's own."""
    store = Store(epath.Path(tmp_path / "store"))
    stage, run = finished(tmp_path / "run")
    store.publish(stage, run)
    (folder,) = (tmp_path / "store").iterdir()
    (folder / "model/params/0").write_text("others")
    assert store.find(stage, {}) is None
    stage, run = finished(tmp_path / "again")
    store.publish(stage, run)
    assert store.find(stage, {})
    monkeypatch.setattr("lmsi_jax.pipeline.store.code_version", lambda: "another")
    assert store.find(stage, {}) is None and Store(epath.Path(tmp_path / "store"), any_code=True).find(stage, {})
    monkeypatch.undo()
    (folder / "entry.json").unlink()
    assert store.find(stage, {}) is None and not list(store.entries())


def test_rows_of_another_file_are_alike(tmp_path):
    """Catches: rows taken from a stage of other settings; the same stage of other rows not seen."""
    store = Store(epath.Path(tmp_path / "store"))
    store.publish(*finished(tmp_path / "one", by_row="rows"))
    stage, _ = finished(tmp_path / "two", numbers=(1, 2, 3), by_row="rows")
    (alike,) = store.reusable(stage)
    assert [row["n"] for row in read_jsonl(alike["doubled"])] == [2, 4]
    assert not store.reusable(dataclasses.replace(stage, settings=Settings(5))) and not store.reusable(
        make(tmp_path / "two")[0]
    )


def test_what_was_not_used_for_long_is_removed(tmp_path, capsys):
    """Catches: a disk that fills up, or entries removed that runs still use."""
    store = Store(epath.Path(tmp_path / "store"))
    for name, numbers in (("old", [1]), ("new", [2])):
        store.publish(*finished(tmp_path / name, numbers))
    old, new = store.find(make(tmp_path / "old")[0], {}), store.find(make(tmp_path / "new")[0], {})
    os.utime(old.folder / "entry.json", (time.time() - 10 * 86_400,) * 2)
    with pytest.raises(SystemExit) as stop:
        main(["lmsi", "store", f"--store={tmp_path}/store", "--prune=5"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0 and "removed 1 entries" in printed and new.folder.name in printed
    assert "1 entries, 0.0 MiB" in printed and [entry.folder for entry in store.entries()] == [new.folder]


def test_where_the_store_is(tmp_path):
    """Catches: a bucket that is filled with copies unasked, a file in the place of a folder."""
    assert open_store(None, epath.Path(tmp_path / "run"))._root == epath.Path(tmp_path / ".store")
    assert (
        open_store("none", epath.Path(tmp_path))._root is None and open_store(None, epath.Path("gs://bucket/run"))._root is None
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder, or none"):
        open_store(f"{tmp_path}/file", epath.Path(tmp_path))


@pytest.mark.slow
def test_two_runs_that_differ_in_selection_sample_once(finished_run, compile_cache, tmp_path):
    """Catches: an ablation that samples and scores everything again; a dry run that foresees something else than happens."""

    def lmsi(name, *flags, **config):
        arguments = run_workdir(tmp_path / name, *flags, store=tmp_path / "store", **config)
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment(compile_cache), check=False)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if "reused from the store" in line]

    assert lmsi("first") == []
    assert records(tmp_path / "first") == records(finished_run), "the store changes nothing"
    shared = ["prepare", "eval/base/evaluate", "rounds/1/sample", "rounds/1/steps", "rounds/1/vote"]
    assert [line.split(":")[0] for line in lmsi("random", **{"select.rule": "random"})] == shared
    predicted = [line.split(":")[0] for line in lmsi("again", "--dry-run")]
    assert predicted == [line.split(":")[0] for line in lmsi("again")]
    assert predicted == [*shared, "rounds/1/format", "rounds/1/finetune", "eval/round-1/evaluate"]
    assert records(tmp_path / "again") == records(tmp_path / "first")


@pytest.fixture
def finished_run(finished):
    return finished[0]
