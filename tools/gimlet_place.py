"""gimlet-place: solves a placement problem in a file, ours or one of the public benchmarks, with a proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

from gimlet.runtime.errors import InputError, UsageError
from gimlet.tools.cli import SECONDS, SEED, command, print_json, run

PATH = click.Path(path_type=Path)


@command("gimlet-place")
@click.argument("problem", type=PATH, metavar="PROBLEM.json")
@click.option(
    "--objective",
    type=click.Choice(["throughput", "latency", "energy", "cost"]),
    help="The largest load of any device, or the time, the energy or the price of one sample. Default: throughput, or "
    "what a saved problem asks for.",
)
@click.option("--bound", multiple=True, metavar="FIGURE=AMOUNT", help="At most this: latency=5ms, energy=2J, …")
@click.option("--contiguous", is_flag=True, help="Data may only flow forward from device to device.")
@click.option("--time-limit", type=SECONDS, metavar="S", help="Seconds for the solver.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The solver's seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_place(
    problem: Path,
    objective: Literal["throughput", "latency", "energy", "cost"] | None,
    bound: tuple[str, ...],
    time_limit: float | None,
    seed: int,
    *,
    contiguous: bool,
    as_json: bool,
) -> None:
    """Solve PROBLEM.json, in our own format (docs/placement.md), of gimlet-compile --save-problem, or of NeurIPS 2020.

    Prints the objective, a proven lower bound, the gap between them, and the device of each node. Without a time limit
    the work is limited instead, so that the answer is the same on every machine. Energy, cost and --bound are for our
    own format, --contiguous is for the other.
    """
    from gimlet.compiler.placement.model.rules import read_json

    data = read_json(problem)
    if not data.keys() & {"schema", "devices", "problem", "maxFPGAs"}:
        raise InputError(
            "is no placement problem: it has neither 'devices' (our format) nor 'maxFPGAs' (that of NeurIPS 2020)",
            where=str(problem),
            hint="docs/placement.md has the format",
        )
    if data.keys() & {"schema", "devices", "problem"}:
        if contiguous:
            raise UsageError("is for problems in the public format", where="--contiguous")
        report = _solve_own(data, problem, objective, bound, time_limit, seed)
    elif objective == "energy" or objective == "cost" or bound:
        raise UsageError("the public format has no energy, no prices and no bounds", where=str(problem))
    else:
        report = _solve_public(problem, objective or "throughput", time_limit, seed, contiguous=contiguous)
    if as_json:
        print_json(report)
        return
    click.echo(f"{report['kind']}  {report['objective']:.6g}")
    click.echo(f"bound  {report['bound']:.6g} (gap {report['gap']:.3%}, {report['status']}, {report['wall_s']:.2f} s)")
    for name, figure in report.get("figures", {}).items():
        click.echo(f"{name}  {'unknown' if figure is None else f'{figure:.6g}'}")
    nodes_of: dict[str, list[str]] = {}
    for node, device in report["assignment"].items():
        nodes_of.setdefault(device, []).append(node)
    for device in report["devices"]:
        if device in nodes_of:
            own = nodes_of[device]
            click.echo(f"{device}  {len(own)} node{'s' if len(own) > 1 else ''}: {' '.join(own)}")


def _solve_public(
    path: Path, objective: Literal["throughput", "latency"], time_limit: float | None, seed: int, *, contiguous: bool
) -> dict[str, Any]:
    from gimlet.compiler.placement.public.public_format import load_public
    from gimlet.compiler.placement.public.public_model import solve_public

    loaded = load_public(path)
    answer = solve_public(loaded, objective, contiguous=contiguous, time_limit_s=time_limit, seed=seed)
    names = [f"accelerator{n}" for n in range(loaded.accelerators)] + [f"cpu{n}" for n in range(loaded.cpus)]
    pairs = sorted((node.id, names[d]) for node, d in zip(loaded.nodes, answer.split.device, strict=True))
    return {
        "objective": answer.objective,
        "bound": answer.bound,
        "gap": answer.gap,
        "status": answer.status,
        "wall_s": answer.wall_s,
        "kind": objective,
        "contiguous": contiguous,
        "devices": names,
        "assignment": {str(node): device for node, device in pairs},
    }


def _solve_own(
    data: dict[str, Any],
    path: Path,
    objective: Literal["throughput", "latency", "energy", "cost"] | None,
    bounds: tuple[str, ...],
    time_limit: float | None,
    seed: int,
) -> dict[str, Any]:
    from gimlet.compiler.placement.exact.cpsat import Limits
    from gimlet.compiler.placement.model.limits import parse_bounds
    from gimlet.compiler.placement.model.problem_json import problem_of
    from gimlet.compiler.placement.model.saved_problem import loaded_problem
    from gimlet.compiler.placement.solve import solve
    from gimlet.tools.gimlet_compile import pairs

    limits = Limits(seed=seed) if time_limit is None else Limits(work=float("inf"), seconds=time_limit, seed=seed)
    asked = parse_bounds(pairs(bounds, "--bound", "FIGURE=AMOUNT, such as latency=5ms"))
    problem = loaded_problem(data, path) if "problem" in data else problem_of(data, path)
    asks = problem.rules.objective if "problem" in data else "throughput"
    rules = replace(problem.rules, objective=objective or asks, bounds={**problem.rules.bounds, **asked})
    problem = problem.with_rules(rules)
    answer = solve(problem, limits)
    names = [device.name for device in problem.devices]
    places = zip(problem.nodes, answer.placement.place, strict=True)
    return {
        "objective": answer.objective,
        "bound": answer.bound,
        "gap": answer.gap,
        "status": answer.status,
        "wall_s": answer.wall_s,
        "kind": rules.objective,
        "devices": names,
        "figures": {
            "latency_s": answer.schedule.latency_s,
            "period_s": answer.schedule.period_s,
            "energy_j": answer.schedule.energy_j,
            "cost_usd": answer.schedule.cost_usd,
        },
        "assignment": {node.name: names[problem.device_of[place]] for node, place in places},
    }


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_place, args)
