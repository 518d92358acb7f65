"""Why there is no placement: checks before solving that name a cause and what would help."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from gimlet.compiler.placement.bounds.share_cover import share_cover
from gimlet.compiler.placement.model.problem import Problem, devices_named
from gimlet.compiler.placement.model.rules import with_nodes
from gimlet.compiler.placement.model.schedule import LOSS_TOLERANCE
from gimlet.compiler.placement.reasons.conflict import is_infeasible, least_losses
from gimlet.compiler.placement.reasons.fit import room_needed, room_text
from gimlet.compiler.placement.reasons.relief import rounded_up
from gimlet.runtime.errors import InfeasibleError, InputError
from gimlet.runtime.units import bytes_text

_ELSEWHERE = "add a device that takes it to the topology, or rewrite the op"
_NARROWER = "compute it in float32 (module.float() and x.float() in PyTorch), "


def check_feasible(problem: Problem) -> None:
    """InputError for a node that nothing takes; InfeasibleError for pins, sizes and shares that cannot be met."""
    for node, allowed in enumerate(problem.allowed):
        if not allowed:
            raise _nowhere(problem, node)
    _check_together(problem)
    _check_memory(problem)
    _check_shares(problem)
    _check_loss(problem)


def _nowhere(problem: Problem, index: int) -> InputError | InfeasibleError:
    node = problem.nodes[index]
    where = f"{node.op_type} {node.name!r}".strip() + (f" ({node.source})" if node.source else "")
    refused = [f"{problem.place_name(place)}: {reason}" for place, reason in sorted(node.refusals.items())]
    if not node.options:
        return InputError(
            "no device takes this op:\n    " + "\n    ".join(refused or ["there is no device"]),
            where=where,
            hint=(_NARROWER if _is_wide(refused) else "") + _ELSEWHERE,
        )
    pinned = problem.rules.pins.get(index, frozenset())
    takers = sorted({problem.device_of[place] for place in node.options})
    names = sorted({problem.devices[problem.device_of[place]].name for place in pinned})
    reasons = [f"{problem.place_name(p)}: {node.refusals[p]}" for p in sorted(pinned) if p in node.refusals]
    return InfeasibleError(
        f"pinned to {', '.join(names) or 'nothing'}, which refuses it:\n    " + "\n    ".join(reasons or ["not asked"]),
        where=where,
        hint=f"it may be on {devices_named(problem, takers)}: pin it there, or pin less",
    )


def _is_wide(refused: Iterable[str]) -> bool:
    """Whether a device refuses an op for its numbers of 64 bits."""
    return any("float64" in reason for reason in refused)


def _check_together(problem: Problem) -> None:
    """Nodes that share a device have one that takes them all."""
    for nodes in problem.rules.together:
        devices = [{problem.device_of[place] for place in problem.allowed[node]} for node in nodes]
        if set[int].intersection(*devices):
            continue
        each = (
            f"{problem.nodes[node].op_type} {problem.nodes[node].name!r} on {devices_named(problem, sorted(found))}"
            for node, found in zip(nodes, devices, strict=True)
        )
        raise InfeasibleError(
            "no device takes all of what must share one: " + ", ".join(each),
            hint="what uses a state is where the state is; pin less, or leave --together out",
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
        listed = ", ".join(f"{problem.devices[d].name} has {bytes_text(c or 0)}" for d, c in capacities.items())
        raise InfeasibleError(
            f"the model is larger than {'every device' if len(used) > 1 else 'the device'}"
            f"{' together' if len(used) > 1 else ''}: its weights need {bytes_text(need)}; {listed}",
            hint=_room(problem, used[0], need - have + (capacities[used[0]] or 0)) or "ask for less as well",
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
                f"{what}: the weights need {bytes_text(need)} and {name} has {bytes_text(capacity)}",
                where=f"device {name}",
                hint="; or ".join(filter(None, [_room(problem, device, need), "pin less there"])),
            )


def _room(problem: Problem, device: int, least: int) -> str:
    """What more memory of a device would do, as a hint; empty where none would."""
    room = room_needed(problem, device, is_infeasible, least)
    return "" if room is None else room_text(problem, room)


def _check_shares(problem: Problem) -> None:
    shares = problem.rules.min_share
    if sum(shares.values()) > 1 + 1e-9:
        raise InfeasibleError(
            f"the least shares of the devices add up to {sum(shares.values()):.0%} of the FLOPs",
            hint="ask for 100% of them at most",
        )
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
                f"{_rounded_down(most / max(problem.total_flops, 1.0)):.1%} of them",
                where=f"device {name}",
                hint="ask for a smaller share, or see --explain for what it refuses",
            )
    _check_whole_ops(problem)


def _rounded_down(share: float) -> float:
    """A share as it is printed, never more than it is."""
    return math.floor(share * 1000 + 1e-9) / 1000


def _check_whole_ops(problem: Problem) -> None:
    """InfeasibleError where ops would have to be split to give every device its share."""
    # Where only ops that share a device are in the way, the conflict names them.
    most = share_cover(problem.with_rules(replace(problem.rules, together=()))).most
    if most >= 1:
        return
    total = max(problem.total_flops, 1.0)
    wanted = {device: share for device, share in sorted(problem.rules.min_share.items()) if share > 0}
    largest = max(range(len(problem.nodes)), key=lambda n: problem.nodes[n].flops)
    asked = ", ".join(f"{share:.1%} on {problem.devices[device].name}" for device, share in wanted.items())
    could = ", ".join(
        f"{math.floor(share * most * 1000) / 1000:.1%} on {problem.devices[device].name}"
        for device, share in wanted.items()
    )
    raise InfeasibleError(
        f"no placement of whole ops has {asked} of the FLOPs: the largest op alone, "
        f"{problem.nodes[largest].name!r}, has {problem.nodes[largest].flops / total:.1%} of them",
        hint=f"ask for at most {could}, or for less of one of them",
    )


def _check_loss(problem: Problem) -> None:
    """InfeasibleError where even the least lossy places are above the budget; it names the ops that lose most."""
    budget = problem.rules.loss_budget
    if budget is None:
        return
    least = least_losses(problem)
    total = math.hypot(*least)
    if total <= budget * (1 + LOSS_TOLERANCE):
        return
    kept: list[int] = []
    for node in sorted(range(len(least)), key=lambda n: -least[n]):
        kept.append(node)
        if math.hypot(*(least[n] for n in kept)) > budget * (1 + LOSS_TOLERANCE):
            break
    listed = "; ".join(f"{problem.nodes[n].name!r} loses {least[n]:.3g} on {_least_lossy(problem, n)}" for n in kept)
    raise InfeasibleError(
        f"no placement keeps the loss budget of {budget:g}: the least is {total:.3g}, and already {listed}",
        hint=f"allow {rounded_up(total, 3):g}, or let these ops be on a place that loses less: "
        "another pin, --format or device",
    )


def affordable(problem: Problem) -> Problem:
    """The problem without the places where one node alone would lose more than the budget."""
    budget = problem.rules.loss_budget
    if budget is None:
        return problem
    most = budget * (1 + LOSS_TOLERANCE)
    nodes = [
        replace(node, options={place: option for place, option in node.options.items() if option.loss <= most})
        for node in problem.nodes
    ]
    return with_nodes(problem, nodes)


def _least_lossy(problem: Problem, node: int) -> str:
    options = problem.nodes[node].options
    return problem.place_name(min(problem.allowed[node], key=lambda place: (options[place].loss, place)))
