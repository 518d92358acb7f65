"""xDSL's common subexpressions and dead code on our operations: random numbers, bodies and unknown operators."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.unit.dialects.onnx_cases import model_of
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp

RANDOM = {"RandomNormal": {"shape": [4]}, "RandomUniform": {"shape": [4]}}
LIKE = ("RandomNormalLike", "RandomUniformLike", "Bernoulli")


def left(nodes: list[onnx.NodeProto], name: str, outputs: list[str]) -> list[str]:
    """The operators that are left of a model after the pass called `name`."""
    model = model_of(nodes, {"x": [4]}, {output: [4] for output in outputs}, weights={"yes": np.array(True)})
    ctx = GimletContext()
    module: ModuleOp = load(model, ctx=ctx)
    run_passes(module, ctx, [name])
    return [op.op_type for op in module.walk() if isinstance(op, OnnxOp) and not isinstance(op, InitializerOp)]


def twice(kind: str, **attributes: object) -> list[onnx.NodeProto]:
    inputs = [] if kind in RANDOM else ["x"]
    return [helper.make_node(kind, inputs, [name], **attributes) for name in ("a", "b")]


@pytest.mark.parametrize("kind", [*RANDOM, *LIKE])
def test_draws_of_random_numbers_are_not_one(kind: str):
    nodes = [*twice(kind, **RANDOM.get(kind, {})), helper.make_node("Sub", ["a", "b"], ["y"])]
    assert left(nodes, "cse", ["y"]) == [kind, kind, "Sub"]


def test_dropouts_in_training_are_not_one():
    drops = [helper.make_node("Dropout", ["x", "", "yes"], [name]) for name in ("a", "b")]
    assert left([*drops, helper.make_node("Sub", ["a", "b"], ["y"])], "cse", ["y"]) == ["Dropout", "Dropout", "Sub"]


def test_random_numbers_that_nobody_reads_are_not_drawn():
    nodes = [*twice("RandomNormal", shape=[4]), helper.make_node("Relu", ["b"], ["y"])]
    assert left(nodes, "dce", ["y"]) == ["RandomNormal", "Relu"]


def test_equal_operations_are_one():
    nodes = [*twice("Relu"), helper.make_node("Sub", ["a", "b"], ["y"])]
    assert left(nodes, "cse", ["y"]) == ["Relu", "Sub"]


def test_operations_of_other_attributes_are_not_one():
    nodes = [helper.make_node("LeakyRelu", ["x"], [name], alpha=alpha) for name, alpha in (("a", 0.1), ("b", 0.2))]
    assert left([*nodes, helper.make_node("Sub", ["a", "b"], ["y"])], "cse", ["y"]) == ["LeakyRelu", "LeakyRelu", "Sub"]


@pytest.mark.parametrize("name", ["cse", "dce"])
def test_what_an_unknown_operator_does_is_kept(name: str):
    nodes = [helper.make_node("Mystery", ["x"], [result], domain="com.example") for result in ("a", "b")]
    nodes.append(helper.make_node("Relu", ["x"], ["y"]))
    assert left(nodes, name, ["y"]) == ["Mystery", "Mystery", "Relu"]


def branches(first: str, second: str) -> onnx.NodeProto:
    graphs = {}
    for branch, kind in (("then_branch", first), ("else_branch", second)):
        value = helper.make_tensor_value_info(f"{branch}{kind}", TensorProto.FLOAT, [4])
        graphs[branch] = helper.make_graph([helper.make_node(kind, ["x"], [value.name])], branch, [], [value])
    return helper.make_node("If", ["yes"], [f"{first}{second}"], **graphs)


def test_a_body_that_draws_is_not_merged_with_its_like():
    nodes = [branches("RandomNormalLike", "Relu"), branches("RandomNormalLike", "Tanh")]
    nodes.append(helper.make_node("Sub", ["RandomNormalLikeRelu", "RandomNormalLikeTanh"], ["y"]))
    assert left(nodes, "cse", ["y"]).count("RandomNormalLike") == 2


def test_an_if_that_nobody_reads_is_dead_with_its_body():
    assert left([branches("Relu", "Tanh"), helper.make_node("Relu", ["x"], ["y"])], "dce", ["y"]) == ["Relu"]
