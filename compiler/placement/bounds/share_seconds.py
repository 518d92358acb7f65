"""What a device needs at least for its share of all FLOPs."""

from __future__ import annotations

from gimlet.compiler.placement.model.problem import Problem


def share_seconds(problem: Problem, device: int, share: float) -> float:
    """The least seconds in which a device has a share of the FLOPs, its launch included, ops split where that helps."""
    rates: list[tuple[float, float]] = []
    for node, allowed in enumerate(problem.allowed):
        data = problem.nodes[node]
        here = [p for p in allowed if problem.device_of[p] == device]
        if here and data.flops:
            rates.append((min(float(problem.fused_seconds[node, p]) for p in here) / data.flops, data.flops))
    missing, seconds = share * problem.total_flops, problem.least_launch_s(device) if share else 0.0
    for rate, flops in sorted(rates):
        taken = min(flops, missing)
        missing -= taken
        seconds += rate * taken
    return seconds
