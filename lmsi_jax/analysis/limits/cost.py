"""What a run cost, by stage, and for each point of accuracy that it gained."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmsi_jax.analysis.limits.limit import Limit
from lmsi_jax.analysis.rounds import NOTHING
from lmsi_jax.analysis.summary import Score
from lmsi_jax.core.records import Record

# The stages of the method, without evaluation.
METHOD = (
    "prepare",
    "propose",
    "exemplars",
    "sample",
    "steps",
    "vote",
    "agreement",
    "format",
    "mix",
    "finetune",
    "rl",
)
GAINED = {"cot": "greedy CoT", "self_consistency": "self-consistency", "standard": "standard prompting"}  # the first scored one


def cost(manifests: Sequence[Record], rows: Sequence[Score], config: Mapping[str, Any]) -> Limit | None:
    """Return tokens, operations, device hours and, where the config has watts and a price, energy and money of each stage.

    `manifests` are those of the finished stages, in order. A stage that was taken from the store, or that another program ran,
    has no work here. The cost of a point is that of the method, without evaluation.
    """
    spent = [manifest for manifest in manifests if "work" in manifest and not manifest.get("reused")]
    if not spent:
        return None
    plan = config.get("plan", {})
    watts, price = float(plan.get("watts", 0.0)), float(plan.get("price", 0.0))
    method = [manifest for manifest in spent if manifest["stage"].rpartition("/")[2] in METHOD]
    table = [_cells(manifest["stage"], [manifest], watts, price) for manifest in spent if manifest["devices"]]
    table += [_cells("method", method, watts, price), _cells("all stages", spent, watts, price)]
    head = ["stage", "tokens", "operations", "device hours"]
    head += ["kWh"] * bool(watts) + ["dollars"] * bool(price)
    gain = _gain(rows)
    sentence = (
        f"The method took {_words(method, watts, price)}; all stages, with the evaluation, took {_words(spent, watts, price)}."
    )
    if gain is not None and gain[1] > 0:
        name, points = gain
        sentence += (
            f" For each of the {points:.1f} points that {name} gained, the method used {_hours(method) / points:.2g} device "
            f"hours and {_total(method, 'operations') / points:.1e} operations."
        )
    reused = sum(bool(manifest.get("reused")) for manifest in manifests)
    if reused:
        sentence += f" {reused} stages were taken from the store and are not counted."
    if not (watts and price):
        sentence += " --config.plan.watts and --config.plan.price, per device, add energy and money."
    return Limit("Cost", sentence, tuple(head), tuple(table))


def _gain(rows: Sequence[Score]) -> tuple[str, float] | None:
    """Return the prompting whose gain is reported, and the gain of the last model in points."""
    for prompting, name in GAINED.items():
        gains = [row.gain for row in rows if row.prompting == prompting and row.gain is not None]
        if gains:
            return name, 100 * gains[-1]
    return None


def _total(manifests: Sequence[Record], name: str) -> float:
    return sum(float(manifest["work"].get(name, 0.0)) for manifest in manifests)


def _hours(manifests: Sequence[Record]) -> float:
    """Return device hours: the seconds of stages on the mesh, times its devices."""
    return sum(manifest["seconds"] * manifest["devices"] for manifest in manifests) / 3600


def _cells(name: str, manifests: Sequence[Record], watts: float, price: float) -> tuple[str, ...]:
    tokens, operations, hours = _total(manifests, "tokens"), _total(manifests, "operations"), _hours(manifests)
    cells = [name, f"{tokens:,.0f}" if tokens else NOTHING, f"{operations:.2e}" if operations else NOTHING, f"{hours:.3g}"]
    return (*cells, *([f"{hours * watts / 1000:.3g}"] if watts else []), *([f"{hours * price:,.2f}"] if price else []))


def _words(manifests: Sequence[Record], watts: float, price: float) -> str:
    tokens, operations, hours = _total(manifests, "tokens"), _total(manifests, "operations"), _hours(manifests)
    parts = [f"{tokens:,.0f} tokens", f"{operations:.1e} operations", f"{hours:.2g} device hours"]
    parts += [f"{hours * watts / 1000:.2g} kWh"] if watts else []
    parts += [f"{hours * price:,.2f} dollars"] if price else []
    return ", ".join(parts[:-1]) + " and " + parts[-1]
