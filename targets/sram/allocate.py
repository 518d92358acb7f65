"""Gives every tensor its address: temporaries share shared SRAM over time, weights stay where there is room left.

Tensors whose lives do not overlap may lie in the same place. Lives are counted in kernels, and sizes are those at the
maximum of every dimension. The largest tensors choose first; what does not fit goes to LPDDR: activations spill,
weights are streamed from there by the loads of the kernels that use them, two tiles ahead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.program import Kernel, Tensor, Transfer
from gimlet.targets.sram.builder import Bounds, RefusedError

_LINE = 512


@dataclass(frozen=True)
class Life:
    """The first and last kernel that need a tensor."""

    first: int
    last: int

    def overlaps(self, other: Life) -> bool:
        return self.first <= other.last and other.first <= self.last


def lives(tensors: Mapping[str, Tensor], kernels: Sequence[Kernel]) -> dict[str, Life]:
    """The life of each tensor that a kernel uses: what is given begins before the program, what is left ends after."""
    found: dict[str, Life] = {}
    for index, kernel in enumerate(kernels):
        for statement in kernel.statements():
            if isinstance(statement, Transfer):
                name = statement.access.tensor
                found[name] = Life(found[name].first, index) if name in found else Life(index, index)
    for name, life in found.items():
        role = tensors[name].role
        first = -1 if role in ("input", "state", "weight") else life.first
        last = len(kernels) if role in ("output", "state", "weight") else life.last
        found[name] = Life(first, last)
    return found


def allocate(
    tensors: Mapping[str, Tensor],
    kernels: Sequence[Kernel],
    bounds: Bounds,
    tile_bytes: int,
    sram_bytes: int,
    lpddr_bytes: int,
) -> tuple[Tensor, ...]:
    """The tensors that are used, each with a space, an address and a capacity. RefusedError if they do not fit.

    Blocks of resident weights lie behind the `tile_bytes` of the tiles on each core.
    """
    used = lives(tensors, kernels)
    kept = {name: _sized(tensor, bounds) for name, tensor in tensors.items() if name in used or tensor.role != "weight"}
    spaces = {"sram": _Space(sram_bytes), "lpddr": _Space(lpddr_bytes)}
    placed = {
        name: replace(tensor, address=tile_bytes + tensor.address)
        for name, tensor in kept.items()
        if tensor.space == "core"
    }
    everything = Life(-1, len(kernels))
    for weights in (False, True):
        chosen = [
            tensor for tensor in kept.values() if (tensor.role == "weight") == weights and tensor.name not in placed
        ]
        for tensor in sorted(chosen, key=lambda each: (-each.capacity_bytes, each.name)):
            life = used.get(tensor.name, everything)
            for name, space in list(spaces.items())[tensor.space == "lpddr" :]:
                address = space.take(tensor.capacity_bytes, life)
                if address is not None:
                    placed[tensor.name] = replace(tensor, space=name, address=address)
                    break
            else:
                total = sum(each.capacity_bytes for each in kept.values())
                raise RefusedError(
                    f"its tensors take {total} bytes, the device has {sram_bytes} of SRAM and {lpddr_bytes} of LPDDR"
                )
    return tuple(placed[name] for name in kept)


def _sized(tensor: Tensor, bounds: Bounds) -> Tensor:
    most = tuple(max(0, dim.evaluate(bounds.maximum), dim.evaluate(bounds.optimum)) for dim in tensor.shape)
    return replace(tensor, capacity_bytes=stored_bytes(tensor.dtype, most) if prod(most) else 0)


class _Space:
    """A memory, and who is where in it and when. Tensors begin at whole lines, on each chiplet if it is shared SRAM."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken: list[tuple[int, int, Life]] = []

    def take(self, size: int, life: Life) -> int | None:
        """The lowest address with `size` bytes free for a whole life, which are then taken; None if there is none."""
        address = 0
        for begin, end, other in self.taken:
            if begin < address + size and address < end and other.overlaps(life):
                address = -(-end // _LINE) * _LINE
        if address + size > self.size:
            return None
        self.taken.append((address, address + size, life))
        self.taken.sort(key=lambda each: each[0])
        return address
