"""What an argument of @main is where the caller gives nothing: `{onnx.default = dense<1.0> : tensor<4xf32>}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdsl.dialects.func import FuncOp

from gimlet.dialects.onnx.attributes import WeightAttr, tensor_value
from gimlet.dialects.onnx.names import value_name
from gimlet.dialects.onnx.types import element_of, shape_of
from gimlet.dialects.onnx.weights import Weight
from gimlet.runtime.errors import InputError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

DEFAULT: Final = "onnx.default"
"""In the attributes of an argument: a tensor, or a weight of the store."""


def default_weights(function: FuncOp, ctx: GimletContext) -> dict[int, Weight]:
    """The defaults of a function's arguments, by their numbers. InputError for one that does not fit its argument."""
    found: dict[int, Weight] = {}
    for index, attributes in enumerate(function.arg_attrs or ()):
        default = attributes.data.get(DEFAULT)
        if default is None:
            continue
        name = value_name(function.args[index])
        if isinstance(default, WeightAttr):
            weight = ctx.weights[default.key.data]
        else:
            array = tensor_value(default)
            weight = Weight(name, array.dtype, array.shape, lambda array=array: array)
        _check(function, index, name, weight)
        found[index] = weight
    return found


def _check(function: FuncOp, index: int, name: str, weight: Weight) -> None:
    type_ = function.args[index].type
    element, dims = element_of(type_), shape_of(type_)
    fits = dims is None or (
        len(dims) == len(weight.shape)
        and all(
            dim is None or not dim.is_constant or dim.as_int() == size
            for dim, size in zip(dims, weight.shape, strict=True)
        )
    )
    if element is None or element.dtype != weight.dtype or not fits:
        message = f"its default is a {weight.dtype} of shape {list(weight.shape)}, and the input a {type_}"
        raise InputError(message, where=f"input {name!r}")
