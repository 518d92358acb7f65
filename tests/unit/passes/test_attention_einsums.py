"""Attention written with Einsum is found, in whatever order its dimensions are."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.passes.fusion_cases import Writer, fused

SIZES = {"b": 2, "h": 3, "q": 4, "k": 5, "d": 6, "e": 7}
Shapes = dict[str, tuple[int, ...]]


def shape(letters: str) -> tuple[int, ...]:
    return tuple(SIZES[letter] for letter in letters)


def written(scores: str, mixed: str, *, mask: bool = False, turned: bool = False) -> tuple[Any, Shapes]:
    """softmax(0.5 · Einsum(q, k) + mask) by Einsum with the values; `turned`: the values are its first operand."""
    write = Writer()
    (query, keys), result = scores.split("->")[0].split(","), scores.split("->")[1]
    inputs = {"q": shape(query), "k": shape(keys)}
    s = write("Mul", write("Einsum", "q", "k", equation=scores), 0.5)
    if mask:
        inputs["m"] = (1, 1, *shape(result)[2:])
        s = write("Add", s, "m")
    weights = write("Softmax", s, axis=-1)
    first, second = mixed.split("->")[0].split(",")
    inputs["v"] = shape(first if turned else second)
    operands = ("v", weights) if turned else (weights, "v")
    return write.model(dict(inputs), write("Einsum", *operands, equation=mixed)), inputs


def check(model: Any, inputs: Shapes, expected: int) -> None:
    assert fused(model, inputs).count("Attention") == expected


@pytest.mark.parametrize(
    ("scores", "mixed", "how"),
    [
        ("bqhd,bkhd->bhqk", "bhqk,bkhe->bqhe", {}),
        ("bqhd,bkhd->bhqk", "bhqk,bkhe->bqhe", {"mask": True}),
        ("bhqd,bhkd->bhqk", "bhqk,bhke->bhqe", {"mask": True}),
        ("bkhd,bqhd->bhqk", "bkhe,bhqk->bqhe", {"turned": True}),
        ("bhqd,bkd->bhqk", "bhqk,bke->bhqe", {}),
        ("b h q d, b h k d -> b h q k", "b h q k, b h k e -> b h q e", {}),
    ],
)
def test_attention_is_found(scores: str, mixed: str, how: dict[str, bool]):
    model, inputs = written(scores.replace(" ", ""), mixed.replace(" ", ""), **how)
    check(model, inputs, 1)


@given(st.permutations("bhqd"), st.permutations("bhkd"), st.permutations("bhke"), st.permutations("bhqe"))
@settings(max_examples=8, deadline=None)
def test_dimensions_in_any_order(query: list[str], keys: list[str], values: list[str], result: list[str]):
    q, k, v, y = ("".join(each) for each in (query, keys, values, result))
    model, inputs = written(f"{q},{k}->bhqk", f"bhqk,{v}->{y}")
    # Keys that are turned already are left by fuse-attention as they are where MatMul has them so.
    check(model, inputs, 0 if k == "bhdk" else 1)


@pytest.mark.parametrize(
    ("scores", "mixed"),
    [
        ("bhqd,bhkd->bhqk", "bhqk,bhqe->bhke"),
        ("bhqd,bhkd->bhkq", "bhkq,bhke->bhqe"),
    ],
)
def test_products_that_are_none_are_left(scores: str, mixed: str):
    """The softmax is over what is not summed behind it."""
    model, inputs = written(scores, mixed)
    check(model, inputs, 0)
