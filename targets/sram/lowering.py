"""Generates the code of a segment, from its results back to its inputs.

Values are views of tensors that exist, constants, or trees that no kernel computes yet (expression.py). A tree that
several ops read is computed once, when the op that makes it is met; otherwise it is fused into whoever reads it.
Operations that no result depends on (shape arithmetic, mostly) are never met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import prod

import numpy as np
from xdsl.ir import Operation, OpResult, SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, constant_value, dims_of, value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.runtime.expr import ONE, Expr
from gimlet.runtime.sram.program import EVERYWHERE, Operand
from gimlet.targets.sram.builder import Bounds, ProgramBuilder, RefusedError
from gimlet.targets.sram.channels import Windows, crosses, temporary, temporary_for
from gimlet.targets.sram.constants import Array, Constant, Weights
from gimlet.targets.sram.expression import (
    Argument,
    Node,
    Product,
    emit_elementwise,
    is_small,
    nodes_of,
    products_of,
    replaced,
)
from gimlet.targets.sram.precision import MX_ERROR_BUDGET, product_flops, product_types, resident_bytes
from gimlet.targets.sram.tiling import Plan
from gimlet.targets.sram.turns import turns
from gimlet.targets.sram.views import Shape, View

Rule = Callable[["Lowering", OnnxOp], None]
Value = View | Node | Constant | Argument

ELEMENTS: Mapping[str, str] = {
    "float": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "ui8",
    "bool": "i1",
}
"""The element types that the machine has, by ONNX's names of them."""

_INLINE_ELEMENTS = 4096
_CUTS = frozenset({"Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})


def element_type(value: SSAValue) -> str:
    """The machine's name of a value's element type. RefusedError where it has none."""
    element = element_of(value.type)
    if element is None or element.onnx not in ELEMENTS:
        raise RefusedError(f"the machine has no elements of type {value.type}")
    return ELEMENTS[element.onnx]


def vector_type(value: SSAValue) -> str:
    """The element type that a value is computed in: f32 for all floats."""
    dtype = element_type(value)
    return "f32" if dtype in ("f16", "bf16") else dtype


def shape_of(value: SSAValue) -> Shape:
    """The dimensions of a value. RefusedError where one is not known before the op has run."""
    dims = dims_of(value)
    if dims is None:
        raise RefusedError("its shape depends on data: a dimension is not known before it has run")
    return dims


@dataclass
class Lowering:
    """The state of code generation for one segment."""

    builder: ProgramBuilder
    format: str
    ctx: GimletContext | None
    rules: Mapping[str, Rule]
    mx_budget: float = MX_ERROR_BUDGET
    parts: bool = True
    turns: int | None = None
    """On how many more chiplets than could hold their weights the ops are, one after the other (turns.py)."""

    def __post_init__(self) -> None:
        self.weights = Weights(self.builder)
        self.values: dict[SSAValue, Value] = {}
        self.readers: dict[SSAValue, list[Operation]] = {}
        self.positions: dict[tuple[View, Expr], View] = {}
        """Positions in a dimension of a size, counted from the front, by where they are with negative ones."""
        self.packed: dict[tuple[View, str], View] = {}
        self.signed: dict[SSAValue, View] = {}
        """Unsigned integers as the array takes them, 128 less (integers.py)."""
        self.row_sums: dict[View, View] = {}
        self.makers: dict[int, tuple[Value, tuple[OnnxOp, ...]]] = {}
        """Trees that no kernel computes yet and the ops whose results they are, by the tree's id."""
        self.inside: set[OnnxOp] = set()
        """The ops that have to run."""
        self.results: set[SSAValue] = set()
        self.in_place: set[OnnxOp] = set()
        """Ops whose first operand is a state that they change where it lies."""
        self.halves: set[SSAValue] = set()
        """Results of products whose columns are made in two halves, one after the other (stages.py)."""
        self.plan = Plan()
        self.product_types: Mapping[OnnxOp, str] = {}
        self.product_flops: Mapping[str, float] = {}

    @property
    def bounds(self) -> Bounds:
        return self.builder.bounds

    @property
    def activation_type(self) -> str:
        """The element type of operands of products without weights: MXINT8 is for products with weights."""
        return "f32" if self.format == "fp32" else "bf16"

    def product_type(self, op: OnnxOp) -> str:
        """The element type of operands of an op's product with weights (precision.py)."""
        return self.product_types.get(op, self.activation_type)

    def run(self, results: Sequence[SSAValue], given: Sequence[SSAValue], leaves: Callable[[SSAValue], None]) -> None:
        """Generates code for everything that `results` depend on, up to `given`. `leaves` is told of each result."""
        self.results = set(results)
        ops = self._needed(results, set(given))
        self.inside = set(ops)
        self.product_types = product_types(ops, self.format, self.builder.machine, self.bounds.optimum, self.mx_budget)
        resident = [size for op, dtype in self.product_types.items() if (size := resident_bytes({op: dtype}))]
        self.builder.homes.demand = sum(resident) / self.builder.cores
        self.builder.homes.products = len(resident)
        ordered = self._leaving_early(ops)
        more = self.turns
        chiplets = {} if more is None else turns(ordered, self.product_types, self.builder, more)
        for op in ordered:
            self.builder.move_to(chiplets.get(op, EVERYWHERE))
            self.builder.ops = (op,)
            rule = self.rules.get(rule_name(op))
            if rule is None:
                raise RefusedError(f"{op.op_type} has no lowering to the machine")
            for value in op.results:
                self._check_bounded(value)
            rule(self, op)
            for value in op.results:
                if value in self.results:
                    leaves(value)
        self.plan.check_all_used(ops)
        self.product_flops = product_flops(ops, self.product_types, self.activation_type, self.bounds.optimum)

    def _check_bounded(self, value: SSAValue) -> None:
        for dim in dims_of(value) or ():
            for symbol in sorted(dim.symbols - self.bounds.maximum.keys()):
                raise RefusedError(f"dimension {symbol} of {value_name(value)} has no bounds")

    def _leaving_early(self, ops: Sequence[OnnxOp]) -> list[OnnxOp]:
        """The ops in order, but those that only cut and turn what leaves right behind what they read.

        A slice of a cache that is a result would else keep the whole cache in memory until the end.
        """
        tail: set[Operation] = set()
        for op in reversed(ops):
            readers = [reader for value in op.results for reader in self.readers.get(value, ())]
            if op.op_type in _CUTS and not op.domain and all(reader in tail for reader in readers):
                tail.add(op)
        found: dict[OnnxOp, None] = {}
        inside: set[object] = set(ops)

        def place(op: OnnxOp) -> None:
            found[op] = None
            for reader in (each for value in op.results for each in self.readers.get(value, ())):
                if not isinstance(reader, OnnxOp) or reader not in tail or reader in found:
                    continue
                if all(owner in found for each in read_values(reader) if (owner := each.owner) in inside):
                    place(reader)

        for op in ops:
            if op not in tail:
                place(op)
        for op in ops:
            found.setdefault(op)
        return list(found)

    def _needed(self, results: Sequence[SSAValue], given: AbstractSet[SSAValue]) -> list[OnnxOp]:
        """The ops that have to run, in order, and who reads each value (a result of the segment counts as read)."""
        needed: set[Operation] = set()
        pending = list(results)
        while pending:
            value = pending.pop()
            if value in given or not isinstance(value, OpResult) or is_constant(value):
                continue
            op = value.op
            if not isinstance(op, OnnxOp):
                raise RefusedError(f"{op.name} is not an ONNX operation")
            if op in needed:
                continue
            needed.add(op)
            for operand in read_values(op):
                pending.append(operand)
        ordered = [op for op in _block_order(needed) if isinstance(op, OnnxOp)]
        for op in ordered:
            for operand in read_values(op):
                self.readers.setdefault(operand, []).append(op)
        return ordered

    def define(self, value: SSAValue | None, found: Value) -> None:
        """Says what a result is. A tree is computed now if several read it, or if it outgrows one kernel."""
        if value is None:
            return
        self.values[value] = found
        several = len(self.readers.get(value, ())) + (value in self.results) > 1
        if isinstance(found, View | Constant | int | float | Expr):
            return
        self.makers.setdefault(id(found), (found, self.builder.ops))
        if several or not is_small(found):
            self.view(value)

    def get(self, value: SSAValue) -> Value:
        """What a value is: a view, a tree or a constant."""
        if value not in self.values:
            constant = self.constant(value)
            if constant is None:
                element_type(value)
                shape_of(value)
                raise RefusedError("it reads a value that nothing in the segment makes")
            self.values[value] = constant
        return self.values[value]

    def constant(self, value: SSAValue) -> Constant | None:
        """The constant that a value is, if it is one."""
        if not is_constant(value):
            return None
        shape = tuple(dim.as_int() for dim in shape_of(value))
        ctx = self.ctx

        def read() -> Array:
            found = constant_value(value, ctx)
            if found is None:
                raise RefusedError("a weight has a shape but no values: load them before this step")
            return found

        return Constant(constant_key(value), vector_type(value), shape, read)

    def known(self, value: SSAValue | None) -> Array | None:
        """The elements of a small inline constant, or None."""
        return None if value is None else constant_value(value, None, _INLINE_ELEMENTS)

    def argument(self, value: SSAValue) -> Argument:
        """A value as an argument of a vector function: a number where it is one."""
        found = self.get(value)
        if not isinstance(found, Constant):
            return found
        inline = self.known(value)
        if inline is not None and inline.size == 1:
            number = inline.reshape(-1)[0].item()
            return number if found.dtype != "i1" else int(number)
        return self.weights.view(found, found.dtype)

    def view(self, value: SSAValue, dtype: str = "") -> View:
        """A value in memory: where it is already, or computed now into a tensor of its own type (or `dtype`)."""
        found = self.get(value)
        if isinstance(found, View):
            return found
        if isinstance(found, Constant):
            return self.weights.view(found, dtype or found.dtype)
        shape = shape_of(value)
        dtype = dtype or self._storage(value)
        if value in self.results or self._read_across(value):  # It leaves as ONNX has it.
            view = self.builder.temporary(dtype, shape)
            self.emit(found, view)
        else:
            view = self.computed(found, shape, dtype)
        self.values[value] = view
        return view

    def computed(self, argument: Argument, shape: Shape, dtype: str) -> View:
        """A tree in memory, computed now into a new tensor."""
        if isinstance(argument, View) and argument.dtype == dtype and argument.shape == shape:
            return argument
        target = temporary_for(self.builder, dtype, shape, argument)
        self.emit(argument, target)
        return target

    def copied(self, view: View) -> View:
        """The elements of a view in order, in a tensor of their own that lies as ONNX says."""
        target = self.builder.temporary(view.dtype, view.shape)
        emit_elementwise(self.builder, view, target, "copy")
        return target

    def emit(self, argument: Argument, target: View, what: str = "map") -> None:
        """Computes a tree into a view, behind its product if it has one of the same shape."""
        products = products_of(argument)
        behind = products[-1] if products and products[-1].shape == target.shape else None
        others = [each for each in products if each is not behind]
        if others:
            argument = self._replaced(argument, others)
        with self.builder.computing(self._ops_in(argument)):
            if behind is not None and not others:
                behind.emit(argument, target)
            elif behind is not None:
                self.emit(argument, target, what)
            else:
                emit_elementwise(self.builder, argument, target, what)

    def _ops_in(self, root: Argument) -> tuple[OnnxOp, ...]:
        """The ops that a tree computes, in order: those whose results its nodes are, or else the one at work."""
        made = (self.makers.get(id(each)) for each in nodes_of(root))
        return tuple(dict.fromkeys(op for each in made if each for op in each[1])) or self.builder.ops

    def _replaced(self, root: Argument, products: Sequence[Product]) -> Argument:
        """The tree with some of its products computed."""
        known: dict[int, Argument] = {}
        for product in products:
            view = temporary_for(self.builder, product.sums, product.shape, product)
            self.emit(product, view)
            known[id(product)] = view
        found = replaced(root, known)
        for old, new in known.items():
            if old in self.makers and isinstance(new, Node):
                self.makers[id(new)] = new, self.makers[old][1]
        return found

    def operand(self, value: SSAValue, dtype: str) -> View:
        """A value in the element type of a matrix operand, converted if it is in memory in another one."""
        found = self.get(value)
        if isinstance(found, Constant):
            return self.weights.view(found, dtype)
        if not isinstance(found, View):
            found = self.view(value, dtype)
        return self.converted(found, dtype)

    def converted(self, view: View, dtype: str) -> View:
        """A view's elements in another element type, converted at most once."""
        if view.dtype == dtype:
            return view
        key = (view, dtype)
        if key not in self.packed:
            # Blocks that share an exponent lie along the last dimension.
            blocks = dtype == "mxint8"
            target = (
                self.builder.temporary(dtype, view.shape)
                if blocks
                else temporary_for(self.builder, dtype, view.shape, view)
            )
            emit_elementwise(self.builder, view, target, "convert")
            self.packed[key] = target
        return self.packed[key]

    def turned(self, view: View, dtype: str) -> View:
        """A feature map's elements in an element type, with channels last, written at most once."""
        key = (view, f"{dtype} last")
        if key not in self.packed:
            target = temporary(self.builder, dtype, view.shape)
            emit_elementwise(self.builder, view, target, "turn")
            self.packed[key] = target
        return self.packed[key]

    def _read_across(self, value: SSAValue) -> bool:
        """Whether a feature map is read at windows of single channels only, and sooner with channels first."""
        readers = self.readers.get(value, ())
        windows = [windows_of(op, value) if isinstance(op, OnnxOp) else None for op in readers]
        return bool(readers) and all(each is not None and crosses(self.builder, each) for each in windows)

    def _storage(self, value: SSAValue) -> str:
        """f32 for floats, but bf16 where all that read the value are bf16 products.

        Few rows stay f32: what the cores add up is f32, and to round it would take a kernel more than it saves.
        """
        dtype = vector_type(value)
        readers = self.readers.get(value, ())
        if dtype != "f32" or value in self.results or not all(self._rounds(op, value) for op in readers):
            return dtype
        rows = prod(self.bounds.best(size) for size in shape_of(value)[:-1])
        return "bf16" if readers and rows > self.builder.machine.matrix_rows else dtype

    def _rounds(self, op: Operation, value: SSAValue) -> bool:
        """Whether an op reads a value as an operand of a bf16 product, and as nothing else."""
        if not isinstance(op, OnnxOp) or op.domain or self.product_type(op) != "bf16":
            return False
        if op.op_type in ("MatMul", "Gemm"):
            return value in op.inputs[:2] and value not in op.inputs[2:]
        return op.op_type == "Conv" and op in self.product_types and value not in op.inputs[1:]

    def node(
        self,
        function: str,
        arguments: Sequence[Argument],
        shape: Shape,
        dtype: str = "f32",
        parameters: Sequence[float] = (),
    ) -> Node:
        """A vector function of arguments."""
        return Node(function, tuple(arguments), dtype, shape, tuple(parameters))


def windows_of(op: OnnxOp, value: SSAValue) -> Windows | None:
    """How a convolution of single channels reads a value; None for other ops."""
    weight = op.input_at(1) if op.op_type == "Conv" and op.inputs[0] is value else None
    dims = None if weight is None else dims_of(weight)
    if dims is None or dims[1] != ONE or op.attr("group", 1) == 1:
        return None
    strides, dilations = (tuple(op.attr(name) or (1,)) for name in ("strides", "dilations"))
    kernel = tuple(size.as_int() for size in dims[2:])
    return Windows(shape_of(op.results[0]), kernel, int(strides[0]), int(dilations[0]))


def rule_name(op: OnnxOp) -> str:
    """The key of an op's rule: its name, after its domain where that is not ONNX's own."""
    return f"{op.domain}.{op.op_type}" if op.domain else op.op_type


def is_constant(value: SSAValue) -> bool:
    """Whether a value is an initializer's or a Constant's."""
    if not isinstance(value, OpResult) or not isinstance(value.op, OnnxOp):
        return False
    return isinstance(value.op, InitializerOp) or (value.op.op_type == "Constant" and not value.op.domain)


def constant_key(value: SSAValue) -> str:
    """A name that is the same for the same constant only."""
    if isinstance(value, OpResult) and isinstance(value.op, InitializerOp) and value.op.key is not None:
        return value.op.key
    return f"#{id(value)}"


_SHAPE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Slice": (1, 2, 3, 4),
    "Unsqueeze": (1,),
    "Squeeze": (1,),
    "Split": (1,),
    "Tile": (1,),
    "Pad": (1, 3),
    "ConstantOfShape": (0,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "ReduceSum": (1,),
    "ReduceMean": (1,),
    "ReduceMax": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceL2": (1,),
    "ReduceSumSquare": (1,),
    "Shape": (0,),
    "Size": (0,),
}


def read_values(op: OnnxOp) -> list[SSAValue]:
    """The inputs whose elements the code of an op reads: what only says shapes is in the types already."""
    skipped = _SHAPE_OPERANDS.get(op.op_type, ()) if not op.domain else ()
    return [value for index, value in enumerate(op.inputs) if value is not None and index not in skipped]


def _block_order(ops: set[Operation]) -> list[Operation]:
    if len(ops) == 1:  # Every op of a model is estimated alone: not by a walk over all of the model.
        return list(ops)
    blocks = {op.parent for op in ops}
    return [op for block in blocks if block is not None for op in block.ops if op in ops]


def number(value: np.generic | float | int) -> Operand:
    """A Python number of a numpy one."""
    return value.item() if isinstance(value, np.generic) else value
