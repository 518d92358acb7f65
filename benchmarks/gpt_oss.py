"""gpt-oss-120b from `nn.Module` on the meta device to annotated IR: `python benchmarks/gpt_oss.py [--layers 36]`.

The configuration is that of transformers, 36 layers and 117 B parameters. The trace has a dynamic batch and length and
a cache of every layer. Prints where the time goes, peak memory, ops, parameters, and what prefill and decode cost: the
IR's cost expressions evaluated, against the same from the configuration by hand.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GptOssConfig, GptOssForCausalLM

from gimlet.compiler.compile import Compilation
from gimlet.compiler.frontends.cache import with_cache
from gimlet.compiler.frontends.pytorch import import_model
from gimlet.compiler.hardware import default_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.sources import open_source
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, OnnxOp
from gimlet.dialects.onnx.work import work_of
from gimlet.passes.entry import entry_function

PREFILL = {"batch": 1, "length": 1024, "past": 0}
DECODE = {"batch": 16, "length": 1, "past": 1024}


def by_hand(config: Any, sizes: Mapping[str, int]) -> dict[str, float]:
    """Operations and bytes of weights read, from the configuration: products of matrices and of attention alone.

    A multiply-add is two operations, and attention is counted without regard to its mask. Of the experts are read as
    many as are touched on average if every token chooses k of them at random.
    """
    tokens, keys = sizes["batch"] * sizes["length"], sizes["length"] + sizes["past"]
    hidden, inner, experts, chosen = (
        config.hidden_size,
        config.intermediate_size,
        config.num_local_experts,
        config.num_experts_per_tok,
    )
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    attention = hidden * (heads + 2 * kv_heads) * size + heads * size * hidden
    expert = hidden * 2 * inner + inner * hidden
    dense = config.num_hidden_layers * (attention + hidden * experts) + hidden * config.vocab_size
    scores = config.num_hidden_layers * 2 * sizes["batch"] * sizes["length"] * keys * heads * size
    touched = experts * (1 - (1 - chosen / experts) ** tokens)
    return {
        "flops": 2 * tokens * (dense + config.num_hidden_layers * chosen * expert) + 2 * scores,
        "weights_read": dense + config.num_hidden_layers * touched * expert,
    }


def peak_bytes() -> int:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _summary(clock: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    ours = sum(seconds[name] for name in ("import", "normalize", "quantize", "annotate"))
    steps = {name: round(value, 1) for name, value in seconds.items()}
    return {f"{clock}_s": {**steps, "ours": round(ours, 1), "all": round(sum(seconds.values()), 1)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=GptOssConfig().num_hidden_layers)
    layers = parser.parse_args().layers
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Any:
        start, used = time.perf_counter(), time.process_time()
        yield
        wall[name] = wall.get(name, 0.0) + time.perf_counter() - start
        cpu[name] = cpu.get(name, 0.0) + time.process_time() - used

    imported_bytes = peak_bytes()
    config = GptOssConfig(num_hidden_layers=layers)
    config._attn_implementation = "eager"
    with timed("model on the meta device"), torch.device("meta"):
        model = GptOssForCausalLM(config).to(torch.bfloat16).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with timed("torch: cache and wrapper"):
        module, args, kwargs, shapes = with_cache(model)
    ctx = GimletContext()
    trace, conversion = torch.export.export, torch.onnx.export

    def traced(*given: Any, **options: Any) -> Any:
        with timed("torch: export"):
            return trace(*given, **options)

    def converted(*given: Any, **options: Any) -> Any:
        with timed("torch: conversion to ONNX"):
            return conversion(*given, **options)

    torch.export.export, torch.onnx.export = traced, converted
    said: list[str] = []
    with timed("import"):
        imported = import_model(module, ctx, args, kwargs, shapes, say=said.append)
    for seconds in (wall, cpu):
        seconds["import"] -= seconds["torch: export"] + seconds["torch: conversion to ONNX"]
    source = open_source(module, args, kwargs, shapes)
    compilation = Compilation(imported, ctx, CompileOptions(default_topology()), source.info(imported))
    for phase in ("normalize", "quantize", "annotate"):
        with timed(phase):
            compilation.run_to(phase)

    # What large operators stand for is in functions beside @main.
    main = entry_function(compilation.module)
    ops = [op for op in main.walk() if isinstance(op, OnnxOp) and not isinstance(op, InitializerOp)]
    works = [work_of(op) for op in ops]
    report: dict[str, Any] = {
        "layers": layers,
        "said": said,
        "parameters": parameters,
        **_summary("wall", wall),
        **_summary("cpu", cpu),
        "peak_bytes": peak_bytes(),
        "of_that_importing_packages": imported_bytes,
        "ops": len(ops),
        "kinds": dict(Counter(op.op_type for op in ops).most_common()),
        "works_without_a_known_shape": sum(not work.known for work in works),
    }
    for name, sizes in (("prefill", PREFILL), ("decode", DECODE)):
        amounts = [work.at(sizes) for work in works]
        products = [amount.flops for work, amount in zip(works, amounts, strict=True) if work.op_class == "matrix"]
        hand = by_hand(config, sizes)
        report[name] = {
            **sizes,
            "flops": sum(amount.flops for amount in amounts),
            "flops_of_products": sum(products),
            "by_hand": hand["flops"],
            "ratio": sum(products) / hand["flops"],
            "weight_bytes_read": sum(amount.weight_read for amount in amounts),
            "weight_bytes_read_by_hand": 2 * hand["weights_read"],
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
