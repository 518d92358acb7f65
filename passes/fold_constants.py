"""Computes what depends on constants alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.transforms.dead_code_elimination import is_trivially_dead
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, dtype_of, element_bits, ops, tensor_type, value_name
from gimlet.dialects.onnx.exporter import export_block, read_opsets
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES
from gimlet.dialects.onnx.weights import Weight
from gimlet.passes.canonicalize_onnx import plain_cast
from gimlet.passes.entry import entry_function, is_constant
from gimlet.passes.symbolic_shapes import analyse_shapes
from gimlet.passes.widen import widened
from gimlet.runtime.errors import GimletError
from gimlet.runtime.expr import Expr

Array = np.ndarray[Any, Any]
# What onnx's reference implementation raises for what it does not implement, or for values that are not valid.
_REFERENCE_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, GimletError)
# What a quantised model stores its weights with: frameworks look for these operators in front of others.
_STORAGE = frozenset({"DequantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """Replaces operations in @main whose results are known by those results.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xf32> {
        %shape = onnx.Shape v15(%x) : (tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xi64>
        %one = onnx.initializer {value = dense<1> : tensor<i64>} : tensor<i64>
        %four = onnx.Gather v13(%shape, %one) : (tensor<2xi64>, tensor<i64>) -> tensor<i64>
        %f = onnx.Cast v13(%four) {to = 1} : (tensor<i64>) -> tensor<f32>
        %c = onnx.initializer {value = dense<[1.0, 2.0]> : tensor<2xf32>} : tensor<2xf32>
        %y = onnx.Mul v14(%f, %c) : (tensor<f32>, tensor<2xf32>) -> tensor<2xf32>
        func.return %y : tensor<2xf32>
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {
      func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<2xf32> {
        %y = onnx.initializer {value = dense<[4.0, 8.0]> : tensor<2xf32>} : tensor<2xf32>
        func.return %y : tensor<2xf32>
      }
    }
    ```

    A result is known if all inputs are constants, or if it follows from the sizes of dimensions. The values are those
    of onnx's reference implementation; half precision is computed in float32 and rounded once an operation. Results of
    more than `max-bytes` bytes, random numbers and weights without data are left alone, and so are operators that
    quantise and an operation that the reference does not implement. A weight that is only read transposed is transposed
    in the store, whatever its size, when somebody reads it.

    Requires: the types that infer-shapes gives. Ensures: no operation is left whose results nobody reads.
    """

    name = "fold-constants"

    max_bytes: int = 1 << 20

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if not isinstance(ctx, GimletContext):
            raise PassFailedException("fold-constants needs gimlet's context, which holds the weights")
        function = entry_function(op)
        for value, elements in analyse_shapes(op, function).integers.items():
            _fold_known_integers(value, elements)
        folder = _Folder(ctx, function, read_opsets(op), self.max_bytes)
        for nested in list(function.walk()):
            folder.visit(nested)
        folder.replace()
        _erase_dead(function)
        function.update_function_type()


def _fold_known_integers(value: SSAValue, elements: Sequence[Expr | None]) -> None:
    """Replaces a computed shape, or a part of one, that does not depend on any dynamic dimension."""
    dims = dims_of(value)
    if not isinstance(value, OpResult) or value.first_use is None or dims is None or is_constant(value.op):
        return
    sizes = [dim.as_int() for dim in dims if dim.is_constant]
    numbers = [element.as_int() for element in elements if element is not None and element.is_constant]
    if len(sizes) != len(dims) or len(numbers) != len(elements) or math.prod(sizes) != len(elements):
        return
    constant = InitializerOp.from_array(np.array(numbers, dtype=dtype_of(value.type)).reshape(sizes))
    Rewriter.insert_op(constant, InsertPoint.before(value.op))
    value.replace_all_uses_with(constant.results[0])


def _erase_dead(function: FuncOp) -> None:
    for op in reversed(list(function.walk())):
        if op.parent is not None and is_trivially_dead(op):
            op.detach()
            op.erase()


class _Folder:
    """Finds the operations whose inputs are all known, and evaluates them together."""

    def __init__(self, ctx: GimletContext, function: FuncOp, opsets: dict[str, int], max_bytes: int) -> None:
        self.ctx = ctx
        self.read_as_is = {
            op.key
            for op in function.walk()
            if isinstance(op, InitializerOp) and op.key is not None and not _only_transposed(op.results[0])
        }
        self.opsets = opsets
        self.max_bytes = max_bytes
        self.folded: list[OnnxOp] = []
        self.known: set[SSAValue] = set()

    def visit(self, op: Operation) -> None:
        """Notes whether an operation is a constant, or can be folded."""
        if isinstance(op, ops.CastLike) and op.operands[0] in self.known:
            op = plain_cast(op) or op
        if not isinstance(op, OnnxOp):
            return
        if is_constant(op):
            if self._readable(op.results[0]):
                self.known.update(op.results)
        elif isinstance(op, ops.Transpose) and self._stored(op.operands[0]) is not None:
            self._transpose_in_store(op)
        elif self._foldable(op):
            self.folded.append(op)
            self.known.update(op.results)

    def _stored(self, value: SSAValue) -> Weight | None:
        """A weight that only Transposes read, so that no second copy of it is needed."""
        op = value.owner
        if not isinstance(op, InitializerOp) or op.key is None or op.key not in self.ctx.weights:
            return None
        return self.ctx.weights[op.key] if op.key not in self.read_as_is else None

    def _transpose_in_store(self, op: OnnxOp) -> None:
        """Gives the store a transposed view of a weight, which is neither read nor copied now."""
        weight = self._stored(op.operands[0])
        if weight is None:
            return
        perm: list[int] = op.attr("perm", list(range(len(weight.shape)))[::-1])
        shape = [weight.shape[axis] for axis in perm]
        identity = ("transposed", weight.key, tuple(perm))
        key = f"{weight.key}.T"
        if weight.has_data:
            read = partial(_transposed, weight, perm)
            key = self.ctx.weights.add_lazy(key, weight.dtype, shape, read, identity)
        else:
            key = self.ctx.weights.add_meta(key, weight.dtype, shape, identity)
        constant = InitializerOp.from_key(key, tensor_type(weight.dtype, shape))
        Rewriter.insert_op(constant, InsertPoint.before(op))
        op.results[0].replace_all_uses_with(constant.results[0])
        if self._readable(constant.results[0]):
            self.known.update(constant.results)

    def _readable(self, value: SSAValue) -> bool:
        size = _bytes_of(value)
        if size is None or size > self.max_bytes:
            return False
        op = value.owner
        key = op.key if isinstance(op, InitializerOp) else None
        return key is None or (key in self.ctx.weights and self.ctx.weights[key].has_data)

    def _foldable(self, op: OnnxOp) -> bool:
        schema = op.schema
        if schema is None or not schema.deterministic or op.regions or not op.operands or op.op_type in _STORAGE:
            return False
        if not all(value in self.known for value in op.operands):
            return False
        written = [_bytes_of(value) for value in op.results]
        read = sum(_bytes_of(value) or 0 for value in op.operands)
        # A scalar that is spread over a large tensor is cheaper to spread than to store.
        return all(size is not None and size <= min(self.max_bytes, max(INLINE_BYTES, 2 * read)) for size in written)

    def replace(self) -> None:
        """Puts constants where the folded operations' results are read."""
        wanted = [
            result
            for op in self.folded
            for result in op.results
            if any(use.operation not in self._folded_set for use in result.uses)
        ]
        for value, array in self._evaluate(self.folded, wanted).items():
            constant = self._constant(array, value)
            Rewriter.insert_op(constant, InsertPoint.before(value.op))
            value.replace_all_uses_with(constant.results[0])

    @cached_property
    def _folded_set(self) -> set[Operation]:
        return set(self.folded)

    def _evaluate(self, ops: Sequence[OnnxOp], wanted: Sequence[OpResult]) -> dict[OpResult, Array]:
        """The values of `wanted`. Where operations cannot be evaluated together, those that can be one by one."""
        if not wanted:
            return {}
        try:
            return dict(zip(wanted, self._run(ops, wanted), strict=True))
        except _REFERENCE_ERRORS:
            if len(ops) == 1:
                return {}
        # The results of one operation are constants to those after it, or stay operations.
        found: dict[OpResult, Array] = {}
        for op in ops:
            if all(not isinstance(v.owner, OnnxOp) or is_constant(v.owner) for v in op.operands):
                values = self._evaluate([op], op.results)
                for value, array in values.items():
                    constant = self._constant(array, value)
                    Rewriter.insert_op(constant, InsertPoint.before(op))
                    value.replace_all_uses_with(constant.results[0])
        return found

    def _run(self, ops: Sequence[OnnxOp], wanted: Sequence[OpResult]) -> list[Array]:
        copies: dict[SSAValue, SSAValue] = {}
        block = Block([copy for op in ops for copy in widened(op, self.opsets, copies)])
        outputs = [(f"result{index}", copies[value]) for index, value in enumerate(wanted)]
        try:
            model = export_block(block, [], outputs, self.opsets, self.ctx, "constants")
        finally:
            # The copies are uses of the constants, which may not stay.
            block.drop_all_references()
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(ir.to_proto(model)).run(None, {})
        return [np.asarray(result) for result in results]

    def _constant(self, array: Array, value: SSAValue) -> InitializerOp:
        array = array.astype(dtype_of(value.type), copy=False)
        if array.nbytes <= INLINE_BYTES or array.dtype == np.object_:
            return InitializerOp.from_array(array)
        key = self.ctx.weights.add(value_name(value), array)
        return InitializerOp.from_key(key, tensor_type(array.dtype, array.shape))


def _only_transposed(value: SSAValue) -> bool:
    return all(isinstance(use.operation, ops.Transpose) for use in value.uses)


def _transposed(weight: Weight, perm: Sequence[int]) -> Array:
    return weight.array().transpose(perm)


def _bytes_of(value: SSAValue) -> int | None:
    """The bytes of a tensor of known size; None for anything else."""
    dims = dims_of(value)
    if dims is None or not all(dim.is_constant for dim in dims):
        return None
    return math.prod(dim.as_int() for dim in dims) * max(8, element_bits(value.type)) // 8
