"""Energy and carbon of computation (Patterson et al. 2021, arXiv 2104.10350). Each unit is a type of its own."""

from typing import NewType

KilowattHours = NewType("KilowattHours", float)
Tonnes = NewType("Tonnes", float)


def energy(hours: float, chips: int, watts: float, pue: float) -> KilowattHours:
    """Return what `chips` use in `hours` at an average of `watts` each, with the overhead of the data centre (PUE)."""
    return KilowattHours(hours * chips * watts * pue / 1000)


def carbon(used: KilowattHours, kg_per_kwh: float) -> Tonnes:
    """Return the carbon dioxide of a quantity of energy, in tonnes."""
    return Tonnes(used * kg_per_kwh / 1000)
