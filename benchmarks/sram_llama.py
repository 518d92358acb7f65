"""Llama 3 on 8 and 64 cards, compiled, beside the vendor's projections: python benchmarks/sram_llama.py [--model 8B]

d-Matrix projects Llama-3-8B at about 1 ms a token and 60,000 tokens/s on 8 cards, and Llama-3-70B at 2 ms a token and
30,000 tokens/s on 64. A decode step of transformers' model (bfloat16 on the meta device, all layers, with a cache of
`PAST` positions a sequence) is exported once, with its batch left open, and compiled for machines of eight cards each
(`d-matrix/corsair-x8`: one program, its products, sums and caches dealt over all of them). 64 cards are eight such
machines, each with an eighth of the layers; what crosses between them goes over one card's link. No figure is tuned.

`token` is the time of a step through all machines, `tokens/s` the batch over the slowest machine's time: as many
batches are under way as there are machines. `copies` is the share of kernels that put a token's keys and values
behind those of the past, which are inputs: the graph returns them as new tensors. `products` is the share of all
products, attention's too. The last lines take one assumption away at a time. With `--states` caches are states of a
fixed size, which are changed where they lie (sram_cache.py), and nothing is copied.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import sram_cache
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicCache
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from gimlet.compiler.frontends.pytorch import export_program, import_program
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.dialects.onnx.types import element_of
from gimlet.passes.entry import entry_function
from gimlet.runtime.sram.cycles import Timing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.codegen import Generated, Work, generate_on
from gimlet.targets.sram.target import machine_of, work_of_ops

PAST = 1023
BATCHES = (1, 32)
_NEAR = 16


@dataclass(frozen=True)
class Model:
    name: str
    config: LlamaConfig
    machines: int
    projected_s: float
    projected_tokens_per_s: float


def llama(hidden: int, inner: int, layers: int, heads: int) -> LlamaConfig:
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=8192,
    )
    config._attn_implementation = "sdpa"
    return config


MODELS = {
    "8B": Model("Llama-3-8B", llama(4096, 14336, 32, 32), 1, 1e-3, 60e3),
    "70B": Model("Llama-3-70B", llama(8192, 28672, 80, 64), 8, 2e-3, 30e3),
}


class Step(torch.nn.Module):
    """Token ids [batch, 1] and every layer's keys and values, to logits and what is new of those."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, length: torch.Tensor, caches: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        cache = DynamicCache()
        for layer in range(len(caches) // 2):
            cache.update(caches[2 * layer], caches[2 * layer + 1], layer)
        slots = torch.arange(PAST + 1, device=input_ids.device)
        mask = ((slots < length) | (slots == PAST))[None, None, None]
        found = self.model(
            input_ids=input_ids, attention_mask=mask, position_ids=length[None], past_key_values=cache, use_cache=True
        )
        layers = found.past_key_values.layers
        return found.logits, [each for la in layers for each in (la.keys[:, :, -1:], la.values[:, :, -1:])]


def traced(model: Model) -> list[OnnxOp]:
    """The ops of a step, of a batch called `batch`."""
    config = model.config
    size = config.hidden_size // config.num_attention_heads
    with torch.device("meta"):
        step = Step(LlamaForCausalLM(config).eval().to(torch.bfloat16))
        past = torch.zeros(4, config.num_key_value_heads, PAST, size, dtype=torch.bfloat16)
        caches = [past.clone() for _ in range(2 * config.num_hidden_layers)]
        args = (torch.ones(4, 1, dtype=torch.int64), torch.full((1,), 16, dtype=torch.int64), caches)
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"input_ids": {0: batch}, "length": None, "caches": [{0: batch} for _ in caches]}
    ctx = GimletContext()
    module = import_program(export_program(step, args, {}, shapes), ctx, source=step, dynamic_shapes=shapes)
    run_passes(module, ctx, NORMALIZE)
    main = next(op for op in module.body.block.ops if isinstance(op, FuncOp))
    return [op for op in main.body.block.ops if isinstance(op, OnnxOp) and not is_constant(op)]


def traced_on_states(model: Model) -> list[OnnxOp]:
    """The ops of a step whose caches are states of as many positions."""
    main = entry_function(sram_cache.traced(model.config, PAST + 1))
    return [op for op in main.body.block.ops if isinstance(op, OnnxOp) and not is_constant(op)]


def stages(ops: Sequence[OnnxOp], count: int) -> list[list[OnnxOp]]:
    """The ops in order, cut into parts of as many layers each, where least is under way."""
    ops = _behind_makers(ops)
    last = {value: index for index, op in enumerate(ops) for value in op.operands}
    made = {value: index for index, op in enumerate(ops) for value in op.results}
    products = [index for index, op in enumerate(ops) if op.op_type == "MatMul"]
    cuts = [0]
    for part in range(1, count):
        middle = products[(len(products) - 1) * part // count]
        near = range(middle - _NEAR, middle)
        crossing = {at: sum(made[value] < at <= last.get(value, 0) for value in made) for at in near}
        cuts.append(min(near, key=lambda at: (crossing[at], middle - at)))
    return [list(ops[begin:end]) for begin, end in zip(cuts, [*cuts[1:], len(ops)], strict=True)]


def _behind_makers(ops: Sequence[OnnxOp]) -> list[OnnxOp]:
    """The ops in an order in which those that no other reads come right behind the last one that they read.

    What is new of a cache is cut off it behind all layers: in the order of the graph the last machine would have the
    caches of all of them.
    """
    read = {value for op in ops for value in op.operands}
    position = {value: index for index, op in enumerate(ops) for value in op.results}

    def place(index: int) -> tuple[int, int]:
        if any(value in read for value in ops[index].results):
            return index, 0
        return max((position[value] for value in ops[index].operands if value in position), default=index), 1

    return [ops[index] for index in sorted(range(len(ops)), key=place)]


def handed_bytes(parts: Sequence[Sequence[OnnxOp]], batch: int) -> list[int]:
    """The bytes that each part but the last hands on: what was made in it or before and is read behind it."""
    made = {value: number for number, ops in enumerate(parts) for op in ops for value in op.results}
    last = {value: number for number, ops in enumerate(parts) for op in ops for value in op.operands}
    found = [0] * (len(parts) - 1)
    for value, number in made.items():
        dims, element = dims_of(value), element_of(value.type)
        if dims is None or element is None:
            continue
        size = prod(dim.evaluate({"batch": batch, "length": 1}) for dim in dims) * element.bits // 8
        for cut in range(number, last.get(value, number)):
            found[cut] += size
    return found


def work_for(ops: Sequence[OnnxOp], batch: int, in_lpddr: bool) -> Work:
    """The work of some of a step's ops. Caches are the inputs of four dimensions and `PAST` positions, or states."""
    work = replace(work_of_ops(ops, {"batch": batch, "length": 1}, mx_budget=1.0), keeps_views=False, ctx=None)
    caches = frozenset(name for name, value in (*work.inputs, *work.outputs) if _is_cache(value))
    return replace(work, in_lpddr=caches if in_lpddr else frozenset())


def _is_cache(value: SSAValue) -> bool:
    dims = dims_of(value) or ()
    return len(dims) == 4 and dims[2].is_constant and dims[2].as_int() in (PAST, PAST + 1)


@dataclass(frozen=True)
class Result:
    """A step on all machines: the time of each, what is moved from one to the next, and whether caches fit SRAM."""

    timings: tuple[Timing, ...]
    handed_s: float
    spills: bool

    @property
    def token_s(self) -> float:
        return sum(timing.seconds for timing in self.timings) + self.handed_s

    @property
    def slowest_s(self) -> float:
        return max(timing.seconds for timing in self.timings)

    def share(self, *kinds: str) -> float:
        """The part of all cycles in kernels of a kind."""
        kernels = [kernel for timing in self.timings for kernel in timing.kernels]
        return sum(k.cycles for k in kernels if k.name.rpartition("_")[0] in kinds) / sum(k.cycles for k in kernels)


def compiled(parts: Sequence[Sequence[OnnxOp]], machine: Machine, batch: int, in_lpddr: bool = False) -> Result:
    """All parts of a step for one machine each."""
    known: dict[tuple[str, ...], Generated] = {}
    found: list[Generated] = []
    for ops in parts:
        # Parts of as many of the same ops in the same order are the same program.
        key = tuple(f"{op.op_type} {[str(value.type) for value in op.operands]}" for op in ops)
        if key not in known:
            known[key] = generate_on(work_for(ops, batch, in_lpddr), machine, "mxint8", machine.cores)
        found.append(known[key])
    handed = sum(size / machine.card_bytes_per_s + machine.card_latency_s for size in handed_bytes(parts, batch))
    spills = any(
        tensor.space == "lpddr" and tensor.name not in _meant(each, in_lpddr)
        for each in found
        for tensor in each.program.tensors
    )
    return Result(tuple(each.timing for each in found), handed, spills)


def _meant(generated: Generated, in_lpddr: bool) -> set[str]:
    shapes: Mapping[str, int] = {each.name: len(each.shape) for each in generated.program.tensors}
    return {each.tensor for each in generated.program.inputs if in_lpddr and shapes[each.tensor] == 4}


def line(label: str, batch: int, result: Result) -> str:
    tokens = batch / result.slowest_s
    shares = f"{result.share('concat', 'copy'):8.0%}{result.share('matmul'):10.0%}"
    note = "  not all fits SRAM" if result.spills else ""
    return f"{batch:6}  {label:28}{result.token_s * 1e3:9.3f}{tokens:11,.0f}{shares}{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append", help="one of them only")
    parser.add_argument("--batch", type=int, action="append", help="other batch sizes than 1 and 32, up to 64")
    parser.add_argument("--states", action="store_true", help="caches are states, changed in place")
    parser.add_argument("--layers", type=int, help="a model of so many layers, to try it")
    given = parser.parse_args()
    os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = "1"
    machine = machine_of(load_kind("d-matrix/corsair-x8"))
    for name in given.model or MODELS:
        model = MODELS[name]
        if given.layers:
            model.config.num_hidden_layers = given.layers
        parts = stages((traced_on_states if given.states else traced)(model), model.machines)
        projected = f"{model.projected_s * 1e3:.0f} ms a token, {model.projected_tokens_per_s:,.0f} tokens/s"
        print(f"{model.name}, {machine.cards * model.machines} cards, {PAST} positions before; the vendor: {projected}")
        print(f"{'batch':>6}  {'':28}{'token ms':>9}{'tokens/s':>11}{'copies':>8}{'products':>10}", flush=True)
        for batch in given.batch or BATCHES:
            print(line("caches in SRAM", batch, compiled(parts, machine, batch)), flush=True)
            print(line("caches in LPDDR", batch, compiled(parts, machine, batch, in_lpddr=True)), flush=True)
        near = replace(machine, die_latency_s=0.0, card_latency_s=0.0, network_latency_cycles=0, semaphore_cycles=0)
        others = {
            "no latency between cores": near,
            "links ten times as fast": replace(machine, die_bytes_per_s=1e13, card_bytes_per_s=5e12),
        }
        for batch in given.batch or BATCHES:
            for label, other in others.items():
                print(line(label, batch, compiled(parts, other, batch)), flush=True)


if __name__ == "__main__":
    main()
