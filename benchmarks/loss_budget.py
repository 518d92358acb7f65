"""What a budget for losses buys, and whether it is kept: PP-OCRv4 and MiniLM on a host and an SRAM accelerator.

    PYTHONPATH=. python benchmarks/loss_budget.py [MODEL …] [--budget X …]

For each budget: the latency that is predicted, the part of the ops in each format, what the ops' losses add up to, what
all of them together were measured to lose on the host, and how far the compiled bundle then is from the model, in the
accelerator's emulator, on random inputs of another seed and on real ones. All is relative L2 of the worst output.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import gimlet
from gimlet.compiler.checking.compare import compare
from gimlet.compiler.checking.reference import reference_of
from gimlet.compiler.checking.verify import verify_bundle
from gimlet.compiler.hardware import load_topology
from gimlet.compiler.sources import open_source
from gimlet.runtime.bundle import open_bundle
from gimlet.runtime.units import seconds_text

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.e2e.models import MODELS

TOPOLOGY = """
schema = 1
device = [{ name = "cpu", kind = "host" }, { name = "sram0", kind = "d-matrix/corsair" }]
link = [{ name = "pcie0", between = ["cpu", "sram0"], kind = "pcie5x16" }]
"""


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["direction", "recognition", "minilm"])
    parser.add_argument("--budget", type=float, nargs="*", default=[0.0, 0.01, 0.02, 0.05, 0.1])
    given = parser.parse_args()
    print("| model | budget | predicted | formats | expected | measured | bundle, random | bundle, real |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        topology = Path(name) / "two.toml"
        topology.write_text(TOPOLOGY)
        for model in given.models:
            for budget in given.budget:
                print(row(model, budget, Path(name) / f"{model}-{budget}.gimlet"), flush=True)


def row(name: str, budget: float, output: Path) -> str:
    """A line of the table: one model under one budget."""
    model = MODELS[name]
    bundle = gimlet.compile(
        model.source,
        output=output,
        topology=load_topology(output.parent / "two.toml"),
        bind=model.bind,
        min_shares={"sram0": 0.9},
        loss_budget=budget,
    )
    placement = bundle.placement
    if placement is None or placement.loss is None:
        raise SystemExit("a compile under a budget says what it loses")
    ops: Counter[str] = Counter()
    for segment in bundle.manifest.segments:
        ops[segment.format] += segment.ops
    formats = ", ".join(f"{fmt} {count / ops.total():.0%}" for fmt, count in sorted(ops.items()))
    checked = verify_bundle(output, open_source(model.source), seed=1)
    random = max(found.relative_l2 for each in checked for found in each.outputs.values())
    reference, opened = reference_of(open_source(model.source)), open_bundle(output)
    compared = [compare(opened, reference, model.inputs(seed)) for seed in range(2)]
    real = max(found.relative_l2 for each in compared for found in each.outputs.values())
    figures = [placement.loss.expected, placement.loss.measured, random, real]
    cells = [name, f"{budget:g}", seconds_text(placement.objective), formats, *(f"{figure:.2g}" for figure in figures)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
