"""A cache of a fixed size as a state on ONNX Runtime, in place and turned around: python benchmarks/host_cache.py

Twelve layers of SmolLM2-135M's sizes (random weights, a vocabulary of 4,096) with `with_fixed_cache` are compiled for
the host twice, with the pass `scatter-states` and without it. Both bundles run in one process on two threads, in
alternating pairs: a step of one token, and a prefill of 128, each from a state that a prefill has left. Printed are the
medians of each, and the median ratio of the pairs (above 1: the pass is quicker). The tokens of both must be equal.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import gimlet
from gimlet.compiler.frontends.cache import with_fixed_cache
from gimlet.passes.scatter_states import ScatterStatesPass
from gimlet.runtime.program import Program

CAPACITIES = (256, 1024, 4096)
_PROMPT = 128


def compiled(model: LlamaForCausalLM, capacity: int, folder: Path, as_it_is: bool) -> Program:
    """The program, without the pass if the graph is to stay `as_it_is`."""
    module, args, _, shapes = with_fixed_cache(model, capacity)
    leave = mock.patch.object(ScatterStatesPass, "apply")
    bind = {"batch": "1:1:1", "length": f"1:1:{_PROMPT}"}
    path = folder / f"{capacity}-{as_it_is}.gimlet"
    with leave if as_it_is else mock.MagicMock():
        gimlet.compile(module, args, dynamic_shapes=shapes, states=module.states, bind=bind, output=path)
    return gimlet.load(path)


def taken(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def compared(programs: tuple[Program, Program], tokens: np.ndarray, position: int, pairs: int) -> str:
    """Milliseconds of both programs on tokens at a position, and the ratio of the second to the first."""
    found = [[taken(lambda each=each: each(tokens, np.array(position))) for each in programs] for _ in range(pairs)]
    mine, other = (median(times) * 1e3 for times in zip(*found[2:], strict=True))
    ratio = median(second / first for first, second in found[2:])
    return f"{mine:10.2f}{other:10.2f}{ratio:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, action="append", help="other capacities than 256, 1,024 and 4,096")
    parser.add_argument("--pairs", type=int, default=22)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=4096,
        max_position_embeddings=8192,
    )
    model = LlamaForCausalLM(config).eval()
    prompt = np.random.default_rng(0).integers(0, 4096, (1, _PROMPT))
    print(f"{'':>18}{'in place':>10}{'turned':>10}{'ratio':>8}")
    for capacity in given.capacity or CAPACITIES:
        with tempfile.TemporaryDirectory() as folder:
            programs = (
                compiled(model, capacity, Path(folder), False),
                compiled(model, capacity, Path(folder), True),
            )
            logits = [each(prompt, np.array(0))[0] for each in programs]
            if not np.array_equal(*(each.argmax(-1) for each in logits)):
                raise SystemExit("the two programs find other tokens")
            steps = compared(programs, prompt[:, :1], _PROMPT, given.pairs)
            print(f"{capacity:>9} {'step':>8}{steps}", flush=True)
            print(f"{capacity:>9} {'prefill':>8}{compared(programs, prompt, 0, given.pairs)}", flush=True)


if __name__ == "__main__":
    main()
