"""What the SRAM accelerator says of its two levels of memory, beside the programs that it makes."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.hardware import load_kind
from gimlet.compiler.placement.model.problem import Placement, Problem
from gimlet.compiler.placement.model.schedule import simulate
from gimlet.compiler.placement.reading.build import build_problem, sites_of
from gimlet.compiler.placement.reading.graph import ModuleGraph, read_graph
from gimlet.compiler.placement.service import PlacementOptions, PlacementService
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.importer import import_model
from gimlet.targets.api import Device, Topology
from gimlet.targets.sram.target import SramTarget

SRAM, CORSAIR = SramTarget(), load_kind("d-matrix/corsair")


@pytest.fixture
def ctx() -> GimletContext:
    return GimletContext()


def rack() -> Topology:
    return Topology("one", (Device("sram0", CORSAIR),), (), "sram0")


def weight(name: str, *shape: int) -> ir.Value:
    """A weight of which only the shape is known until its values are asked for."""
    tensor = ir.LazyTensor(lambda: ir.tensor(np.zeros(shape, np.float32)), ir.DataType.FLOAT, ir.Shape(shape))
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)


def imported(ctx: GimletContext, given: ir.Value, nodes: list[ir.Node], weights: list[ir.Value]) -> ModuleOp:
    graph = ir.Graph([given], list(nodes[-1].outputs), nodes=nodes, initializers=weights, opset_imports={"": 17})
    return import_model(ir.Model(graph, ir_version=10), ctx)


def chain(ctx: GimletContext, rows: int, count: int, width: int = 8192) -> ModuleOp:
    """`count` products, each with 134 MB of weights in bf16 where it is 8192 wide."""
    x = value = ir.Value(name="x", shape=ir.Shape((rows, width)), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, weights = list[ir.Node](), [weight(f"w{number}", width, width) for number in range(count)]
    for number in range(count):
        nodes.append(ir.Node("", "MatMul", [value, weights[number]], num_outputs=1))
        value = nodes[-1].outputs[0]
        value.name, value.shape, value.type = f"y{number}", x.shape, x.type
    return imported(ctx, x, nodes, weights)


def problem_of(graph: ModuleGraph, fmt: str = "bf16") -> Problem:
    topology = rack()
    return build_problem(graph, topology, sites_of(topology, {"sram0": [SRAM]}, {"sram0": [fmt]}))


@pytest.mark.parametrize(("rows", "count"), [(1, 12), (1, 20), (16, 40)])
def test_placement_says_what_the_program_takes(ctx: GimletContext, rows: int, count: int):
    graph = read_graph(chain(ctx, rows, count), {})
    schedule = simulate(problem_of(graph), Placement((0,) * count, (0,) * count))
    ops = [op for unit in graph.units for op in unit.ops]
    program = SRAM.estimate(ops, Device("sram0", CORSAIR), "bf16", {})
    assert bool(schedule.streamed.size_bytes) == (count > 12)
    assert schedule.latency_s == pytest.approx(program.seconds, rel=0.01)


def test_what_computes_longer_than_it_reads_streams_for_nothing(ctx: GimletContext):
    problem = problem_of(read_graph(chain(ctx, 4096, 20), {}), "fp32")
    schedule = simulate(problem, Placement((0,) * 20, (0,) * 20))
    assert sum(schedule.streamed.size_bytes.values()) > 1e9
    assert not any(schedule.streamed.seconds.values())


def test_an_op_that_streams_alone_is_not_charged_twice(ctx: GimletContext):
    graph = read_graph(chain(ctx, 1, 1, width=36_864), {})
    schedule = simulate(problem_of(graph), Placement((0,), (0,)))
    alone = SRAM.op_cost(graph.units[0].ops[0], Device("sram0", CORSAIR), "bf16", {})
    assert schedule.streamed.size_bytes[0] > 0.5e9
    assert schedule.launches[0].seconds - CORSAIR.segment_overhead_s == pytest.approx(alone.seconds, rel=0.02)


def test_rows_of_an_embedding_are_streamed_before_what_is_read_whole(ctx: GimletContext):
    rows = ir.Value(name="x", shape=ir.Shape((1,)), type=ir.TensorType(ir.DataType.INT64))
    weights = [weight("table", 65_536, 8192), weight("w", 8192, 8192)]
    nodes = [ir.Node("", "Gather", [weights[0], rows], num_outputs=1)]
    nodes.append(ir.Node("", "MatMul", [nodes[0].outputs[0], weights[1]], num_outputs=1))
    for number, node in enumerate(nodes):
        made = node.outputs[0]
        made.name, made.shape, made.type = f"y{number}", ir.Shape((1, 8192)), ir.TensorType(ir.DataType.FLOAT)
    schedule = simulate(problem_of(read_graph(imported(ctx, rows, nodes, weights), {})), Placement((0, 0), (0, 0)))
    assert sum(schedule.streamed.size_bytes.values()) > 0.2e9
    assert sum(schedule.streamed.seconds.values()) < 1e-6


def test_a_device_of_one_level_streams_nothing():
    assert SRAM.weight_store(Device("g", load_kind("groq/lpu-v1"))) is None
    store = SRAM.weight_store(Device("s", load_kind("d-matrix/corsair")))
    assert store is not None
    assert store.seconds_per_byte == pytest.approx(1 / 0.4e12)


def test_saved_costs_keep_what_streaming_takes(ctx: GimletContext, tmp_path: Path):
    module, path = chain(ctx, 1, 20), tmp_path / "costs.json"
    service = PlacementService(ctx, rack(), {"sram0": [SRAM]})
    first = service.place(module, PlacementOptions(formats=(("sram0", "bf16"),)), {})
    path.write_text(json.dumps(first.costs()))
    again = service.place(module, PlacementOptions(costs=path), {})
    assert again.objective == first.objective
    assert again.schedule.streamed == first.schedule.streamed
    assert first.schedule.streamed.size_bytes
