"""PP-OCRv4 recognition in bf16 on the SRAM accelerator, and in ONNX Runtime with the same operands rounded.

    PYTHONPATH=. python benchmarks/sram_rounded.py

Relative L2 of the output for three lines of text: of both from ONNX Runtime in float32, and from each other.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.e2e.models import MODELS
from tests.e2e.rounded import distances

LINES = 3


def main() -> None:
    model = MODELS["recognition"]
    print("| line | ONNX Runtime, rounded | accelerator | between the two |")
    print("|---|---|---|---|")
    for seed in range(LINES):
        print(f"| {seed} | " + " | ".join(f"{each:.1e}" for each in distances(model.source, model.inputs(seed))) + " |")


if __name__ == "__main__":
    main()
