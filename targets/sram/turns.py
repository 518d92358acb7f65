"""Chiplets in turn: each has some of a segment's ops, with their weights, and hands on to the next.

Where one chiplet has no room for all weights, they can be spread over all chiplets; then every kernel is on all of
them, and what it loads and stores crosses between them. Where kernels are short it is quicker to have all of an op on
one chiplet, as few as hold the weights: only what goes from one to the next crosses. An op whose weights no chiplet has
room for is on all of them. The program is timed as others are, so that this is a choice like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from gimlet.dialects.onnx import OnnxOp
from gimlet.passes.refusal import RefusedError
from gimlet.runtime.sram.ordering import transfers
from gimlet.runtime.sram.program import EVERYWHERE, Kernel, Program, Scatter, Store, Tensor
from gimlet.targets.sram.builder import ProgramBuilder
from gimlet.targets.sram.precision import resident_bytes


def turns(ops: Sequence[OnnxOp], types: Mapping[OnnxOp, str], builder: ProgramBuilder, more: int) -> dict[OnnxOp, int]:
    """The chiplet of each op, in order, each with as much of the weights: on `more` chiplets than could hold them.

    RefusedError where there are no more.
    """
    sizes = {op: resident_bytes({op: types[op]}) if op in types else 0 for op in ops}
    chiplets, cores = builder.whole.parts, builder.whole.group
    room = cores * builder.homes.room
    large = {op for op, size in sizes.items() if size > room}
    room -= sum(sizes[op] for op in large) / chiplets
    total = sum(size for op, size in sizes.items() if op not in large)
    count = ceil(total / room) + more if room > 0 else chiplets + 1
    if count > chiplets:
        raise RefusedError(f"its weights do not fit {chiplets} chiplets in turn")
    found: dict[OnnxOp, int] = {}
    before = 0.0
    for op in ops:
        own = 0 if op in large else sizes[op]
        turn = min(count - 1, int((before + own / 2) * count / total)) if total else 0
        found[op] = EVERYWHERE if op in large else turn
        before += own
    return found


def on_chiplets(program: Program) -> Program:
    """The program with each tensor on the chiplet of the first kernel that makes it, or else that reads it."""
    places: dict[str, int] = {}
    for writes in (True, False):
        for kernel in program.kernels:
            for name in _used(kernel, writes):
                places.setdefault(name, kernel.chiplet)
    return replace(program, tensors=tuple(_on(each, places.get(each.name, EVERYWHERE)) for each in program.tensors))


def _used(kernel: Kernel, writes: bool) -> list[str]:
    return [each.access.tensor for each in transfers(kernel) if isinstance(each, Store | Scatter) == writes]


def _on(tensor: Tensor, chiplet: int) -> Tensor:
    """The tensor on a chiplet, whose cores have it whole."""
    if chiplet == EVERYWHERE or tensor.space == "lpddr":
        return tensor
    return replace(tensor, chiplet=chiplet, width=0)
