"""Placement's time for weights beyond SRAM against the whole segment's: python benchmarks/streamed_weights.py

Chains of products 8,192 wide in bf16 on one Corsair, 134 MB each: of `rows` rows, so many that SRAM holds all weights,
or down to an eighth of them. The ratio is placement's time over the cycle model's, launch included.
"""

from __future__ import annotations

from sram_bounds import chain

from gimlet.compiler.hardware import load_kind
from gimlet.compiler.placement.model.problem import Placement
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.reading.build import build_problem, sites_of
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.importer import import_model
from gimlet.targets.api import Device, Topology
from gimlet.targets.sram.target import SramTarget

WIDTH = 8192
ROWS = (1, 16, 64, 256, 1024, 4096)
COUNTS = (12, 20, 32, 64)


def main() -> None:
    target, device = SramTarget(), Device("sram0", load_kind("d-matrix/corsair"))
    topology = Topology("one", (device,), (), "sram0")
    print(f"{'rows':>5}{'products':>10}{'streamed':>11}{'placement':>12}{'program':>12}{'ratio':>7}")
    for rows in ROWS:
        for count in COUNTS:
            graph = read_graph(import_model(chain(rows, (WIDTH,) * (count + 1)), GimletContext()), {})
            problem = build_problem(graph, topology, sites_of(topology, {"sram0": [target]}, {"sram0": ["bf16"]}))
            schedule = simulate(problem, Placement((0,) * count, (0,) * count))
            program = target.estimate([op for unit in graph.units for op in unit.ops], device, "bf16", {})
            streamed = sum(schedule.streamed.size_bytes.values())
            print(
                f"{rows:>5}{count:>10}{streamed / 1e9:>8.2f} GB{schedule.latency_s * 1e3:>9.3f} ms"
                f"{program.seconds * 1e3:>9.3f} ms{schedule.latency_s / program.seconds:>7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
