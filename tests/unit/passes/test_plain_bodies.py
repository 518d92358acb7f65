"""Operators that are written out in some cases only: what is said of the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.passes.test_recurrent_lines import recurrent_model
from tests.unit.targets.sram_models import DEVICE, model_of

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.entry import entry_function, is_constant
from gimlet.passes.plain_bodies import why_unwritten
from gimlet.targets.forms import refusals
from gimlet.targets.sram.target import SramTarget

F, D, N = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
Inputs = Sequence[tuple[int, Sequence[int | str]] | np.ndarray[Any, Any]]


def only_op(model: Any, *passes: Any) -> OnnxOp:
    ctx = GimletContext()
    module = load(model, ctx=ctx)
    run_passes(module, ctx, [*NORMALIZE, *passes])
    (op,) = (op for op in entry_function(module).walk() if isinstance(op, OnnxOp) and not is_constant(op))
    return op


def one(op_type: str, inputs: Inputs, opset: int = 19, **attributes: Any) -> OnnxOp:
    """A model of one operator: inputs are arrays where they are constants."""
    names = [f"x{index}" for index in range(len(inputs))]
    given = {name: each for name, each in zip(names, inputs, strict=True) if isinstance(each, tuple)}
    known = {name: each for name, each in zip(names, inputs, strict=True) if isinstance(each, np.ndarray)}
    node = helper.make_node(op_type, names, ["y"], name="op", **attributes)
    return only_op(model_of([node], given, ["y"], known, opset))


IMAGE: tuple[int, Sequence[int | str]] = (F, [1, 3, 5, 7])
NONE = np.zeros(0, np.float32)
TWICE = np.float32([1, 1, 2, 2])


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "only"),
    [
        ("Einsum", [(F, [2, 3])], {"equation": "ij->ji", "opset": 12}, "from opset 13 on"),
        ("Einsum", [(F, [0, 3])], {"equation": "ij->ji"}, "where the shapes of all operands are known and nothing"),
        ("Einsum", [(F, [2, 3]), (F, [3, 2])], {"equation": "ij,jK"}, "where the result's order is said, and 'ij,jK'"),
        ("ArgMax", [(D, [3])], {}, "for int32 and int64"),
        (
            "MaxUnpool",
            [(F, [1, 2, "n", 3]), (N, [1, 2, "n", 3])],
            {"kernel_shape": [2, 2]},
            "where the shape of its result",
        ),
        ("GridSample", [(F, [1, 2, "n", 3]), (F, [1, 5, 5, 2])], {}, "for images of known sizes, nearest and linear"),
        ("GridSample", [IMAGE, (F, [1, 5, 5, 2])], {"mode": "bicubic"}, "and this one is bicubic"),
        ("DeformConv", [(F, [1, 2, "n", 3]), (F, [4, 2, 1, 1]), (F, [1, 2, 5, 5])], {}, "for images of two dimensions"),
        ("DeformConv", [IMAGE, (F, [3, 1, 1, 1]), (F, [1, 2, 5, 7])], {"group": 3}, "with all channels and offsets in"),
        (
            "DFT",
            [(F, [1, "n", 1])],
            {"axis": 1, "opset": 17},
            "of a known number of samples, up to 4096, and this one has n",
        ),
        ("DFT", [(F, [1, 5, "c"])], {"axis": 1, "opset": 17}, "of signals of a known rank along a known axis"),
        (
            "DFT",
            [(F, [1, 5, 2])],
            {"axis": 1, "onesided": 1, "inverse": 1, "opset": 17},
            "where all frequencies are given or wanted",
        ),
        ("STFT", [(F, [1, "n", 1]), np.array(2), np.ones(4, np.float32)], {}, "of signals of known sizes"),
        ("STFT", [(F, [1, 50, 1]), (N, []), np.ones(4, np.float32)], {}, "of frames of a known length, up to 4096"),
        ("Atan", [(D, [3])], {}, "for float, float16, bfloat16"),
        ("IsInf", [(D, [3])], {}, "for float, float16, bfloat16"),
        ("Shrink", [(D, [3])], {}, "for float, float16, bfloat16"),
        ("ReduceLogSumExp", [(D, [3])], {}, "for float, float16, bfloat16"),
        ("IsInf", [(F, [3])], {"detect_negative": 0, "detect_positive": 0}, "where one infinity or both"),
        ("ReduceL1", [(F, [3, 5]), (N, [1])], {}, "over axes that are known"),
        ("ReduceLogSumExp", [(F, [3, 5]), (N, [1])], {}, "over axes that are known"),
        ("Pad", [IMAGE, (N, [8])], {"mode": "edge"}, "in the modes edge, reflect and wrap, by constant paddings"),
        ("Pad", [IMAGE, np.array([0, 0, -1, 0, 0, 0, 0, 0])], {"mode": "edge"}, "by paddings from 0 on of known axes"),
        ("Pad", [IMAGE, np.array([0, 0, 5, 0, 0, 0, 0, 0])], {"mode": "reflect"}, "dimension 2 has 5 elements"),
        ("OneHot", [(N, [3]), (N, [1]), np.float32([0, 1])], {}, "where the depth is a constant"),
        ("LRN", [(F, [1, "c", 5, 7])], {"size": 3}, "over up to 64 neighbours of a known number of channels"),
        ("LpPool", [IMAGE], {"kernel_shape": [2, 2], "ceil_mode": 1}, "without dilations"),
        ("Resize", [IMAGE, NONE, (F, [4])], {}, "by constant scales or to known sizes"),
        ("Resize", [IMAGE, NONE, TWICE], {"coordinate_transformation_mode": "tf_crop_and_resize"}, "by half_pixel"),
        ("Resize", [IMAGE, NONE, TWICE], {"mode": "linear", "antialias": 1}, "without antialiasing"),
        (
            "Resize",
            [IMAGE, NONE, np.float32([1, 1, 1.5, 1.5])],
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            "by align_corners between known sizes",
        ),
        (
            "Resize",
            [IMAGE, NONE, NONE, np.array([9, 9])],
            {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
            "without keep_aspect_ratio_policy",
        ),
        ("Resize", [(F, [1, 3, "h", 7]), NONE, np.float32([1, 1, 1.5, 2])], {}, "by a whole factor, and dimension 2"),
    ],
)
def test_which_cases_are_written_out(op_type: str, inputs: Inputs, attributes: dict[str, Any], only: str):
    found = why_unwritten(one(op_type, inputs, **attributes))
    assert found is not None
    assert only in found


def test_what_is_written_out_has_no_reason():
    assert why_unwritten(one("LRN", [IMAGE], size=3)) is None
    assert why_unwritten(one("NonZero", [IMAGE])) is None


@pytest.mark.parametrize(
    ("steps", "how", "only"),
    [
        ("n", {}, "for a fixed number of steps, up to 256, and this one has n"),
        (3, {"given": ("lengths",)}, "for sequences that are all as long as each other"),
        (3, {"input_forget": 1}, "without input_forget"),
        (3, {"activations": ["Sigmoid", "Elu", "Tanh"]}, "for the activations Relu, Sigmoid, Softplus, Softsign, Tanh"),
        (3, {"hidden": "h"}, "for states of a known size"),
    ],
)
def test_which_recurrent_operators_are(steps: int | str, how: dict[str, Any], only: str):
    if how.get("hidden") == "h":
        op = one("RNN", [(F, [3, 2, 3]), (F, [1, "h", 3]), (F, [1, "h", "h"])])
    else:
        op = only_op(recurrent_model("LSTM", steps, **how))
    assert only in str(why_unwritten(op))


def test_a_refusal_says_it():
    op = only_op(recurrent_model("LSTM", "n"), *FUSE)
    (reason,) = refusals(SramTarget(), [op], DEVICE, "fp32")
    assert reason is not None
    assert reason.message == (
        "LSTM has no lowering to the machine; it is written out in other operators only for a fixed number of steps, "
        "up to 256, and this one has n"
    )
