"""Operators on 8-bit integers for onnx's reference evaluator (1.23), where it lacks them or is slow.

It has DequantizeLinear from opset 19 on alone, so that a quantized model of an earlier opset ran in a session, which
shares its code with the bundle. Sums of products of integers it computes without a BLAS: a ConvInteger of a second took
minutes. In float64 they are exact, and as quick as other products, while a sum has fewer than 2^37 terms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

Values = NDArray[Any]

_DEQUANTIZE_LINEAR_KNOWN: Final = 19
_WINDOW: Final = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def integer_operators(opset: int) -> list[type[OpRun]]:
    """The operators for a model of the default domain's `opset`."""
    made = [_mat_mul_integer(), _conv_integer(), _q_linear_mat_mul(), _q_linear_conv()]
    return [_dequantize_linear(), *made] if opset < _DEQUANTIZE_LINEAR_KNOWN else made


def _dequantize_linear() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class DequantizeLinear(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, x: Values, scale: Values, zero: Values | None = None, axis: int = 1, **_: Any
        ) -> tuple[Values]:
            each = [-1 if dim == axis % x.ndim else 1 for dim in range(x.ndim)] if scale.size > 1 else []
            moved = x.astype(np.int64) if zero is None else x.astype(np.int64) - zero.reshape(each).astype(np.int64)
            return (moved.astype(scale.dtype) * scale.reshape(each),)

    return DequantizeLinear


def _mat_mul_integer() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class MatMulInteger(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, a: Values, b: Values, a_zero: Values | None = None, b_zero: Values | None = None
        ) -> tuple[Values]:
            return (_as_int32(_moved(a, _of_rows(a_zero)) @ _moved(b, b_zero)),)

    return MatMulInteger


def _conv_integer() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class ConvInteger(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, x: Values, w: Values, x_zero: Values | None = None, w_zero: Values | None = None, **window: Any
        ) -> tuple[Values]:
            return (_as_int32(_convolved(self, _moved(x, x_zero), _moved(w, _of_filters(w_zero, w.ndim)), window)),)

    return ConvInteger


def _q_linear_mat_mul() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class QLinearMatMul(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
            a: Values,
            a_scale: Values,
            a_zero: Values,
            b: Values,
            b_scale: Values,
            b_zero: Values,
            y_scale: Values,
            y_zero: Values,
        ) -> tuple[Values]:
            sums = _as_int32(_moved(a, _of_rows(a_zero)) @ _moved(b, b_zero))
            return (_requantized(sums, _of_rows(a_scale) * b_scale / y_scale, y_zero),)

    return QLinearMatMul


def _q_linear_conv() -> type[OpRun]:
    from onnx.reference.op_run import OpRun

    class QLinearConv(OpRun):
        op_domain = ""

        def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
            self,
            x: Values,
            x_scale: Values,
            x_zero: Values,
            w: Values,
            w_scale: Values,
            w_zero: Values,
            y_scale: Values,
            y_zero: Values,
            bias: Values | None = None,
            **window: Any,
        ) -> tuple[Values]:
            sums = _convolved(self, _moved(x, x_zero), _moved(w, _of_filters(w_zero, w.ndim)), window, bias)
            scale = x_scale * w_scale / y_scale
            each = scale.reshape(-1, *(1,) * (w.ndim - 2)) if scale.ndim else scale
            return (_requantized(_as_int32(sums), each, y_zero),)

    return QLinearConv


def _moved(values: Values, zero: Values | None) -> Values:
    wide = values.astype(np.float64)
    return wide if zero is None else wide - zero.astype(np.float64)


def _of_rows(each: Any) -> Any:
    """A figure of each row, as it is multiplied with the rows."""
    return each[:, np.newaxis] if isinstance(each, np.ndarray) and each.ndim == 1 and each.size > 1 else each


def _of_filters(zero: Values | None, rank: int) -> Values | None:
    return zero if zero is None or zero.ndim == 0 else zero.reshape(-1, *(1,) * (rank - 1))


def _convolved(op: OpRun, x: Values, w: Values, window: dict[str, Any], bias: Values | None = None) -> Values:
    from onnx.reference.ops.op_conv import _conv_implementation  # pyright: ignore[reportPrivateUsage]

    settings = (window.get(name) or getattr(op, name) for name in _WINDOW)
    return _conv_implementation(x, w, None if bias is None else bias.astype(np.float64), *settings)


def _as_int32(sums: Values) -> Values:
    """What 32 bits hold of the sums, which wrap around."""
    return sums.astype(np.int64).astype(np.int32)


def _requantized(sums: Values, scale: Any, zero: Values) -> Values:
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(sums * np.asarray(scale, np.float32)) + zero.astype(np.int32)
    return np.clip(rounded, limits.min, limits.max).astype(zero.dtype)
