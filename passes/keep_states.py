"""Takes the states out of the arguments and results of @main: they stay on their devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import OpResult, SSAValue, Use
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx import OnnxOp, declared_name, value_name
from gimlet.dialects.placement import LaunchOp, SegmentOp, StateOp, StateReadOp, StateType, StateWriteOp
from gimlet.passes.dim_ranges import Range, read_ranges
from gimlet.passes.entry import entry_function, return_of
from gimlet.passes.state_pairs import IN_PLACE, StatePair, capacity_of, is_read_for_sizes, state_pairs


@dataclass(frozen=True)
class KeepStatesPass(ModulePass):
    """Makes a `placement.state` of each argument and result of @main that are one, on the device of their users.

    ```mlir
    placement.segment @s0 on @cpu as "fp32" (%sum: tensor<4xf32>, %x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["sum", "x"], res_names = ["total"]} {
      %total = onnx.Add(%sum, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      placement.yield %total : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>, %sum: tensor<4xf32> {placement.state = "sum"})
        -> (tensor<4xf32> {placement.state = "sum"}) {
      %total, %0 = placement.launch async @s0(%sum, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      func.return %total : tensor<4xf32>
    }
    ```

    ```mlir
    placement.segment @s0 on @cpu as "fp32" (%sum: tensor<4xf32>, %x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["sum", "x"], res_names = ["total"]} {
      %total = onnx.Add(%sum, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      placement.yield %total : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) {
      %0 = placement.state "sum" to "total" on @cpu : !placement.state<tensor<4xf32>, [4]>
      %sum = placement.state_read %0 : !placement.state<tensor<4xf32>, [4]> -> tensor<4xf32>
      %total, %1 = placement.launch async @s0(%sum, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
      placement.state_write %0, %total : !placement.state<tensor<4xf32>, [4]>, tensor<4xf32>
      func.return
    }
    ```

    A state is written in place where the op that makes what is written was found to do that (`mark-in-place`), in the
    one segment that reads the state; elsewhere the op's mark goes. One that grows has another shape behind a run than
    before it, so that the runtime keeps two: there the mark says that the segment may leave what is there on its
    device. The capacity is that of the dimensions at their largest.

    It must not act on a state that no op reads, that no op makes anew, whose users are on several devices, that may
    grow without bounds, or that has no element: it fails and names the state.

    Requires outline-segments. Where @main has no states it changes nothing.
    """

    name = "keep-states"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        pairs = state_pairs(function)
        if not pairs:
            return
        segments = {child.sym_name.data: child for child in op.body.block.ops if isinstance(child, SegmentOp)}
        ranges = read_ranges(op)
        for pair in pairs:
            _keep(function, pair, segments, ranges)
        _shorten(function, pairs)


def _keep(function: FuncOp, pair: StatePair, segments: Mapping[str, SegmentOp], ranges: Mapping[str, Range]) -> None:
    device = _device(pair, segments)
    capacity = capacity_of(pair.argument.type, ranges)
    if capacity is None or not isinstance(pair.argument.type, TensorType):
        raise PassFailedException(
            f"state {pair.name!r} may grow without bounds: {pair.argument.type}; bind its dimensions with --bind"
        )
    if 0 in capacity:
        raise PassFailedException(f"state {pair.name!r} has room for nothing: {pair.argument.type}")
    block = function.body.block
    result_name = _result_name(function, pair)
    state = StateOp(pair.name, result_name, device, StateType.of(pair.argument.type, capacity))
    read = StateReadOp(state.state, pair.argument.type)
    first = block.first_op
    if first is not None:
        block.insert_ops_before([state, read], first)
    read.value.name_hint = pair.argument.name_hint
    pair.argument.replace_all_uses_with(read.value)
    write = StateWriteOp(state.state, pair.result, in_place=_is_in_place(read.value, pair.result, segments))
    block.insert_op_before(write, return_of(block))


def _result_name(function: FuncOp, pair: StatePair) -> str:
    results = list(function.res_attrs or ())
    return declared_name(results[pair.result_index]) or value_name(pair.result)


def _device(pair: StatePair, segments: Mapping[str, SegmentOp]) -> str:
    """The one device of the launches that read a state and of the one that makes what it becomes."""
    readers = [use.operation for use in pair.argument.uses if isinstance(use.operation, LaunchOp)]
    if not readers:
        raise PassFailedException(f"state {pair.name!r} is not used: no op reads it")
    maker = pair.result.owner
    if not isinstance(maker, LaunchOp):
        raise PassFailedException(
            f"state {pair.name!r} is never changed: what it becomes is made by no op of its device"
        )
    homes = {launch.segment_name: segments[launch.segment_name].device_name for launch in (*readers, maker)}
    if len(set(homes.values())) > 1:
        ends = ", ".join(f"@{segment} on @{device}" for segment, device in homes.items())
        raise PassFailedException(
            f"state {pair.name!r} would have to move between devices: it is used by {ends}; pin them to one device"
        )
    return next(iter(homes.values()))


def _is_in_place(held: SSAValue, written: SSAValue, segments: Mapping[str, SegmentOp]) -> bool:
    launch = written.owner
    if not isinstance(written, OpResult) or not isinstance(launch, LaunchOp):
        return False
    made = segments[launch.segment_name].results_yielded[written.index].owner
    if not isinstance(made, OnnxOp) or IN_PLACE not in made.attributes:
        return False
    inside = {_inside(use, segments): use.operation for use in held.uses}
    read = {value: operation for value, operation in inside.items() if not is_read_for_sizes(value)}
    if read == {made.operands[0]: launch}:
        return inside == read and held.type == written.type
    del made.attributes[IN_PLACE]
    return False


def _inside(use: Use, segments: Mapping[str, SegmentOp]) -> SSAValue:
    """What a launch's operand is in its segment; anything else that is used stays what it is."""
    launch = use.operation
    if not isinstance(launch, LaunchOp):
        return launch.operands[use.index]
    return segments[launch.segment_name].body.block.args[use.index]


def _shorten(function: FuncOp, pairs: list[StatePair]) -> None:
    """Takes the states from the function's signature."""
    block = function.body.block
    last = return_of(block)
    arguments, results = {pair.argument_index for pair in pairs}, {pair.result_index for pair in pairs}
    function.arg_attrs = _without(function.arg_attrs, arguments)
    function.res_attrs = _without(function.res_attrs, results)
    last.operands = [value for index, value in enumerate(last.operands) if index not in results]
    for index in sorted(arguments, reverse=True):
        block.erase_arg(block.args[index])
    function.update_function_type()


def _without(attributes: ArrayAttr[DictionaryAttr] | None, gone: set[int]) -> ArrayAttr[DictionaryAttr] | None:
    if attributes is None:
        return None
    kept = [each for index, each in enumerate(attributes) if index not in gone]
    return ArrayAttr(kept) if any(each.data for each in kept) else None
