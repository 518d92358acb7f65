"""Where the error of PP-OCRv4 detection comes from in a number format of the SRAM accelerator.

    python benchmarks/sram_detection.py [--format bf16]

Detection ends in a sigmoid, whose argument spans hundreds. The network is compiled with that argument as an output
besides, runs on the emulator, and both outputs are compared with ONNX Runtime in float32: relative L2, the largest
difference and what the value is there, and how many pixels fall on the other side of the threshold that boxes are found
with (0.3 in PP-OCR).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from sram_models import TOPOLOGY, _page, minilm, to_tensor

import gimlet

BIND = {"x[0]": 1, "x[2]": "96:160:640", "x[3]": "96:320:640"}
THRESHOLD = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", default="bf16")
    fmt = parser.parse_args().format
    source = minilm.package_folder("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_det_infer.onnx"
    model = onnx.load(str(source))
    sigmoid = next(node for node in model.graph.node if node.output[0] == model.graph.output[0].name)
    model.graph.output.append(onnx.helper.make_tensor_value_info(sigmoid.input[0], onnx.TensorProto.FLOAT, None))
    inputs = {"x": to_tensor(_page())}
    with tempfile.TemporaryDirectory() as folder:
        path, card = Path(folder) / "detection.onnx", Path(folder) / "card.toml"
        onnx.save(model, str(path))
        card.write_text(TOPOLOGY.format(kind="d-matrix/corsair"), encoding="utf-8")
        expected = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)
        bundle = Path(folder) / "m.gimlet"
        options = {"pins": {".*": "sram0"}, "formats": {"sram0": fmt}}
        gimlet.compile(path, topology=card, bind=BIND, output=bundle, **options)
        with gimlet.load(bundle) as program:
            found = list(program.run(inputs).values())
    print("| value | range | relative L2 | largest difference | where the value is |")
    print("|---|---|---|---|---|")
    for name, wanted, got in zip(("probability", "argument"), map(np.asarray, expected), found, strict=True):
        gap = np.abs(got - wanted)
        relative = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
        span = f"{wanted.min():.3g} to {wanted.max():.3g}"
        print(f"| {name} | {span} | {relative:.1e} | {gap.max():.2g} | {wanted.reshape(-1)[gap.argmax()]:.3g} |")
    wanted, got = np.asarray(expected[0]), found[0]
    print(f"pixels on the other side of {THRESHOLD}: {((got > THRESHOLD) != (wanted > THRESHOLD)).sum()} of {got.size}")


if __name__ == "__main__":
    main()
