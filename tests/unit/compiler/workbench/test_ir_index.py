"""The index of a text of IR: whatever a text is, it is read without a crash, and what is right in it is found."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.compiler.ir_text import Toolbox
from gimlet.compiler.workbench.hover import hover_text
from gimlet.compiler.workbench.index import IrIndex, index_text

TOOLBOX = Toolbox.of()
TEXT = """builtin.module attributes {onnx.dim_bounds = {batch = array<i64: 1, 2, 4>}, onnx.opsets = {"" = 21 : i64}} {
  placement.topology @rack {
    placement.device @cpu {kind = "host"}
  }
  func.func @main(%x: tensor<?x4xf32, #onnx.dims<"batch", "">>) -> tensor<?x4xf32, #onnx.dims<"batch", "">> {
    %w = onnx.initializer {value = dense<1.0> : tensor<4xf32>} : tensor<4xf32>
    %y = onnx.Add(%x, %w) {placement.cost = #placement.cost<flops = "4*batch", bytes_read = "16*batch",
        bytes_written = "16*batch", weight_bytes = "16">}
        : (tensor<?x4xf32, #onnx.dims<"batch", "">>, tensor<4xf32>) -> tensor<?x4xf32, #onnx.dims<"batch", "">>
    func.return %y : tensor<?x4xf32, #onnx.dims<"batch", "">>
  }
}
"""


def index(text: str) -> IrIndex:
    return index_text(text, "test.mlir", TOOLBOX.context())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_text_is_a_crash(data: st.DataObject):
    start = data.draw(st.integers(0, len(TEXT)))
    end = min(len(TEXT), start + data.draw(st.sampled_from([0, 1, 3, 40])))
    put = data.draw(st.sampled_from(["", "{", "}", "(", '"', "%", "@", "\n", "-1", "x", "<", "é", TEXT[:80]]))
    text = TEXT[:start] + put + TEXT[end:]
    made = index(text)
    for problem in made.problems:
        assert 0 <= problem.span[0] <= problem.span[1] <= len(text)
        assert problem.message
    offset = data.draw(st.integers(0, len(text)))
    hover_text(made, offset)
    assert all(0 <= start < end <= len(text) for start, end in made.references(offset))


def test_what_is_used_before_it_is_defined_is_found():
    text = '"test.op"(%late) : (i32) -> ()\n%late = "test.op"() : () -> i32\n'
    made = index(text)
    assert made.problems == []
    assert made.references(text.index("%late")) == [(31, 36), (10, 15)]


def test_what_is_behind_an_error_is_still_there():
    made = index(TEXT.replace("%y = onnx.Add(%x, %w)", "%y = onnx.Add(%x %w)"))
    assert [problem.message for problem in made.problems] == ["')' expected"]
    assert [op.name for _, op in made.ops][-2:] == ["func.func", "builtin.module"]
    assert made.definition_of_symbol("cpu") is not None


class Counted(str):
    """A text that knows how many letters were taken out of it."""

    taken = 0

    def __getitem__(self, key: Any) -> str:
        found = super().__getitem__(key)
        self.taken += len(found)
        return found


def test_reading_takes_each_operation_out_of_the_text_and_not_all_before_it():
    def taken(count: int) -> float:
        lines = [f"  %{n + 1} = onnx.Relu(%{n}) : (tensor<4xf32>) -> tensor<4xf32>\n\n" for n in range(count)]
        text = Counted(f"func.func @main(%0: tensor<4xf32>) {{\n{''.join(lines)}  func.return\n}}")
        made = index(text)
        assert made.problems == []
        start, end = made.ops[0][0]
        assert str(text)[start:end] == lines[0].strip()
        return text.taken / count

    assert taken(800) < 1.2 * taken(100)
