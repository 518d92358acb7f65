"""Large operators on targets that take them whole, that take their parts, and that take neither."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest
from tests.onnx_suite.stages import imported
from tests.unit.passes.fusion_cases import Writer, run
from tests.unit.passes.test_write_out_experts import EXPERTS, HIDDEN, INNER, mixture
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation

import gimlet
from gimlet.compiler.costs.detach import detach
from gimlet.compiler.frontends import load
from gimlet.compiler.hardware import load_topology
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, ops, parts_of, tensor_type
from gimlet.passes.entry import entry_function, is_constant, return_of
from gimlet.passes.write_out_experts import WriteOutExpertsPass
from gimlet.passes.write_out_operators import WriteOutOperatorsPass
from gimlet.targets import registry
from gimlet.targets.api import Artifact, Cost, Device, HardwareKind, Reason, SegmentContext, Target
from gimlet.targets.forms import is_whole, op_costs, portable_form, refusals, target_form
from gimlet.targets.portable import segment_model

DEVICE = Device("dev", HardwareKind("test/dev", ("named",), {}, (), segment_overhead_s=1.0))
SHAPES = {"q": (2, 4, 3, 8), "k": (2, 4, 5, 8), "v": (2, 4, 5, 8)}
SECONDS = 3.0


class Named(Target):
    """Takes some operators whole, and refuses some."""

    name: ClassVar[str] = "named"
    executor: ClassVar[str] = "none"

    def __init__(self, whole: Sequence[str], refused: Sequence[str] = ()) -> None:
        self.whole, self.refused = whole, refused

    def formats(self, device: Device) -> tuple[str, ...]:
        return ("fp32",)

    def large_operators(self, device: Device) -> frozenset[str]:
        return frozenset(self.whole)

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        kind = op.op_type if isinstance(op, OnnxOp) else op.name
        return Reason(kind, f"no {kind}") if kind in self.refused else None

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        return Cost(SECONDS)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        return Reason("none", "nothing is emitted")


def written() -> Any:
    """Attention with a Swish behind it, at opset 17."""
    write = Writer()
    scores = write("Mul", write("MatMul", "q", write("Transpose", "k", perm=[0, 1, 3, 2])), 0.25)
    y = write("MatMul", write("Softmax", scores, axis=-1), "v")
    return write.model(dict(SHAPES), write("Mul", y, write("Sigmoid", y)), 17)


@pytest.fixture
def segment(tmp_path: Path) -> SegmentContext:
    ctx = GimletContext()
    module = load(written(), ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, *FUSE])
    block = entry_function(module).body.block
    ops = [op for op in block.ops if op is not return_of(block) and not is_constant(op)]
    found = detach(ops, "dev", "fp32")
    return SegmentContext(found.op, ctx, {"": 17}, {}, tmp_path)


def model_of(context: SegmentContext) -> Any:
    found = segment_model(context)
    assert not isinstance(found, Reason)
    return ir.to_proto(found.model)


def kinds(context: SegmentContext) -> list[str]:
    return [node.op_type for node in model_of(context).graph.node]


def large(segment: SegmentContext, kind: str) -> OnnxOp:
    return next(op for op in segment.op.walk() if isinstance(op, OnnxOp) and op.op_type == kind)


PARTS = ["Transpose", "MatMul", "Mul", "Softmax", "MatMul", "Sigmoid", "Mul"]


def inputs() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def test_the_portable_form_is_what_the_model_had(segment: SegmentContext):
    form = portable_form(segment)
    assert kinds(form) == PARTS
    assert form.opsets == {"": 17}
    np.testing.assert_array_equal(run(model_of(form), inputs()), run(written(), inputs()))
    assert large(segment, "Attention") is not None, "the segment itself is left as it was"


def test_operators_that_a_target_names_stay_and_raise_the_opset_of_their_segment(segment: SegmentContext):
    form = target_form(segment, Named(["Attention"]), DEVICE)
    assert form.has_whole
    assert kinds(form.context) == ["Attention", "Sigmoid", "Mul"]
    assert form.context.opsets == {"": 23}
    form.context.op.verify()
    after = run(model_of(form.context), inputs())
    np.testing.assert_allclose(after, run(written(), inputs()), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("target", [Named([]), Named(["Attention"], ["Attention"])])
def test_what_a_target_does_not_name_or_refuses_is_its_parts(segment: SegmentContext, target: Named):
    form = target_form(segment, target, DEVICE)
    assert not form.has_whole
    assert kinds(form.context) == PARTS


def test_a_segment_that_cannot_be_written_for_a_newer_opset_has_parts_only(segment: SegmentContext):
    block = segment.op.body.block
    swish = large(segment, "Swish")
    # Rounding up means something else since opset 19.
    pool = ops.AveragePool.make(
        [block.args[0]], [block.args[0].type], {"kernel_shape": [1, 1], "ceil_mode": 1}, opset=17
    )
    block.insert_op_before(pool, swish)
    form = target_form(segment, Named(["Attention"]), DEVICE)
    assert not form.has_whole
    assert "Softmax" in kinds(form.context)


def test_a_refusal_of_a_part_is_one_of_the_whole_and_says_so(segment: SegmentContext):
    found = refusals(Named([], ["Softmax"]), [large(segment, "Attention"), large(segment, "Swish")], DEVICE, "fp32")
    assert [None if reason is None else reason.message for reason in found] == ["no Softmax (a part of it)", None]


def test_an_operator_taken_whole_is_not_refused_for_its_parts(segment: SegmentContext):
    target = Named(["Attention"], ["Softmax"])
    attention = large(segment, "Attention")
    assert refusals(target, [attention], DEVICE, "fp32") == [None]
    assert is_whole(target, attention, DEVICE, "fp32")


def test_costs_are_those_of_the_form_that_runs(segment: SegmentContext):
    attention = large(segment, "Attention")
    function = parts_of(attention)
    assert function is not None
    assert op_costs(Named(["Attention"]), [attention], DEVICE, "fp32", {})[0].seconds == SECONDS
    assert op_costs(Named([]), [attention], DEVICE, "fp32", {})[0].seconds == SECONDS * 5


def test_weights_that_parts_lay_out_anew_are_weights_of_what_reads_them():
    """A mixture's parts turn the weights of its experts, which a framework does once, when it loads the model."""
    module, ctx = imported(mixture(activation_type="relu", k=2, bias=False))
    run_passes(module, ctx, ["infer-shapes", WriteOutExpertsPass(keep_parts=True)])
    mixed = next(op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type == "MoE")
    devices = load_topology(Path("examples/topologies/rack.toml")).devices
    gpu = next(device for device in devices if "tensorrt" in device.kind.targets)
    cost = op_costs(registry.load("tensorrt"), [mixed], gpu, "fp32", {"n": 1})[0]
    stored = 2 * EXPERTS * HIDDEN * INNER * 4
    constants = 100
    assert stored <= cost.weight_bytes <= stored + constants
    assert cost.activation_bytes < stored
    function = parts_of(mixed)
    assert function is not None
    left = {op.op_type for op in function.walk() if isinstance(op, OnnxOp)}
    assert "Transpose" in left, "the parts themselves stay as they are"


def test_pricing_leaves_parts_that_have_weights_of_their_own_as_they_are(segment: SegmentContext):
    attention = large(segment, "Attention")
    function = parts_of(attention)
    assert function is not None
    weight = InitializerOp.from_key("w", tensor_type(f32, [2, 3]))
    turned = ops.Transpose.make([weight.results[0]], [tensor_type(f32, [3, 2])], {"perm": [1, 0]}, opset=17)
    first = function.body.block.first_op
    assert first is not None
    function.body.block.insert_ops_before([weight, turned], first)
    before = str(function)
    # The turned weight is one more weight, and no operation.
    assert op_costs(Named([]), [attention], DEVICE, "fp32", {})[0].seconds == SECONDS * 5
    assert str(function) == before


BOTH = {"Attention", "Swish"}


@pytest.mark.parametrize(("name", "whole"), [("onnxruntime", {"Attention"}), ("tensorrt", BOTH), ("sram", BOTH)])
def test_what_the_shipped_targets_take_whole(segment: SegmentContext, name: str, whole: set[str]):
    devices = load_topology(Path("examples/topologies/rack.toml")).devices
    device = next(device for device in devices if name in device.kind.targets)
    form = target_form(segment, registry.load(name), device)
    assert {kind for kind in kinds(form.context) if kind in BOTH} == whole
    assert form.has_whole == bool(whole)


@pytest.mark.parametrize("fuse", [True, False])
def test_numbers_are_those_of_the_model_on_the_host(tmp_path: Path, fuse: bool):
    model = written()
    bundle = gimlet.compile(model, output=tmp_path / "m.gimlet", fuse=fuse)
    assert [segment.ops for segment in bundle.manifest.segments] == [2 if fuse else len(PARTS)]
    with gimlet.load(bundle.path) as program:
        (found,) = program(**inputs()).values()
    np.testing.assert_allclose(found, run(model, inputs()), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "expected"), [("onnxruntime", ["Einsum"]), ("sram", ["Transpose", "MatMul"])])
def test_an_operator_of_the_model_is_its_parts_only_where_it_is_refused(name: str, expected: list[str], tmp_path: Path):
    write = Writer()
    model = write.model({"a": (3, 5), "b": (7, 5)}, write("Einsum", "a", "b", equation="ij,kj->ik"), 17)
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, WriteOutOperatorsPass(keep_parts=True)])
    block = entry_function(module).body.block
    found = detach([op for op in block.ops if op is not return_of(block)], "dev", "fp32")
    context = SegmentContext(found.op, ctx, {"": 17}, {}, tmp_path)
    devices = load_topology(Path("examples/topologies/rack.toml")).devices
    device = next(device for device in devices if name in device.kind.targets)
    assert kinds(target_form(context, registry.load(name), device).context) == expected


def test_a_segment_that_is_not_built_whole_is_built_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = registry.load("onnxruntime")
    emit = type(target).emit
    tried: list[bool] = []

    def refusing(self: Any, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        tried.append("Attention" in kinds(segment))
        return Reason("v5", "no kernel for it") if tried[-1] else emit(self, segment, device, fmt, folder)

    monkeypatch.setattr(type(target), "emit", refusing)
    gimlet.compile(written(), output=tmp_path / "m.gimlet")
    assert tried == [True, False]
