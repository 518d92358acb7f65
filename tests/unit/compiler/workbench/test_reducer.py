"""Shrinking IR: what the edits do, and that the reducer keeps what it is told to keep."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.ir_text import Toolbox, module_text, parse_text
from gimlet.compiler.workbench.reducer import Reducer, is_valid
from gimlet.compiler.workbench.reduction_edits import EDITS
from gimlet.runtime.errors import CheckError

TOOLBOX = Toolbox.of()
OPS = ("Relu", "MatMul", "Add", "Mul")


def parse(text: str) -> ModuleOp:
    return parse_text(text, "test.mlir", TOOLBOX.context())


def chain(count: int, odd: int) -> str:
    """`count` ops in a chain with skips; the one at `odd` is a Softmax of a MatMul."""
    kind = "tensor<?x64xf32>"
    lines = [f"func.func @main(%v0: {kind}) -> {kind} {{", '%w = onnx.initializer {key = "w"} : tensor<64x64xf32>']
    for i in range(count):
        name = {odd: "Softmax", odd - 1: "MatMul"}.get(i, OPS[i % 4])
        others = {
            "MatMul": [("%w", "tensor<64x64xf32>")],
            "Add": [(f"%v{i // 2}", kind)],
            "Mul": [(f"%v{i // 3}", kind)],
        }
        operands = [(f"%v{i}", kind), *others.get(name, [])]
        names, types = ", ".join(name for name, _ in operands), ", ".join(found for _, found in operands)
        lines.append(f'%v{i + 1} = onnx.{name}({names}) : ({types}) -> {kind} loc("node{i}")')
    return "\n".join([*lines, f"func.return %v{count} : {kind}", "}"])


def softmax_of_matmul(text: str) -> bool:
    """The seeded bug: as a pass that looks at what defines an operand would find it."""
    found = re.search(r"onnx\.Softmax\((%\w+)\)", text)
    return found is not None and f"{found[1]} = onnx.MatMul" in text


def test_a_thousand_ops_shrink_to_the_two_that_matter():
    reducer = Reducer(softmax_of_matmul)
    reduced = reducer.reduce(parse(chain(1000, 667)))
    names = [op.name for op in reduced.walk()]
    assert names == ["builtin.module", "func.func", "onnx.MatMul", "onnx.Softmax", "func.return"]
    assert "node" not in module_text(reduced)
    assert reducer.complete
    assert reducer.tests < 100


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 30), st.data())
def test_what_comes_out_is_valid_interesting_and_the_same_each_time(count: int, data: st.DataObject):
    odd = data.draw(st.integers(1, count - 1))
    text = chain(count, odd)
    first, second = (Reducer(softmax_of_matmul).reduce(parse(text)) for _ in range(2))
    assert is_valid(first)
    assert softmax_of_matmul(module_text(first))
    assert module_text(first) == module_text(second)
    assert len(list(first.walk())) == 5


@pytest.mark.parametrize(
    ("text", "kept", "expected"),
    [
        (  # the branch of an If stands in for it
            """func.func @main(%c: tensor<i1>, %x: tensor<4xf32>) -> tensor<4xf32> {
              %y = onnx.If(%c) else_branch {
                %b = onnx.Sqrt(%x) : (tensor<4xf32>) -> tensor<4xf32>
                onnx.yield %b : tensor<4xf32>
              } then_branch {
                %a = onnx.Relu(%x) : (tensor<4xf32>) -> tensor<4xf32>
                onnx.yield %a : tensor<4xf32>
              } : (tensor<i1>) -> tensor<4xf32>
              func.return %y : tensor<4xf32>
            }""",
            "onnx.Relu",
            ["func.func", "onnx.Relu", "func.return"],
        ),
        (  # devices and links go, and so do functions that nobody calls
            """placement.topology @rack {
              placement.device @cpu {kind = "host"}
              placement.device @gpu0 {kind = "nvidia/l4"}
              placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie4x16"}
            }
            func.func @main() { func.return }""",
            "@gpu0",
            ["placement.topology", "placement.device"],
        ),
        (  # a function that is called keeps its signature
            """func.func @f(%x: i32, %y: i32) -> i32 { func.return %x : i32 }
            func.func @main(%x: i32) -> i32 {
              %r = func.call @f(%x, %x) : (i32, i32) -> i32
              func.return %r : i32
            }""",
            "func.call @f",
            ["func.func", "func.return", "func.func", "func.call", "func.return"],
        ),
        (  # a large constant becomes a plain one
            """func.func @main() -> tensor<4xi64> {
              %x = onnx.initializer {value = dense<[1, 2, 3, 4]> : tensor<4xi64>} : tensor<4xi64>
              func.return %x : tensor<4xi64>
            }""",
            "dense<",
            ["func.func", "onnx.initializer", "func.return"],
        ),
    ],
)
def test_each_structure_shrinks(text: str, kept: str, expected: list[str]):
    reduced = Reducer(lambda found: kept in found).reduce(parse(text))
    assert [op.name for op in reduced.walk()][1:] == expected
    assert "dense<[" not in module_text(reduced)


@pytest.mark.parametrize("edits", EDITS, ids=lambda edits: edits.__name__)
def test_no_edit_breaks_the_module_so_that_it_cannot_be_printed_or_cloned(edits):
    module = parse(chain(12, 7))
    count = len(edits(module))
    for index in range(count):
        copy = module.clone()
        edits(copy)[index]()
        copy.clone()


def test_only_valid_ir_is_tested_unless_it_is_asked_for():
    asked: list[bool] = []

    def interesting(text: str) -> bool:
        asked.append(is_valid(parse_text(text, "x", TOOLBOX.context())))
        return "onnx.Add" in text

    Reducer(interesting).reduce(parse(chain(8, 6)))
    assert all(asked)


def test_each_text_is_tested_once():
    asked: list[str] = []

    def interesting(text: str) -> bool:
        asked.append(text)
        return softmax_of_matmul(text)

    Reducer(interesting).reduce(parse(chain(20, 9)))
    assert len(asked) == len(set(asked))


def test_an_input_that_is_not_interesting_is_refused():
    with pytest.raises(CheckError, match="the test does not hold for the input"):
        Reducer(lambda text: False).reduce(parse(chain(3, 1)))


def test_the_best_so_far_is_the_answer_when_time_is_up(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(10_000))
    monkeypatch.setattr("gimlet.compiler.workbench.reducer.time.monotonic", lambda: float(next(clock)))
    kept: list[str] = []
    reducer = Reducer(softmax_of_matmul, time_limit_s=8.0, keep=kept.append)
    reduced = reducer.reduce(parse(chain(100, 50)))
    assert not reducer.complete
    assert softmax_of_matmul(module_text(reduced))
    assert module_text(reduced) == kept[-1]
    assert 5 < len(list(reduced.walk())) < 100
