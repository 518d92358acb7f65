"""Sizes to suggest for dimensions that nobody bounds."""

from xdsl.parser import Parser
from xdsl.universe import Universe

from gimlet.compiler.example_sizes import example_sizes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.universe import GIMLET_UNIVERSE
from gimlet.passes.entry import entry_function

WIDTH = 'tensor<1x?xf32, #onnx.dims<"", "w">>'
SHORTER = 'tensor<1x?xf32, #onnx.dims<"", "floordiv(w - 20, 4)">>'
EVEN = 'tensor<1x?xf32, #onnx.dims<"", "2*floordiv(w, 2)">>'
JOINED = 'tensor<2x?xf32, #onnx.dims<"", "w">>'
FAR = 'tensor<?xf32, #onnx.dims<"w - 1000000">>'


def suggested(op: str, types: str, result: str, known: dict[str, int] | None = None) -> dict[str, int] | None:
    function = f"""
        func.func @main(%a: {WIDTH}, %b: {EVEN}, %i: tensor<1xi64>) -> {result} {{
          %y = {op} : ({types}) -> {result}
          func.return %y : {result}
        }}"""
    text = f'builtin.module attributes {{onnx.opsets = {{"" = 22 : i64}}}} {{{function}}}'
    ctx = GimletContext()
    for name, factory in (Universe.get_multiverse().all_dialects | GIMLET_UNIVERSE.all_dialects).items():
        ctx.register_dialect(name, factory)
    module = Parser(ctx, text).parse_module()
    known = known or {}
    return example_sizes(entry_function(module).body.block, {"w", "n"} - known.keys(), known)


def test_no_value_is_empty_at_what_is_suggested() -> None:
    assert suggested("onnx.Reshape(%a, %i)", f"{WIDTH}, tensor<1xi64>", SHORTER) == {"n": 1, "w": 32}


def test_what_is_joined_is_as_long() -> None:
    assert suggested("onnx.Concat(%a, %b) {axis = 0 : si64}", f"{WIDTH}, {EVEN}", JOINED) == {"n": 1, "w": 2}


def test_one_of_two_sizes_that_meet_is_repeated() -> None:
    assert suggested("onnx.Add(%a, %b)", f"{WIDTH}, {EVEN}", WIDTH) == {"n": 1, "w": 1}


def test_a_dimension_that_is_bound_is_as_it_is() -> None:
    assert suggested("onnx.Reshape(%a, %i)", f"{WIDTH}, tensor<1xi64>", SHORTER, {"w": 5}) is None


def test_nothing_is_suggested_where_no_size_would_do() -> None:
    assert suggested("onnx.Reshape(%a, %i)", f"{WIDTH}, tensor<1xi64>", FAR) is None
