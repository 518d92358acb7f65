"""Random graphs on random racks, every objective free and with a limit: `python benchmarks/placement_limits.py`.

A rack has a host, and one or two classes of 1 to 4 accelerators that are alike; in four of ten racks their memory holds
a part of the weights. A graph has 4 to 12 layers of 3 to 6 ops with a connection past each layer; each op is of one of
three kinds, at which the classes are good in different measure. A limit lies at a tenth, three or seven tenths of the
way from the least of its figure to what the figure is at the free optimum of the objective. `--seeds FROM TO` are other
problems, `--time-limit` is for each answer. Printed are the gaps between answer and bound: their median and largest by
objective and limited figure, and with `--all` each of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterator
from dataclasses import replace

from gimlet.compiler.placement.exact.cpsat import Limits
from gimlet.compiler.placement.model.problem import (
    OBJECTIVES,
    DeviceSpec,
    Node,
    Objective,
    Option,
    Place,
    Problem,
    Route,
    Rules,
    Value,
    Weight,
)
from gimlet.compiler.placement.solve import Solution, solve
from gimlet.runtime.errors import InfeasibleError

_BYTES_PER_S = 3e10
_LATENCY_S = 4e-6
_WEIGHT_BYTES_PER_S = 2e11
"""Bytes of weights for each second that an op takes on the host."""
_LEAST_S = 1e-6


def random_rack(draw: random.Random) -> tuple[list[DeviceSpec], list[list[float]]]:
    """Devices, and for each of them how many times the host's speed it has at each of three kinds of ops."""
    devices = [DeviceSpec("host0", None, 2e-6, idle_w=60.0, load_w=200.0, usd_per_hour=1.0)]
    speeds = [[1.0] * 3]
    small = draw.random() < 0.4
    for name in "ab"[: draw.choice([1, 2, 2])]:
        speed = draw.choice([4, 10, 20, 40])
        own = [speed * draw.choice([0.3, 1.0, 2.0]) for _ in range(3)]
        memory = draw.choice([3, 5]) * 10**8 if small else None
        launch_s, usd = draw.choice([5e-6, 2e-5, 6e-5]), draw.choice([2.0, 4.0, 8.0])
        idle_w, load_w = draw.choice([20.0, 50.0, 80.0]), draw.choice([300.0, 700.0])
        spec = DeviceSpec(name, memory, launch_s, idle_w, load_w, usd)
        count = draw.choice([1, 2, 2, 3, 4])
        devices += [replace(spec, name=f"{name}{number}") for number in range(count)]
        speeds += [own] * count
    return devices, speeds


def random_problem(seed: int) -> Problem:
    """A layered graph on a rack."""
    draw = random.Random(seed)
    devices, speeds = random_rack(draw)
    edges: set[tuple[int, int]] = set()
    nodes: list[Node] = []
    size = draw.choice([10**4, 10**5, 10**6])
    weights: list[Weight] = []
    for layer in range(draw.choice([4, 8, 12])):
        first, width = len(nodes), draw.choice([3, 4, 6])
        for number in range(width):
            kind, host_s = draw.randrange(3), draw.choice([2e-5, 1e-4, 4e-4])
            seconds = [host_s / speed[kind] + _LEAST_S for speed in speeds]
            options = {
                place: Option(taken, taken * (spec.load_w or 0.0))
                for place, (taken, spec) in enumerate(zip(seconds, devices, strict=True))
            }
            index = len(nodes)
            nodes.append(Node(f"{layer}.{number}", f"kind {kind}", options, flops=host_s))
            held = int(host_s * _WEIGHT_BYTES_PER_S)
            weights.append(Weight(f"w{index}", (index,), dict.fromkeys(range(len(devices)), held)))
            edges |= {(index - 1, index)} if index else set()
        edges |= {(first - 1, len(nodes) - 1)} if first else set()
    values = [Value("x", size, None, (0,))]
    for index in range(len(nodes)):
        readers = tuple(sorted(reader for producer, reader in edges if producer == index))
        values.append(Value(f"v{index}", size, index, readers, not readers))
    # Each device has a link to the host, each way; what goes from one device to another takes both.
    links = {n: ((f"l{n}<", 1 / _BYTES_PER_S), (f"l{n}>", 1 / _BYTES_PER_S)) for n in range(1, len(devices))}
    routes = {
        (a, b): Route(_LATENCY_S, 1 / _BYTES_PER_S, (*([links[a][1]] if a else []), *([links[b][0]] if b else [])))
        for a in range(len(devices))
        for b in range(len(devices))
        if a != b
    }
    places = tuple(Place(number) for number in range(len(devices)))
    return Problem(tuple(devices), places, tuple(nodes), tuple(values), routes, tuple(weights))


def answers(problem: Problem, draw: random.Random, seconds: float) -> Iterator[tuple[Objective, str, Solution | None]]:
    """Objective, the figure that has a limit, and the answer; None where none was found."""
    free: dict[Objective, Solution] = {}
    for objective in OBJECTIVES:
        free[objective] = solve(problem.with_rules(Rules(objective)), Limits(work=float("inf"), seconds=seconds))
        yield objective, "", free[objective]
    for objective in OBJECTIVES:
        for limited in OBJECTIVES:
            least, most = free[limited].objective, free[objective].schedule.figure(limited)
            part = draw.choice([0.1, 0.3, 0.7])
            if limited == objective or most <= least * 1.001:
                continue
            rules = Rules(objective, bounds={limited: least + part * (most - least)})
            try:
                yield objective, limited, solve(problem.with_rules(rules), Limits(work=float("inf"), seconds=seconds))
            except InfeasibleError:
                yield objective, limited, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 8), metavar=("FROM", "TO"))
    parser.add_argument("--time-limit", type=float, default=5.0, metavar="S")
    parser.add_argument("--all", action="store_true", help="print each answer")
    options = parser.parse_args()
    gaps: dict[tuple[str, str], list[float]] = {}
    lost = 0
    for seed in range(*options.seeds):
        problem = random_problem(seed)
        for objective, limited, answer in answers(problem, random.Random(seed), options.time_limit):
            gaps.setdefault((objective, limited), []).extend([] if answer is None else [100 * answer.gap])
            lost += answer is None
            if options.all:
                told = "none found" if answer is None else f"{100 * answer.gap:6.2f}%  {answer.objective:.6g}"
                print(f"{seed:4} {len(problem.nodes):3} ops {objective:10} {limited or 'free':10} {told}", flush=True)
    print(f"{'least':10}  {'limited':10}  answers   median  largest gap")
    for (objective, limited), found in sorted(gaps.items(), key=lambda item: (item[0][1] != "", item[0])):
        if found:
            middle, largest = statistics.median(found), max(found)
            print(f"{objective:10}  {limited or '':10}  {len(found):7}  {middle:6.2f}%  {largest:6.2f}%")
    every = [gap for found in gaps.values() for gap in found]
    print(f"of {len(every)} answers {sum(gap <= 1 for gap in every)} are within 1% of their bound; none found: {lost}")


if __name__ == "__main__":
    main()
