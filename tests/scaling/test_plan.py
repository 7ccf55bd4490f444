"""Plans: what a budget buys, what it costs, and what is refused."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmsi_jax.cli.main import main
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.scaling.energy import carbon, energy
from lmsi_jax.scaling.plan import plan, read_fit, schedule
from tests.scaling.simulated import points

GOPHER = ("--fit=besiroglu_2024", "--budget=5.76e23")


def lmsi(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["lmsi", "scaling", *map(str, arguments)])
    return ended.value.code


def planned(capsys, *arguments):
    assert lmsi("plan", *arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("chips", "watts", "days", "pue", "megawatt_hours"),
    [
        (512, 310, 20, 1.12, 85.7),  # T5
        (1024, 289, 30, 1.09, 232),  # Meena
        (1024, 288, 3.1, 1.09, 24.1),  # GShard
        (1024, 245, 27, 1.10, 179),  # Switch Transformer
        (10_000, 330, 14.8, 1.10, 1287),  # GPT-3
    ],
)
def test_energy_as_published(chips, watts, days, pue, megawatt_hours):
    """Catches: units that are mixed (Patterson et al. 2021, table 4)."""
    assert energy(24.0 * days, chips, float(watts), pue) / 1000 == pytest.approx(megawatt_hours, rel=0.02)


def test_carbon_as_published():
    """Catches: kilograms for tonnes."""
    assert carbon(energy(24.0 * 20, 512, 310.0, 1.12), 0.545) == pytest.approx(46.7, rel=0.02)


def test_a_budget_in_operations_and_in_hours(capsys):
    """Catches: hours of one chip, a utilisation that is left out."""
    plan = planned(capsys, *GOPHER, "--topology=v5p:8x8x8", "--watts=300", "--price=4")
    assert plan["tokens_per_param"]["value"] == pytest.approx(18.4, abs=0.05)
    cost = plan["hardware"]
    assert cost["hours"] == pytest.approx(5.76e23 / (512 * 459e12 * 0.4 * 3600)) and cost["dollars"] == 4 * cost["chip_hours"]
    assert cost["kilowatt_hours"] == pytest.approx(cost["chip_hours"] * 0.3 * 1.1)
    same = planned(capsys, "--fit=besiroglu_2024", f"--hours={cost['hours']}", "--topology=v5p:8x8x8")
    assert same["flops"] == pytest.approx(5.76e23) and "dollars" not in same["hardware"]


def test_the_schedule_of_a_run(capsys):
    """Catches: a batch in sequences, a warmup longer than the run, a rule that is silently used far from its data."""
    tuned = planned(capsys, "--fit=besiroglu_2024", "--budget=1e18")
    run, params = tuned["schedule"], tuned["params"]["value"]
    assert run["steps"] * run["batch_tokens"] == pytest.approx(tuned["tokens"]["value"], rel=0.01)
    assert run["learning_rate"] == pytest.approx(0.0047 * (params / 1.08e8) ** (-1 / 3)) and run["within_what_was_tuned"]
    assert run["warmup_steps"] == round(min(params / run["batch_tokens"], run["steps"] / 10))
    assert schedule(1.08e8, 1e10)["batch_tokens"] == 160 * 2048
    assert not planned(capsys, *GOPHER)["schedule"]["within_what_was_tuned"]
    assert schedule(1e9, 1e3)["steps"] == 1


def test_inference_in_the_account(capsys):
    """Catches: a plan for training alone that is called the cheapest of both."""
    plan = planned(capsys, *GOPHER, "--inference_tokens=1e13")
    assert plan["with_inference"]["params"] < plan["params"]["value"] and plan["with_inference"]["share_of_the_other"] < 1


def test_a_plan_from_ones_own_fit_has_intervals(tmp_path, capsys):
    """Catches: a plan that looks surer than its fit."""
    some = points("chinchilla_parametric", 60, noise=0.004)
    rows = [{name: float(some.columns[name][i]) for name in ("params", "tokens", "loss")} for i in range(60)]
    write_jsonl(tmp_path / "points.jsonl", rows)
    flags = (f"--input={tmp_path}/points.jsonl", f"--output={tmp_path}/fit.json", "--bootstrap=20")
    assert lmsi("fit", "--law=chinchilla_parametric", *flags) == 0
    capsys.readouterr()
    plan = planned(capsys, f"--fit={tmp_path}/fit.json", "--budget=1e21")
    assert plan["params"]["low"] < plan["params"]["value"] < plan["params"]["high"]
    (record,) = read_jsonl(tmp_path / "fit.json")
    assert len(record["theta"]) == 21


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (GOPHER[:1], "needs either --budget=FLOPS, or --hours"),
        ((*GOPHER, "--hours=3"), "needs either --budget=FLOPS, or --hours"),
        ((GOPHER[0], "--hours=3"), "is a budget only of a --topology"),
        ((*GOPHER, "--topology=v9:4"), "--topology=v9:4: write a chip and a number"),
        ((*GOPHER, "--topology=v5p:4", "--mfu=40"), "--mfu=40 must be above 0 and at most 1"),
        ((*GOPHER, "--topology=v5p:4", "--price=nan"), "--price=nan must be above 0"),
        ((*GOPHER, "--topology=v5p:²"), "--topology=v5p:²: write a chip"),
        ((*GOPHER, "--price=4"), "--price is of chips, and there is no --topology"),
        ((*GOPHER, "--inference_tokens=inf"), "must be above 0"),
        ((GOPHER[0], "--budget=-1"), "must be above 0"),
        (("--fit=nobody_2020", "--budget=1e20"), "There is no published fit, and no file, 'nobody_2020'"),
        ((*GOPHER, "--unique_tokens=1e9"), "knows no repeated tokens"),
    ],
)
def test_what_cannot_be_planned(arguments, told, capsys):
    """Catches: a budget of nothing, a setting without an effect."""
    assert lmsi("plan", *arguments) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_fit(tmp_path, capsys):
    """Catches: a traceback for a record of another law."""
    write_jsonl(tmp_path / "other.json", [{"law": "vote", "constants": {}}])
    assert lmsi("plan", f"--fit={tmp_path}/other.json", "--budget=1e20") == 2
    assert "is no record of a law of the loss" in capsys.readouterr().err
    for theta in ([["a"]], [[1, 2]], [5], [[]], [[None] * 5], [[1, 1, 1, 1, 10**400]]):
        write_jsonl(tmp_path / "other.json", [{"law": "chinchilla_parametric", "theta": theta}])
        assert lmsi("plan", f"--fit={tmp_path}/other.json", "--budget=1e20") == 2
        assert "each theta must have 5 numbers" in capsys.readouterr().err


NUMBERS = st.floats() | st.floats(1e-3, 1e25) | st.sampled_from([0, -1, 10**400, 1e300, 1e-300])
ANYTHING = NUMBERS | st.none() | st.booleans() | st.text(max_size=5)
THETAS = st.lists(st.lists(NUMBERS, min_size=5, max_size=5) | st.lists(ANYTHING, max_size=6) | ANYTHING, max_size=3) | ANYTHING


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["chinchilla_parametric", "data_constrained", "kaplan_joint", "vote", None, 3]),
    THETAS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
)
def test_any_record_is_a_plan_or_one_paragraph(law, theta, flops, unique, inference):
    """Catches: a traceback, or a plan that is no number, for a record that somebody else wrote or a budget without sense."""
    assume(0 < flops < math.inf and unique > 0 and 0 <= inference < math.inf)  # as the command checks
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fit.json").write_text(json.dumps({"law": law, "theta": theta}) + "\n")
        try:
            record = plan(read_fit(f"{folder}/fit.json"), float(flops), float(unique), float(inference))
        except UserError as error:
            assert str(error)
        else:
            assert math.isfinite(record["params"]["value"]) and math.isfinite(record["loss"]["value"])
