"""Models as one segment for the SRAM target, run on the emulator and compared with ONNX Runtime."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region
from xdsl.passes import ModulePass

from gimlet.compiler.hardware import load_kind
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import dtype_of, shape_of
from gimlet.dialects.onnx.exporter import function_inputs, function_outputs, read_opsets
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.placement import SegmentOp, YieldOp
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.sram import SramExecutor
from gimlet.runtime.tensors import TensorSpec, type_name
from gimlet.targets.api import Artifact, Device, DimBound, Reason, SegmentContext
from gimlet.targets.sram.target import SramTarget

DEVICE = Device("sram0", load_kind("d-matrix/corsair"))


def device(**options: Any) -> Device:
    """The reference part with some of its options changed."""
    kind = load_kind("d-matrix/corsair")
    return Device("sram0", replace(kind, options={**kind.options, **options}))


def tensor(name: str, array: np.ndarray) -> TensorProto:
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str]]],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model with inputs of (element type, shape), and outputs whose types are left open."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [tensor(name, array) for name, array in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def segment_of(
    model: onnx.ModelProto,
    bounds: Mapping[str, tuple[int, int, int]] | None = None,
    fmt: str = "fp32",
    passes: Sequence[ModulePass] = (),
) -> SegmentContext:
    """The whole model as one segment, after the passes of `normalize` and others."""
    ctx = GimletContext()
    module = import_model(ir.from_proto(model), ctx)
    run_passes(module, ctx, [*NORMALIZE, *passes])
    main = next(op for op in module.body.block.ops if isinstance(op, FuncOp) and op.sym_name.data == "main")
    inputs, outputs = function_inputs(main), function_outputs(main)
    block = Block(arg_types=[value.type for _, value in inputs])
    for (_, value), argument in zip(inputs, block.args, strict=True):
        value.replace_all_uses_with(argument)
    for op in tuple(main.body.block.ops):
        if isinstance(op, ReturnOp):
            block.add_op(YieldOp(op.operands))
        else:
            op.detach()
            block.add_op(op)
    names = [name for name, _ in inputs], [name for name, _ in outputs]
    segment = SegmentOp("s0", "sram0", fmt, Region(block), *names)
    ModuleOp([segment], attributes=dict(module.attributes))
    ranges = {name: DimBound(*sizes) for name, sizes in (bounds or {}).items()}
    return SegmentContext(segment, ctx, read_opsets(module), ranges, Path(tempfile.gettempdir()))


def emit(segment: SegmentContext, fmt: str, folder: Path, on: Device = DEVICE) -> Artifact | Reason:
    return SramTarget().emit(segment, on, fmt, folder)


class Runner:
    """A segment on the emulator."""

    def __init__(self, segment: SegmentContext, fmt: str, on: Device = DEVICE) -> None:
        op = segment.op
        inputs = [_spec(name.data, value) for name, value in zip(op.arg_names, op.body.block.args, strict=True)]
        outputs = [_spec(name.data, value) for name, value in zip(op.res_names, op.results_yielded, strict=True)]
        self.names = [spec.name for spec in outputs]
        # The mapped weights stay readable after the folder is gone.
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            found = emit(segment, fmt, root, on)
            assert isinstance(found, Artifact), str(found)
            self.artifact = found
            artifact = SegmentArtifact(
                "s0", fmt, root, found.files, tuple(inputs), tuple(outputs), lambda name: root / name
            )
            self.executor = SramExecutor.load(artifact, DeviceSpec("sram0", "example/sram"))

    def __call__(self, **inputs: np.ndarray) -> list[np.ndarray]:
        bindings = self.executor.bind(inputs, dict.fromkeys(self.names))
        self.executor.submit(bindings)
        return [np.asarray(bindings.output(name)) for name in self.names]


def _spec(name: str, value: Any) -> TensorSpec:
    return TensorSpec(name, type_name(dtype_of(value.type)), shape_of(value))


def reference(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference over the norm of what is expected."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.linalg.norm(a - b) / max(1e-30, np.linalg.norm(b)))
