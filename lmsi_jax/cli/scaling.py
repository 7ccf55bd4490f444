"""The commands for scaling laws."""

import json
import math
from typing import Any, cast

from absl import flags
from etils import epath

from lmsi_jax.cli.files import check_new
from lmsi_jax.core.errors import UserError
from lmsi_jax.core.progress import console
from lmsi_jax.core.records import Record, write_jsonl
from lmsi_jax.scaling.plan import Hardware, read_fit
from lmsi_jax.scaling.plan import plan as make_plan
from lmsi_jax.scaling.points import COUNTS, Count
from lmsi_jax.scaling.records import FRONTIERS, SAMPLES, fit_record

DRAWS = 1000  # resampled data sets for intervals


def fit(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    count = values.count or "total"
    if count not in COUNTS:
        raise UserError(f"--count={count} is neither of {' and '.join(COUNTS)}.")
    count = cast(Count, count)
    draws = DRAWS if values.bootstrap is None else values.bootstrap
    if draws < 0:
        raise UserError(f"--bootstrap={draws} must be 0, for no intervals, or more.")
    output = epath.Path(values.output)
    check_new([output], values)
    if values.above is not None and values.law in (*FRONTIERS, *SAMPLES):
        raise UserError(f"{values.law} predicts no larger runs, so --above would change nothing; leave it out.")
    record = fit_record(values.law, values.input, count, draws, values.above)
    write_jsonl(output, [record])
    _print(record)
    console.print(f"wrote {output}", soft_wrap=True)


def plan(config: Any, values: flags.FlagValues, argv: list[str]) -> None:
    hardware = _hardware(values)
    if (values.budget is None) == (values.hours is None):
        raise UserError("lmsi scaling plan needs either --budget=FLOPS, or --hours with --topology.")
    flops = values.budget
    if values.hours is not None:
        if hardware is None:
            raise UserError(f"--hours={values.hours:g} is a budget only of a --topology, such as v5p:8x8x8.")
        flops = values.hours * hardware.per_hour
    unique = math.inf if values.unique_tokens is None else values.unique_tokens
    inference = values.inference_tokens or 0.0
    if not (0 < flops < math.inf and unique > 0 and 0 <= inference < math.inf):
        raise UserError("--budget, --hours and --unique_tokens must be above 0, and --inference_tokens at least 0.")
    console.print_json(json.dumps(make_plan(read_fit(values.fit), flops, unique, inference, hardware)))


def _hardware(values: flags.FlagValues) -> Hardware | None:
    names = {"mfu": "utilisation", "price": "price", "watts": "watts", "pue": "pue", "kg_per_kwh": "kg_per_kwh"}
    given: dict[str, Any] = {flag: values[flag].value for flag in names if values[flag].value is not None}
    if values.topology is None:
        if given:
            raise UserError(f"--{next(iter(given))} is of chips, and there is no --topology; add one, such as v5p:8x8x8.")
        return None
    from lmsi_jax.core.machine import CHIPS, parse_topology  # imports JAX

    chip, count = parse_topology(values.topology)
    for flag, value in given.items():
        least, most = 1.0 if flag == "pue" else 0.0, 1.0 if flag == "mfu" else math.inf
        if not (least <= value <= most and 0 < value < math.inf):
            bounds = {"pue": "at least 1", "mfu": "above 0 and at most 1"}.get(flag, "above 0")
            raise UserError(f"--{flag}={value:g} must be {bounds}.")
    return Hardware(count, CHIPS[chip].operations, **{names[flag]: value for flag, value in given.items()})


def _print(record: Record) -> None:
    """Print a fit for people; the record has all of it."""
    counted = ", ".join(f"{name}: {record[name]}" for name in ("params", "compute") if name in record)
    console.print(f"{record['law']}: {record['formula']}; {record['points']} points" + (f" ({counted})" if counted else ""))
    for name, value in {**record["constants"], **record.get("exponents", {})}.items():
        bounds = f" ({value['low']:.4g} to {value['high']:.4g})" if "low" in value else ""
        console.print(f"  {name:12} {value['value']:.6g}{bounds}")
    if "objective" in record:
        console.print(
            f"  objective {record['objective']:.7e}, gradient norm {record['gradient_norm']:.1e}; mean error of the loss "
            f"{record['mean_error']:.2%}, largest {record['largest_error']:.2%}"
        )
    for name, value in record.get("published", {}).items():
        console.print(f"  objective of {name}: {value:.7e}, {value / record['objective']:.3g} times that of this fit")
    if "mean" in record.get("extrapolation", {}):
        ahead = record["extrapolation"]
        covered = "" if ahead["covered"] is None else f", {ahead['covered']:.0%} in their 90% interval"
        console.print(
            f"  {ahead['points']} points above {ahead['above']:.3g} operations, predicted from the others: mean error "
            f"{ahead['mean']:.2%}, largest {ahead['largest']:.2%}{covered}"
        )
    if error := record.get("extrapolation", {}).get("error"):
        console.print(f"  no prediction of larger runs: {error}")
    for rule, by_paths in {"coverage": record.get("coverage", {}), **record.get("accuracy", {})}.items():
        for paths, value in by_paths.items():
            bounds = f" ({value['low']:.1%} to {value['high']:.1%})" if "low" in value else ""
            console.print(f"  {rule} of {paths} paths: {value['value']:.1%}{bounds}")
    for warning in record["warnings"]:
        console.print(f"  warning: {warning}")
    if "without_outliers" in record:
        rest = record["without_outliers"]
        console.print(f"without {', '.join(rest['left_out'])}:" + (f" {rest['error']}" if "error" in rest else ""))
        if "error" not in rest:
            _print(rest)
