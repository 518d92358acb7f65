"""What ops cost longer on a device where their weights are streamed from its larger memory, as targets describe it.

An op takes the longer of what it takes with its weights in fast memory and what reading them takes
(`Target.weight_store`); what it reads of them in a run is `work_of`'s: of an embedding some rows, of experts those that
tokens reach. So streaming all of them costs `max(read - seconds, 0)` more, split over its weights by their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gimlet.compiler.placement.model.problem import DeviceSpec, Option, Weight
from gimlet.compiler.placement.reading.graph import Unit
from gimlet.dialects.onnx.work import work_of
from gimlet.targets.api import WeightStore

Stores = Mapping[int, WeightStore]


def with_fast_memory(devices: Sequence[DeviceSpec], device_of: Sequence[int], stores: Stores) -> tuple[DeviceSpec, ...]:
    """The devices with the room that targets keep weights in; `stores` are by place. Groups have their members'."""
    rooms = {device_of[place]: store.room_bytes for place, store in sorted(stores.items(), reverse=True)}
    return tuple(
        device if device.members or number not in rooms else replace(device, fast_bytes=rooms[number])
        for number, device in enumerate(devices)
    )


@dataclass(frozen=True)
class Reading:
    """The part of its weights that an op reads in a run, and its FLOPs."""

    part: float
    flops: float


def with_streams(
    weights: Sequence[Weight], options: list[dict[int, Option]], readings: Sequence[Reading], stores: Stores
) -> list[Weight]:
    """The weights with what streaming them takes and the order in which they are streamed.

    First go those that are read least a byte, then those whose users compute longest a byte: the rest of their reading
    is hidden. An op whose weights alone are more than the room streams some of them in `options` already, which is
    taken out there: placement adds it back.
    """
    if not stores:
        return list(weights)
    used: dict[tuple[int, int], int] = {}
    for weight in weights:
        for place in stores.keys() & weight.size_bytes.keys():
            for user in weight.users:
                used[user, place] = used.get((user, place), 0) + weight.size_bytes[place]
    more: dict[tuple[int, int], float] = {}
    for (user, place), size in used.items():
        option = options[user].get(place)
        if option is not None and size:
            store = stores[place]
            longer = max(readings[user].part * size * store.seconds_per_byte - option.seconds, 0.0)
            alone = max(size - store.room_bytes, 0) / size
            more[user, place] = longer / (1 - alone)
            options[user][place] = _without(option, alone * more[user, place])

    def urgency(weight: Weight) -> tuple[float, float]:
        size = max(weight.size_bytes.values(), default=0) or 1
        users = [readings[user] for user in weight.users]
        return sum(user.part for user in users), -sum(user.flops for user in users) / size

    order = sorted(range(len(weights)), key=lambda number: (*urgency(weights[number]), weights[number].key))
    rank = {number: position for position, number in enumerate(order)}
    return [
        replace(
            weight,
            stream_s={
                place: {
                    user: more[user, place] * weight.size_bytes[place] / used[user, place]
                    for user in weight.users
                    if more.get((user, place))
                }
                for place in sorted(stores.keys() & weight.size_bytes.keys())
            },
            order=rank[number],
        )
        for number, weight in enumerate(weights)
    ]


def reading_of(unit: Unit, sizes: Mapping[str, int]) -> Reading:
    """What a unit reads of its weights and computes; weights that it reads several times count once."""
    amounts = [work_of(op).at(sizes) for op in unit.ops]
    held = sum(amount.weight_bytes for amount in amounts)
    part = min(sum(amount.weight_read for amount in amounts) / held, 1.0) if held else 1.0
    return Reading(part, float(sum(work_of(op).flops.evaluate(sizes) for op in unit.ops)))


def _without(option: Option, seconds: float) -> Option:
    """The option with so many seconds less, and its energy less in proportion."""
    left = max(option.seconds - seconds, 0.0)
    joules = None if option.joules is None or not option.seconds else option.joules * left / option.seconds
    return option if left == option.seconds else replace(option, seconds=left, joules=joules)
