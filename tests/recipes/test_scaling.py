"""Scaling runs: their grid, the points that are gathered from them, what is fitted, and what the report shows."""

import json
import re
import subprocess
import time

import numpy as np
import pytest
from etils import epath

from lmsi_jax.analysis.scaling import scaling_figures, scaling_verdict
from lmsi_jax.cli.configs import load_config
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl
from lmsi_jax.model import transformer
from lmsi_jax.pipeline.run_folder import RunFolder
from lmsi_jax.recipes.config import ScalingConfig
from lmsi_jax.recipes.scaling import grid, largest
from lmsi_jax.scaling.fitting import Fit
from lmsi_jax.scaling.laws import LAWS
from lmsi_jax.stages.pretrain import write_curve
from lmsi_jax.stages.scaling import FitSettings, GridRun, PointSettings, run_fits, run_points
from tests.runs import ROOT, command, environment

CONFIG = f"{ROOT}/configs/scaling_tiny.py"
TRUTH = np.array([np.log(200.0), np.log(300.0), np.log(0.4), 0.45, 0.4])


def config(*settings):
    return load_config(ScalingConfig, CONFIG, [f"--config.{setting}" for setting in settings])


def test_each_size_has_a_run_for_each_budget_within_the_bounds():
    """Catches: budgets of another count of operations, a learning rate of another size, a check of rates at each budget."""
    runs = grid(config())
    for run, settings in runs:
        tokens = settings.train.steps * settings.train.batch * settings.train.row_length
        assert 7e5 * 0.99 < tokens < 1.12e7 * 1.01 and tokens * run.flops_per_token == pytest.approx(run.budget, rel=0.01)
        assert run.params == transformer.count_params(settings.model) and settings.train.warmup <= settings.train.steps / 10
        rate = 2e-3 * (transformer.count_params(config().model) / run.params) ** 0.3
        assert settings.train.learning_rate == run.learning_rate == pytest.approx(rate * run.rate_factor)
    ruled = [run for run, _ in runs if run.rate_factor == 1]
    sizes = sorted({run.params for run in ruled})
    assert len(sizes) == 5 and all(sum(run.params == size for run in ruled) == 4 for size in sizes)
    assert 0.09e6 < sizes[0] < 0.12e6 and 4e6 < sizes[-1] < 4.3e6
    for size in sizes:
        tried = {run.budget for run, _ in runs if run.params == size and run.rate_factor != 1}
        assert tried == {min(run.budget for run in ruled if run.params == size)}
    assert len({run.name for run, _ in runs}) == len(runs) == 30 and transformer.count_params(largest(config())) == sizes[-1]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["widths=(40,)", "depths=(2,)"], "not a multiple of model.head_width=16"),
        (["widths=(48,64)", "depths=(2,)"], "one entry for each size"),
        (["flops=(1e9,)"], "the budgets flops=\\(1000000000.0,\\) give it"),
        (["flops=(1e12,1e12)"], "has an entry twice"),
        (["flops=(-1e12,)"], "must be positive"),
        (["tokens=(2e7,1e6)"], "a lower and an upper bound"),
        (["rate_factors=(1.0,2.0)"], "every run has the factor 1"),
        (["train.steps=200"], "train.steps=200 has no effect"),
        (["start=builtin"], "start from random weights"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, problem):
    """Catches: a grid without runs, and settings that are ignored."""
    with pytest.raises(UserError, match=problem):
        grid(config(*settings))


def curves(folder, noise=0.0):
    """The curves of the shipped grid, of a law whose constants are known; the runs."""
    law, rng, runs = LAWS["chinchilla_parametric"], np.random.default_rng(0), grid(config())
    for run, settings in runs:
        steps = [*range(settings.validate_every, settings.train.steps, settings.validate_every), settings.train.steps]
        per_step = settings.train.batch * settings.train.row_length
        columns = {"params": np.full(len(steps), float(run.params)), "tokens": np.array(steps, float) * per_step}
        loss = Fit(law, TRUTH).predict(columns) * np.exp(noise * rng.standard_normal(len(steps)))
        loss *= 1 if run.rate_factor == 1 else 1.05
        rows = [{"step": step, "validation_loss": value} for step, value in zip(steps, loss, strict=True)]
        write_curve(folder.curve(run.name), rows, per_step, 10**7)
    return [run for run, _ in runs]


def test_three_approaches_agree_on_the_law_that_made_the_points(tmp_path):
    """Catches: points of other learning rates in a fit, curves in place of last losses, tokens of another run."""
    folder = RunFolder(epath.Path(tmp_path))
    runs = curves(folder)
    outputs = {name: folder.scaling(name) for name in ("points", "curves", "rates")}
    inputs = {run.name: folder.curve(run.name) for run in runs}
    run_points(None, PointSettings(tuple(runs)), inputs, outputs, None)
    points = list(read_jsonl(outputs["points"]))
    assert len(points) == 20 and all(row["rate_factor"] == 1 for row in points)
    assert all(row["flops"] == pytest.approx(row["budget"], rel=0.01) for row in points)
    assert max(row["unique_tokens"] for row in points) == 10**7 < max(row["tokens"] for row in points)
    run_fits(None, FitSettings(10), outputs, {"fits": folder.scaling("fits")}, None)
    fits = {row["law"]: row for row in read_jsonl(folder.scaling("fits"))}
    a = 0.4 / (0.45 + 0.4)
    assert fits["chinchilla_parametric"]["exponents"]["a"]["value"] == pytest.approx(a, abs=1e-4)
    assert fits["chinchilla_parametric"]["extrapolation"]["largest"] < 1e-4
    assert fits["chinchilla_isoflop"]["exponents"]["a"]["value"] == pytest.approx(a, abs=0.08)
    assert fits["chinchilla_envelope"]["exponents"]["a"]["value"] == pytest.approx(a, abs=0.15)
    drawn = {figure.title: figure for figure in scaling_figures(folder)}
    assert list(drawn) == ["Loss by compute", "Loss at equal compute", "Compute-optimal parameters", "Learning rates"]
    assert "The rule's own rate is the best for every size" in drawn["Learning rates"].caption
    assert len(drawn["Loss by compute"].rows) == 20 and len(drawn["Learning rates"].rows) == 5
    assert drawn["Compute-optimal parameters"].rows[2][1].startswith("0.471")
    assert re.search("predicts the loss of the 1 larger ones with an error of 0.0%", scaling_verdict(folder))


def test_what_cannot_be_fitted_has_its_reason(tmp_path):
    """Catches: a run of hours that ends in an error, since one of three approaches needs more runs."""
    folder = RunFolder(epath.Path(tmp_path))
    run = GridRun("a", 10**5, 10**4, 1e6, 1e12, 1e-3, 1.0)
    write_curve(folder.curve("a"), [{"step": 1, "validation_loss": 2.0}], 4096, 10**6)
    outputs = {name: folder.scaling(name) for name in ("points", "curves", "rates")}
    run_points(None, PointSettings((run,)), {"a": folder.curve("a")}, outputs, None)
    run_fits(None, FitSettings(10), outputs, {"fits": folder.scaling("fits")}, None)
    assert all("error" in row for row in read_jsonl(folder.scaling("fits")))
    assert "has 5 constants and there are 1 points" in scaling_verdict(folder)
    assert [figure.title for figure in scaling_figures(folder)][-1] == "Compute-optimal parameters"


@pytest.mark.slow
def test_scaling_runs_go_on_after_a_kill(compile_cache, tmp_path):
    """Catches: finished runs that are trained again, and a page without the fits."""
    small = {
        "mesh.cpu_devices": 1, "corpus.documents": 40, "held_out_documents": 8, "tokenizer_documents": 40, "model.vocab": 360,
        "widths": "(16,32)", "depths": "(1,1)", "flops": "(1e10,)", "tokens": "(5e3,1e6)", "rate_factors": "()",
        "train.batch": 4,
    }  # fmt: skip
    run = command("scaling", "run", f"--config={CONFIG}", f"--workdir={tmp_path}", "--store=none", **small)
    environ = environment(compile_cache)
    started = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ)
    deadline = time.time() + 200
    while not list((tmp_path / "manifests").glob("train-*")) and started.poll() is None and time.time() < deadline:
        time.sleep(0.1)
    started.kill()
    started.wait()
    (first,) = list((tmp_path / "manifests").glob("train-*"))[:1]
    written = first.read_bytes()
    done = subprocess.run(run, capture_output=True, text=True, env=environ, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.read_bytes() == written and len(list((tmp_path / "curves").glob("*.jsonl"))) == 2
    assert len((tmp_path / "scaling/points.jsonl").read_text().splitlines()) == 2
    assert "Parameters grow as C^a" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "Loss at equal compute" in page and "constants and there are 2 points" in page
    assert json.loads((tmp_path / "run.json").read_text())["recipe"] == "scaling"
