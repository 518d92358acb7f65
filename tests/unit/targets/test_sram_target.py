"""The SRAM target: what it refuses and why, what it costs, and what it writes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import DEVICE, Runner, device, emit, model_of, reference, relative_error, segment_of
from tests.unit.targets.test_sram_models import BLOCK_BOUNDS, CONV_BOUNDS, conv_net, transformer_block

import gimlet
from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.work import work_of
from gimlet.dialects.sram.assembly import assemble, disassemble
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.errors import InputError
from gimlet.runtime.sram.encoding import dumps, loads
from gimlet.targets.api import Artifact, Device, Reason, Rounding
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.context import runs
from gimlet.targets.sram.target import PROGRAM_FILE, WEIGHTS_FILE, SramTarget, machine_of

F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
RACK = Path(__file__).parents[3] / "examples" / "topologies" / "rack.toml"
TARGET = SramTarget()


def ops_of(segment) -> list[OnnxOp]:
    return [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp)]


def first(model, kind: str) -> OnnxOp:
    """The op of a kind, in a segment that stays alive with it."""
    segment = segment_of(model)
    KEPT.append(segment)
    return next(op for op in ops_of(segment) if op.op_type == kind)


KEPT: list[object] = []


def one(op: str, inputs, weights=None, outputs=1, opset=17, **attributes):
    names = [*inputs, *(weights or {})]
    made = helper.make_node(op, names, [f"y{index}" for index in range(outputs)], name=f"/{op}", **attributes)
    return model_of([made], inputs, [f"y{index}" for index in range(outputs)], weights, opset)


X4 = {"x": (F, [1, 4, 8, 8])}
MATRICES = {"a": (TensorProto.INT32, [3, 4]), "b": (TensorProto.INT32, [4, 5])}
KERNEL = {"x": (F, [1, 4, 8, 8]), "w": (F, [4, 4, 3, 3])}


def scaled(*factors: float) -> dict[str, np.ndarray]:
    """The second and third input of Resize."""
    return {"r": np.zeros(0, np.float32), "s": np.array([1, 1, *factors], np.float32)}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one("NonZero", {"x": (F, ["n"])}), "NonZero has no lowering to the machine"),
        (one("Det", {"x": (F, [3, 3])}), "Det has no lowering to the machine"),
        (one("Sin", {"x": (TensorProto.DOUBLE, [3])}), "the machine has no elements of type"),
        (one("Conv", KERNEL), "the weights of Conv are computed, they must be constant"),
        (one("MaxPool", X4, outputs=2, kernel_shape=[2, 2]), "the indices of MaxPool are not generated"),
        (one("Dropout", {"x": (F, [4])}, outputs=2), "the mask of Dropout is not generated"),
        (one("Resize", X4, scaled(1.5, 2)), "whole factors only"),
        (one("Resize", X4, scaled(2, 2), mode="linear"), "this one is linear"),
        (one("Pad", X4, {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, mode="reflect"), "Pad in mode reflect"),
        (one("ReduceSum", {"x": (F, [3, 4]), "axes": (I, [1])}), "the axes of ReduceSum are computed|depends on data"),
        (one("GatherND", {"x": (F, [2, 3, 4]), "i": (I, [2, 1])}, batch_dims=1), "GatherND with batch dimensions"),
        (
            one("LayerNormalization", {"x": (F, [3, 4]), "s": (F, [4])}, outputs=2),
            "the mean and deviation of LayerNormalization are not generated",
        ),
        (one("MatMul", MATRICES), "MatMul of i32 is not generated"),
        (
            one("ConvTranspose", X4, {"w": np.zeros((4, 2, 3, 3), np.float32)}, auto_pad="SAME_UPPER", strides=[2, 2]),
            "ConvTranspose is generated with explicit pads only",
        ),
        (
            one("Attention", {n: (F, [1, 2, 5, 8]) for n in "qkv"}, outputs=4, opset=23),
            "the scores of Attention are not generated",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.graph.node[0].op_type,
)  # fmt: skip
def test_refusals_say_why(model, message):
    refused = TARGET.refuses(first(model, model.graph.node[0].op_type), DEVICE, "fp32")
    assert isinstance(refused, Reason)
    assert refused.op == f"/{model.graph.node[0].op_type}"
    assert any(part in refused.message for part in message.split("|"))


def test_what_is_taken_is_not_refused():
    for model in (conv_net(), transformer_block()):
        segment = segment_of(model)
        for fmt in TARGET.formats(DEVICE):
            assert [TARGET.refuses(op, DEVICE, fmt) for op in ops_of(segment)] == [None] * len(ops_of(segment))


def test_a_window_larger_than_the_size_that_is_tried_first_is_taken():
    """Whether there is a program is asked at some size of each dynamic dimension, at which the window must fit."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[160])
    model = model_of([node], {"x": (F, ["batch", 1, "length"])}, ["y"], {"w": np.ones((4, 1, 320), np.float32)})
    assert TARGET.refuses(first(model, "Conv"), DEVICE, "fp32") is None


@pytest.mark.parametrize(
    ("bounds", "on", "message"),
    [
        ({"batch": (1, 1, 3)}, DEVICE, "dimension width of x has no bounds|dimension width"),
        (CONV_BOUNDS, device(cores=1, chiplets=1, sram_bytes_per_core=1 << 20, lpddr_bytes=1000), "its tensors take"),
        (CONV_BOUNDS, device(sram_bytes_per_core=1 << 14), "more than half of a core's"),
    ],
)
def test_segments_that_do_not_fit(tmp_path, bounds, on, message):
    refused = emit(segment_of(conv_net(), bounds), "fp32", tmp_path, on)
    assert isinstance(refused, Reason)
    assert any(part in refused.message for part in message.split("|"))
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_the_device_lacks(tmp_path):
    on = device(row_cycles={"f32": 8.0})
    assert TARGET.formats(on) == ("fp32",)
    refused = emit(segment_of(conv_net(), CONV_BOUNDS), "bf16", tmp_path, on)
    assert isinstance(refused, Reason)
    assert "does not compute in bf16" in refused.message


def test_emit_is_deterministic_and_says_what_it_made(tmp_path):
    folders, model = [tmp_path / name for name in ("a", "b")], conv_net()
    found = [emit(segment_of(model, CONV_BOUNDS), "bf16", folder) for folder in folders]
    assert found[0] == found[1]
    assert isinstance(found[0], Artifact)
    assert found[0].files == (PROGRAM_FILE, WEIGHTS_FILE)
    for name in found[0].files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    facts = found[0].facts
    assert facts["cycles"] > 0
    assert facts["seconds"] == facts["cycles"] / 1.2e9
    assert facts["weight_bytes"] <= facts["sram_bytes"] + facts["lpddr_bytes"]
    assert sum(facts["products"].values()) == pytest.approx(1, abs=1e-3)
    assert facts["products"]["bf16"] > 0.5


@pytest.mark.parametrize("model", [conv_net(), transformer_block()], ids=["conv", "block"])
def test_the_text_of_a_program_assembles(tmp_path, model):
    bounds = CONV_BOUNDS if model.graph.node[0].op_type == "Conv" else BLOCK_BOUNDS
    emit(segment_of(model, bounds), "mxint8", tmp_path)
    program = loads((tmp_path / PROGRAM_FILE).read_text())
    op = disassemble(program)
    op.verify()
    assert assemble(op) == program
    assert dumps(assemble(op)) == (tmp_path / PROGRAM_FILE).read_text()


@pytest.mark.parametrize("fmt", ["fp32", "mxint8"])
def test_an_output_layer_may_share_the_weights_of_the_embedding(fmt):
    """The transpose of a constant is packed as weights are, and stays where it is used."""
    table = (np.arange(300 * 128).reshape(300, 128) % 17 - 8).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    model = model_of(nodes, {"ids": (I, [2])}, ["y"], {"table": table})
    runner = Runner(segment_of(model), fmt)
    resident = [tensor for tensor in runner.executor.program.tensors if tensor.space == "core"]
    assert [tensor.dtype for tensor in resident] == [{"fp32": "f32", "mxint8": "mxint8"}[fmt]]
    ids = np.array([7, 299])
    # Small integers are exact in both formats.
    np.testing.assert_array_equal(runner(ids=ids)[0], reference(model, ids=ids)[0])


@pytest.mark.parametrize("kind", ["groq/lpu-v1", "tenstorrent/blackhole-p150"])
@pytest.mark.parametrize(("fmt", "limit"), [("fp32", 1e-5), ("mxint8", 0.03)])
def test_other_parts_run_the_same_models(kind, fmt, limit):
    """Four arrays of 320 × 320, and 140 of 32 × 64: other programs, the same numbers."""
    model = transformer_block()
    on = Device("sram0", load_kind(kind))
    runner = Runner(segment_of(model, BLOCK_BOUNDS), fmt, on)
    x = np.random.default_rng(0).standard_normal((2, 20, 192)).astype(np.float32)
    assert relative_error(runner(x=x)[0], reference(model, x=x)[0]) < limit
    assert runner.executor.program.machine == machine_of(on.kind)
    assert runner.executor.program.cores == on.kind.options["cores"]


def test_weights_are_stored_once_and_in_their_format(tmp_path):
    """The matrix of two products is one tensor; bf16 takes 2 bytes of it."""
    matrix = np.ones((256, 256), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = model_of(nodes, {"x": (F, [4, 256])}, ["y"], {"w": matrix})
    found = emit(segment_of(model), "bf16", tmp_path)
    assert isinstance(found, Artifact)
    assert found.facts["weight_bytes"] == (tmp_path / WEIGHTS_FILE).stat().st_size == 2 * 256 * 256


def test_a_matrix_unit_is_never_faster_than_the_kinds_peak():
    machine = machine_of(DEVICE.kind)
    for fmt, dtype in (("mxint8", "mxint8"), ("bf16", "bf16"), ("fp32", "f32")):
        assert machine.flops(dtype) <= DEVICE.kind.peak[fmt] * (1 + 1e-9)


@given(
    m=st.integers(1, 2000),
    k=st.integers(1, 2000),
    n=st.integers(1, 2000),
    fmt=st.sampled_from(["fp32", "bf16", "mxint8"]),
)
@settings(max_examples=25, deadline=None)
def test_a_cost_is_never_below_the_roof(m, k, n, fmt):
    """The roof is from the IR's shapes and the hardware file: operations over the peak, weights over SRAM's rate."""
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, [m, k])}, ["y"], {"w": np.zeros((k, n), np.float32)}
    )
    op = first(model, "MatMul")
    cost = TARGET.op_cost(op, DEVICE, fmt, {})
    amounts = work_of(op).at({}, {"fp32": 32, "bf16": 16, "mxint8": 8.25}[fmt])
    kind = DEVICE.kind
    assert cost.seconds >= amounts.flops / kind.peak[fmt]
    assert cost.seconds >= amounts.weight_read / kind.memory[0].bandwidth
    assert cost.weight_bytes >= amounts.weight_read
    KEPT.clear()


def test_costs_grow_with_dimensions_and_are_remembered():
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (F, ["seq", 512])},
        ["y"],
        {"w": np.zeros((512, 2048), np.float32)},
    )
    op = first(model, "MatMul")
    small, large = (TARGET.op_cost(op, DEVICE, "bf16", {"seq": size}) for size in (16, 4096))
    assert large.seconds > small.seconds
    assert large.activation_bytes > small.activation_bytes
    assert small.joules == pytest.approx(small.seconds * 550)
    assert TARGET.op_cost(op, DEVICE, "bf16", {"seq": 16}) is small


def test_views_cost_nothing():
    model = model_of([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], {"x": (F, [30, 40])}, ["y"])
    assert TARGET.op_cost(first(model, "Transpose"), DEVICE, "fp32", {}).seconds == 0


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
def test_a_segment_costs_what_its_ops_do_and_one_launch(fmt):
    """An op costs what it adds among others: alone the ops of this block took 1.04 to 1.2 of what they take in it."""
    segment = segment_of(transformer_block(), BLOCK_BOUNDS)
    ops = [op for op in ops_of(segment) if not is_constant(op)]
    sizes = {"batch": 1, "seq": 32}
    apart = sum(cost.seconds for cost in TARGET.op_costs(ops, DEVICE, fmt, sizes))
    together = TARGET.estimate(ops, DEVICE, fmt, sizes).seconds - DEVICE.kind.segment_overhead_s
    assert apart == pytest.approx(together, rel=0.01)


def test_runs_of_ops_cost_what_the_segment_does(monkeypatch):
    """Also where it is cut into several, each of which begins with a few ops of the one before."""
    monkeypatch.setattr("gimlet.targets.sram.context._LONGEST_RUN", 8)
    segment = segment_of(transformer_block(), BLOCK_BOUNDS)
    ops = [op for op in ops_of(segment) if not is_constant(op)]
    sizes = {"batch": 1, "seq": 32}
    assert len(list(runs(ops, sizes))) > 2
    apart = sum(cost.seconds for cost in SramTarget().op_costs(ops, DEVICE, "fp32", sizes))
    together = TARGET.estimate(ops, DEVICE, "fp32", sizes).seconds - DEVICE.kind.segment_overhead_s
    assert apart == pytest.approx(together, rel=0.1)


def test_what_is_fused_costs_what_it_adds():
    segment = segment_of(conv_net(), CONV_BOUNDS)
    ops = [op for op in ops_of(segment) if not is_constant(op)]
    costs = dict(zip(ops, TARGET.op_costs(ops, DEVICE, "fp32", {"batch": 1, "width": 64}), strict=True))
    relu = next(op for op in ops if op.op_type == "Relu")
    alone = TARGET.op_cost(relu, DEVICE, "fp32", {"batch": 1, "width": 64})
    assert 0 < costs[relu].seconds < 0.3 * alone.seconds
    assert costs[relu].joules == pytest.approx(costs[relu].seconds * 550)


def test_views_cost_what_their_copies_add():
    """A turned tensor is read where it lies, but flattened in another order only from a copy."""
    model = model_of(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            helper.make_node("Reshape", ["t", "flat"], ["r"]),
            helper.make_node("Relu", ["r"], ["y"]),
        ],
        {"x": (F, [64, 32, 48])},
        ["y"],
        {"flat": np.array([32, 64 * 48], np.int64)},
    )
    ops = [op for op in ops_of(segment_of(model, {})) if not is_constant(op)]
    costs = {op.op_type: cost.seconds for op, cost in zip(ops, TARGET.op_costs(ops, DEVICE, "fp32", {}), strict=True)}
    together = TARGET.estimate(ops, DEVICE, "fp32", {}).seconds - DEVICE.kind.segment_overhead_s
    assert sum(costs.values()) == pytest.approx(together, rel=0.01)
    assert costs["Transpose"] == 0
    assert 0 < costs["Reshape"] < together


def test_a_run_without_a_program_is_priced_in_halves(monkeypatch):
    def refusing(work, machine, fmt):
        if len(work.outputs) > 2:
            raise RefusedError("too much")
        return generate(work, machine, fmt)

    monkeypatch.setattr("gimlet.targets.sram.target.generate", refusing)
    kinds = ["Relu", "Sigmoid", "Tanh", "Exp", "Neg"]
    nodes = [helper.make_node(kind, ["x"], [f"y{index}"]) for index, kind in enumerate(kinds)]
    ops = ops_of(segment_of(model_of(nodes, {"x": (F, [64, 64])}, [f"y{index}" for index in range(5)]), {}))
    costs = SramTarget().op_costs(ops, DEVICE, "fp32", {})
    assert len(costs) == len(ops) == 5
    assert all(cost.seconds > 0 for cost in costs)


def test_layers_that_are_alike_are_priced_once(monkeypatch):
    """Runs end where the fewest values cross, so that those of equal layers are equal."""
    width, layers = 64, 12
    nodes = []
    for layer in range(layers):
        names = [f"{layer}.{index}" for index in range(7)]
        nodes.append(helper.make_node("MatMul", [f"h{layer}", "w"], [names[0]]))
        nodes += [helper.make_node("Sigmoid", [names[index]], [names[index + 1]]) for index in range(6)]
        nodes.append(helper.make_node("Add", [f"h{layer}", names[6]], [f"h{layer + 1}"]))
    model = model_of(nodes, {"h0": (F, [8, width])}, [f"h{layers}"], {"w": np.zeros((width, width), np.float32)})
    ops = [op for op in ops_of(segment_of(model, {})) if not is_constant(op)]
    found = list(runs(ops, {}))
    assert [len(run.ops) for run in found] == [32, 32, 32]
    assert [op for run in found for op in run.ops] == ops
    works: list[str] = []

    def counted(work, machine, fmt):
        works.append(work.name)
        return generate(work, machine, fmt)

    monkeypatch.setattr("gimlet.targets.sram.target.generate", counted)
    SramTarget().op_costs(ops, DEVICE, "fp32", {})
    assert len(works) == 2  # Only the first has no ops before it.


def test_what_is_built_says_what_it_costs_and_is_generated_once(tmp_path, monkeypatch):
    """Of the program that runs, and not of one more that is generated to know."""
    calls: list[str] = []

    def counted(work, machine, fmt):
        calls.append(work.name)
        return generate(work, machine, fmt)

    monkeypatch.setattr("gimlet.targets.sram.target.generate", counted)
    path = tmp_path / "net.onnx"
    onnx.save(conv_net(), path)
    result = gimlet.compile(
        str(path),
        topology=RACK,
        pins={".*": "sram0"},
        # Placement prices the optimum, and a program for more rows may have more copies of its weights.
        bind={name: str(best) for name, (_, best, _) in CONV_BOUNDS.items()},
        output=tmp_path / "net.gimlet",
    )
    (segment,) = result.manifest.segments
    assert [name for name in calls if name != "estimate"] == [segment.id]
    program = loads(open_bundle(result.path).open_file(segment.variants[0].files[0]).read_text())
    assert segment.weight_bytes == sum(each.capacity_bytes for each in program.tensors if each.role == "weight")
    artifact = emit(segment_of(conv_net(), CONV_BOUNDS), "fp32", tmp_path)
    assert isinstance(artifact, Artifact)
    assert artifact.cost is not None
    assert artifact.cost.seconds == artifact.facts["seconds"] + DEVICE.kind.segment_overhead_s


def test_what_is_alike_is_estimated_once(monkeypatch):
    """Large operators of many layers are; what reads other sizes is not alike."""
    calls: list[str] = []

    def counted(work, machine, fmt):
        calls.append(work.name)
        return generate(work, machine, fmt)

    monkeypatch.setattr("gimlet.targets.sram.target.generate", counted)
    target = SramTarget()
    found = [
        target.estimate([op for op in ops_of(segment_of(conv_net(), CONV_BOUNDS)) if not is_constant(op)], DEVICE, *how)
        for how in (("fp32", {"batch": 1, "width": 64}),) * 2 + (("fp32", {"batch": 1, "width": 96}),)
    ]
    assert len(calls) == 2
    assert found[0] == found[1]
    assert found[2].activation_bytes > found[0].activation_bytes


def test_a_budget_that_is_no_number(tmp_path):
    with pytest.raises(InputError, match="mx_error_budget must be a number from 0 to 1"):
        emit(segment_of(conv_net(), CONV_BOUNDS), "mxint8", tmp_path, device(mx_error_budget="much"))


def test_inputs_that_only_say_shapes_are_not_read():
    """The target of a Reshape may be computed elsewhere: what it is, the types say."""
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    model = model_of(nodes, {"x": (F, ["n", 6]), "shape": (I, [2])}, ["z"])
    model.graph.value_info.append(helper.make_tensor_value_info("y", F, ["n", 6]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", F, ["n", 6]))
    runner = Runner(segment_of(model, {"n": (1, 2, 9)}), "fp32")
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    shape = np.array([4, 6])
    np.testing.assert_array_equal(runner(x=x, shape=shape)[0], reference(model, x=x, shape=shape)[0])


def test_outputs_that_are_inputs_weights_and_each_other(tmp_path: Path):
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["x"], ["b"]),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Identity", ["w"], ["d"]),
        helper.make_node("Transpose", ["b"], ["e"], perm=[1, 0]),
    ]
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = model_of(nodes, {"x": (F, [2, 3])}, list("abcde"), {"w": w})
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    runner = Runner(segment_of(model), "bf16")
    for found, expected in zip(runner(x=x), reference(model, x=x), strict=True):
        np.testing.assert_array_equal(found, expected)


WIDE = {"w": np.ones((256, 128), np.float32)}


@pytest.mark.parametrize(
    ("model", "kind", "fmt", "expected"),
    [
        (one("MatMul", {"x": (F, [2, 256])}, WIDE), "MatMul", "fp32", None),
        (one("MatMul", {"x": (F, [2, 256])}, WIDE), "MatMul", "bf16", Rounding(("bf16",) * 2, axes=(-1, -2))),
        (one("MatMul", {"x": (F, [2, 256])}, WIDE), "MatMul", "mxint8", Rounding(("mxint8",) * 2, axes=(-1, -2))),
        (one("Gemm", {"x": (F, [256, 2])}, WIDE, transA=1), "Gemm", "mxint8", Rounding(("mxint8",) * 2, axes=(0, 0))),
        (
            one("MatMul", {"x": (F, [2, 256]), "w": (F, [256, 128])}),
            "MatMul",
            "mxint8",
            Rounding(("bf16",) * 2, axes=(-1, -2)),
        ),
        (
            one("Conv", {"x": (F, [1, 64, 8, 8])}, {"w": np.ones((64, 64, 3, 3), np.float32)}),
            "Conv",
            "mxint8",
            Rounding(("mxint8",) * 2, axes=(1, 1)),
        ),
        (one("Conv", X4, {"w": np.ones((4, 4, 1, 1), np.float32)}), "Conv", "mxint8", None),
        (one("Relu", X4), "Relu", "bf16", None),
    ],
)
def test_what_a_format_rounds_where_placement_decides(model, kind: str, fmt: str, expected: Rounding | None):
    assert TARGET.rounding(first(model, kind), DEVICE, fmt, GimletContext()) == expected


def test_where_placement_decides_no_product_falls_back_to_bf16():
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(6)]
    weights = {f"w{n}": np.ones((256, 256), np.float32) for n in range(6)}
    model = model_of(nodes, {"x0": (F, [8, 256])}, ["x6"], weights)
    ops = ops_of(segment_of(model))
    ops = [op for op in ops if op.op_type == "MatMul"]
    plain, decided = (TARGET.estimate(ops, found, "mxint8", {}) for found in (DEVICE, TARGET.deciding(DEVICE)))
    assert decided.weight_bytes < plain.weight_bytes
