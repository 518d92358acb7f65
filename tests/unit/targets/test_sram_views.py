"""Views against numpy: whatever a view does to its shape, the elements that a load visits are numpy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.binding import BoundAccess, BoundAxis
from gimlet.runtime.sram.window import Box, window
from gimlet.targets.sram.views import Counter, View


def shape(*dims):
    return tuple(Expr.of(dim) for dim in dims)


def elements(view: View, array: np.ndarray, sizes: dict[str, int] | None = None) -> np.ndarray:
    """What a load of all of a view brings."""
    sizes = sizes or {}
    access = view.access(
        [ZERO] * len(view.shape), [[Counter(axis, size)] for axis, size in enumerate(view.shape)], repeated=True
    )
    bound = BoundAccess(
        tensor="t",
        shape=tuple(dim.evaluate(sizes) for dim in access.shape),
        strides=(),
        base=tuple(start.evaluate(sizes) for start in access.start),
        moves={},
        axes=tuple(tuple(BoundAxis(a.dim, a.step, a.size.evaluate(sizes)) for a in group) for group in access.axes),
        fill=None,
    )
    seen = window(bound, Box((), (), (), {}), {}, {})
    assert seen.empty or seen.outside() is None
    return seen.as_tile(seen.view(array.reshape(-1)))


STEPS = st.lists(
    st.sampled_from(["transpose", "slice", "reverse", "unsqueeze", "squeeze", "expand", "reshape"]), max_size=6
)


@given(dims=st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), steps=STEPS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_views_are_numpys(dims, steps, data):
    array = np.arange(np.prod(dims), dtype=np.int64).reshape(dims)
    view, expected = View.whole("t", "i64", shape(*dims)), array
    for step in steps:
        axis = data.draw(st.integers(0, expected.ndim - 1))
        size = expected.shape[axis]
        if step == "transpose":
            order = data.draw(st.permutations(range(expected.ndim)))
            view, expected = view.transpose(order), expected.transpose(order)
        elif step == "slice" and size > 1:
            begin, stride = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 2))
            part = expected[(slice(None),) * axis + (slice(begin, None, stride),)]
            view, expected = view.slice(axis, begin, Expr.const(part.shape[axis]), stride), part
        elif step == "reverse":
            view, expected = view.slice(axis, size - 1, Expr.const(size), -1), np.flip(expected, axis)
        elif step == "unsqueeze":
            view, expected = view.unsqueeze(axis), np.expand_dims(expected, axis)
        elif step == "squeeze" and size == 1 and expected.ndim > 1:
            view, expected = view.squeeze(axis), np.squeeze(expected, axis)
        elif step == "expand" and size == 1:
            wide = (*expected.shape[:axis], 3, *expected.shape[axis + 1 :])
            view, expected = view.expand(shape(*wide)), np.broadcast_to(expected, wide)
        elif step == "reshape":
            target = data.draw(st.sampled_from([(expected.size,), (1, expected.size), (*expected.shape, 1)]))
            found = view.reshape(shape(*target), {})
            if found is not None:
                view, expected = found, expected.reshape(target)
    assert tuple(dim.as_int() for dim in view.shape) == expected.shape
    np.testing.assert_array_equal(elements(view, array), expected)


def test_heads_are_split_and_joined_without_a_copy():
    sizes = {"batch": 2, "seq": 5}
    array = np.arange(2 * 5 * 24).reshape(2, 5, 24)
    whole = View.whole("t", "f32", shape("batch", "seq", 24))
    heads = whole.reshape(shape("batch", "seq", 4, 6), sizes)
    assert heads is not None
    turned = heads.transpose((0, 2, 1, 3))
    np.testing.assert_array_equal(elements(turned, array, sizes), array.reshape(2, 5, 4, 6).transpose(0, 2, 1, 3))
    assert turned.reshape(shape("batch", "seq", 24), sizes) is None
    back = turned.transpose((0, 2, 1, 3)).reshape(shape("batch", "seq", 24), sizes)
    assert back is not None
    assert back.is_whole


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (("batch", "seq", 8), ("batch*seq", 8), True),
        (("batch*seq", 8), ("batch", "seq", 2, 4), True),
        (("batch", 1, "seq"), ("batch", "seq"), True),
        ((6, 4), (8, 3), True),
        (("batch", 12), ("12*batch",), True),
        ((1, 1), (1,), True),
    ],
)
def test_whole_tensors_take_any_shape(old, new, kept):
    found = View.whole("t", "f32", shape(*old)).reshape(shape(*new), {"batch": 3, "seq": 5})
    assert (found is not None and found.is_whole) == kept


def test_sizes_that_are_equal_by_chance_stay_apart():
    """batch and 1 are both 1 here: the shapes still match dimension by dimension."""
    found = (
        View.whole("t", "f32", shape("batch", "seq", 8))
        .transpose((1, 0, 2))
        .reshape(shape("seq", "batch", 2, 4), {"batch": 1, "seq": 1})
    )
    assert found is None or found.shape == shape("seq", "batch", 2, 4)
    with_probe = (
        View.whole("t", "f32", shape("batch", "seq", 8))
        .transpose((1, 0, 2))
        .reshape(shape("seq", "batch", 2, 4), {"batch": 2, "seq": 3})
    )
    assert with_probe is not None


def test_what_is_whole():
    whole = View.whole("t", "f32", shape(3, 1, 4))
    assert whole.is_whole
    assert whole.squeeze(1).is_whole
    assert whole.unsqueeze(0).is_whole
    assert not whole.slice(2, 1, Expr.const(3)).is_whole
    assert not whole.transpose((2, 1, 0)).is_whole
    assert not whole.expand(shape(3, 5, 4)).is_whole


def test_padding_needs_dimensions_that_are_walked():
    rigid = View.whole("t", "f32", shape(1, 3, 1)).rigid()
    assert all(walk is not None for walk in rigid.walks)
    assert rigid.access([ZERO, ZERO, Expr.const(-1)], [[Counter(2, ONE)]], fill=0.0).start[2] == Expr.const(-1)
