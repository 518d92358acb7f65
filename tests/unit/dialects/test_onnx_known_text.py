"""What is read at once is what xDSL's parser reads token by token: the same operations, and the same errors."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz import models
from tests.unit.dialects.onnx_cases import function, parse, text_of
from tests.unit.dialects.test_onnx_structures import BUILDERS, imported
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, IntegerAttr
from xdsl.utils.exceptions import ParseError
from xdsl.utils.mlir_lexer import MLIRLexer

from gimlet.dialects.onnx import known_text, syntax
from gimlet.dialects.onnx.attributes import tensor_value

_NEVER = re.compile(r"(?!)")
_MODELS = [*BUILDERS, models.contrib_operators, models.large_operators, models.carried_sequences, models.small_types]


def token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read at once from here on."""
    for module, name in (
        (syntax, "DICTIONARY"), (syntax, "TENSOR"), (syntax, "TYPES"), (known_text, "_INPUTS"),
        (known_text, "_TENSOR_VALUE"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, _NEVER)


@pytest.mark.parametrize("build", _MODELS, ids=lambda build: build.__name__)
def test_both_ways_give_the_same_operations(build: Any, monkeypatch: pytest.MonkeyPatch):
    module, ctx = imported(build())
    text = text_of(module)
    quick = parse(text, ctx)
    token_by_token(monkeypatch)
    slow = parse(text, ctx)
    assert quick.is_structurally_equivalent(slow)
    assert text_of(quick) == text_of(slow) == text


def dense(text: str) -> DenseIntOrFPElementsAttr:
    module = function(f"%c = onnx.Constant {{value = dense<{text}>}} : tensor<*xf32>")
    (found,) = [op.properties["value"] for op in module.walk() if op.name == "onnx.Constant"]
    assert isinstance(found, DenseIntOrFPElementsAttr)
    return found


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=9))
def test_floats_in_a_row(values: list[float]):
    text = ", ".join(f"{value:.9e}" for value in values)
    found = dense(f"[{text}]> : tensor<{len(values)}xf32")
    np.testing.assert_array_equal(tensor_value(found), np.array(values, np.float32))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1, -2]> : tensor<2xi64", [1, -2]),
        ("[1, -2]> : tensor<2xi32", [1, -2]),
        ('"0x0000803F00000040"> : tensor<1x2xf32', [[1, 2]]),
        # Left to xDSL: one number for all, bytes for all, other brackets.
        ('"0x0000803F"> : tensor<2xf32', [1, 1]),
        ("[[1.0], [2.0]]> : tensor<2x1xf32", [[1], [2]]),
        ("3> : tensor<2xi64", [3, 3]),
    ],
)
def test_tensors(text: str, values: Any, monkeypatch: pytest.MonkeyPatch):
    found = dense(text)
    assert tensor_value(found).tolist() == values
    token_by_token(monkeypatch)
    assert found == dense(text)


@pytest.mark.parametrize(
    "body",
    [
        "%y = onnx.Relu(%x : (tensor<4xf32>) -> tensor<4xf32>",
        "%y = onnx.Relu(%x,) : (tensor<4xf32>) -> tensor<4xf32>",
        "%y = onnx.Relu(%x) : tensor<4xf32> -> tensor<4xf32>",
        "%y = onnx.Relu(%x) {a = } : (tensor<4xf32>) -> tensor<4xf32>",
        "%y = onnx.Relu(%x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>",
        "%y = onnx.Relu(%x) : (tensor<5xf32>) -> tensor<5xf32>",
        "%y = onnx.Constant {value = dense<[1, 2]> : tensor<3xi64>} : tensor<3xi64>",
        "%y = onnx.Constant {value = dense<[1, 99999999999]> : tensor<2xi32>} : tensor<2xi32>",
        "%y = onnx.Constant {value = dense<[1.0, 1e999]> : tensor<2xf32>} : tensor<2xf32>",
        "%y = onnx.Constant {value = dense<[1., -]> : tensor<2xf32>} : tensor<2xf32>",
    ],
)
def test_errors_are_the_same(body: str, monkeypatch: pytest.MonkeyPatch):
    def outcome() -> str:
        try:
            return str(function(body, "%x: tensor<4xf32>"))
        except (ParseError, OverflowError, ValueError) as error:
            return str(error)

    quick = outcome()
    token_by_token(monkeypatch)
    assert quick == outcome()


def test_an_alias_means_what_its_own_file_says():
    for width in (32, 64):
        body = "%c = onnx.Constant {mine.note = #a} : tensor<4xf32>"
        text = f"#a = 1 : i{width}\nfunc.func @main() {{ {body} func.return }}"
        (op,) = [op for op in parse(text).walk() if op.name == "onnx.Constant"]
        assert op.attributes["mine.note"] == IntegerAttr(1, width)


def test_what_repeats_costs_a_few_tokens(monkeypatch: pytest.MonkeyPatch):
    line = "%{n} = onnx.Add(%x, %x) {{mine.note = [1, 2, 3]}} : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"
    counts: Counter[int] = Counter()
    lex = MLIRLexer.lex

    def counted(lexer: MLIRLexer) -> Any:
        counts[size] += 1
        return lex(lexer)

    monkeypatch.setattr(MLIRLexer, "lex", counted)
    for size in (50, 250):
        function("\n".join(line.format(n=n) for n in range(size)), "%x: tensor<4xf32>")
    assert (counts[250] - counts[50]) / 200 <= 8
