"""The work of products and convolutions against PyTorch's FlopCounterMode, over shapes that nobody chose.

PyTorch runs on its meta device, so nothing is computed: an example takes about a millisecond.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from gimlet.dialects.onnx import OPERATORS, tensor_type  # noqa: E402
from gimlet.dialects.onnx.work import ELEMENT_FLOPS, work_of  # noqa: E402

few = st.integers(1, 4)
size = st.integers(6, 12)


def counted(function: Any, *arguments: Any, **options: Any) -> tuple[Any, int]:
    """What PyTorch returns and what it counts."""
    with FlopCounterMode(display=False) as counter:
        result = function(*arguments, **options)
    return result, counter.get_total_flops()


def ours(name: str, inputs: list[Any], output: Any, **attributes: Any) -> int:
    def type_of(value: Any) -> Any:
        return tensor_type(np.dtype(np.float32), tuple(value.shape))

    operands = [OPERATORS["", "RandomNormal"].create(result_types=[type_of(value)]) for value in inputs]
    return work_of(OPERATORS["", name].make(operands, [type_of(output)], attributes)).flops.as_int()


def meta(*shape: int) -> Any:
    return torch.empty(shape, device="meta")


@given(batch=few, group=few, channels=few, filters=few, height=size, width=size, kernel=st.integers(1, 5), stride=few)
def test_convolutions(
    batch: int, group: int, channels: int, filters: int, height: int, width: int, kernel: int, stride: int
):
    x, w = meta(batch, group * channels, height, width), meta(group * filters, channels, kernel, kernel)
    y, flops = counted(functional.conv2d, x, w, stride=stride, groups=group)
    assert ours("Conv", [x, w], y, group=group, strides=[stride, stride]) == flops


@given(batch=few, channels=few, filters=few, length=size, kernel=st.integers(1, 5), stride=few)
def test_transposed_convolutions(batch: int, channels: int, filters: int, length: int, kernel: int, stride: int):
    x, w = meta(batch, channels, length), meta(channels, filters, kernel)
    y, flops = counted(functional.conv_transpose1d, x, w, stride=stride)
    assert ours("ConvTranspose", [x, w], y, strides=[stride]) == flops


@given(batch=few, rows=size, inner=size, columns=size)
def test_batched_products(batch: int, rows: int, inner: int, columns: int):
    a, b = meta(batch, rows, inner), meta(batch, inner, columns)
    y, flops = counted(torch.bmm, a, b)
    assert ours("MatMul", [a, b], y) == flops


@given(batch=few, heads=few, queries=size, keys=size, width=size, values=size)
def test_attention_without_its_softmax(batch: int, heads: int, queries: int, keys: int, width: int, values: int):
    q, k, v = (meta(batch, heads, n, d) for n, d in ((queries, width), (keys, width), (keys, values)))

    def attention() -> Any:
        scores = torch.softmax(torch.matmul(q, k.transpose(-1, -2)), -1)
        return torch.matmul(scores, v)

    y, flops = counted(attention)
    softmax = ELEMENT_FLOPS["Softmax"] * batch * heads * queries * keys
    assert ours("Attention", [q, k, v], y) == flops + softmax


@given(rows=size, inner=size, columns=size, transpose=st.booleans())
def test_gemm(rows: int, inner: int, columns: int, transpose: bool):
    a, b, c = meta(rows, inner), meta(inner, columns), meta(columns)
    y, flops = counted(torch.addmm, c, a, b)
    first = meta(inner, rows) if transpose else a
    assert ours("Gemm", [first, b, c], y, transA=int(transpose)) == flops + rows * columns
