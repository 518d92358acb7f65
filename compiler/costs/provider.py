"""Who says what ops cost on a place: the interface of cost providers, and the analytic one.

A provider answers for all ops that a target takes on a device at once, so that one that measures can time them
together. `--cost-provider DEVICE=NAME` chooses it; without, costs are *analytic*: the target's own model, the same on
every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Cost, Device, Target
from gimlet.targets.forms import op_costs

ANALYTIC: Final = "analytic"
MEASURED: Final = "measured"
TABLE: Final = "table"
PROVIDERS: Final = (ANALYTIC, MEASURED, TABLE)


@dataclass(frozen=True)
class SiteCosts:
    """The costs of units on one place, by their number in the graph, and what has to be said about them.

    `scale` is what the model's seconds of a unit were multiplied by, 1 where it is not listed: what fusion saves there
    is multiplied by the same.
    """

    costs: Mapping[int, Cost]
    scale: Mapping[int, float] = field(default_factory=dict[int, float])
    notes: tuple[str, ...] = ()


class CostProvider(ABC):
    """Says what units cost. One instance serves one placement."""

    name: ClassVar[str]

    @abstractmethod
    def costs(self, graph: ModuleGraph, taken: Sequence[int], target: Target, device: Device, fmt: str) -> SiteCosts:
        """The costs of the units numbered `taken`, which the target takes on `device` in `fmt`; launches not included.

        MissingError or UsageError where this provider cannot answer for the device at all. Where it cannot for single
        units, the model's costs stand in, and a note says how many and why.
        """


class AnalyticCosts(CostProvider):
    """The target's own model."""

    name = ANALYTIC

    def costs(self, graph: ModuleGraph, taken: Sequence[int], target: Target, device: Device, fmt: str) -> SiteCosts:
        return SiteCosts(model_costs(graph, taken, target, device, fmt))


def model_costs(graph: ModuleGraph, taken: Sequence[int], target: Target, device: Device, fmt: str) -> dict[int, Cost]:
    """The model's costs of the units numbered `taken`, of the ops of each one after the other."""
    ops = [op for number in taken for op in graph.units[number].ops]
    costs = iter(op_costs(target, ops, device, fmt, graph.sizes))
    return {number: added([next(costs) for _ in graph.units[number].ops]) for number in taken}


def added(costs: Sequence[Cost]) -> Cost:
    """Costs one after the other: seconds, joules and weights add up, of activations the largest counts."""
    if len(costs) == 1:
        return costs[0]
    joules = [cost.joules for cost in costs]
    known = [j for j in joules if j is not None]
    return Cost(
        sum(cost.seconds for cost in costs),
        sum(known) if len(known) == len(joules) else None,
        sum(cost.weight_bytes for cost in costs),
        max((cost.activation_bytes for cost in costs), default=0),
    )


def parse_providers(pairs: Sequence[tuple[str, str]], devices: Sequence[str]) -> dict[str, str]:
    """Which provider each device has been given. UsageError for a device or a provider that does not exist."""
    chosen: dict[str, str] = {}
    for device, name in pairs:
        if device not in devices:
            raise UsageError(
                f"there is no device {device!r}", where="--cost-provider", hint=f"the devices are: {', '.join(devices)}"
            )
        if name not in PROVIDERS:
            raise UsageError(
                f"there is no cost provider {name!r}", where="--cost-provider", hint=f"known: {', '.join(PROVIDERS)}"
            )
        chosen[device] = name
    return chosen
