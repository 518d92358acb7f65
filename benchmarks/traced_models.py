"""Decode steps of language models as placement problems, from their real graphs: traced on the meta device.

The configuration is that of transformers, so no weights are read. Each sequence has a cache, which is an input and an
output of the step, as it is when a model is compiled. Accelerators compute in bf16, which the models are published in.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM

from gimlet.compiler.api import start
from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.frontends.cache import with_cache
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.reading.build import build_problem, sites_of
from gimlet.compiler.placement.reading.graph import read_graph
from gimlet.compiler.placement.service import PlacementService
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.targets.api import Topology

FORMAT = "bf16"


def smollm2() -> Any:
    """SmolLM2-135M, by the config.json of HuggingFaceTB/SmolLM2-135M."""
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True))


def gpt_oss() -> Any:
    """gpt-oss-120b, which is the default of transformers."""
    config = GptOssConfig()
    config._attn_implementation = "eager"
    return GptOssForCausalLM(config)


def traced_decode(make: Any, topology: Topology, past: int) -> Problem:
    """One token of one sequence with `past` tokens in its cache."""
    with torch.device("meta"):
        model = make().to(torch.bfloat16).eval()
    module, args, kwargs, shapes = with_cache(model)
    options = CompileOptions(topology=topology, bindings=parse_bindings([f"batch=1,length=1,past={past}"]))
    compilation = start(open_source(module, args, kwargs, shapes), options, Progress(quiet=True))
    compilation.run_to("annotate")
    service = PlacementService(compilation.ctx, topology)
    graph = read_graph(compilation.module, {name: bound.optimum for name, bound in compilation.bounds.items()})
    formats = {device.name: [FORMAT] for device in topology.devices if FORMAT in device.kind.peak}
    return build_problem(graph, topology, sites_of(topology, service.targets, formats))
