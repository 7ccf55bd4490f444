"""What the report shows of scaling runs: their losses, the compute-optimal sizes by three approaches, and a forecast."""

from collections import defaultdict
from collections.abc import Sequence

from rich.table import Table

from lmsi_jax.analysis import plots
from lmsi_jax.analysis.figures import Figure
from lmsi_jax.analysis.plots import Series
from lmsi_jax.analysis.summary import grid
from lmsi_jax.core.records import Record, read_jsonl
from lmsi_jax.pipeline.run_folder import RunFolder

APPROACHES = {
    "chinchilla_envelope": "1, least loss over curves",
    "chinchilla_isoflop": "2, parabolas at equal compute",
    "chinchilla_parametric": "3, law of parameters and tokens",
}


def scaling_figures(folder: RunFolder) -> list[Figure]:
    """Return the figures of scaling runs, or none for another run."""
    if not folder.scaling("fits").exists():
        return []
    points, curves, rates, fits = (list(read_jsonl(folder.scaling(name))) for name in ("points", "curves", "rates", "fits"))
    drawn = [_curves(curves), _budgets(points), _approaches(fits)]
    return drawn + ([_rates(rates)] if rates else [])


def forecast(fits: Sequence[Record]) -> str:
    """Return how well the smaller runs predict those of the largest budget, as a sentence."""
    record = next(fit for fit in fits if fit["law"] == "chinchilla_parametric")
    ahead = record.get("extrapolation", {})
    if "mean" not in ahead:
        return f"The largest runs are not predicted from the others: {ahead.get('error') or record['error']}"
    covered = "" if ahead["covered"] is None else f", and {ahead['covered']:.0%} of them lie in their 90% interval"
    return (
        f"The law of parameters and tokens, fitted to the runs of up to {ahead['above']:.2g} operations, predicts the loss of "
        f"the {ahead['points']} larger ones with an error of {ahead['mean']:.1%} on average and {ahead['largest']:.1%} at "
        f"most{covered}."
    )


def scaling_verdict(folder: RunFolder) -> str:
    """Return the result of scaling runs in a sentence, or "" for another run."""
    file = folder.scaling("fits")
    return forecast(list(read_jsonl(file))) if file.exists() else ""


def scaling_table(folder: RunFolder) -> Table:
    """Return the table of the three approaches for a terminal."""
    fits = list(read_jsonl(folder.scaling("fits")))
    reasons = [f"Approach {APPROACHES[fit['law']][0]}: {fit['error']}" for fit in fits if "error" in fit]
    table = grid("Parameters grow as C^a, tokens as C^b", ("approach",), ("a", "b"), "\n".join([*reasons, forecast(fits)]))
    for fit in fits:
        table.add_row(APPROACHES[fit["law"]], *_exponents(fit))
    return table


def _exponents(fit: Record) -> tuple[str, str]:
    """Return the exponents a and b of a fit with their intervals."""
    a, b = (_interval(fit["exponents"][name]) if "exponents" in fit else "not fitted" for name in "ab")
    return a, b


def _interval(value: Record) -> str:
    return f"{value['value']:.3f}" + (f" ({value['low']:.2f} to {value['high']:.2f})" if "low" in value else "")


def _by(rows: Sequence[Record], *names: str) -> dict[tuple[float, ...], list[Record]]:
    found: dict[tuple[float, ...], list[Record]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return dict(sorted(found.items()))


def _size(params: float) -> str:
    return f"{params / 1e6:.2f}M" if params < 1e7 else f"{params / 1e6:,.0f}M"


def _curves(rows: Sequence[Record]) -> Figure:
    sizes = list(_by(rows, "params"))
    lines = [
        (Series(sizes.index((params,)) + 1, _size(params)), [(row["flops"], row["loss"]) for row in of_run])
        for (params, _), of_run in _by(rows, "params", "budget").items()
    ]
    last = [of_run[-1] for of_run in _by(rows, "params", "budget").values()]
    table = [(r["run"], _size(r["params"]), f"{r['tokens']:,}", f"{r['flops']:.3g}", f"{r['loss']:.4f}") for r in last]
    return Figure(
        "Loss by compute",
        plots.loss_by(lines, "floating-point operations"),
        "Held-out loss during each run, with a colour for each number of parameters. The learning rate of a run decays to its "
        "end, so that its last loss is the one to compare.",
        ("run", "parameters", "tokens", "operations", "last loss"),
        tuple(table),
    )


def _budgets(rows: Sequence[Record]) -> Figure:
    lines = [
        (Series(place, f"{budget:.2g}"), [(row["params"], row["loss"]) for row in sorted(of_budget, key=lambda r: r["params"])])
        for place, ((budget,), of_budget) in enumerate(_by(rows, "budget").items(), start=1)
    ]
    return Figure(
        "Loss at equal compute",
        plots.loss_by(lines, "parameters"),
        "Last held-out loss of each run by its number of parameters, with a line for each budget in floating-point operations.",
    )


def _approaches(fits: Sequence[Record]) -> Figure:
    lines = [
        (Series(place, APPROACHES[fit["law"]].partition(",")[0]), [(row["flops"], row["params"]) for row in fit["optima"]])
        for place, fit in enumerate(fits, start=1)
        if "optima" in fit
    ]
    table = [(APPROACHES[fit["law"]], *_exponents(fit), " ".join(fit.get("warnings", [fit.get("error", "")]))) for fit in fits]
    return Figure(
        "Compute-optimal parameters",
        plots.optimal_params(lines),
        f"The best number of parameters by budget, as approaches 1 and 2 of Hoffmann et al. 2022 read it from the losses. "
        f"Parameters grow as C^a and tokens as C^b. {forecast(fits)}",
        ("approach", "a", "b", "warnings"),
        tuple(table),
    )


def _rates(rows: Sequence[Record]) -> Figure:
    sizes = _by(rows, "params")
    lines = [
        (Series(place, _size(params)), [(row["rate_factor"], row["loss"]) for row in of_size])
        for place, ((params,), of_size) in enumerate(sizes.items(), start=1)
    ]
    factors = sorted({row["rate_factor"] for row in rows})
    table = [
        (_size(params), *(f"{loss:.4f}" if (loss := losses.get(factor)) is not None else "" for factor in factors))
        for (params,), of_size in sizes.items()
        for losses in [{row["rate_factor"]: row["loss"] for row in of_size}]
    ]
    off = [_size(params) for (params,), of_size in sizes.items() if min(of_size, key=lambda r: r["loss"])["rate_factor"] != 1]
    told = f" Another multiple is better for {', '.join(off)}." if off else " The rule's own rate is the best for every size."
    return Figure(
        "Learning rates",
        plots.loss_by(lines, "multiple of the rule's learning rate"),
        f"Last held-out loss of the shortest run of each size with multiples of its learning rate.{told}",
        ("parameters", *(f"{factor:g} x" for factor in factors)),
        tuple(table),
    )
