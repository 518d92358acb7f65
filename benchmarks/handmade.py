"""Bundles that are made by hand, so that the runtime is measured and not what the compiler makes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import helper

from gimlet.compiler.bundle import BundleWriter
from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import (
    DeviceEntry,
    Launch,
    Manifest,
    ModelInfo,
    Port,
    Segment,
    TopologyEntry,
    Transfer,
    Value,
    Variant,
)
from gimlet.runtime.tensors import TensorSpec

DTYPES = {1: "float32", 7: "int64"}


def _spec(info: onnx.ValueInfoProto, sizes: dict[str, str]) -> TensorSpec:
    """The spec of a model's input or output; a nameless dimension gets a name of its own."""
    dims: list[Expr] = []
    for axis, dim in enumerate(info.type.tensor_type.shape.dim):
        fixed = dim.HasField("dim_value") and dim.dim_value > 0
        text = str(dim.dim_value) if fixed else sizes.get(dim.dim_param) or f"{info.name.replace('.', '_')}_{axis}"
        dims.append(Expr.parse(text) if fixed else Expr.symbol(text))
    return TensorSpec(info.name, DTYPES[info.type.tensor_type.elem_type], tuple(dims))


def whole_model(model_path: Path, target: Path, *, output_shapes: Sequence[Sequence[str]]) -> Path:
    """A bundle of one CPU segment that holds the whole model. Shapes of outputs are over the inputs' dimensions."""
    model = onnx.load(model_path)
    inputs = tuple(_spec(info, {}) for info in model.graph.input)
    outputs = tuple(
        TensorSpec(info.name, DTYPES[info.type.tensor_type.elem_type], tuple(Expr.parse(dim) for dim in shape))
        for info, shape in zip(model.graph.output, output_shapes, strict=True)
    )
    with BundleWriter(target, force=True) as writer:
        writer.segment_folder("s0").joinpath("model.onnx").write_bytes(model_path.read_bytes())
        variant = Variant("onnxruntime", "fp32", ("segments/s0/model.onnx",))
        names = tuple(spec.name for spec in inputs), tuple(spec.name for spec in outputs)
        writer.commit(
            Manifest(
                producer={"gimlet": "benchmark"},
                model=ModelInfo(model_path.stem, str(model_path.name), ""),
                inputs=tuple(Port(name, name) for name in names[0]),
                outputs=tuple(Port(name, name) for name in names[1]),
                dims={},
                topology=TopologyEntry("host", "cpu", (DeviceEntry("cpu", "host"),)),
                values=tuple(Value(spec.name, spec.name, spec.dtype, spec.shape, "cpu") for spec in inputs + outputs),
                segments=(Segment("s0", "cpu", "fp32", inputs, outputs, (variant,)),),
                steps=(Launch("l0", "s0", *names),),
            )
        )
    return target


def chain(devices: Sequence[str], target: Path, *, width: int = 16) -> Path:
    """A bundle of a chain of segments of one op each, on these devices; all of them run on this CPU."""
    shape = (Expr.symbol("n"), Expr.const(width))
    values = [Value("v0", "v0", "float32", shape, "cpu")]
    segments: list[Segment] = []
    steps: list[Launch | Transfer] = []
    current = values[0]

    def move(value: Value, device: str) -> Value:
        if value.device == device:
            return value
        moved = Value(f"{value.name}@{device}", value.name, "float32", shape, device)
        values.append(moved)
        steps.append(Transfer(f"t{len(steps)}", value.id, moved.id, after=(steps[-1].id,) if steps else ()))
        return moved

    with BundleWriter(target, force=True) as writer:
        for index, device in enumerate(devices):
            current = move(current, device)
            made = Value(f"v{index + 1}", f"v{index + 1}", "float32", shape, device)
            values.append(made)
            ports = [helper.make_tensor_value_info(value.name, 1, ["n", width]) for value in (current, made)]
            graph = helper.make_graph([helper.make_node("Neg", [current.name], [made.name])], "g", ports[:1], ports[1:])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
            path = f"segments/s{index}/model.onnx"
            writer.write_bytes(path, model.SerializeToString())
            variant = Variant("onnxruntime", "fp32", (path,))
            specs = tuple(TensorSpec(value.name, "float32", shape) for value in (current, made))
            segments.append(Segment(f"s{index}", device, "fp32", specs[:1], specs[1:], (variant,)))
            after = (steps[-1].id,) if steps else ()
            steps.append(Launch(f"l{len(steps)}", f"s{index}", (current.id,), (made.id,), after))
            current = made
        output = move(current, "cpu")
        names = dict.fromkeys(["cpu", *devices])
        writer.commit(
            Manifest(
                producer={"gimlet": "benchmark"},
                model=ModelInfo("chain", "none", ""),
                inputs=(Port("x", "v0"),),
                outputs=(Port("y", output.id),),
                dims={},
                topology=TopologyEntry("rack", "cpu", tuple(DeviceEntry(name, "host") for name in names)),
                values=tuple(values),
                segments=tuple(segments),
                steps=tuple(steps),
            )
        )
    return target
