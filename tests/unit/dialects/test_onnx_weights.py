"""The weight store."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from gimlet.dialects.onnx.weights import WeightStore, unpack
from gimlet.runtime.errors import InputError


def test_arrays_are_views():
    store, array = WeightStore(), np.arange(6, dtype=np.float32).reshape(2, 3)
    weight = store[store.add("w", array)]
    assert weight.array() is array
    assert (weight.dtype, weight.shape, weight.nbytes, weight.size) == (np.float32, (2, 3), 24, 6)
    assert "w" in store
    assert len(store) == 1
    assert list(store) == ["w"]


def test_files_are_mapped(tmp_path: Path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"head" + np.arange(6, dtype=np.int16).tobytes())
    store = WeightStore()
    first = store[store.add_file("w", path, 4, np.dtype(np.int16), [2, 3])]
    assert first.array().tolist() == [[0, 1, 2], [3, 4, 5]]
    base = first.array()
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert store.add_file("same", path, 4, np.dtype(np.int16), [2, 3]) == "w"
    assert store.add_file("w", path, 6, np.dtype(np.int16), [2]) == "w.1"


def test_a_file_that_is_missing_or_short(tmp_path: Path):
    path = tmp_path / "data.bin"
    with pytest.raises(InputError, match=r"weight 'w': there is no file .*data\.bin"):
        WeightStore().add_file("w", path, 0, np.dtype(np.float32), [4])
    path.write_bytes(bytes(15))
    with pytest.raises(InputError, match=r"weight 'w' ends at byte 16 of .*, which has 15"):
        WeightStore().add_file("w", path, 0, np.dtype(np.float32), [4])


@pytest.mark.parametrize(
    "dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.float4_e2m1fn, ml_dtypes.float6_e2m3fn]
)
def test_packed_elements(dtype: type, tmp_path: Path):
    array = np.array([[0, 1, -1], [1, 1, 0]] if dtype is not ml_dtypes.uint4 else [[0, 15, 7], [1, 2, 3]]).astype(dtype)
    path = tmp_path / "data.bin"
    path.write_bytes(ir.Tensor(array).tobytes())
    store = WeightStore()
    weight = store[store.add_file("w", path, 0, np.dtype(dtype), [2, 3])]
    assert weight.nbytes == path.stat().st_size
    assert weight.array().astype(np.float32).tolist() == array.astype(np.float32).tolist()


def test_a_digest_is_of_the_values():
    store, array = WeightStore(), np.arange(6, dtype=np.float32).reshape(2, 3)
    plain = store[store.add("a", array)]
    turned = store[store.add("b", np.asfortranarray(array))]
    other = store[store.add("c", array + 1)]
    assert plain.digest() == turned.digest() != other.digest()


def test_reading_is_lazy():
    store, reads = WeightStore(), []

    def read() -> np.ndarray:
        reads.append(1)
        return np.zeros(4, np.float32)

    weight = store[store.add_lazy("w", np.dtype(np.float32), [4], read)]
    assert (weight.nbytes, repr(weight), reads) == (16, "Weight('w', float32, [4])", [])
    weight.array()
    assert reads == [1]


def test_tied_weights_have_one_key():
    store, array = WeightStore(), np.zeros((4, 4), np.float32)
    assert store.add("embedding", array) == "embedding"
    assert store.add("lm_head", array) == "embedding"
    assert store.add("lm_head", array.T) == "lm_head"
    assert store.add("embedding", array.copy()) == "embedding.1"


def test_weights_without_values():
    store = WeightStore()
    weight = store[store.add_meta("w", np.dtype(ml_dtypes.bfloat16), [1 << 20, 1 << 10])]
    assert not weight.has_data
    assert weight.nbytes == 1 << 31
    with pytest.raises(InputError, match="weight 'w' has a shape but no values"):
        weight.array()


def test_a_key_that_is_not_there():
    with pytest.raises(InputError, match="there is no weight 'w' in the store"):
        WeightStore()["w"]


def test_an_empty_tensor():
    assert unpack(np.zeros(0, np.uint8), np.dtype(np.float32), (0, 4)).shape == (0, 4)
    store = WeightStore()
    assert store[store.add("empty", np.zeros((0, 4), np.float32))].digest()
