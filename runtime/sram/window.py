"""From an access to memory: which elements all items of a box visit, as one strided view.

A *box* is a set of items whose registers `r.*.size` agree: a block of steps of each range of the grid. An access is
affine, so what all items of a box visit is one strided view with a leading dimension for each range (of length 1 where
the access does not depend on it), which numpy moves in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gimlet.runtime.sram.binding import BoundAccess, BoundKernel, BoundRange, evaluate
from gimlet.runtime.sram.program import REGISTER_PREFIX

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Box:
    """`first` and `counts` are the block of steps in each range of the grid, in order; `sizes` the size registers."""

    names: tuple[str, ...]
    first: tuple[int, ...]
    counts: tuple[int, ...]
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class Window:
    """The visited positions: `base` plus every grid step (`grid`: a count and a move for each range) and counter.

    `counters` are (dimension, step, size), dimension −1 for a repetition; `tile_shape` is what the tile gets.
    """

    shape: tuple[int, ...]
    base: tuple[int, ...]
    grid: tuple[tuple[int, tuple[int, ...]], ...]
    counters: tuple[tuple[int, int, int], ...]
    tile_shape: tuple[int, ...]

    @property
    def empty(self) -> bool:
        return 0 in self.tile_shape

    @property
    def grid_counts(self) -> tuple[int, ...]:
        return tuple(count for count, _ in self.grid)

    def extremes(self, dim: int) -> tuple[int, int]:
        """The smallest and largest position in a dimension."""
        low = high = self.base[dim]
        for count, move in self.grid:
            reach = move[dim] * (count - 1)
            low, high = low + min(0, reach), high + max(0, reach)
        for counter, step, size in self.counters:
            if counter == dim:
                reach = step * (size - 1)
                low, high = low + min(0, reach), high + max(0, reach)
        return low, high

    def outside(self) -> tuple[int, int] | None:
        """A dimension with a position outside the tensor, and −1 or 1 for the side; None if all are inside."""
        for dim, size in enumerate(self.shape):
            low, high = self.extremes(dim)
            if low < 0:
                return dim, -1
            if high >= size:
                return dim, 1
        return None

    def corner(self, dim: int, side: int) -> tuple[int, ...]:
        """The step of each range at which the position in `dim` goes furthest to a side."""
        return tuple(0 if move[dim] * side <= 0 else count - 1 for count, move in self.grid)

    def shifted(self, padding: Sequence[tuple[int, int]]) -> Window:
        """The same positions in a tensor that has a border of `padding` elements on both sides of each dimension."""
        shape = tuple(size + low + high for size, (low, high) in zip(self.shape, padding, strict=True))
        base = tuple(position + low for position, (low, _) in zip(self.base, padding, strict=True))
        return replace(self, shape=shape, base=base)

    def standing(self, counter: int) -> Window:
        """The positions with one counter at its first step only."""
        dim, step, _ = self.counters[counter]
        return replace(self, counters=(*self.counters[:counter], (dim, step, 1), *self.counters[counter + 1 :]))

    def whole_blocks(self, block: int) -> bool:
        """Whether the last counter runs along the last dimension over whole blocks, or to its end, for every item."""
        last = len(self.shape) - 1
        dim, step, size = self.counters[-1]
        moves = [move[last] for count, move in self.grid if count > 1]
        if dim != last or step != 1 or self.base[last] % block or any(move % block for move in moves):
            return False
        return not size % block or (self.base[last] + size == self.shape[last] and not any(moves))

    @property
    def strides(self) -> list[int]:
        """Elements from one position to the next in each dimension."""
        strides = [1] * len(self.shape)
        for dim in range(len(self.shape) - 2, -1, -1):
            strides[dim] = strides[dim + 1] * self.shape[dim + 1]
        return strides

    def positions(self, skip: int) -> list[Array]:
        """The position in each dimension of every visited element, without counter `skip`, ready to broadcast."""
        rank = len(self.grid) + len(self.counters)
        found: list[Array] = [np.array(base, np.int64).reshape((1,) * rank) for base in self.base]
        for axis, (count, move) in enumerate(self.grid):
            steps = np.arange(count, dtype=np.int64).reshape((-1,) + (1,) * (rank - axis - 1))
            found = [each + distance * steps if distance else each for each, distance in zip(found, move, strict=True)]
        for number, (dim, step, size) in enumerate(self.counters):
            if dim >= 0 and number != skip:
                axis = len(self.grid) + number
                found[dim] = found[dim] + step * np.arange(size, dtype=np.int64).reshape(
                    (-1,) + (1,) * (rank - axis - 1)
                )
        return found

    def addresses(self, positions: Sequence[Array]) -> Array:
        """The element numbers at positions, one array a dimension."""
        total = positions[0] * self.strides[0]
        for position, stride in zip(positions[1:], self.strides[1:], strict=True):
            total = total + position * stride
        return np.asarray(total)

    def view(self, flat: Array) -> Array:
        """The visited elements of a contiguous array: a dimension for each range, then one for each counter."""
        strides = self.strides
        item = flat.itemsize
        view_shape = [count for count, _ in self.grid] + [size for _, _, size in self.counters]
        steps = [sum(m * s for m, s in zip(move, strides, strict=True)) * item for _, move in self.grid]
        steps += [step * strides[dim] * item if dim >= 0 else 0 for dim, step, _ in self.counters]
        offset = sum(position * stride for position, stride in zip(self.base, strides, strict=True)) * item
        return np.ndarray(view_shape, flat.dtype, flat, offset, steps)

    def as_tile(self, view: Array) -> Array:
        """A view with its counters joined into the dimensions of the tile."""
        return view.reshape((*self.grid_counts, *self.tile_shape))

    def from_tile(self, tile: Array) -> Array:
        """What a tile holds with the dimensions split into counters."""
        leading = tile.shape[: len(self.grid)]
        return tile.reshape((*leading, *(size for _, _, size in self.counters)))


def first_blocks(seen: Window, block: int) -> tuple[Array, Array]:
    """For each step of the grid the block of `block` elements that the first and the last visited element are in."""
    strides = seen.strides
    low = high = sum(position * stride for position, stride in zip(seen.base, strides, strict=True))
    for dim, step, size in seen.counters:
        reach = 0 if dim < 0 else step * strides[dim] * (size - 1)
        low, high = low + min(0, reach), high + max(0, reach)
    moved = np.zeros((1,) * len(seen.grid), np.int64)
    for axis, (count, move) in enumerate(seen.grid):
        distance = sum(m * s for m, s in zip(move, strides, strict=True))
        moved = moved + distance * np.arange(count).reshape((-1,) + (1,) * (len(seen.grid) - axis - 1))
    return (moved + low) // block, (moved + high) // block


def items_of(kernel: BoundKernel, box: Box) -> Array:
    """The number of every item of a box, a dimension for each range of the grid."""
    item = np.zeros((1,) * len(box.names), np.int64)
    for axis, (name, first, count) in enumerate(zip(box.names, box.first, box.counts, strict=True)):
        steps = np.arange(first, first + count).reshape((-1,) + (1,) * (len(box.names) - axis - 1))
        item = item * kernel.counts[name] + steps
    return item


def window(access: BoundAccess, box: Box, loops: Mapping[str, int], sizes: Mapping[str, int]) -> Window:
    """What `access` visits for the items of `box`, with loops at the given steps and size registers `sizes`."""
    base = list(access.base)
    for name, step in loops.items():
        if name in access.moves:
            for dim, move in enumerate(access.moves[name]):
                base[dim] += move * step
    grid: list[tuple[int, tuple[int, ...]]] = []
    still = (0,) * len(base)
    for name, first, count in zip(box.names, box.first, box.counts, strict=True):
        move = access.moves.get(name)
        if move is None:
            grid.append((1, still))
            continue
        grid.append((count, move))
        for dim, distance in enumerate(move):
            base[dim] += distance * first
    counters: list[tuple[int, int, int]] = []
    tile_shape: list[int] = []
    for group in access.axes:
        length = 1
        for axis in group:
            size = evaluate(axis.size, sizes)
            counters.append((axis.dim, axis.step, size))
            length *= size
        tile_shape.append(length)
    return Window(access.shape, tuple(base), tuple(grid), tuple(counters), tuple(tile_shape))


def reach(access: BoundAccess, kernel: BoundKernel) -> list[tuple[int, int]]:
    """For each dimension the smallest and largest position that any item of the kernel can visit."""
    bounds: list[tuple[int, int]] = []
    for dim, base in enumerate(access.base):
        low = high = base
        for name, move in access.moves.items():
            distance = move[dim] * (kernel.counts[name] - 1)
            low, high = low + min(0, distance), high + max(0, distance)
        for axis in (axis for group in access.axes for axis in group if axis.dim == dim):
            distance = axis.step * (evaluate(axis.size, kernel.largest) - 1)
            low, high = low + min(0, distance), high + max(0, distance)
        bounds.append((low, high))
    return bounds


def boxes(kernel: BoundKernel, limit: int) -> list[Box]:
    """The grid cut into boxes: full steps and tails apart, and no more than about `limit` items in each."""
    blocks: list[int] = []
    room = max(1, limit)
    for each in reversed(kernel.grid):
        blocks.insert(0, min(max(kernel.counts[each.name], 1), room))
        room = max(1, room // blocks[0])
    found = [Box((), (), (), {})]
    for each, block in zip(kernel.grid, blocks, strict=True):
        found = [_with_range(box, each, piece) for box in found for piece in _pieces(each, block, box.sizes)]
    return found


def _pieces(each: BoundRange, block: int, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """The steps of a range in blocks, its last one apart if that is not full: the first, how many, and their size."""
    full, tail = each.steps(sizes)
    found = [(first, min(block, full - first), each.step) for first in range(0, full, block)]
    return found + ([(full, 1, tail)] if tail else [])


def _with_range(box: Box, each: BoundRange, piece: tuple[int, int, int]) -> Box:
    first, count, size = piece
    sizes = {**box.sizes, f"{REGISTER_PREFIX}{each.name}.size": size}
    return Box((*box.names, each.name), (*box.first, first), (*box.counts, count), sizes)


def item_of(kernel: BoundKernel, steps: Sequence[int]) -> int:
    """The number of the item at the given step of each range of the grid, the last range fastest."""
    item = 0
    for each, step in zip(kernel.grid, steps, strict=True):
        item = item * kernel.counts[each.name] + step
    return item
