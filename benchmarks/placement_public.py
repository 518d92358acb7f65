"""The public placement problems: published optima against ours, with the proof and the time it took.

Published: the optima of contiguous max-load, and the single-sample latencies of the greedy baseline, as the authors of
the problems give them (NeurIPS 2020); from bert_l-6 on, what their greedy program prints for the file, and
for the training graph our best contiguous split. The problem files and their licence are in `data/placement/`.
With a checkout of the authors' repository (github.com/msr-fiddle/dnn-partitioning) all of its instances are solved,
for throughput contiguous and not; it has no figures to compare with.

    python benchmarks/placement_public.py [--time-limit 60] [--repository DIR]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
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


Case = tuple[Path, str, PublicObjective, bool, str, float | None]


def cases() -> Iterator[Case]:
    """The problems that are kept here, with what they are compared with."""
    for name, objective, contiguous, kind, published in CASES:
        yield DATA / f"{objective}_{name}.json", name, objective, contiguous, kind, published


def all_cases(repository: Path) -> Iterator[Case]:
    """All instances of the authors' repository, inference first, contiguous and not where that is a difference."""
    objectives: tuple[tuple[PublicObjective, tuple[bool, ...]], ...] = (
        ("throughput", (True, False)),
        ("latency", (True,)),
    )
    for kind in ("inference", "training"):
        for objective, ways in objectives:
            for path in sorted(repository.glob(f"{objective}-inputs/*/*_{kind}.json")):
                name = f"{path.parent.name.removesuffix('Graphs').lower()} {path.stem}"
                for contiguous in ways:
                    yield path, name, objective, contiguous, "", None


def main() -> None:
    """Prints one line a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="S", help="seconds for each problem")
    parser.add_argument(
        "--repository", type=Path, metavar="DIR", help="a checkout of the authors' repository: all of it"
    )
    arguments = parser.parse_args()
    print(
        f"{'problem':<52}{'compared with':>22}{'ours':>11}{'ratio':>9}{'bound':>11}{'gap':>9}  {'status':<9}{'wall':>8}"
    )
    for path, name, objective, contiguous, kind, published in (
        cases() if arguments.repository is None else all_cases(arguments.repository)
    ):
        answer = solve_public(load_public(path), objective, contiguous=contiguous, time_limit_s=arguments.time_limit)
        title = f"{name} {objective}{' contiguous' if contiguous else ''}"
        compared = f"{kind:>12}{published:>10.4f}" if published else " " * 22
        ratio = f"{answer.objective / published:>9.5f}" if published else " " * 9
        print(
            f"{title:<52}{compared}{answer.objective:>11.4f}{ratio}"
            f"{answer.bound:>11.4f}{answer.gap:>9.4%}  {answer.status:<9}{answer.wall_s:>7.1f}s",
            flush=True,
        )


if __name__ == "__main__":
    main()
