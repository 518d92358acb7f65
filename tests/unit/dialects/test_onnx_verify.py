"""Every message of the verifier, and what provokes it."""

import pytest
from tests.unit.dialects.onnx_cases import function, parse
from xdsl.utils.exceptions import VerifyException

X = "%x: tensor<4xf32>, %h: tensor<4xf16>, %i: tensor<4xi64>, %b: tensor<i1>, %any: !onnx.any"
SPLIT = "onnx.yield %x : tensor<4xf32>"

BAD = [
    ("onnx.Relu(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>", r"onnx\.Relu takes 1 inputs \(X\), not 2"),
    ("onnx.Add(%x) : (tensor<4xf32>) -> tensor<4xf32>", r"onnx\.Add takes 2 inputs \(A, B\), not 1"),
    ("onnx.Conv(%x) : (tensor<4xf32>) -> tensor<4xf32>", r"onnx\.Conv takes 2 to 3 inputs \(X, W, B\?\), not 1"),
    ("onnx.Concat {axis = 0} : tensor<4xf32>", r"onnx\.Concat takes at least 1 inputs \(inputs\.\.\.\), not 0"),
    ("onnx.Relu(%x) : (tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>)", r"takes 1 outputs \(Y\), not 2"),
    ("onnx.Conv(_, %x) : (tensor<4xf32>) -> tensor<4xf32>", r"input 0 \(X\) is not optional, but absent"),
    (
        "onnx.Conv(%i, %i) : (tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>",
        r"onnx\.Conv: input 0 \(X\) cannot be tensor\(int64\); version 22 allows tensor\(bfloat16\), tensor\(double\)",
    ),
    (
        "onnx.Add(%x, %h) : (tensor<4xf32>, tensor<4xf16>) -> tensor<4xf32>",
        r"input 1 \(B\) is tensor\(float16\) and input 0 \(A\) is tensor\(float\), but they share the type T",
    ),
    ("onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf16>", r"output 0 \(Y\) is tensor\(float16\) and input 0"),
    (
        "onnx.Relu(%x) {alpha = 1.0} : (tensor<4xf32>) -> tensor<4xf32>",
        r"onnx\.Relu version 14 has no attribute 'alpha'; its attributes are: none",
    ),
    (
        "onnx.Softmax(%x) {axis = 1.0} : (tensor<4xf32>) -> tensor<4xf32>",
        r"onnx\.Softmax: attribute 'axis' is of kind int, which 1\.0+e\+00 : f32 is not",
    ),
    ("onnx.Concat(%x) : (tensor<4xf32>) -> tensor<4xf32>", r"onnx\.Concat needs the attribute 'axis' of kind int"),
    (
        "onnx.Relu v12(%x) : (tensor<4xf32>) -> tensor<4xf32>",
        r"onnx\.Relu has no version 12; its versions are 1, 6, 13, 14",
    ),
    (
        "onnx.Relu v13(%x) : (tensor<4xf32>) -> tensor<4xf32>",
        r"onnx\.Relu is of version 13, but at the module's opset 28 version 14 is in force",
    ),
    (
        f"onnx.If(%b) else_branch {{ {SPLIT} }} : (tensor<i1>) -> tensor<4xf32>",
        r"onnx\.If needs the subgraph 'then_branch'",
    ),
    (
        f"onnx.If(%b) other {{ {SPLIT} }} : (tensor<i1>) -> tensor<4xf32>",
        r"onnx\.If has no subgraph 'other'; it has: else_branch, then_branch",
    ),
    (
        f"onnx.Relu(%x) body {{ {SPLIT} }} : (tensor<4xf32>) -> tensor<4xf32>",
        r"onnx\.Relu has no subgraph 'body'; it has: none",
    ),
    (
        '"onnx.If"(%b) ({ "onnx.yield"(%x) : (tensor<4xf32>) -> () }) : (tensor<i1>) -> tensor<4xf32>',
        r"onnx\.If has 1 regions for the subgraphs else_branch, then_branch",
    ),
    (
        '"onnx.If"(%b) <{graphs = ["then_branch", "else_branch"]}> ({ "onnx.yield"(%x) : (tensor<4xf32>) -> () },'
        ' { "onnx.yield"(%x) : (tensor<4xf32>) -> () }) : (tensor<i1>) -> tensor<4xf32>',
        r"the subgraphs then_branch, else_branch must be sorted and differ",
    ),
    (
        '"onnx.Relu"(%x) : (tensor<4xf32>) -> tensor<?x?xf32, #onnx.dims<"n">>',
        r"has 2 dimensions, but #onnx\.dims names 1",
    ),
    ('onnx.custom "com.example", "" : tensor<4xf32>', r"onnx\.custom names a domain and an operator"),
    (
        'onnx.custom "", "Relu"(%x) : (tensor<4xf32>) -> tensor<4xf32>',
        r"ai\.onnx\.Relu has a schema: it is not an onnx",
    ),
    ('"onnx.initializer"(%x) {} : (tensor<4xf32>) -> tensor<4xf32>', r"onnx\.initializer takes no operands"),
    ("onnx.initializer : tensor<4xf32>", r"onnx\.initializer has either a key or a value"),
    ("onnx.initializer {key = 3} : tensor<4xf32>", r"the key of onnx\.initializer is a string that is not empty"),
    ("onnx.initializer {value = 3} : tensor<4xf32>", r"the value of onnx\.initializer is a tensor, not 3"),
    ('onnx.initializer {key = "w"} : tensor<*xf32>', r"onnx\.initializer is a tensor with a shape, not tensor<\*xf32>"),
    (
        "onnx.initializer {value = dense<1.0> : tensor<4xf32>} : tensor<2xf32>",
        r"onnx\.initializer of type tensor<2xf32> holds tensor<4xf32>",
    ),
]


@pytest.mark.parametrize(("op", "message"), BAD, ids=[message for _, message in BAD])
def test_what_does_not_verify(op: str, message: str):
    module = function(f"%r, %s = {op}" if "-> (tensor" in op else f"%r = {op}", X)
    with pytest.raises(VerifyException, match=message):
        module.verify()


def test_an_operator_that_is_newer_than_the_opset():
    module = function("%r = onnx.Gelu(%x) : (tensor<4xf32>) -> tensor<4xf32>", X, opset=17)
    with pytest.raises(VerifyException, match=r"onnx\.Gelu needs opset 20 of ai\.onnx; the module imports 17"):
        module.verify()


def test_subgraphs_end_with_a_yield():
    module = function(
        '%r = onnx.If(%b) else_branch { "test.termop"() : () -> () } then_branch { onnx.yield %x : tensor<4xf32> }'
        " : (tensor<i1>) -> tensor<4xf32>",
        X,
    )
    with pytest.raises(VerifyException, match=r"subgraph 'else_branch' must be one block that ends with onnx\.yield"):
        module.verify()


def test_a_yield_outside_a_subgraph():
    module = parse("func.func @main(%x: tensor<4xf32>) { onnx.yield %x : tensor<4xf32> }")
    with pytest.raises(VerifyException, match=r"onnx\.yield ends a subgraph of an ONNX operation"):
        module.verify()


def test_a_yield_with_results():
    module = function('%y = "onnx.yield"() : () -> tensor<4xf32>', X)
    with pytest.raises(VerifyException, match=r"onnx\.yield has no results and no regions"):
        module.verify()


GOOD = [
    ("onnx.Relu(%any) : (!onnx.any) -> tensor<4xf32>", 28),
    ("onnx.Add(%any, %x) : (!onnx.any, tensor<4xf32>) -> !onnx.any", 28),
    ("onnx.Clip v6(%x) {min = 0.0} : (tensor<4xf32>) -> tensor<4xf32>", 10),
    ("onnx.ReduceSum v11(%x) {axes = [0]} : (tensor<4xf32>) -> tensor<1xf32>", 11),
    ("onnx.ReduceSum(%x, %i) : (tensor<4xf32>, tensor<4xi64>) -> tensor<*xf32>", 13),
    ("onnx.Concat(%x, %x, %x) {axis = 0} : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<12xf32>", 28),
    ("onnx.Where(%b, %i, %i) : (tensor<i1>, tensor<4xi64>, tensor<4xi64>) -> tensor<4xi64>", 28),
    ('onnx.custom "", "FutureOp"(%x) : (tensor<4xf32>) -> tensor<4xf32>', 28),
    ('onnx.LeakyRelu(%x) {alpha = #onnx.ref<"slope", "float">} : (tensor<4xf32>) -> tensor<4xf32>', 28),
]


@pytest.mark.parametrize(("op", "opset"), GOOD)
def test_what_verifies(op: str, opset: int):
    function(f"%r = {op}", X, opset).verify()


def test_without_opsets_the_version_alone_counts():
    parse(
        "func.func @main(%x: tensor<4xf32>) { %y = onnx.Relu v6(%x) : (tensor<4xf32>) -> tensor<4xf32> func.return }"
    ).verify()
