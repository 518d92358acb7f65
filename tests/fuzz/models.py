"""Models for the fuzz target alone: large operators, those of com.microsoft, what loops carry, small types."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.unit.dialects.test_onnx_structures import model, tensor

_MICROSOFT = "com.microsoft"
_SMALL = (
    TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E8M0, TensorProto.FLOAT4E2M1, TensorProto.INT4,
    TensorProto.UINT4, TensorProto.INT2, TensorProto.BFLOAT16,
)  # fmt: skip


def _weights(shapes: dict[str, tuple[int, ...]]) -> list[TensorProto]:
    generator = np.random.default_rng(0)
    return [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def contrib_operators() -> onnx.ModelProto:
    """A layer of a decoder as ONNX Runtime's tools write it: every operator is of com.microsoft."""
    nodes = [
        helper.make_node(
            "GroupQueryAttention", ["q", "k", "v", "past_k", "past_v", "lengths", "total", "cos", "sin"],
            ["mixed", "present_k", "present_v"], domain=_MICROSOFT, num_heads=4, kv_num_heads=2, do_rotary=1,
            local_window_size=3,
        ),
        helper.make_node("FusedMatMul", ["mixed", "w"], ["out"], domain=_MICROSOFT, transB=1, alpha=0.5),
        helper.make_node(
            "SkipSimplifiedLayerNormalization", ["out", "q", "scale"], ["norm", "", "", "sum"], domain=_MICROSOFT
        ),
        helper.make_node("MultiHeadAttention", ["norm", "k2", "k2"], ["m"], domain=_MICROSOFT, num_heads=2),
        helper.make_node("RotaryEmbedding", ["m", "ids", "cos", "sin"], ["r"], domain=_MICROSOFT, num_heads=2),
        helper.make_node("SkipLayerNormalization", ["r", "sum", "scale", "bias"], ["s"], domain=_MICROSOFT),
        helper.make_node("QuickGelu", ["s"], ["g"], domain=_MICROSOFT, alpha=1.5),
        helper.make_node("BiasGelu", ["g", "bias"], ["b"], domain=_MICROSOFT),
        helper.make_node("FastGelu", ["b", "bias"], ["y"], domain=_MICROSOFT),
    ]  # fmt: skip
    inputs = [
        *(tensor(name, ["batch", "n", wide]) for name, wide in (("q", 32), ("k", 16), ("v", 16), ("k2", 32))),
        *(tensor(name, ["batch", 2, "past", 8]) for name in ("past_k", "past_v")),
        tensor("lengths", ["batch"], TensorProto.INT32), tensor("total", [], TensorProto.INT32),
        tensor("ids", ["batch", "n"], TensorProto.INT64),
    ]  # fmt: skip
    outputs = [tensor(name, None) for name in ("y", "present_k", "present_v")]
    shapes = {"w": (32, 32), "scale": (32,), "bias": (32,), "cos": (16, 4), "sin": (16, 4)}
    domains = [helper.make_opsetid(_MICROSOFT, 1)]
    return model(nodes, inputs, outputs, initializer=_weights(shapes), opsets=domains)


def packed_weights() -> onnx.ModelProto:
    """Weights of four bits, in a product and in experts."""
    packed = np.arange(4 * 16, dtype=np.uint8).reshape(4, 1, 16)
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x", "w", "scales"], ["h"], domain=_MICROSOFT, K=32, N=4, bits=4, block_size=32
        ),
        helper.make_node("Softmax", ["h"], ["router"]),
        helper.make_node(
            "QMoE", ["x", "router", "up", "up_scales", "", "down", "down_scales"], ["y"], domain=_MICROSOFT, k=2,
            activation_type="silu",
        ),
    ]  # fmt: skip
    weights = [
        numpy_helper.from_array(packed, "w"),
        numpy_helper.from_array(np.zeros((4, 32, 16), np.uint8), "up"),
        numpy_helper.from_array(np.zeros((4, 32, 16), np.uint8), "down"),
        *_weights({"scales": (4,), "up_scales": (4, 32), "down_scales": (4, 32)}),
    ]
    domains = [helper.make_opsetid(_MICROSOFT, 1)]
    return model(nodes, [tensor("x", ["n", 32])], [tensor("y", ["n", 32])], initializer=weights, opsets=domains)


def large_operators() -> onnx.ModelProto:
    """Operators that ONNX itself defines by functions, with a cache."""
    nodes = [
        helper.make_node("RMSNormalization", ["x", "scale"], ["n"], epsilon=1e-5),
        helper.make_node("RotaryEmbedding", ["n", "cos", "sin"], ["q"], num_heads=4),
        helper.make_node(
            "Attention", ["q", "k", "k", "mask", "past", "past"], ["a", "new_k", "new_v"], q_num_heads=4,
            kv_num_heads=2, softcap=3.0,
        ),
        helper.make_node("Gelu", ["a"], ["g"], approximate="tanh"),
        helper.make_node("Swish", ["g"], ["s"], alpha=1.5),
        helper.make_node("TensorScatter", ["buffer", "k", "at"], ["filled"], mode="circular", axis=1),
        helper.make_node("Mish", ["s"], ["y"]),
    ]  # fmt: skip
    inputs = [
        tensor("x", [2, "n", 32]), tensor("k", [2, "n", 16]), tensor("mask", ["n", "total"], TensorProto.BOOL),
        tensor("past", [2, 2, "past", 8]), tensor("cos", [2, "n", 4]), tensor("sin", [2, "n", 4]),
        tensor("buffer", [2, 9, 16]), tensor("at", [2], TensorProto.INT64),
    ]  # fmt: skip
    outputs = [tensor(name, None) for name in ("y", "new_k", "filled")]
    return model(nodes, inputs, outputs, initializer=_weights({"scale": (32,)}), opset=24)


def what_fusions_look_for() -> onnx.ModelProto:
    """Attention, LayerNormalization, Gelu and rotations in simple operators, one step from their patterns."""
    constants = {
        "two": 2.0, "eps": 1e-5, "root": math.sqrt(2), "one": 1.0, "half": 0.5, "scale": 0.25, "fill": -3e38,
    }  # fmt: skip
    sizes = {"last": [-1], "zero": [0], "four": [4], "end": [2**62], "split": [0, 0, 2, 8]}
    nodes = [
        helper.make_node("ReduceMean", ["x", "last"], ["mean"]),
        helper.make_node("Sub", ["x", "mean"], ["c"]),
        helper.make_node("Pow", ["c", "two"], ["sq"]),
        helper.make_node("ReduceMean", ["sq", "last"], ["var"]),
        helper.make_node("Add", ["var", "eps"], ["shifted"]),
        helper.make_node("Sqrt", ["shifted"], ["dev"]),
        helper.make_node("Div", ["c", "dev"], ["unit"]),
        helper.make_node("Mul", ["unit", "gamma"], ["scaled"]),
        helper.make_node("Add", ["scaled", "beta"], ["norm"]),
        helper.make_node("Reshape", ["norm", "split"], ["apart"]),
        helper.make_node("Transpose", ["apart"], ["heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Slice", ["heads", "zero", "four", "last"], ["a"]),
        helper.make_node("Slice", ["heads", "four", "end", "last"], ["b"]),
        helper.make_node("Neg", ["b"], ["minus"]),
        helper.make_node("Concat", ["minus", "a"], ["turned"], axis=-1),
        helper.make_node("Mul", ["heads", "cos"], ["hc"]),
        helper.make_node("Mul", ["turned", "sin"], ["hs"]),
        helper.make_node("Add", ["hc", "hs"], ["q"]),
        helper.make_node("Transpose", ["heads"], ["k"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "k"], ["raw"]),
        helper.make_node("Mul", ["raw", "scale"], ["scores"]),
        helper.make_node("Where", ["mask", "scores", "fill"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "heads"], ["mixed"]),
        helper.make_node("Div", ["mixed", "root"], ["inner"]),
        helper.make_node("Erf", ["inner"], ["curve"]),
        helper.make_node("Add", ["curve", "one"], ["sum"]),
        helper.make_node("Mul", ["mixed", "sum"], ["most"]),
        helper.make_node("Mul", ["most", "half"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["gate"]),
        helper.make_node("Mul", ["g", "gate"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    weights += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in sizes.items()]
    inputs = [
        tensor("x", ["batch", "n", 16]), tensor("cos", ["n", 8]), tensor("sin", ["n", 8]),
        tensor("mask", ["n", "n"], TensorProto.BOOL),
    ]  # fmt: skip
    return model(nodes, inputs, [tensor("y", None)], initializer=[*weights, *_weights({"gamma": (16,), "beta": (16,)})])


def carried_sequences() -> onnx.ModelProto:
    """A loop that carries a sequence and an optional, and an If that gives one of two sequences."""
    rows = helper.make_tensor_type_proto(TensorProto.FLOAT, ["k", 2])
    sequence = helper.make_sequence_type_proto(rows)
    optional = helper.make_optional_type_proto(rows)
    body = helper.make_graph(
        [
            helper.make_node("Optional", ["x"], ["some"]),
            helper.make_node("SequenceInsert", ["list", "x"], ["longer"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL),
            helper.make_value_info("list", sequence), helper.make_value_info("maybe", optional),
        ],
        [
            tensor("on", [], TensorProto.BOOL), helper.make_value_info("longer", sequence),
            helper.make_value_info("some", optional),
        ],
    )  # fmt: skip
    then = helper.make_graph(
        [helper.make_node("SequenceErase", ["all", "at"], ["t"])], "then", [], [helper.make_value_info("t", sequence)]
    )
    other = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x", "value"], ["e"])], "else", [],
        [helper.make_value_info("e", sequence)],
    )  # fmt: skip
    nodes = [
        helper.make_node("SequenceEmpty", [], ["empty"], dtype=TensorProto.FLOAT),
        helper.make_node("Optional", [], ["none"], type=rows),
        helper.make_node("Loop", ["count", "yes", "empty", "none"], ["all", "last"], body=body),
        helper.make_node("OptionalGetElement", ["last"], ["value"]),
        helper.make_node("OptionalHasElement", ["last"], ["has"]),
        helper.make_node("If", ["has"], ["chosen"], then_branch=then, else_branch=other),
        helper.make_node("ConcatFromSequence", ["chosen"], ["y"], axis=0),
    ]
    weights = [numpy_helper.from_array(np.array(value), name) for name, value in (("yes", True), ("at", 0))]
    inputs = [tensor("x", ["k", 2]), tensor("count", [], TensorProto.INT64)]
    return model(nodes, inputs, [tensor("y", [None, 2])], initializer=weights)


def small_types() -> onnx.ModelProto:
    """Weights of the types of eight bits and fewer, cast and dequantized."""
    nodes: list[onnx.NodeProto] = []
    weights = [numpy_helper.from_array(np.full((2, 2), 0.5, np.float32), "scale")]
    for code in _SMALL:
        name = TensorProto.DataType.Name(code).lower()
        values = np.array([[0, 1, 1, 0], [1, 0, 0, 1]]).astype(helper.tensor_dtype_to_np_dtype(code))
        weights.append(numpy_helper.from_array(values, name))
        nodes.append(helper.make_node("Cast", [name], [f"{name}.wide"], to=TensorProto.FLOAT))
        nodes.append(
            helper.make_node("Add", [nodes[-3].output[0] if len(nodes) > 2 else "x", f"{name}.wide"], [f"{name}.sum"])
        )
    four = numpy_helper.from_array(np.array([[1, -2, 3, 0], [7, -8, 1, 1]]).astype(ml_dtypes.int4), "four")
    nodes += [
        helper.make_node("DequantizeLinear", ["four", "scale"], ["real"], axis=1, block_size=2),
        helper.make_node("Mul", [nodes[-1].output[0], "real"], ["y"]),
    ]
    return model(nodes, [tensor("x", [2, 4])], [tensor("y", [2, 4])], initializer=[*weights, four], opset=25)
