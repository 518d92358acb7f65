"""The work of ops, against figures computed by hand: each expected value is spelled as the product that it is."""

from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerType, ModuleOp, TensorType, UnrankedTensorType, f32
from xdsl.ir import Attribute
from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OPERATORS, InitializerOp, OnnxOp, tensor_type
from gimlet.dialects.onnx.work import NOTHING, Work, runs_unknown_times, work_of
from gimlet.dialects.onnx.work_formulas import COUNTED_ONCE, DATA, ELEMENT_FLOPS, FORMULAS, VIEWS
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr


class Weight:
    """An input that is a constant of the model."""

    def __init__(self, *shape: int, dtype: Any = np.float32) -> None:
        self.type = tensor_type(np.dtype(dtype), shape)


def tensor(*shape: Any, dtype: Any = np.float32) -> Attribute:
    return tensor_type(np.dtype(dtype), shape)


def work(name: str, inputs: list[Any], *outputs: Attribute, domain: str = "", **attributes: Any) -> Work:
    operands: list[Any] = []
    for index, value in enumerate(inputs):
        if isinstance(value, Weight):
            operands.append(InitializerOp.from_key(f"w{index}", value.type))
        elif value is None:
            operands.append(None)
        else:
            operands.append(OPERATORS["", "RandomNormal"].create(result_types=[value]))
    return work_of(OPERATORS[domain, name].make(operands, outputs, attributes))


def figures(found: Work) -> tuple[str, str, str, str]:
    return str(found.flops), str(found.bytes_read), str(found.bytes_written), str(found.weight_bytes)


MS = "com.microsoft"


@pytest.mark.parametrize(
    ("found", "flops"),
    [
        (work("MatMul", [tensor(3, 5, 7), Weight(7, 11)], tensor(3, 5, 11)), 2 * 3 * 5 * 7 * 11),
        (work("MatMul", [tensor(7), Weight(7, 11)], tensor(11)), 2 * 7 * 11),
        (work("Gemm", [tensor(7, 5), Weight(7, 11), Weight(11)], tensor(5, 11), transA=1), 2 * 5 * 7 * 11 + 5 * 11),
        (
            work(
                "MatMulInteger",
                [tensor(5, 7, dtype=np.uint8), Weight(7, 3, dtype=np.int8)],
                tensor(5, 3, dtype=np.int32),
            ),
            2 * 5 * 7 * 3,
        ),
        (work("FusedMatMul", [tensor(7, 5), Weight(7, 11)], tensor(5, 11), domain=MS, transA=1), 2 * 5 * 7 * 11),
        (
            work("Einsum", [tensor(2, 3, 5), tensor(2, 5, 7)], tensor(2, 3, 7), equation="bij,bjk->bik"),
            2 * 2 * 3 * 5 * 7,
        ),
        (
            work("Einsum", [tensor(2, 3, 5), tensor(3, 5, 7)], tensor(2, 3, 7), equation="...ij,ijk->...ik"),
            2 * 2 * 3 * 5 * 7,
        ),
        (work("Einsum", [tensor(3, 5)], tensor(5, 3), equation="ij->ji"), 3 * 5),
        # 8 filters of 4 channels, 3x3, over 6x6 outputs, and a bias.
        (
            work("Conv", [tensor(1, 4, 8, 8), Weight(8, 4, 3, 3), Weight(8)], tensor(1, 8, 6, 6)),
            2 * 8 * 6 * 6 * 4 * 9 + 8 * 6 * 6,
        ),
        # Two groups: each filter sees half of the channels.
        (work("Conv", [tensor(1, 4, 8, 8), Weight(8, 2, 3, 3)], tensor(1, 8, 6, 6), group=2), 2 * 8 * 6 * 6 * 2 * 9),
        (work("ConvTranspose", [tensor(1, 4, 8, 8), Weight(4, 6, 2, 2)], tensor(1, 6, 16, 16)), 2 * 4 * 64 * 6 * 4),
        # 2 heads of 8 over 5 positions from 3: two products, and a softmax of 12 a score.
        (
            work("Attention", [tensor(1, 2, 3, 8), tensor(1, 2, 5, 8), tensor(1, 2, 5, 8)], tensor(1, 2, 3, 8)),
            2 * 2 * (2 * 3 * 8 * 5) + 12 * 2 * 3 * 5,
        ),
        (
            work(
                "Attention",
                [tensor(1, 3, 16), tensor(1, 5, 16), tensor(1, 5, 16)],
                tensor(1, 3, 16),
                q_num_heads=2,
                kv_num_heads=2,
            ),
            2 * 2 * (2 * 3 * 8 * 5) + 12 * 2 * 3 * 5,
        ),
        # One query after 9 past positions: 10 keys.
        (
            work(
                "GroupQueryAttention",
                [
                    tensor(1, 1, 32),
                    tensor(1, 1, 16),
                    tensor(1, 1, 16),
                    tensor(1, 2, 9, 8),
                    tensor(1, 2, 9, 8),
                    tensor(1, 1, dtype=np.int32),
                    tensor(1, dtype=np.int32),
                ],
                tensor(1, 1, 32),
                tensor(1, 2, 10, 8),
                tensor(1, 2, 10, 8),
                domain=MS,
                num_heads=4,
                kv_num_heads=2,
            ),
            2 * 2 * 32 * 10 + 12 * 4 * 10,
        ),
        (
            work(
                "MultiHeadAttention",
                [tensor(1, 3, 16), tensor(1, 5, 16), tensor(1, 5, 16)],
                tensor(1, 3, 16),
                domain=MS,
                num_heads=2,
            ),
            2 * 2 * 3 * 16 * 5 + 12 * 2 * 3 * 5,
        ),
        (
            work("Attention", [tensor(1, 3, 16), Weight(16, 48), Weight(48)], tensor(1, 3, 16), domain=MS, num_heads=2),
            2 * 3 * 16 * 48 + 2 * 2 * 3 * 16 * 3 + 12 * 2 * 3 * 3,
        ),
        # 6 steps, batch 2, 4 gates of 5 from an input of 3: both products and the gates' functions of 10 operations.
        (
            work("LSTM", [tensor(6, 2, 3), Weight(1, 20, 3), Weight(1, 20, 5)], tensor(6, 1, 2, 5), hidden_size=5),
            6 * 2 * (2 * 20 * (3 + 5) + 20 * 10),
        ),
        (work("Softmax", [tensor(2, 5)], tensor(2, 5)), 12 * 10),
        (work("ReduceMean", [tensor(2, 5)], tensor(2, 1)), 10),
        (work("Max", [tensor(4), tensor(4), tensor(4)], tensor(4)), 2 * 4),
        (work("MaxPool", [tensor(1, 2, 8, 8)], tensor(1, 2, 4, 4), kernel_shape=[2, 2], strides=[2, 2]), 2 * 16 * 4),
        (work("GlobalAveragePool", [tensor(1, 2, 8, 8)], tensor(1, 2, 1, 1)), 2 * 64),
        (work("Resize", [tensor(1, 1, 4, 4), None, Weight(4)], tensor(1, 1, 8, 8)), 0),
        (work("Exp", [tensor(4)], tensor(4)), 8 * 4),
        (work("Add", [tensor(4), tensor(4)], tensor(4)), 4),
        (work("Transpose", [tensor(4, 2)], tensor(2, 4)), 0),
        # 3 gates of 5 in two directions, batch 1.
        (
            work("GRU", [tensor(4, 1, 3), Weight(2, 15, 3), Weight(2, 15, 5)], tensor(4, 2, 1, 5), hidden_size=5),
            4 * (2 * 2 * 15 * (3 + 5) + 2 * 15 * 10),
        ),
        (
            work("ConvTranspose", [tensor(1, 4, 8), Weight(4, 3, 2), Weight(6)], tensor(1, 6, 16), group=2),
            2 * 4 * 8 * 3 * 2 + 6 * 16,
        ),
        (
            work("ConvInteger", [tensor(1, 3, 6, dtype=np.uint8), Weight(5, 3, 2, dtype=np.uint8)], tensor(1, 5, 5)),
            2 * 5 * 5 * 3 * 2,
        ),
        (
            work(
                "MatMulNBits",
                [tensor(4, 64), Weight(8, 2, 16, dtype=np.uint8), Weight(16)],
                tensor(4, 8),
                domain=MS,
                K=64,
                N=8,
            ),
            2 * 4 * 8 * 64,
        ),
        (work("LayerNormalization", [tensor(2, 5), Weight(5)], tensor(2, 5)), 8 * 10),
        (work("RMSNormalization", [tensor(2, 5), Weight(5)], tensor(2, 5)), 6 * 10),
        (work("Resize", [tensor(1, 1, 4, 4), None, Weight(4)], tensor(1, 1, 8, 8), mode="linear"), 8 * 64),
        (work("ScatterElements", [tensor(4), tensor(2, dtype=np.int64), tensor(2)], tensor(4)), 0),
        # 3 frames of a window of 8: 5 complex values each, of 5/2 · log2 8 a written number.
        (
            work("STFT", [tensor(1, 16, 1), tensor(dtype=np.int64), Weight(8)], tensor(1, 3, 5, 2)),
            3 * 5 * 2 * 5 * 3 // 2,
        ),
        (work("DFT", [tensor(1, 8, 2)], tensor(1, 8, 2)), 5 * 8 * 3),
        (work("Det", [tensor(2, 3, 3)], tensor(2)), 2 * (2 * 3**3) // 3),
        (work("NonMaxSuppression", [tensor(1, 6, 4), tensor(1, 2, 6)], tensor(4, 3, dtype=np.int64)), 2 * 6 * 6 * 8),
        (work("MaxRoiPool", [tensor(1, 2, 4, 4), tensor(3, 5)], tensor(3, 2, 2, 2), pooled_shape=[2, 2]), 3 * 2 * 16),
        (work("SoftmaxCrossEntropyLoss", [tensor(4, 7), tensor(4, dtype=np.int64)], tensor()), 12 * 28 + 4),
        # Delta rule: keys [1, 3, 2·4], values of size 8, 4 operations a state value, 2 more for the query.
        (
            work(
                "LinearAttention",
                [tensor(1, 3, 8), tensor(1, 3, 8), tensor(1, 3, 16)],
                tensor(1, 3, 16),
                q_num_heads=2,
                kv_num_heads=2,
                update_rule="delta",
            ),
            3 * 8 * 8 * (2 + 4),
        ),
    ],
    ids=lambda value: "" if isinstance(value, Work) else str(value),
)
def test_operations(found: Work, flops: int):
    assert found.known
    assert found.flops == Expr.const(flops)


def test_bytes_are_those_of_the_types():
    found = work("MatMul", [tensor(5, 7), Weight(7, 11)], tensor(5, 11))
    assert figures(found) == (str(2 * 5 * 7 * 11), str(4 * (5 * 7 + 7 * 11)), str(4 * 5 * 11), str(4 * 7 * 11))
    half = work(
        "MatMul", [tensor(5, 7, dtype=np.float16), Weight(7, 11, dtype=np.float16)], tensor(5, 11, dtype=np.float16)
    )
    assert half.bytes_read == Expr.const(2 * (5 * 7 + 7 * 11))


def test_symbolic_dimensions_stay():
    found = work("MatMul", [tensor("batch", "length", 64), Weight(64, 10)], tensor("batch", "length", 10))
    assert figures(found) == ("1280*batch*length", "256*batch*length + 2560", "40*batch*length", "2560")
    numbers = found.at({"batch": 2, "length": 3})
    assert (numbers.flops, numbers.bytes_read, numbers.activation_bytes) == (7680, 4096, 256 * 6 + 40 * 6)


def test_another_format_scales_floating_point_values_only():
    gather = work("Gather", [Weight(1000, 16), tensor(3, dtype=np.int64)], tensor(3, 16))
    assert (gather.at({}).bytes_read, gather.at({}, 16).bytes_read) == (4 * 48 + 24, 2 * 48 + 24)
    assert gather.at({}, 16).weight_bytes == 2 * 16000
    assert gather.at({}, 8.25).bytes_written == 48 * 8.25 / 8


def test_another_format_widens_nothing():
    half = work("Relu", [tensor(100, dtype=np.float16)], tensor(100, dtype=np.float16))
    assert half.at({}, 32) == half.at({})
    assert half.at({}, 8).bytes_read == 100


def test_weights_that_are_packed_keep_their_size():
    found = work(
        "MatMulNBits",
        [tensor(1, 64), Weight(32, 2, 16, dtype=np.uint8), Weight(32, 2)],
        tensor(1, 32),
        domain=MS,
        K=64,
        N=32,
        bits=4,
        block_size=32,
    )
    assert found.flops == Expr.const(2 * 64 * 32)
    assert found.weight_bytes == Expr.const(32 * 64 // 2 + 4 * 64)
    assert found.at({}, 16).weight_bytes == 32 * 64 // 2 + 2 * 64


def test_gather_reads_the_rows_that_it_gathers():
    found = work("Gather", [Weight(1000, 16), tensor(3, dtype=np.int64)], tensor(3, 16))
    assert figures(found) == ("0", str(4 * 48 + 8 * 3), str(4 * 48), str(4 * 16000))
    assert found.weight_read == Expr.const(4 * 48)


def test_slice_reads_what_it_keeps():
    bounds = [Weight(1, dtype=np.int64) for _ in range(2)]
    assert work("Slice", [tensor(100), *bounds], tensor(4)).bytes_read == Expr.const(16 + 16)


def test_experts_that_no_token_goes_to_are_not_read():
    def moe(tokens: int) -> Work:
        inputs = [tensor(tokens, 8), tensor(tokens, 16), Weight(16, 8, 12), None, Weight(16, 12, 8)]
        return work("MoE", inputs, tensor(tokens, 8), domain=MS, k=2)

    one = 4 * (8 * 12 + 12 * 8)
    assert moe(3).flops == Expr.const(2 * 3 * 2 * (96 + 96))
    assert moe(1).weight_read == Expr.const(2 * one)
    assert moe(2).weight_read == Expr.const(round(16 * (1 - (14 / 16) ** 2) * one))
    assert moe(100).weight_read == Expr.const(16 * one)
    assert moe(3).weight_bytes == Expr.const(16 * one)


@pytest.mark.parametrize(("experts", "chosen"), [(128, 4), (8, 2), (256, 8), (4, 4), (5, 1)])
def test_experts_are_read_as_random_tokens_touch_them(experts: int, chosen: int):
    """E · (1 − (1 − k/E)^n) of them, to 4%; never more, and never fewer for more tokens."""
    inputs = [tensor("n", 64), tensor("n", experts), Weight(experts, 64, 64), None, Weight(experts, 64, 64)]
    found = work("MoE", inputs, tensor("n", 64), domain=MS, k=chosen)
    reads = [found.at({"n": tokens}).weight_read for tokens in range(1, 600)]
    one = 4 * 2 * 64 * 64
    for tokens, read in enumerate(reads, 1):
        average = experts * (1 - (1 - chosen / experts) ** tokens) * one
        assert 0.96 * average <= read <= 1.003 * average + 4 * tokens
    assert reads == sorted(reads)


def test_packed_experts_count_all_their_values():
    inputs = [
        tensor(1, 8),
        tensor(1, 4),
        Weight(4, 12, 4, dtype=np.uint8),
        Weight(4, 12),
        None,
        Weight(4, 8, 6, dtype=np.uint8),
        Weight(4, 8),
    ]
    found = work("QMoE", inputs, tensor(1, 8), domain=MS, k=1)
    assert found.flops == Expr.const(2 * 2 * (12 * 4 + 8 * 6))


@pytest.mark.parametrize("name", ["Reshape", "Squeeze", "Flatten", "Shape", "Identity"])
def test_views_cost_nothing(name: str):
    op = OPERATORS["", name].create(operands=[], result_types=[tensor(4)])
    assert work_of(op) == NOTHING


@pytest.mark.parametrize(
    ("found", "op_class"),
    [
        (work("MatMul", [tensor(4, 4), tensor(4, 4)], tensor(4, 4)), "matrix"),
        (work("Conv", [tensor(1, 4, 8, 8), Weight(4, 4, 1, 1)], tensor(1, 4, 8, 8)), "conv"),
        (work("Conv", [tensor(1, 4, 8, 8), Weight(4, 1, 1, 1)], tensor(1, 4, 8, 8), group=4), "depthwise"),
        (work("Relu", [tensor(4)], tensor(4)), "vector"),
        (work("Concat", [tensor(4), tensor(4)], tensor(8), axis=0), "data"),
    ],
)
def test_classes(found: Work, op_class: str):
    assert found.op_class == op_class


def test_an_unknown_shape_is_said_to_be_unknown():
    assert not work("Relu", [UnrankedTensorType(f32)], UnrankedTensorType(f32)).known
    assert not work("NonZero", [tensor(4)], tensor(1, "?", dtype=np.int64)).known
    assert not work("MatMul", [tensor(4, 4), UnrankedTensorType(f32)], tensor(4, 4)).known


def test_an_unknown_operator_counts_its_outputs():
    text = """
    func.func @f(%x: tensor<4x2xf32>) {
      %y = onnx.custom "org.example", "Op"(%x) : (tensor<4x2xf32>) -> tensor<8xf32>
      func.return
    }
    """
    found = work_of(next(op for op in parsed(text).walk() if isinstance(op, OnnxOp)))
    assert figures(found) == ("8", "32", "32", "0")


def test_a_size_that_is_not_given_is_named():
    with pytest.raises(InputError, match="batch"):
        work("Relu", [tensor("batch")], tensor("batch")).at({})


def parsed(text: str) -> ModuleOp:
    ctx = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, factory)
    module = Parser(ctx, text).parse_module()
    module.verify()
    return module


def control(text: str, name: str) -> Work:
    return work_of(named(text, name))


def named(text: str, name: str) -> OnnxOp:
    return next(op for op in parsed(text).walk() if isinstance(op, OnnxOp) and op.op_type == name)


LOOP = """
func.func @f(%n: tensor<i64>, %c: tensor<i1>, %x: tensor<4x4xf32>) -> tensor<4x4xf32> {{
  %m = onnx.initializer {{value = dense<3> : tensor<i64>}} : tensor<i64>
  %y = onnx.Loop({trips}, %c, %x) body {{
  ^body(%i: tensor<i64>, %d: tensor<i1>, %a: tensor<4x4xf32>):
    %w = onnx.initializer {{key = "w"}} : tensor<4x4xf32>
    %b = onnx.MatMul(%a, %w) : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
    onnx.yield %d, %b : tensor<i1>, tensor<4x4xf32>
  }} : (tensor<i64>, tensor<i1>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %y : tensor<4x4xf32>
}}
"""


def test_a_loop_repeats_its_body_but_not_its_weights():
    found = control(LOOP.format(trips="%m"), "Loop")
    assert figures(found) == (str(3 * 128), str(3 * 128), str(3 * 64), "64")
    assert found.known
    assert found.op_class == "matrix"
    assert found.at({}, 16).weight_bytes == 32


def test_a_loop_of_unknown_length_counts_once_and_says_so():
    found = control(LOOP.format(trips="%n"), "Loop")
    assert (str(found.flops), found.known) == ("128", False)
    assert runs_unknown_times(named(LOOP.format(trips="%n"), "Loop"))
    assert not runs_unknown_times(named(LOOP.format(trips="%m"), "Loop"))


def test_an_if_costs_its_larger_branch():
    text = """
    func.func @f(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
      %y = onnx.If(%c) else_branch {
        onnx.yield %x : tensor<4xf32>
      } then_branch {
        %a = onnx.Exp(%x) : (tensor<4xf32>) -> tensor<4xf32>
        onnx.yield %a : tensor<4xf32>
      } : (tensor<i1>) -> tensor<4xf32>
      func.return %y : tensor<4xf32>
    }
    """
    assert figures(control(text, "If")) == ("32", "16", "16", "0")


def test_booleans_and_small_integers():
    found = work("Where", [tensor(8, dtype=np.bool_), tensor(8), tensor(8)], tensor(8))
    assert found.bytes_read == Expr.const(8 + 32 + 32)
    nibbles = Weight(3)
    nibbles.type = TensorType(IntegerType(4), [3])
    scale = work("DequantizeLinear", [nibbles, Weight(1)], tensor(3))
    assert scale.weight_bytes == Expr.const(2 + 4)


def test_every_operator_of_the_default_domain_is_counted_by_a_rule_of_its_own():
    """A formula, operations for each value, or nothing, because it only moves values or has a body."""
    names = {name for domain, name in OPERATORS if not domain}
    bodies = {"If", "Loop", "Scan", "SequenceMap"}
    ruled = FORMULAS.keys() | ELEMENT_FLOPS.keys() | DATA | VIEWS | COUNTED_ONCE | bodies
    assert len(names) >= 203
    assert names <= ruled
    for group in (DATA, VIEWS, COUNTED_ONCE):
        assert not group & FORMULAS.keys()
    assert not DATA & VIEWS
    assert not COUNTED_ONCE & (DATA | VIEWS | ELEMENT_FLOPS.keys())
