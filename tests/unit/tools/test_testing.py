"""The helpers for tests of passes: each says yes to what is right and no to what is not."""

import numpy as np
import pytest
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination
from xdsl.utils.exceptions import VerifyException

from gimlet.passes.canonicalize_onnx import CanonicalizeOnnxPass
from gimlet.passes.fold_constants import FoldConstantsPass
from gimlet.runtime.errors import UsageError
from gimlet.tools.testing import assert_same_outputs, check_pass, filecheck, outputs_of, parse, run_pass


def model(body: str, result: str = "y") -> str:
    return f"""
        builtin.module attributes {{onnx.opsets = {{"" = 21 : i64}}}} {{
          func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {{
            {body}
            func.return %{result} : tensor<4xf32>
          }}
        }}"""


F32 = "(tensor<4xf32>) -> tensor<4xf32>"
TWICE = model(
    f"%a = onnx.Relu(%x) : {F32}\n%b = onnx.Relu(%x) : {F32}\n"
    "%y = onnx.Add(%a, %b) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"
)
ONCE = model(f"%a = onnx.Relu(%x) : {F32}\n%y = onnx.Add(%a, %a) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>")
X = {"x": np.array([-1.0, 0.0, 1.0, 2.0], np.float32)}


@pytest.mark.parametrize("passes", ["cse", CommonSubexpressionElimination(), [CommonSubexpressionElimination()]])
def test_a_pass_is_checked_before_and_after(passes):
    check_pass(passes, before=TWICE, after=ONCE)
    check_pass(passes, before=parse(TWICE), after=parse(ONCE))
    with pytest.raises(AssertionError, match=r"(?s)--- expected.*\+    %y = onnx.Add\(%a, %a\)"):
        check_pass(passes, before=TWICE, after=TWICE)


def test_the_module_given_is_not_changed():
    module = parse(TWICE)
    assert not module.is_structurally_equivalent(run_pass("cse", module))
    assert module.is_structurally_equivalent(parse(TWICE))


def test_filecheck_in_a_string():
    filecheck(run_pass("cse", TWICE), "// CHECK: onnx.Relu\n// CHECK-NOT: onnx.Relu\n// CHECK: onnx.Add")
    with pytest.raises(AssertionError, match=r"onnx\.Sub"):
        filecheck(TWICE, "// CHECK: onnx.Sub")
    with pytest.raises(AssertionError, match="No check strings found"):
        filecheck(TWICE, "no check")


def test_outputs_are_compared_as_the_models_compute_them():
    assert_same_outputs(TWICE, ONCE, X)
    assert_same_outputs(TWICE, run_pass("canonicalize-onnx,cse,dce", TWICE), X)
    np.testing.assert_array_equal(outputs_of(TWICE, X)["y"], np.array([0, 0, 2, 4], np.float32))
    with pytest.raises(AssertionError, match="output 'y'"):
        assert_same_outputs(TWICE, model(f"%y = onnx.Relu(%x) : {F32}"), X)
    with pytest.raises(AssertionError, match=r"\['y'\] before and \['z'\] after"):
        assert_same_outputs(TWICE, model(f"%z = onnx.Relu(%x) : {F32}", "z"), X)


def test_a_text_that_is_wrong_is_said():
    with pytest.raises(UsageError, match="the text of a test"):
        parse("func.func @")
    with pytest.raises(VerifyException):
        parse(model(f"%y = onnx.Add(%x) : {F32}"))
    with pytest.raises(UsageError, match="no-such-pass"):
        run_pass("no-such-pass", TWICE)


def test_an_identity_goes_and_a_constant_is_folded():
    """The five lines that a test of a pass takes."""
    check_pass(
        CanonicalizeOnnxPass(),
        before=model(f"%a = onnx.Identity v21(%x) : {F32}\n%y = onnx.Relu(%a) : {F32}"),
        after=model(f"%y = onnx.Relu(%x) : {F32}"),
    )
    one, two = (f"%{n} = onnx.initializer {{value = dense<1.0> : tensor<4xf32>}} : tensor<4xf32>" for n in "ab")
    add = "%{} = onnx.Add(%{}, %{}) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>".format
    text = model("\n".join([one, two, add("c", "a", "b"), add("y", "x", "c")]))
    folded = run_pass(FoldConstantsPass(), text)
    filecheck(folded, "// CHECK: dense<2.0\n// CHECK: onnx.Add\n// CHECK-NOT: onnx.Add")
