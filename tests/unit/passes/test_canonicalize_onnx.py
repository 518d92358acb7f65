"""canonicalize-onnx: each rule, and where it must not act."""

import numpy as np
import onnx_ir as ir
import pytest
from tests.unit.dialects.onnx_cases import context, parse, run

from gimlet.dialects.onnx import OnnxOp, constant_value
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.infer_shapes import InferShapesPass

ARGUMENTS = (
    '%x: tensor<?x4x6xf32, #onnx.dims<"n", "", "">>, %h: tensor<?x4x6xf16, #onnx.dims<"n", "", "">>,'
    ' %p: tensor<?x?x6xf32, #onnx.dims<"n", "m", "">>, %i: tensor<i64>, %b: tensor<i1>, %s: tensor<2xi64>'
)
CONSTANTS = {
    "zero": "[0]",
    "two": "[2]",
    "six": "[6]",
    "axis": "[1]",
    "minus": "[-1]",
    "ones": "[1, 1, 1]",
    "flat": "[-1, 24]",
}


def canonical(body: str, result: str, opset: int = 17):
    """The operations that are left, after constants that nobody reads are dropped."""
    constants = "".join(
        f"%{name} = onnx.initializer {{value = dense<{v}> : tensor<{v.count(',') + 1}xi64>}}"
        f" : tensor<{v.count(',') + 1}xi64>"
        for name, v in CONSTANTS.items()
    )
    ctx = context()
    module = parse(
        f'builtin.module attributes {{onnx.opsets = {{"" = {opset} : i64}}}} {{'
        f"func.func @main({ARGUMENTS}) -> !onnx.any {{ {constants} {body} func.return %{result} : !onnx.any }} }}",
        ctx,
    )
    InferShapesPass().apply(ctx, module)
    module.verify()
    CanonicalizeOnnxPass().apply(ctx, module)
    module.verify()
    return module, [op for op in module.walk() if isinstance(op, OnnxOp) and (op.op_type != "initializer")]


def op(name: str, operands: str, attributes: str = "", version: str = "") -> str:
    given = {"x": 'tensor<?x4x6xf32, #onnx.dims<"n", "", "">>', "h": 'tensor<?x4x6xf16, #onnx.dims<"n", "", "">>'}
    given |= {
        "p": 'tensor<?x?x6xf32, #onnx.dims<"n", "m", "">>',
        "i": "tensor<i64>",
        "b": "tensor<i1>",
        "s": "tensor<2xi64>",
    }
    given |= {name: f"tensor<{v.count(',') + 1}xi64>" for name, v in CONSTANTS.items()}
    names = operands.split()
    values = ", ".join("_" if name == "_" else f"%{name}" for name in names)
    types = ", ".join(given.get(name, "!onnx.any") for name in names if name != "_")
    return f"onnx.{name} {version}({values}) {attributes} : ({types}) -> !onnx.any "


NOTHING_LEFT = {
    "Identity": "%y = " + op("Identity", "x", version="v16"),
    "Cast to the same type": "%y = " + op("Cast", "x", "{to = 1}", "v13"),
    "CastLike to the same type": "%y = " + op("CastLike", "x p", version="v15"),
    "Dropout": "%y = " + op("Dropout", "x", version="v13"),
    "Reshape to the same shape": "%t = "
    + op("Shape", "x", version="v15")
    + "%y = "
    + op("Reshape", "x t", version="v14"),
    "Slice of all": "%y = " + op("Slice", "x zero six axis", version="v13") + "",
    "Concat of one": "%y = " + op("Concat", "x", "{axis = 0}", "v13"),
    "Transpose that keeps the order": "%y = " + op("Transpose", "x", "{perm = [0, 1, 2]}", "v13"),
    "two transposes that undo each other": "%a = "
    + op("Transpose", "x", "{perm = [1, 2, 0]}", "v13")
    + "%y = "
    + op("Transpose", "a", "{perm = [2, 0, 1]}", "v13"),
    "Expand to the same shape": "%y = " + op("Expand", "x ones", version="v13"),
    "Tile once": "%y = " + op("Tile", "x ones", version="v13"),
}


@pytest.mark.parametrize("case", NOTHING_LEFT)
def test_what_changes_nothing_is_removed(case: str):
    module, left = canonical(NOTHING_LEFT[case], "y")
    read = [o for o in left if o.results[0].first_use is not None]
    assert read == [], str(module)


def test_a_slice_that_reverses_is_kept():
    _, left = canonical("%y = " + op("Slice", "x six zero axis minus", version="v13"), "y")
    assert [o.op_type for o in left] == ["Slice"]


def test_a_transpose_of_what_is_no_permutation_is_kept():
    body = "%a = " + op("Transpose", "x", "{perm = [0, 1]}", "v13") + "%y = " + op("Transpose", "a", version="v13")
    for odd in ("[0, 0, 1]", "[0, 1, 4]"):
        _, left = canonical(body.replace("[0, 1]", odd), "y")
        assert next(o.attr("perm") for o in left) == [int(axis) for axis in odd if axis.isdigit()]


def test_a_flatten_that_flattens_is_kept():
    _, left = canonical("%y = " + op("Flatten", "x", version="v13"), "y")
    assert [o.op_type for o in left] == ["Flatten"]


@pytest.mark.parametrize(
    ("body", "opset", "kept"),
    [
        ("%y = " + op("Dropout", "x _ b", version="v13"), 17, True),
        ("%f = onnx.initializer {value = dense<false> : tensor<i1>} : tensor<i1> %y = onnx.Dropout v13(%x, _, %f)"
         ' : (tensor<?x4x6xf32, #onnx.dims<"n", "", "">>, tensor<i1>) -> !onnx.any ', 17, False),
        ("%f = onnx.initializer {value = dense<true> : tensor<i1>} : tensor<i1> %y = onnx.Dropout v13(%x, _, %f)"
         ' : (tensor<?x4x6xf32, #onnx.dims<"n", "", "">>, tensor<i1>) -> !onnx.any ', 17, True),
        ("%y = " + op("Dropout", "x", "{ratio = 0.5}", "v10"), 10, False),
        ("%y = " + op("Dropout", "x", "{is_test = 1}", "v6"), 6, False),
        ("%y = " + op("Dropout", "x", "", "v6"), 6, True),
    ],
)  # fmt: skip
def test_dropout_by_version(body: str, opset: int, kept: bool):
    _, left = canonical(body, "y", opset)
    assert ([o.op_type for o in left] == ["Dropout"]) == kept


def test_a_dropout_whose_mask_is_read_is_kept():
    body = (
        '%d, %mask = onnx.Dropout v13(%x) : (tensor<?x4x6xf32, #onnx.dims<"n", "", "">>) -> (!onnx.any, !onnx.any)'
        "%y = onnx.Identity v16(%mask) : (!onnx.any) -> !onnx.any "
    )
    assert [o.op_type for o in canonical(body, "y")[1]] == ["Dropout"]


def test_cast_like_becomes_cast():
    _, (cast,) = canonical("%y = " + op("CastLike", "x h", version="v15"), "y")
    assert (cast.op_type, cast.attr("to"), cast.since_version) == ("Cast", 10, 13)


def shape_of_operand(left: list[OnnxOp], name: str) -> list[int] | None:
    (found,) = [o for o in left if o.op_type == name]
    value = constant_value(found.operands[1])
    return None if value is None else value.tolist()


@pytest.mark.parametrize(
    ("source", "target", "attributes", "expected"),
    [
        ("x", "onnx.Concat v13(%n, %flat24) {axis = 0}", "", [0, 24]),
        ("p", "onnx.Concat v13(%n, %m6) {axis = 0}", "", [0, -1]),
        ("p", "onnx.Concat v13(%m6, %n) {axis = 0}", "", None),
        ("x", "onnx.Concat v13(%n, %flat24) {axis = 0}", "{allowzero = 1}", [0, 24]),
    ],
)
def test_reshape_to_a_computed_shape(source: str, target: str, attributes: str, expected: list[int] | None):
    body = (
        '%n = onnx.Shape v15(%p) {end = 1} : (tensor<?x?x6xf32, #onnx.dims<"n", "m", "">>) -> tensor<1xi64>'
        '%m = onnx.Shape v15(%p) {start = 1, end = 2} : (tensor<?x?x6xf32, #onnx.dims<"n", "m", "">>) -> tensor<1xi64>'
        "%m6 = onnx.Mul v14(%m, %six) : (tensor<1xi64>, tensor<1xi64>) -> tensor<1xi64>"
        "%flat24 = onnx.initializer {value = dense<24> : tensor<1xi64>} : tensor<1xi64>"
        f"%t = {target} : (tensor<1xi64>, tensor<1xi64>) -> tensor<2xi64>"
        "%y = " + op("Reshape", f"{source} t", attributes, "v14").replace("!onnx.any)", "tensor<2xi64>)")
    )
    _, left = canonical(body, "y")
    assert shape_of_operand(left, "Reshape") == expected
    if expected:
        assert not any("allowzero" in o.properties for o in left)


def test_expand_to_a_computed_shape():
    body = (
        "%e = onnx.initializer {value = dense<1.0> : tensor<1x1x6xf32>} : tensor<1x1x6xf32>"
        '%n = onnx.Shape v15(%x) : (tensor<?x4x6xf32, #onnx.dims<"n", "", "">>) -> tensor<3xi64>'
        "%y = onnx.Expand v13(%e, %n) : (tensor<1x1x6xf32>, tensor<3xi64>) -> !onnx.any "
    )
    assert shape_of_operand(canonical(body, "y")[1], "Expand") is None
    body = (
        "%u = " + op("Unsqueeze", "x axis", version="v13") + "%t = onnx.Shape v15(%u) : (!onnx.any) -> tensor<4xi64>"
        "%k = onnx.initializer {value = dense<[1, 3, 1, 1]> : tensor<4xi64>} : tensor<4xi64>"
        "%v = onnx.Mul v14(%t, %k) : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>"
        "%y = onnx.Expand v13(%u, %v) : (!onnx.any, tensor<4xi64>) -> !onnx.any "
    )
    assert shape_of_operand(canonical(body, "y")[1], "Expand") == [1, 3, 1, 1]


def test_a_transpose_between_reshapes():
    body = (
        "%a = onnx.initializer {value = dense<[-1, 4, 6]> : tensor<3xi64>} : tensor<3xi64>"
        "%e = onnx.initializer {value = dense<[-1, 1, 6, 4]> : tensor<4xi64>} : tensor<4xi64>"
        "%u = "
        + op("Unsqueeze", "x axis", version="v13")
        + "%f = onnx.Reshape v14(%u, %a) : (!onnx.any, tensor<3xi64>) -> !onnx.any "
        "%t = onnx.Transpose v13(%f) {perm = [0, 2, 1]} : (!onnx.any) -> !onnx.any "
        "%y = onnx.Reshape v14(%t, %e) : (!onnx.any, tensor<4xi64>) -> !onnx.any "
    )
    module, left = canonical(body, "y")
    last = module.body.block.first_op.body.block.last_op.operands[0].owner
    assert isinstance(last, OnnxOp)
    assert (last.op_type, last.attr("perm")) == ("Transpose", [0, 1, 3, 2])
    assert last.operands[0].owner in left


def test_a_constant_condition():
    body = (
        "%t = onnx.initializer {value = dense<true> : tensor<i1>} : tensor<i1>"
        "%y = onnx.If v16(%t) else_branch { %n = "
        + op("Neg", "x", version="v13")
        + "onnx.yield %n : !onnx.any } then_branch { %r = "
        + op("Relu", "x", version="v14")
        + "%d = onnx.Identity v16(%r) : (!onnx.any) -> !onnx.any "
        "onnx.yield %d : !onnx.any } : (tensor<i1>) -> !onnx.any "
    )
    assert [o.op_type for o in canonical(body, "y")[1]] == ["Relu"]


def sequence(split: str, position: str, attributes: str = "{axis = 2}") -> str:
    return (
        f"%k = onnx.initializer {{value = dense<{split}}} : {split.partition('> : ')[2]}"
        f"%q = onnx.initializer {{value = dense<{position}> : tensor<i64>}} : tensor<i64>"
        f"%l = onnx.SplitToSequence v11(%x, %k) {attributes}"
        f' : (tensor<?x4x6xf32, #onnx.dims<"n", "", "">>, {split.partition("> : ")[2]}) -> !onnx.seq<tensor<*xf32>>'
        "%y = onnx.SequenceAt v11(%l, %q) : (!onnx.seq<tensor<*xf32>>, tensor<i64>) -> !onnx.any "
    )


@pytest.mark.parametrize(
    ("split", "position", "sizes", "taken"),
    [
        ("2> : tensor<i64>", "1", [2, 2, 2], 1),
        ("4> : tensor<i64>", "-1", [4, 2], 1),
        ("[1, 5]> : tensor<2xi64>", "0", [1, 5], 0),
    ],
)
def test_a_sequence_of_known_parts(split: str, position: str, sizes: list[int], taken: int):
    module, left = canonical(sequence(split, position), "y")
    (found,) = left
    assert found.op_type == "Split"
    assert constant_value(found.operands[1]).tolist() == sizes
    assert module.body.block.first_op.body.block.last_op.operands[0] is found.results[taken]


@pytest.mark.parametrize(
    "body",
    [
        sequence("2> : tensor<i64>", "7"),
        sequence("1> : tensor<i64>", "0", "{axis = 2, keepdims = 0}"),
        sequence("2> : tensor<i64>", "0", "{axis = 0}"),
        sequence("2> : tensor<i64>", "0").replace("SequenceAt v11(%l, %q)", "SequenceAt v11(%l, %i)"),
        sequence("2> : tensor<i64>", "0").partition("%y = ")[0]
        + "%y = onnx.SequenceLength v11(%l) : (!onnx.seq<tensor<*xf32>>) -> !onnx.any ",
    ],
)  # fmt: skip
def test_a_sequence_that_must_stay(body: str):
    assert "SplitToSequence" in [o.op_type for o in canonical(body, "y")[1]]


@pytest.mark.parametrize(
    ("constant", "value"),
    [("{value_int = 3} : tensor<i64>", 3), ("{value_floats = [0.5]} : tensor<1xf32>", [0.5]),
     ("{value = dense<[1, 2]> : tensor<2xi64>} : tensor<2xi64>", [1, 2])],
)  # fmt: skip
def test_constants_become_initializers(constant: str, value: object):
    body = (
        f"%c = onnx.Constant v13 {constant} %y = onnx.Shape v15(%c) : ({constant.rpartition(' : ')[2]}) -> !onnx.any "
    )
    module, left = canonical(body, "y")
    assert [o.op_type for o in left] == ["Shape"]
    assert constant_value(left[0].operands[0]).tolist() == value
    assert "onnx.Constant" not in str(module)


def test_values_stay():
    body = (
        "%a = "
        + op("Unsqueeze", "x axis", version="v13")
        + "%e = onnx.Transpose v13(%a) {perm = [3, 1, 0, 2]} : (!onnx.any) -> !onnx.any "
        "%c = onnx.Transpose v13(%e) {perm = [0, 2, 1, 3]} : (!onnx.any) -> !onnx.any "
        "%y = onnx.Identity v16(%c) : (!onnx.any) -> !onnx.any "
    )
    module, left = canonical(body, "y")
    assert [o.op_type for o in left if o.results[0].first_use] == ["Unsqueeze", "Transpose"]
    x = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    model = export_module(module, context())
    feeds = {"x": x, "h": x.astype(np.float16), "p": x, "i": np.array(0), "b": np.array(True), "s": np.array([1, 1])}
    (found,) = run(ir.to_proto(model), feeds).values()
    assert np.array_equal(found, x[:, None].transpose(3, 1, 0, 2).transpose(0, 2, 1, 3))
