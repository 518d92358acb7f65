"""Attention of three dimensions, as `bmm` has it: products with batch and heads joined are found all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.entry import entry_function
from gimlet.passes.fuse_attention import FuseAttentionPass
from gimlet.passes.heads_apart import take_heads_apart

Nodes = list[onnx.NodeProto]
Q, K, M = ("b", 2, 3, 4), ("b", 2, 5, 4), ("b", 1, 3, 5)
INPUTS = {"q": Q, "k": K, "v": K, "m": M}
SIZES = {"b": 3}
SHAPES = {
    "flat": [-1, 3, 4],
    "flat_k": [-1, 5, 4],
    "flat_s": [-1, 3, 5],
    "apart_s": [-1, 2, 3, 5],
    "apart": [-1, 2, 3, 4],
}


def attention(*, mask: bool = True, turned_first: bool = False) -> Nodes:
    """As BART had it: softmax over [batch·heads, queries, keys], taken apart in between for the mask alone."""
    keys = [
        helper.make_node("Reshape", ["k", "flat_k"], ["k3"]),
        helper.make_node("Transpose", ["k3"], ["t"], perm=[0, 2, 1]),
    ]
    if turned_first:
        keys = [
            helper.make_node("Transpose", ["k"], ["k4"], perm=[0, 1, 3, 2]),
            helper.make_node("Reshape", ["k4", "flat_t"], ["t"]),
        ]
    masked = [
        helper.make_node("Reshape", ["p", "apart_s"], ["p4"]),
        helper.make_node("Add", ["p4", "m"], ["a"]),
        helper.make_node("Reshape", ["a", "flat_s"], ["s"]),
    ]
    return [
        helper.make_node("Reshape", ["q", "flat"], ["q3"]),
        *keys,
        helper.make_node("Reshape", ["v", "flat_k"], ["v3"]),
        helper.make_node("MatMul", ["q3", "t"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["p" if mask else "s"]),
        *(masked if mask else []),
        helper.make_node("Softmax", ["s"], ["w"], axis=-1),
        helper.make_node("MatMul", ["w", "v3"], ["y3"]),
        helper.make_node("Reshape", ["y3", "apart"], ["y"]),
    ]


def model_of(nodes: Nodes, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    shapes = {**SHAPES, "flat_t": [-1, 4, 5]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in INPUTS.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            *(numpy_helper.from_array(np.array(shape), name) for name, shape in shapes.items()),
            numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def normalised(model: onnx.ModelProto) -> tuple[Any, GimletContext]:
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, NORMALIZE)
    return module, ctx


def operators(module: Any) -> list[str]:
    return [op.op_type for op in entry_function(module).walk() if isinstance(op, OnnxOp)]


def uses_in(module: Any) -> list[int]:
    return [len(list(value.uses)) for op in module.walk() for value in op.results]


def run(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    given = {
        name: generator.standard_normal([SIZES.get(str(size), size) for size in shape]).astype(np.float32)
        for name, shape in INPUTS.items()
    }
    return InferenceSession(model.SerializeToString()).run(None, given)


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("turned_first", [True, False])
def test_it_is_found_and_computes_the_same(mask: bool, turned_first: bool):
    model = model_of(attention(mask=mask, turned_first=turned_first))
    module, ctx = normalised(model)
    take_heads_apart(entry_function(module))
    module.verify()
    assert "Reshape" not in operators(module)
    wanted = run(model)[0]
    np.testing.assert_allclose(run(ir.to_proto(export_module(module, ctx)))[0], wanted, rtol=1e-6, atol=1e-6)
    run_passes(module, ctx, [FuseAttentionPass(), "dce"])
    assert operators(module).count("Attention") == 1
    assert "MatMul" not in operators(module)
    np.testing.assert_allclose(run(ir.to_proto(export_module(module, ctx)))[0], wanted, rtol=1e-5, atol=1e-6)


def _changed(at: str, **attributes: Any) -> Nodes:
    nodes = attention(mask=False)
    (node,) = [node for node in nodes if node.output[0] == at]
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return nodes


def _square(nodes: Nodes, last: onnx.NodeProto) -> Nodes:
    return [*nodes[:-1], last]


NEAR = {
    "a softmax over queries": (_changed("w", axis=1), ("y",)),
    "a softmax over matrices": (_changed("w", axis=0), ("y",)),
    "weights that are read elsewhere": (attention(mask=False), ("y", "w")),
    "a result with other heads": (
        _square(attention(mask=False), helper.make_node("Reshape", ["y3", "other"], ["y"])),
        ("y",),
    ),
    "queries that had no heads": (
        [
            helper.make_node("Transpose", ["q"], ["qt"], perm=[1, 0, 2, 3]),
            helper.make_node("Reshape", ["qt", "flat"], ["q3"]),
            *attention(mask=False)[1:],
        ],
        ("y",),
    ),
    "whole numbers in between": (
        [
            *attention(mask=False)[:-3],
            helper.make_node("Cast", ["s"], ["i"], to=TensorProto.INT32),
            helper.make_node("Cast", ["i"], ["w"], to=TensorProto.FLOAT),
            *attention(mask=False)[-2:],
        ],
        ("y",),
    ),
}


@pytest.mark.parametrize("near", NEAR)
def test_what_only_looks_like_it_stays(near: str):
    nodes, outputs = NEAR[near]
    model = model_of(nodes, outputs)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, -1, 3, 4]), "other"))
    module, ctx = normalised(model)
    before, uses = operators(module), uses_in(module)
    take_heads_apart(entry_function(module))
    assert operators(module) == before
    assert uses_in(module) == uses, "nothing may read values from outside of the module"
    for mine, wanted in zip(run(ir.to_proto(export_module(module, ctx))), run(model), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-6)
