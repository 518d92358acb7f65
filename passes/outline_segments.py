"""Splits a placed function into segments and their launches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx.names import assign_names, value_name
from gimlet.dialects.placement import (
    DEVICE,
    FORMAT,
    SEGMENT_HINT,
    SETTINGS,
    TARGET,
    LaunchOp,
    SegmentOp,
    TopologyOp,
    TransferOp,
    YieldOp,
    completion_of,
)
from gimlet.passes.entry import describe, entry_function, is_constant, only_topology, return_of
from gimlet.passes.partition import frontier_colours, partition

DEFAULT_FORMAT = "fp32"
DEFAULT_HOST = "cpu"


class Colour(NamedTuple):
    """What the ops of one segment have in common."""

    device: str
    number_format: str
    target: str
    hint: Attribute | None
    settings: Attribute | None = None


@dataclass(frozen=True)
class OutlineSegmentsPass(ModulePass):
    """Moves the ops of @main into segments, one device, number format and target each, and launches them in @main.

    ```mlir
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %a = onnx.Relu(%x) {placement.device = @gpu0} : (tensor<4xf32>) -> tensor<4xf32>
      %b = onnx.Exp(%a) {placement.device = @cpu} : (tensor<4xf32>) -> tensor<4xf32>
      func.return %b : tensor<4xf32>
    }
    ```

    ```mlir
    placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["x"], res_names = ["a"]} {
      %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %a : tensor<4xf32>
    }
    placement.segment @s1 on @cpu as "fp32" (%a: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["a"], res_names = ["b"]} {
      %b = onnx.Exp(%a) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %b : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %a, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %b, %1 = placement.launch async @s1(%a) [%0] : (tensor<4xf32>) -> tensor<4xf32>
      func.return %b : tensor<4xf32>
    }
    ```

    The graph of segments has no cycle, and as few segments as can be found. Ops with the same `placement.segment` hint
    stay together as far as that allows, and apart from the others; where all have one, segments are launched in the
    order of their hints, as far as values allow. A segment keeps its ops' hint: by it placement knows the segment
    again. With `keep_schedule` ops share a segment only where no value is made later for it, however long each op
    takes. Constants are copied into every segment that uses them.

    It must not act on a function that is split already, on ops without a device, or on a group of devices: it fails and
    names the op.

    Requires `placement.device` on every op of @main but constants; `placement.format` is fp32 where it is absent, and
    without `placement.target` the device's first target that has the format compiles the segment. Ops with other
    `placement.settings` are in other segments, and a segment keeps those of its ops.
    Ensures that @main holds launches only, each after those whose results it uses, and waits for their tokens.
    """

    name = "outline-segments"

    keep_schedule: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        topology = only_topology(op)
        for child in function.body.block.ops:
            if isinstance(child, LaunchOp | TransferOp):
                raise PassFailedException(f"@main is split into segments already: it has a {child.name}")
        assign_names(op)
        _Outliner(op, function, topology).run(self.keep_schedule)


@dataclass
class _Outliner:
    """The state of one run: which segment each op is in, and what has become of each value of the function."""

    module: ModuleOp
    function: FuncOp
    topology: TopologyOp | None
    ops: list[Operation] = field(default_factory=list[Operation])
    index_of: dict[Operation, int] = field(default_factory=dict[Operation, int])
    segment_of: list[int] = field(default_factory=list[int])
    launched: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def run(self, keep_schedule: bool) -> None:
        block = self.function.body.block
        last = return_of(block)
        self.ops = [op for op in block.ops if op is not last and not is_constant(op)]
        self.index_of = {op: index for index, op in enumerate(self.ops)}
        colours = [self._colour(op) for op in self.ops]
        self._partition(colours, keep_schedule)
        members: list[list[Operation]] = [[] for _ in range(max(self.segment_of, default=-1) + 1)]
        for op, segment in zip(self.ops, self.segment_of, strict=True):
            members[segment].append(op)
        results = [self._results(index, ops) for index, ops in enumerate(members)]
        for index, ops in enumerate(members):
            self._outline(f"s{index}", colours[self.index_of[ops[0]]], ops, results[index])
        self._outline_constants(f"s{len(members)}")
        for index, value in enumerate(last.operands):
            last.operands[index] = self.launched.get(value, value)
        for op in list(block.ops):
            if is_constant(op):
                block.erase_op(op)

    def _colour(self, op: Operation) -> Colour:
        device = op.attributes.get(DEVICE)
        if not isinstance(device, SymbolRefAttr):
            raise PassFailedException(f"{describe(op)} has no {DEVICE}: run place-by-cost first")
        name = device.string_value()
        if self.topology is not None:
            if name in self.topology.groups:
                raise PassFailedException(
                    f"{describe(op)} is placed on group @{name}: programs for groups are not made yet, name a device"
                )
            if name not in self.topology.devices:
                raise PassFailedException(
                    f"{describe(op)} is placed on @{name}, which topology @{self.topology.sym_name.data} does not have"
                )
        return Colour(
            name,
            _text(op, FORMAT, DEFAULT_FORMAT),
            _text(op, TARGET, ""),
            op.attributes.get(SEGMENT_HINT),
            op.attributes.get(SETTINGS),
        )

    def _partition(self, colours: list[Colour], keep_schedule: bool) -> None:
        block = self.function.body.block
        predecessors: list[list[int]] = []
        arrivals: list[list[int]] = []
        for index, op in enumerate(self.ops):
            values = [value for _, _, value in _outer_uses(op)]
            before = sorted({maker for value in values if (maker := self._maker(value)) is not None})
            if before and before[-1] >= index:
                raise PassFailedException(f"{describe(op)} uses a value before the op that makes it")
            predecessors.append(before)
            arrivals.append(
                [value.index for value in values if isinstance(value, BlockArgument) and value.owner is block]
            )
        if not keep_schedule:
            self.segment_of = partition(colours, predecessors, order=_hints(colours))
            return
        departures: list[list[int]] = [[] for _ in self.ops]
        for position, value in enumerate(return_of(block).operands):
            maker = self._maker(value)
            if maker is not None:
                departures[maker].append(position)
        frontier = frontier_colours(colours, predecessors, arrivals, departures)
        self.segment_of = partition(frontier, predecessors, merge=False)

    def _maker(self, value: SSAValue) -> int | None:
        owner = value.owner
        return self.index_of.get(owner) if isinstance(owner, Operation) else None

    def _results(self, segment: int, ops: list[Operation]) -> list[SSAValue]:
        """The values of a segment that are used elsewhere."""
        block = self.function.body.block
        found: list[SSAValue] = []
        for op in ops:
            for result in op.results:
                users = (block.find_ancestor_op_in_block(use.operation) for use in result.uses)
                indices = (None if user is None else self.index_of.get(user) for user in users)
                if any(index is None or self.segment_of[index] != segment for index in indices):
                    found.append(result)
        return found

    def _outline(self, name: str, colour: Colour, ops: list[Operation], results: list[SSAValue]) -> None:
        body = Block()
        inside = set(ops)
        entered: dict[SSAValue, SSAValue] = {}
        arguments: list[SSAValue] = []
        for op in ops:
            for user, index, value in list(_outer_uses(op)):
                if value.owner in inside:
                    continue
                if value not in entered:
                    entered[value] = _enter(value, body, arguments)
                user.operands[index] = entered[value]
            op.detach()
            for key in (DEVICE, FORMAT, TARGET, SETTINGS, SEGMENT_HINT):
                op.attributes.pop(key, None)
            body.add_op(op)
        self._launch(name, colour, body, arguments, results)

    def _outline_constants(self, name: str) -> None:
        """Constants that the function returns as they are come from a segment on the host."""
        block = self.function.body.block
        operands = dict.fromkeys(return_of(block).operands)
        constants = [value for value in operands if isinstance(value, OpResult) and is_constant(value.op)]
        if not constants:
            return
        host = DEFAULT_HOST if self.topology is None else self.topology.host_name
        body = Block()
        clones = {value: _enter(value, body, []) for value in constants}
        for value, clone in clones.items():
            clone.name_hint = value.name_hint
        self._launch(name, Colour(host, DEFAULT_FORMAT, "", None), body, [], list(clones.values()))
        outputs = [self.launched[clone] for clone in clones.values()]
        self.launched.update(zip(constants, outputs, strict=True))

    def _launch(
        self,
        name: str,
        colour: Colour,
        body: Block,
        arguments: list[SSAValue],
        results: list[SSAValue],
    ) -> None:
        body.add_op(YieldOp(results))
        arg_names, res_names = [value_name(value) for value in arguments], [value_name(value) for value in results]
        segment = SegmentOp(
            name, colour.device, colour.number_format, Region(body), arg_names, res_names, colour.target
        )
        if colour.settings is not None:
            segment.attributes[SETTINGS] = colour.settings
        if colour.hint is not None:
            segment.attributes[SEGMENT_HINT] = colour.hint
        self.module.body.block.insert_op_before(segment, self.function)
        values = [self.launched.get(value, value) for value in arguments]
        tokens = dict.fromkeys(token for value in values if (token := completion_of(value)) is not None)
        launch = LaunchOp(name, values, list(tokens), [value.type for value in results])
        block = self.function.body.block
        block.insert_op_before(launch, return_of(block))
        for value, output in zip(results, launch.outputs, strict=True):
            output.name_hint = value.name_hint
            self.launched[value] = output


def _hints(colours: Sequence[Colour]) -> list[int] | None:
    """The number of each op's segment, where placement has given one to all of them."""
    hints = [colour.hint.value.data for colour in colours if isinstance(colour.hint, IntegerAttr)]
    return hints if len(hints) == len(colours) else None


def _text(op: Operation, key: str, default: str) -> str:
    found = op.attributes.get(key)
    return found.data if isinstance(found, StringAttr) else default


def _enter(value: SSAValue, body: Block, arguments: list[SSAValue]) -> SSAValue:
    """What stands for `value` in a segment: a copy of the constant, or a new argument, noted in `arguments`."""
    if isinstance(value, OpResult) and is_constant(value.op):
        clone = value.op.clone()
        body.add_op(clone)
        return clone.results[value.index]
    argument = body.insert_arg(value.type, len(body.args))
    argument.name_hint = value.name_hint
    arguments.append(value)
    return argument


def _outer_uses(op: Operation) -> Iterator[tuple[Operation, int, SSAValue]]:
    """The operands of an op, and in its regions those that come from outside of it: who uses them, and where."""
    for index, value in enumerate(op.operands):
        yield op, index, value
    for region in op.regions:
        for nested in region.walk():
            for index, value in enumerate(nested.operands):
                if not op.is_ancestor(value.owner):
                    yield nested, index, value
