"""python -m tests.onnx_suite: runs ONNX's backend tests through the compiler, and writes docs/onnx-coverage.md.

Exit code 4 where a case fails for no listed reason. With two processes it takes about 5 minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
from tests.onnx_suite.cases import all_cases
from tests.onnx_suite.report import page, shares, unexplained
from tests.onnx_suite.stages import STAGES, Outcome, run_case

PAGE = Path(__file__).resolve().parents[2] / "docs" / "onnx-coverage.md"
_STAGES = [stage for stage in STAGES if stage != "onnxruntime"]


def run_all(indices: Iterable[int], stages: Sequence[str], jobs: int) -> list[Outcome]:
    """The outcomes of cases by their numbers, in their order."""
    # Workers are forked, so that the cases (20 s to make) are made once.
    all_cases()
    tasks = [(index, tuple(stages)) for index in indices]
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        return list(pool.map(_run, tasks, chunksize=8))


def _run(task: tuple[int, tuple[str, ...]]) -> Outcome:
    index, stages = task
    return run_case(all_cases()[index], stages)


@click.command("onnx-suite")
@click.option("--stage", "stages", multiple=True, type=click.Choice(_STAGES), help="Only these stages.")
@click.option("--every", default=1, show_default=True, help="Only every Nth case.")
@click.option("--jobs", default=2, show_default=True, help="Processes at a time.")
@click.option("--write", is_flag=True, help="Write docs/onnx-coverage.md.")
def main(stages: tuple[str, ...], every: int, jobs: int, *, write: bool) -> None:
    """Run ONNX's backend tests through the compiler."""
    outcomes = run_all(range(0, len(all_cases()), every), stages or _STAGES, jobs)
    for stage, (right, total) in shares(outcomes).items():
        click.echo(f"{stage}: {right} of {total} ({right / total:.2%})")
    if write:
        PAGE.write_text(page(outcomes))
    problems = unexplained(outcomes)
    for line in problems:
        click.echo(f"not listed: {line}", err=True)
    sys.exit(4 if problems else 0)


if __name__ == "__main__":
    main()
