"""One text-recognition network over a rack of three vendors: what `make demo` shows.

PP-OCRv4 recognition reads a line of text that is drawn here. It is compiled twice for a rack of a CPU, an RTX PRO
6000 and a Corsair: as the cost model finds best, and with a split forced by pins. Devices that are not on this machine
are emulated: the GPU's segments by their portable ONNX on the CPU, the SRAM accelerator's by the program's emulator.
"""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

import gimlet
from gimlet.compiler.compare import compare
from gimlet.runtime.manifest import Manifest

try:
    from examples.minilm import package_folder
except ModuleNotFoundError:  # run as a script: this folder is on the path, not its parent
    from minilm import package_folder  # pyright: ignore[reportMissingImports]

HEIGHT = 48
TEXT = "One model, three kinds of silicon"
RACK = Path(__file__).parent / "topologies" / "rack.toml"
BINDINGS = {"x[0]": "1", "x[2]": "48", "x[3]": "32:320:2048"}
# Conv 0 to 20 are the first stages of the backbone, 21 to 30 the middle; the rest and the head stay on the CPU.
FORCED_SPLIT = {"gpu0": 0.25, "sram0": 0.25}


def draw(text: str) -> Image.Image:
    """A line of black text on white, `HEIGHT` pixels high."""
    font = ImageFont.load_default(size=34)
    image = Image.new("RGB", (int(font.getlength(text)) + 24, HEIGHT), "white")
    ImageDraw.Draw(image).text((12, 4), text, font=font, fill="black")
    return image


def to_tensor(image: Image.Image) -> NDArray[np.float32]:
    """The image as the network wants it: float32 [1, 3, height, width] between −1 and 1."""
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    return np.ascontiguousarray(((pixels - 0.5) / 0.5).transpose(2, 0, 1)[None])


def decode(scores: NDArray[Any], alphabet: list[str]) -> str:
    """Greedy CTC: the best class of each step ([1, steps, classes]), repeats merged, blanks (class 0) dropped."""
    return "".join(alphabet[best] for best, _ in groupby(scores[0].argmax(axis=1)) if best)


def read_alphabet(model: Path) -> list[str]:
    """The classes of the network: blank, the characters in its metadata, and space."""
    properties = {p.key: p.value for p in onnx.load(str(model), load_external_data=False).metadata_props}
    return ["", *properties["character"].splitlines(), " "]
