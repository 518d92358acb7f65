"""What no split's largest load is below, at once: from work alone.

Let `T` be the largest load of a split, of `k` accelerators and `c` CPUs. All that accelerators do takes `k T` at most,
all that CPUs do `c T`. So for each weight `w` from 0 to 1, where unit `u` takes `a[u]` on an accelerator (infinite
where none takes it) and `b[u]` on a CPU,

    (w k + (1 - w) c) T  >=  w (a of what is on accelerators) + (1 - w) (b of what is on CPUs)
                         >=  sum over units of min(w a[u], (1 - w) b[u]),

and each unit is on one device: `T` is at least the largest of min(a[u], b[u]).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.public.public_format import PublicProblem
from gimlet.compiler.placement.public.public_start import Units

Floats = NDArray[np.float64]

# Weights that are tried lie between the ratios of the two devices' times, where the bound has its corners.
_MOST_WEIGHTS = 400
# Sums of some thousand figures in another order differ by less.
_ROUNDING = 1e-9


def unit_times(problem: PublicProblem, units: Units) -> tuple[Floats, Floats]:
    """What each unit takes on an accelerator and on a CPU; infinite where it fits none or there is none."""
    nodes = [[problem.nodes[node] for node in members] for members in units.members]
    takes = [
        problem.accelerators > 0
        and all(node.on_accelerator for node in members)
        and sum(node.size for node in members) <= problem.capacity * (1 + _ROUNDING)
        for members in nodes
    ]
    on_accelerator = np.array([sum(node.accelerator for node in members) for members in nodes])
    on_cpu = np.array([sum(node.cpu for node in members) if problem.cpus else np.inf for members in nodes])
    return np.where(takes, on_accelerator, np.inf), on_cpu


def work_bound(problem: PublicProblem, units: Units) -> float:
    """A lower bound for the largest load of any split; infinite where a unit fits no device."""
    if not units.members:
        return 0.0
    on_accelerator, on_cpu = unit_times(problem, units)
    largest = float(np.minimum(on_accelerator, on_cpu).max())
    if not np.isfinite(largest):
        return float("inf")
    both = np.isfinite(on_accelerator) & np.isfinite(on_cpu) & (on_accelerator + on_cpu > 0)
    corners = np.unique(on_cpu[both] / (on_accelerator[both] + on_cpu[both]))
    chosen = corners[np.linspace(0, len(corners) - 1, min(len(corners), _MOST_WEIGHTS)).astype(int)]
    found = [_weighted(problem, on_accelerator, on_cpu, float(weight)) for weight in (0.5, *chosen)]
    return max(largest, *found) * (1 - _ROUNDING)


def _weighted(problem: PublicProblem, on_accelerator: Floats, on_cpu: Floats, weight: float) -> float:
    if not 0 < weight < 1:
        return 0.0
    least = np.minimum(weight * on_accelerator, (1 - weight) * on_cpu).sum()
    return float(least) / (weight * problem.accelerators + (1 - weight) * problem.cpus)
