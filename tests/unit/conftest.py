"""Small bundles made by hand, for tests of what reads and runs bundles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from gimlet.compiler.bundle import BundleWriter
from gimlet.runtime.expr import Expr
from gimlet.runtime.manifest import (
    BufferEntry,
    DeviceEntry,
    DimRange,
    Launch,
    LinkEntry,
    Manifest,
    ModelInfo,
    Port,
    Segment,
    TopologyEntry,
    Transfer,
    Value,
    Variant,
)
from gimlet.runtime.tensors import TensorSpec, onnx_type


@dataclass(frozen=True)
class Part:
    """One segment of a bundle: one ONNX op on values by name, on a device. `weight` is added as its second operand."""

    id: str
    device: str
    op: str
    inputs: tuple[str, ...]
    output: str
    shape: tuple[str | None, ...] | None = ("n", "4")
    dtype: str = "float32"
    weight: tuple[float, ...] | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    variant: Variant | None = None


def dims(shape: Sequence[str | None] | None) -> tuple[Expr | None, ...] | None:
    return None if shape is None else tuple(None if dim is None else Expr.parse(dim) for dim in shape)


class BundleMaker:
    """Writes bundles. Values travel to the device that reads them by transfers that are inserted here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        parts: Sequence[Part],
        *,
        name: str = "m.gimlet",
        inputs: Mapping[str, tuple[str, tuple[str, ...]]] | None = None,
        outputs: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
        buffers: Mapping[str, str] | None = None,
        ranges: Mapping[str, tuple[int, int, int]] | None = None,
        change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
        extra: Mapping[str, bytes] | None = None,
        force: bool = False,
    ) -> Path:
        target = self.folder / name
        given = {"x": ("float32", ("n", "4"))} if inputs is None else inputs
        kinds = {"cpu": "host", **(kinds or {})}
        with BundleWriter(target, force=force) as writer:
            for path, data in (extra or {}).items():
                writer.write_bytes(path, data)
            writer.write_text("module.mlir", "builtin.module {}\n")
            state = _Layout(writer, given, buffers or {})
            for part in parts:
                state.add(part)
            wanted = outputs or [parts[-1].output]
            ports = tuple(Port(value, state.on_device(value, "cpu")) for value in wanted)
            manifest = Manifest(
                producer={"gimlet": "0.1.0"},
                model=ModelInfo("hand-made", "none", "0" * 64),
                inputs=tuple(Port(value, value) for value in given),
                outputs=ports,
                dims={key: DimRange(*value) for key, value in (ranges or {"n": (1, 2, 8)}).items()},
                topology=TopologyEntry(
                    "rack",
                    "cpu",
                    tuple(DeviceEntry(device, kind) for device, kind in kinds.items()),
                    tuple(LinkEntry(f"to-{d}", "pcie5x16", ("cpu", d), 1e-6, 6e10) for d in kinds if d != "cpu"),
                ),
                values=tuple(state.values.values()),
                segments=tuple(state.segments),
                steps=tuple(state.steps),
                buffers=tuple(BufferEntry(b, "cpu", Expr.parse("16*n")) for b in sorted(set((buffers or {}).values()))),
            )
            writer.commit(change(manifest))
        return target


class _Layout:
    """The values, segments and steps of a bundle so far."""

    def __init__(self, writer: BundleWriter, inputs: Mapping[str, tuple[str, tuple[str, ...]]], buffers: Any) -> None:
        self.writer = writer
        self.buffers = buffers
        self.values = {name: Value(name, name, dtype, dims(shape), "cpu") for name, (dtype, shape) in inputs.items()}
        self.maker: dict[str, str] = {}
        self.segments: list[Segment] = []
        self.steps: list[Launch | Transfer] = []

    def on_device(self, name: str, device: str) -> str:
        value = self.values[name]
        if value.device == device:
            return name
        copy = f"{name}@{device}"
        if copy not in self.values:
            self.values[copy] = replace(value, id=copy, device=device, buffer=None)
            step = Transfer(f"t{len(self.steps)}", name, copy, after=self.after([name]))
            self.maker[copy] = step.id
            self.steps.append(step)
        return copy

    def after(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({self.maker[name] for name in names if name in self.maker}))

    def add(self, part: Part) -> None:
        inputs = [self.on_device(name, part.device) for name in part.inputs]
        buffer = self.buffers.get(part.output)
        self.values[part.output] = Value(part.output, part.output, part.dtype, dims(part.shape), part.device, buffer)
        specs = tuple(self.values[name].spec for name in inputs)
        output = TensorSpec(part.output, part.dtype, dims(part.shape))
        files = self.write_model(part, specs, output)
        portable = Variant("onnxruntime", "fp32", files)
        self.segments.append(
            Segment(part.id, part.device, "fp32", specs, (output,), (part.variant or portable,), portable, ops=1)
        )
        launch = Launch(f"l{len(self.steps)}", part.id, tuple(inputs), (part.output,), self.after(inputs))
        self.maker[part.output] = launch.id
        self.steps.append(launch)

    def write_model(self, part: Part, specs: Sequence[TensorSpec], output: TensorSpec) -> tuple[str, ...]:
        weights: list[TensorProto] = []
        files = [f"segments/{part.id}/model.onnx"]
        if part.weight is not None:
            place = self.writer.weights.add(np.array(part.weight, np.float32))
            tensor = TensorProto(name="w", data_type=1, dims=[len(part.weight)], data_location=TensorProto.EXTERNAL)
            for key, value in (("location", place.path), ("offset", place.offset), ("length", place.length)):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            files.append(place.path)
        names = [spec.name for spec in specs] + [tensor.name for tensor in weights]
        node = helper.make_node(part.op, names, [part.output], **dict(part.attributes))
        graph = helper.make_graph([node], part.id, [info(spec) for spec in specs], [info(output)], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.writer.segment_folder(part.id)
        self.writer.write_bytes(files[0], model.SerializeToString())
        return tuple(files)


def info(spec: TensorSpec) -> Any:
    shape = (
        None
        if spec.shape is None
        else [None if d is None else d.as_int() if d.is_constant else str(d) for d in spec.shape]
    )
    return helper.make_tensor_value_info(spec.name, onnx_type(spec.dtype), shape)


@pytest.fixture
def make_bundle(tmp_path: Path) -> BundleMaker:
    """Writes a bundle of the given parts into the test's folder and returns its path."""
    return BundleMaker(tmp_path)


@pytest.fixture
def part() -> type[Part]:
    """The class of a part of `make_bundle`."""
    return Part
