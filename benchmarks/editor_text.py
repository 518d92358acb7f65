"""How long the language server reads a text, which it does after each change: `python benchmarks/editor_text.py`.

A chain of additions of 1,000 to 10,000 operations; the least processor time of three readings.
"""

from __future__ import annotations

import time
from itertools import pairwise

from gimlet.compiler.sources import load_dialects
from gimlet.compiler.workbench.index import index_text
from gimlet.dialects.context import GimletContext


def chain(count: int) -> str:
    """IR of `count` operations, each of which reads the one before."""
    names = ["x", *(f"v{index}" for index in range(count))]
    lines = [
        f"  %{made} = onnx.Add(%{read}, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>"
        for read, made in pairwise(names)
    ]
    begin = "func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {"
    return "\n".join([begin, *lines, f"  func.return %{names[-1]} : tensor<4xf32>", "}"])


def seconds(text: str) -> float:
    """Processor time of one reading."""
    ctx = GimletContext()
    load_dialects(ctx)
    start = time.process_time()
    index = index_text(text, "chain.mlir", ctx)
    taken = time.process_time() - start
    if index.problems:
        raise SystemExit(str(index.problems[0]))
    return taken


def main() -> None:
    """Prints a row for each length."""
    print("| operations | seconds | ms for 1,000 |\n|---|---|---|")
    for count in (1000, 2000, 5000, 10_000):
        text = chain(count)
        least = min(seconds(text) for _ in range(3))
        print(f"| {count} | {least:.2f} | {least / count * 1e6:.0f} |")


if __name__ == "__main__":
    main()
