"""A lower bound on latency where memory binds: every byte of memory has a price, by Lagrangian relaxation.

The linear program of `memory_blocks.py` says what a byte of each memory is worth. With those prices as charges of the
latency bound, which knows what each block takes exactly, every placement pays for the bytes that it has on a device;
what all memories together can hold is taken off again. So a placement that keeps within them takes at least the bound.
Prices near those of the program are tried in turn, each coordinate up and down, by ever shorter steps.

The places that come up have the bytes of a class of devices about right, and all of them on its first device: see
`memory_cuts.dealt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

from gimlet.compiler.placement.bounds.latency_bound import LatencyRelaxation
from gimlet.compiler.placement.bounds.memory_blocks import MemoryBound, memory_blocks
from gimlet.compiler.placement.model.alike import device_classes
from gimlet.compiler.placement.model.problem import Problem
from gimlet.compiler.placement.model.streaming import fast_bytes_priced

_STEPS = (0.1, 0.05, 0.02, 0.01)
_BUDGET = 20_000
_NEAR = 1e-3
_MOST = 40
"""So many prices are tried at the most."""


@dataclass(frozen=True)
class PricedBound:
    """No placement is quicker than `seconds`. `places` came up on the way, within the memories or not."""

    seconds: float
    places: tuple[tuple[int, ...], ...] = ()


def memory_prices(problem: Problem, best_known: float = float("inf"), until: float = float("inf")) -> PricedBound:
    """The better of both bounds; of 0 where memory does not bind. After `until` (of `perf_counter`) it ends."""
    program = memory_blocks(problem, until)
    if program.seconds in (0.0, float("inf")):
        return PricedBound(program.seconds)
    search = _Search(problem, program, until)
    search.run(best_known)
    return PricedBound(max(program.seconds, search.value), tuple(search.seen))


@dataclass(frozen=True)
class _Price:
    """What a byte on each of some devices may cost: `unit` seconds, times a factor; first `start`."""

    devices: tuple[int, ...]
    unit: float
    start: float


class _Search:
    """Factors of prices: one for each class of devices whose memory is worth something, and one for fast memory."""

    def __init__(self, problem: Problem, program: MemoryBound, until: float) -> None:
        self.problem, self.until = problem, until
        members = {own[0]: tuple(own) for own in device_classes(problem)}
        self.fast = max(program.fast_byte_s.values(), default=0.0)
        worth = {device: byte_s for device, byte_s in sorted(program.byte_s.items()) if byte_s}
        self.prices = [_Price(members[device], byte_s, 1.0) for device, byte_s in worth.items()]
        if not worth and not self.fast:
            # The program hides what is split off behind the mean of the rest. Prices are sought from nothing on, in
            # parts of what makes all bytes of a device as dear as the whole latency.
            self.prices = [
                _Price(members[device], program.seconds / max(problem.devices[device].memory_bytes or 0, 1), 0.0)
                for device in sorted(program.byte_s)
            ]
        self.value = 0.0
        self.tried = 0
        self.seen: dict[tuple[int, ...], None] = {}

    def run(self, best_known: float) -> None:
        """Tries prices until nothing near is better, the bound meets what is known, or time is up."""
        at = [*(price.start for price in self.prices), *([1.0] if self.fast else [])]
        self.value = self._bound(at)
        for step in _STEPS:
            moved = True
            while moved:
                moved = False
                for other in self._near(at, step):
                    enough = self.value >= best_known * (1 - _NEAR) or self.tried >= _MOST
                    if enough or perf_counter() > self.until:
                        return
                    found = self._bound(other)
                    if found > self.value * (1 + 1e-6):
                        self.value, at, moved = found, other, True
                        break

    def _near(self, at: Sequence[float], step: float) -> Iterator[list[float]]:
        for number, factor in enumerate(at):
            for other in (factor - step, factor + step):
                if other >= 0:
                    yield [*at[:number], other, *at[number + 1 :]]

    def _bound(self, factors: Sequence[float]) -> float:
        """The bound with each price times its factor."""
        problem = self.problem
        charged, off = problem, 0.0
        if self.fast:
            charged, off = fast_bytes_priced(problem, factors[-1] * self.fast)
        charge = [[0.0] * len(problem.places) for _ in problem.nodes]
        for price, factor in zip(self.prices, factors, strict=False):
            off += factor * price.unit * sum(problem.devices[device].memory_bytes or 0 for device in price.devices)
            for place in (p for p, device in enumerate(problem.device_of) if device in price.devices):
                for weight in problem.weights:
                    # All users together pay for it at most once, wherever some of them are.
                    paid = factor * price.unit * weight.size_bytes.get(place, 0) / len(weight.users)
                    for user in weight.users:
                        charge[user][place] += paid
        found = LatencyRelaxation(charged, self.until).bound(charge, budget=_BUDGET)
        self.seen[found.place] = None
        self.tried += 1
        return found.seconds - off
