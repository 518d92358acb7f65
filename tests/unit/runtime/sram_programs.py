"""Small programs of the SRAM machine, written by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.ordering import synchronised, with_waits
from gimlet.runtime.sram.program import (
    Access,
    Axis,
    Binding,
    Dim,
    Fill,
    Kernel,
    Load,
    Loop,
    Map,
    Matmul,
    Program,
    Range,
    Statement,
    Store,
    Tensor,
    Tile,
)
from gimlet.runtime.sram.verify import tile_bytes

MACHINE = Machine(chiplets=2, cores=8)
E = Expr.of


def exprs(*values: int | str | Expr) -> tuple[Expr, ...]:
    return tuple(Expr.of(value) for value in values)


def access(
    tensor: str, shape: Sequence[Any], start: Sequence[Any], sizes: Sequence[Any], fill: float | None = None
) -> Access:
    """The box of `sizes` from `start`: a counter for each dimension."""
    axes = tuple((Axis(dim, 1, Expr.of(size)),) for dim, size in enumerate(sizes))
    return Access(tensor, exprs(*shape), exprs(*start), axes, fill)


def placed(tiles: Sequence[Tile]) -> tuple[Tile, ...]:
    """The tiles one after the other."""
    found: list[Tile] = []
    address = 0
    for tile in tiles:
        found.append(replace(tile, address=address))
        address += tile_bytes(tile)
    return tuple(found)


def kernel(grid: Sequence[Range], tiles: Sequence[Tile], body: Sequence[Statement], name: str = "k") -> Kernel:
    return Kernel(name, tuple(grid), placed(tiles), tuple(body))


def program(
    kernels: Sequence[Kernel],
    inputs: dict[str, tuple[str, Sequence[Any]]],
    outputs: dict[str, tuple[str, Sequence[Any]]],
    temporaries: dict[str, tuple[str, Sequence[Any]]] | None = None,
    dims: Sequence[Dim] = (),
    machine: Machine = MACHINE,
    cores: int | None = None,
) -> Program:
    """A program with every tensor at an address of its own, sized for the dimensions' maxima."""
    tensors: list[Tensor] = []
    address = 0
    largest = {dim.name: dim.maximum for dim in dims}
    groups = (("input", inputs), ("output", outputs), ("temporary", temporaries or {}))
    for role, group in groups:
        for name, (dtype, shape) in group.items():
            size = stored_bytes(dtype, tuple(Expr.of(dim).evaluate(largest) for dim in shape))
            tensors.append(Tensor(name, dtype, exprs(*shape), "sram", address, size, role))
            address += -(-size // 64) * 64
    return Program(
        name="p",
        machine=machine,
        format="fp32",
        cores=cores or machine.cores,
        page_bytes=16384,
        local_bytes=1 << 18,
        dims=tuple(dims),
        inputs=tuple(Binding(name, name) for name in inputs),
        outputs=tuple(Binding(name, name) for name in outputs),
        tensors=tuple(tensors),
        kernels=tuple(kernels),
    )


def run(each: Program, weights: np.ndarray | None = None, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs, with dimensions taken from tensors whose shape names them."""
    sizes: dict[str, int] = {}
    for binding in each.inputs:
        for dim, size in zip(each.tensor(binding.tensor).shape, inputs[binding.name].shape, strict=True):
            if len(dim.symbols) == 1 and dim == Expr.symbol(*dim.symbols):
                sizes[next(iter(dim.symbols))] = size
    stored = np.zeros(0, np.uint8) if weights is None else np.frombuffer(weights.tobytes(), np.uint8)
    return Emulator(each, stored).run(inputs, sizes)


def matmul_program(
    rows: int | str = "m",
    depth: int = 100,
    columns: int = 70,
    dtype: str = "f32",
    machine: Machine = MACHINE,
    step: int = 32,
    copies: int = 2,
) -> Program:
    """`y[rows, columns] = x[rows, depth] · w[depth, columns]`."""
    m, n, k = Range("m", E(rows), step), Range("n", E(columns), 64), Range("k", E(depth), 64)
    loads = (
        Load("a", access("x", (rows, depth), (m.start, k.start), (m.size, k.size))),
        Load("b", access("w", (depth, columns), (k.start, n.start), (k.size, n.size))),
    )
    total = "i32" if dtype == "i8" else "f32"
    body = (
        Fill("c", (m.size, n.size), 0),
        Loop(k, (*loads, Matmul("c", "a", "b", "rhs"))),
        Store(access("y", (rows, columns), (m.start, n.start), (m.size, n.size)), "c"),
    )
    tiles = (Tile("a", dtype, (step, 64), copies), Tile("b", dtype, (64, 64), copies), Tile("c", total, (step, 64)))
    return program(
        [kernel((m, n), tiles, body, "matmul")],
        {"x": (dtype, (rows, depth)), "w": (dtype, (depth, columns))},
        {"y": (total, (rows, columns))},
        dims=[Dim("m", 1, 64, 300)] if isinstance(rows, str) else [],
        machine=machine,
    )


def resident_program(adds: bool = False, block: int = 64 * 64, first: int = 0, home: int = 0) -> Program:
    """`y = x · w` with the weights [256, 64] in four blocks, one on each of four cores, each of which has a part of y.

    The parts are rows of y [4, 64], or are added up in y [1, 64].
    """
    g = Range("g", E(256), 64)
    k = Range("k", E(64), 64)
    out = access("y", (1, 64), (0, 0), (1, 64)) if adds else access("y", (4, 64), (g.index, 0), (1, 64))
    body = (
        Loop(
            k,
            (
                Load("a", access("x", (1, 256), (0, g.start), (1, g.size))),
                Load("b", access("w", (256, 64), (g.start, 0), (g.size, 64))),
                Matmul("c", "a", "b", "rhs", begins="k"),
            ),
        ),
        Store(out, "c", adds),
    )
    tiles = (Tile("a", "f32", (1, 64), 2), Tile("b", "f32", (64, 64), 0), Tile("c", "f32", (1, 64), 2))
    made = program(
        [replace(kernel((g,), tiles, body), first=first)],
        {"x": ("f32", (1, 256))},
        {"y": ("f32", (1 if adds else 4, 64))},
    )
    weights = Tensor("w", "f32", exprs(256, 64), "core", 1 << 16, 256 * 64 * 4, "weight", 0, block, home)
    return replace(made, tensors=(*made.tensors, weights))


def two_kernels(machine: Machine = MACHINE) -> Program:
    """`t = relu(x)`, then `y = t · w` with weights that are loaded before the rows."""
    n = Range("n", E(32 * 64), 256)
    rows = [access(name, (32 * 64,), (n.start,), (n.size,)) for name in ("x", "t")]
    body = (Load("a", rows[0]), Map("relu", "a", ("a",)), Store(rows[1], "a"))
    first = kernel([n], [Tile("a", "f32", (256,), 2)], body, "first")
    each = matmul_program(32, 64, 64, machine=machine)
    begin, loop, store = each.kernels[0].body
    assert isinstance(loop, Loop)
    of_x, of_w, product = loop.body
    assert isinstance(of_x, Load)
    of_t = replace(of_x, access=replace(of_x.access, tensor="t"))
    second = replace(each.kernels[0], name="second", body=(begin, replace(loop, body=(of_w, of_t, product)), store))
    second = replace(second, tiles=tuple(replace(tile, address=tile.address + 8192) for tile in second.tiles))
    x, w, y = each.tensors
    tensors = (x, replace(w, role="weight", offset=0), y, replace(x, name="t", role="temporary", address=1 << 16))
    return synchronised(replace(each, tensors=tensors, inputs=each.inputs[:1], kernels=(first, second)))


def unordered(shares: bool = False) -> Program:
    """Two kernels of which the second does not wait for what it reads, or else (`shares`) for memory that it takes."""
    each = two_kernels()
    if not shares:
        return replace(each, kernels=(each.kernels[0], replace(each.kernels[1], body=_at_once(each.kernels[1].body))))
    x, w, y, t = each.tensors
    each = synchronised(replace(each, tensors=(x, w, replace(y, address=x.address), t)))
    begin, loop, store = each.kernels[1].body
    return replace(each, kernels=(each.kernels[0], replace(each.kernels[1], body=(begin, loop, *_at_once([store])))))


def _at_once(body: Sequence[Statement]) -> tuple[Statement, ...]:
    return with_waits(body, lambda _: ())
