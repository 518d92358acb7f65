"""Networks that ONNX Runtime's own quantizer made, on the SRAM accelerator beside ONNX Runtime.

    python benchmarks/sram_quantized.py [NAME…] [--kind d-matrix/corsair]

PP-OCR direction and recognition are quantized statically, as operators on integers (`QOperator`) and as floats between
QuantizeLinear and DequantizeLinear (`QDQ`), calibrated on drawn lines; a BERT (two layers, 256 wide, random weights)
dynamically, as the quantizer writes it and as ONNX Runtime saves that, with operators of its own. Each is compiled with
all ops that the card takes pinned to it, and the bundle runs on the emulator. Printed: the ops on the card; the share
of the FLOPs of products that are of integers; and the largest difference, relative to the largest value of the output,
of the card to ONNX Runtime, of ONNX Runtime without its optimizations to itself with them, and of the quantized network
to the one that it was made of.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import transformers as tf
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from sram_models import Model, difference, measure

from gimlet.targets.api import DimBound

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from examples import minilm
from examples.ocr_demo import draw, to_tensor

Array = np.ndarray[Any, Any]
_BERT: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
LINES = ("Shared exponents", "of 32 numbers", "One model", "three kinds of silicon", "0123456789", "quantized")


@dataclass(frozen=True)
class Case:
    """A network to quantize, how, what to run it with, and the sizes of its dimensions."""

    network: Callable[[Path], Path]
    quantize: Callable[[Path, Path], None]
    inputs: Mapping[str, Array]
    bindings: Mapping[str, DimBound]


class _Lines(CalibrationDataReader):
    """Drawn lines of text, each of `width`."""

    def __init__(self, width: int) -> None:
        self.left: Iterator[dict[str, Array]] = ({"x": _line(line, width)} for line in LINES)

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override] - ends with None, as the caller wants
        return next(self.left, None)


def _line(text: str, width: int) -> Array:
    image = draw(text)
    return to_tensor(image.resize((width, 48)))


def _ocr(name: str, folder: Path) -> Path:
    del folder
    return minilm.package_folder("rapidocr_onnxruntime") / "models" / f"{name}_infer.onnx"


def _statically(form: QuantFormat, width: int, source: Path, to: Path) -> None:
    """Integers of 8 bits without a sign, and weights of 7, as ONNX Runtime advises for this processor."""
    prepared = to.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    onnx.save(version_converter.convert_version(onnx.load(prepared), 13), prepared)
    quantize_static(str(prepared), str(to), _Lines(width), quant_format=form, per_channel=True, reduce_range=True)


def _dynamically(source: Path, to: Path, *, saved: bool) -> None:
    """With weights of 7 bits. `saved` by ONNX Runtime with its optimizations: with operators of its own."""
    quantize_dynamic(str(source), str(to), reduce_range=True)
    if saved:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(to)
        onnxruntime.InferenceSession(to.read_bytes(), options, providers=["CPUExecutionProvider"])


def _bert(folder: Path) -> Path:
    path, torch_model = folder / "bert.onnx", tf.BertModel(tf.BertConfig(**_BERT)).eval()
    ids = torch.ones(1, 24, dtype=torch.int64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(torch_model, (ids, ids), path, input_names=names, external_data=False, verbose=False)
    return path


def _static(name: str, form: QuantFormat, width: int) -> Case:
    sizes = {"x[0]": (1, 1, 1), "x[2]": (48, 48, 48), "x[3]": (width, width, width)}
    bindings = {dim: DimBound(*bounds) for dim, bounds in sizes.items()}
    inputs = {"x": _line("Shared exponents", width)}
    return Case(partial(_ocr, name), partial(_statically, form, width), inputs, bindings)


def _dynamic(*, saved: bool) -> Case:
    ids = np.random.default_rng(0).integers(0, 512, (1, 24))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return Case(_bert, partial(_dynamically, saved=saved), inputs, {})


CASES: dict[str, Callable[[], Case]] = {
    "PP-OCR direction, QOperator": lambda: _static("ch_ppocr_mobile_v2.0_cls", QuantFormat.QOperator, 192),
    "PP-OCR direction, QDQ": lambda: _static("ch_ppocr_mobile_v2.0_cls", QuantFormat.QDQ, 192),
    "PP-OCRv4 recognition, QOperator": lambda: _static("ch_PP-OCRv4_rec", QuantFormat.QOperator, 320),
    "PP-OCRv4 recognition, QDQ": lambda: _static("ch_PP-OCRv4_rec", QuantFormat.QDQ, 320),
    "BERT, dynamic": lambda: _dynamic(saved=False),
    "BERT, dynamic, as ONNX Runtime saves it": lambda: _dynamic(saved=True),
}


def _run(path: Path, inputs: Mapping[str, Any], *, optimized: bool = True) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(each) for each in session.run(None, dict(inputs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--kind", default="d-matrix/corsair", help="the hardware file of the card")
    given = parser.parse_args()
    logging.disable()
    print("| network | ops on the card | integers | to ONNX Runtime | it to itself | to floats | refused |")
    print("|---|---|---|---|---|---|---|")
    for name in given.names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            print(_line_of(name, CASES[name](), given.kind, Path(folder)), flush=True)


def _line_of(name: str, case: Case, kind: str, folder: Path) -> str:
    source, quantized = case.network(folder), folder / "quantized.onnx"
    case.quantize(source, quantized)
    expected = _run(quantized, case.inputs)
    plain, floats = _run(quantized, case.inputs, optimized=False), _run(source, case.inputs)
    model = Model((str(quantized),), [case.inputs], partial(_given, expected), case.bindings)
    line = measure(model, kind, ["fp32"], folder)
    error, shares = line.results["fp32"]
    reasons = "; ".join(f"{count} × {reason}" for reason, count in line.reasons.most_common())
    errors = [error, *(difference(each, dict(enumerate(expected))) for each in (plain, floats))]
    cells = [f"{line.taken} of {line.ops}", f"{shares.get('i8', 0.0):.0%}", *(f"{each:.1e}" for each in errors)]
    return f"| {name} | {' | '.join(cells)} | {reasons} |"


def _given(expected: Sequence[Array], inputs: Mapping[str, Any]) -> Sequence[Array]:
    del inputs
    return expected


if __name__ == "__main__":
    main()
