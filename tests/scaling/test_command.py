"""`lmsi scaling fit` on files: what it writes, and what it says of rows that it cannot use."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmsi_jax.cli.commands import LAW_NAMES
from lmsi_jax.cli.main import main
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.records import read_jsonl, write_jsonl
from lmsi_jax.scaling.points import read_points
from lmsi_jax.scaling.records import NAMES, fit_record
from tests.scaling.simulated import points


def rows_of(law, n, **changes):
    some = points(law, n, noise=0.003)
    return [{name: float(values[i]) for name, values in some.columns.items()} | changes for i in range(n)]


def lmsi(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["lmsi", "scaling", "fit", *map(str, arguments)])
    return ended.value.code


def test_a_fit_is_a_record(tmp_path, capsys):
    """Catches: constants without intervals, accounts that are not named, a file that is overwritten."""
    write_jsonl(tmp_path / "points.jsonl", rows_of("chinchilla_parametric", 60))
    flags = ("--law=chinchilla_parametric", f"--input={tmp_path}/points.jsonl", f"--output={tmp_path}/fit.json")
    assert lmsi(*flags, "--bootstrap=20") == 0
    (record,) = read_jsonl(tmp_path / "fit.json")
    assert record["params"] == "total" and record["compute"] == "flops of the rows" and record["points"] == 60
    for name in ("E", "A", "B", "alpha", "beta"):
        assert record["constants"][name]["low"] <= record["constants"][name]["value"] <= record["constants"][name]["high"]
    assert record["exponents"]["a"]["value"] == pytest.approx(0.513, abs=0.05) and record["extrapolation"]["points"] == 1
    assert record["published"]["hoffmann_2022"] > record["objective"]
    assert "alpha" in capsys.readouterr().out
    assert lmsi(*flags, "--overwrite", "--bootstrap=0") == 0
    (record,) = read_jsonl(tmp_path / "fit.json")
    assert "low" not in record["constants"]["E"] and record["extrapolation"]["covered"] is None
    assert lmsi(*flags) == 2 and "exists; nothing was overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("law", ["chinchilla_isoflop", "chinchilla_envelope", "coverage", "vote"])
def test_every_other_law_has_its_command(law, tmp_path, capsys):
    """Catches: a law that is listed and cannot be fitted, an interval without a bootstrap."""
    if law == "chinchilla_isoflop":
        exact = lambda n, d: 1.8 + 482 / n**0.35 + 2085 / d**0.37  # noqa: E731
        rows = [((c / 120) ** 0.5 * 2.0**i, (c / 120) ** 0.5 * 20 / 2.0**i) for c in (1e19, 1e20, 1e21) for i in range(-3, 4)]
        rows = [{"params": n, "tokens": d, "loss": exact(n, d)} for n, d in rows]
    elif law == "chinchilla_envelope":
        exact = lambda n, d: 1.8 + 482 / n**0.35 + 2085 / d**0.37  # noqa: E731
        rows = [
            {"params": 1e7 * 2**i, "tokens": 1e8 * 2**j, "loss": exact(1e7 * 2**i, 1e8 * 2**j), "run": f"run {i}"}
            for i in range(8) for j in range(14)
        ]  # fmt: skip
    elif law == "coverage":
        rows = [{"samples": 8, "correct": i % 9} for i in range(40)]
    else:
        rows = [{"answers": ["1", "2", "1", None], "right": [i % 3 > 0, False, i % 3 > 0, False]} for i in range(20)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert lmsi(f"--law={law}", f"--input={tmp_path}/rows.jsonl", f"--output={tmp_path}/fit.json", "--bootstrap=10") == 0
    (record,) = read_jsonl(tmp_path / "fit.json")
    assert record["law"] == law and record["constants"], capsys.readouterr().err
    assert '"low"' in json.dumps(record)
    again = (f"--law={law}", f"--input={tmp_path}/rows.jsonl", f"--output={tmp_path}/plain.json", "--bootstrap=0")
    assert lmsi(*again) == 0 and '"low"' not in (tmp_path / "plain.json").read_text()
    assert lmsi(f"--law={law}", f"--input={tmp_path}/rows.jsonl", f"--output={tmp_path}/x.json", "--above=1e20") == 2
    assert "--above would change nothing" in capsys.readouterr().err


def test_parameters_are_counted_as_named(tmp_path, capsys):
    """Catches: fits of two accounts that are mixed or confused."""
    rows = [row | {"embedding_params": 1e7} for row in rows_of("kaplan_params", 30)]
    write_jsonl(tmp_path / "points.jsonl", rows)
    total = read_points(tmp_path / "points.jsonl", ("params",))
    own = read_points(tmp_path / "points.jsonl", ("params",), "non_embedding")
    assert (total.columns["params"] - own.columns["params"] == 1e7).all() and own.count == "non_embedding"
    write_jsonl(tmp_path / "points.jsonl", [rows[0], rows[1] | {"embedding_params": 1e30}])
    with pytest.raises(UserError, match="line 2: embedding_params is not less than params"):
        read_points(tmp_path / "points.jsonl", ("params",), "non_embedding")
    assert lmsi("--law=kaplan_params", "--input=x", "--output=y", "--count=all") == 2
    assert "--count=all is neither of total and non_embedding" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"loss": -1.0}, "line 3: loss is -1.0, and must be a number from"),
        ({"tokens": None}, "line 3: tokens is None"),
        ({"params": "1B"}, "line 3: params is '1B'"),
        ({"loss": float("nan")}, "line 3: loss is None"),
        ("loss", "line 3: there is no field 'loss'; the fields are params, tokens"),
    ],
)
def test_bad_rows_are_named_by_line(change, told, tmp_path, capsys):
    """Catches: a traceback, or a fit to rows that are not what they say."""
    rows = rows_of("chinchilla_parametric", 20)
    rows[2] = {key: value for key, value in rows[2].items() if key != change} if isinstance(change, str) else rows[2] | change
    write_jsonl(tmp_path / "points.jsonl", rows)
    assert lmsi("--law=chinchilla_parametric", f"--input={tmp_path}/points.jsonl", f"--output={tmp_path}/fit.json") == 2
    assert told in capsys.readouterr().err and not (tmp_path / "fit.json").exists()


def test_names_are_checked(tmp_path, capsys):
    """Catches: a wrong name that is told as a missing file; a command of two words that is not found; a law not in the help."""
    assert LAW_NAMES == NAMES
    write_jsonl(tmp_path / "points.jsonl", rows_of("chinchilla_parametric", 20))
    assert lmsi("--law=chinchila", f"--input={tmp_path}/points.jsonl", f"--output={tmp_path}/fit.json") == 2
    assert "There is no law 'chinchila'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["lmsi", "scaling", "fits"])
    assert "There is no command 'scaling'; the nearest is 'scaling run'" in capsys.readouterr().err


EXTREME = st.sampled_from([1e300, 1e-300, 10**30, -1, 0, 1e40, 1e-20])
VALUES = EXTREME | st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
FIELDS = st.sampled_from(["params", "tokens", "loss", "flops", "run", "samples", "correct", "answers", "right", "valid"])
CHANGES = st.lists(st.tuples(st.integers(0, 11), FIELDS, VALUES), max_size=3)


@settings(max_examples=15, deadline=None)
@given(CHANGES, st.sampled_from(sorted(set(NAMES) - {"data_constrained"})), st.sampled_from([0, 3]), st.booleans())
def test_any_json_is_a_fit_or_one_paragraph(changes, law, draws, one_run):
    """Catches: a traceback for a file that somebody else wrote."""
    answers = {"answers": ["1", "2", "1", None], "right": [True, False, True, False]}
    rows = [row | answers | ({"run": "a"} if one_run else {}) for row in rows_of("chinchilla_parametric", 12)]
    for i, field, value in changes:
        rows[i][field] = value
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            assert fit_record(law, f"{folder}/rows.jsonl", "total", draws)["law"] == law
        except UserError as error:
            assert str(error)
