"""Which products of PP-OCRv4 recognition its error in bf16 comes from.

    python benchmarks/sram_blame.py

The network is compiled for the SRAM accelerator in bf16 several times, each time with other products kept in fp32, runs
on the emulator on a line of text, and is compared with ONNX Runtime in float32 (relative L2, and the largest difference
of a probability). Vector operations (softmax, normalisations, activations) are computed in f32 in every case: it is
operands of products that a format rounds, and with "stored" what is kept in memory between products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import numpy as np
import onnxruntime
from sram_models import TOPOLOGY, draw, minilm, to_tensor

import gimlet
from gimlet.dialects.onnx import OnnxOp
from gimlet.targets.sram import lowering
from gimlet.targets.sram.lowering import Lowering, vector_type

BIND = {"x[0]": 1, "x[2]": 48, "x[3]": "32:320:2048"}
CASES: dict[str, Callable[[OnnxOp], bool]] = {
    "none": lambda _: False,
    "convolutions": lambda op: op.op_type == "Conv",
    "depthwise convolutions": lambda op: op.op_type == "Conv" and int(op.attr("group", 1)) > 1,
    "matrix products": lambda op: op.op_type != "Conv",
}


def main() -> None:
    source = minilm.package_folder("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    inputs = {"x": to_tensor(draw("Shared exponents"))}
    expected = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    print("| in fp32 | relative L2 | largest difference |")
    print("|---|---|---|")
    for name, exact in CASES.items():
        plain = lowering.product_types

        def types(*args: Any, exact: Any = exact, plain: Any = plain) -> dict[OnnxOp, str]:
            return {op: "f32" if exact(op) else dtype for op, dtype in plain(*args).items()}

        with patch.object(lowering, "product_types", types):
            _line(name, source, inputs, np.asarray(expected))
    with patch.object(Lowering, "activation_type", PropertyMock(return_value="f32")):
        _line("attention's products", source, inputs, np.asarray(expected))
    with patch.object(Lowering, "_storage", lambda _, value: vector_type(value)):
        _line("what is stored", source, inputs, np.asarray(expected))


def _line(name: str, source: Path, inputs: Any, expected: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        card, bundle = Path(folder) / "card.toml", Path(folder) / "m.gimlet"
        card.write_text(TOPOLOGY.format(kind="d-matrix/corsair"), encoding="utf-8")
        options = {"pins": {".*": "sram0"}, "formats": {"sram0": "bf16"}}
        gimlet.compile(str(source), topology=card, bind=BIND, output=bundle, **options)
        with gimlet.load(bundle) as program:
            found = next(iter(program.run(inputs).values()))
    relative = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    print(f"| {name} | {relative:.1e} | {np.abs(found - expected).max():.1e} |", flush=True)


if __name__ == "__main__":
    main()
