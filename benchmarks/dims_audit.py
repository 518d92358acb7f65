"""How much of a dynamic model's shapes is known: `python benchmarks/dims_audit.py [--models FILE.onnx …]`.

Counts the dimensions of every value in @main after `normalize`: static, a dimension of the inputs, an expression over
them, one that depends on data, or unknown, and names the operators at which what is unknown begins: all of their inputs
are known, a result is not. `--models` takes further ONNX files.
"""

from __future__ import annotations

import argparse
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of, shape_of
from gimlet.passes.entry import entry_function


class Related(torch.nn.Module):
    """Two inputs of related lengths, as torch.export states them: n, 2n and n + 1."""

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        pairs = b.reshape(a.shape[0], 2, 8) * a.unsqueeze(1)
        return torch.cat([pairs.flatten(0, 1), c], dim=0).softmax(0)


def related() -> tuple[Any, ...]:
    n = torch.export.Dim("n", min=2, max=64)
    shapes = {"a": {0: n}, "b": {0: 2 * n}, "c": {0: n + 1}}
    return Related(), (torch.zeros(3, 8), torch.zeros(6, 8), torch.zeros(4, 8)), shapes


def models() -> dict[str, Any]:
    """Sources by name: files of packages, callables of examples/, and a module with related dimensions."""
    spec = find_spec("rapidocr_onnxruntime")
    folder = Path(spec.origin).parent / "models" if spec is not None and spec.origin is not None else None
    found: dict[str, Any] = {name: folder / file for name, file in _OCR.items()} if folder is not None else {}
    language = {name: f"examples.smollm2:{name}" for name in ("prefill", "generate", "decode")}
    return found | {"minilm": "examples.minilm:encoder", **language, "n, 2n, n+1": related()}


_OCR = {
    "detection": "ch_PP-OCRv4_det_infer.onnx",
    "recognition": "ch_PP-OCRv4_rec_infer.onnx",
    "direction": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
}


def normalised(source: Any) -> ModuleOp:
    ctx = GimletContext()
    if isinstance(source, tuple):
        module = load(source[0], args=source[1], dynamic_shapes=source[2], ctx=ctx)
    else:
        module = load(source, ctx=ctx)
    run_passes(module, ctx, NORMALIZE)
    return module


def audit(module: ModuleOp) -> tuple[Counter[str], Counter[str]]:
    """Dimensions by what they are, and the operators that the unknown ones start at."""
    kinds: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    function = entry_function(module)
    given = {symbol for value in function.args for dim in shape_of(value) or () if dim for symbol in dim.symbols}
    for op in function.body.block.ops:
        if isinstance(op, InitializerOp) or not isinstance(op, OnnxOp):
            continue
        for value in op.results:
            shape = shape_of(value)
            kinds["no rank"] += shape is None
            for dim in shape or ():
                kinds[_kind(dim, given)] += 1
        if _is_known(op.operands) and not _is_known(op.results):
            causes[op.op_type] += 1
    return kinds, causes


def _kind(dim: Any, given: set[str]) -> str:
    if dim is None:
        return "unknown"
    if dim.is_constant:
        return "static"
    if not dim.symbols <= given:
        return "data's"
    return "input's" if len(dim.terms) == 1 and str(dim) in given else "expression"


def _is_known(values: Any) -> bool:
    return all(dims_of(value) is not None for value in values)


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", default=[])
    columns = ("static", "input's", "expression", "data's", "unknown", "no rank")
    print(f"{'model':<16}" + "".join(f"{name:>11}" for name in columns) + "  starts at")
    for name, source in (models() | {path.stem: path for path in parser.parse_args().models}).items():
        kinds, causes = audit(normalised(source))
        starts = ", ".join(f"{count} {kind}" for kind, count in causes.most_common())
        print(f"{name:<16}" + "".join(f"{kinds[column]:>11}" for column in columns) + f"  {starts or '-'}", flush=True)


if __name__ == "__main__":
    main()
