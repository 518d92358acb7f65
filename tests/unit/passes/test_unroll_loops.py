"""unroll-loops: what a loop of known turns becomes, against ONNX Runtime, and where it must not act."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser
from onnxruntime import InferenceSession
from tests.unit.passes.test_einsum_lines import operators, written_out

from gimlet.passes.loop_turns import MOST_TURNS
from gimlet.passes.unroll_loops import MOST_OPS

TRUE = "c = Constant <value = bool {1}> ()"


def model(signature: str, body: str, opset: int = 17) -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> g {signature} {{ {body} }}'
    return parser.parse_model(text)


def loop(
    inner: str, most: str = "m = Constant <value_int = 3> ()", go: str = "go = Identity (more)"
) -> onnx.ModelProto:
    """A Loop that carries a [4] on and collects what it was."""
    return model(
        "(float[4] x) => (float[4] y, float[t, 4] all)",
        f"{most} {TRUE} k = Constant <value_int = 0> () "
        "count, y, all = Loop <body = b (int64 i, bool more, int64 n, float[4] a) "
        f"=> (bool go, int64 n2, float[4] a2, float[4] was) {{ was = Identity (a) {inner} {go} }}> (m, c, k, x)",
    )


COUNT = "two = Constant <value_int = 2> () n2 = Add (n, two) f = Cast <to = 1> (i) b = Add (a, f) a2 = Sin (b)"
ENDLESS = "m = Constant <value_int = 9223372036854775807> ()"
BELOW = "most = Constant <value_int = {}> () go = Less (n2, most)"
LOOPS = {
    "trip count": (loop(COUNT), 3),
    "condition over a counter": (loop(COUNT, ENDLESS, BELOW.format(9)), 5),
    "the lesser of both": (loop(COUNT, go=BELOW.format(99)), 3),
    "a condition that is false behind the first turn": (loop(COUNT, go="go = Constant <value = bool {0}> ()"), 1),
}


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    sessions = [InferenceSession(each.SerializeToString()) for each in (before, after)]
    random = np.random.default_rng(0)
    given = {each.name: random.standard_normal(each.shape).astype(np.float32) for each in sessions[0].get_inputs()}
    names = [each.name for each in sessions[0].get_outputs()]
    assert [each.name for each in sessions[1].get_outputs()] == names
    for expected, found in zip(*(each.run(None, given) for each in sessions), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOOPS)
def test_turns_follow_each_other(name: str):
    before, turns = LOOPS[name]
    module, after = written_out(before)
    assert operators(module).count("Sin") == turns
    assert "Loop" not in operators(module)
    assert_same(before, after)


def test_what_grows_has_the_size_of_each_turn():
    before = model(
        "(float[1, 4] x) => (float[n, 4] y)",
        f"m = Constant <value_int = 4> () {TRUE} y = Loop <body = b (int64 i, bool more, float[k, 4] a) "
        "=> (bool go, float[q, 4] a2) { go = Identity (more) a2 = Concat <axis = 0> (a, x) }> (m, c, x)",
    )
    module, after = written_out(before)
    assert operators(module) == ["Concat"] * 4
    assert [dim.dim_value for dim in after.graph.output[0].type.tensor_type.shape.dim] == [5, 4]
    assert_same(before, after)


def test_loops_inside_of_loops_and_branches_by_the_number_of_the_turn():
    before = model(
        "(float[4, 4] x) => (float[4, 4] y)",
        f"m = Constant <value_int = 3> () {TRUE} "
        "y = Loop <body = b (int64 i, bool more, float[4, 4] a) => (bool go, float[4, 4] a2) {"
        "  go = Identity (more) one = Constant <value_int = 1> () turns = Add (i, one)"
        "  a2 = Loop <body = d (int64 j, bool still, float[4, 4] e) => (bool on, float[4, 4] f) {"
        "    on = Identity (still) h = MatMul (e, x) two = Constant <value_int = 2> () odd = Mod (j, two)"
        "    zero = Constant <value_int = 0> () q = Equal (odd, zero)"
        "    f = If (q) <then_branch = t () => (float[4, 4] u) { u = Tanh (h) },"
        "                else_branch = w () => (float[4, 4] v) { v = Sigmoid (h) }> }> (turns, more, a) }> (m, c, x)",
    )
    module, after = written_out(before)
    functions = [each for each in operators(module) if each != "MatMul"]
    assert functions == ["Tanh", "Tanh", "Sigmoid", "Tanh", "Sigmoid", "Tanh"]
    assert_same(before, after)


def test_a_scan_goes_along_any_dimension_either_way():
    before = model(
        "(float[4] h, float[2, 6, 4] x, float[6, 2] w) => (float[4] last, float[4, 6] ys, float[6, 2] zs)",
        "last, ys, zs = Scan <num_scan_inputs = 2, scan_input_axes = [1, 0], scan_input_directions = [0, 1],"
        " scan_output_axes = [1, 0], scan_output_directions = [0, 1],"
        " body = b (float[4] a, float[2, 4] xi, float[2] wi) => (float[4] a2, float[4] o, float[2] p) {"
        " first = Constant <value_ints = [0]> () row = Unsqueeze (wi, first) r = MatMul (row, xi)"
        " q = Squeeze (r, first) s = Add (a, q) a2 = Tanh (s) o = Identity (a2) p = Identity (wi)"
        " }> (h, x, w)",
    )
    module, after = written_out(before)
    assert operators(module).count("Tanh") == 6
    assert_same(before, after)


def test_what_is_read_from_a_sequence_that_a_loop_fills():
    before = model(
        "(float[3, 4] x) => (float[3, 4] y, float[4] z, int64 count)",
        f"m = Constant <value_int = 3> () {TRUE} s = SequenceEmpty <dtype = 1> () "
        "l = Loop <body = b (int64 i, bool more, seq(float) a) => (bool go, seq(float) a2) {"
        " go = Identity (more) row = Gather <axis = 0> (x, i) e = Exp (row) zero = Constant <value_int = 0> ()"
        " a2 = SequenceInsert (a, e, zero) }> (m, c, s) last = Constant <value_int = -1> ()"
        " y = ConcatFromSequence <axis = 0, new_axis = 1> (l) z = SequenceAt (l, last) count = SequenceLength (l)",
    )
    module, after = written_out(before)
    assert not [each for each in operators(module) if "Sequence" in each]
    assert_same(before, after)


DATA = "s = ReduceSum <keepdims = 0> (a2) zero = Constant <value_float = 0.0> () go = Greater (s, zero)"
LEFT: dict[str, Any] = {
    "ends where the data says so": loop(COUNT, go=DATA),
    "more turns than are unrolled": loop(COUNT, f"m = Constant <value_int = {MOST_TURNS + 1}> ()"),
    "never ends": loop(COUNT, ENDLESS),
    "collects, and takes no turn": loop(COUNT, "m = Constant <value_int = 0> ()"),
    "too many operations": loop(
        COUNT.replace("a2 = Sin (b)", "")
        + "".join(f"b{at + 1} = Sin (b{at or ''})" for at in range(20)).replace("b20", "a2"),
        f"m = Constant <value_int = {MOST_OPS // 20}> ()",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_it_stays_a_loop_that(name: str):
    assert "Loop" in operators(written_out(LEFT[name])[0])


def test_no_turn_that_collects_nothing_is_what_was_given():
    before = model(
        "(float[4] x) => (float[4] y)",
        f"m = Constant <value_int = 0> () {TRUE} w = Relu (x) y = Loop <body = b (int64 i, bool more, float[4] a) "
        "=> (bool go, float[4] a2) { go = Identity (more) a2 = Sin (a) }> (m, c, w)",
    )
    module, after = written_out(before)
    assert operators(module) == ["Relu"]
    assert_same(before, after)
