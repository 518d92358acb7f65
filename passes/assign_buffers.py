"""Lets values of one device that are never alive together share their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, DictionaryAttr, ModuleOp, i64
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx.types import dims_of, element_of
from gimlet.dialects.placement import (
    BUFFERS,
    PEAK_BYTES,
    BufferAttr,
    ExprAttr,
    LaunchOp,
    SegmentOp,
    StateOp,
    StateReadOp,
    StateType,
    StateWriteOp,
    TokenType,
    TransferOp,
)
from gimlet.passes.dim_ranges import read_ranges
from gimlet.passes.entry import describe, entry_function, return_of
from gimlet.runtime.expr import ZERO, Expr, ceildiv, maximum

TYPICAL_SIZE = 128
"""What a dimension without bounds is taken for where two sizes are compared to choose the closer one."""
UNASSIGNED = -1


@dataclass(frozen=True)
class AssignBuffersPass(ModulePass):
    """Assigns a buffer to each result of a launch or transfer; values that cannot be alive together may share one.

    ```mlir
    placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["x"], res_names = ["y"]} {
      %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %y : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %b, %1 = placement.launch async @s0(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
      %c, %2 = placement.launch async @s0(%b) [%1] : (tensor<4xf32>) -> tensor<4xf32>
      %d, %3 = placement.launch async @s0(%c) [%2] : (tensor<4xf32>) -> tensor<4xf32>
      func.return %d : tensor<4xf32>
    }
    ```

    ```mlir
    placement.segment @s0 on @cpu as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["x"], res_names = ["y"]} {
      %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %y : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> attributes {
        placement.buffers = [
          #placement.buffer<@cpu, "16">, #placement.buffer<@cpu, "16">, #placement.buffer<@cpu, "16">],
        placement.peak_bytes = {cpu = #placement.expr<"48">}} {
      %a, %0 = placement.launch async @s0(%x) {placement.buffers = array<i64: 0>} : (tensor<4xf32>) -> tensor<4xf32>
      %b, %1 = placement.launch async @s0(%a) [%0] {placement.buffers = array<i64: 1>}
          : (tensor<4xf32>) -> tensor<4xf32>
      %c, %2 = placement.launch async @s0(%b) [%1] {placement.buffers = array<i64: 0>}
          : (tensor<4xf32>) -> tensor<4xf32>
      %d, %3 = placement.launch async @s0(%c) [%2] {placement.buffers = array<i64: 2>}
          : (tensor<4xf32>) -> tensor<4xf32>
      func.return %d : tensor<4xf32>
    }
    ```

    Launches and transfers run as soon as what they wait for is done, in any order. So a value takes over a buffer only
    if the op that makes it waits, directly or through others, for all ops that use the value there before. A value that
    the function returns has its buffer to itself, and the function's inputs belong to the caller. A state has a
    buffer of its capacity, and so has what is written into it, unless that is done in place. A value whose size is not
    an expression over known dimensions, or that is no tensor, gets none (−1): its executor allocates.

    It must not act where the ops of @main are in no segment: it fails and names one.

    Requires insert-transfers. Ensures `placement.buffers` on every launch, transfer and state, one index a result,
    and on @main the buffers they refer to and `placement.peak_bytes`, the sum of them for each device.
    """

    name = "assign-buffers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        segments = {child.sym_name.data: child for child in op.body.block.ops if isinstance(child, SegmentOp)}
        assigned = _Assignment({name: segment.device_name for name, segment in segments.items()}, _typical_sizes(op))
        assigned.run(function.body.block)
        buffers = [BufferAttr.of(buffer.device, buffer.size) for buffer in assigned.buffers]
        peaks: dict[str, Expr] = {}
        for buffer in assigned.buffers:
            peaks[buffer.device] = peaks.get(buffer.device, ZERO) + buffer.size
        function.attributes[BUFFERS] = ArrayAttr(buffers)
        function.attributes[PEAK_BYTES] = DictionaryAttr({name: ExprAttr(peak) for name, peak in peaks.items()})


@dataclass
class _Buffer:
    """Memory of a device. `busy` are the ops that must be done before it can hold another value, as a bit set."""

    device: str
    sizes: list[Expr]
    busy: int
    shared: bool

    @property
    def size(self) -> Expr:
        largest = self.sizes[0]
        for size in self.sizes[1:]:
            largest = maximum(largest, size)
        return largest

    def hold(self, size: Expr) -> None:
        """Makes room for a value of `size` bytes."""
        if not any(_at_least(known, size) for known in self.sizes):
            self.sizes = [known for known in self.sizes if not _at_least(size, known)] + [size]


@dataclass
class _Assignment:
    """The state of one run over the launches, transfers and states of the function."""

    devices: Mapping[str, str]
    typical: Mapping[str, int]
    buffers: list[_Buffer] = field(default_factory=list[_Buffer])
    index_of: dict[Operation, int] = field(default_factory=dict[Operation, int])
    waits_for: list[int] = field(default_factory=list[int])
    buffer_of: dict[SSAValue, int] = field(default_factory=dict[SSAValue, int])

    def run(self, block: Block) -> None:
        last = return_of(block)
        returned = set(last.operands)
        written = {op.value: op for op in block.ops if isinstance(op, StateWriteOp)}
        for op in block.ops:
            if op is last:
                continue
            if isinstance(op, StateReadOp | StateWriteOp):
                continue
            if not isinstance(op, LaunchOp | TransferOp | StateOp):
                raise PassFailedException(f"{describe(op)} is in no segment: run outline-segments first")
            self._order(op)
        for op in self.index_of:
            results = [result for result in op.results if not isinstance(result.type, TokenType)]
            for result in results:
                write = written.get(result)
                if write is not None and write.in_place is not None:
                    self.buffer_of[result] = self.buffer_of[write.state]
                else:
                    type_ = result.type if write is None else write.state.type
                    alone = write is not None or result in returned or isinstance(type_, StateType)
                    self.buffer_of[result] = self._assign(op, result, type_, alone=alone)
            ids = [self.buffer_of[result] for result in results]
            op.attributes[BUFFERS] = DenseArrayBase.from_list(i64, ids)

    def _order(self, op: Operation) -> None:
        self.index_of[op] = len(self.waits_for)
        waits = 0
        for value in op.operands:
            before = self._maker(value)
            if before is not None:
                waits |= self.waits_for[before] | 1 << before
        self.waits_for.append(waits)

    def _maker(self, value: SSAValue) -> int | None:
        owner = value.owner
        return self.index_of.get(owner) if isinstance(owner, Operation) else None

    def _assign(self, op: Operation, value: SSAValue, type_: Attribute, *, alone: bool) -> int:
        """The buffer of a value, for what `type_` takes; with `alone` no other value shares it."""
        size = bytes_of(type_)
        if size is None:
            return UNASSIGNED
        device = self._device(op)
        busy = 1 << self.index_of[op]
        for use in value.uses:
            busy |= 1 << self.index_of.get(use.operation, self.index_of[op])
        if not alone:
            chosen = self._closest(device, size, self.waits_for[self.index_of[op]])
            if chosen is not None:
                self.buffers[chosen].hold(size)
                self.buffers[chosen].busy = busy
                return chosen
        self.buffers.append(_Buffer(device, [size], busy, shared=not alone))
        return len(self.buffers) - 1

    def _closest(self, device: str, size: Expr, done: int) -> int | None:
        """The free buffer of the device whose size is closest, given which ops are done. None if there is none."""
        free = [
            index
            for index, buffer in enumerate(self.buffers)
            if buffer.shared and buffer.device == device and not buffer.busy & ~done
        ]
        wanted = self._typical_bytes(size)
        return min(
            free,
            key=lambda index: (abs(self._typical_bytes(self.buffers[index].size) - wanted), index),
            default=None,
        )

    def _typical_bytes(self, size: Expr) -> int:
        return size.evaluate({name: self.typical.get(name, TYPICAL_SIZE) for name in size.symbols})

    def _device(self, op: Operation) -> str:
        match op:
            case LaunchOp():
                return self.devices[op.segment_name]
            case TransferOp():
                return op.destination_name
            case StateOp():
                return op.device_name
            case _:
                raise PassFailedException(f"{describe(op)} runs on no device")


def bytes_of(type_: Attribute) -> Expr | None:
    """The bytes that a value takes in memory; None if that is not an expression over known dimensions.

    None as well for elements of less than a byte: how many share one differs between the frameworks, so each allocates.
    """
    if isinstance(type_, StateType):
        dims: tuple[Expr, ...] | None = tuple(Expr.const(size) for size in type_.capacity_shape)
        element = element_of(type_.tensor)
    else:
        dims, element = dims_of(type_), element_of(type_)
    if dims is None or element is None or element.bits < 8:
        return None
    bits = Expr.const(element.bits)
    for dim in dims:
        bits = bits * dim
    return ceildiv(bits, Expr.const(8))


def _at_least(left: Expr, right: Expr) -> bool:
    """Whether `left` is known to be no smaller than `right`, whatever the (positive) dimensions are."""
    terms = (left - right).terms
    return all(
        coefficient > 0 and all(isinstance(atom, str) for atom, _ in monomial) for monomial, coefficient in terms
    )


def _typical_sizes(module: ModuleOp) -> dict[str, int]:
    """The optimum of each dimension that has bounds."""
    return {name: best for name, (_, best, _) in read_ranges(module).items()}
