"""infer-shapes: what it finds, what it leaves open, and that what it finds is true."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.dialects.onnx_cases import context, imported, model_of, parse, run
from xdsl.dialects.func import FuncOp
from xdsl.transforms.dead_code_elimination import DeadCodeElimination
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import OnnxOp, SeqType, dims_of, shape_of, value_name
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.passes.infer_shapes import InferShapesPass
from gimlet.runtime.expr import Expr

OCR = {
    "ch_PP-OCRv4_det_infer": ("1", "32*floordiv(x_d2 + 31, 32)", "32*floordiv(x_d3 + 31, 32)"),
    "ch_PP-OCRv4_rec_infer": ("floordiv(x_d3 + 3, 8)", "6625"),
    "ch_ppocr_mobile_v2.0_cls_infer": ("2",),
}


def infer(model: onnx.ModelProto):
    module, ctx = imported(model)
    InferShapesPass().apply(ctx, module)
    module.verify()
    return module


def shapes(module) -> dict[str, list[str]]:
    return {
        value_name(value): ["?" if dim is None else str(dim) for dim in shape_of(value) or ("no rank",)]
        for op in module.walk()
        if isinstance(op, OnnxOp)
        for value in op.results
    }


def unknown(module) -> list[str]:
    return [
        value_name(value)
        for op in module.walk()
        if isinstance(op, OnnxOp)
        for value in op.results
        if dims_of(value) is None
    ]


def ocr_model(name: str) -> Path:
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        pytest.skip("the models are not installed")
    return Path(spec.origin).parent / "models" / f"{name}.onnx"


@pytest.mark.parametrize("name", OCR)
def test_every_value_of_the_ocr_models_is_known(name: str):
    ctx = context()
    module = load(ocr_model(name), ctx=ctx)
    passes = (InferShapesPass(), FoldConstantsPass(), CanonicalizeOnnxPass(), DeadCodeElimination(), InferShapesPass())
    for step in passes:
        step.apply(ctx, module)
        module.verify()
    assert unknown(module) == []
    main = module.body.block.first_op
    assert isinstance(main, FuncOp)
    assert [str(dim) for dim in dims_of(main.args[0])] == ["x_d0", "3", "x_d2", "x_d3"]
    (result,) = main.function_type.outputs
    assert [str(dim) for dim in dims_of(result)] == ["x_d0", *OCR[name]]
    assert not any(op.name == "onnx.Shape" for op in module.walk())


def test_inferred_shapes_are_those_that_come_out():
    """Every inner value of the detection network is made an output, and measured."""
    ctx = context()
    module = load(ocr_model("ch_PP-OCRv4_det_infer"), ctx=ctx)
    InferShapesPass().apply(ctx, module)
    model = export_module(module, ctx)
    nodes = [node for node in model.graph if node.op_type != "Constant"]
    model.graph.outputs.extend(value for node in nodes for value in node.outputs if value not in model.graph.outputs)
    sizes = {"x_d0": 2, "x_d2": 64, "x_d3": 96}
    dtype = ir.TensorType(ir.DataType.FLOAT)
    for value in model.graph.outputs:
        value.type = value.type or dtype
    found = run(ir.to_proto(model), {"x": np.zeros((2, 3, 64, 96), np.float32)})
    values = {value_name(value): value for op in module.walk() if isinstance(op, OnnxOp) for value in op.results}
    assert len(found) > 300
    for name, array in found.items():
        assert tuple(dim.evaluate(sizes) for dim in dims_of(values[name])) == array.shape, name


def nodes_of(*specs: tuple[str, str, str], **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(op, ins.split(), outs.split(), **attributes.get(op, {})) for op, ins, outs in specs]


def ints(name: str, values: list[int]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value_ints=values)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (nodes_of(("Concat", "x x", "y"), Concat={"axis": 1}), ["n", "2*m"]),
        (nodes_of(("Shape", "x", "s"), ("ConstantOfShape", "s", "y")), ["n", "m"]),
        ([ints("s", [-1, 2]), *nodes_of(("Reshape", "x s", "y"))], ["floordiv(m*n, 2)", "2"]),
        (
            [*nodes_of(("Shape", "x", "s")), ints("i", [1]), *nodes_of(("Gather", "s i", "k"), ("Tile", "r k", "y"))],
            ["m"],
        ),
        (
            [
                *nodes_of(("Shape", "x", "s")),
                ints("minus", [-1]),
                *nodes_of(("Equal", "s minus", "e"), ("ConstantOfShape", "two", "ones"), ("Where", "e two s", "t")),
                *nodes_of(("Expand", "one t", "y")),
            ],
            ["n", "m"],
        ),
        ([ints("a", [0]), ints("b", [5]), *nodes_of(("Slice", "x a b", "y"))], ["min(5, n)", "m"]),
        ([ints("a", [0]), ints("b", [1]), *nodes_of(("Slice", "x a b", "y"))], ["1", "m"]),
        (
            [ints("a", [2, 0]), ints("b", [9, 1 << 40]), *nodes_of(("Slice", "x a b", "y"))],
            ["max(0, min(9, n) - 2)", "m"],
        ),
        (
            [
                *(ints(name, [v]) for name, v in (("a", 0), ("b", 1000000000), ("c", 1), ("d", 2))),
                *nodes_of(("Slice", "x a b c d", "y")),
            ],
            ["n", "floordiv(m + 1, 2)"],
        ),
        ([ints("a", [3]), ints("b", [2]), *nodes_of(("Slice", "x a b", "y"))], ["0", "m"]),
        (nodes_of(("NonZero", "x", "y")), ["2", "y_d1"]),
        (nodes_of(("Mystery", "x", "y")), ["no rank"]),
    ],
)
def test_single_rules(nodes: list[onnx.NodeProto], expected: list[str]):
    weights = {
        "r": np.ones(1, np.float32),
        "one": np.ones((1, 1), np.float32),
        "two": np.array([1, 1]),
    }
    model = model_of(nodes, {"x": ["n", "m"]}, {"y": None}, weights=weights)
    if nodes[-1].op_type == "NonZero":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert shapes(infer(model))["y"] == expected


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "LpPool", "Conv"])
@pytest.mark.parametrize(("stride", "expected"), [(1, "m"), (2, "floordiv(m + 1, 2)"), (3, "floordiv(m + 2, 3)")])
@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
def test_windows_that_are_padded_to_fit(kind: str, stride: int, expected: str, padding: str):
    attributes = {"kernel_shape": [2, 3], "strides": [1, stride], "auto_pad": padding}
    node = helper.make_node(kind, ["x", "w"] if kind == "Conv" else ["x"], ["y"], **attributes)
    weights = {"w": np.zeros((1, 1, 2, 3), np.float32)} if kind == "Conv" else {}
    model = model_of([node], {"x": [1, 1, "n", "m"]}, {"y": [1, 1, "h", "w"]}, weights=weights)
    assert shapes(infer(model))["y"] == ["1", "1", "n", expected]
    for size in range(4, 8):
        (found,) = run(model, {"x": np.zeros((1, 1, 4, size), np.float32)}).values()
        assert found.shape[3] == Expr.parse(expected).evaluate({"m": size})


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after", "dilation"),
    [(3, 2, 1, 1, 1), (2, 3, 0, 1, 1), (1, 3, 0, 0, 1), (2, 2, 1, 0, 2), (4, 4, 2, 1, 1)],
)
def test_windows_whose_last_one_may_reach_past_the_end(
    kind: str, kernel: int, stride: int, before: int, after: int, dilation: int
):
    pool = helper.make_node(kind, ["x"], ["y"], kernel_shape=[kernel], ceil_mode=1)
    pool.attribute.extend(
        helper.make_attribute(name, value)
        for name, value in {"strides": [stride], "pads": [before, after], "dilations": [dilation]}.items()
    )
    # The library reads sizes again where two names of one are told to be equal.
    model = model_of(
        [pool, *nodes_of(("Relu", "y", "z"))], {"x": ["n", 2, "m"]}, {"y": ["n", 2, "k"], "z": None}, opset=19
    )
    (_, _, found) = shapes(infer(model))["y"]
    for size in range(5, 14):
        y = run(model, {"x": np.zeros((1, 2, size), np.float32)})["y"]
        assert y.shape[2] == Expr.parse(found).evaluate({"m": size})


def test_a_split_into_computed_lengths_is_not_into_equal_ones():
    nodes = [ints("one", [1]), *nodes_of(("Shape", "x", "s"), ("Gather", "s one", "m"), ("Sub", "m one", "rest"))]
    nodes += [*nodes_of(("Concat", "one rest", "lengths"), Concat={"axis": 0})]
    nodes.append(helper.make_node("Split", ["x", "lengths"], ["y", "z"], axis=1))
    found = shapes(infer(model_of(nodes, {"x": ["n", 6]}, {"y": None, "z": None})))
    assert (found["y"], found["z"]) == (["n", "1"], ["n", "5"])


def test_an_if_is_only_as_known_as_both_branches():
    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["x"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    def result(op: str) -> list[str]:
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", op))
        model = model_of([node], {"x": ["n", 4]}, {"y": None}, weights={})
        model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
        return shapes(infer(model))["y"]

    assert result("Neg") == ["n", "4"]
    assert result("Transpose") == ["?", "?"]
    assert result("Mystery") == ["no rank"]


def test_a_sequence_that_loops_carry_without_saying_so():
    """Body arguments and results without types, as torch's exporter writes them for EmbeddingBag."""

    def loop(inner: list[onnx.NodeProto], carried: str, made: str, result: str) -> onnx.NodeProto:
        turn = helper.make_tensor_value_info(f"turn_{result}", TensorProto.INT64, [])
        going = helper.make_tensor_value_info(f"going_{result}", TensorProto.BOOL, [])
        untyped = [onnx.ValueInfoProto(name=name) for name in (carried, made)]
        body = helper.make_graph(inner, result, [turn, going, untyped[0]], [going, untyped[1]])
        return helper.make_node("Loop", ["three", "", "rows" if result == "y" else "outer"], [result], body=body)

    inside = loop([helper.make_node("SequenceInsert", ["inner", "x"], ["more"])], "inner", "more", "grown")
    nodes = [
        helper.make_node("SequenceEmpty", [], ["rows"]),
        loop([inside], "outer", "grown", "y"),
        helper.make_node("ConcatFromSequence", ["y"], ["z"], axis=0),
    ]
    module = infer(model_of(nodes, {"x": ["n", 4]}, {"z": None}, weights={"three": np.array(3)}))
    results = [value for op in module.walk() if isinstance(op, OnnxOp) for value in op.results]
    sequences = {value_name(value) for value in results if isinstance(value.type, SeqType)}
    assert sequences == {"rows", "y", "grown", "more"}
    assert shapes(module)["z"] == ["no rank"]


def test_sizes_that_the_model_states_are_kept():
    model = model_of(nodes_of(("Mystery", "x", "h"), ("Relu", "h", "y")), {"x": ["n", 4]}, {"y": ["n", 8]})
    model.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 8]))
    assert shapes(infer(model)) == {"h": ["n", "8"], "y": ["n", "8"]}


def test_names_that_are_of_no_input_are_not_believed():
    model = model_of(nodes_of(("Relu", "x", "y")), {"x": ["n", 4]}, {"y": ["someday", 4]})
    assert shapes(infer(model))["y"] == ["n", "4"]


def test_a_rule_that_fails_leaves_the_others():
    """MatMul of shapes that do not fit is not this pass's to report: frameworks say it better."""
    weights = {"w": np.ones((3, 3), np.float32)}
    model = model_of(
        nodes_of(("MatMul", "x w", "h"), ("Relu", "x", "y")), {"x": ["n", 4]}, {"y": None}, weights=weights
    )
    assert shapes(infer(model))["y"] == ["n", "4"]


def test_weights_are_not_read():
    ctx = context()
    key = ctx.weights.add_meta("w", np.dtype(np.float32), [4, 1 << 20])
    module = parse(
        'builtin.module attributes {onnx.opsets = {"" = 17 : i64}} {'
        'func.func @main(%x: tensor<?x4xf32, #onnx.dims<"n", "">>) -> !onnx.any {'
        f'%w = onnx.initializer {{key = "{key}"}} : tensor<4x1048576xf32>'
        '%y = onnx.MatMul v13(%x, %w) : (tensor<?x4xf32, #onnx.dims<"n", "">>, tensor<4x1048576xf32>) -> !onnx.any'
        " func.return %y : !onnx.any } }",
        ctx,
    )
    InferShapesPass().apply(ctx, module)
    module.verify()
    assert shapes(module)["y"] == ["n", "1048576"]


def test_a_module_without_main():
    with pytest.raises(PassFailedException, match=r"no func\.func @main"):
        InferShapesPass().apply(context(), parse("builtin.module {}"))


def test_what_is_rolled_along_two_dimensions_keeps_its_sizes():
    """PyTorch's exporter slices at the rest of the shift by the size; the second size is read from the first result."""
    nodes: list[onnx.NodeProto] = []
    last = "x"
    for axis in (1, 2):
        names = {name: f"{name}{axis}" for name in ("shape", "size", "at", "head", "tail", "rolled")}
        nodes += [
            helper.make_node("Shape", [last], [names["shape"]]),
            helper.make_node("Gather", [names["shape"], f"axis{axis}"], [names["size"]], axis=0),
            helper.make_node("Mod", ["shift", names["size"]], [names["at"]]),
            helper.make_node("Slice", [last, names["at"], "far", f"axis{axis}"], [names["head"]]),
            helper.make_node("Slice", [last, "zero", names["at"], f"axis{axis}"], [names["tail"]]),
            helper.make_node("Concat", [names["head"], names["tail"]], [names["rolled"]], axis=axis),
        ]
        last = names["rolled"]
    constants = {"shift": -2, "far": 1 << 40, "zero": 0, "axis1": 1, "axis2": 2}
    graph = helper.make_graph(
        nodes,
        "rolled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 12, 4])],
        [helper.make_empty_tensor_value_info(last)],
        [numpy_helper.from_array(np.array([value]), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert shapes(infer(model))[last] == ["n", "16", "12", "4"]
