"""What the IR after `split` says, in the manifest's words: values, buffers, steps and the program's ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

from gimlet.dialects.onnx import declared_name, value_name
from gimlet.dialects.onnx.types import MapType, OptionalType, SeqType, element_of, shape_of
from gimlet.dialects.placement import (
    BUFFERS,
    BufferAttr,
    LaunchOp,
    SegmentOp,
    StateOp,
    StateReadOp,
    StateType,
    StateWriteOp,
    TransferOp,
)
from gimlet.passes.assign_buffers import bytes_of
from gimlet.passes.entry import entry_function, return_of
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import ZERO, Expr
from gimlet.runtime.manifest import BufferEntry, Default, DimRange, Launch, Port, StateEntry, Step, Transfer, Value
from gimlet.runtime.tensors import TensorSpec
from gimlet.targets.api import DimBound, Topology


@dataclass
class ManifestParts:
    """The parts of a manifest that come from the IR alone."""

    inputs: list[Port] = field(default_factory=list[Port])
    outputs: list[Port] = field(default_factory=list[Port])
    values: list[Value] = field(default_factory=list[Value])
    buffers: list[BufferEntry] = field(default_factory=list[BufferEntry])
    steps: list[Step] = field(default_factory=list[Step])
    states: list[StateEntry] = field(default_factory=list[StateEntry])


def manifest_parts(
    module: ModuleOp, topology: Topology, bounds: Mapping[str, DimBound], defaults: Mapping[int, Default]
) -> ManifestParts:
    """Reads @main of a module that has been through `assign-buffers`. `defaults` are those of its arguments."""
    return _Reader(module, topology, bounds, defaults).read()


def element_name(type_: Attribute) -> str:
    """The manifest's name of a type: a tensor's element type, else as `runtime.structures` spells it.

    InputError for a value that has no such type: one that no rule infers, or that is sparse.
    """
    if isinstance(type_, SeqType):
        return f"seq({element_name(type_.element)})"
    if isinstance(type_, OptionalType):
        return f"optional({element_name(type_.element)})"
    if isinstance(type_, MapType):
        return f"map({element_name(type_.key)},{element_name(type_.value)})"
    element = element_of(type_)
    if element is None:
        raise InputError(
            f"a value of type {type_} cannot cross between segments",
            hint="keep its producer and consumers on one device, or cast it to a tensor",
        )
    return "string" if element.onnx == "string" else str(element.dtype)


def value_shape(type_: Attribute) -> tuple[Expr | None, ...] | None:
    """The shape of a tensor, or of the tensors in a sequence or an optional."""
    while isinstance(type_, SeqType | OptionalType):
        type_ = type_.element
    return shape_of(type_)


def segment_specs(segment: SegmentOp) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The names, types and shapes at the edge of a segment: its inputs and its outputs."""

    def specs(names: ArrayAttr[StringAttr], types: tuple[Attribute, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name.data, element_name(type_), value_shape(type_))
            for name, type_ in zip(names, types, strict=True)
        )

    outputs = tuple(value.type for value in segment.results_yielded)
    return specs(segment.arg_names, tuple(segment.body.block.arg_types)), specs(segment.res_names, outputs)


class _Reader:
    def __init__(
        self,
        module: ModuleOp,
        topology: Topology,
        bounds: Mapping[str, DimBound],
        defaults: Mapping[int, Default],
    ) -> None:
        self.defaults = defaults
        self.function = entry_function(module)
        self.topology = topology
        self.optimum = {name: bound.optimum for name, bound in bounds.items()}
        self.devices = {op.sym_name.data: op.device_name for op in module.body.block.ops if isinstance(op, SegmentOp)}
        self.parts = ManifestParts()
        self.names: dict[SSAValue, str] = {}
        self.step_of: dict[Operation, str] = {}

    def read(self) -> ManifestParts:
        block = self.function.body.block
        self.read_buffers()
        for index, argument in enumerate(block.args):
            self.add_value(argument, value_name(argument), self.topology.host, None)
            name = _port_name(self.function, index)
            self.parts.inputs.append(Port(name, value_name(argument), self.defaults.get(index)))
        self.read_steps(block)
        for index, value in enumerate(return_of(block).operands):
            name = _port_name(self.function, index, result=True)
            self.parts.outputs.append(Port(name, value_name(value)))
        return self.parts

    def read_buffers(self) -> None:
        buffers = self.function.attributes.get(BUFFERS)
        for index, buffer in enumerate(_buffers(buffers)):
            self.parts.buffers.append(BufferEntry(f"b{index}", buffer.device_name, buffer.size.data))

    def read_steps(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, StateReadOp) and isinstance(op.state.owner, StateOp):
                self.add_value(op.value, value_name(op.value), op.state.owner.device_name, None)
            if isinstance(op, StateWriteOp):
                self.parts.states.append(_state(op))
            if not isinstance(op, LaunchOp | TransferOp):
                continue
            step = f"t{len(self.parts.steps)}"
            self.step_of[op] = step
            after = tuple(
                sorted({self.step_of[token.owner] for token in op.tokens if isinstance(token.owner, Operation)})
            )
            self.parts.steps.append(
                self.launch(op, step, after) if isinstance(op, LaunchOp) else self.transfer(op, step, after)
            )

    def launch(self, op: LaunchOp, step: str, after: tuple[str, ...]) -> Launch:
        device = self.devices[op.segment_name]
        for value, buffer in zip(op.outputs, _buffer_ids(op), strict=True):
            self.add_value(value, value_name(value), device, buffer)
        return Launch(
            step,
            op.segment_name,
            tuple(value_name(value) for value in op.arguments),
            tuple(value_name(value) for value in op.outputs),
            after,
        )

    def transfer(self, op: TransferOp, step: str, after: tuple[str, ...]) -> Transfer:
        (buffer,) = _buffer_ids(op)
        self.add_value(op.copy, self.names[op.value], op.destination_name, buffer)
        size = bytes_of(op.value.type)
        route = tuple(link.string_value() for link in op.route)
        return Transfer(
            step,
            value_name(op.value),
            value_name(op.copy),
            route,
            ZERO if size is None else size,
            after,
            self.transfer_seconds(route, size),
        )

    def transfer_seconds(self, route: tuple[str, ...], size: Expr | None) -> float:
        links = {link.name: link for link in self.topology.links}
        if size is None or not size.symbols <= self.optimum.keys():
            return sum(links[name].latency_s for name in route)
        count = size.evaluate(self.optimum)
        return sum(links[name].latency_s + count / links[name].bandwidth for name in route)

    def add_value(self, value: SSAValue, name: str, device: str, buffer: str | None) -> None:
        self.names[value] = name
        shape = value_shape(value.type)
        self.parts.values.append(Value(value_name(value), name, element_name(value.type), shape, device, buffer))


def _state(write: StateWriteOp) -> StateEntry:
    state, type_ = write.state.owner, write.state.type
    if not isinstance(state, StateOp) or not isinstance(type_, StateType):
        raise InputError("a state that no placement.state makes is written")
    reads = [use.operation for use in write.state.uses if isinstance(use.operation, StateReadOp)]
    return StateEntry(
        name=state.state_name.data,
        result=state.result_name.data,
        read=value_name(reads[0].value),
        written=value_name(write.value),
        capacity=type_.capacity_shape,
        in_place=write.in_place is not None,
    )


def _buffers(attribute: Attribute | None) -> list[BufferAttr]:
    found = attribute.data if isinstance(attribute, ArrayAttr) else ()
    return [item for item in found if isinstance(item, BufferAttr)]


def _buffer_ids(op: Operation) -> list[str | None]:
    assigned = op.attributes.get(BUFFERS)
    if not isinstance(assigned, DenseArrayBase):
        return [None] * (len(op.results) - 1)
    return [f"b{index}" if index >= 0 else None for index in assigned.get_values()]


def _port_name(function: FuncOp, index: int, *, result: bool = False) -> str:
    attributes = function.res_attrs if result else function.arg_attrs
    name = declared_name(attributes.data[index]) if attributes is not None else ""
    return name or (f"output_{index}" if result else value_name(function.body.block.args[index]))


def dim_ranges(bounds: Mapping[str, DimBound]) -> dict[str, DimRange]:
    """The ranges of dimensions as the manifest writes them."""
    return {name: DimRange(bound.minimum, bound.optimum, bound.maximum) for name, bound in sorted(bounds.items())}
