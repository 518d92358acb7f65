"""A short way through a model's joints on which every device gets its least share of FLOPs: a start for the search.

The graph is seen as in `latency_bound`: joints in a row, blocks between them. A *label* is a way to one joint on one
place: its seconds, and the FLOPs that each device with a share has on it. Labels are extended joint by joint; shares
are divided into buckets, and of two labels in one bucket only the faster is kept, as long as none with more FLOPs
everywhere is faster. A share has the more buckets the longer its device takes for it: where a host needs a hundred
times as long as an accelerator, what it has too much of is what costs. Whole ops are counted, so that what comes out
keeps the shares. It is no proof that it is best.

Cost, measured: 3 to 5 s for 340 ops, four places and three shares, on a busy core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from gimlet.compiler.placement.bounds.block_bound import BlockTable, Ends, solve_block
from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation, complete
from gimlet.compiler.placement.bounds.share_seconds import share_seconds

Floats = NDArray[np.float64]
_CELLS = 20_000
_FEWEST = 8
"""Buckets of a share."""
_BUDGET = 20_000


@dataclass(frozen=True)
class _Labels:
    """Labels of one joint on one place: seconds, FLOPs by share, and where each is from (start place, its label)."""

    seconds: Floats
    flops: Floats
    parent: NDArray[np.int64]


@dataclass
class _Trail:
    """The labels of every joint by place, and the places of blocks' nodes by (start, end)."""

    labels: list[dict[int, _Labels]] = field(default_factory=list[dict[int, _Labels]])
    inner: list[dict[tuple[int, int], tuple[int, ...]]] = field(
        default_factory=list[dict[tuple[int, int], tuple[int, ...]]]
    )


def share_path(relaxation: LatencyRelaxation, choice: int) -> tuple[int, ...] | None:
    """The places of all nodes on the best way that was kept; None where no way keeps the shares, or time is up."""
    return _SharePath(relaxation, choice).run()


class _SharePath:
    """The search with one amount of leaving out (`choice` of `LatencyRelaxation`)."""

    def __init__(self, relaxation: LatencyRelaxation, choice: int) -> None:
        self.problem = relaxation.problem
        self.joints = relaxation.joints(choice)
        zero = [[0.0] * len(self.problem.places) for _ in self.problem.nodes]
        self.table = BlockTable(relaxation.relaxation.seconds, self.problem, zero, _BUDGET, relaxation.until)
        shares = self.problem.rules.min_share
        self.devices = [device for device, share in sorted(shares.items()) if share > 0]
        self.goal = np.array([shares[device] for device in self.devices])
        self.buckets = _buckets([share_seconds(self.problem, device, shares[device]) for device in self.devices])
        total = max(self.problem.total_flops, 1.0)
        self.part = [node.flops / total for node in self.problem.nodes]

    def run(self) -> tuple[int, ...] | None:
        here = {-1: _Labels(np.zeros(1), np.zeros((1, len(self.devices))), np.full((1, 2), -1))}
        trail = _Trail()
        for step in range(len(self.joints.inner)):
            if perf_counter() > self.table.until:
                return None
            trail.inner.append({})
            here = {
                end: found
                for end in self.joints.ends(step)
                if (found := self._extended(here, step, end, trail.inner[-1])) is not None
            }
            trail.labels.append(here)
        return self._read(trail) if here else None

    def _read(self, trail: _Trail) -> tuple[int, ...]:
        chosen = [-1] * len(self.problem.nodes)
        end, index = -1, int(trail.labels[-1][-1].seconds.argmin())
        for step in reversed(range(len(trail.labels))):
            start, index_before = (int(entry) for entry in trail.labels[step][end].parent[index])
            for node, place in zip(self.joints.inner[step], trail.inner[step][start, end], strict=True):
                chosen[node] = place
            if step:
                chosen[self.joints.nodes[step - 1]] = start
            end, index = start, index_before
        return complete(self.problem, chosen)

    def _extended(
        self, here: dict[int, _Labels], step: int, end: int, inner: dict[tuple[int, int], tuple[int, ...]]
    ) -> _Labels | None:
        """The labels of joint `step` on place `end`; None where there are none."""
        block = self.joints.block(step)
        seconds: list[Floats] = []
        flops: list[Floats] = []
        parents: list[NDArray[np.int64]] = []
        for start, labels in here.items():
            taken, places = solve_block(self.table, block, Ends(start, end))
            inner[start, end] = places
            given = self._given(block.inner, places)
            if end >= 0:
                given = given + self._given((block.last,), (end,))
            seconds.append(labels.seconds + taken)
            flops.append(np.minimum(labels.flops + given, self.goal))
            numbers = np.arange(len(labels.seconds))
            parents.append(np.stack([np.full_like(numbers, start), numbers], axis=1))
        if not seconds:
            return None
        found = _Labels(np.concatenate(seconds), np.concatenate(flops), np.concatenate(parents))
        if end >= 0:
            return self._kept(found)
        enough = (found.flops >= self.goal * (1 - 1e-9)).all(axis=1)
        return _Labels(found.seconds[enough], found.flops[enough], found.parent[enough]) if enough.any() else None

    def _kept(self, labels: _Labels) -> _Labels:
        """One label a bucket, without those that one in a higher bucket is better than."""
        bucket = np.minimum((labels.flops / self.goal * self.buckets + 1e-9).astype(np.int64), self.buckets)
        shape = tuple(int(count) + 1 for count in self.buckets)
        key: NDArray[np.int64] = np.atleast_1d(np.ravel_multi_index(tuple(bucket.T), shape))
        order = np.lexsort((labels.seconds, key))
        chosen = order[np.flatnonzero(np.diff(key[order], prepend=-1))]
        least = np.full(shape, np.inf)
        least[tuple(bucket[chosen].T)] = labels.seconds[chosen]
        for axis in range(len(shape)):
            least = np.flip(np.minimum.accumulate(np.flip(least, axis), axis), axis)
        best = chosen[least[tuple(bucket[chosen].T)] >= labels.seconds[chosen]]
        return _Labels(labels.seconds[best], labels.flops[best], labels.parent[best])

    def _given(self, nodes: Sequence[int], places: Sequence[int]) -> Floats:
        """Parts of all FLOPs that each device with a share has of `nodes`."""
        given = np.zeros(len(self.devices))
        for node, place in zip(nodes, places, strict=True):
            device = self.problem.device_of[place]
            if device in self.devices:
                given[self.devices.index(device)] += self.part[node]
        return given


def _buckets(seconds: Sequence[float]) -> NDArray[np.int64]:
    """How many buckets each share has, of those that there may be in all: as its seconds are, and some at least."""
    counts = np.full(len(seconds), _FEWEST, dtype=np.int64)
    logs = np.log(np.maximum(seconds, 1e-30))
    left = float(np.log(_CELLS))
    order = np.argsort(logs)
    for position, number in enumerate(order):
        mean = float(np.mean(logs[order[position:]]))
        even = left / (len(order) - position)
        counts[number] = max(int(np.exp(even + logs[number] - mean)) - 1, _FEWEST)
        left -= float(np.log(counts[number] + 1))
    return counts
