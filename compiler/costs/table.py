"""Costs from published measurements of a device that is not here, as far as they go; the rest by the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gimlet.compiler.costs.provider import TABLE, CostProvider, SiteCosts, added
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.errors import UsageError
from gimlet.targets.api import Cost, Device, Target


class TableCosts(CostProvider):
    """What a target finds in tables of measured kernels (`Target.table_cost`)."""

    name = TABLE

    def costs(self, graph: ModuleGraph, taken: Sequence[int], target: Target, device: Device, fmt: str) -> SiteCosts:
        if not target.has_tables(device):
            raise UsageError(
                "there are no tables of measured kernels for it",
                where=f"device {device.name} ({device.kind.name}) under {target.name}",
                hint=f"leave it out: --cost-provider {device.name}=analytic is the default",
            )
        found: dict[int, Cost] = {}
        measured, modelled = 0, Counter[str]()
        for number in taken:
            costs: list[Cost] = []
            for op in graph.units[number].ops:
                cost = target.table_cost(op, device, fmt, graph.sizes)
                if cost is None:
                    cost = target.op_cost(op, device, fmt, graph.sizes)
                    modelled[op.op_type if isinstance(op, OnnxOp) else op.name] += bool(cost.seconds)
                else:
                    measured += 1
                costs.append(cost)
            found[number] = added(costs)
        rest = ", ".join(f"{name} {count}" for name, count in modelled.most_common() if count)
        note = f"{device.name}: {measured} ops' costs from tables"
        return SiteCosts(found, notes=(f"{note}, the rest by the model: {rest}" if rest else note,))
