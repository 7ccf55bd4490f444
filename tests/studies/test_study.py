"""Studies: their files, what arms share, results over seeds, and a sweep whose arms fail or are interrupted."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest
from etils import epath

from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.core.settings import to_dict
from lmsi_jax.evaluation.statistics import mcnemar, seeds_estimate
from lmsi_jax.pipeline.stage import Stage
from lmsi_jax.studies.page import write_page
from lmsi_jax.studies.results import read_results, result_table
from lmsi_jax.studies.sharing import plan
from lmsi_jax.studies.study import load_study, plan_runs
from tests.runs import ROOT, SMALL, command, environment


def written(tmp_path, body, name="study.py"):
    (tmp_path / name).write_text(f'"""About."""\n\ndef get_study():\n    return {body}\n')
    return str(tmp_path / name)


def test_arms_are_named_or_combined(tmp_path):
    """Catches: a grid that misses a combination, settings of all arms that win over those of one, a lost list."""
    arms = "{'x': {}, 'y y': {'a.b': [3]}}"
    named = load_study(written(tmp_path, f"{{'config': 'c.py', 'settings': {{'a.b': 1, 'a.c': 2}}, 'arms': {arms}}}"))
    assert named.varied == {"a.b", "seed"}
    assert [(arm.name, arm.folder, dict(arm.settings)) for arm in named.arms] == [
        ("x", "x", {"a.b": 1, "a.c": 2}),
        ("y y", "y-y", {"a.b": [3], "a.c": 2}),
    ]
    assert named.seeds == (0, 1, 2) and named.about == "About." and named.config == str(tmp_path / "c.py")
    assert named.overrides(named.arms[1], 7) == ["--config.a.b=(3,)", "--config.a.c=2", "--config.seed=7"]
    combined = load_study(written(tmp_path, "{'config': 'c.py', 'seeds': [4], 'grid': {'s.t': (0.7, 1.2), 's.m': (1, 8)}}"))
    assert [arm.name for arm in combined.arms] == ["t=0.7, m=1", "t=0.7, m=8", "t=1.2, m=1", "t=1.2, m=8"]
    assert combined.arms[3].folder == "t-1.2-m-8" and combined.seeds == (4,)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("[]", "returns a list, not a dict"),
        ("1 / 0", "failed: ZeroDivisionError"),
        ("{'arms': {'x': {}}}", "needs `config`"),
        ("{'config': 'c.py'}", "either `arms` or a `grid`; this one has neither"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'grid': {'a': [1]}}", "this one has both"),
        ("{'config': 'c.py', 'grid': {'a': 1}}", "needs a list of values"),
        ("{'config': 'c.py', 'arms': {'x': 1}}", "the arm 'x' are a int, not a dict"),
        ("{'config': 'c.py', 'arms': {'x y': {}, 'x-y': {'a': 1}}}", "give the same folder"),
        ("{'config': 'c.py', 'arms': {'x': {'a': 1}, 'y': {'a': 1}}}", "have the same settings"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'seeds': (1, 1)}", "must be different whole numbers"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'seeds': 3}", "`seeds` is 3; it must be a list"),
        ("{'config': 5, 'arms': {'x': {}}}", "needs `config`"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'shown': 'cot'}", "`shown` is 'cot'; it must be a list"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'shown': ['acc']}", "names acc; there are standard"),
        ("{'config': 'c.py', 'arm': {'x': {}}}", "the nearest key is 'arms'"),
        ("{'config': 'c.py', 'arms': {'x': {}}, 'published': {'y': {}}}", "are no arms; there are x"),
    ],
)
def test_a_study_that_is_none_is_refused(body, problem, tmp_path):
    """Catches: a study that runs something else than its author meant, or a Python traceback."""
    with pytest.raises(UserError, match=problem):
        load_study(written(tmp_path, body))


def test_an_invalid_setting_is_that_of_its_arm(tmp_path):
    """Catches: hours of other arms before the last one turns out to be misspelt; arms on other devices than the first."""

    def load(file, settings):
        if "--config.a=2" in settings:
            raise UserError("a=2 is too large.")
        mesh = "two" if "--config.a=3" in settings else "one"
        return dataclasses.make_dataclass("Config", ["mesh"])(mesh)

    study = load_study(written(tmp_path, "{'config': 'c.py', 'grid': {'a': (1, 2)}}"))
    with pytest.raises(UserError, match="Arm 'a=2' of the study study: a=2 is too large"):
        plan_runs(study, str(tmp_path), load)
    study = load_study(written(tmp_path, "{'config': 'c.py', 'grid': {'a': (1, 3)}}"))
    with pytest.raises(UserError, match="Arm 'a=3' of the study study has another mesh"):
        plan_runs(study, str(tmp_path), load)


def _nothing(*args):
    pass


def test_equal_stages_on_equal_inputs_are_shared(tmp_path):
    """Catches: a stage taken for shared although a stage before it differs, or because its file has the same name."""
    (tmp_path / "in").write_text("x")

    def stages(run, first, second):
        at = lambda name: epath.Path(tmp_path) / run / name  # noqa: E731
        return [
            Stage("a", _nothing, first, {"in": epath.Path(tmp_path) / "in"}, {"a": at("a")}),
            Stage("b", _nothing, second, {"a": at("a")}, {"b": at("b")}),
            Stage("report", _nothing, 0, {"b": at("b")}, {"r": at("r")}, is_shared=False),
        ]

    runs = [stages("1", 1, 1), stages("2", 1, 2), stages("3", 2, 1), stages("4", 1, 1)]
    assert [[item.is_shared for item in run] for run in plan(runs)] == [
        [False, False, False],
        [True, False, False],
        [False, False, False],
        [True, True, False],
    ]


def test_the_interval_over_seeds_covers():
    """Catches: an interval over questions only, which misses what seeds add; one that is far too wide for equal seeds."""
    rng = np.random.default_rng(0)
    for spread, least, most in ((0.0, 0.92, 0.09), (0.03, 0.92, 0.3)):
        covered, widths = 0, []
        for _ in range(300):
            shares = np.clip(0.6 + spread * rng.standard_normal(3), 0, 1)
            estimate = seeds_estimate([(rng.random(800) < share).astype(float).tolist() for share in shares], 0.0, 1.0)
            covered += estimate.low <= 0.6 <= estimate.high
            widths.append(estimate.high - estimate.low)
        assert covered / 300 >= least and np.mean(widths) <= most
    assert seeds_estimate([[0.0] * 50, [0.0] * 50], 0.0, 1.0).high < 0.06, "equal values still have an interval"
    assert seeds_estimate([[1.0, 0.0] * 40], 0.0, 1.0).low == pytest.approx(0.39, abs=0.02), "one seed: over questions"

    shared = rng.random(500)
    covered = 0
    for _ in range(300):
        draw = rng.choice(shared, 200)
        scores = [(rng.random(200) < draw).astype(float).tolist() for _ in range(3)]
        estimate = seeds_estimate(scores, 0.0, 1.0, same_questions=True)
        covered += estimate.low <= shared.mean() <= estimate.high
    assert covered / 300 >= 0.93, "questions that all seeds share are as many as one seed has"


def test_seeds_that_differ_by_chance_are_no_effect():
    """Catches: a p-value over the pooled questions of all seeds, for which any two training runs differ."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(400):
        shares = 0.6 + 0.03 * rng.standard_normal((2, 3))
        before, after = (rng.random((3, 500)) < share[:, None] for share in shares)
        gains = (after.astype(float) - before).tolist()
        small += seeds_estimate(gains, -1.0, 1.0).p_value < 0.05
    assert small / 400 < 0.09
    real = [(rng.random(500) < 0.8).astype(float) - (rng.random(500) < 0.5) for _ in range(3)]
    assert seeds_estimate([gain.tolist() for gain in real], -1.0, 1.0).p_value < 0.02
    one = [1.0] * 30 + [-1.0] * 10 + [0.0] * 60
    assert seeds_estimate([one], -1.0, 1.0).p_value == pytest.approx(
        mcnemar([False] * 30 + [True] * 10, [True] * 30 + [False] * 10)
    )


def finished_run(run, base, after, hashes="h"):
    """The scores of a run that is done, as far as results read them."""
    folder, about = run.folder, {"prompting": "cot", "num_paths": 1}
    for model, right in (("base", base), ("round-1", after)):
        rows = ({"id": f"q{i}", "question_hash": f"{hashes}{i}", "correct": bool(c), **about} for i, c in enumerate(right))
        write_jsonl(folder.scores(model, "cot"), rows)
    folder.manifest("report").parent.mkdir(parents=True, exist_ok=True)
    folder.manifest("report").write_text("{}")
    folder.config.write_text(json.dumps(to_dict(run.config)))
    folder.history.write_text('{"recipe": "self_improve", "stages": ["eval/base/evaluate", "eval/round-1/evaluate"]}')


@dataclasses.dataclass(frozen=True)
class Setting:
    seed: int = 0
    a: int = 0
    mesh: str = "one"


def planned(tmp_path, body):
    def load(file, settings):
        values = dict(setting.removeprefix("--config.").split("=") for setting in settings)
        return Setting(**{name: int(value) for name, value in values.items()})

    return plan_runs(load_study(written(tmp_path, body)), str(tmp_path / "w"), load)


def test_results_compare_arms_on_equal_questions_and_seeds(tmp_path):
    """Catches: a difference from another seed, p-values that ignore the number of arms, a run of other settings."""
    body = (
        "{'config': 'c.py', 'seeds': (0, 1, 2), 'arms': {'x': {}, 'y': {'a': 1}, 'z': {'a': 2}, 'u': {'a': 3}, 'v': {'a': 4}}, "
        "'shown': ('cot',), 'published': {'y': {'cot': (56.5, 73.5)}, 'z': {'cot': (None, 61.6)}}}"
    )
    plan, rng = planned(tmp_path, body), np.random.default_rng(0)
    runs = {(run.arm.name, run.seed): run for run in plan.runs}
    base = {seed: rng.random(200) < 0.4 for seed in (0, 1, 2)}
    for arm, share in (("x", 0.5), ("y", 0.8), ("z", 0.52)):
        for seed in (0, 1, 2):
            finished_run(runs[arm, seed], base[seed], rng.random(200) < share, f"h{seed}-")
    (runs["z", 0].folder.manifest("report")).unlink()
    finished_run(runs["u", 1], base[1], rng.random(200) < 0.5, "other")
    finished_run(dataclasses.replace(runs["v", 1], config=Setting(1, 99)), base[1], rng.random(200) < 0.5)
    rows = {row.arm: row for row in read_results(plan)}
    assert rows["x"].difference is None and rows["x"].seeds == (0, 1, 2) and rows["z"].seeds == (1, 2)
    assert rows["x"].base.value == pytest.approx(np.mean([base[seed].mean() for seed in (0, 1, 2)]))
    assert 0.1 < rows["y"].difference.low < rows["y"].difference.value < 0.4 and rows["y"].p_holm < 0.05
    assert rows["y"].p_holm == pytest.approx(2 * rows["y"].p_value) and rows["z"].p_holm == rows["z"].p_value
    assert rows["u"].difference is None, "it was scored on other questions"
    assert "v" not in rows, "its settings are no longer those of the study"
    write_page(plan.study, list(rows.values()), {"z, seed 0": "no <room>"}, plan.root)
    page = (plan.root / "study.html").read_text()
    assert ">56.5 → 73.5<" in page and ">61.6<" in page
    assert "z, seed 0 failed: no &lt;room&gt;" in page and "6 of 15 runs are not finished" in page and "<svg" in page
    assert result_table(plan.study, list(rows.values())).row_count == 5


@pytest.mark.slow
def test_a_sweep_shares_goes_on_and_outlives_a_failure(compile_cache, tmp_path):
    """Catches: an arm that samples what another one sampled, a failed arm that ends the others, a sweep that starts again."""
    body = (
        f"{{'config': '{ROOT}/configs/tiny.py', 'seeds': (0,), 'settings': {{'evaluate.self_consistency': False}}, 'arms': "
        "{'all': {}, 'short rows': {'finetune.row_length': 96, 'finetune.share_prompts': False}, "
        "'one': {'format.formats': ('zero_shot_cot',)}}}"
    )
    file = written(tmp_path, body)

    small = {key: value for key, value in SMALL.items() if key != "finetune.row_length"}

    def sweep(*flags):
        arguments = command("sweep", f"--config={file}", f"--workdir={tmp_path}/w", *flags, **small)
        return subprocess.run(arguments, capture_output=True, text=True, env=environment(compile_cache), check=False)

    foreseen = sweep("--dry-run")
    assert foreseen.returncode == 0 and not (tmp_path / "w").exists(), foreseen.stderr
    assert "rounds/1/sample (shared)" in foreseen.stdout and "Without sharing" in foreseen.stdout
    assert "(shared)" not in sweep("--dry-run", "--store=none").stdout
    done = sweep()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed: short rows, seed 0: A training row could be too long" in done.stdout
    assert done.stdout.count("rounds/1/sample: reused from the store") == 1 and "[3/3] one, seed 0" in done.stdout
    rows = list(read_jsonl(tmp_path / "w/study.jsonl"))
    assert {row["arm"] for row in rows} == {"all", "one"} and all(row["seeds"] == [0] for row in rows)
    refused = sweep("--config.finetune.row_length=300")
    assert refused.returncode == 2 and "--config.finetune.row_length would be the same in all runs" in refused.stderr
    again = sweep()
    assert again.stdout.count("Every stage is done; nothing to do.") == 2
