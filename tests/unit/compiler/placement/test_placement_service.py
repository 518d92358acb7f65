"""From a module to a placement on its ops: targets asked, pins, files, refusals, and what is said of bad ones."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.ir import Operation
from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.compiler.placement.model.limits import parse_bounds
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.compiler.placement.reasons.explain import place_text, print_explanation
from gimlet.compiler.placement.service import PlacementOptions, PlacementService, op_key
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes.entry import entry_function, is_constant
from gimlet.runtime.errors import InfeasibleError, InputError, UsageError
from gimlet.targets.api import (
    Artifact,
    Cost,
    Device,
    DimBound,
    HardwareKind,
    Link,
    MemoryLevel,
    Reason,
    SegmentContext,
    Target,
    Topology,
)

MODEL = """
func.func @main(%x: tensor<?x256xf32, #onnx.dims<"batch", "">>) -> tensor<?x256xf32, #onnx.dims<"batch", "">> {
  %w = onnx.initializer {value = dense<1.0> : tensor<256x256xf32>} : tensor<256x256xf32>
  %a = onnx.MatMul(%x, %w) : (tensor<?x256xf32, #onnx.dims<"batch", "">>, tensor<256x256xf32>)
    -> tensor<?x256xf32, #onnx.dims<"batch", "">>
  %b = onnx.Relu(%a) : (tensor<?x256xf32, #onnx.dims<"batch", "">>) -> tensor<?x256xf32, #onnx.dims<"batch", "">>
  %c = onnx.MatMul(%b, %w) : (tensor<?x256xf32, #onnx.dims<"batch", "">>, tensor<256x256xf32>)
    -> tensor<?x256xf32, #onnx.dims<"batch", "">>
  %d = onnx.Exp(%c) : (tensor<?x256xf32, #onnx.dims<"batch", "">>) -> tensor<?x256xf32, #onnx.dims<"batch", "">>
  func.return %d : tensor<?x256xf32, #onnx.dims<"batch", "">>
}
"""
BATCH = {"batch": DimBound(1, 8, 32)}


class Table(Target):
    """A target whose costs are a table by operator; what is not in it is refused."""

    name = "table"
    executor = "none"

    def __init__(self, seconds: Mapping[str, float], formats: tuple[str, ...] = ("fp32",), fuses: bool = False) -> None:
        self.seconds, self._formats, self.fuses = seconds, formats, fuses
        self.asked: list[Mapping[str, int]] = []

    def formats(self, device: Device) -> tuple[str, ...]:
        return self._formats

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        assert isinstance(op, OnnxOp)
        return None if op.op_type in self.seconds else Reason(op_key(op), f"{op.op_type} is not in the table")

    def fusable(self, producer: Operation, consumer: Operation) -> bool:
        return self.fuses and isinstance(consumer, OnnxOp) and consumer.op_type == "Relu"

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        assert isinstance(op, OnnxOp)
        self.asked.append(sizes)
        weights = 256 * 256 * 4 if op.op_type == "MatMul" else 0
        return Cost(self.seconds[op.op_type], None, weights if fmt == "fp32" else weights // 2, 1024)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        return Reason("", "never emitted")


def kind(name: str, capacity: int = 10**9) -> HardwareKind:
    return HardwareKind(name, ("table",), {}, (MemoryLevel("ram", capacity, 1e12),), segment_overhead_s=1e-5)


def topology(capacity: int = 10**9) -> Topology:
    devices = (Device("cpu", kind("host")), Device("gpu0", kind("vendor/gpu", capacity)))
    return Topology("rack", devices, (Link("pcie", "pcie", ("cpu", "gpu0"), 1e-5, 1e10),), "cpu")


ALL = ("MatMul", "Relu", "Exp")
SLOW = Table(dict.fromkeys(ALL, 1e-3))
FAST = Table(dict.fromkeys(ALL, 1e-4), ("bf16", "fp32"))


@pytest.fixture
def ctx() -> GimletContext:
    context = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        context.register_dialect(name, factory)
    return context


@pytest.fixture
def module(ctx: GimletContext) -> ModuleOp:
    return Parser(ctx, MODEL).parse_module()


def service(ctx: GimletContext, cpu: Target = SLOW, gpu: Target = FAST, capacity: int = 10**9) -> PlacementService:
    targets: dict[str, Sequence[Target]] = {"cpu": [cpu], "gpu0": [gpu]}
    return PlacementService(ctx, topology(capacity), targets)


def places(module: ModuleOp) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    for op in entry_function(module).body.block.ops:
        device, fmt = op.attributes.get("placement.device"), op.attributes.get("placement.format")
        segment = op.attributes.get("placement.segment")
        if isinstance(device, SymbolRefAttr) and isinstance(fmt, StringAttr) and isinstance(segment, IntegerAttr):
            found.append((device.string_value(), fmt.data, segment.value.data))
    return found


def test_every_op_but_constants_is_placed(ctx: GimletContext, module: ModuleOp):
    result = service(ctx).place(module, PlacementOptions(), BATCH)
    assert places(module) == [("gpu0", "bf16", 0)] * 4
    assert result.status == "optimal"
    assert result.gap <= 1e-4
    assert result.objective == pytest.approx(2 * (1e-5 + 8 * 256 * 4 / 1e10) + 1e-5 + 4e-4)
    (constant,) = (op for op in entry_function(module).body.block.ops if is_constant(op))
    assert not constant.attributes


def test_costs_are_taken_at_the_optimum(ctx: GimletContext, module: ModuleOp):
    table = Table(dict.fromkeys(ALL, 1e-3))
    service(ctx, cpu=table).place(module, PlacementOptions(), BATCH)
    assert table.asked
    assert all(sizes == {"batch": 8} for sizes in table.asked)


def test_a_dimension_without_bounds_is_assumed_and_said(ctx: GimletContext, module: ModuleOp):
    result = service(ctx).place(module, PlacementOptions(), {})
    assert result.notes == ("dimensions without bounds are taken as 64: batch",)


def test_weights_count_once_a_device_and_in_its_format(ctx: GimletContext, module: ModuleOp):
    result = service(ctx).place(module, PlacementOptions(), BATCH)
    assert result.schedule.memory_bytes == {1: 256 * 256 * 2 + 1024}


def test_a_format_can_be_asked_for(ctx: GimletContext, module: ModuleOp):
    service(ctx).place(module, PlacementOptions(formats=(("gpu0", "fp32"),)), BATCH)
    assert {fmt for _, fmt, _ in places(module)} == {"fp32"}
    with pytest.raises(UsageError, match=r"gpu0 \(vendor/gpu\) does not compute in 'fp4'"):
        service(ctx).place(module, PlacementOptions(formats=(("gpu0", "fp4"),)), BATCH)
    with pytest.raises(UsageError, match="there is no device 'gpu7'"):
        service(ctx).place(module, PlacementOptions(formats=(("gpu7", "fp32"),)), BATCH)


def test_refused_ops_go_elsewhere(ctx: GimletContext, module: ModuleOp):
    gpu = Table({"MatMul": 1e-5, "Relu": 1e-5})
    result = service(ctx, gpu=gpu).place(module, PlacementOptions(), BATCH)
    assert [device for device, _, _ in places(module)] == ["gpu0", "gpu0", "gpu0", "cpu"]
    (op,) = [op for op in result.explain()["ops"] if op["type"] == "Exp"]
    assert op["others"] == [
        {"device": "gpu0", "target": "table", "format": "fp32", "refused": "Exp is not in the table"}
    ]


def test_an_op_that_nobody_takes(ctx: GimletContext, module: ModuleOp):
    without = Table({"MatMul": 1e-5, "Exp": 1e-5})
    with pytest.raises(InputError) as error:
        service(ctx, cpu=without, gpu=without).place(module, PlacementOptions(), BATCH)
    assert "Relu 'b': no device takes this op" in str(error.value)
    assert str(error.value).count("Relu is not in the table") == 2


def test_pins_match_names_and_operators_and_the_later_wins(ctx: GimletContext, module: ModuleOp):
    pins = (("MatMul", "cpu"), ("^c$", "gpu0"))
    service(ctx).place(module, PlacementOptions(pins=pins), BATCH)
    assert [device for device, _, _ in places(module)] == ["cpu", "gpu0", "gpu0", "gpu0"]


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ((("MatMol", "cpu"),), "'MatMol' matches no op"),
        ((("MatMol", "cpu"),), "close to it are: MatMul"),
        ((("MatMul", "gpu"),), "there is no device 'gpu'"),
        ((("MatMul", "gpu"),), "did you mean 'gpu0'?"),
        ((("(", "cpu"),), "the expression '(' does not parse"),
        ((("Exp", "gpu0:fp4"),), "gpu0 is not offered as 'fp4'"),
    ],
)
def test_bad_pins(ctx: GimletContext, module: ModuleOp, pins: tuple[tuple[str, str], ...], message: str):
    with pytest.raises(UsageError) as error:
        service(ctx).place(module, PlacementOptions(pins=pins), BATCH)
    assert message in str(error.value)


def test_a_failed_build_is_a_refusal(ctx: GimletContext, module: ModuleOp):
    refusals = {("b", "gpu0"): "the builder ran out of memory"}
    result = service(ctx).place(module, PlacementOptions(), BATCH, refusals)
    assert result.devices["b"] == "cpu"
    (op,) = [op for op in result.explain()["ops"] if op["name"] == "b"]
    assert {other["refused"] for other in op["others"]} == {"the builder ran out of memory"}


def rivals(ctx: GimletContext) -> PlacementService:
    """One CPU with two targets: the second is the faster one at matrix products, and slow to launch."""

    class Other(Table):
        name = "other"

        def segment_overhead_s(self, device: Device) -> float:
            return 3e-5

    other = Other({"MatMul": 1e-4, "Relu": 1e-3})
    return PlacementService(ctx, topology(), {"cpu": [SLOW, other], "gpu0": [Table({})]})


def test_targets_of_one_device_compete(ctx: GimletContext, module: ModuleOp):
    """Two launches, of 30 and 10 µs, and the products gain 1.8 ms; the value between them is not transferred."""
    result = rivals(ctx).place(module, PlacementOptions(), BATCH)
    targets = [op.attributes.get("placement.target") for op in entry_function(module).body.block.ops]
    assert targets[1:-1] == [*[StringAttr("other")] * 3, StringAttr("table")]
    assert result.objective == pytest.approx(2 * 1e-4 + 2 * 1e-3 + 3e-5 + 1e-5)
    assert not result.schedule.transfers
    assert result.problem.place_name(0) == "cpu (table, fp32)"
    data = result.explain()
    assert [segment["target"] for segment in data["segments"]] == ["other", "table"]
    assert [place_text(op, data) for op in data["ops"]] == [*["other, fp32"] * 3, "table, fp32"]
    assert place_text(data["ops"][0]["others"][0], data) == "table, fp32"
    assert {place_text(other, data) for other in data["ops"][0]["others"] if other["device"] == "gpu0"} == {"fp32"}


def test_a_target_can_be_pinned_and_comes_back(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    pins = ((".", "cpu:table"), ("^c$", "cpu:other:fp32"))
    result = rivals(ctx).place(module, PlacementOptions(pins=pins), BATCH)
    targets = [result.problem.places[place].target for place in result.solution.placement.place]
    assert targets == ["table", "table", "other", "table"]
    result.save(tmp_path / "p.json")
    again = rivals(ctx).place(module, PlacementOptions(placement=tmp_path / "p.json"), BATCH)
    assert (again.status, again.solution.placement) == ("forced", result.solution.placement)


def test_a_failed_build_refuses_one_target_only(ctx: GimletContext, module: ModuleOp):
    refusals = {("a", "cpu:other:fp32"): "no such kernel"}
    result = rivals(ctx).place(module, PlacementOptions(), BATCH, refusals)
    targets = [result.problem.places[place].target for place in result.solution.placement.place]
    assert targets[0] == "table"
    assert targets[2] == "other"


def test_a_share_of_the_work_can_be_asked_for(ctx: GimletContext, module: ModuleOp):
    options = PlacementOptions(min_shares=(("cpu", 0.3), ("gpu0", 0.3)))
    result = service(ctx).place(module, options, BATCH)
    shares = {device["name"]: device["flops_share"] for device in result.explain()["devices"]}
    assert min(shares.values()) >= 0.3
    with pytest.raises(UsageError, match="the share of cpu is 3"):
        service(ctx).place(module, PlacementOptions(min_shares=(("cpu", 3.0),)), BATCH)
    with pytest.raises(UsageError, match="there is no device 'npu'"):
        service(ctx).place(module, PlacementOptions(min_shares=(("npu", 0.3),)), BATCH)


def test_limits_in_words(ctx: GimletContext, module: ModuleOp):
    """Everything is quickest on gpu0; each limit takes something away from it, or is kept already."""
    apart = service(ctx).place(module, PlacementOptions(apart=(("MatMul", "Exp"),)), BATCH)
    assert (apart.devices["a"], apart.devices["c"], apart.devices["d"]) == ("gpu0", "gpu0", "cpu")
    together = PlacementOptions(together=("MatMul", "Exp|Relu"), pins=(("^b$", "cpu"),))
    assert service(ctx).place(module, together, BATCH).devices == {"a": "gpu0", "b": "cpu", "c": "gpu0", "d": "cpu"}
    bounded = PlacementOptions("throughput", bounds=(("latency", "1s"),))
    assert service(ctx).place(module, bounded, BATCH).problem.rules.bounds == {"latency": 1.0}
    with pytest.raises(InfeasibleError, match="latency cannot be below"):
        service(ctx).place(module, PlacementOptions("throughput", bounds=(("latency", "1us"),)), BATCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (PlacementOptions(bounds=(("speed", "1s"),)), "there is no figure 'speed'"),
        (PlacementOptions(bounds=(("latency", "5"),)), "'5' is no bound on latency"),
        (PlacementOptions(bounds=(("latency", "-5ms"),)), "'-5ms' is no bound on latency"),
        (PlacementOptions(bounds=(("energy", "1.2.3J"),)), "'1.2.3J' is no bound on energy"),
        (PlacementOptions(together=("Gelu",)), "--together: 'Gelu' matches no op"),
        (PlacementOptions(apart=(("MatMul", "^a$"),)), "'MatMul' and '^a$' both match 'a'"),
    ],
)
def test_limits_that_say_nothing(ctx: GimletContext, module: ModuleOp, options: PlacementOptions, message: str):
    with pytest.raises(UsageError) as error:
        service(ctx).place(module, options, BATCH)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (("latency", "5ms"), 5e-3),
        (("latency", "20 us"), 2e-5),
        (("throughput", "200/s"), 5e-3),
        (("throughput", "1e-3s"), 1e-3),
        (("energy", "2mJ"), 2e-3),
        (("energy", "434 µJ"), 434e-6),
        (("latency", "7.5 ns"), 7.5e-9),
        (("cost", "0.5USD"), 0.5),
    ],
)
def test_amounts(text: tuple[str, str], limit: float):
    assert list(parse_bounds([text]).values()) == [pytest.approx(limit)]


def test_a_model_larger_than_the_device(ctx: GimletContext, module: ModuleOp):
    gpu_only = PlacementOptions(pins=((".", "gpu0"),))
    with pytest.raises(InfeasibleError, match=r"the model: the weights need 131\.1 kB and gpu0 has 1 kB"):
        service(ctx, capacity=1000).place(module, gpu_only, BATCH)


def test_a_saved_placement_comes_back(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    gpu = Table({"MatMul": 1e-5, "Relu": 1e-5})
    first = service(ctx, gpu=gpu).place(module, PlacementOptions(), BATCH)
    first.save(tmp_path / "p.json")
    before = places(module)
    again = service(ctx, gpu=gpu).place(module, PlacementOptions(placement=tmp_path / "p.json"), BATCH)
    assert places(module) == before
    assert again.status == "forced"
    assert again.objective == first.objective
    pinned = PlacementOptions(placement=tmp_path / "p.json", pins=(("Relu", "cpu"),))
    found = service(ctx, gpu=gpu).place(module, pinned, BATCH)
    assert found.devices["b"] == "cpu"
    assert found.notes == (f"the segments of {tmp_path / 'p.json'} are not kept: pins are given too",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c": {"device": "cpu", "format": None}}, "segment 0 has a on gpu0 (bf16) and c on cpu (fp32)"),
        ({"b": {"segment": 1}}, "c of segment 0 needs b of segment 1, a later one"),
        ({"d": {"segment": None}}, "it has none for d"),
        ({"d": {"format": None}}, "d may be on several places: gpu0 (bf16), gpu0 (fp32)"),
        ({key: {"segment": None} for key in "abcd"}, None),
    ],
)
def test_segments_of_a_file_are_kept_or_noted(
    ctx: GimletContext, module: ModuleOp, tmp_path: Path, changes: dict[str, dict[str, Any]], reason: str | None
):
    given = {"device": "gpu0", "format": "bf16", "segment": 0}
    edited = {name: given | changes.get(name, {}) for name in "abcd"}
    assign = {name: {k: v for k, v in entry.items() if v is not None} for name, entry in edited.items()}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"schema": 1, "assign": assign}))
    options = PlacementOptions(placement=path, formats=(("gpu0", "bf16"), ("gpu0", "fp32")))
    found = service(ctx).place(module, options, BATCH)
    assert found.status != "forced"
    assert found.notes == (() if reason is None else (f"the segments of {path} are not kept: {reason}",))
    assert found.explain()["summary"]["notes"] == list(found.notes)


def test_a_placement_by_rules(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    data = {"schema": 1, "rules": [{"match": "MatMul", "device": "cpu"}], "assign": {"a": "gpu0"}}
    (tmp_path / "p.json").write_text(json.dumps(data))
    result = service(ctx).place(module, PlacementOptions(placement=tmp_path / "p.json"), BATCH)
    assert result.devices["a"] == "gpu0"
    assert result.devices["c"] == "cpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an object"),
        ('{"schema": 9}', "has schema 9, not 1"),
        ('{"schema": 1, "assign": {"zz": "cpu"}}', "the model has no op 'zz'"),
        ('{"schema": 1, "assign": {"a": {"format": "fp32"}}}', "needs 'device', a text"),
        ('{"schema": 1, "assign": {"a": {"device": "cpu", "segment": "x"}}}', "the segment must be an integer"),
        ('{"schema": 1, "assign": {"a": {"device": "cpu", "format": 3}}}', "needs 'format', a text"),
        ('{"schema": 1, "rules": 3}', "must be a list"),
        (
            '{"schema": 1, "assing": {}}',
            "'assing' is not a key that this may have\n  hint: did you mean 'assign'?",
        ),
        ('{"schema": 1, "rules": [{"match": "a", "device": "cpu", "taget": "x"}]}', "did you mean 'target'?"),
        ('{"schema": 1, "assign": {"a": {"device": "cpu", "sgment": 1}}}', "did you mean 'segment'?"),
        (
            '{"schema": 1, "assign": {"a": {"device": "cpu", "segment": -1}}}',
            "the segment must be an integer from 0 on",
        ),
    ],
)
def test_bad_placement_files(ctx: GimletContext, module: ModuleOp, tmp_path: Path, text: str, message: str):
    (tmp_path / "p.json").write_text(text)
    with pytest.raises((InputError, UsageError)) as error:
        service(ctx).place(module, PlacementOptions(placement=tmp_path / "p.json"), BATCH)
    assert message in str(error.value)


def test_a_missing_placement_file(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    with pytest.raises(UsageError, match="there is no file"):
        service(ctx).place(module, PlacementOptions(placement=tmp_path / "p.json"), BATCH)


def test_a_rebuild_from_saved_costs_decides_the_same(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    gpu = Table({"MatMul": 1e-5, "Relu": 3e-6}, fuses=True)
    first = service(ctx, gpu=gpu).place(module, PlacementOptions(), BATCH)
    (tmp_path / "c.json").write_text(json.dumps({"costs": first.costs()}, sort_keys=True))
    never = Table({})
    again = service(ctx, never, never).place(module, PlacementOptions(costs=tmp_path / "c.json"), BATCH)
    assert again.problem == first.problem
    assert again.solution.placement == first.solution.placement
    assert again.objective == first.objective


def test_saved_costs_have_the_states(ctx: GimletContext, tmp_path: Path):
    text = """
    func.func @main(%at: tensor<1x1xi64>, %x: tensor<1xf32>, %a: tensor<8xf32> {placement.state = "a"})
        -> (tensor<8xf32> {placement.state = "a"}, tensor<8xf32>) {
      %a1 = onnx.ScatterND(%a, %at, %x) : (tensor<8xf32>, tensor<1x1xi64>, tensor<1xf32>) -> tensor<8xf32>
      %b = onnx.Relu(%a1) : (tensor<8xf32>) -> tensor<8xf32>
      func.return %a1, %b : tensor<8xf32>, tensor<8xf32>
    }"""
    everything = Table({"ScatterND": 1e-3, "Relu": 1e-3})
    placed = service(ctx, everything, everything)
    first = placed.place(Parser(ctx, text).parse_module(), PlacementOptions(), {})
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(first.costs()))
    again = placed.place(Parser(ctx, text).parse_module(), PlacementOptions(costs=path), {})
    assert any(weight.key == "state a" for weight in first.problem.weights)
    assert again.problem.weights == first.problem.weights
    assert again.objective == first.objective


def test_costs_of_another_model_are_refused(ctx: GimletContext, module: ModuleOp, tmp_path: Path):
    costs = service(ctx).place(module, PlacementOptions(), BATCH).costs()
    renamed = {**costs, "nodes": {f"{name}!": entry for name, entry in costs["nodes"].items()}}
    other = {**costs, "devices": [{**device, "name": device["name"] + "9"} for device in costs["devices"]]}
    broken = {**costs, "places": [{"device": "cpu"}]}
    for data, message in (
        (renamed, "has no costs of MatMul 'a'"),
        (other, "the costs are for the devices cpu9, gpu09"),
        (broken, "the costs are malformed"),
        ({"schema": 1}, "holds no placement costs"),
    ):
        (tmp_path / "c.json").write_text(json.dumps(data))
        with pytest.raises(InputError, match=message):
            service(ctx).place(module, PlacementOptions(costs=tmp_path / "c.json"), BATCH)


def test_fusion_keeps_a_pair_together(ctx: GimletContext, module: ModuleOp):
    result = service(ctx, gpu=Table(dict.fromkeys(ALL, 1e-4), fuses=True)).place(module, PlacementOptions(), BATCH)
    (fusion,) = result.problem.fusions
    assert (result.problem.nodes[fusion.producer].name, result.problem.nodes[fusion.consumer].name) == ("a", "b")
    assert fusion.seconds[1] == pytest.approx(2 * 8 * 256 * 4 / 1e12)


def test_what_cannot_cross_a_segment_stays_together(ctx: GimletContext):
    text = """
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %s = onnx.SequenceConstruct(%x) : (tensor<4xf32>) -> !onnx.seq<tensor<4xf32>>
  %r = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %t = onnx.SequenceInsert(%s, %r) : (!onnx.seq<tensor<4xf32>>, tensor<4xf32>) -> !onnx.seq<tensor<4xf32>>
  %y = onnx.ConcatFromSequence(%t) {axis = 0 : si64} : (!onnx.seq<tensor<4xf32>>) -> tensor<8xf32>
  func.return %x : tensor<4xf32>
}
"""
    graph = read_graph(Parser(ctx, text).parse_module(), {})
    assert [len(unit.ops) for unit in graph.units] == [1, 3]
    assert graph.units[1].name == "s"


def test_the_explanation_prints(ctx: GimletContext, module: ModuleOp):
    gpu = Table({"MatMul": 1e-5, "Relu": 1e-5})
    result = service(ctx, gpu=gpu).place(module, PlacementOptions(), BATCH)
    console = Console(width=200, file=io.StringIO(), record=True)
    print_explanation(result.explain(), console)
    text = console.export_text()
    assert "gpu0 (fp32): not there: Exp is not in the table" in text
    assert "latency" in text
    (op,) = [op for op in result.explain()["ops"] if op["name"] == "c"]
    (other,) = op["others"]
    assert other["with_segment"]["delta"] > other["alone"]["delta"] > 0
    assert "; moving +" in text
    rows = [line for line in text.splitlines() if line.startswith("s0")]
    assert len(rows) == 1
    assert "µs" in rows[0]
    assert "what moving all of it costs" in text
    assert json.loads(json.dumps(result.explain()))["summary"]["value"] == result.objective
