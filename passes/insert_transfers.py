"""Moves values to the device that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx.names import decode_name, set_value_name
from gimlet.dialects.placement import (
    LaunchOp,
    SegmentOp,
    StateOp,
    StateReadOp,
    StateWriteOp,
    TopologyOp,
    TransferOp,
    completion_of,
)
from gimlet.passes.entry import describe, entry_function, only_topology, return_of

ROUTED_BYTES: Final = 1 << 20
"""The transfer that routes are the quickest for: 1 MiB, as the placement that chose the devices assumes."""


@dataclass(frozen=True)
class InsertTransfersPass(ModulePass):
    """Transfers each value in @main to every device that uses it, along the quickest route of links.

    ```mlir
    placement.topology @rack {
      placement.device @cpu {kind = "host"}
      placement.device @gpu0 {kind = "nvidia/l4"}
      placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie4x16"}
    }
    placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["x"], res_names = ["y"]} {
      %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %y : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %y, %0 = placement.launch async @s0(%x) : (tensor<4xf32>) -> tensor<4xf32>
      func.return %y : tensor<4xf32>
    }
    ```

    ```mlir
    placement.topology @rack {
      placement.device @cpu {kind = "host"}
      placement.device @gpu0 {kind = "nvidia/l4"}
      placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie4x16"}
    }
    placement.segment @s0 on @gpu0 as "fp32" (%x: tensor<4xf32>) -> tensor<4xf32>
        attributes {arg_names = ["x"], res_names = ["y"]} {
      %y = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
      placement.yield %y : tensor<4xf32>
    }
    func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
      %x.gpu0, %0 = placement.transfer async %x from @cpu to @gpu0 route [@pcie0] : tensor<4xf32>
      %y, %1 = placement.launch async @s0(%x.gpu0) [%0] : (tensor<4xf32>) -> tensor<4xf32>
      %y.cpu, %2 = placement.transfer async %y [%1] from @gpu0 to @cpu route [@pcie0] : tensor<4xf32>
      func.return %y.cpu : tensor<4xf32>
    }
    ```

    Inputs enter on the host of the topology and outputs leave there. A value is transferred once for each device that
    uses it, as soon as it is there. The route is the quickest for 1 MiB where all links say how fast they are, else the
    one of fewest links. Weights are in the segments, and are not transferred.

    What a state holds is where the state is, and what is written into it goes there; the state itself does not move.

    It must not act where a value would have to take a route that the links do not form: it fails and names both
    devices. Where all is on one device it changes nothing.

    Requires outline-segments, and one topology. Ensures that every launch finds its arguments on its own device.
    """

    name = "insert-transfers"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        function = entry_function(op)
        topology = only_topology(op)
        if topology is None:
            raise PassFailedException("the module has no placement.topology: there is nothing to find a route in")
        segments = {child.sym_name.data: child for child in op.body.block.ops if isinstance(child, SegmentOp)}
        _Transfers(topology, segments).run(function.body.block)


@dataclass
class _Transfers:
    """The state of one run: the device of each value, and the copy of each value on a device."""

    topology: TopologyOp
    segments: dict[str, SegmentOp]
    copies: dict[tuple[SSAValue, str], SSAValue] = field(default_factory=dict[tuple[SSAValue, str], SSAValue])
    routes: dict[tuple[str, str], list[str]] = field(default_factory=dict[tuple[str, str], list[str]])

    def run(self, block: Block) -> None:
        last = return_of(block)
        for op in list(block.ops):
            if isinstance(op, LaunchOp):
                device = self._segment_of(op).device_name
                arguments = [self._on(value, device, op) for value in op.arguments]
                _replace_launch(op, arguments)
            elif isinstance(op, StateWriteOp):
                op.operands[1] = self._on(op.value, _device_of(op.state), op)
            elif not isinstance(op, TransferOp | StateOp | StateReadOp) and op is not last:
                raise PassFailedException(f"{describe(op)} is in no segment: run outline-segments first")
        for index, value in enumerate(last.operands):
            last.operands[index] = self._on(value, self.topology.host_name, last)

    def _segment_of(self, launch: LaunchOp) -> SegmentOp:
        return self.segments[launch.segment_name]

    def _home(self, value: SSAValue) -> str:
        """The device that a value is made on."""
        match value.owner:
            case LaunchOp() as launch:
                return self._segment_of(launch).device_name
            case TransferOp() as transfer:
                return transfer.destination_name
            case StateReadOp() as read:
                return _device_of(read.state)
            case _:
                return self.topology.host_name

    def _on(self, value: SSAValue, device: str, user: Operation) -> SSAValue:
        """The copy of `value` on `device`: itself where it is there."""
        home = self._home(value)
        if home == device:
            return value
        key = (value, device)
        if key not in self.copies:
            self.copies[key] = self._transfer(value, home, device, user)
        return self.copies[key]

    def _transfer(self, value: SSAValue, home: str, device: str, user: Operation) -> SSAValue:
        token = completion_of(value)
        transfer = TransferOp(value, [] if token is None else [token], home, device, self._route(home, device, user))
        if value.name_hint is not None:
            set_value_name(transfer.copy, f"{decode_name(value.name_hint)}.{device}")
        self._place(transfer, value)
        return transfer.copy

    def _place(self, transfer: TransferOp, value: SSAValue) -> None:
        """Puts the transfer behind what makes the value, and behind the other transfers of what is made there."""
        block = value.owner if isinstance(value.owner, Block) else value.owner.parent
        if block is None:
            return
        position = block.first_op if isinstance(value.owner, Block) else value.owner.next_op
        while isinstance(position, TransferOp) and position.value.owner is value.owner:
            position = position.next_op
        if position is not None:
            block.insert_op_before(transfer, position)

    def _route(self, source: str, destination: str, user: Operation) -> list[str]:
        key = (source, destination)
        if key not in self.routes:
            route = quickest_route(self.topology, source, destination)
            if route is None:
                raise PassFailedException(
                    f"{describe(user)} needs a value on @{destination} that is on @{source}, and the links of topology "
                    f"@{self.topology.sym_name.data} do not join the two: add a link"
                )
            self.routes[key] = route
        return self.routes[key]


def _device_of(state: SSAValue) -> str:
    return state.owner.device_name if isinstance(state.owner, StateOp) else ""


def quickest_route(topology: TopologyOp, source: str, destination: str) -> list[str] | None:
    """The names of the links from one device to another; None if they are not joined.

    Where every link says how fast it is, those over which `ROUTED_BYTES` take the least time, one link after the other.
    Of equally quick routes, and where speeds are not known, the one of fewest links, then the one whose links are
    written first.
    """
    links = list(topology.links.values())
    speeds = [link.speed for link in links]
    seconds = [0.0 if speed is None else speed[0] + ROUTED_BYTES / speed[1] for speed in speeds]
    if None in speeds:
        seconds = [0.0] * len(links)
    queue: list[tuple[float, int, tuple[int, ...], str]] = [(0.0, 0, (), source)]
    reached: set[str] = set()
    while queue:
        elapsed, hops, path, here = heappop(queue)
        if here == destination:
            return [links[index].sym_name.data for index in path]
        if here in reached:
            continue
        reached.add(here)
        for index, link in enumerate(links):
            if here in link.between:
                first, second = link.between
                there = second if here == first else first
                heappush(queue, (elapsed + seconds[index], hops + 1, (*path, index), there))
    return None


def _replace_launch(launch: LaunchOp, arguments: Sequence[SSAValue]) -> None:
    """Gives the launch its arguments and lets it wait for them, and for what it waited for besides."""
    if tuple(arguments) == tuple(launch.arguments):
        return
    made = {completion_of(value) for value in launch.arguments}
    kept = [token for token in launch.tokens if token not in made]
    needed = [token for value in arguments if (token := completion_of(value)) is not None]
    tokens = list(dict.fromkeys([*needed, *kept]))
    moved = LaunchOp(launch.segment_name, arguments, tokens, [output.type for output in launch.outputs])
    moved.attributes = launch.attributes
    block = launch.parent
    if block is None:
        return
    block.insert_op_before(moved, launch)
    for old, new in zip(launch.results, moved.results, strict=True):
        new.name_hint = old.name_hint
        old.replace_all_uses_with(new)
    block.erase_op(launch)
