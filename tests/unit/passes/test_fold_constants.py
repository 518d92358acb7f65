"""fold-constants: what is folded, what is not, and that values stay."""

import numpy as np
import pytest
from tests.unit.dialects.onnx_cases import context, parse
from xdsl.context import Context
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.onnx import InitializerOp, OnnxOp, constant_value
from gimlet.passes.fold_constants import FoldConstantsPass

X = '%x: tensor<?x4xf32, #onnx.dims<"n", "">>, %f: tensor<4xf32>'


def fold(body: str, result: str, max_bytes: int = 1 << 20, ctx=None):
    ctx = ctx or context()
    module = parse(
        'builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {'
        f"func.func @main({X}) -> {result} {{ {body} }} }}",
        ctx,
    )
    module.verify()
    FoldConstantsPass(max_bytes).apply(ctx, module)
    module.verify()
    return [op for op in module.walk() if isinstance(op, OnnxOp)], ctx


def names(ops: list[OnnxOp]) -> list[str]:
    return [op.op_type for op in ops]


RANGE = (
    "%a = onnx.initializer {value = dense<0.0> : tensor<f32>} : tensor<f32>"
    "%b = onnx.initializer {value = dense<3.0> : tensor<f32>} : tensor<f32>"
    "%c = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>"
    "%r = onnx.Range v11(%a, %b, %c) : (tensor<f32>, tensor<f32>, tensor<f32>) -> tensor<3xf32>"
)


def test_a_chain_is_folded_at_once():
    body = RANGE + (
        "%s = onnx.Sin v7(%r) : (tensor<3xf32>) -> tensor<3xf32>"
        "%y = onnx.Add v14(%s, %r) : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32> func.return %y : tensor<3xf32>"
    )
    (constant,), _ = fold(body, "tensor<3xf32>")
    numbers = np.arange(3)
    assert np.allclose(constant_value(constant.results[0]), np.sin(numbers) + numbers)


def test_shapes_that_no_dynamic_dimension_is_part_of():
    body = (
        '%s = onnx.Shape v15(%x) {start = 1} : (tensor<?x4xf32, #onnx.dims<"n", "">>) -> tensor<1xi64>'
        '%t = onnx.Shape v15(%x) {end = 1} : (tensor<?x4xf32, #onnx.dims<"n", "">>) -> tensor<1xi64>'
        "func.return %s, %t : tensor<1xi64>, tensor<1xi64>"
    )
    ops, _ = fold(body, "(tensor<1xi64>, tensor<1xi64>)")
    assert names(ops) == ["initializer", "Shape"]
    assert constant_value(ops[0].results[0]).tolist() == [4]


def test_random_numbers_are_not_constants():
    body = (
        "%c = onnx.initializer {value = dense<0.5> : tensor<4xf32>} : tensor<4xf32>"
        "%y = onnx.RandomNormalLike v1(%c) : (tensor<4xf32>) -> tensor<4xf32> func.return %y : tensor<4xf32>"
    )
    assert "RandomNormalLike" in names(fold(body, "tensor<4xf32>")[0])


def test_quantised_weights_stay_quantised():
    body = (
        "%q = onnx.initializer {value = dense<3> : tensor<4xi8>} : tensor<4xi8>"
        "%s = onnx.initializer {value = dense<0.5> : tensor<f32>} : tensor<f32>"
        "%y = onnx.DequantizeLinear v13(%q, %s) : (tensor<4xi8>, tensor<f32>) -> tensor<4xf32>"
        "func.return %y : tensor<4xf32>"
    )
    assert "DequantizeLinear" in names(fold(body, "tensor<4xf32>")[0])


@pytest.mark.parametrize(("max_bytes", "folded"), [(1 << 20, True), (1 << 13, True), (8191, False)])
def test_the_limit(max_bytes: int, folded: bool):
    ctx = context()
    key = ctx.weights.add("w", np.arange(2048, dtype=np.float32))
    body = (
        f'%w = onnx.initializer {{key = "{key}"}} : tensor<2048xf32>'
        "%y = onnx.Neg v13(%w) : (tensor<2048xf32>) -> tensor<2048xf32> func.return %y : tensor<2048xf32>"
    )
    ops, ctx = fold(body, "tensor<2048xf32>", max_bytes, ctx)
    assert ("Neg" not in names(ops)) == folded
    if folded:
        (constant,) = ops
        assert isinstance(constant, InitializerOp)
        assert constant.key == "y"
        assert ctx.weights["y"].array()[-1] == -2047


def test_a_scalar_is_not_spread():
    body = (
        "%one = onnx.initializer {value = dense<1.0> : tensor<f32>} : tensor<f32>"
        "%shape = onnx.initializer {value = dense<[64, 64]> : tensor<2xi64>} : tensor<2xi64>"
        "%y = onnx.Expand v13(%one, %shape) : (tensor<f32>, tensor<2xi64>) -> tensor<64x64xf32>"
        "func.return %y : tensor<64x64xf32>"
    )
    assert "Expand" in names(fold(body, "tensor<64x64xf32>")[0])


def test_what_the_reference_cannot_evaluate_stays():
    body = RANGE + (
        "%c2 = onnx.com.microsoft.Gelu(%r) : (tensor<3xf32>) -> tensor<3xf32>"
        "%d = onnx.Neg v13(%r) : (tensor<3xf32>) -> tensor<3xf32>"
        "func.return %c2, %d : tensor<3xf32>, tensor<3xf32>"
    )
    ops, _ = fold(body, "(tensor<3xf32>, tensor<3xf32>)")
    assert names(ops) == ["initializer", "Gelu", "initializer"]
    assert constant_value(ops[-1].results[0]).tolist() == [0, -1, -2]


def test_a_weight_that_is_only_read_transposed():
    ctx = context()
    array = np.arange(1 << 12, dtype=np.float32).reshape(64, 64)
    keys = [ctx.weights.add("w", array), ctx.weights.add_meta("m", np.dtype(np.float32), [64, 64])]
    body = "".join(
        f'%w{i} = onnx.initializer {{key = "{key}"}} : tensor<64x64xf32>'
        f"%t{i} = onnx.Transpose v13(%w{i}) {{perm = [1, 0]}} : (tensor<64x64xf32>) -> tensor<64x64xf32>"
        for i, key in enumerate(keys)
    )
    ops, ctx = fold(
        f"{body} func.return %t0, %t1 : tensor<64x64xf32>, tensor<64x64xf32>",
        "(tensor<64x64xf32>, tensor<64x64xf32>)",
        max_bytes=16,
        ctx=ctx,
    )
    assert [op.key for op in ops if isinstance(op, InitializerOp)] == ["w.T", "m.T"]
    assert np.shares_memory(ctx.weights["w.T"].array(), array)
    assert np.array_equal(ctx.weights["w.T"].array(), array.T)
    assert not ctx.weights["m.T"].has_data


def test_a_weight_that_is_read_both_ways_is_kept_once():
    ctx = context()
    key = ctx.weights.add("w", np.ones((4, 4), np.float32))
    body = (
        f'%w = onnx.initializer {{key = "{key}"}} : tensor<4x4xf32>'
        "%t = onnx.Transpose v13(%w) : (tensor<4x4xf32>) -> tensor<4x4xf32>"
        '%a = onnx.MatMul v13(%x, %w) : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<4x4xf32>)'
        ' -> tensor<?x4xf32, #onnx.dims<"n", "">>'
        '%b = onnx.MatMul v13(%a, %t) : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<4x4xf32>)'
        ' -> tensor<?x4xf32, #onnx.dims<"n", "">>'
        'func.return %b : tensor<?x4xf32, #onnx.dims<"n", "">>'
    )
    ops, ctx = fold(body, 'tensor<?x4xf32, #onnx.dims<"n", "">>', max_bytes=16, ctx=ctx)
    assert names(ops) == ["initializer", "Transpose", "MatMul", "MatMul"]
    assert list(ctx.weights) == ["w"]


def test_weights_without_values_are_left():
    ctx = context()
    key = ctx.weights.add_meta("w", np.dtype(np.float32), [4])
    body = (
        f'%w = onnx.initializer {{key = "{key}"}} : tensor<4xf32>'
        "%y = onnx.Neg v13(%w) : (tensor<4xf32>) -> tensor<4xf32> func.return %y : tensor<4xf32>"
    )
    assert "Neg" in names(fold(body, "tensor<4xf32>", ctx=ctx)[0])


def test_it_needs_the_weights():
    with pytest.raises(PassFailedException, match="needs gimlet's context"):
        FoldConstantsPass().apply(Context(), parse("builtin.module {}"))
