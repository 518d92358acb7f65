"""How near the sum of ops' costs, which placement adds up, comes to the program of a whole segment.

    python benchmarks/sram_costs.py [NAME…] [--kind d-matrix/corsair] [--formats fp32,bf16,mxint8] [--cuts 8]

The models are those of sram_models.py, and some whose weights are more than one chiplet's memory. Of each, all that
the accelerator takes is one segment, and `--cuts` runs of ops of each length (8, 16, 32, 64 and 128) that begin
anywhere are others. Printed: cycles of the whole, and the program's time over the sum of its ops' for the whole and for
the others together (least, median, most), launches not included.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import transformers as tf
from sram_models import MODELS, TOPOLOGY, bert, step

from gimlet.compiler.api import start
from gimlet.compiler.hardware import load_kind, load_topology
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import open_source
from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.entry import entry_function
from gimlet.targets.api import Device
from gimlet.targets.one_op import is_constant
from gimlet.targets.sram.target import SramTarget

LENGTHS = (8, 16, 32, 64, 128)
_QWEN3 = {
    "vocab_size": 32768,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
_BERT = {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE = {
    "Qwen3 step, 8 layers of 0.6B": step(tf.Qwen3ForCausalLM, tf.Qwen3Config, **_QWEN3),
    "BERT-base": lambda: bert(**_BERT),
}


ALL = {**MODELS, **LARGE}


def segments(ops: Sequence[OnnxOp], cuts: int) -> Iterator[Sequence[OnnxOp]]:
    """All ops, then runs of them that begin anywhere, the same ones in every run of this program."""
    yield ops
    places = random.Random(0)
    for length in LENGTHS:
        for _ in range(cuts if length < len(ops) else 0):
            first = places.randrange(len(ops) - length)
            yield ops[first : first + length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(ALL)}")
    parser.add_argument("--kind", default="d-matrix/corsair", help="the hardware file of the card")
    parser.add_argument("--formats", default="", help="by default all that the card has")
    parser.add_argument("--cuts", type=int, default=8, help="segments of each length")
    given = parser.parse_args()
    target, device = SramTarget(), Device("sram0", load_kind(given.kind))
    formats = given.formats.split(",") if given.formats else target.formats(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.toml"
        path.write_text(TOPOLOGY.format(kind=given.kind), encoding="utf-8")
        topology = load_topology(path)
    print("| model | format | cycles | whole | least | median | most | segments |\n|---|---|---|---|---|---|---|---|")
    every: list[float] = []
    for name in given.names or ALL:
        model = ALL[name]()
        options = CompileOptions(topology=topology, bindings=model.bindings)
        annotated = start(open_source(*model.source), options, Progress(quiet=True))
        annotated.run_to("annotate")
        sizes = {dim: bound.optimum for dim, bound in annotated.bounds.items()}
        ops = [op for op in entry_function(annotated.module).body.block.ops if isinstance(op, OnnxOp)]
        for fmt in formats:
            taken = [op for op in ops if not is_constant(op) and target.refuses(op, device, fmt) is None]
            costs = dict(zip(taken, target.op_costs(taken, device, fmt, sizes), strict=True))
            ratios: list[float] = []
            for segment in segments(taken, given.cuts):
                together = target.estimate(segment, device, fmt, sizes).seconds - device.kind.segment_overhead_s
                apart = sum(costs[op].seconds for op in segment)
                if not ratios:
                    cycles = together * target.machine(device).clock_hz
                if apart:
                    ratios.append(together / apart)
            every += ratios
            rest = ratios[1:] or ratios
            figures = " | ".join(f"{each:.2f}" for each in (ratios[0], min(rest), median(rest), max(rest)))
            print(f"| {name} | {fmt} | {cycles:.0f} | {figures} | {len(rest)} |", flush=True)
    off = sorted(abs(each - 1) for each in every)
    print(f"\n{len(off)} segments: off by {median(off):.1%} (median), {off[int(0.95 * len(off))]:.1%} (95 of 100)")


if __name__ == "__main__":
    main()
