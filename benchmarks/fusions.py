"""What the fusions find in real models, and what they do to their speed: `python benchmarks/fusions.py [--pairs 11]`.

Every model is normalised, then fused at its own opset, and once more after it was written for opset 24. Each form runs
in ONNX Runtime in turns with the model as it was, on the same random inputs and one thread. Prints the ops before and
after, the median ratio of the CPU times (above 1: the fused form is slower), the largest difference of an output
relative to its largest value, and what was found. `--models` takes further ONNX files.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import transformers
from onnxruntime import InferenceSession, SessionOptions
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, shape_of
from gimlet.dialects.onnx.exporter import export_module, function_inputs, read_opsets
from gimlet.dialects.onnx.types import dtype_of
from gimlet.passes.entry import entry_function
from gimlet.passes.upgrade_opset import UpgradeOpsetPass
from gimlet.runtime.errors import GimletError

OPSET = 24
FUSED = ("Attention", "Gelu", "LayerNormalization", "RMSNormalization", "RotaryEmbedding", "Swish")
FUSIONS = ("infer-shapes", "fuse-normalization", "fuse-activations", "fuse-rotary", "fuse-attention", "dce")
SIZE = 64
"""Of every dynamic dimension but the first, which is 1."""


def models() -> dict[str, Any]:
    """Sources by name: files of packages, callables of examples/, and random small models of transformers."""
    spec = find_spec("rapidocr_onnxruntime")
    folder = Path(spec.origin).parent / "models" if spec is not None and spec.origin is not None else None
    found: dict[str, Any] = {"minilm": "examples.minilm:encoder", "smollm2": "examples.smollm2:prefill"}
    if folder is not None:
        found |= {
            "detection": folder / "ch_PP-OCRv4_det_infer.onnx",
            "recognition": folder / "ch_PP-OCRv4_rec_infer.onnx",
        }
    vit = transformers.ViTConfig(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768)
    bert = transformers.BertConfig(hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024)
    for config, example in ((vit, torch.zeros(1, 3, 224, 224)), (bert, torch.ones(1, SIZE, dtype=torch.int64))):
        config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
        module = transformers.AutoModel.from_config(config).eval()
        found[f"{config.model_type} (eager)"] = (_First(module), (example,))
    return found


class _First(torch.nn.Module):
    """The first output of a model of transformers."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)[0]


def imported(source: Any) -> tuple[ModuleOp, GimletContext]:
    """The normalised module."""
    ctx = GimletContext()
    module = load(source[0], args=source[1], ctx=ctx) if isinstance(source, tuple) else load(source, ctx=ctx)
    run_passes(module, ctx, NORMALIZE)
    return module, ctx


def session(module: ModuleOp, ctx: GimletContext) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(export_module(module, ctx), path, external_data="model.data")
        return InferenceSession(path, options)


def random_inputs(module: ModuleOp) -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in function_inputs(entry_function(module)):
        dims = shape_of(value) or ()
        shape = [
            dim.as_int() if dim is not None and dim.is_constant else SIZE if index else 1
            for index, dim in enumerate(dims)
        ]
        dtype = dtype_of(value.type)
        whole = dtype.kind in "iub"
        found[name] = (np.ones(shape) if whole else generator.standard_normal(shape)).astype(dtype)
    return found


def operators(module: ModuleOp) -> Counter[str]:
    return Counter(op.op_type for op in module.walk() if isinstance(op, OnnxOp) and not isinstance(op, InitializerOp))


def compare(
    before: InferenceSession, after: InferenceSession, inputs: Mapping[str, Any], pairs: int
) -> tuple[float, float]:
    """The median ratio of the times of the second to the first, and the largest relative difference."""
    outputs = [each.run(None, inputs) for each in (before, after)]
    difference = max(
        float(np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(a), initial=0), 1e-9))
        for a, b in zip(*outputs, strict=True)
    )
    ratios: list[float] = []
    for _ in range(pairs):
        taken: list[float] = []
        for each in (before, after):
            start = time.thread_time()
            each.run(None, inputs)
            taken.append(time.thread_time() - start)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios), difference


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--models", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    sources = models() | {path.stem: path for path in arguments.models}
    print(f"{'model':<16}{'opset':>6}{'ops':>6}{'fused':>7}{'ratio':>7}{'difference':>12}  found")
    for name, source in sources.items():
        module, ctx = imported(source)
        before, first = operators(module), session(module, ctx)
        inputs = random_inputs(module)
        for passes in (FUSIONS, (UpgradeOpsetPass(to=OPSET), *FUSIONS)):
            try:
                run_passes(module, ctx, passes)
            except GimletError as error:
                print(f"{name:<16}  not written for opset {OPSET}: {error.message}", flush=True)
                break
            after, opset = operators(module), read_opsets(module)[""]
            ratio, difference = compare(first, session(module, ctx), inputs, arguments.pairs)
            found = ", ".join(f"{after[kind] - before[kind]} {kind}" for kind in FUSED if after[kind] > before[kind])
            row = f"{name:<16}{opset:>6}{before.total():>6}{after.total():>7}{ratio:>7.2f}{difference:>12.1e}"
            print(f"{row}  {found or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
