"""The stored form of programs, the rules that every program keeps, and the machine's figures."""

import json
from dataclasses import replace
from math import inf

import pytest
from tests.unit.runtime.sram_programs import (
    access,
    exprs,
    kernel,
    matmul_program,
    program,
    resident_program,
    two_kernels,
    unordered,
)

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.encoding import dumps, loads
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import (
    UNPLACED,
    Access,
    Axis,
    Binding,
    Dim,
    Fill,
    Gather,
    Instruction,
    Iota,
    Load,
    Loop,
    Map,
    Matmul,
    Program,
    Range,
    Reduce,
    Store,
    Tile,
)
from gimlet.runtime.sram.verify import verify

SHAPE = ("n", 64)
N = Range("n", Expr.symbol("n"), 8)
TILES = (Tile("a", "f32", (8, 64), 2), Tile("b", "f32", (8, 64)), Tile("c", "i1", (8, 64)), Tile("i", "i64", (8,)))


def every_instruction() -> Program:
    """A program with each instruction in it, and each kind of operand."""
    here = access("x", SHAPE, (N.start, 0), (N.size, 64), fill=-inf)
    columns = (Axis(1, 2, Expr.const(32)), Axis(-1, 0, Expr.const(2)))
    rows = Access("x", exprs(*SHAPE), exprs(0, 0), ((Axis(0, 1, N.size),), columns))
    k = Range("k", Expr.const(2), 1)
    body = (
        Load("a", here),
        Iota("i", (N.size,), 0, N.start, 1),
        Gather("b", rows, "i", 0),
        Loop(k, (Map("add", "b", ("a", "b")), Map("mul", "b", ("b", 0.1)), Map("div", "b", ("b", Expr.parse("n+1"))))),
        Map("less", "c", ("a", 3)),
        Map("leaky_relu", "b", ("b",), (0.25,)),
        Fill("a", (N.size, Expr.const(64)), Expr.parse("2*n")),
        Map("select", "b", ("c", "a", "b")),
        Store(access("y", SHAPE, (N.start, 0), (N.size, 64)), "b"),
    )
    made = kernel((N,), TILES, body)
    return program(
        [replace(made, sources=("/block/Add", "ünïcode"))],
        {"x": ("f32", SHAPE)},
        {"y": ("f32", SHAPE)},
        dims=[Dim("n", 1, 8, 40)],
    )


def dealt() -> Program:
    """Two kernels with semaphores between them, on two groups of cores, with columns dealt."""
    each = two_kernels()
    return replace(each, parts=2, tensors=tuple(replace(tensor, width=64, copies=2) for tensor in each.tensors))


def together() -> Program:
    """Copies of a block that lie behind each other, on one of several chiplets or on all."""
    each = resident_program(True)
    return replace(each, tensors=tuple(replace(t, copies=2, together=1) if t.block else t for t in each.tensors))


STORED = [every_instruction(), matmul_program(), resident_program(True, first=3, home=3), dealt(), together()]


@pytest.mark.parametrize("each", STORED)
def test_what_is_stored_reads_back(each):
    verify(each)
    text = dumps(each)
    assert loads(text) == each
    assert dumps(loads(text)) == text


def changed(path, value):
    data = json.loads(dumps(every_instruction()))
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 3, "schema 3, this runtime reads 4 to 6"),
        (["kernels"], None, "where an object with inputs, outputs, tensors, kernels belongs"),
        (["cores"], "8", "'8' where an integer belongs"),
        (["cores"], True, "True where an integer belongs"),
        (["name"], 3, "3 where a name belongs"),
        (["machine"], [], r"\[\] where an object with"),
        (["machine", "cores"], 1.5, "cores of an SRAM machine must be an integer"),
        (["tensors", 0, 3], "dram", "'dram' where one of sram, lpddr, core belongs"),
        (["tensors", 0], [1, 2], "where a list of 12 or 13 or 14 or 15 belongs"),
        (["tensors", 0, 2, 0], "n +", "expected a number or a name in expression 'n \\+'"),
        (["kernels", 0, "body", 0, 0], "jump", "where an instruction belongs"),
        (["kernels", 0, "body", 0], [], "where an instruction belongs"),
        (["kernels", 0, "body", 0, 2, 4], {"f": "huge"}, "'huge' where one of inf, -inf, nan belongs"),
        (["kernels", 0, "body", 0, 2, 4], "0", "'0' where a number belongs"),
        (["kernels", 0, "grid"], {}, "where a list belongs"),
    ],
)
def test_malformed_programs(path, value, message):
    with pytest.raises(InputError, match=message):
        loads(changed(path, value))


@pytest.mark.parametrize("schema", [4, 5])
def test_a_program_of_an_older_schema_is_still_read(schema: int):
    """All that it had was everywhere, and its states kept their size."""
    data = json.loads(dumps(matmul_program()))
    data["schema"] = schema
    assert loads(json.dumps(data)) == matmul_program()


def test_a_program_is_json():
    with pytest.raises(InputError, match="is JSON, this is not"):
        loads("{")


def with_kernel(**changes) -> Program:
    each = every_instruction()
    return replace(each, kernels=(replace(each.kernels[0], **changes),))


def with_body(*body: Instruction | Loop, tiles: tuple[Tile, ...] = TILES) -> Program:
    each = every_instruction()
    return replace(each, kernels=(kernel((N,), tiles, body),))


def of(tensor="x", **changes) -> Access:
    return replace(access(tensor, SHAPE, (N.start, 0), (N.size, 64)), **changes)


X = every_instruction()
WEIGHT = replace(X.tensors[0], role="weight")
SMALL = replace(WEIGHT, shape=exprs(99, 64), capacity_bytes=64)
COLUMN = (Axis(1, 1, Expr.const(64)),)
WIDE = (Tile("p", "f32", (64, 65)), Tile("q", "f32", (64, 64)), Tile("s", "f32", (64, 65)))
LONG = (Tile("p", "f32", (64, 300)), Tile("q", "f32", (64, 64)), Tile("s", "f32", (64, 300)))
BIG = Tile("big", "i1", (2, 40000))
SQUARE = (Tile("p", "f32", (64, 64)), Tile("q", "f32", (64, 64)), Tile("s", "f32", (64, 64)))

MIXED = (*SQUARE[:2], Tile("s", "bf16", (64, 64)))
ROUNDED = (Tile("p", "bf16", (64, 64)), *SQUARE[1:])
QUANTIZED = (*TILES, Tile("m", "mxint8", (8, 64)))


R = resident_program()


def with_weight(**changes) -> Program:
    """The program with resident weights, the tensor of which is changed."""
    return replace(R, tensors=(*R.tensors[:2], replace(R.tensors[2], **changes)))


def with_window(**changes) -> Program:
    made = R.kernels[0]
    tiles = tuple(replace(tile, **changes) if tile.name == "b" else tile for tile in made.tiles)
    return replace(R, kernels=(replace(made, tiles=tiles),))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(X, cores=9), "uses 9 cores of a machine with 8"),
        (replace(X, local_bytes=1 << 21), "private bytes and pages of"),
        (replace(X, dims=(X.dims[0], X.dims[0])), "dimension n is there twice"),
        (replace(X, dims=(Dim("r.n", 1, 1, 1),)), "dimension r.n has a register's name"),
        (replace(X, dims=(Dim("n", 2, 1, 3),)), "dimension n has bounds 2, 1, 3"),
        (replace(X, dims=()), "has dimension n, which the program does not declare"),
        (replace(X, tensors=(X.tensors[0], X.tensors[0])), "tensor x is there twice"),
        (replace(X, kernels=X.kernels * 2), "kernel k is there twice"),
        (replace(X, inputs=(Binding("x", "z"),)), "x is tensor z, which does not exist"),
        (replace(X, tensors=(replace(X.tensors[0], shape=exprs(4, -8)),)), "tensor x has a shape of 4, -8"),
        (replace(X, tensors=(replace(X.tensors[0], shape=exprs(1 << 30, 1 << 30)),)), "tensor x has a shape of 10"),
        (replace(X, tensors=(replace(X.tensors[0], dtype="f64"),)), "elements of f64, which the machine does not know"),
        (replace(X, tensors=(replace(X.tensors[0], address=1 << 30),)), "tensor x ends at byte"),
        (replace(X, tensors=(replace(X.tensors[0], address=UNPLACED), X.tensors[1])), "tensor x has no address"),
        (with_kernel(tiles=(Tile("z", "f32", (8,), 1, UNPLACED),), body=()), "tile z of kernel k has no address"),
        (replace(X, local_bytes=UNPLACED), "-1 private bytes and pages of"),
        (replace(X, tensors=(WEIGHT, X.tensors[1])), "weight x has a shape that is not fixed"),
        (replace(X, tensors=(SMALL, X.tensors[1])), "weight x does not fit its 64 bytes"),
        (with_kernel(tiles=(Tile("a", "f32", (8, 64)), Tile("a", "f32", (8, 64), 1, 4096))), "tile a is there twice"),
        (with_kernel(tiles=(Tile("a", "f32", (8, 0)),)), "tile a is 1 x f32"),
        (
            with_kernel(tiles=(Tile("a", "f32", (3, (1 << 63) - 1), 2, UNPLACED),)),
            "tile a is 2 x f32 .3, 9223372036854775807.",
        ),
        (with_kernel(tiles=(Tile("a", "f32", (8,), 1 << 48, UNPLACED),)), "tile a is 281474976710656 x f32 .8."),
        (with_kernel(tiles=(Tile("a", "f32", (8, 64), 1, 1 << 18),)), "tile a ends at byte"),
        (with_kernel(tiles=(Tile("a", "f32", (8, 64)), Tile("b", "f32", (8, 64), 1, 100))), "a and b overlap"),
        (with_kernel(grid=(Range("n", Expr.symbol("n"), 0),)), "range n has step 0"),
        (with_kernel(grid=(Range("n", Expr.symbol("k"), 1),)), "size k uses k"),
        (with_body(Loop(N, ())), "range n is there twice"),
        (with_body(Load("z", of())), "tile z does not exist"),
        (with_body(Load("i", of())), "tile i has rank 1, not 2"),
        (with_body(Load("a", of("z"))), "tensor z does not exist"),
        (with_body(Load("c", of())), "moves f32 of tensor x to or from i1 of tile c"),
        (with_body(Load("a", of(start=exprs(0)))), "has not one start and one counter a dimension"),
        (with_body(Load("a", of(start=exprs("r.n*r.n", 0)))), "is not affine in the registers"),
        (with_body(Load("a", of(start=exprs("r.k", 0)))), "uses r.k, which no range around it defines"),
        (with_body(Load("a", of(start=exprs("k", 0)))), "position k uses k"),
        (with_body(Load("a", of(axes=((Axis(2, 1, N.size),), COLUMN)))), "dimension 2 of tensor x"),
        (with_body(Store(of("y", fill=0.0), "a")), "a store has no fill"),
        (with_body(Load("a", of("y")), Store(of("y"), "a")), "loads and stores tensor y"),
        (with_body(Store(of("x"), "a")), "stores to tensor x, which is an input"),
        (with_body(Gather("a", of(), "i", 2)), "gathers along dimension 2 of the tile"),
        (with_body(Gather("a", of(axes=((Axis(1, 1, N.size),), COLUMN)), "i", 0)), "which has not one counter"),
        (with_body(Gather("a", of(), "b", 0)), "tile b has rank 2, not 1"),
        (with_body(Map("add", "b", ("a",))), "add does not take 1 operands"),
        (with_body(Map("add", "b", (1, 2))), "add reads no tile"),
        (with_body(Map("fly", "b", ("a",))), "there is no function fly"),
        (with_body(Map("and", "c", ("a", "a"))), "and does not take f32, f32 to i1"),
        (with_body(Map("less", "b", ("a", "a"))), "less does not take f32, f32 to f32"),
        (with_body(Map("select", "b", ("a", "a", "a"))), "select does not take"),
        (with_body(Map("or", "big", ("big", 1)), tiles=(*TILES, BIG)), "has 80000 elements, the vector unit takes"),
        (with_body(Map("add", "m", ("a", 1)), tiles=QUANTIZED), "writes mxint8 by copy alone"),
        (with_body(Reduce("mean", "b", "a", (1,))), "there is no reduction mean"),
        (with_body(Reduce("sum", "b", "a", (2,))), r"over \[2\] of 2 dimensions"),
        (with_body(Iota("i", (N.size,), 1, Expr.const(0))), "counts along dimension 1 of 1"),
        (with_body(Fill("a", exprs("r.k.size", 64), 0)), "size r.k.size uses r.k.size"),
        (with_body(Matmul("p", "q", "s", "rhs"), tiles=MIXED), "does not multiply f32 by bf16"),
        (with_body(Matmul("p", "q", "s", "rhs"), tiles=ROUNDED), "does not accumulate f32 in bf16"),
        (
            with_body(Matmul("p", "q", "s", "rhs"), tiles=WIDE),
            "holds 64 x 65 and streams 64 rows, the unit takes 64 x 64 and 256",
        ),
        (
            with_body(Matmul("p", "q", "s", "lhs"), tiles=LONG),
            "holds 64 x 64 and streams 300 rows",
        ),
        (with_body(Matmul("p", "q", "s", "accumulator"), tiles=WIDE), "holds 64 x 65 and streams 64 rows"),
        (with_body(Matmul("p", "q", "s", "rhs", "n"), tiles=SQUARE), "begins in loop n, which is not around it"),
        (with_body(Matmul("p", "q", "s", "nothing"), tiles=SQUARE), "multiplies 64 rows by 64 x 64 on the vector unit"),
        (with_kernel(first=8), "begins on core 8 of 8"),
        (with_weight(space="sram"), "tensor w has blocks of 4096 elements"),
        (with_weight(block=0), "tensor w has blocks of 0 elements"),
        (with_weight(role="input"), "tensor w has blocks of 4096 elements"),
        (with_weight(first=8), "tensor w begins on core 8 of 8"),
        (with_weight(copies=0), "tensor w has 0 copies of its blocks"),
        (with_weight(together=-1), "tensor w has 4 blocks, not runs of -1"),
        (with_weight(copies=2, together=3), "tensor w has 4 blocks, not runs of 3"),
        (with_weight(width=-1), "tensor w has rows of -1 elements"),
        (with_weight(chiplet=2), "tensor w is on chiplet 2 of 1"),
        (with_kernel(chiplet=1), "is on chiplet 1 of 1"),
        (with_weight(address=1 << 18), "tensor w ends at byte 278528 of 262144 in core"),
        (with_weight(address=0), "a and resident weights overlap"),
        (replace(R, tensors=(*R.tensors, replace(R.tensors[2], name="v", first=3))), "v and w overlap"),
        (with_window(depth=1, address=1 << 15), "loads blocks of tensor w into tile b, which is no window"),
        (with_body(Load("v", of()), tiles=(Tile("v", "f32", (8, 64), 0),)), "window v is on tensor x, which has no"),
        (with_body(Store(of("y"), "v"), tiles=(Tile("v", "f32", (8, 64), 0),)), "blocks of a core are read only"),
        (with_body(Store(of("y"), "c", adds=True)), "moves i1 of tensor y|adds|moves"),
        (replace(matmul_program(), parts=3), "8 cores do not divide into 3 groups"),
        (with_body(Load("a", of(), after=("j",))), "kernel k comes after j, which does not exist"),
        (unordered(), "kernel second does not wait for first before it moves tensor t"),
        (unordered(shares=True), "kernel second does not wait for first before it moves tensor y"),
    ],
)
def test_rules(wrong, message):
    with pytest.raises(MachineError, match=message):
        verify(wrong)


def test_a_rule_names_its_place():
    with pytest.raises(MachineError) as fault:
        verify(with_body(Load("a", of()), Map("fly", "b", ("a",))))
    assert str(fault.value).startswith("kernel k, instruction 1 (map), core 0: there is no function fly")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cores": 0}, "cores of an SRAM machine must be positive"),
        ({"cores": 1 << 62, "chiplets": 2}, "at most 1048576 cores"),
        ({"cores": 7, "chiplets": 2}, "7 cores do not divide over 2 chiplets"),
        ({"chiplets": 8, "cards": 3}, "8 chiplets do not divide over 3 cards"),
        ({"cores": 2.5}, "cores of an SRAM machine must be an integer"),
        ({"clock_hz": "fast"}, "clock_hz of an SRAM machine must be a number"),
        ({"row_cycles": 8}, "row_cycles of an SRAM machine must be a table"),
        ({"row_cycles": {"bf16": 8}}, "row_cycles of an SRAM machine needs f32"),
        ({"issue_cycles": -1}, "issue_cycles of an SRAM machine must not be negative"),
        ({"dataflow": "rows"}, "dataflow of an SRAM machine is lhs, rhs or accumulator, not 'rows'"),
    ],
)
def test_figures_that_no_machine_has(options, message):
    with pytest.raises(InputError, match=message):
        Machine.from_options(options)


def test_a_machine_reads_back_and_leaves_other_options():
    machine = Machine.from_options({"cores": 64, "row_cycles": {"f32": 10, "bf16": 2.5}, "host_link": "pcie5x16"})
    assert (machine.cores, machine.row_cycles["bf16"]) == (64, 2.5)
    assert Machine.from_options(machine.to_json()) == machine


def test_the_peak_of_the_defaults():
    """One vector through 64×64 multiply-accumulators in 8 cycles, 2,048 cores at 1.2 GHz: 2,517 TFLOPS."""
    assert Machine().flops("mxint8") == pytest.approx(2.517e15, rel=1e-3)
