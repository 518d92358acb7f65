"""Operators that the SRAM machine runs in parts (`write-out-operators`), on the emulator against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.write_out_operators import WriteOutOperatorsPass

KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
DYNAMIC, SIZES = 5, (2, 5, 7)
"""The size that is left open in tests of dynamic shapes, and its bounds."""


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def check(
    op: str,
    *given: np.ndarray,
    opset: int = 17,
    dynamic: bool = False,
    weights: Mapping[int, np.ndarray] | None = None,
    **attributes: Any,
) -> None:
    """Compares one node with ONNX Runtime's; inputs behind those given are constants."""
    values = {f"x{index}": value for index, value in enumerate(given)}
    constants = {f"x{index}": value for index, value in (weights or {}).items()}
    names = [f"x{index}" for index in range(len(given) + len(constants))]
    node = helper.make_node(op, names, ["y"], name="op", **attributes)
    shapes: dict[str, tuple[int, Sequence[int | str]]] = {
        name: (KINDS[value.dtype], ["n" if dynamic and size == DYNAMIC else size for size in value.shape])
        for name, value in values.items()
    }
    model = model_of([node], shapes, ["y"], constants, opset)
    segment = segment_of(model, {"n": SIZES} if dynamic else None, passes=[WriteOutOperatorsPass()])
    assert op not in [each.op_type for each in segment.op.walk() if isinstance(each, OnnxOp)]
    (found,), (expected,) = Runner(segment, "fp32")(**values), reference(model, **values)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if found.dtype == np.float32:
        assert relative_error(found, expected) <= 1e-5
    else:
        np.testing.assert_array_equal(found, expected)


EQUATIONS = [
    ("bqhd,bkhd->bhqk", [(5, 3, 2, 7), (5, 11, 2, 7)]),
    ("bhqk,bkhd->bqhd", [(1, 2, 5, 11), (1, 11, 2, 7)]),
    ("bsd,dhk->bshk", [(1, 5, 7), (7, 3, 2)]),
    ("bshk,hkd->bsd", [(5, 3, 2, 7), (2, 7, 11)]),
    ("nctv,vw->nctw", [(5, 3, 2, 7), (7, 11)]),
    ("nkctv,kvw->nctw", [(5, 3, 2, 1, 7), (3, 7, 11)]),
    ("bchw,cd->bdhw", [(5, 3, 2, 7), (3, 11)]),
    ("bhcd,bhdef->bcef", [(5, 3, 2, 7), (5, 3, 7, 2, 3)]),
    ("ij,jk", [(5, 3), (3, 7)]),
    ("b a, c b", [(5, 3), (2, 5)]),
    ("ij->ji", [(5, 3)]),
    ("ijk->j", [(2, 5, 3)]),
    ("ij->", [(5, 3)]),
    ("i,i->", [(5,), (5,)]),
    ("i,j->ij", [(5,), (3,)]),
    ("a,ab->b", [(5,), (5, 3)]),
    ("bnd,nd->bn", [(5, 3, 7), (3, 7)]),
    ("bacd,baef->bacf", [(5, 3, 2, 7), (5, 3, 11, 2)]),
    ("abc,acd->abd", [(5, 1, 3), (5, 3, 1)]),
    ("b...d,d->b...", [(5, 3, 2, 7), (7,)]),
    ("...ij,...jk", [(5, 3, 2), (5, 2, 7)]),
    ("bij,bjk,kl->bil", [(5, 3, 2), (5, 2, 7), (7, 3)]),
    ("abc,abd,ae->cde", [(5, 3, 2), (5, 3, 7), (5, 2)]),
    ("ii->i", [(5, 5)]),
    ("bii->b", [(3, 5, 5)]),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=[equation for equation, _ in EQUATIONS])
def test_einsum(equation: str, shapes: Sequence[Sequence[int]], dynamic: bool):
    check("Einsum", *(normal(*shape) for shape in shapes), equation=equation, dynamic=dynamic)
