"""Costs measured on this machine, segment by segment.

An op alone cannot be timed: a framework fuses it with its neighbours, reorders layouts at the edges of a session and
finds in a cache what it would not find there in the middle of a model. So the ops are timed in runs of neighbours:

1. the *stretches*: ops that the target takes without a gap, each as one segment, which is what a placement on this
   device alone launches, in each of the target's settings (threads); the best one holds for its pieces;
2. the *pieces* that a stretch is cut into where few values cross and nothing fuses across, each of about
   `PIECE_SECONDS` by the model. Q/DQ pairs stay around what they quantize.

The model's estimate of a piece's ops, fusion counted, is scaled to the time of the piece, and all pieces of a stretch
to the time of the stretch. So a device that takes everything is predicted as it was measured, and what one part of the
model gains elsewhere is a measurement too. Pieces of one shape class (a repeated layer) are timed once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xdsl.ir import Operation

from gimlet.compiler.costs.provider import MEASURED, CostProvider, SiteCosts, model_costs
from gimlet.compiler.costs.timer import SegmentTimer
from gimlet.compiler.placement.reading.graph import ModuleGraph
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.work import is_weight
from gimlet.targets.api import Cost, Device, Reason, Target, fusion_savings

PIECE_SECONDS = 3e-4
LONGEST_PIECE = 4.0
"""A piece ends at the latest at so many times `PIECE_SECONDS`, whatever crosses there."""
_LOOK_AHEAD = 8


@dataclass(frozen=True)
class _Site:
    graph: ModuleGraph
    target: Target
    device: Device
    format: str

    def ops(self, numbers: Sequence[int]) -> list[Operation]:
        return [op for number in numbers for op in self.graph.units[number].ops]

    def model_seconds(self, numbers: Sequence[int], model: Mapping[int, Cost]) -> float:
        """The model's seconds of units as one segment, its launch not included: their costs less what fusion saves."""
        firsts = [self.graph.units[number].ops[0] for number in numbers]
        seconds = [model[number].seconds for number in numbers]
        return sum(seconds) - sum(fusion_savings(self.target, firsts, seconds, self.device, self.graph.sizes))


class MeasuredCosts(CostProvider):
    """Times of this machine, apportioned to ops by the model.

    `in_pieces` false leaves out the pieces of a stretch, where nothing will be cut.
    """

    name = MEASURED

    def __init__(self, timer: SegmentTimer, *, in_pieces: bool = True) -> None:
        self.timer = timer
        self.in_pieces = in_pieces

    def costs(self, graph: ModuleGraph, taken: Sequence[int], target: Target, device: Device, fmt: str) -> SiteCosts:
        site = _Site(graph, target, device, fmt)
        model = model_costs(graph, taken, target, device, fmt)
        before = (self.timer.measured, self.timer.reused)
        scale: dict[int, float] = {}
        failures: Counter[str] = Counter()
        for stretch in stretches(taken):
            scale |= self._stretch(site, stretch, model, failures)
        timed, kept = self.timer.measured - before[0], self.timer.reused - before[1]
        notes = [f"{device.name}: costs of {target.name} measured, {timed} segments timed, {kept} known from before"]
        notes += [f"{device.name}: {count} ops by the model, not measured: {why}" for why, count in failures.items()]
        return SiteCosts({n: scaled(cost, scale.get(n, 1.0)) for n, cost in model.items()}, scale, tuple(notes))

    def _stretch(
        self, site: _Site, stretch: Sequence[int], model: Mapping[int, Cost], failures: Counter[str]
    ) -> dict[int, float]:
        if not any(model[number].seconds for number in stretch):
            return {}
        found: dict[int, float] = {}
        times: dict[int, float] = {}
        pieces = cut(site.graph, stretch, model, site.target) if self.in_pieces else [list(stretch)]
        settings, whole = self._best_settings(site, stretch)
        for index, piece in enumerate(pieces):
            seconds = whole if len(pieces) == 1 else self._seconds(site, piece, settings)
            if isinstance(seconds, Reason):
                failures[seconds.message] += len(piece)
                continue
            times[index] = seconds
        known = isinstance(whole, float) and len(times) == len(pieces) and sum(times.values())
        factor = whole / sum(times.values()) if isinstance(whole, float) and known else 1.0
        for index, seconds in times.items():
            expected = site.model_seconds(pieces[index], model)
            found |= dict.fromkeys(pieces[index], factor * seconds / expected if expected else 1.0)
        return found

    def _best_settings(self, site: _Site, stretch: Sequence[int]) -> tuple[Mapping[str, Any], float | Reason]:
        """Of the target's settings (threads) the one that a whole stretch is quickest in, and its seconds."""
        settings = site.target.settings(site.device)
        found = [self._seconds(site, stretch, own) for own in settings]
        timed = [(seconds, index) for index, seconds in enumerate(found) if isinstance(seconds, float)]
        best = min(timed)[1] if timed else 0
        return settings[best], found[best]

    def _seconds(self, site: _Site, numbers: Sequence[int], settings: Mapping[str, Any]) -> float | Reason:
        """Seconds of units as one segment, less its launch; at least a twentieth of it, for a launch is an estimate."""
        found = self.timer.time(site.ops(numbers), site.target, site.device, site.format, settings)
        if isinstance(found, Reason):
            return found
        return max(found.seconds - site.device.kind.segment_overhead_s, found.seconds / 20)


def scaled(cost: Cost, factor: float) -> Cost:
    """A cost whose time, and energy with it, is `factor` times as much."""
    return replace(cost, seconds=cost.seconds * factor, joules=None if cost.joules is None else cost.joules * factor)


def stretches(taken: Sequence[int]) -> list[list[int]]:
    """Runs of consecutive numbers: sets of units that are convex in any graph whose order these are."""
    found: list[list[int]] = []
    for number in sorted(taken):
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def cut(graph: ModuleGraph, stretch: Sequence[int], model: Mapping[int, Cost], target: Target) -> list[list[int]]:
    """A stretch in pieces of about `PIECE_SECONDS`, ended where the fewest values cross and nothing fuses across.

    A piece that has become long ends where the least fuses across. What dequantizes a weight is in the piece of what
    reads it.
    """
    order = _weights_beside_their_use(graph, stretch)
    crossing, fused = _borders(graph, order, target)
    pieces: list[list[int]] = [[]]
    seconds = 0.0
    for position, number in enumerate(order):
        pieces[-1].append(number)
        seconds += model[number].seconds
        border = position + 1
        late = seconds >= LONGEST_PIECE * PIECE_SECONDS and fused[border] <= min(fused[border:][:_LOOK_AHEAD])
        good = not fused[border] and crossing[border] == min(crossing[border:-1][:_LOOK_AHEAD], default=0)
        if border < len(order) and seconds >= PIECE_SECONDS and (good or late):
            pieces.append([])
            seconds = 0.0
    return [sorted(piece) for piece in pieces]


def _borders(graph: ModuleGraph, stretch: Sequence[int], target: Target) -> tuple[list[int], list[int]]:
    """Before each position of a stretch (and after the last): how many values cross, and how many of them fuse."""
    place = {number: position for position, number in enumerate(stretch)}
    crossing = [0] * (len(stretch) + 1)
    fused = [0] * (len(stretch) + 1)
    for value in graph.values:
        source = graph.producer[value]
        users = [place[user] for user in graph.consumers[value] if user in place]
        if source not in place or not users:
            continue
        first = place[source] + 1
        last = max((user for user in users if _belong(target, graph, source, stretch[user])), default=0)
        for border in range(first, max(users) + 1):
            crossing[border] += 1
            fused[border] += border <= last
    return crossing, fused


def _belong(target: Target, graph: ModuleGraph, producer: int, consumer: int) -> bool:
    """Whether two units are slower apart: one kernel computes both, or a Q/DQ pair says that integers are meant.

    A DequantizeLinear apart from what reads it leaves a computation in floats, and so does one apart from its
    QuantizeLinear; between QuantizeLinear and DequantizeLinear a model can be cut.
    """
    before, after = graph.units[producer].ops[-1], graph.units[consumer].ops[0]
    return _is(before, "DequantizeLinear") or _is(after, "QuantizeLinear") or target.fusable(before, after)


def _is(op: Operation, op_type: str) -> bool:
    return isinstance(op, OnnxOp) and op.op_type == op_type


def _weights_beside_their_use(graph: ModuleGraph, stretch: Sequence[int]) -> list[int]:
    """A stretch with each unit that dequantizes a weight before its first reader; exporters write them all first."""
    readers: dict[int, int] = {}
    for value in graph.values:
        source = graph.producer[value]
        if source is None or source not in stretch or not graph.consumers[value]:
            continue
        if _dequantizes_weight(graph, source):
            readers[source] = min(graph.consumers[value])
    key = {number: (readers.get(number, number), number) for number in stretch}
    return sorted(stretch, key=key.__getitem__)


def _dequantizes_weight(graph: ModuleGraph, number: int) -> bool:
    ops = graph.units[number].ops
    return len(ops) == 1 and _is(ops[0], "DequantizeLinear") and is_weight(ops[0].operands[0])
