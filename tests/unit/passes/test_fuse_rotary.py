"""Rotary embeddings: the same numbers before and after, over the ways to write them and in models of transformers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tests.unit.passes.fusion_cases import OPSET, Writer, fused, kinds, run
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import export_module
from gimlet.passes.fuse_rotary import FuseRotaryPass
from gimlet.passes.upgrade_opset import UpgradeOpsetPass


def parted(write: Writer, x: str, half: int, how: str) -> tuple[str, str]:
    """Both halves of the last dimension."""
    if how == "split":
        write.nodes.append(helper.make_node("Split", [x], ["low", "high"], axis=3, num_outputs=2))
        return "low", "high"
    if how == "negative":
        return write("Slice", x, [0], [-half], [-1]), write("Slice", x, [-half], [1 << 40], [-1])
    return write("Slice", x, [0], [half], [3], [1]), write("Slice", x, [half], [2 * half], [3], [1])


def rotated(write: Writer, half: int, cos: str, sin: str, how: str, flips: Sequence[bool]) -> str:
    low, high = parted(write, "x", half, how)
    turned = write("Concat", write("Neg", high), low, axis=-1)
    products = [
        write("Mul", *((angle, x) if flip else (x, angle)))
        for x, angle, flip in (("x", cos, flips[0]), (turned, sin, flips[1]))
    ]
    return write("Add", *(reversed(products) if flips[2] else products))


def from_angles(write: Writer, heads_first: bool) -> tuple[str, str]:
    twice = write("Concat", "angles", "angles", axis=-1)
    if heads_first:
        twice = write("Unsqueeze", twice, [1])
    cos, sin = (write("Mul", write(kind, twice), 0.75) for kind in ("Cos", "Sin"))
    return (cos, sin) if heads_first else (write("Unsqueeze", cos, [1]), write("Unsqueeze", sin, [1]))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, 3) for _ in range(4))),
    one_batch=st.booleans(),
    dynamic=st.booleans(),
    heads_first=st.booleans(),
    how=st.sampled_from(["split", "negative", "slice"]),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_it_is_found_however_it_is_written(
    sizes: tuple[int, int, int, int],
    one_batch: bool,
    dynamic: bool,
    heads_first: bool,
    how: str,
    flips: tuple[bool, bool, bool],
):
    batch, heads, positions, half = sizes
    write = Writer()
    result = rotated(write, half, *from_angles(write, heads_first), how, flips)
    shapes = {"x": (batch, heads, positions, 2 * half), "angles": (1 if one_batch else batch, positions, half)}
    named: dict[str, Sequence[int | str]] = dict(shapes)
    if dynamic:
        named = {"x": ("b", heads, "n", 2 * half), "angles": (1 if one_batch else "b", "n", half)}
    left = Counter(fused(write.model(named, result), shapes))
    assert left["RotaryEmbedding"] == 1
    assert left["Neg"] == left["Add"] == 0


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("equal", [True, False])
def test_constants_are_compared_and_halved(rank: int, equal: bool):
    half, positions = 64, 5
    first = np.random.default_rng(0).standard_normal((positions, half)).astype(np.float32)
    second = first.copy()
    second[-1, -1] += 0 if equal else 1
    table = np.concatenate([first, second], axis=1).reshape((1,) * (rank - 2) + (positions, 2 * half))
    write = Writer()
    result = rotated(write, half, "table", "table", "slice", (False, False, False))
    write.constants.append(numpy_helper.from_array(table, "table"))
    left = fused(write.model({"x": [2, 3, positions, 2 * half]}, result), {"x": (2, 3, positions, 2 * half)})
    assert ("RotaryEmbedding" in left) == equal


@pytest.mark.parametrize(("axis", "ids", "found"), [(0, [2, 0, 1], True), (1, [0, 1, 2, 4], False)])
def test_rows_of_a_table_are_taken_and_cast(axis: int, ids: list[int], found: bool):
    first = np.arange(6, dtype=np.float16).reshape(3, 2) if axis == 0 else np.arange(9, dtype=np.float16).reshape(3, 3)
    write = Writer()
    cos = write("Cast", write("Cos", write("Gather", "table", ids, axis=axis)), to=1)
    write.constants.append(numpy_helper.from_array(np.concatenate([first, first], axis=1), "table"))
    result = rotated(write, 2, cos, cos, "slice", (False, False, False))
    left = fused(write.model({"x": [2, 2, 3, 4]}, result), {"x": (2, 2, 3, 4)})
    assert ("RotaryEmbedding" in left) == found


@pytest.mark.parametrize(
    ("angles", "part"),
    [((2, 1, 4), 2), ((1, 3, 4), 1), ((1, 3, 4), 3)],
    ids=["one position for all", "a shorter first half", "a longer first half"],
)
def test_what_is_not_a_rotation_is_left(angles: tuple[int, int, int], part: int):
    write = Writer()
    cos, sin = from_angles(write, heads_first=False)
    low, high = write("Slice", "x", [0], [part], [3]), write("Slice", "x", [part], [8], [3])
    if part == 2:
        low, high = parted(write, "x", 4, "slice")
    turned = write("Concat", write("Neg", high), low, axis=-1)
    result = write("Add", write("Mul", "x", cos), write("Mul", turned, sin))
    shapes = {"x": (2, 2, 3, 8), "angles": angles}
    assert "RotaryEmbedding" not in fused(write.model(dict(shapes), result), shapes)


def test_halves_joined_along_another_dimension_are_left():
    write = Writer()
    cos, sin = from_angles(write, heads_first=False)
    low, high = parted(write, "x", 1, "slice")
    turned = write("Concat", write("Neg", high), low, axis=2)
    result = write("Add", write("Mul", "x", cos), write("Mul", turned, sin))
    shapes = {"x": (1, 2, 1, 2), "angles": (1, 1, 1)}
    assert "RotaryEmbedding" not in fused(write.model(dict(shapes), result), shapes)


def test_other_contexts_are_refused():
    with pytest.raises(PassFailedException, match="needs gimlet's context"):
        FuseRotaryPass().apply(Context(), ModuleOp([]))


class _Hidden(torch.nn.Module):
    """The last hidden states of a model of transformers."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, use_cache=False)[0]


def model_of(config: type[transformers.PretrainedConfig]) -> torch.nn.Module:
    torch.manual_seed(0)
    small = config(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        head_dim=8,
        attn_implementation="eager",
    )
    return _Hidden(transformers.AutoModel.from_config(small)).eval()


# Phi turns the first half of each head only.
@pytest.mark.parametrize(
    "config",
    [
        transformers.LlamaConfig,
        pytest.param(transformers.Qwen3Config, marks=pytest.mark.full),
        pytest.param(transformers.MistralConfig, marks=pytest.mark.full),
        pytest.param(transformers.PhiConfig, marks=pytest.mark.full),
    ],
)
@pytest.mark.parametrize("dynamic", [True, pytest.param(False, marks=pytest.mark.full)])
def test_every_query_and_key_of_a_model_is_found(config: type[transformers.PretrainedConfig], dynamic: bool):
    ctx = GimletContext()
    model, x = model_of(config), torch.arange(10).reshape(2, 5)
    dims = {"x": {0: torch.export.Dim("b", max=8), 1: torch.export.Dim("n", min=2, max=32)}} if dynamic else None
    module = load(model, args=(x,), dynamic_shapes=dims, ctx=ctx)
    run_passes(module, ctx, (*NORMALIZE, UpgradeOpsetPass(to=OPSET), "infer-shapes", "cse", "fuse-rotary", "dce"))
    left = Counter(kinds(module))
    assert (left["RotaryEmbedding"], left["Neg"]) == (4, 0)
    tokens = torch.arange(12).reshape(3, 4) if dynamic else x
    found = run(ir.to_proto(export_module(module, ctx)), {"x": tokens.numpy()})
    np.testing.assert_allclose(found, model(tokens).detach().numpy(), rtol=2e-5, atol=2e-5)
