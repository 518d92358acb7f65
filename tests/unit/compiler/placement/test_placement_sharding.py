"""Tensor parallelism: how ops are split over a group, what that costs, and where it comes from; figures by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.compiler.costs.provider import SiteCosts
from gimlet.compiler.hardware import load_topology
from gimlet.compiler.placement.model.problem import Route
from gimlet.compiler.placement.reading.build import routes
from gimlet.compiler.placement.reading.collectives import Collectives, collectives_of
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.compiler.placement.reading.groups import GroupPlan, group_plans, with_group_routes
from gimlet.compiler.placement.reading.ir_topology import read_topology
from gimlet.compiler.placement.reading.sharding import Sharding, Share
from gimlet.compiler.placement.service import PlacementOptions, PlacementService
from gimlet.compiler.topology_ir import set_topology
from gimlet.dialects.context import GimletContext
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.runtime.errors import InputError, UsageError
from gimlet.targets.api import CollectiveFigures, CollectiveProtocol, Cost, Topology
from gimlet.tools.gimlet_compile import main

MLP = """
builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%x: tensor<8x64xf32>) -> tensor<8x64xf32> {
    %up = onnx.initializer {key = "up"} : tensor<64x256xf32>
    %down = onnx.initializer {key = "down"} : tensor<256x64xf32>
    %bias = onnx.initializer {key = "bias"} : tensor<256xf32>
    %a = onnx.MatMul(%x, %up) : (tensor<8x64xf32>, tensor<64x256xf32>) -> tensor<8x256xf32> loc("up")
    %s = onnx.Add(%a, %bias) : (tensor<8x256xf32>, tensor<256xf32>) -> tensor<8x256xf32> loc("bias")
    %b = onnx.Relu(%s) : (tensor<8x256xf32>) -> tensor<8x256xf32> loc("relu")
    %c = onnx.MatMul(%b, %down) : (tensor<8x256xf32>, tensor<256x64xf32>) -> tensor<8x64xf32> loc("down")
    %y = onnx.Add(%x, %c) : (tensor<8x64xf32>, tensor<8x64xf32>) -> tensor<8x64xf32> loc("residual")
    func.return %y : tensor<8x64xf32>
  }
}
"""
HEADS = """
builtin.module attributes {onnx.opsets = {"" = 22 : i64}} {
  func.func @main(%x: tensor<2x8x64xf32>) -> tensor<2x8x64xf32> {
    %wq = onnx.initializer {key = "q"} : tensor<64x64xf32>
    %wk = onnx.initializer {key = "k"} : tensor<64x64xf32>
    %wo = onnx.initializer {key = "o"} : tensor<64x64xf32>
    %shape = onnx.initializer {value = dense<[2, 8, 4, 16]> : tensor<4xi64>} : tensor<4xi64>
    %flat = onnx.initializer {value = dense<[2, 8, 64]> : tensor<3xi64>} : tensor<3xi64>
    %q = onnx.MatMul(%x, %wq) : (tensor<2x8x64xf32>, tensor<64x64xf32>) -> tensor<2x8x64xf32> loc("q")
    %k = onnx.MatMul(%x, %wk) : (tensor<2x8x64xf32>, tensor<64x64xf32>) -> tensor<2x8x64xf32> loc("k")
    %qh = onnx.Reshape(%q, %shape) : (tensor<2x8x64xf32>, tensor<4xi64>) -> tensor<2x8x4x16xf32> loc("qh")
    %kh = onnx.Reshape(%k, %shape) : (tensor<2x8x64xf32>, tensor<4xi64>) -> tensor<2x8x4x16xf32> loc("kh")
    %qt = onnx.Transpose(%qh) {perm = [0, 2, 1, 3]} : (tensor<2x8x4x16xf32>) -> tensor<2x4x8x16xf32> loc("qt")
    %kt = onnx.Transpose(%kh) {perm = [0, 2, 3, 1]} : (tensor<2x8x4x16xf32>) -> tensor<2x4x16x8xf32> loc("kt")
    %s = onnx.MatMul(%qt, %kt) : (tensor<2x4x8x16xf32>, tensor<2x4x16x8xf32>) -> tensor<2x4x8x8xf32> loc("scores")
    %p = onnx.Softmax(%s) {axis = -1} : (tensor<2x4x8x8xf32>) -> tensor<2x4x8x8xf32> loc("softmax")
    %v = onnx.MatMul(%p, %qt) : (tensor<2x4x8x8xf32>, tensor<2x4x8x16xf32>) -> tensor<2x4x8x16xf32> loc("values")
    %t = onnx.Transpose(%v) {perm = [0, 2, 1, 3]} : (tensor<2x4x8x16xf32>) -> tensor<2x8x4x16xf32> loc("back")
    %f = onnx.Reshape(%t, %flat) : (tensor<2x8x4x16xf32>, tensor<3xi64>) -> tensor<2x8x64xf32> loc("flat")
    %y = onnx.MatMul(%f, %wo) : (tensor<2x8x64xf32>, tensor<64x64xf32>) -> tensor<2x8x64xf32> loc("out")
    func.return %y : tensor<2x8x64xf32>
  }
}
"""
TOPOLOGY = """
schema = 1
device = [{ name = "cpu", kind = "host" }, { name = "a", kind = "nvidia/b200" }, { name = "b", kind = "nvidia/b200" }]
link = [
  { name = "p0", between = ["cpu", "a"], kind = "pcie5x16" },
  { name = "p1", between = ["cpu", "b"], kind = "pcie5x16" },
  { name = "nv", between = ["a", "b"], kind = "nvlink5" },
]
group = [{ name = "tp", members = ["a", "b"]MORE }]
"""


def parse(text: str) -> tuple[GimletContext, ModuleOp]:
    ctx = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, factory)
    return ctx, Parser(ctx, text).parse_module()


def shares(text: str, members: int = 2) -> dict[str, Share]:
    graph = read_graph(parse(text)[1], {})
    sharding = Sharding(graph, members)
    return {unit.name: sharding.shares[unit.ops[0]] for unit in graph.units}


def topology(tmp_path: Path, more: str = "", text: str = TOPOLOGY) -> Topology:
    path = tmp_path / "tp.toml"
    path.write_text(text.replace("MORE", more))
    return load_topology(path)


def test_a_perceptron_is_split_by_columns_then_rows_with_one_all_reduce():
    half = Share(0.5, 0.5)
    assert shares(MLP) == {
        "up": half,
        "bias": Share(0.5),
        "relu": Share(0.5),
        "down": Share(0.5, 0.5, reduced=8 * 64 * 4),
        "residual": Share(),
    }


def test_attention_is_split_by_heads():
    found = shares(HEADS)
    assert found.pop("out") == Share(0.5, 0.5, reduced=2 * 8 * 64 * 4)
    assert (found.pop("q"), found.pop("k")) == (Share(0.5, 0.5),) * 2
    assert set(found.values()) == {Share(0.5)}


def test_a_value_that_a_reader_needs_whole_is_gathered():
    text = MLP.replace("onnx.Relu(%s)", "onnx.Softmax(%s)")
    found = shares(text)
    assert found["bias"] == Share(0.5, gathered=8 * 256 * 4)
    assert found["relu"] == Share()
    assert found["down"] == Share(0.5, 0.5)
    assert found["residual"] == Share(0.5)


def test_what_the_members_do_not_divide_is_whole():
    assert shares(MLP, members=3)["up"] == Share()


def test_experts_are_dealt_out():
    text = """
    builtin.module attributes {onnx.opsets = {"" = 22 : i64, "com.microsoft" = 1 : i64}} {
      func.func @main(%x: tensor<8x64xf32>, %r: tensor<8x4xf32>) -> tensor<8x64xf32> {
        %w = onnx.initializer {key = "w"} : tensor<4x64x128xf32>
        %v = onnx.initializer {key = "v"} : tensor<4x128x64xf32>
        %y = "onnx.com.microsoft.MoE"(%x, %r, %w, %v)
            : (tensor<8x64xf32>, tensor<8x4xf32>, tensor<4x64x128xf32>, tensor<4x128x64xf32>) -> tensor<8x64xf32>
        func.return %y : tensor<8x64xf32>
      }
    }
    """
    assert list(shares(text).values()) == [Share(0.5, 0.5, reduced=8 * 64 * 4)]


def test_collectives_by_hand():
    ring, direct = Collectives(4, "ring", 1e-6, 1e-9), Collectives(4, "direct", 1e-6, 1e-9)
    assert ring.all_gather_s(4000) == pytest.approx(3 * (1e-6 + 1000e-9))
    assert ring.all_reduce_s(4000) == pytest.approx(6 * (1e-6 + 1000e-9))
    assert direct.all_gather_s(4000) == pytest.approx(1e-6 + 3000e-9)
    assert direct.all_reduce_s(4000) == pytest.approx(2 * (1e-6 + 3000e-9))


FIGURES = CollectiveFigures(10e-6, (CollectiveProtocol(1e-6, 1e9), CollectiveProtocol(5e-6, 10e9, 20e9)))


def test_collectives_by_the_quickest_protocol():
    found = Collectives(4, "direct", 1e-6, 1e-9, FIGURES)
    assert found.all_gather_s(4000) == pytest.approx(10e-6 + 3 * (1e-6 + 1e-6))
    assert found.all_reduce_s(4000) == pytest.approx(10e-6 + 6 * (1e-6 + 1e-6))
    assert found.all_gather_s(4e6) == pytest.approx(10e-6 + 3 * (5e-6 + 100e-6) + 50e-6)
    assert found.all_reduce_s(4e6) == pytest.approx(10e-6 + 6 * (5e-6 + 100e-6) + 50e-6)


@given(size=st.floats(0, 1e9), more=st.floats(0, 1e9), members=st.integers(2, 8))
def test_more_bytes_never_take_less_and_an_all_reduce_is_no_quicker(size: float, more: float, members: int):
    found = Collectives(members, "ring", 0.0, 0.0, FIGURES)
    assert found.all_gather_s(size) <= found.all_gather_s(size + more)
    assert found.all_gather_s(size) <= found.all_reduce_s(size)


def test_an_algorithm_that_is_asked_for_is_the_model_of_its_links():
    apart = {(a, b): Route(1e-6, 1e-9, ((f"{a}>{b}", 1e-9),)) for a in range(2) for b in range(2) if a != b}
    assert collectives_of((0, 1), apart, None, FIGURES).figures == FIGURES
    assert collectives_of((0, 1), apart, "ring", FIGURES) == Collectives(2, "ring", 1e-6, 1e-9)


def test_groups_use_what_their_links_say(tmp_path: Path):
    found, (_, module) = topology(tmp_path), parse(MLP)
    graph = read_graph(module, {})
    figures = group_plans(found, graph, routes(found))["tp"].collectives.figures
    assert figures is not None
    assert figures == found.links[2].collectives
    set_topology(module, found)
    assert read_topology(module).links[2].collectives == figures
    plain = replace(found, links=tuple(replace(link, collectives=None) for link in found.links))
    assert group_plans(plain, graph, routes(plain))["tp"].collectives.figures is None


def test_a_ring_through_one_link_is_slower_by_its_users():
    apart = {(a, b): Route(1e-6, 1e-9, ((f"{a}>{b}", 1e-9),)) for a in range(3) for b in range(3) if a != b}
    assert collectives_of((0, 1, 2), apart) == Collectives(3, "direct", 1e-6, 1e-9)
    assert collectives_of((0, 1, 2), apart, "ring") == Collectives(3, "ring", 1e-6, 1e-9)
    shared = {pair: Route(2e-6, 2e-9, (("bus", 1e-9), (f"{pair}", 1e-9))) for pair in apart}
    assert collectives_of((0, 1, 2), shared) == Collectives(3, "ring", 2e-6, 4e-9)


def test_every_member_gets_a_copy_of_what_enters():
    routes = {(0, 1): Route(1.0, 0.5, (("x", 0.5),)), (0, 2): Route(2.0, 0.5, (("x", 0.5),)), (1, 2): Route(0.1, 0.1)}
    routes |= {(b, a): route for (a, b), route in routes.items()}
    found = with_group_routes(routes, [(0,), (1,), (2,), (1, 2)])
    assert found[0, 3] == Route(2.0, 1.0, (("x", 1.0),))
    assert found[3, 0] == routes[1, 0]
    assert found[3, 1] == Route(0.0, 0.0)
    assert found[1, 3] == routes[1, 2]


def test_costs_of_a_group_by_hand(tmp_path: Path):
    racks = topology(tmp_path)
    graph = read_graph(parse(MLP)[1], {})
    links = Collectives(2, "direct", 1e-6, 1e-9)
    plan = GroupPlan(racks.groups[0], racks.device("a"), links, Sharding(graph, 2))
    launch = racks.device("a").kind.kernel_overhead_s
    found = plan.costs(SiteCosts({3: Cost(launch + 1.0, 10.0, 1000, 64), 4: Cost(launch + 1.0, 10.0)})).costs
    reduce = 2 * (1e-6 + 8 * 64 * 4 / 2 * 1e-9)
    assert found[3].seconds == pytest.approx(launch + 0.5 + reduce)
    assert found[3].joules == pytest.approx(2 * 10.0 * found[3].seconds / (launch + 1.0))
    assert found[3].weight_bytes == 500
    assert (found[4].seconds, found[4].joules) == (pytest.approx(launch + 1.0), pytest.approx(20.0))


def test_a_gather_that_takes_longer_than_the_whole_work_is_not_made(tmp_path: Path):
    racks = topology(tmp_path)
    graph = read_graph(parse(MLP.replace("onnx.Relu(%s)", "onnx.Softmax(%s)"))[1], {})
    plan = GroupPlan(racks.groups[0], racks.device("a"), Collectives(2, "direct", 1.0, 1e-9), Sharding(graph, 2))
    assert plan.costs(SiteCosts({1: Cost(1e-3, None, 100)})).costs[1] == Cost(1e-3, None, 100)


def test_a_module_is_placed_on_a_group_and_costs_replay(tmp_path: Path):
    wide = MLP.replace("8x", "2048x").replace("256", "16384").replace("x64x", "x4096x").replace("<64x", "<4096x")
    ctx, module = parse(wide)
    found = PlacementService(ctx, topology(tmp_path)).place(module, PlacementOptions(pins=((".", "tp"),)), {})
    assert found.grouped == ("MatMul 'up'", "tp")
    assert found.schedule.memory_bytes[1] == found.schedule.memory_bytes[2] > 4096 * 16384 * 4
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(found.costs()))
    again = PlacementService(ctx, topology(tmp_path)).place(
        module, PlacementOptions(pins=((".", "tp"),), costs=costs), {}
    )
    assert again.objective == found.objective
    assert any(value.gather_s for value in again.problem.values)


def test_the_ir_holds_groups(tmp_path: Path):
    found = topology(tmp_path, ', algorithm = "ring"')
    _, module = parse(MLP)
    set_topology(module, found)
    assert read_topology(module).groups == found.groups
    assert found.groups[0].algorithm == "ring"


def test_an_unknown_algorithm_in_the_ir_is_refused(tmp_path: Path):
    ctx, module = parse(MLP)
    set_topology(module, topology(tmp_path, ', algorithm = "ring"'))
    text = str(module).replace('algorithm = "ring"', 'algorithm = "star"')
    with pytest.raises(InputError, match="there is no algorithm"):
        read_topology(Parser(ctx, text).parse_module())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["a", "b"]', '["a", "c"]', "there is no device 'c'|unknown device 'c'"),
        ('["a", "b"]', '["a", "a"]', "names a device twice"),
        ('["a", "b"]', '["a", "cpu"]', "its devices are not alike: host, nvidia/b200"),
        ('name = "tp"', 'name = "nv"', "the name 'nv' is given twice"),
    ],
)
def test_a_group_in_a_topology_that_is_none_is_refused(tmp_path: Path, old: str, new: str, message: str):
    with pytest.raises(UsageError, match=message):
        topology(
            tmp_path,
            text=TOPOLOGY.replace("MORE", "").replace(f"group = [{{ {old}", f"group = [{{ {new}")
            if "name" in old
            else TOPOLOGY.replace("MORE", "").replace(f"members = {old}", f"members = {new}"),
        )


def test_a_program_for_a_group_is_refused_by_its_first_op(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    topology(tmp_path)
    (tmp_path / "m.mlir").write_text(MLP)
    args = [str(tmp_path / "m.mlir"), "--topology", str(tmp_path / "tp.toml"), "--pin", ".=tp"]
    with pytest.raises(SystemExit) as stop:
        main([*args, "-o", str(tmp_path / "m.gimlet")])
    assert stop.value.code == 1
    assert "MatMul 'up': is placed on group tp" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*args, "--dry-run", "--report", str(tmp_path / "r.html")])
    assert stop.value.code == 0
    assert "tp" in capsys.readouterr().out
