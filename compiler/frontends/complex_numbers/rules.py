"""What becomes of each operator of PyTorch that takes or gives complex numbers, as functions of their parts.

An operator works part by part (a view, a sum), on several values that it only puts together (an addition, a `where`),
or is a function of both parts. Which overload it is does not matter. What is not here, PyTorch may decompose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gimlet.compiler.frontends.complex_numbers import fourier, functions
from gimlet.compiler.frontends.complex_numbers.pair import (
    REAL_OF,
    Pair,
    imaginary_part,
    interleaved,
    is_real,
    parted,
    real_part,
)
from gimlet.compiler.frontends.complex_numbers.short_time import signal, spectrogram

_aten: Final = torch.ops.aten
_prims: Final = torch.ops.prims
Rule = Callable[..., Any]

_PART_BY_PART: Final = (
    "alias clone contiguous detach lift_fresh_copy lift_fresh resolve_neg resolve_conj view reshape _unsafe_view "
    "_reshape_alias flatten unflatten permute transpose t movedim swapaxes expand unsqueeze squeeze slice select "
    "narrow split split_with_sizes unbind chunk diagonal unfold flip roll repeat tile repeat_interleave index "
    "index_select gather take masked_select embedding tril triu diag_embed sum mean cumsum nansum trace neg positive "
    "nan_to_num reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"
)
# By operator, which of its arguments are values that it puts together; others are places, shapes and flags.
_TOGETHER: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack", "column_stack"), (0,)),
    **dict.fromkeys(("add", "sub", "rsub", "copy", "fill", "lerp", "slice_scatter", "select_scatter"), (0, 1)),
    **dict.fromkeys(("diagonal_scatter", "as_strided_scatter"), (0, 1)),
    **dict.fromkeys(("masked_fill", "constant_pad_nd", "index_put", "masked_scatter"), (0, 2)),
    **dict.fromkeys(("index_add", "index_copy", "index_fill", "scatter", "scatter_add"), (0, 3)),
    "where": (1, 2),
}
_BILINEAR: Final = ("mm", "bmm", "matmul", "dot", "mv", "outer")
_UNARY: Final[dict[str, Callable[[Any], Any]]] = {
    "abs": functions.length,
    "angle": functions.angle,
    "real": lambda values: values.re,
    "imag": lambda values: values.im,
    "view_as_real": interleaved,
    "exp": functions.exp,
    "expm1": functions.expm1,
    "log": functions.log,
    "log2": lambda values: functions.log(values).each(lambda part: part / 0.6931471805599453),
    "log10": lambda values: functions.log(values).each(lambda part: part / 2.302585092994046),
    "log1p": lambda values: functions.log(Pair(values.re + 1, values.im)),
    "sqrt": functions.sqrt,
    "rsqrt": lambda values: functions.reciprocal(functions.sqrt(values)),
    "reciprocal": functions.reciprocal,
    "square": lambda values: functions.product(values, values),
    "sin": functions.sin,
    "cos": functions.cos,
    "tan": functions.tan,
    "sinh": functions.sinh,
    "cosh": functions.cosh,
    "tanh": functions.tanh,
    "sigmoid": functions.sigmoid,
    "sgn": functions.sign,
    "isnan": lambda values: values.re.isnan() | values.im.isnan(),
    "isinf": lambda values: values.re.isinf() | values.im.isinf(),
    "isfinite": lambda values: values.re.isfinite() & values.im.isfinite(),
    "isreal": lambda values: values.im == 0,
    "logical_not": lambda values: (values.re == 0) & (values.im == 0),
    **dict.fromkeys(("conj", "_conj", "_conj_physical", "conj_physical"), lambda values: Pair(values.re, -values.im)),
}


def _in_parts(value: Any) -> Any:
    """Types of complex numbers as those of their parts."""

    def of_part(leaf: Any) -> Any:
        return REAL_OF.get(leaf, leaf) if isinstance(leaf, torch.dtype) else leaf

    return tree_map(of_part, value)


def _part_by_part(operator: Any) -> Rule:
    def rule(values: Any, *rest: Any, **named: Any) -> Any:
        rest, named = _in_parts(rest), _in_parts(named)
        parts = [operator(part, *rest, **named) for part in (values.re, values.im)]
        if isinstance(parts[0], Tensor):
            return Pair(*parts)
        return [Pair(re, im) for re, im in zip(*parts, strict=True)]

    return rule


def _together(operator: Any, places: tuple[int, ...]) -> Rule:
    def rule(*args: Any, **named: Any) -> Any:
        def parts(take: Callable[[Any], Any]) -> list[Any]:
            return [
                ([take(each) for each in value] if isinstance(value, list | tuple) else take(value))
                if place in places
                else value
                for place, value in enumerate(args)
            ]

        named = _in_parts(named)
        return Pair(operator(*parts(real_part), **named), operator(*parts(imaginary_part), **named))

    return rule


def _bilinear(operator: Any) -> Rule:
    def rule(left: Any, right: Any) -> Pair:
        return functions.product(left, right, operator)

    return rule


def _added(base: Any, other: Pair, beta: Any = 1, alpha: Any = 1) -> Pair:
    other = other if alpha == 1 else functions.product(other, alpha)
    if beta == 0:
        return other
    base = base if beta == 1 else functions.product(base, beta) if isinstance(base, Pair) else base * beta
    return Pair(real_part(base) + other.re, imaginary_part(base) + other.im)


def _matrices_added(multiply: Any) -> Rule:
    def rule(base: Any, left: Any, right: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
        return _added(base, functions.product(left, right, multiply), beta, alpha)

    return rule


def _linear(values: Any, weight: Any, bias: Any = None) -> Pair:
    found = functions.product(values, weight, torch.nn.functional.linear)
    return found if bias is None else _added(bias, found)


def _convolution(values: Any, weight: Any, bias: Any, *settings: Any) -> Pair:
    def convolved(left: Tensor, right: Tensor) -> Tensor:
        return _aten.convolution.default(left, right, None, *settings)

    found = functions.product(values, weight, convolved)
    if bias is None:
        return found
    shape = [-1] + [1] * (found.ndim - 2)
    bias = bias.each(lambda part: part.reshape(shape)) if isinstance(bias, Pair) else bias.reshape(shape)
    return _added(bias, found)


def _converted(values: Any, *_rest: Any, dtype: torch.dtype | None = None, **_named: Any) -> Any:
    """To a complex type, or to a real one, which drops the imaginary part."""
    if dtype is None or dtype in REAL_OF:
        wanted = REAL_OF.get(dtype)  # type: ignore[arg-type]
        re, im = real_part(values), imaginary_part(values)
        return Pair(re, im) if wanted is None else Pair(re.to(wanted), im.to(wanted))
    return values.re.to(dtype)


def _viewed(values: Any, dtype: torch.dtype) -> Any:
    """Complex numbers as twice as many real ones, or the other way round."""
    if isinstance(values, Pair) and dtype == values.dtype:
        return interleaved(values).flatten(-2)
    if isinstance(values, Tensor) and REAL_OF.get(dtype) == values.dtype:
        return parted(values.unflatten(-1, (-1, 2)))
    raise TypeError(f"as {dtype}")


def _made(operator: Any, fill: int | None = None) -> Rule:
    """Tensors of one value: the imaginary part is zero, or that of the number that stands at the place `fill`."""

    def rule(*args: Any, dtype: torch.dtype | None = None, **named: Any) -> Any:
        number = 0 if fill is None else args[fill]
        is_complex = dtype in REAL_OF or (dtype is None and not all(map(is_real, args)))
        if is_complex or dtype is not None:
            named["dtype"] = _in_parts(dtype) or next(value.dtype for value in args if isinstance(value, Pair))
        re = operator(*[value if isinstance(value, list | tuple) else real_part(value) for value in args], **named)
        return Pair(re, torch.full_like(re, imaginary_part(number))) if is_complex else re

    return rule


def _truth(operator: Any) -> Rule:
    def rule(values: Pair, *rest: Any, **named: Any) -> Tensor:
        return operator((values.re != 0) | (values.im != 0), *rest, **named)

    return rule


def _sizes(operator: Any) -> Rule:
    def rule(values: Pair, *rest: Any) -> Any:
        return operator(values.re, *rest)

    return rule


def _along_all(values: Pair, *rest: Any, dtype: Any = None) -> Pair:
    del dtype
    return functions.product_along(values, *rest) if rest else functions.product_along(values.each(torch.flatten), 0)


def _running_products(values: Pair, dim: int, *, dtype: Any = None) -> Pair:
    del dtype
    return functions.products_along(values, dim)


def _conjugate(values: Pair) -> Pair:
    return Pair(values.re, -values.im)


def _inner(left: Pair, right: Pair) -> Pair:
    return functions.product(_conjugate(left), right, torch.dot)


def _product_added(base: Any, left: Any, right: Any, *, value: Any = 1) -> Pair:
    return _added(base, functions.product(left, right), 1, value)


def _quotient_added(base: Any, left: Any, right: Any, *, value: Any = 1) -> Pair:
    return _added(base, functions.quotient(left, right), 1, value)


def _by_name() -> dict[str, Rule]:
    found: dict[str, Rule] = {name: _part_by_part(getattr(_aten, name)) for name in _PART_BY_PART.split()}
    found |= {name: _together(getattr(_aten, name), places) for name, places in _TOGETHER.items()}
    found |= {name: _bilinear(getattr(torch, name)) for name in _BILINEAR}
    found |= {
        name: _made(getattr(_aten, name)) for name in ("zeros", "ones", "eye", "empty", "zeros_like", "ones_like")
    }
    found |= {name: _made(getattr(_aten, name)) for name in ("empty_like", "new_zeros", "new_ones", "new_empty")}
    found |= {
        "full": _made(_aten.full, 1),
        "full_like": _made(_aten.full_like, 1),
        "new_full": _made(_aten.new_full, 2),
    }
    found |= {"scalar_tensor": _made(_aten.scalar_tensor, 0)}
    found |= {name: _truth(getattr(_aten, name)) for name in ("any", "all", "nonzero", "count_nonzero")}
    found |= {name: _sizes(getattr(_aten, name)) for name in ("sym_size", "sym_numel", "sym_stride")}
    return found | {
        **_UNARY,
        "mul": functions.product,
        "div": functions.quotient,
        "true_divide": functions.quotient,
        "pow": functions.power,
        "eq": functions.equal,
        "ne": functions.unequal,
        "complex": Pair,
        "polar": functions.polar,
        "view_as_complex": parted,
        "vdot": _inner,
        "linear": _linear,
        "convolution": _convolution,
        "addmm": _matrices_added(torch.mm),
        "baddbmm": _matrices_added(torch.bmm),
        "addmv": _matrices_added(torch.mv),
        "addcmul": _product_added,
        "addcdiv": _quotient_added,
        "prod": _along_all,
        "cumprod": _running_products,
        "linalg_vector_norm": functions.norm,
        "_to_copy": _converted,
        **fourier.TRANSFORMS,
    }


RULES: Final[dict[Any, Rule]] = {
    **{getattr(_aten, name): rule for name, rule in _by_name().items()},
    _aten.view.dtype: _viewed,
    _aten.stft.default: spectrogram,
    _aten.istft.default: signal,
    _prims.conj_physical: _conjugate,
    _prims.conj: _conjugate,
}
"""By overload, or by packet of all of them."""


def rule_of(operator: Any) -> Rule | None:
    """The rule of an operator, if it has one."""
    return RULES.get(operator) or RULES.get(getattr(operator, "overloadpacket", None))


def cast_values(value: Any, dtype: torch.dtype) -> Any:
    """With the pairs in it in another type."""

    def cast(leaf: Any) -> Any:
        if isinstance(leaf, Pair) and leaf.dtype != dtype:
            return leaf.each(lambda part: part.to(dtype))
        return leaf

    return tree_map(cast, value, is_leaf=lambda leaf: not is_real(leaf))
