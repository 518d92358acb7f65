"""Why there is no placement: checks before solving that name a cause, and the search for the limits in conflict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from gimlet.compiler.placement.cpsat import Limits, solve_slots
from gimlet.compiler.placement.problem import OBJECTIVES, Objective, Problem, Rules
from gimlet.runtime.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from gimlet.compiler.placement.coarsen import Coarse


def gigabytes(size_bytes: float) -> str:
    """A size for a message: `3.1 GB` (powers of ten)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


def check_feasible(problem: Problem) -> None:
    """InputError for a node that nothing takes; InfeasibleError for pins, sizes and shares that cannot be met."""
    for node, allowed in enumerate(problem.allowed):
        if not allowed:
            raise _nowhere(problem, node)
    _check_memory(problem)
    _check_shares(problem)


def _nowhere(problem: Problem, index: int) -> InputError | InfeasibleError:
    node = problem.nodes[index]
    where = f"{node.op_type} {node.name!r}"
    refused = [f"{problem.place_name(place)}: {reason}" for place, reason in sorted(node.refusals.items())]
    if not node.options:
        return InputError(
            "no device takes this op:\n    " + "\n    ".join(refused or ["there is no device"]),
            where=where,
            hint="add a device that takes it to the topology, or rewrite the op",
        )
    pinned = problem.rules.pins.get(index, frozenset())
    names = sorted({problem.devices[problem.device_of[place]].name for place in pinned})
    reasons = [f"{problem.place_name(p)}: {node.refusals[p]}" for p in sorted(pinned) if p in node.refusals]
    return InfeasibleError(
        f"pinned to {', '.join(names) or 'nothing'}, which refuses it:\n    " + "\n    ".join(reasons or ["not asked"]),
        where=where,
        hint="pin it elsewhere, or pin less",
    )


def _least_bytes(problem: Problem, nodes: Iterable[int], places: Iterable[int]) -> int:
    """Weights of `nodes`, each at its smallest size over `places`."""
    wanted, usable = set(nodes), set(places)
    return sum(
        min((size for place, size in weight.size_bytes.items() if place in usable), default=0)
        for weight in problem.weights
        if wanted.intersection(weight.users)
    )


def _check_memory(problem: Problem) -> None:
    used = sorted({place.device for place in problem.places})
    capacities = {device: problem.devices[device].memory_bytes for device in used}
    if any(capacity is None for capacity in capacities.values()):
        _check_pinned_memory(problem, capacities)
        return
    need = _least_bytes(problem, range(len(problem.nodes)), range(len(problem.places)))
    have = sum(capacity or 0 for capacity in capacities.values())
    if need > have:
        listed = ", ".join(f"{problem.devices[d].name} has {gigabytes(c or 0)}" for d, c in capacities.items())
        raise InfeasibleError(
            f"the model is larger than {'every device' if len(used) > 1 else 'the device'}"
            f"{' together' if len(used) > 1 else ''}: its weights need {gigabytes(need)}; {listed}",
            hint="add devices, or use a smaller number format for the weights",
        )
    _check_pinned_memory(problem, capacities)


def _check_pinned_memory(problem: Problem, capacities: dict[int, int | None]) -> None:
    """Nodes that can only be on one device must fit there."""
    only: dict[int, list[int]] = {}
    for node, allowed in enumerate(problem.allowed):
        devices = {problem.device_of[place] for place in allowed}
        if len(devices) == 1:
            only.setdefault(devices.pop(), []).append(node)
    for device, nodes in sorted(only.items()):
        capacity = capacities.get(device)
        places = [p for p in range(len(problem.places)) if problem.device_of[p] == device]
        need = _least_bytes(problem, nodes, places)
        if capacity is not None and need > capacity:
            name = problem.devices[device].name
            whole = len(nodes) == len(problem.nodes)
            some = f"{len(nodes)} ops that can only be there (such as {problem.nodes[nodes[0]].name!r})"
            what = "the model" if whole else some
            raise InfeasibleError(
                f"{what}: the weights need {gigabytes(need)} and {name} has {gigabytes(capacity)}",
                where=f"device {name}",
                hint=f"free {gigabytes(need - capacity)}: pin less there, add a device, or use a smaller weight format",
            )


def _check_shares(problem: Problem) -> None:
    shares = problem.rules.min_share
    if sum(shares.values()) > 1 + 1e-9:
        raise InfeasibleError(f"the least shares of the devices add up to {sum(shares.values()):.0%} of the FLOPs")
    for device, share in shares.items():
        most = sum(
            node.flops
            for node, allowed in zip(problem.nodes, problem.allowed, strict=True)
            if any(problem.device_of[place] == device for place in allowed)
        )
        if most < share * problem.total_flops * (1 - 1e-9):
            name = problem.devices[device].name
            raise InfeasibleError(
                f"{name} is to have {share:.0%} of the FLOPs, but the ops that may be there are "
                f"{most / max(problem.total_flops, 1.0):.1%} of them",
                where=f"device {name}",
                hint="ask for a smaller share, or see --explain for what it refuses",
            )


def explain_infeasible(problem: Problem, coarse: Coarse) -> InfeasibleError:
    """The kinds of limits without which there would be a placement, found by leaving out one kind at a time."""
    rules = coarse.problem.rules
    kinds: dict[str, Rules] = {
        "the bounds on other figures": replace(rules, bounds={}),
        "the least shares of devices": replace(rules, min_share={}),
        "the cap on segments": replace(rules, max_segments=None),
        "what must be together": replace(rules, together=()),
    }
    culprits = [kind for kind, without in kinds.items() if without != rules and _solvable(coarse.problem, without)]
    unlimited = replace(
        coarse.problem, devices=tuple(replace(device, memory_bytes=None) for device in coarse.problem.devices)
    )
    if _solvable(unlimited, rules):
        listed = ", ".join(
            f"{d.name} has {gigabytes(d.memory_bytes)}" for d in problem.devices if d.memory_bytes is not None
        )
        culprits.append(f"memory ({listed})")
    if not culprits:
        return InfeasibleError("no placement keeps all limits together", hint="loosen two of them at once")
    return InfeasibleError(
        f"no placement keeps all limits: it would be possible without {' or without '.join(culprits)}",
        hint="loosen one of these",
    )


def _solvable(problem: Problem, rules: Rules) -> bool:
    total = float(problem.seconds[problem.seconds < float("inf")].sum()) or 1.0
    scales: dict[Objective, float] = {o: total if o in ("latency", "throughput") else 1.0 for o in OBJECTIVES}
    limits = Limits(work=1.0, gap=1.0)
    return solve_slots(problem.with_rules(rules), None, scales, 0.0, 3, limits).placement is not None
