"""onnx's reference evaluator with half precision computed in float32, and rounded once where an operator ends.

The evaluator computes in the type of its operands: sums of float16 and bfloat16 are rounded after each element, and
ones of bfloat16 add up to 256 and no further. Devices add halves in float32 and round what they store. So each operator
gets its halves as float32, and its results are rounded to the type that ONNX gives them. An operator that ONNX defines
by a function is one operator; a function of the model, and what has a body, is several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, TypeProto, defs
from onnx.reference import ReferenceEvaluator

HALVES: Final = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_HALF_TYPES: Final = ("tensor(float16)", "tensor(bfloat16)")
_HALF_CODES: Final = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

Run = Callable[..., Sequence[Any]]


class HalfEvaluator(ReferenceEvaluator):
    """A `ReferenceEvaluator` that computes float16 and bfloat16 in float32; bodies and functions too."""

    def _load_impl(self, node: NodeProto, input_types: Any = None) -> Callable[..., Any]:
        bindings = _result_bindings(node, self.opsets)
        if bindings is None:
            return super()._load_impl(node, input_types)
        # What ONNX defines by a function has constants of its operands' type in it.
        types: Any = None if input_types is None else [_wide_type(each) for each in input_types]
        make = super()._load_impl(node, types)

        def widened(*args: Any, **kwargs: Any) -> Any:
            instance = make(*args, **kwargs)
            instance.run = _in_float32(instance.run, bindings)
            return instance

        return widened


def _result_bindings(node: NodeProto, opsets: dict[str, int]) -> list[list[int]] | None:
    """For each result, the operands whose type it has; None for a node that is run as it is.

    Those are what has a body, what moves bits, and what says itself which type its result has (Cast, EyeLike).
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    if domain not in opsets or not defs.has(node.op_type, opsets[domain], domain):
        return None
    schema = defs.get_schema(node.op_type, opsets[domain], domain)
    if any(attribute.type == defs.OpSchema.AttrType.GRAPH for attribute in schema.attributes.values()):
        return None
    allowed = {each.type_param_str: each.allowed_type_strs for each in schema.type_constraints}
    halves = {name for name, types in allowed.items() if any(half in types for half in _HALF_TYPES)}
    # An operand that is left out, which has no name, has no type either.
    read = [_parameter(schema.inputs, index).type_str if name else "" for index, name in enumerate(node.input)]
    written = [_parameter(schema.outputs, index).type_str for index in range(len(node.output))]
    if not halves & set(read) or (written[0] in halves and written[0] not in read):
        return None
    # LinearAttention's state has the type of the one before, or, as here, that of the first result.
    free = set[str]() if "stash_type" in schema.attributes else halves - set(read)
    names = [written[0] if name in free else name for name in written]
    return [[i for i, each in enumerate(read) if each == name] if name in halves else [] for name in names]


def _parameter(parameters: Sequence[Any], index: int) -> Any:
    """The formal parameter of the operand at `index`: the last one may stand for many."""
    return parameters[min(index, len(parameters) - 1)]


def _in_float32(run: Run, bindings: list[list[int]]) -> Run:
    def widened(*operands: Any, **kwargs: Any) -> Sequence[Any]:
        if not any(_is_half(each) for each in operands):
            return run(*operands, **kwargs)
        wide = [each.astype(np.float32) if _is_half(each) else each for each in operands]
        results = run(*wide, **kwargs)
        # An implementation may return optional results that the node does not name.
        return tuple(
            _rounded(result, [operands[index] for index in bound])
            for result, bound in zip(results, bindings, strict=False)
        )

    return widened


def _rounded(result: Any, like: Sequence[Any]) -> Any:
    half = next((each.dtype for each in like if _is_half(each)), None)
    return result if half is None or not isinstance(result, np.ndarray) else result.astype(half)


def _is_half(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) and value.dtype in HALVES


def _wide_type(type_: TypeProto) -> TypeProto:
    if type_.tensor_type.elem_type not in _HALF_CODES:
        return type_
    wide = TypeProto()
    wide.CopyFrom(type_)
    wide.tensor_type.elem_type = TensorProto.FLOAT
    return wide
