"""The roofline of each device of a report, as geometry: coordinates in pixels and plain text.

What an op moves is counted as placement does: its activations, and all weights that it uses. An op that reads a part of
its weights only (Gather, a few experts of many) therefore stands further left than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.service import PlacementResult
from gimlet.compiler.report.figures import listed
from gimlet.runtime.units import seconds_text
from gimlet.targets.api import Device


@dataclass(frozen=True)
class Mark:
    """A line or tick label of a roofline: two ends in pixels, a text, and the angle at which it is written."""

    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    angle: float = 0.0
    label_y: float = 0.0


@dataclass(frozen=True)
class Point:
    """Ops at one spot of a roofline. The area of the circle grows with their time."""

    x: float
    y: float
    radius: float
    tooltip: str
    op: str


@dataclass(frozen=True)
class Roofline:
    """Ops of one device: FLOPs a byte against FLOP/s as predicted, both logarithmic."""

    device: str
    kind: str
    index: int
    width: float
    height: float
    frame: tuple[float, float, float, float]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    peaks: tuple[Mark, ...]
    slopes: tuple[Mark, ...]
    points: tuple[Point, ...]
    left_out: int


def op_bytes(result: PlacementResult) -> list[int]:
    """What each op moves as placement counts it: its activations, and all weights that it uses once."""
    problem, places = result.problem, result.solution.placement.place
    found = [node.options[place].activation_bytes for node, place in zip(problem.nodes, places, strict=True)]
    for weight in problem.weights:
        for user in weight.users:
            found[user] += weight.size_bytes.get(places[user], 0)
    return found


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis: whole decades from `low` to `high`, laid out from pixel `start` to pixel `end`."""

    low: int
    high: int
    start: float
    end: float

    @staticmethod
    def over(values: Sequence[float], start: float, end: float) -> _Scale:
        low = math.floor(math.log10(min(values)))
        return _Scale(low, max(math.ceil(math.log10(max(values)) + 1e-9), low + 1), start, end)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def decades(self) -> list[float]:
        step = -(-(self.high - self.low) // 8)
        return [10.0**power for power in range(self.low, self.high + 1, step)]


def roofline(result: PlacementResult, device: Device, sizes_bytes: Sequence[int]) -> Roofline | None:
    """The roofline of a device, or None where no op on it has operations, bytes and a time."""
    problem, places = result.problem, result.solution.placement.place
    index = next(number for number, found in enumerate(problem.devices) if found.name == device.name)
    here = [node for node, place in enumerate(places) if problem.device_of[place] == index]
    seconds = {node: problem.nodes[node].options[places[node]].seconds for node in here}
    spots = {
        node: (problem.nodes[node].flops / sizes_bytes[node], problem.nodes[node].flops / seconds[node])
        for node in here
        if problem.nodes[node].flops > 0 and sizes_bytes[node] > 0 and seconds[node] > 0
    }
    if not spots:
        return None
    formats = {problem.places[places[node]].format for node in here}
    peaks = _peaks(device, formats)
    width, height, left, right, top, bottom = 640.0, 380.0, 64.0, 14.0, 14.0, 44.0
    bandwidths = sorted({level.bandwidth: level.name for level in device.kind.memory if level.bandwidth > 0}.items())
    ridges = [peak / bandwidth for peak in peaks for bandwidth, _ in bandwidths]
    across = _Scale.over([x for x, _ in spots.values()] + ridges, left, width - right)
    up = _Scale.over([y for _, y in spots.values()] + [peak * 1.6 for peak in peaks], height - bottom, top)
    fastest = max((bandwidth for bandwidth, _ in bandwidths), default=math.inf)
    return Roofline(
        device.name,
        device.kind.name,
        index,
        width,
        height,
        (left, top, width - left - right, height - top - bottom),
        tuple(Mark(x := across.at(d), top, x, height - bottom, _number(d)) for d in across.decades),
        tuple(Mark(left, y := up.at(d), width - right, y, rate_text(d, "FLOP/s")) for d in up.decades),
        tuple(_peak_marks(peaks, fastest, across, up)),
        tuple(_slope(bandwidth, name, max(peaks, default=0.0), across, up) for bandwidth, name in bandwidths),
        tuple(_points(problem, spots, seconds, across, up)),
        len(here) - len(spots),
    )


def _peaks(device: Device, formats: Iterable[str]) -> dict[float, str]:
    """Peaks of the formats in use and of everything but matrix products, highest first; equal ones have one line."""
    found: dict[float, list[str]] = {}
    for name in [*sorted(formats), "vector"]:
        if device.kind.peak.get(name, 0.0) > 0:
            found.setdefault(device.kind.peak[name], []).append(name)
    return {peak: ", ".join(names) for peak, names in sorted(found.items(), reverse=True)}


def _peak_marks(peaks: Mapping[float, str], fastest: float, across: _Scale, up: _Scale) -> Iterable[Mark]:
    below = -math.inf
    for peak, name in peaks.items():
        y, start = up.at(peak), across.at(max(peak / fastest, 10.0**across.low))
        # Peaks that are close together write under their line.
        label_y = y - 5 if y - below > 20 else y + 13
        below = label_y
        yield Mark(start, y, across.end, y, f"{name} {rate_text(peak, 'FLOP/s')}", 0.0, label_y)


def _slope(bandwidth: float, name: str, peak: float, across: _Scale, up: _Scale) -> Mark:
    """A bandwidth's line, from where it enters the frame to the highest peak."""
    start = max(10.0**across.low, 10.0**up.low / bandwidth)
    end = min(peak / bandwidth if peak else math.inf, 10.0**across.high, 10.0**up.high / bandwidth)
    x1, y1, x2, y2 = across.at(start), up.at(start * bandwidth), across.at(end), up.at(end * bandwidth)
    return Mark(x1, y1, x2, y2, f"{name} {rate_text(bandwidth, 'B/s')}", math.degrees(math.atan2(y2 - y1, x2 - x1)))


def _points(
    problem: Problem,
    spots: Mapping[int, tuple[float, float]],
    seconds: Mapping[int, float],
    across: _Scale,
    up: _Scale,
) -> Iterable[Point]:
    """Circles, ops at one spot being one, those of most time first so that small ones lie on top."""
    merged: dict[tuple[float, float], list[int]] = {}
    for node, (x, y) in spots.items():
        merged.setdefault((across.at(x), up.at(y)), []).append(node)
    times = {spot: sum(seconds[node] for node in nodes) for spot, nodes in merged.items()}
    longest = max(times.values())
    for (x, y), nodes in sorted(merged.items(), key=lambda item: (-times[item[0]], item[0])):
        intensity, achieved = spots[nodes[0]]
        names = listed([f"{problem.nodes[node].name} ({problem.nodes[node].op_type})" for node in nodes])
        figures = f"{_number(intensity)} FLOPs/byte, {rate_text(achieved, 'FLOP/s')}, {seconds_text(times[x, y])}"
        radius = round(2.5 + 8 * math.sqrt(times[x, y] / longest), 1)
        yield Point(x, y, radius, "\n".join([*names, figures]), problem.nodes[nodes[0]].name)


def _number(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:.3g}" if value < 1e3 else f"{value:,.0f}"
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def rate_text(rate: float, unit: str) -> str:
    """A rate for people: `117 TFLOP/s`, `1.79 TB/s`."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rate >= scale:
            return f"{rate / scale:.4g} {prefix}{unit}"
    return f"{rate:.3g} {unit}"
