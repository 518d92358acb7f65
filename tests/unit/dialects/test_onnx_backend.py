"""ONNX's own cases for single operators: each keeps its outputs through import, text and export, and when normalised.

`make test` runs the cases of a few operators, `make test-full` all 1,884.
"""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case import node as node_cases
from tests.unit.dialects.onnx_cases import exported, imported, parse, run, text_of

from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.passes.infer_shapes import InferShapesPass

SAMPLE = (
    "averagepool", "batch_normalization", "cast", "clip", "concat", "constantofshape", "conv", "convtranspose",
    "dropout", "einsum", "expand", "gather", "gemm", "gru", "if_", "loop", "lstm", "matmul", "optionalgetelement",
    "pad", "quantizelinear", "rangeop", "reducesum", "reshape", "resize", "scan", "sequenceinsert", "slice",
    "softmax", "split", "splittosequence", "string_concat", "topk", "where",
)  # fmt: skip
# The function that defines AffineGrid gives Range a vector where it takes a scalar, which shows once shapes are known.
NOT_VALID_WHEN_NORMALISED = {"test_affine_grid_2d_expanded", "test_affine_grid_2d_align_corners_expanded"}
RANDOM = ("bernoulli", "dropout", "random")
LEAST_RUN = 0.6


def cases(modules: tuple[str, ...] | None) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if modules is None:
            return node_cases.collect_testcases(None)
        for name in modules:
            import_module(f"{node_cases.__name__}.{name}")
    return list(node_cases._NodeTestCases)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if left is None or right is None:
        return left is right
    left, right = np.asarray(left), np.asarray(right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind in "fc":
        return np.allclose(left, right, atol=1e-5, rtol=1e-5, equal_nan=True)
    return left.dtype.kind in "OUSV" or np.array_equal(left, right)


def check(case: Any) -> bool:
    """False where onnxruntime cannot run the case at all."""
    feeds = dict(zip([value.name for value in case.model.graph.input], case.data_sets[0][0], strict=False))
    module, ctx = imported(case.model)
    text = text_of(module)
    again = parse(text, ctx)
    assert text_of(again) == text
    generic = text_of(module, print_generic_format=True, print_debuginfo=True)
    assert text_of(parse(generic, ctx)) == text
    try:
        expected = run(case.model, feeds)
    except Exception:  # onnxruntime's errors have no common base
        return False
    if not any(word in case.name for word in RANDOM):
        assert same([*expected.values()], [*run(exported(again, ctx), feeds).values()])
    for step in (InferShapesPass(), FoldConstantsPass(), CanonicalizeOnnxPass(), InferShapesPass()):
        step.apply(ctx, module)
        module.verify()
    if case.name not in NOT_VALID_WHEN_NORMALISED and not any(word in case.name for word in RANDOM):
        assert same([*expected.values()], [*run(exported(module, ctx), feeds).values()])
    return True


def check_all(found: list[Any]) -> None:
    failures: list[str] = []
    ran = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in found:
            try:
                ran += check(case)
            except Exception as error:
                failures.append(f"{case.name}: {type(error).__name__} {str(error)[:200]}")
    assert failures == []
    assert ran >= LEAST_RUN * len(found)


def test_a_sample_of_operators():
    found = cases(SAMPLE)
    assert len(found) > 150
    check_all(found[::3])


@pytest.mark.full
def test_every_operator():
    found = cases(None)
    assert len(found) >= 1884
    check_all(found)
