"""Feature maps with channels last: how results of convolutions lie in memory, and what is computed from them.

Chiplets have runs of what a tensor is made of. With channels first a chiplet has some channels of every position, so
that nearly all of a patch, or of a row of a 1 × 1 convolution, comes from other chiplets. With channels last it has
positions: rows of products are where they are multiplied, and of patches only those at a border are not.
The value keeps its shape [N, C, ...]: it is a view of a tensor [N, ..., C]. What is given to a segment, and what it
gives, lies as ONNX says.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from gimlet.runtime.expr import ONE
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.targets.sram.builder import ProgramBuilder
from gimlet.targets.sram.expression import Argument, nodes_of, products_of
from gimlet.targets.sram.views import Shape, View


def last(rank: int) -> tuple[int, ...]:
    """The dimensions [N, C, ...] in the order [N, ..., C]."""
    return (0, *range(2, rank), 1)


def first(rank: int) -> tuple[int, ...]:
    """The dimensions [N, ..., C] in the order [N, C, ...]."""
    return (0, rank - 1, *range(1, rank - 1))


def temporary(builder: ProgramBuilder, dtype: str, shape: Shape, is_last: bool = True) -> View:
    """A new tensor for a value of `shape`, with channels last where it has positions and they should be."""
    rank = len(shape)
    if not is_last or rank < 3 or all(size == ONE for size in shape[2:]):
        return builder.temporary(dtype, shape)
    view = builder.temporary(dtype, tuple(shape[axis] for axis in last(rank)))
    builder.channels_last.add(view.tensor)
    return view.transpose(first(rank))


@dataclass(frozen=True)
class Windows:
    """Who reads a feature map at windows: the sizes that it makes, and along the first spatial dimension how."""

    sizes: Shape
    kernel: tuple[int, ...]
    stride: int
    dilation: int


def crosses(builder: ProgramBuilder, windows: Windows, copied: bool = False) -> bool:
    """Whether windows of single channels are read sooner with channels first, though all of the map crosses for that.

    It is written so, or `copied`. With channels last a chiplet has a run of rows, and what an item reads of the rows of
    others crosses for each kernel position.
    """
    machine, dealing = builder.machine, builder.dealing
    if dealing.parts == 1 or len(windows.sizes) < 3:
        return False
    sizes = [builder.bounds.best(size) for size in windows.sizes]
    each = max(1, prod(sizes) // builder.cores // prod(sizes[3:]))
    rows = (min(each, sizes[2]) - 1) * windows.stride + (windows.kernel[0] - 1) * windows.dilation
    chiplets = rows / (sizes[0] * sizes[2] * windows.stride / dealing.parts)
    away = chiplets / 2 if chiplets < 1 else chiplets / (1 + chiplets)
    link = machine.die_bytes_per_cycle * dealing.parts
    halo = 4 * prod(sizes) * prod(windows.kernel) * away / link
    turned = 4 * prod(sizes) * (1 + windows.stride ** (len(sizes) - 2)) / link
    kernel = 2 * machine.network_latency_cycles + machine.semaphore_cycles if copied else 0
    return halo > turned + 2 * machine.die_latency_cycles + kernel


def pays_for_patches(builder: ProgramBuilder, view: View, patches: int, dtype: str) -> bool:
    """Whether a map with channels first is turned, and converted to `dtype`, before `patches` elements of it are read.

    With channels first nearly all of every patch crosses between chiplets, so that what patches share crosses often.
    """
    machine, parts, rank = builder.machine, builder.dealing.parts, len(view.shape)
    if parts == 1 or view.shape[1] == ONE or view.order == last(rank) or view.tensor in builder.channels_last:
        return False
    elements = prod(builder.bounds.best(size) for size in view.shape)
    again = stored_bytes(dtype, (max(0, patches - elements),)) * (parts - 1) / parts
    kernel = 0 if view.dtype != dtype else 2 * machine.network_latency_cycles + machine.semaphore_cycles
    return again / (machine.die_bytes_per_cycle * parts) > 2 * machine.die_latency_cycles + kernel


def are_last(builder: ProgramBuilder, argument: Argument, rank: int) -> bool:
    """Whether a tree reads a feature map of that rank with channels last, or a part of one, or is a convolution.

    Of rank 3 it may be any other matrix that is transposed: only what was made so is one.
    """
    views = (each for each in nodes_of(argument) if isinstance(each, View) and len(each.shape) == rank > 2)
    if any(view.order == last(rank) and (rank > 3 or view.tensor in builder.channels_last) for view in views):
        return True
    return any(product.by_position for product in products_of(argument))


def temporary_for(builder: ProgramBuilder, dtype: str, shape: Shape, argument: Argument) -> View:
    """A new tensor for a tree: with channels last where those of what it reads are."""
    return temporary(builder, dtype, shape, are_last(builder, argument, len(shape)))


def rigid(view: View) -> View | None:
    """A whole tensor, in any order, whose dimensions of size 1 are walked too, so that positions outside are padding.

    None for other views.
    """
    order = view.order
    ordered = view.transpose(order)
    if not ordered.is_whole:
        return None
    return ordered.rigid().transpose([order.index(axis) for axis in range(len(order))])
