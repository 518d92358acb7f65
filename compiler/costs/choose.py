"""Makes the cost providers that a compile was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.costs.measured import MeasuredCosts
from gimlet.compiler.costs.provider import ANALYTIC, MEASURED, TABLE, AnalyticCosts, CostProvider
from gimlet.compiler.costs.table import TableCosts
from gimlet.compiler.costs.timer import SegmentTimer
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.dialects.context import GimletContext
from gimlet.targets.api import DimBound


def make_providers(
    chosen: Mapping[str, str],
    module: ModuleOp,
    ctx: GimletContext,
    bounds: Mapping[str, DimBound],
    graph: ModuleGraph,
    cache: Path,
    *,
    in_pieces: bool = True,
) -> dict[str, CostProvider]:
    """A provider for each device of `chosen`, by the names of `parse_providers`. Those that measure share a timer.

    `in_pieces` false says that nothing will be cut.
    """
    timer = SegmentTimer(module, ctx, bounds, graph.sizes, cache)
    measured = MeasuredCosts(timer, in_pieces=in_pieces)
    known: dict[str, CostProvider] = {MEASURED: measured, TABLE: TableCosts(), ANALYTIC: AnalyticCosts()}
    return {device: known[name] for device, name in chosen.items()}
