"""The folded graph and the timeline of a report, as geometry.

Everything is computed from the placement's problem and schedule. What comes out are coordinates and plain text; the
template turns them into SVG and HTML, and escapes the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.schedule import Launch, Schedule
from gimlet.compiler.placement.service import PlacementResult
from gimlet.runtime.units import bytes_text, seconds_text
from gimlet.targets.api import Link

_BOX, _PILL, _GAP, _ROW, _HEIGHT, _LEFT = 156, 62, 74, 108, 64, 84
_LISTED: Final = 12


@dataclass(frozen=True)
class Box:
    """A segment, or the model's inputs or outputs (`segment` is then empty), in pixels from the top left."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    tooltip: str
    device: int
    segment: str = ""


@dataclass(frozen=True)
class Arrow:
    """Values from one box to another as an SVG path. `moves` says that they go to another device here."""

    path: str
    label: str
    x: float
    y: float
    tooltip: str
    moves: bool


@dataclass(frozen=True)
class Lane:
    """A device's row of the graph: the middle of it, in pixels."""

    name: str
    y: float
    device: int


@dataclass(frozen=True)
class Graph:
    """The folded graph: one box a segment, in launch order from left to right, in the lane of its device."""

    width: float
    height: float
    lanes: tuple[Lane, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True)
class Bar:
    """Something that takes time: where it starts and how long it is, in percent of the timeline."""

    left: float
    width: float
    label: str
    tooltip: str
    segment: str = ""


@dataclass(frozen=True)
class Track:
    """A lane of the timeline. `device` is None for a direction of a link."""

    name: str
    note: str
    device: int | None
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Timeline:
    """The schedule of one run. `ticks` are positions in percent, with their times."""

    ticks: tuple[tuple[float, str], ...]
    tracks: tuple[Track, ...]


@dataclass
class _Edge:
    """Values between two boxes: their names and bytes."""

    names: list[str] = field(default_factory=list[str])
    size_bytes: int = 0


def graph(result: PlacementResult) -> Graph:
    """The folded graph of a placement."""
    problem, launches = result.problem, sorted(result.schedule.launches, key=lambda launch: launch.segment)
    top = 48.0
    rows = {device: top + _HEIGHT / 2 + row * _ROW for row, device in enumerate(_lanes(problem, result.schedule))}
    boxes = {-1: _pill(_LEFT, rows, problem, "inputs")}
    x = float(_LEFT + _PILL + _GAP)
    for launch in launches:
        device = problem.device_of[launch.place]
        boxes[launch.segment] = _segment_box(problem, launch, x, rows[device] - _HEIGHT / 2, device)
        x += _BOX + _GAP
    last = max(boxes) + 1
    boxes[last] = _pill(x, rows, problem, "outputs")
    order = {segment: column for column, segment in enumerate(boxes)}
    edges = _edges(result, last)
    arrows = [_arrow(boxes, order, number, key, edge) for number, (key, edge) in enumerate(edges.items())]
    lanes = tuple(Lane(problem.devices[device].name, y, device) for device, y in rows.items())
    height = top + len(rows) * _ROW - (_ROW - _HEIGHT) + 12
    return Graph(x + _PILL + 12, height, lanes, tuple(boxes.values()), tuple(arrows))


def _lanes(problem: Problem, schedule: Schedule) -> list[int]:
    return sorted({problem.host, *(problem.device_of[launch.place] for launch in schedule.launches)})


def _pill(x: float, rows: Mapping[int, float], problem: Problem, text: str) -> Box:
    return Box(x, rows[problem.host] - 16, _PILL, 32, (text,), f"the model's {text}", problem.host)


def _segment_box(problem: Problem, launch: Launch, x: float, y: float, device: int) -> Box:
    counts = Counter(problem.nodes[node].op_type for node in launch.nodes).most_common()
    kinds = [f"{kind} ×{count}" for kind, count in counts]
    ops = "1 op" if len(launch.nodes) == 1 else f"{len(launch.nodes)} ops"
    lines = (f"s{launch.segment} · {ops}", f"{problem.places[launch.place].format} · {seconds_text(launch.seconds)}")
    summary = _short(", ".join(kinds[:2]) + (", …" if len(kinds) > 2 else ""), 22)
    tooltip = f"s{launch.segment} on {problem.place_name(launch.place)}, {ops}\n" + "\n".join(listed(kinds))
    return Box(x, y, _BOX, _HEIGHT, (*lines, summary), tooltip, device, f"s{launch.segment}")


def _edges(result: PlacementResult, last: int) -> dict[tuple[int, int, bool], _Edge]:
    """Values by (from, to, whether they move to another device here). A value is sent to each device once."""
    problem, placement = result.problem, result.solution.placement
    edges: dict[tuple[int, int, bool], _Edge] = {}
    for value in problem.values:
        source = -1 if value.producer is None else placement.segment[value.producer]
        home = problem.host if value.producer is None else problem.device_of[placement.place[value.producer]]
        readers = {placement.segment[node]: problem.device_of[placement.place[node]] for node in value.consumers}
        there = {home}
        for reader, device in [*sorted(readers.items()), *([(last, problem.host)] if value.is_output else [])]:
            if reader == source:
                continue
            edge = edges.setdefault((source, reader, device not in there), _Edge())
            edge.names.append(value.name)
            edge.size_bytes += value.size_bytes
            there.add(device)
    return dict(sorted(edges.items()))


def _arrow(
    boxes: Mapping[int, Box], order: Mapping[int, int], number: int, key: tuple[int, int, bool], edge: _Edge
) -> Arrow:
    first, second, moves = boxes[key[0]], boxes[key[1]], key[2]
    x1, y1 = first.x + first.width, first.y + first.height / 2
    x2, y2 = second.x, second.y + second.height / 2
    label = bytes_text(edge.size_bytes)
    if order[key[1]] == order[key[0]] + 1:
        half = (x2 - x1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1 + half:.1f} {y1:.1f} {x2 - half:.1f} {y2:.1f} {x2 - 2:.1f} {y2:.1f}"
        at = x1 + half, (y1 + y2) / 2 - (7 if y1 == y2 else 0)
    else:
        # Around the boxes between: through the free strip above the lower of the two lanes.
        strip = max(first.y + first.height / 2, second.y + second.height / 2) - _HEIGHT / 2 - 10 - number % 4 * 7
        out, back = x1 + 12 + number % 5 * 5, x2 - 14 - number % 5 * 5
        path = (
            f"M{x1:.1f} {y1:.1f}C{out:.1f} {y1:.1f} {x1 + 8:.1f} {strip:.1f} {out + 8:.1f} {strip:.1f}"
            f"H{back - 8:.1f}C{x2 - 8:.1f} {strip:.1f} {back:.1f} {y2:.1f} {x2 - 2:.1f} {y2:.1f}"
        )
        at = (out + back) / 2, strip - 4
    ends = " → ".join(box.segment or box.lines[0] for box in (first, second))
    how = "moves to the other device" if moves else "is on the device already"
    tooltip = f"{ends}: {label} {how}\n" + "\n".join(listed(edge.names))
    return Arrow(path, label, *at, tooltip, moves)


def timeline(result: PlacementResult, links: Sequence[Link]) -> Timeline:
    """The schedule over time, one track a device and one a direction of a link that is used.

    `links` are the topology's; they say what the two directions of each are.
    """
    problem, schedule = result.problem, result.schedule
    ends = [item.end_s for item in (*schedule.launches, *schedule.transfers)]
    total = max([schedule.latency_s, *ends], default=0.0) or 1.0
    bars: dict[int, list[Bar]] = {device: [] for device in _lanes(problem, schedule)}
    for launch in schedule.launches:
        name = f"s{launch.segment}"
        text = f"{name} on {problem.place_name(launch.place)}, {len(launch.nodes)} ops\n{_span(launch)}"
        found = bars[problem.device_of[launch.place]]
        found.append(Bar(*_percent(launch.start_s, launch.end_s, total), name, text, name))
    tracks = [
        Track(problem.devices[device].name, _busy(schedule.device_busy_s.get(device, 0.0), total), device, tuple(items))
        for device, items in bars.items()
    ]
    directions = {f"{link.name}>": f"{link.name} {' → '.join(link.between)}" for link in links}
    directions |= {f"{link.name}<": f"{link.name} {' → '.join(reversed(link.between))}" for link in links}
    tracks += [
        Track(directions.get(link, link), _busy(seconds, total), None, tuple(items))
        for link, seconds, items in _link_tracks(problem, schedule, total)
    ]
    step = _step(total / 8)
    ticks = [step * number for number in range(int(total / step + 1e-9) + 1)]
    return Timeline(tuple((100 * tick / total, seconds_text(tick) if tick else "0") for tick in ticks), tuple(tracks))


def _span(item: Launch) -> str:
    return f"{seconds_text(item.start_s)} to {seconds_text(item.end_s)}: {seconds_text(item.seconds)}"


def _busy(seconds: float, total: float) -> str:
    return f"busy {seconds_text(seconds)}, {seconds / total:.1%}"


def _percent(start: float, end: float, total: float) -> tuple[float, float]:
    return round(100 * start / total, 4), round(100 * (end - start) / total, 4)


def _link_tracks(problem: Problem, schedule: Schedule, total: float) -> Iterable[tuple[str, float, list[Bar]]]:
    """For each direction of a link its name, its busy time and its batches: what one segment sends to one device.

    A batch is drawn until the next one leaves, which may be before it has arrived.
    """
    batches: dict[tuple[float, float, int, int], list[int]] = {}
    for item in schedule.transfers:
        batches.setdefault((item.start_s, item.end_s, item.source, item.destination), []).append(item.value)
    tracks: dict[str, list[tuple[float, float, str, str]]] = {}
    for (start, end, source, destination), values in sorted(batches.items()):
        ends = f"{problem.devices[source].name} → {problem.devices[destination].name}"
        size = bytes_text(sum(problem.values[value].size_bytes for value in values))
        names = listed([problem.values[value].name for value in values])
        tooltip = f"{size} {ends}, {seconds_text(start)} to {seconds_text(end)}\n" + "\n".join(names)
        for link, _ in problem.routes[source, destination].links or ((ends, 0.0),):
            tracks.setdefault(link, []).append((start, end, size, tooltip))
    for link, found in sorted(tracks.items()):
        following = [*(start for start, *_ in found[1:]), math.inf]
        bars = [
            Bar(*_percent(start, min(end, after), total), size, tooltip)
            for (start, end, size, tooltip), after in zip(found, following, strict=True)
        ]
        yield link, schedule.link_busy_s.get(link, 0.0), bars


def listed(names: Sequence[str]) -> list[str]:
    """The first names, each cut to a length that a tooltip can show, and how many more there are."""
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return [*(_short(name, 80) for name in names[:_LISTED]), *more]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
