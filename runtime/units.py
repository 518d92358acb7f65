"""Figures for people: one spelling of times, sizes and energies for every command, table and report.

Four digits at most, in the unit that leaves the fewest zeros. Sizes are in powers of ten, as bandwidths are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_TIMES: Final = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
_ENERGIES: Final = (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9))
_SIZES: Final = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def seconds_text(seconds: float) -> str:
    """A time: `1.25 ms`."""
    return _scaled(seconds, _TIMES)


def joules_text(joules: float) -> str:
    """An energy: `37.5 µJ`."""
    return _scaled(joules, _ENERGIES)


def bytes_text(size: float | None) -> str:
    """A size: `1.5 MB`. None is without a limit."""
    if size is None:
        return "∞"
    whole = round(size)
    return f"{whole} B" if abs(whole) < 1000 else _scaled(whole, _SIZES)


def amount_text(value: float, unit: str) -> str:
    """An amount of an objective, whose unit is `s`, `J` or `USD`."""
    if unit == "s":
        return seconds_text(value)
    return joules_text(value) if unit == "J" else f"{value:.4g} {unit}"


def _scaled(value: float, units: Sequence[tuple[str, float]]) -> str:
    """`value` in the largest unit that it has at least one of, else in the smallest; nought in the first."""
    rounded = float(f"{value:.4g}")
    if not rounded:
        return f"0 {units[0][0]}"
    name, scale = next(((name, scale) for name, scale in units if abs(rounded) >= scale), units[-1])
    return f"{float(f'{value / scale:.4g}'):.10g} {name}"
