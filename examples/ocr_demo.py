"""One text-recognition network over a rack of three vendors: what `make demo` shows.

PP-OCRv4 recognition reads a line of text that is drawn here. It is compiled twice for a rack of a CPU, an RTX PRO
6000 and a Corsair: as the cost model finds best, and with a split that pins force. Devices that are not on this
machine are emulated: the GPU's segments by their portable ONNX on the CPU, the SRAM accelerator's by the emulator of
its programs.
"""

from __future__ import annotations

import sys
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
from gimlet.compiler.api import CompiledBundle
from gimlet.compiler.checking.compare import Comparison, compare
from gimlet.compiler.checking.reference import reference_of
from gimlet.compiler.placement.reasons.explain import summary_line
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.runtime.bundle import Bundle, open_bundle
from gimlet.runtime.manifest import Segment
from gimlet.runtime.units import bytes_text, seconds_text

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples.minilm import package_folder

TEXT = "One model, three kinds of silicon"
HEIGHT = 48
RACK = Path(__file__).parent / "topologies" / "rack.toml"
BINDINGS = {"x[0]": 1, "x[2]": HEIGHT, "x[3]": "32:528:2048"}
# The first convolutions of the network, its middle, its last stage, and the matrix product of its head.
PINS = {
    r"^p2o\.Conv\.\d$": "cpu",
    r"^p2o\.Conv\.1\d$": "gpu0",
    r"^p2o\.Conv\.2\d$": "sram0",
    r"^p2o\.MatMul\.24$": "cpu",
}
MOST_SEGMENTS = 6
console = Console(highlight=False, width=110)


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
    return "".join(alphabet[best] for best, _ in groupby(scores[0].argmax(axis=1)) if best).strip()


def read_alphabet(model: Path) -> list[str]:
    """The classes of the network: blank, the characters in its metadata, and space."""
    properties = {item.key: item.value for item in onnx.load(str(model), load_external_data=False).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def show(title: str, model: Path, output: Path, image: Image.Image, pins: dict[str, str]) -> str:
    """Compiles, reads the image with the bundle, compares it with the unsplit model, and prints all of it."""
    console.rule(title)
    compiled = gimlet.compile(
        str(model),
        topology=RACK,
        bind=BINDINGS,
        pins=pins,
        max_segments=MOST_SEGMENTS,
        output=output,
        progress=Progress(console=console),
    )
    if compiled.placement is not None:
        console.print(summary_line(compiled.placement.explain()), markup=False)
    tensor = to_tensor(image)
    with gimlet.load(output, emulate_missing=True) as program:
        (scores,) = program(x=tensor).values()
    text = decode(scores, read_alphabet(model))
    console.print(f"[bold]it reads:[/bold] {text!r}")
    bundle = open_bundle(output)
    found = compare(bundle, reference_of(open_source(str(model))), {"x": tensor})
    console.print(segment_table(compiled, bundle, found))
    for name, each in found.outputs.items():
        console.print(
            f"output {name}: {each.of_range:.1e} of range, relative L2 {each.relative_l2:.1e} from the unsplit model "
            f"in {found.reference}; {each.limit(found.format)}",
            markup=False,
        )
    return text


def segment_table(compiled: CompiledBundle, bundle: Bundle, found: Comparison) -> Table:
    """What runs where, how long that should take, how large its artifact is, and how far its numbers are."""
    table = Table(title=f"{compiled.path.name}, id {compiled.id[:12]}")
    for column in ("segment", "device", "format", "ops", "predicted", "artifact", "error alone", "error so far"):
        table.add_column(column)
    rows = {row.segment: row for row in found.segments}
    for segment in compiled.manifest.segments:
        row = rows[segment.id]
        table.add_row(
            segment.id,
            f"{segment.device}{' (emulated)' if row.emulated else ''}",
            segment.format,
            str(segment.ops),
            seconds_text(segment.seconds),
            artifact_text(bundle, segment),
            "not known" if row.alone is None else f"{row.alone.relative_l2:.1e}",
            "not known" if row.accumulated is None else f"{row.accumulated.relative_l2:.1e}",
        )
    return table


def artifact_text(bundle: Bundle, segment: Segment) -> str:
    """The engine, program or model of a segment, with its size."""
    own = f"segments/{segment.id}/"
    variant = segment.variants[0]
    name = next(name for name in (*variant.undigested, *variant.files) if name.startswith(own))
    entry = bundle.entry(name)
    return f"{name.removeprefix(own)} {bytes_text(entry.bytes if entry else None)}"


def main() -> None:
    """Runs the demo. Exits with 1 if a bundle does not read the text."""
    model = package_folder("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    image = draw(TEXT)
    with tempfile.TemporaryDirectory() as folder:
        image.save(Path(folder) / "line.png")
        console.print(f"drawn: {TEXT!r}, {image.width}×{image.height} pixels")
        texts = [
            show("as the cost model finds best", model, Path(folder) / "best.gimlet", image, {}),
            show("split by force: --pin", model, Path(folder) / "split.gimlet", image, PINS),
        ]
    if any(text != TEXT for text in texts):
        sys.exit(f"expected {TEXT!r}, read {texts}")


if __name__ == "__main__":
    main()
