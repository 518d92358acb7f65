"""Puts copies of its body in the place of a loop whose number of turns is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, node_name, ops, opset_in_force, tensor_type
from gimlet.dialects.onnx.exporter import read_opsets
from gimlet.dialects.onnx.names import named_location, proposed_name, set_value_name
from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.entry import entry_function
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.passes.infer_shapes import InferShapesPass
from gimlet.passes.loop_turns import known_turns

MOST_OPS = 2048
"""Operations that all loops of a model may become together."""
_AXES_ARE_AN_INPUT = 13


@dataclass(frozen=True)
class UnrollLoopsPass(ModulePass):
    """Replaces Loops and Scans in @main that take a known number of turns, up to 256, by what each turn computes.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<2x4xf32>) {
        %turns = onnx.initializer {value = dense<2> : tensor<i64>} : tensor<i64>
        %go = onnx.initializer {value = dense<true> : tensor<i1>} : tensor<i1>
        %y, %all = onnx.Loop v16(%turns, %go, %x) body {
        ^bb0(%i: tensor<i64>, %more: tensor<i1>, %a: tensor<4xf32>):
          %b = onnx.Sin v7(%a) : (tensor<4xf32>) -> tensor<4xf32> loc("sin")
          onnx.yield %more, %b, %a : tensor<i1>, tensor<4xf32>, tensor<4xf32>
        } : (tensor<i64>, tensor<i1>, tensor<4xf32>) -> (tensor<4xf32>, tensor<2x4xf32>) loc("steps")
        func.return %y, %all : tensor<4xf32>, tensor<2x4xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<2x4xf32>) {
        %steps$.0$.b = onnx.Sin v7(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("steps/0/sin")
        %y = onnx.Sin v7(%steps$.0$.b) : (tensor<4xf32>) -> tensor<4xf32> loc("steps/1/sin")
        %0 = onnx.initializer {value = dense<0> : tensor<1xi64>} : tensor<1xi64>
        %1 = onnx.Unsqueeze v13(%x, %0) : (tensor<4xf32>, tensor<1xi64>) -> tensor<1x4xf32>
        %2 = onnx.Unsqueeze v13(%steps$.0$.b, %0) : (tensor<4xf32>, tensor<1xi64>) -> tensor<1x4xf32>
        %all = onnx.Concat(%1, %2) {axis = 0} : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<2x4xf32>
        func.return %y, %all : tensor<4xf32>, tensor<2x4xf32>
      }
    }
    ```

    A Loop ends where its trip count or its condition says so: the condition may be computed from constants and the
    number of the turn alone, as that of a `while` over a counter is. Of a Scan the sequences have a known length. What
    is in the bodies is folded and made plain behind it, so that loops inside of loops go as well.

    It must not act on a Loop that may end earlier, on one of no turns that collects something, where the bodies of all
    turns have more operations than `max-ops` together, or before opset 13.

    Requires: the types that infer-shapes gives. Ensures: nothing.
    """

    name = "unroll-loops"

    max_ops: int = MOST_OPS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if not isinstance(ctx, GimletContext):
            raise PassFailedException("unroll-loops needs gimlet's context, which holds the weights")
        function, room = entry_function(op), self.max_ops
        while room > 0 and (used := _unroll_all(function, ctx, read_opsets(op), room)):
            room -= used
            for each in (InferShapesPass(), FoldConstantsPass(), CanonicalizeOnnxPass()):
                each.apply(ctx, op)


def _unroll_all(function: FuncOp, ctx: GimletContext, opsets: Mapping[str, int], room: int) -> int:
    """Unrolls the loops that are not in others; how many operations they became."""
    total = 0
    for op in list(function.body.block.ops):
        if not isinstance(op, OnnxOp) or op.domain or op.op_type not in ("Loop", "Scan"):
            continue
        opset = opset_in_force(op, "")
        turns = known_turns(op, ctx, opsets) if opset is None or opset >= _AXES_ARE_AN_INPUT else None
        size = sum(1 for nested in op.walk() if not isinstance(nested, InitializerOp)) - 1
        if turns is None or turns * size > room - total:
            continue
        loop = _Unrolled(op, turns, opset)
        if turns == 0 and loop.collects:
            continue
        loop.replace()
        total += max(1, turns * size)
    return total


@dataclass
class _Unrolled:
    """A loop, and what is put in its place."""

    loop: OnnxOp
    turns: int
    opset: int | None
    made: list[Operation] = field(default_factory=list[Operation])

    def __post_init__(self) -> None:
        self.body: Block = self.loop.subgraphs["body"].block
        last = self.body.last_op
        if last is None:
            raise PassFailedException(f"the body of {node_name(self.loop) or self.loop.name} is empty")
        self.last = last
        self.is_scan = self.loop.op_type == "Scan"
        self.scanned = int(self.loop.attr("num_scan_inputs", 0)) if self.is_scan else 0
        first = 0 if self.is_scan else 2
        given = list(self.loop.inputs)[first : len(self.loop.inputs) - self.scanned]
        self.carried = [value for value in given if value is not None]
        self.collects = len(self.loop.outputs) - len(self.carried)

    def replace(self) -> None:
        """Puts the turns before the loop, and erases it."""
        carried = list(self.carried)
        collected: list[list[SSAValue]] = [[] for _ in range(self.collects)]
        parts = [self._parts(index) for index in range(self.scanned)]
        for turn in range(self.turns):
            now = self._turn(turn, [*self._numbers(turn), *carried, *(part[turn] for part in parts)])
            carried = now[: len(carried)]
            for values, value in zip(collected, now[len(carried) :], strict=True):
                values.append(value)
        results = [*carried, *(self._stacked(index, values) for index, values in enumerate(collected))]
        Rewriter.insert_op(self.made, InsertPoint.before(self.loop))
        for result, value in zip(self.loop.outputs, results, strict=True):
            if result is not None:
                self._leave(result, value)
        self.loop.detach()
        self.loop.erase()

    def _turn(self, turn: int, given: Sequence[SSAValue]) -> list[SSAValue]:
        """Copies the body; what it carries on and what it collects."""
        values: dict[SSAValue, SSAValue] = dict(zip(self.body.args, given, strict=True))
        for op in self.body.ops:
            if op is self.last:
                break
            copy = op.clone(values)
            for nested in copy.walk():
                _prefix(nested, f"{node_name(self.loop) or self.loop.op_type}/{turn}")
            # A body may be typed for all turns at once.
            for result in copy.results:
                if (known := _without_sizes(result.type)) != result.type:
                    values[op.results[result.index]] = Rewriter.replace_value_with_new_type(result, known)
            self.made.append(copy)
        last = [values.get(value, value) for value in self.last.operands]
        return last if self.is_scan else last[1:]

    def _numbers(self, turn: int) -> list[SSAValue]:
        """The number of the turn, and that it goes on: what the body of a Loop is given first."""
        if self.is_scan:
            return []
        return [self._constant(np.array(turn)), self._constant(np.array(True))]

    def _parts(self, index: int) -> list[SSAValue]:
        """What each turn is given of a sequence."""
        source = self.loop.inputs[len(self.carried) + index]
        dims = None if source is None else dims_of(source)
        if source is None or dims is None:
            raise PassFailedException(f"a sequence of {node_name(self.loop) or self.loop.name} is not known")
        axis = _entry(self.loop.attr("scan_input_axes"), index) % len(dims)
        element = source.type.element_type if isinstance(source.type, TensorType) else None
        part, rest = [*dims[:axis], 1, *dims[axis + 1 :]], [*dims[:axis], *dims[axis + 1 :]]
        sizes = self._constant(np.ones(self.turns, np.int64))
        types = [tensor_type(element, part)] * self.turns
        split = ops.Split.make([source, sizes], types, {"axis": axis}, opset=self.opset)
        self.made.append(split)
        at = self._constant(np.array([axis]))
        found: list[SSAValue] = []
        for value in split.results:
            self.made.append(ops.Squeeze.make([value, at], [tensor_type(element, rest)], opset=self.opset))
            found.append(self.made[-1].results[0])
        return found[::-1] if _entry(self.loop.attr("scan_input_directions"), index) else found

    def _stacked(self, index: int, values: Sequence[SSAValue]) -> SSAValue:
        """What all turns have collected, as one tensor."""
        result = self.loop.outputs[len(self.carried) + index]
        axis = _entry(self.loop.attr("scan_output_axes"), index) if self.is_scan else 0
        if self.is_scan and _entry(self.loop.attr("scan_output_directions"), index):
            values = values[::-1]
        at = self._constant(np.array([axis]))
        items: list[SSAValue] = []
        for value in values:
            known = _without_sizes(value.type)
            self.made.append(ops.Unsqueeze.make([value, at], [known], opset=self.opset))
            items.append(self.made[-1].results[0])
        type_ = _without_sizes(items[0].type) if result is None else _without_sizes(result.type)
        self.made.append(ops.Concat.make(items, [type_], {"axis": axis}, opset=self.opset))
        return self.made[-1].results[0]

    def _leave(self, result: SSAValue, value: SSAValue) -> None:
        """Lets what reads a result of the loop read `value`; a result of the model keeps its type and name."""
        if isinstance(value.owner, Operation) and value.owner in self.made:
            value.name_hint = result.name_hint
        if any(isinstance(use.operation, ReturnOp) for use in result.uses):
            kept = ops.Identity.make([value], [result.type], opset=self.opset)
            Rewriter.insert_op(kept, InsertPoint.before(self.loop))
            value = kept.results[0]
            value.name_hint = result.name_hint
        result.replace_all_uses_with(value)

    def _constant(self, array: np.ndarray) -> SSAValue:
        self.made.append(InitializerOp.from_array(array))
        return self.made[-1].results[0]


def _entry(values: Sequence[int] | None, index: int) -> int:
    """Of a list of a Scan's that may be left out."""
    return int(values[index]) if values else 0


def _without_sizes(type_: Attribute) -> Attribute:
    return tensor_type(type_.element_type, None) if isinstance(type_, TensorType) else type_


def _prefix(op: Operation, prefix: str) -> None:
    if name := node_name(op):
        op.location = named_location(f"{prefix}/{name}", None)
    for value in _values(op):
        if value.name_hint:
            set_value_name(value, f"{prefix}/{proposed_name(value)}")


def _values(op: Operation) -> Iterator[SSAValue]:
    yield from op.results
    for region in op.regions:
        for block in region.blocks:
            yield from block.args
