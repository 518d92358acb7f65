"""Convolutions as products of patches and weights on the SRAM machine: what they compute, and that they are quicker."""

from collections.abc import Sequence
from typing import Any

import pytest
from onnx import ModelProto, helper
from tests.unit.targets.sram_models import DEVICE, Runner, model_of, reference, relative_error, segment_of
from tests.unit.targets.test_sram_ops import F, normal

from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.sram.tiles import Patches
from gimlet.targets.sram import patch_mapping, patch_rows
from gimlet.targets.sram.bound import bound_of
from gimlet.targets.sram.convolution import Convolution
from gimlet.targets.sram.target import machine_of

ERROR = {"fp32": 2e-6, "bf16": 1e-2}
PADDED = {"pads": [1, 2, 0, 1]}
APART = {"strides": [2, 3], "dilations": [2, 1]}


def convolution(sizes: Sequence[int | str], kernel: Sequence[int], channels: int, **attributes: Any) -> ModelProto:
    """A convolution to 70 channels with its bias, and what is added and cut off behind it."""
    weights = {"w": normal(70, channels, *kernel), "b": normal(70)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="c", **attributes),
        helper.make_node("Sigmoid", ["c"], ["s"]),
        helper.make_node("Mul", ["c", "s"], ["m"]),
        helper.make_node("Add", ["m", "r"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    rest: list[int | str] = [1] * (len(kernel) + 2)
    return model_of(nodes, {"x": (F, sizes), "r": (F, rest)}, ["y"], weights)


def kernels_of(runner: Runner) -> set[str]:
    return {kernel.name.rsplit("_", 1)[0] for kernel in runner.executor.program.kernels}


@pytest.fixture
def in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution is a product of rows, the quicker or not."""

    def rows(_: Convolution) -> patch_rows.Way:
        return patch_rows.product_of_rows

    monkeypatch.setattr(patch_rows, "_quickest", rows)


SHAPES = pytest.mark.parametrize(
    ("sizes", "kernel", "channels", "attributes"),
    [
        ((9,), (5,), 90, {"strides": [2], "pads": [2, 1]}),
        ((700,), (201,), 1, {"strides": [40]}),
        ((6, 7), (3, 3), 130, PADDED),
        ((9, 11), (2, 3), 80, APART),
        ((7, 7), (3, 3), 64, {"pads": [1] * 4}),
        ((5, 6), (1, 1), 300, {}),
        ((8, 8), (4, 4), 33, {"strides": [4, 4]}),
        ((3, 4, 5), (2, 2, 2), 70, {"auto_pad": "SAME_UPPER"}),
    ],
)


@pytest.mark.parametrize("fmt", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 2])
@SHAPES
@pytest.mark.usefixtures("in_rows")
def test_patches_times_weights(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    channels: int,
    attributes: dict[str, Any],
    batch: int,
    fmt: str,
):
    model = convolution((batch, channels, *sizes), kernel, channels, **attributes)
    x = {"x": normal(batch, channels, *sizes), "r": normal(*[1] * (len(kernel) + 2))}
    runner = Runner(segment_of(model), fmt)
    assert "matmul" in kernels_of(runner)
    assert "conv" not in kernels_of(runner)
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < ERROR[fmt]


@pytest.mark.parametrize(("fmt", "batch"), [("fp32", 1), ("bf16", 2), ("mxint8", 1)])
@SHAPES
def test_weights_that_stay_times_patches_that_are_loaded(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    channels: int,
    attributes: dict[str, Any],
    batch: int,
    fmt: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """With the depth in one piece, cut once and cut whole, and with input that items convert."""
    model = convolution((batch, channels, *sizes), kernel, channels, **attributes)
    x = {"x": normal(batch, channels, *sizes), "r": normal(*[1] * (len(kernel) + 2))}
    expected, segment = reference(model, **x)[0], segment_of(model)
    choose, chosen = patch_mapping.by_patches, list[Patches]()
    monkeypatch.setattr(patch_mapping, "_TRIED", 1000)
    for cut in range(len(kernel) + 2):

        def way(found: Convolution, cut: int = cut) -> patch_rows.Way:
            several = [each for each in choose(found, 1 << 19, 1 << 19) if each.cut == cut]
            best = max(several, key=lambda each: (bool(each.loaded), each.positions < each.items), default=None)
            chosen.extend([best] if best else [])
            return patch_rows.ByKernel(best)

        monkeypatch.setattr(patch_rows, "_quickest", way)
        assert relative_error(Runner(segment, fmt)(**x)[0], expected) < {**ERROR, "mxint8": 3e-2}[fmt]
    assert chosen


@pytest.mark.parametrize(("batch", "width"), [(1, 9), (3, 4), (2, 16)])
@pytest.mark.usefixtures("in_rows")
def test_patches_of_sizes_that_are_known_later(batch: int, width: int):
    model = convolution(("n", 130, 6, "w"), (3, 3), 130, **PADDED)
    x = {"x": normal(batch, 130, 6, width), "r": normal(1, 1, 1, 1)}
    runner = Runner(segment_of(model, {"n": (1, 1, 4), "w": (4, 9, 16)}), "fp32")
    assert "patches" in kernels_of(runner)
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < ERROR["fp32"]


@pytest.mark.parametrize(
    ("x", "weight", "attributes", "most"),
    [
        ((1, 512, 7, 7), (512, 512, 3, 3), {"pads": [1] * 4}, 3),
        ((1, 256, 14, 14), (256, 256, 3, 3), {"pads": [1] * 4}, 3),
        ((1, 3, 224, 224), (768, 3, 16, 16), {"strides": [16, 16]}, 3),
        ((1, 1, 200003), (20, 1, 401), {"strides": [160]}, 15),
    ],
)
def test_few_positions_or_long_kernels_are_near_the_bound(
    x: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any], most: float
):
    """Of which the kernel of a convolution takes 20 to 5,400 times the bound."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    segment = segment_of(model_of([node], {"x": (F, x)}, ["y"], {"w": normal(*weight)}))
    cycles = Runner(segment, "fp32").artifact.facts["cycles"]
    ops = [op for op in segment.op.body.block.ops if isinstance(op, OnnxOp) and op.op_type == "Conv"]
    assert cycles <= most * bound_of(ops, list(segment.op.results_yielded), machine_of(DEVICE.kind), "fp32", {}).cycles


def test_small_weights_of_many_rows_have_copies():
    """Without copies nine tiles of weights would be on nine cores, or be loaded by each core that multiplies."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    runner = Runner(
        segment_of(model_of([node], {"x": (F, (1, 64, 24, 24))}, ["y"], {"w": normal(64, 64, 3, 3)})), "fp32"
    )
    (weights,) = (tensor for tensor in runner.executor.program.tensors if tensor.role == "weight")
    assert (weights.space, weights.copies > 1) == ("core", True)


@pytest.mark.parametrize("fmt", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("sizes", "groups", "channels", "outputs", "kernel", "attributes"),
    [
        ((6, 7), 2, 40, 70, (3, 3), PADDED),
        ((9, 9), 3, 80, 20, (1, 1), {}),
        ((4, 5), 5, 33, 9, (3, 3), {"pads": [1] * 4}),
        ((60,), 4, 24, 24, (40,), {"pads": [20, 19]}),
    ],
)
def test_groups_are_multiplied_with_weights_of_their_own(
    sizes: tuple[int, ...],
    groups: int,
    channels: int,
    outputs: int,
    kernel: tuple[int, ...],
    attributes: dict[str, Any],
    fmt: str,
):
    """First channels first, then last: the second convolution reads what the first made."""
    after = (1,) * len(kernel)
    weights = {
        "w": normal(groups * outputs, channels, *kernel),
        "b": normal(groups * outputs),
        "v": normal(groups * outputs, outputs, *after),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], group=groups, **attributes),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], group=groups),
    ]
    model = model_of(nodes, {"x": (F, (2, groups * channels, *sizes))}, ["y"], weights)
    x = {"x": normal(2, groups * channels, *sizes)}
    runner = Runner(segment_of(model), fmt)
    assert "matmul" in kernels_of(runner)
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < ERROR[fmt]


def test_overlapping_patches_are_of_a_map_that_was_turned():
    """With channels first 3 x 3 of everything would cross between chiplets, nine times."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    for size, turned in ((56, True), (8, False)):
        model = model_of([node], {"x": (F, (1, 64, size, size))}, ["y"], {"w": normal(64, 64, 3, 3)})
        assert ("turn" in kernels_of(Runner(segment_of(model), "fp32"))) == turned
