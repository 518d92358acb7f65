"""What CP-SAT knows of streamed weights: the rule of `streaming.py` as constraints on the slot model's variables.

Of a device's weights in the order in which they are kept, each has a running sum of the bytes up to it. What of that is
above the room in fast memory is streamed, at most the weight itself. Users in a slot then take so much longer. Solvers
lower times, so variables only need to be large enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ortools.sat.python import cp_model

from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import places_on

_PARTS = 10_000_000


@dataclass(frozen=True)
class _Kept:
    """A weight on a place as one device keeps it: `size` of it, its variables, and the sum of sizes up to it."""

    number: int
    place: int
    size: int
    resident: Any
    full: Any
    streamed: Any
    total: Any


@dataclass(frozen=True)
class _Longer:
    """What a user in a slot takes longer for a weight, as a variable in ticks of a length."""

    number: int
    user: int
    slot: int
    full_ticks: int
    variable: Any


class SlotStreams:
    """The variables. `at` has a literal for each node and slot, `slots` the place of each slot."""

    def __init__(
        self, model: cp_model.CpModel, problem: Problem, slots: Sequence[int], at: Sequence[Mapping[int, Any]]
    ) -> None:
        self.model, self.problem, self.slots, self.at = model, problem, slots, at
        self.rooms: dict[int, int] = {}
        self.units: dict[int, int] = {}
        self.peaks: dict[int, Any] = {}
        self.kept: dict[int, list[_Kept]] = {device: self._keep(device) for device in problem.streaming}
        self.longer: dict[float, list[_Longer]] = {}

    @property
    def roundings(self) -> int:
        """How many terms are rounded."""
        return sum(len(self.problem.weights[kept.number].users) for found in self.kept.values() for kept in found)

    def busy(self, slot: int, tick: float) -> Iterator[Any]:
        """What a slot takes longer, in ticks."""
        if tick not in self.longer:
            self.longer[tick] = list(self._lengthen(tick))
        return (longer.variable for longer in self.longer[tick] if longer.slot == slot)

    def _keep(self, device: int) -> list[_Kept]:
        model, problem = self.model, self.problem
        places = [place for place in places_on(problem, device) if place in set(self.slots)]
        room = problem.devices[device].fast_bytes or 0
        pairs = [
            (number, place, size)
            for number in reversed(problem.streamed_first)
            for place in reversed(places)
            if (size := problem.weights[number].size_bytes.get(place, 0))
        ]
        unit = self.units[device] = max(max((room, *(size for *_, size in pairs))) // _PARTS, 1)
        self.rooms[device] = room // unit
        peaks = list(self._peaks(places, unit))
        most = max((size for *_, size in peaks), default=0)
        total = self.peaks[device] = self._peak(device, peaks, most)
        found: list[_Kept] = []
        for number, place, size_bytes in pairs:
            size = max(round(size_bytes / unit), 1)
            most += size
            name = f"{number}@{place}/{device}"
            resident, full = model.new_bool_var(f"kept{name}"), model.new_bool_var(f"full{name}")
            streamed, after = model.new_int_var(0, size, f"streamed{name}"), model.new_int_var(0, most, f"total{name}")
            for user in problem.weights[number].users:
                for slot, literal in self.at[user].items():
                    if self.slots[slot] == place:
                        model.add_implication(literal, resident)
            model.add(after == total + size * resident)
            model.add(streamed >= size * resident).only_enforce_if(full)
            model.add(streamed >= after - self.rooms[device]).only_enforce_if([full.negated(), resident])
            found.append(_Kept(number, place, size, resident, full, streamed, after))
            total = after
        return found

    def _peak(self, device: int, peaks: Sequence[tuple[int, int, int]], most: int) -> Any:
        """The largest activations on a device, which are kept before any weight."""
        peak = self.model.new_int_var(0, most, f"fast peak{device}")
        for node, place, size in peaks:
            literals = [literal for slot, literal in self.at[node].items() if self.slots[slot] == place]
            if size and literals:
                self.model.add(peak >= size * sum(literals))
        return peak

    def _peaks(self, places: Sequence[int], unit: int) -> Iterator[tuple[int, int, int]]:
        for node, data in enumerate(self.problem.nodes):
            for place, option in data.options.items():
                if place in places and place in self.problem.allowed[node]:
                    yield node, place, round(option.activation_bytes / unit)

    def _lengthen(self, tick: float) -> Iterator[_Longer]:
        """For each user and slot a variable; where several devices of a group stream, the longest counts."""
        known: dict[tuple[int, int, int], Any] = {}
        for device in self.kept:
            for kept in self.kept[device]:
                weight = self.problem.weights[kept.number]
                for user in weight.users:
                    ticks = round(weight.streaming_s(user, kept.place) / tick)
                    for slot, literal in self.at[user].items() if ticks else ():
                        if self.slots[slot] != kept.place:
                            continue
                        key = kept.number, user, slot
                        fresh = key not in known
                        if fresh:
                            known[key] = self.model.new_int_var(0, ticks, f"longer{kept.number}/{user}@{slot}")
                        self.model.add(kept.size * known[key] >= ticks * kept.streamed).only_enforce_if(literal)
                        if fresh:
                            yield _Longer(kept.number, user, slot, ticks, known[key])

    def hint(self, place: Sequence[int], slot_of: Sequence[int], assign: Callable[[Any, int], None]) -> None:
        """Gives every variable its value where nodes are on these places, in these slots."""
        streamed: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for device, kept in self.kept.items():
            peaks = self._peaks(places_on(self.problem, device), self.units[device])
            total = max((size for node, used, size in peaks if place[node] == used), default=0)
            assign(self.peaks[device], total)
            for each in kept:
                there = any(place[user] == each.place for user in self.problem.weights[each.number].users)
                total += each.size * there
                over = min(max(total - self.rooms[device], 0), each.size) if there else 0
                assign(each.resident, int(there))
                assign(each.full, int(there and over == each.size))
                assign(each.streamed, over)
                assign(each.total, total)
                streamed.setdefault((each.number, each.place), []).append((over, each.size))
        for longer in chain.from_iterable(self.longer.values()):
            here = slot_of[longer.user] == longer.slot
            parts = streamed[longer.number, self.slots[longer.slot]]
            assign(longer.variable, max(-(-longer.full_ticks * over // size) for over, size in parts) if here else 0)
