"""gimlet-place: solves a placement problem of the public benchmarks, with a proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import click

from gimlet.tools.cli import print_json, run

PATH = click.Path(path_type=Path)


@click.command("gimlet-place", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("problem", type=PATH, metavar="PROBLEM.json")
@click.option(
    "--objective",
    type=click.Choice(["throughput", "latency"]),
    default="throughput",
    show_default=True,
    help="The largest load of any device, or the time of one sample.",
)
@click.option("--contiguous", is_flag=True, help="Data may only flow forward from device to device.")
@click.option("--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds for the solver.")
@click.option("--seed", type=int, default=0, show_default=True, help="The solver's seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_place(
    problem: Path,
    objective: Literal["throughput", "latency"],
    time_limit: float | None,
    seed: int,
    *,
    contiguous: bool,
    as_json: bool,
) -> None:
    """Solve PROBLEM.json, which is in the format of the NeurIPS 2020 placement benchmarks.

    Prints the objective, a proven lower bound, the gap between them, and the device of each node. Without a time limit
    the work is limited instead, so that the answer is the same on every machine.
    """
    from gimlet.compiler.placement.public_format import load_public
    from gimlet.compiler.placement.public_model import solve_public

    loaded = load_public(problem)
    answer = solve_public(loaded, objective, contiguous=contiguous, time_limit_s=time_limit, seed=seed)
    names = [f"accelerator{n}" for n in range(loaded.accelerators)] + [f"cpu{n}" for n in range(loaded.cpus)]
    pairs = sorted((node.id, names[d]) for node, d in zip(loaded.nodes, answer.split.device, strict=True))
    if as_json:
        print_json(
            {
                "objective": answer.objective,
                "bound": answer.bound,
                "gap": answer.gap,
                "status": answer.status,
                "wall_s": answer.wall_s,
                "kind": objective,
                "contiguous": contiguous,
                "assignment": {str(node): device for node, device in pairs},
            }
        )
        return
    click.echo(f"{objective}  {answer.objective:.6g}")
    click.echo(f"bound  {answer.bound:.6g} (gap {answer.gap:.3%}, {answer.status}, {answer.wall_s:.2f} s)")
    for device in dict.fromkeys(names):
        nodes = [str(node) for node, where in pairs if where == device]
        if nodes:
            click.echo(f"{device}  {len(nodes)} nodes: {' '.join(nodes)}")


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_place, args)
