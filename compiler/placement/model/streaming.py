"""Weights that a device's fast memory has no room for: they are read from its larger memory in every run.

A device with `fast_bytes` keeps there the largest activations of any node on it, and then weights. What does not fit is
*streamed*: its users take longer by `Weight.stream_s` for all of the bytes, and by a part of it for a part of them.
Which weights are streamed follows from the places alone: those of a lower `Weight.order` first, the last of them in
part. More fast memory therefore never makes a node longer, nor do shorter `stream_s`.

A bound needs more. With every weight streamed all nodes are longer, and no placement saves more than what the fast
memories can hold at most (`kept_s`) of any figure that adds up nodes: a path, or a device's busy time. Of a path a
price for each byte in fast memory says more (`fast_bytes_priced`): a weight of many bytes of which a run reads few, as
experts are, is then charged what streaming it takes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gimlet.compiler.placement.model.problem import Node, Problem, Weight


@dataclass(frozen=True)
class Streamed:
    """What a placement streams: the part of a weight by (weight, place), seconds by node, and bytes by device."""

    parts: Mapping[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    seconds: Mapping[int, float] = field(default_factory=dict[int, float])
    size_bytes: Mapping[int, int] = field(default_factory=dict[int, int])


NOTHING = Streamed()


def streamed_by(problem: Problem, place: Sequence[int]) -> Streamed:
    """What is streamed where nodes are on these places."""
    if not problem.streaming:
        return NOTHING
    parts: dict[tuple[int, int], float] = {}
    size_bytes: dict[int, int] = {}
    for device in problem.streaming:
        resident = list(_resident(problem, place, device))
        kept = sum(size for *_, size in resident) + _peak(problem, place, device)
        excess = kept - (problem.devices[device].fast_bytes or 0)
        for number, used, size in resident:
            if excess <= 0:
                break
            streamed = min(size, excess)
            excess -= streamed
            size_bytes[device] = size_bytes.get(device, 0) + streamed
            parts[number, used] = max(parts.get((number, used), 0.0), streamed / size)
    seconds: dict[int, float] = {}
    for (number, used), part in parts.items():
        weight = problem.weights[number]
        for user in weight.users:
            if place[user] == used:
                seconds[user] = seconds.get(user, 0.0) + part * weight.streaming_s(user, used)
    return Streamed(parts, seconds, size_bytes)


def _resident(problem: Problem, place: Sequence[int], device: int) -> Iterator[tuple[int, int, int]]:
    """Weights on a device with their place and bytes, in the order in which they are streamed."""
    for number in problem.streamed_first:
        weight = problem.weights[number]
        for used in sorted({place[user] for user in weight.users}):
            size = weight.size_bytes.get(used, 0)
            if size and device in problem.units[problem.device_of[used]]:
                yield number, used, size


def _peak(problem: Problem, place: Sequence[int], device: int) -> int:
    """The largest activations of any node on a device."""
    here = (
        node.options[used].activation_bytes
        for node, used in zip(problem.nodes, place, strict=True)
        if device in problem.units[problem.device_of[used]]
    )
    return max(here, default=0)


def places_on(problem: Problem, device: int) -> list[int]:
    """The places that use a device's memory: its own and those of its groups."""
    return [place for place, on in enumerate(problem.device_of) if device in problem.units[on]]


def stream_s(problem: Problem) -> dict[tuple[int, int], float]:
    """Seconds by (node, place) where all weights are streamed, as far as any could be."""
    streaming = set(problem.streaming)
    found: dict[tuple[int, int], float] = {}
    for weight in problem.weights:
        for place, users in weight.stream_s.items():
            if streaming.isdisjoint(problem.units[problem.device_of[place]]):
                continue
            for user, seconds in users.items():
                found[user, place] = found.get((user, place), 0.0) + seconds
    return found


def all_streamed(problem: Problem, part: float = 1.0) -> Problem:
    """The problem with memory of one level, and nodes that are longer by a part of what streaming all weights takes.

    Bounds on figures are left out: what breaks them here may keep them in `problem`.
    """
    return _slowed(problem, {key: part * seconds for key, seconds in stream_s(problem).items()})


def fast_bytes_priced(problem: Problem, price: float) -> tuple[Problem, float]:
    """The problem in which a weight's users are longer by `price` seconds a byte of it, or by what streaming takes
    where that is less; and how much longer, at most, that makes any path of a placement.

    A weight that is streamed makes its users longer by as much at least, so only what is in fast memories is charged
    too much.
    """
    charging = priced_streaming(problem, price)
    return _slowed(problem, stream_s(charging)), all_kept_s(charging)


def priced_streaming(problem: Problem, price: float) -> Problem:
    """The problem in which streaming a weight takes `price` seconds for each byte of it, or its own time where that is
    less.
    """
    charged = tuple(
        replace(
            weight,
            stream_s={
                place: {user: _least_part(weight, place, price) * seconds for user, seconds in users.items()}
                for place, users in weight.stream_s.items()
            },
        )
        for weight in problem.weights
    )
    return replace(problem, weights=charged)


def _least_part(weight: Weight, place: int, price: float) -> float:
    """The part of a weight's streaming that its bytes cost at a price, at most all of it."""
    whole = sum(weight.stream_s[place].values())
    return min(price * weight.size_bytes.get(place, 0) / whole, 1.0) if whole else 0.0


def dearest_byte(problem: Problem) -> float:
    """The most seconds that a byte in fast memory saves of streaming."""
    rates = [
        sum(users.values()) / weight.size_bytes[place]
        for weight in problem.weights
        for place, users in weight.stream_s.items()
        if weight.size_bytes.get(place)
    ]
    return max(rates, default=0.0)


def _slowed(problem: Problem, longer: Mapping[tuple[int, int], float]) -> Problem:
    def slowed(number: int, node: Node) -> Node:
        options = dict(node.options)
        for place, option in node.options.items():
            more = longer.get((number, place), 0.0)
            power = sum(problem.devices[unit].load_w or 0.0 for unit in problem.units[problem.device_of[place]])
            joules = None if option.joules is None else option.joules + more * power
            options[place] = replace(option, seconds=option.seconds + more, joules=joules)
        return replace(node, options=options)

    return replace(
        problem,
        devices=tuple(replace(device, fast_bytes=None) for device in problem.devices),
        nodes=tuple(slowed(number, node) for number, node in enumerate(problem.nodes)),
        rules=replace(problem.rules, bounds={}),
    )


def kept_s(problem: Problem) -> dict[int, float]:
    """For each device that may stream, the most seconds that its fast memory can save of streaming everything."""
    return {device: _most_kept(problem, device) for device in problem.streaming}


def all_kept_s(problem: Problem, devices: Container[int] | None = None) -> float:
    """The most seconds that all fast memories together can save, or those of some devices."""
    kept = kept_s(problem)
    seconds = sum(kept[device] for device in kept if devices is None or device in devices)
    if any(len(weight.users) > 1 for weight in problem.weights if weight.stream_s):
        return seconds
    # A weight of one user is on one device only.
    longest = (max((sum(users.values()) for users in w.stream_s.values()), default=0.0) for w in problem.weights)
    return min(seconds, sum(longest))


def _most_kept(problem: Problem, device: int) -> float:
    places = places_on(problem, device)
    gains: list[tuple[float, float, int]] = []
    for weight in problem.weights:
        for place in places:
            size = weight.size_bytes.get(place, 0)
            saved = sum(weight.stream_s.get(place, {}).values())
            if size and saved:
                gains.append((saved / size, saved, size))
    room = float(problem.devices[device].fast_bytes or 0)
    total = 0.0
    for rate, saved, size in sorted(gains, reverse=True):
        if size > room:
            return total + rate * room
        total += saved
        room -= size
    return total
