"""Elements of less than a byte, packed and unpacked, and through a session of ONNX Runtime."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import gimlet
from gimlet.runtime.packed import BITS, pack, unpack


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5, 3), (2, 0, 4)])
def test_bytes_are_those_of_onnx(name: str, shape: tuple[int, ...]):
    dtype = np.dtype(getattr(ml_dtypes, name))
    array = np.random.default_rng(0).integers(0, 2 ** BITS[name], shape).astype(np.uint8).view(dtype)
    data = pack(array, BITS[name])
    assert data.tobytes() == numpy_helper.from_array(array).raw_data
    assert np.array_equal(unpack(data, dtype, BITS[name], array.shape).view(np.uint8), array.view(np.uint8))


@pytest.mark.parametrize("element", ["INT4", "UINT4", "INT2", "UINT2"])
def test_a_bundle_takes_and_gives_them(element: str, tmp_path: Path):
    """In and out, and an odd number of them: the last byte is not full."""
    code = getattr(TensorProto, element)
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
    ]
    values = [
        helper.make_tensor_value_info("x", code, [3, 3]),
        helper.make_tensor_value_info("same", code, [3, 3]),
        helper.make_tensor_value_info("wide", TensorProto.FLOAT, [3, 3]),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)
    dtype = helper.tensor_dtype_to_np_dtype(code)
    numbers = np.array([[0, 1, 2], [3, 0, 1], [2, 3, 1]]) - (2 if element == "INT2" else 0)
    gimlet.compile(model, output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        for _ in range(2):
            outputs = program(x=numbers.astype(dtype))
            assert outputs["same"].dtype == dtype
            assert outputs["same"].astype(np.int64).tolist() == numbers.tolist()
            assert outputs["wide"].tolist() == numbers.tolist()
