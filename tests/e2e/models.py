"""The models that end-to-end tests compile: from packages on PyPI, with real inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont

Inputs = dict[str, NDArray[Any]]
SENTENCES = ("A model is cut in three.", "Each part runs where it costs least.", "The numbers agree.")


@dataclass(frozen=True)
class Model:
    """A source as gimlet-compile takes it, its bindings, and a function that makes real inputs from a seed."""

    source: str
    bind: Mapping[str, int | str]
    inputs: Callable[[int], Inputs]


def ocr_model(name: str) -> str:
    """The path of one of the three PP-OCRv4 networks."""
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("rapidocr_onnxruntime: pip install --no-deps -r requirements/models.txt")
    return str(Path(spec.origin).parent / "models" / name)


def draw(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """A page with a few lines of text, as the networks want it: float32 [1, 3, height, width] between −1 and 1."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), "white")
    painter = ImageDraw.Draw(image)
    words = " ".join(SENTENCES).split()
    for top in range(4, max(5, height - 30), 48):
        line = " ".join(generator.choice(words, 6))
        painter.text((4, top), line, font=ImageFont.load_default(size=30), fill="black")
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    return np.ascontiguousarray(((pixels - 0.5) / 0.5).transpose(2, 0, 1)[None])


def chain(path: Path, third: float = 1.0) -> Path:
    """Four products of [n, 32] with weights of 32 × 32, `product0` to `product3`; the third weight is scaled."""
    names = ["x", "a", "b", "c", "y"]
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for index in range(4):
        weight = np.random.default_rng(index).standard_normal((32, 32)) * (third if index == 2 else 1.0)
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        nodes.append(
            helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]], name=f"product{index}")
        )
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", value[:1], value[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


CHAIN_BIND = {"n": "1:4:16"}
CHAIN_PINS = {"product0": "cpu", "product1": "gpu0", "product2": "sram0", "product3": "cpu"}


def _images(height: int, widths: tuple[int, ...]) -> Callable[[int], Inputs]:
    return lambda seed: {"x": draw(seed, height, widths[seed % len(widths)])}


def _tokens(names: tuple[str, ...]) -> Callable[[int], Inputs]:
    def inputs(seed: int) -> Inputs:
        generator = np.random.default_rng(seed)
        ids = generator.integers(1000, 20000, (1, 8 + seed % 8), dtype=np.int64)
        return {name: ids if name == "input_ids" else np.ones_like(ids) for name in names}

    return inputs


MODELS: Mapping[str, Model] = {
    "recognition": Model(
        ocr_model("ch_PP-OCRv4_rec_infer.onnx"),
        {"x[0]": 1, "x[2]": 48, "x[3]": "32:320:2048"},
        _images(48, (320, 160, 512)),
    ),
    "detection": Model(
        ocr_model("ch_PP-OCRv4_det_infer.onnx"),
        {"x[0]": 1, "x[2]": "32:160:640", "x[3]": "32:160:640"},
        _images(160, (160, 96, 224)),
    ),
    "direction": Model(
        ocr_model("ch_ppocr_mobile_v2.0_cls_infer.onnx"),
        {"x[0]": "1:1:4", "x[2]": 48, "x[3]": 192},
        _images(48, (192,)),
    ),
    "minilm": Model("examples.minilm:encoder", {"batch": 1}, _tokens(("input_ids", "attention_mask"))),
    "smollm2": Model("examples.smollm2:prefill", {"batch": 1}, _tokens(("input_ids",))),
}
