"""Flags, and whole numbers that ONNX, or its CPU runtime, has an operator not for: computed in a wider type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten
_NARROW: Final = frozenset((torch.int8, torch.uint8, torch.int16))
_SHORT: Final = frozenset((torch.int16,))
_FLAGS: Final = frozenset((torch.bool,))


def _widened(operator: Any, narrow: frozenset[torch.dtype]) -> Written:
    """The operator on int32 where it has `narrow` values; what is int32 then is what would have been narrow.

    Sums, products and powers of whole numbers are the same after they are cut to the narrow type.
    """

    def computed(*args: Any, **kwargs: Any) -> Any:
        own = {leaf.dtype for leaf in _tensors(args, kwargs) if leaf.dtype in narrow}
        # Of two narrow types one is without a sign, and PyTorch takes the one that holds both.
        result = own.pop() if len(own) == 1 else torch.int16
        args, kwargs = tree_map_only(
            Tensor, lambda leaf: leaf.to(torch.int32) if leaf.dtype in narrow else leaf, (args, kwargs)
        )
        return tree_map_only(
            Tensor,
            lambda leaf: leaf.to(result) if leaf.dtype == torch.int32 else leaf,
            operator(*args, **kwargs),
        )

    def needed(*args: Any, **kwargs: Any) -> bool:
        return any(leaf.dtype in narrow for leaf in _tensors(args, kwargs))

    return Written(computed, needed)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]


def _truth(operator: Any) -> Written:
    """Of bytes, PyTorch's answer is a byte."""

    def computed(values: Tensor, *rest: Any, **named: Any) -> Tensor:
        return operator(values != 0, *rest, **named).to(torch.uint8)

    return Written(computed, _are_bytes)


def _are_bytes(values: Tensor, *_args: Any, **_kwargs: Any) -> bool:
    return values.dtype == torch.uint8


def _are_flags(*args: Any, **kwargs: Any) -> bool:
    flags = [isinstance(leaf, bool) or (isinstance(leaf, Tensor) and leaf.dtype == torch.bool) for leaf in args]
    return all(flags) and not kwargs


def _or(left: Tensor, right: Any) -> Tensor:
    return left | right


def _and(left: Tensor, right: Any) -> Tensor:
    return left & right


def _either(condition: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return (condition & left) | (~condition & right)


def _filled(values: Tensor, where: Tensor, value: Any) -> Tensor:
    return (values & ~where) | (where & bool(value))


def _each(write: Callable[..., Written], operators: Iterable[Any], *types: Any) -> dict[Any, Written]:
    return {operator: write(operator, *types) for operator in operators}


_FOR_WIDE: Final = (
    _aten.tril.default,
    _aten.triu.default,
    _aten.pow.Tensor_Scalar,
    _aten.pow.Tensor_Tensor,
    _aten.matmul.default,
    _aten.mm.default,
    _aten.bmm.default,
    _aten.einsum.default,
    _aten.relu.default,
    _aten.__rshift__.Scalar,
    _aten.__rshift__.Tensor,
    _aten.bitwise_right_shift.Tensor,
    _aten.bitwise_right_shift.Tensor_Scalar,
)
_FOR_MORE_THAN_SHORT: Final = (
    _aten.max.default,
    _aten.min.default,
    _aten.max.dim,
    _aten.min.dim,
    _aten.maximum.default,
    _aten.minimum.default,
    _aten.argmax.default,
    _aten.argmin.default,
    _aten.clamp.default,
    _aten.clamp_min.default,
    _aten.clamp_max.default,
    _aten.nonzero.default,
    _aten.pad.default,
    _aten.masked_fill.Scalar,
    _aten.where.self,
    _aten.where.ScalarOther,
    _aten.where.ScalarSelf,
)

INTEGERS: Final[dict[Any, Written]] = {
    **_each(_widened, _FOR_WIDE, _NARROW),
    **_each(_widened, _FOR_MORE_THAN_SHORT, _SHORT),
    **_each(_widened, (_aten.sort.default,), _FLAGS),
    **_each(_truth, (_aten.any.default, _aten.any.dim, _aten.any.dims)),
    **_each(_truth, (_aten.all.default, _aten.all.dim, _aten.all.dims)),
    _aten.add.Tensor: Written(_or, _are_flags),
    _aten.mul.Tensor: Written(_and, _are_flags),
}
"""By operator; what takes whole numbers and flags, each another way, is in the two tables below."""

_OF_SHORT: Final = {each: INTEGERS[each] for each in (_aten.where.self, _aten.masked_fill.Scalar)}


def _of_flags(operator: Any, values: int, function: Callable[..., Any]) -> Written:
    """`function` where the argument at `values` is of flags, else as for short numbers."""

    def computed(*args: Any, **kwargs: Any) -> Any:
        return (function if args[values].dtype == torch.bool else _OF_SHORT[operator].function)(*args, **kwargs)

    def needed(*args: Any, **kwargs: Any) -> bool:
        are_flags = args[values].dtype == torch.bool and args[-1] is not None
        alike = not isinstance(args[-1], Tensor) or args[-1].dtype == args[values].dtype
        return (are_flags and alike) or _OF_SHORT[operator].needed(*args, **kwargs)

    return Written(computed, needed)


INTEGERS[_aten.where.self] = _of_flags(_aten.where.self, 1, _either)
INTEGERS[_aten.masked_fill.Scalar] = _of_flags(_aten.masked_fill.Scalar, 0, _filled)
