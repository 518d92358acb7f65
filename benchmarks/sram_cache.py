"""What a cache of keys and values costs a decode step on the accelerator: python benchmarks/sram_cache.py

Two layers of Llama-3-8B's sizes (bfloat16 on the meta device, one token of one sequence or a batch) with a cache of a
fixed size, as `with_fixed_cache` exports it, or one that grows (`--growing`), as `with_cache` does and transformers'
DynamicCache is, are compiled for one card in MXINT8. Each row is a capacity and a place: `in place` is the program of a
state that is changed where it lies, `copied` that of the same graph where the new cache is another tensor, as it is
without a state. The step of one that grows is the last, which fills it. Printed are cycles, the bytes that all kernels
move in SRAM and LPDDR, and what tensors other than weights take.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.frontends.cache import with_cache, with_fixed_cache
from gimlet.compiler.frontends.pytorch import export_program, import_program
from gimlet.compiler.hardware import load_kind
from gimlet.compiler.pipeline import FUSE, NORMALIZE, run_passes
from gimlet.compiler.states import add_states
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, value_name
from gimlet.passes.entry import entry_function
from gimlet.passes.state_pairs import IN_PLACE, state_pairs
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.api import DimBound
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.codegen import Generated, Work, generate
from gimlet.targets.sram.target import machine_of

CAPACITIES = (256, 1024, 4096, 16384)


def llama(layers: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    )


def traced(config: LlamaConfig, capacity: int, growing: bool = False) -> ModuleOp:
    """A step with states, up to the marks of what is changed in place."""
    config.max_position_embeddings = capacity
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval().to(torch.bfloat16)
        module, args, _, shapes = with_cache(model) if growing else with_fixed_cache(model, capacity)
    ctx = GimletContext()
    imported = import_program(export_program(module, args, {}, shapes), ctx, source=module, dynamic_shapes=shapes)
    add_states(imported, list(module.states.items()))
    run_passes(imported, ctx, [*NORMALIZE, *FUSE, "scatter-states", "mark-in-place"])
    return imported


def work_of(module: ModuleOp, batch: int, in_place: bool, in_lpddr: bool, capacity: int = 1) -> Work:
    """The whole step as one segment, its caches in LPDDR or where there is room; one that grows has its last place."""
    function = entry_function(module)
    ops = [op for op in function.body.block.ops if isinstance(op, OnnxOp) and not is_constant(op)]
    for op in ops:
        if not in_place:
            op.attributes.pop(IN_PLACE, None)
    last = function.body.block.last_op
    if last is None:
        raise TypeError("a step has results")
    pairs = state_pairs(function)
    caches = {value_name(pair.argument) for pair in pairs} | {f"y{pair.result_index}" for pair in pairs}
    return Work(
        name="step",
        inputs=[(value_name(value), value) for value in function.args],
        outputs=[(f"y{index}", value) for index, value in enumerate(last.operands)],
        ctx=None,
        bounds={
            "batch": DimBound(batch, batch, batch),
            "length": DimBound(1, 1, 1),
            "past": DimBound(0, capacity - 1, capacity),
        },
        mx_budget=1.0,
        in_lpddr=frozenset(caches if in_lpddr else ()),
    )


def line(label: str, found: Generated) -> str:
    traffic = found.timing.traffic
    held = sum(each.capacity_bytes for each in found.program.tensors if each.role != "weight")
    moved = f"{traffic.sram / 1e6:10.2f}{traffic.lpddr / 1e6:10.2f}"
    return f"{label:>10}{found.timing.cycles:10,}{moved}{held / 1e6:10.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, action="append", help="other capacities than 256 to 16,384 positions")
    parser.add_argument("--batch", type=int, default=1, help="so many sequences")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--growing", action="store_true", help="a cache that grows instead of one of a fixed size")
    given = parser.parse_args(arguments)
    # Or the keys and values are repeated for each head that shares them.
    os.environ["TRANSFORMERS_SDPA_FORCE_GQA"] = "1"
    machine: Machine = machine_of(load_kind("d-matrix/corsair"))
    print(f"{'':>16}{'':>10}{'cycles':>10}{'SRAM MB':>10}{'LPDDR MB':>10}{'held MB':>10}")
    for capacity in given.capacity or CAPACITIES:
        for in_lpddr in (False, True):
            module = traced(llama(given.layers), capacity, given.growing)
            for in_place in (True, False):
                found = generate(work_of(module, given.batch, in_place, in_lpddr, capacity), machine, "mxint8")
                place = "LPDDR" if in_lpddr else "SRAM"
                print(f"{capacity:>9} {place:>6}", line("in place" if in_place else "copied", found), flush=True)


if __name__ == "__main__":
    main()
