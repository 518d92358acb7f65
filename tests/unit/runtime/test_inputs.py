"""What a caller passes is compared with what the program takes, and the message says both."""

from typing import Any

import numpy as np
import pytest

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.inputs import InputChecker
from gimlet.runtime.manifest import DimRange
from gimlet.runtime.tensors import TensorSpec


def spec(name: str, dtype: str, *dims: str | None) -> TensorSpec:
    return TensorSpec(name, dtype, tuple(None if dim is None else Expr.parse(dim) for dim in dims))


CHECKER = InputChecker(
    [spec("a", "float32", "n", "4"), spec("b", "int64", "n"), spec("c", "float32", "2*n", "`past + 1`")],
    {"n": DimRange(1, 2, 8), "past + 1": DimRange(1, 4, 16)},
)


def inputs(n: int = 2, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "a": np.zeros((n, 4), np.float32),
        "b": np.zeros(n, np.int64),
        "c": np.zeros((2 * n, 3), np.float32),
    }
    return {name: value for name, value in (given | changes).items() if value is not None}


def check(given: dict[str, Any]) -> dict[str, int]:
    _, signature = CHECKER.arrays(given)
    return CHECKER.sizes(signature)


def test_sizes_come_from_the_shapes():
    assert check(inputs(3)) == {"n": 3, "past + 1": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": None}, r"input 'b': is missing; the program takes a: float32\[n, 4\], b: int64\[n\]"),
        ({"z": 1}, r"input 'z': there is no such input; the program takes a: float32\[n, 4\]"),
        ({"b": None, "z": 1}, r"input 'b': is missing|input 'z': there is no such input"),
        ({"a": np.zeros((2, 4))}, r"input 'a': has elements of float64; .*\n  hint: .*astype\('float32'\)"),
        ({"a": [[1, 2, 3, 4]] * 2}, r"input 'a': has elements of int64"),
        ({"a": [[1], [1, 2]]}, r"input 'a': is no tensor"),
        ({"a": np.zeros((2, 4, 1), np.float32)}, r"input 'a': has shape \[2, 4, 1\], of rank 3; the program takes a"),
        ({"a": np.zeros((2, 5), np.float32)}, r"input 'a': has shape \[2, 5\]: dimension 1 is 5 instead of 4"),
        ({"b": np.zeros(3, np.int64)}, r"input 'b': .*n is 3 here and 2 in dimension 0 of 'a'"),
        ({"c": np.zeros((5, 3), np.float32)}, r"input 'c': .*dimension 0 is 5 instead of 4"),
        (
            {"c": np.zeros((4, 17), np.float32)},
            r"input 'c': .*dimension 1 \(past \+ 1\) is 17, and the bundle was compiled for 1 to 16",
        ),
    ],
)
def test_a_wrong_input_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as caught:
        check(inputs(**changes))
    assert caught.value.exit_code == 1


def test_a_size_out_of_range_says_how_to_compile_for_it():
    with pytest.raises(InputError, match=r"n\) is 9, .* compiled for 1 to 8") as caught:
        check(inputs(9))
    assert caught.value.hint == "compile with --bind n=1:2:9"


def test_arrays_are_made_contiguous_and_lists_are_taken():
    turned = np.zeros((4, 2), np.float32).T
    arrays, _ = CHECKER.arrays(inputs(a=turned, b=[np.int64(1), np.int64(2)]))
    assert arrays[0].flags.c_contiguous
    assert arrays[1].tolist() == [1, 2]


def test_a_scalar_stays_a_scalar():
    checker = InputChecker([spec("s", "float32")], {})
    arrays, signature = checker.arrays({"s": np.float32(2)})
    assert arrays[0].shape == ()
    assert signature == ((),)


def test_text_becomes_objects():
    checker = InputChecker([spec("t", "string", None)], {})
    arrays, _ = checker.arrays({"t": np.array(["a", "b"])})
    assert arrays[0].dtype == object
    with pytest.raises(InputError, match="has elements of float64; the program takes t: string"):
        checker.arrays({"t": np.zeros(2)})


def test_a_program_without_inputs_takes_none():
    checker = InputChecker([], {})
    assert checker.arrays({}) == ([], ())
    with pytest.raises(InputError, match="there is no such input; the program takes none"):
        checker.arrays({"x": 1})
