"""What large operators are found in real models, and what they do to their speed: `python benchmarks/fusions.py`.

Every model is normalised and matched into large operators as `gimlet-compile` does, and runs in ONNX Runtime on random
inputs and one thread: as it is written (twice, which shows how far equal graphs differ), with the parts of its large
operators, and with those whole that ONNX Runtime takes so. The forms run in turns, in a random order each round.
Prints the ops before and after, the median ratio of each form's CPU time to the first's (above 1: slower), the largest
difference of an output relative to its largest value, and what was found. `--models` takes further ONNX files.
"""

from __future__ import annotations

import argparse
import random
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

from gimlet.compiler.costs.detach import detach
from gimlet.compiler.frontends import load
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.hardware.host import HOST
from gimlet.compiler.options import default_cache
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp, shape_of
from gimlet.dialects.onnx.exporter import export_module, function_inputs, read_opsets
from gimlet.dialects.onnx.types import dtype_of
from gimlet.passes.entry import entry_function, is_constant, return_of
from gimlet.runtime.errors import InputError
from gimlet.targets.api import Device, Reason, SegmentContext
from gimlet.targets.forms import portable_form, target_form
from gimlet.targets.onnxruntime.target import OnnxRuntimeTarget
from gimlet.targets.portable import FolderWeights, segment_model, write_model

FUSED = ("Attention", "Gelu", "LayerNormalization", "RMSNormalization", "RotaryEmbedding", "Swish")
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
    llama = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=512,
    )
    llama._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    module = _First(transformers.AutoModelForCausalLM.from_config(llama).eval())
    for tokens in (1, SIZE):
        found[f"llama, {tokens} tokens"] = (module, (torch.ones(1, tokens, dtype=torch.int64),))
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


def quiet() -> SessionOptions:
    """One thread."""
    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return options


def session(module: ModuleOp, ctx: GimletContext) -> InferenceSession:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(export_module(module, ctx), path, external_data="model.data")
        return InferenceSession(path, quiet())


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


def forms_of(module: ModuleOp, ctx: GimletContext) -> dict[str, InferenceSession]:
    """Sessions of the module as one segment of the host: with the parts of its large operators, and as it is run."""
    run_passes(module, ctx, FUSE)
    block = entry_function(module).body.block
    last = return_of(block)
    ops = [op for op in block.ops if op is not last and not is_constant(op)]
    found = detach(ops, HOST, "fp32", list(dict.fromkeys(last.operands)))
    segment = SegmentContext(found.op, ctx, read_opsets(module), {}, default_cache())
    target = OnnxRuntimeTarget()
    device = Device(HOST, load_kind(HOST))
    forms = {"parts": portable_form(segment), "whole": target_form(segment, target, device).context}
    return {name: session_of(form) for name, form in forms.items()}


def session_of(segment: SegmentContext) -> InferenceSession:
    found = segment_model(segment)
    if isinstance(found, Reason):
        raise InputError(str(found))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_model(found, FolderWeights(Path(folder)), path)
        return InferenceSession(path, quiet())


def compare(
    sessions: Mapping[str, InferenceSession], inputs: Mapping[str, Any], rounds: int
) -> dict[str, tuple[float, float]]:
    """Of each session the median ratio of its time to the first's, and the largest relative difference from it."""
    first = next(iter(sessions))
    outputs = {name: each.run(None, inputs) for name, each in sessions.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds):
        order = list(sessions)
        random.Random(number).shuffle(order)
        for name in order:
            start = time.thread_time()
            sessions[name].run(None, inputs)
            taken[name].append(time.thread_time() - start)
    return {
        name: (
            statistics.median(mine / base for mine, base in zip(taken[name], taken[first], strict=True)),
            max(
                float(np.max(np.abs(a - b), initial=0) / max(np.max(np.abs(a), initial=0), 1e-9))
                for a, b in zip(outputs[first], outputs[name], strict=True)
            ),
        )
        for name in sessions
    }


def main() -> None:
    """Prints a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the models that are built in; all by default")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--models", type=Path, nargs="+", default=[])
    arguments = parser.parse_args()
    sources = {name: source for name, source in models().items() if not arguments.names or name in arguments.names}
    sources |= {path.stem: path for path in arguments.models}
    print(f"{'model':<18}{'ops':>6}{'fused':>7}{'again':>7}{'parts':>7}{'whole':>7}{'difference':>12}  found")
    for name, source in sources.items():
        module, ctx = imported(source)
        before = operators(module)
        inputs = random_inputs(module)
        sessions = {"first": session(module, ctx), "again": session(module, ctx)}
        sessions |= forms_of(module, ctx)
        after = Counter(op.op_type for op in entry_function(module).walk() if isinstance(op, OnnxOp))
        found = compare(sessions, inputs, arguments.rounds)
        kinds = ", ".join(f"{after[kind] - before[kind]} {kind}" for kind in FUSED if after[kind] > before[kind])
        ratios = "".join(f"{found[form][0]:>7.2f}" for form in ("again", "parts", "whole"))
        fused = after.total() - after["initializer"]
        print(
            f"{name:<18}{before.total():>6}{fused:>7}{ratios}{found['whole'][1]:>12.1e}  {kinds or 'nothing'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
