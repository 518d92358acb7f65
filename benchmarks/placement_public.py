"""The public placement problems: published optima against ours, with the proof and the time it took.

Published: the optima of contiguous max-load, and the single-sample latencies of the greedy baseline, as the authors of
the problems give them (NeurIPS 2020); from bert_l-6 on, what their greedy program prints for the file, and
for the training graph our best contiguous split. The problem files and their licence are in `data/placement/`.

    python benchmarks/placement_public.py [--time-limit 60]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gimlet.compiler.placement.public.public_format import PublicObjective, load_public
from gimlet.compiler.placement.public.public_model import solve_public

DATA = Path(__file__).parent / "data" / "placement"
CASES: tuple[tuple[str, PublicObjective, bool, str, float], ...] = (
    ("bert24_inference", "throughput", True, "optimum", 17.7899),
    ("resnet50_inference", "throughput", True, "optimum", 33.7747),
    ("bert_l-3_inference", "throughput", True, "optimum", 27.9186),
    ("bert24_inference", "throughput", False, "optimum", 17.715),
    ("bert_l-3_training", "throughput", False, "contiguous", 122.9872),
    ("bert24_inference", "latency", True, "greedy", 100.219),
    ("bert_l-3_inference", "latency", True, "greedy", 416.204),
    ("bert_l-6_inference", "latency", True, "greedy", 494.1352),
    ("bert_l-12_inference", "latency", True, "greedy", 867.8395),
    ("resnet50_inference", "latency", True, "greedy", 4197.0555),
    ("resnet50_operators_inference", "latency", True, "greedy", 839.5363),
    ("gnmt_inference", "latency", True, "greedy", 268.5005),
    ("inceptionv3_inference", "latency", True, "greedy", 2485.2396),
)


def main() -> None:
    """Prints one line a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="seconds for each problem")
    limit = parser.parse_args().time_limit
    print(
        f"{'problem':<40}{'compared with':>22}{'ours':>11}{'ratio':>9}{'bound':>11}{'gap':>9}  {'status':<9}{'wall':>8}"
    )
    for name, objective, contiguous, kind, published in CASES:
        problem = load_public(DATA / f"{objective}_{name}.json")
        answer = solve_public(problem, objective, contiguous=contiguous, time_limit_s=limit)
        title = f"{name} {objective}{' contiguous' if contiguous else ''}"
        print(
            f"{title:<40}{kind:>12}{published:>10.4f}{answer.objective:>11.4f}{answer.objective / published:>9.5f}"
            f"{answer.bound:>11.4f}{answer.gap:>9.4%}  {answer.status:<9}{answer.wall_s:>7.1f}s",
            flush=True,
        )


if __name__ == "__main__":
    main()
