"""Runs a module op by op on the host in float32, with any of its ops rounded as a device would round them.

    run = HostRun(module, ctx, arguments)
    run.values[value]                     # every value of @main, nothing rounded
    run.changed({op: Rounding(...)})      # only what moves when these ops are rounded, to the end of @main

Each op runs in a session of ONNX Runtime of its own, one a signature, so a rounding is exactly where the device has it:
on the operands of an op, before its float32 sums, and on its results.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
    SessionOptions,
)
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, OpResult, SSAValue

from gimlet.compiler.losses.rounding import rounded
from gimlet.compiler.lowering import opsets_of
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, set_value_name, value_name
from gimlet.dialects.onnx.exporter import export_block
from gimlet.dialects.onnx.values import constant_value
from gimlet.passes.entry import describe, entry_function, is_constant, return_of
from gimlet.runtime.errors import InputError
from gimlet.targets.api import Rounding
from gimlet.targets.one_op import is_part_of_model, read_from_outside, signature_of
from gimlet.targets.onnxruntime.kernels import PROVIDER
from gimlet.targets.widen import widen_missing_formats

Array = NDArray[Any]
Kernel = Callable[[Sequence[Array]], Sequence[Array]]
_ERRORS = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)


@dataclass
class HostRun:
    """One run of @main on `arguments`, by the function's arguments.

    InputError, with the op, where something cannot run on the host by itself or a weight has no values.
    """

    module: ModuleOp
    ctx: GimletContext
    arguments: Mapping[SSAValue, Array]
    kernels: dict[Hashable, Kernel] = field(default_factory=dict[Hashable, Kernel])

    @cached_property
    def ops(self) -> list[Operation]:
        """The ops of @main that are run, in their order."""
        block = entry_function(self.module).body.block
        last = return_of(block)
        return [op for op in block.ops if op is not last and not is_constant(op)]

    @cached_property
    def outputs(self) -> tuple[SSAValue, ...]:
        """The floating-point outputs that depend on something."""
        last = return_of(entry_function(self.module).body.block)
        return tuple(value for value in dict.fromkeys(last.operands) if self.values[value].dtype.kind == "f")

    @cached_property
    def values(self) -> dict[SSAValue, Array]:
        """Every value of @main, nothing rounded."""
        found: dict[SSAValue, Array] = dict(self.arguments)
        for op in self.ops:
            self._run(op, found, {}, None)
        for value in return_of(entry_function(self.module).body.block).operands:
            if value not in found:
                found[value] = self._constant(value)
        return found

    def changed(self, roundings: Mapping[Operation, Rounding]) -> dict[SSAValue, Array]:
        """The values that are others than in `values` when ops are rounded."""
        found: dict[SSAValue, Array] = {}
        for op in self.ops:
            rounding = roundings.get(op)
            if rounding is not None or any(value in found for value in read_from_outside(op)):
                self._run(op, found, self.values, rounding)
        return found

    def loss(self, roundings: Mapping[Operation, Rounding]) -> float:
        """The relative error (L2) of the worst floating-point output when ops are rounded; infinite for a NaN."""
        found = self.changed(roundings)
        return max((relative_error(found[v], self.values[v]) for v in self.outputs if v in found), default=0.0)

    @cached_property
    def plain(self) -> dict[SSAValue, Array]:
        """The floating-point outputs, nothing rounded, without keeping anything else."""
        return self.finals({})

    def finals(self, roundings: Mapping[Operation, Rounding]) -> dict[SSAValue, Array]:
        """The floating-point outputs when ops are rounded. A value is dropped when nothing reads it any more."""
        wanted = set(return_of(entry_function(self.module).body.block).operands)
        found: dict[SSAValue, Array] = dict(self.arguments)
        for index, op in enumerate(self.ops):
            self._run(op, found, {}, roundings.get(op))
            for value in self._last_read[index]:
                if value not in wanted:
                    found.pop(value, None)
        return {value: array for value, array in found.items() if value in wanted and array.dtype.kind == "f"}

    @cached_property
    def _last_read(self) -> list[list[SSAValue]]:
        """For each op, the values that it is the last to read."""
        last = {value: index for index, op in enumerate(self.ops) for value in read_from_outside(op)}
        found: list[list[SSAValue]] = [[] for _ in self.ops]
        for value, index in last.items():
            found[index].append(value)
        return found

    def final_loss(self, roundings: Mapping[Operation, Rounding]) -> float:
        """What `loss` gives, in little memory."""
        found = self.finals(roundings)
        return max((relative_error(found[value], array) for value, array in self.plain.items()), default=0.0)

    def own_error(self, op: Operation, rounding: Rounding) -> float:
        """The relative error (L2) of an op's worst floating-point result when it alone is rounded."""
        found: dict[SSAValue, Array] = {}
        self._run(op, found, self.values, rounding)
        floats = [value for value in op.results if found[value].dtype.kind == "f"]
        return max((relative_error(found[value], self.values[value]) for value in floats), default=0.0)

    def _run(
        self, op: Operation, found: dict[SSAValue, Array], known: Mapping[SSAValue, Array], rounding: Rounding | None
    ) -> None:
        if not isinstance(op, OnnxOp):
            raise InputError("what number formats lose is only known of ONNX operations", where=describe(op))
        kernel = self._kernel(op)
        operands: list[Array] = []
        for value in _given(op):
            array = found[value] if value in found else known[value] if value in known else self._constant(value)
            operands.append(array if rounding is None else _rounded_operand(op, value, array, rounding))
        try:
            results = kernel(operands)
        except _ERRORS as error:
            raise InputError(f"cannot run on the host: {error}", where=describe(op)) from error
        for value, array in zip(op.results, results, strict=True):
            found[value] = array if rounding is None else rounded(array, rounding.results or "fp32")

    def _constant(self, value: SSAValue) -> Array:
        array = constant_value(value, self.ctx)
        if array is None:
            raise InputError(
                "what number formats lose is measured with the weights, and these have no values",
                where=value_name(value),
                hint="give the model with its weights, or the formats with --format",
            )
        return array

    def _kernel(self, op: OnnxOp) -> Kernel:
        key = signature_of(op)
        if key not in self.kernels:
            self.kernels[key] = make_kernel(op, opsets_of(self.module), self.ctx)
        return self.kernels[key]


def relative_error(array: Array, reference: Array) -> float:
    """‖array − reference‖ / ‖reference‖; infinite where one is not finite and the other is, or is another shape."""
    if array.shape != reference.shape or not np.array_equal(np.isfinite(array), np.isfinite(reference)):
        return float("inf")
    finite = np.isfinite(reference)
    b = reference[finite].astype(np.float64)
    difference = float(np.linalg.norm(array[finite].astype(np.float64) - b))
    norm = float(np.linalg.norm(b))
    return difference / norm if norm else float("inf") if difference else 0.0


def _given(op: OnnxOp) -> list[SSAValue]:
    """What an op's kernel is called with: all that it reads but the constants that are part of its model."""
    return [value for value in read_from_outside(op) if not is_part_of_model(value)]


def _rounded_operand(op: OnnxOp, value: SSAValue, array: Array, rounding: Rounding) -> Array:
    for index, operand in enumerate(op.operands):
        if operand is value and index < len(rounding.operands):
            fmt = rounding.operands[index]
            axis = rounding.axes[index] if index < len(rounding.axes) else -1
            return array if fmt is None else rounded(array, fmt, axis)
    return array


def make_kernel(op: OnnxOp, opsets: Mapping[str, int], ctx: GimletContext) -> Kernel:
    """A session of one op: the arrays that it reads in, those that it makes out. InputError where there is none."""
    block = Block()
    mapped: dict[SSAValue, SSAValue] = {}
    inputs: list[tuple[str, SSAValue]] = []
    for value in read_from_outside(op):
        if is_part_of_model(value) and isinstance(value, OpResult):
            clone = value.op.clone()
            block.add_op(clone)
            mapped[value] = clone.results[value.index]
        else:
            mapped[value] = block.insert_arg(value.type, len(block.args))
            inputs.append((f"x{len(inputs)}", mapped[value]))
        set_value_name(mapped[value], f"x{len(inputs) - 1}" if mapped[value] in block.args else f"c{len(mapped)}")
    clone = op.clone(value_mapper=mapped)
    block.add_op(clone)
    outputs = [(f"y{index}", result) for index, result in enumerate(clone.results)]
    for name, result in outputs:
        set_value_name(result, name)
    model = export_block(block, inputs, outputs, opsets, ctx, "one")
    reasons = widen_missing_formats(model)
    if reasons:
        raise InputError(f"cannot run on the host: {reasons[0].message}", where=describe(op))
    options = SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=[PROVIDER])
    except _ERRORS as error:
        raise InputError(f"cannot run on the host: {error}", where=describe(op)) from error
    names = [name for name, _ in outputs]
    return lambda arrays: [
        np.asarray(array)
        for array in session.run(names, {name: array for (name, _), array in zip(inputs, arrays, strict=True)})
    ]
