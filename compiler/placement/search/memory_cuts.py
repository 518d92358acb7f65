"""Starts for problems whose weights do not fit on one device: devices are filled one after another along the graph.

Searches that move one group at a time do not get there: each move would have to make room on a device that is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.memory_blocks import memory_blocks
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import all_streamed


def memory_cuts(problem: Problem, until: float = float("inf")) -> list[tuple[int, ...]]:
    """Runs of the topological order that fill devices one after another, for each class to begin with.

    An op leaves its run where another device saves more than two launches and its inputs and outputs on the way. What
    fast memory has no room for any more takes as long as if all of it were streamed. Each order is tried twice: the
    second time bytes have the prices of `memory_blocks`, so that large tables of which little is read make room for
    others. `until` (of `time.perf_counter`) ends that.
    """
    if not problem.memory_can_bind:
        return []
    classes = device_classes(problem)
    seconds = all_streamed(problem).seconds if problem.streaming else problem.seconds
    finite = np.where(np.isfinite(seconds), seconds, 0.0).sum(axis=0) + 1e9 * np.isinf(seconds).sum(axis=0)
    slowness = [min(float(finite[p]) for p, d in enumerate(problem.device_of) if d == c[0]) for c in classes]
    order = sorted(range(len(classes)), key=lambda number: slowness[number])
    worth = memory_blocks(problem, until)
    price = {
        device: (worth.byte_s.get(members[0], 0.0), worth.fast_byte_s.get(members[0], 0.0))
        for members in classes
        if worth.byte_s.get(members[0]) or worth.fast_byte_s.get(members[0])
        for device in members
    }
    found: dict[tuple[int, ...], None] = {}
    for number in range(len(order)):
        turn = [order[number], *order[:number], *order[number + 1 :]]
        devices = [device for c in turn for device in classes[c]]
        found[_filled(problem, seconds, devices, {})] = None
        if price:
            found[_filled(problem, seconds, devices, price)] = None
    return list(found)


def dealt(problem: Problem, place: Sequence[int]) -> tuple[int, ...]:
    """`place` where each class of devices goes on with its next one when one of them is full.

    What none of them has room for is where it takes least, streamed, among the places that have room.
    """
    if not problem.memory_can_bind:
        return tuple(place)
    seconds = all_streamed(problem).seconds if problem.streaming else problem.seconds
    same: dict[int, list[int]] = {}
    for members in device_classes(problem):
        columns = [[p for p, device in enumerate(problem.device_of) if device == member] for member in members]
        for own in map(list, zip(*columns, strict=True)):
            same |= {p: own[number:] + own[:number] for number, p in enumerate(own)}
    room = _Room(problem)
    shifts = dict.fromkeys((problem.device_of[own[0]] for own in same.values()), 0)
    chosen: list[int] = []
    for node, wanted in enumerate(place):
        own, shift = same[wanted], shifts[problem.device_of[wanted]]
        turns = (turn % len(own) for turn in range(shift, shift + len(own)))
        turn = next((turn for turn in turns if room.fits(node, own[turn])), None)
        if turn is not None:
            shifts[problem.device_of[wanted]] = turn
            found = own[turn]
        else:
            fitting = [p for p in problem.allowed[node] if room.fits(node, p)] or [wanted]
            found = min(fitting, key=lambda p: seconds[node, p])
        room.take(node, found)
        chosen.append(found)
    return tuple(chosen)


def _filled(
    problem: Problem, streamed: NDArray[np.float64], devices: Sequence[int], price: Mapping[int, tuple[float, float]]
) -> tuple[int, ...]:
    """Each node on the first of `devices` that still has room, or where it is much faster.

    `streamed` are seconds of node by place where all weights are streamed, `price` seconds for a byte on a device, and
    for one of its fast memory.
    """
    room = _Room(problem)
    ranked = sorted(range(len(problem.places)), key=lambda p: devices.index(problem.device_of[p]))
    chosen: list[int] = []
    full: set[int] = set()
    for node, allowed in enumerate(problem.allowed):
        fitting = [place for place in ranked if place in allowed and room.fits(node, place)]
        full.update(place for place in allowed if place not in fitting)
        usable = [place for place in fitting if place not in full] or fitting or list(allowed)
        seconds: dict[int, float] = {}
        for p in usable:
            fast = room.fits(node, p, fast=True)
            byte_s, fast_byte_s = price.get(problem.device_of[p], (0.0, 0.0))
            paid_s = (byte_s + fast * fast_byte_s) * room.more(node, p)
            seconds[p] = float((problem.seconds if fast else streamed)[node, p]) + paid_s
        place, fastest = usable[0], min(usable, key=lambda p: seconds[p])
        here, there = problem.device_of[place], problem.device_of[fastest]
        detour = 2 * problem.launch_s[fastest]
        for values, ends in ((problem.inputs_of[node], (here, there)), (problem.outputs_of[node], (there, here))):
            detour += problem.transfer_s(*ends, sum(problem.values[value].size_bytes for value in values))
        if seconds[place] - seconds[fastest] > detour:
            place = fastest
        room.take(node, place)
        chosen.append(place)
    return tuple(chosen)


class _Room:
    """What is left of each device's memory while nodes are given places."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.held: list[set[int]] = [set() for _ in problem.places]
        self.used = [0] * len(problem.devices)
        self.peak = [0] * len(problem.devices)
        self.weights_of: list[list[int]] = [[] for _ in problem.nodes]
        for number, weight in enumerate(problem.weights):
            for user in weight.users:
                self.weights_of[user].append(number)

    def fits(self, node: int, place: int, *, fast: bool = False) -> bool:
        """Whether every device that the place keeps busy has room for the node, or `fast` memory for it."""
        problem = self.problem
        more = self.more(node, place)
        peak = problem.nodes[node].options[place].activation_bytes
        for device in problem.units[problem.device_of[place]]:
            spec = problem.devices[device]
            capacity = spec.fast_bytes if fast else spec.memory_bytes
            if capacity is not None and self.used[device] + more + max(self.peak[device], peak) > capacity:
                return False
        return True

    def take(self, node: int, place: int) -> None:
        more = self.more(node, place)
        peak = self.problem.nodes[node].options[place].activation_bytes
        self.held[place].update(self.weights_of[node])
        for device in self.problem.units[self.problem.device_of[place]]:
            self.used[device] += more
            self.peak[device] = max(self.peak[device], peak)

    def more(self, node: int, place: int) -> int:
        """Bytes of weights that a node brings to a place."""
        weights = self.problem.weights
        return sum(weights[w].size_bytes.get(place, 0) for w in self.weights_of[node] if w not in self.held[place])
