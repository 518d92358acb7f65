"""Which large operators are found in small models of transformers' families: `python benchmarks/large_operators.py`.

What is expected is counted where PyTorch runs the model: calls of its own attention, normalisations and activations,
softmaxes over scores, modules that are root-mean-square norms, and rotations of queries and keys. What is found are
the operators of the normalised module, as `gimlet-compile` has them; those that the exporter writes itself count too.
With `--run` the bundle for the host is compared with PyTorch: the largest difference of an output, relative to its
largest value, and the same of the bundle with `--no-fuse`. `--formats` takes fp32, bf16 and fp16, `--opset` what the
exporter is to write.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from families import FAMILIES, Family
from more_families import MORE_FAMILIES
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

import gimlet
from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import GimletError

KINDS = ("Attention", "LayerNormalization", "RMSNormalization", "RotaryEmbedding", "Gelu", "Swish", "MoE")
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CALLS = {"layer_norm": "LayerNormalization", "rms_norm": "RMSNormalization", "gelu": "Gelu", "silu": "Swish"}
_ROTATIONS = ("rotate_half", "rotate_every_two", "_apply_rotary_emb")
_MODULES = {
    "CohereLayerNorm": "LayerNormalization",
    "NewGELUActivation": "Gelu",
    "FastGELUActivation": "Gelu",
    "QuickGELUActivation": "Swish",
}
_SCORES = 3


class _Calls(TorchFunctionMode):
    """Counts the functions of PyTorch that a large operator stands for."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found
        self.paused = False

    def pause(self, *_: Any) -> None:
        """What experts compute between their products belongs to them."""
        self.paused = True

    def resume(self, *_: Any) -> None:
        self.paused = False
        self.found["MoE"] += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if self.paused:
            return func(*args, **(kwargs or {}))
        if name in _CALLS:
            self.found[_CALLS[name]] += 1
        if name == "scaled_dot_product_attention" or (name == "softmax" and args[0].ndim > _SCORES):
            self.found["Attention"] += 1
        return func(*args, **(kwargs or {}))


def expected_of(module: torch.nn.Module, inputs: Mapping[str, Any]) -> Counter[str]:
    """The large operators that the model is made of, counted where PyTorch runs it."""
    found: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found["RotaryEmbedding"] += 1
            return function(*args, **kwargs)

        return call

    with ExitStack() as stack, torch.no_grad():
        for file in {sys.modules[type(part).__module__] for part in module.modules()}:
            name = next((name for name in _ROTATIONS if hasattr(file, name)), None)
            if name is not None and file.__name__.startswith("transformers"):
                stack.enter_context(mock.patch.object(file, name, counted(getattr(file, name))))
        for part in module.modules():
            kind = type(part).__name__
            large = _MODULES.get(kind, "RMSNormalization" if _is_rms(part) else None)
            if large is not None:
                handle = part.register_forward_hook(lambda *_, large=large: found.update([large]))
                stack.callback(handle.remove)
        calls = _Calls(found)
        for part in module.modules():
            if type(part).__name__.endswith("Experts"):
                stack.callback(part.register_forward_pre_hook(calls.pause).remove)
                stack.callback(part.register_forward_hook(calls.resume).remove)
        stack.enter_context(calls)
        module(**inputs)
    return found


def _is_rms(part: torch.nn.Module) -> bool:
    kind = type(part).__name__
    return "RMSNorm" in kind or kind == "T5LayerNorm"


def found_in(family: Family, dtype: torch.dtype) -> Counter[str]:
    """The large operators of the normalised module."""
    module, inputs = _of_type(family, dtype, 1)
    ctx = GimletContext()
    loaded = load(module, kwargs=inputs, dynamic_shapes=family.dynamic_shapes(inputs), ctx=ctx)
    run_passes(loaded, ctx, [*NORMALIZE, *FUSE])
    return Counter(op.op_type for op in entry_function(loaded).walk() if isinstance(op, OnnxOp))


def _of_type(family: Family, dtype: torch.dtype, which: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    inputs = family.inputs(family.sizes(which))
    cast: dict[str, Any] = _pytree.tree_map(
        lambda leaf: leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf, inputs
    )
    return family.module().to(dtype), cast


def difference(family: Family, dtype: torch.dtype, *, fuse: bool) -> float:
    """The largest difference of the host's bundle from PyTorch, at the traced and other sizes."""
    module, traced = _of_type(family, dtype, 1)
    with tempfile.TemporaryDirectory() as folder:
        bundle = gimlet.compile(
            module,
            kwargs=traced,
            dynamic_shapes=family.dynamic_shapes(traced),
            fuse=fuse,
            output=Path(folder) / "m.gimlet",
        )
        with gimlet.load(bundle.path) as program:
            return max(_off(module, program, _of_type(family, dtype, which)[1]) for which in (1, 2))


def _off(module: torch.nn.Module, program: gimlet.Program, inputs: dict[str, Any]) -> float:
    with torch.no_grad():
        expected = [leaf for leaf in _pytree.tree_leaves(module(**inputs)) if isinstance(leaf, torch.Tensor)]
    found = [leaf for leaf in _pytree.tree_leaves(program(**inputs)) if isinstance(leaf, np.ndarray)]
    return max(
        float(
            np.abs(a.astype(np.float64) - b.double().numpy()).max(initial=0) / max(float(b.double().abs().max()), 1e-6)
        )
        for a, b in zip(found, expected, strict=True)
        if a.size
    )


def _line(family: Family, dtype: torch.dtype, total: list[int], *, run: bool) -> str:
    try:
        expected, found = expected_of(*_of_type(family, dtype, 1)), found_in(family, dtype)
    except (GimletError, RuntimeError) as error:
        return f"not imported: {str(error).splitlines()[0][:150]} | | |"
    missing = [f"{expected[kind] - found[kind]} {kind}" for kind in KINDS if expected[kind] > found[kind]]
    met, wanted = sum(min(expected[kind], found[kind]) for kind in KINDS), sum(expected[kind] for kind in KINDS)
    total[0] += met
    total[1] += wanted
    errors = [f"{difference(family, dtype, fuse=fuse):.1e}" for fuse in (True, False)] if run else ["", ""]
    return f"{met} / {wanted} | {', '.join(missing)} | {' | '.join(errors)}"


def main() -> None:
    """Prints a line for each family and format."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the families; all by default")
    parser.add_argument("--formats", nargs="+", choices=list(FORMATS), default=["fp32", "bf16"])
    parser.add_argument("--run", action="store_true")
    arguments = parser.parse_args()
    families = {**FAMILIES, **MORE_FAMILIES}
    totals: dict[str, list[int]] = {fmt: [0, 0] for fmt in arguments.formats}
    print("| family | format | found / expected | missing | error | without |\n|---|---|---|---|---|---|")
    for name in arguments.names or families:
        family = families[name]()
        for fmt in arguments.formats:
            line = _line(family, FORMATS[fmt], totals[fmt], run=arguments.run)
            print(f"| {name} | {fmt} | {line} |", flush=True)
    for fmt, (met, wanted) in totals.items():
        print(f"| all | {fmt} | {met} / {wanted} ({met / max(wanted, 1):.0%}) | | | |")


if __name__ == "__main__":
    main()
