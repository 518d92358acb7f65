"""Tiles in the IR: what is chosen is what is compiled, what is edited gives another program and the same numbers."""

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, device, emit, model_of, reference, relative_error, segment_of
from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.utils.exceptions import PassFailedException

from gimlet.compiler.pipeline import NORMALIZE, run_passes
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.dialects.sram import PatchesAttr, TilesAttr
from gimlet.dialects.sram.assembly import disassemble
from gimlet.dialects.sram.tiles import Mapping, Part, Patches, Tiles
from gimlet.passes.registry import load
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import UNPLACED, Matmul, Program
from gimlet.targets.api import Device, Reason
from gimlet.targets.sram.context import signature_of_op
from gimlet.targets.sram.mapping import Sizes, best, largest_steps
from gimlet.targets.sram.target import machine_of
from gimlet.targets.sram.tiling import problem, sizes_of

F = TensorProto.FLOAT
ON = device(chiplets=2, cores=16, mx_error_budget=1.0)
ERROR = {"fp32": 1e-6, "bf16": 0.02, "mxint8": 0.03}


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def layers(rows: int = 4):
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], name="first"),
        helper.make_node("Gelu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="second"),
    ]
    return model_of(nodes, {"x": (F, [rows, 256])}, ["y"], weights(v=(256, 128), w=(128, 256)), opset=20)


def chain():
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="second"),
    ]
    return model_of(nodes, {"x": (F, [1, 256])}, ["y"], weights(v=(256, 512), w=(512, 256)))


def attention():
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=1)]
    sizes = {"q": (F, [1, 5, 128]), "k": (F, [1, 9, 64]), "v": (F, [1, 9, 64])}
    return model_of(nodes, sizes, ["y"], opset=23)


def convolution():
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["y"])]
    return model_of(nodes, {"x": (F, [1, 40, 9, 10])}, ["y"], weights(w=(70, 40, 3, 3)))


def deep():
    """A convolution that is a product of patches."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4), helper.make_node("Relu", ["a"], ["y"])]
    return model_of(nodes, {"x": (F, [1, 300, 3, 3])}, ["y"], weights(w=(70, 300, 3, 3)))


def inputs_of(model) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.input}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def function_of(model, on: Device = ON) -> tuple[GimletContext, ModuleOp]:
    ctx = GimletContext()
    module = import_model(ir.from_proto(model), ctx)
    run_passes(module, ctx, NORMALIZE)
    (function,) = [op for op in module.walk() if isinstance(op, FuncOp)]
    empty = Program("empty", machine_of(on.kind), "fp32", 1, 64, UNPLACED, (), (), (), (), ())
    function.attributes["sram.machine"] = disassemble(empty).machine
    return ctx, module


def products(block) -> dict[str, OnnxOp]:
    return {op.node_name: op for op in block.walk() if isinstance(op, OnnxOp) and "sram.tiles" in op.attributes}


@pytest.mark.parametrize(
    ("model", "fmt", "count"),
    [
        (layers, "fp32", 2),
        (layers, "mxint8", 2),
        (chain, "bf16", 4),
        (attention, "bf16", 2),
        (convolution, "fp32", 1),
        (deep, "bf16", 1),
    ],
)
def test_tiles_are_chosen_before_and_the_same_kernels_made(model, fmt, count):
    ctx, module = function_of(model())
    at_once = module.clone()
    load("sram-lower")(format=fmt).apply(ctx, at_once)
    load("sram-choose-tiles")(format=fmt).apply(ctx, module)
    chosen = [tiles for op in module.walk() for tiles in op.attributes.get("sram.tiles", ArrayAttr([]))]
    assert len(chosen) == count
    load("sram-lower")().apply(ctx, module)
    assert str(module) == str(at_once)


def test_the_chosen_tiles_decide_and_nothing_is_chosen_again(monkeypatch):
    ctx, module = function_of(layers())
    load("sram-choose-tiles")(format="bf16", room=1 << 16).apply(ctx, module)
    monkeypatch.setattr("gimlet.targets.sram.products.quickest", None)
    load("sram-lower")().apply(ctx, module)


def edited(model, fmt: str, name: str, tiles: Tiles | Patches, on: Device = ON) -> Runner:
    """A runner of the model with the tiles of one op given."""
    segment = segment_of(model, fmt=fmt)
    (op,) = [op for op in segment.op.walk() if isinstance(op, OnnxOp) and name in (op.node_name, op.op_type)]
    attribute = TilesAttr(tiles) if isinstance(tiles, Tiles) else PatchesAttr(tiles)
    op.attributes["sram.tiles"] = ArrayAttr([attribute])
    return Runner(segment, fmt, on)


def test_edited_tiles_give_another_program_and_the_same_numbers():
    model, mapping = layers(), Mapping(rows=2, splits=4, tiles=2, resident=False, copies=3)
    runner = edited(model, "fp32", "first", Tiles((4, 256, 128), "f32", "f32", 32, 16, mapping))
    x = inputs_of(model)
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < ERROR["fp32"]
    kernel = runner.executor.program.kernels[0]
    assert [each.step for each in kernel.grid] == [2, 16, 64]
    shapes = {tile.name: (tile.shape, tile.depth) for tile in kernel.tiles}
    (product,) = [each for each in kernel.statements() if isinstance(each, Matmul)]
    assert [shapes[name] for name in (product.lhs, product.rhs)] == [((2, 32), 3), ((32, 16), 3)]


@settings(max_examples=40, deadline=None)
@given(
    fmt=st.sampled_from(list(ERROR)),
    rows=st.sampled_from([1, 2, 4, 8]),
    tile=st.tuples(st.sampled_from([32, 64]), st.sampled_from([8, 40, 64])),
    groups=st.integers(1, 4),
    copies=st.sampled_from([0, 1, 2, 4]),
    others=st.tuples(st.sampled_from([1, 2]), st.sampled_from([0, 7]), st.integers(1, 4)),
    converts=st.booleans(),
)
def test_all_tiles_that_are_taken_compute_the_product(fmt, rows, tile, groups, copies, others, converts):
    weight = weights(w=(160, 130))
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], name="p")], {"x": (F, [8, 160])}, ["y"], weight)
    held = {"fp32": "f32", "bf16": "bf16", "mxint8": "mxint8"}[fmt]
    deep = -(-160 // tile[0])
    tiles = -(-deep // groups)
    mapping = Mapping(rows, -(-deep // tiles), tiles, copies > 0, max(1, copies), *others)
    said = Tiles((8, 160, 130), held, "f32" if converts else held, *tile, mapping)
    sizes = Sizes(1, 8, 160, 130, said.loaded, held, weights=True, fused=False, fixed=True)
    machine = machine_of(ON.kind)
    assume(problem(said, sizes, machine, Dealing(16, 2)) is None)
    x = inputs_of(model)
    assert relative_error(edited(model, fmt, "p", said)(**x)[0], reference(model, **x)[0]) < ERROR[fmt]


@pytest.mark.parametrize("fmt", ["fp32", "bf16", "mxint8"])
@pytest.mark.parametrize(
    ("positions", "kernel", "channels", "outputs"),
    [((2, 3), (), 32, 64), ((9, 10), (), 40, 7), ((1, 1), (3,), 5, 64), ((4, 4), (3, 3), 7, 33)],
)
def test_a_convolution_is_cut_as_its_patches_say(fmt, positions, kernel, channels, outputs):
    dtype = {"fp32": "f32", "bf16": "bf16", "mxint8": "mxint8"}[fmt]
    model = convolution()
    patches = Patches((70, 40, 3, 3), dtype, positions, kernel, channels, outputs)
    if fmt == "mxint8" and kernel:
        with pytest.raises(AssertionError, match="share an exponent are channels of one kernel position"):
            edited(model, fmt, "Conv", patches)
        return
    runner, x = edited(model, fmt, "Conv", patches), inputs_of(model)
    assert relative_error(runner(**x)[0], reference(model, **x)[0]) < ERROR[fmt]
    grid = runner.executor.program.kernels[-1].grid
    assert [each.step for each in grid[2:]] == [outputs, *positions]


TILES = Tiles((4, 256, 128), "f32", "f32", 64, 64, Mapping(4, 1, 4, True))
PATCHES = Patches((70, 40, 3, 3), "f32", (1, 1), (), 1, 1)
MX = replace(TILES, dtype="mxint8", loaded="mxint8", depth=48, mapping=Mapping(4, 1, 6, True))
SIZES = Sizes(1, 4, 256, 128, "f32", "f32", weights=True, fused=False, fixed=True)
ROW = replace(SIZES, rows=1)


def mapped(sizes: Sizes = SIZES, part: Part | None = None, **changes) -> Tiles:
    found = replace(TILES, sizes=sizes_of(sizes), mapping=replace(TILES.mapping, **changes))
    return found if part is None else replace(found, part=part)


@pytest.mark.parametrize(
    ("tiles", "sizes", "dataflow", "message"),
    [
        (TILES, ROW, "rhs", 'they are of [4, 256, 128] "f32" from "f32", it multiplies [1, 256, 128] "f32" from "f32"'),
        (replace(TILES, columns=65), SIZES, "rhs", "a tile of [4, 64, 65] is not from 1 to [256, 64, 64]"),
        (replace(TILES, depth=0), SIZES, "rhs", "a tile of [4, 0, 64] is not from 1 to"),
        (MX, replace(SIZES, lhs="mxint8", held="mxint8"), "rhs", "a tile 48 deep cuts blocks of 32 numbers"),
        (mapped(splits=3), SIZES, "rhs", "3 groups of 4 are not the 4 tiles of the depth"),
        (mapped(splits=2, tiles=2, resident=False), SIZES, "accumulator", "this one holds the accumulator"),
        (
            replace(mapped(ROW, Part(0)), columns=32),
            ROW,
            "rhs",
            "tiles of a part of a product are [64, 64], not [64, 32]",
        ),
        (mapped(copies=0), SIZES, "rhs", "a loaded tile has no buffer"),
        (TILES, replace(SIZES, weights=False), "rhs", "only weights are resident, its second operand is computed"),
        (
            mapped(replicas=3),
            SIZES,
            "rhs",
            "3 copies of its weights do not share 4 rows, or are too many for the cores",
        ),
        (mapped(accumulators=0), SIZES, "rhs", "a product has an accumulator"),
        (mapped(accumulators=2), SIZES, "rhs", "2 accumulators of 4 rows do not share 4 rows"),
        (mapped(vector_columns=4), SIZES, "rhs", "the vector unit has columns of whole tiles"),
    ],
)
def test_why_tiles_are_refused(tiles, sizes, dataflow, message):
    machine = replace(Machine(chiplets=2, cores=16), dataflow=dataflow)
    found = problem(tiles, sizes, machine, Dealing(16, 2))
    assert found is not None
    assert message in found


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 700), st.integers(1, 300)),
    batch=st.integers(1, 3),
    dtype=st.sampled_from(["f32", "bf16", "mxint8"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_what_is_chosen_is_legal(shape, batch, dtype, flags):
    machine, dealing = Machine(chiplets=2, cores=16), Dealing(16, 2)
    sizes = Sizes(batch, *shape, "f32", dtype, *flags)
    most = largest_steps(machine)
    for mapping in best(machine, dealing, sizes, 1 << 19, 1 << 18, count=50):
        tile = min(most.depth, sizes.depth), min(most.columns, sizes.columns)
        assert problem(Tiles(sizes_of(sizes), dtype, "f32", *tile, mapping), sizes, machine, dealing) is None


HALVES = [
    replace(TILES, sizes=(1, 512, 128), mapping=Mapping(1, 1, 8, True), part=Part(columns=half)) for half in (0, 1)
]


@pytest.mark.parametrize(
    ("model", "name", "tiles", "message"),
    [
        (layers, "first", StringAttr("4"), "tiles of first: sram.tiles is not a list of #sram.tiles"),
        (layers, "first", [replace(TILES, product=1)], "tiles of first: it has no product 1"),
        (layers, "first", [replace(TILES, depth=65)], "tiles of first: a tile of [4, 65, 64] is not from 1 to"),
        (layers, "first", [replace(TILES, part=Part(0))], "tiles of first: its parts do not make it once"),
        (layers, "first", [TILES, TILES], "tiles of first: its parts do not make it once"),
        (layers, "first", HALVES, "tiles of first: parts are halves of whole tiles, for one row in f32"),
        (layers, "first", [Patches((1,), "f32", (), (), 1, 1)], "tiles of first: #sram.patches are of a convolution"),
        (attention, "Attention", HALVES, "tiles of Attention: it is not made in parts"),
        (
            convolution,
            "Conv",
            [TILES],
            'tiles of Conv: they are of [4, 256, 128] "f32" from "f32", it multiplies [90, 360',
        ),
        (convolution, "Conv", [PATCHES, PATCHES], "tiles of Conv: a convolution has one #sram.patches"),
        (
            convolution,
            "Conv",
            [replace(PATCHES, dtype="bf16")],
            'tiles of Conv: they are of [70, 40, 3, 3] "bf16" in 2 dimensions, it multiplies [70, 40, 3, 3] "f32" in 2',
        ),
        (
            convolution,
            "Conv",
            [replace(PATCHES, kernel=(2,))],
            "tiles of Conv: [2] are not the last dimensions of the kernel [3, 3]",
        ),
        (
            convolution,
            "Conv",
            [Patches((70, 40, 3, 3), "f32", (20, 20), (), 1, 1)],
            "tiles of Conv: a tile of [400, 1, 1] is not from 1 to [256, 64, 64], what an instruction takes",
        ),
        (
            convolution,
            "Conv",
            [Patches((70, 40, 3, 3), "f32", (1, 1), (), 50, 1)],
            "tiles of Conv: 50 channels are more than the 40 of a group",
        ),
        (
            convolution,
            "Conv",
            [replace(PATCHES, items=(9,))],
            "tiles of Conv: items of [9] positions are not of 2 dimensions",
        ),
        (convolution, "Conv", [replace(PATCHES, cut=4)], "tiles of Conv: 4 of the 3 loops over the depth are not cut"),
        (
            convolution,
            "Conv",
            [replace(PATCHES, loaded="bf16")],
            'tiles of Conv: they convert "bf16", its input is "f32"',
        ),
    ],
)
def test_an_op_whose_tiles_are_wrong_is_named(model, name, tiles, message):
    ctx, module = function_of(model())
    (op,) = [op for op in module.walk() if isinstance(op, OnnxOp) and name in (op.node_name, op.op_type)]
    op.attributes["sram.tiles"] = (
        tiles
        if isinstance(tiles, StringAttr)
        else ArrayAttr([TilesAttr(each) if isinstance(each, Tiles) else PatchesAttr(each) for each in tiles])
    )
    with pytest.raises(PassFailedException, match=re.escape(message)):
        load("sram-lower")().apply(ctx, module)


def test_a_device_that_cannot_have_the_tiles_says_so(tmp_path):
    """In a compile too; and what was priced without them is not taken for what costs with them."""
    segment = segment_of(layers())
    op = next(op for op in segment.op.walk() if isinstance(op, OnnxOp) and op.node_name == "first")
    before = signature_of_op(op)
    op.attributes["sram.tiles"] = ArrayAttr([TilesAttr(mapped(replicas=3))])
    assert signature_of_op(op) != before
    found = emit(segment, "fp32", tmp_path, ON)
    assert isinstance(found, Reason)
    assert "tiles of first: 3 copies of its weights" in str(found)


def test_tiles_of_a_part_are_chosen_for_what_it_multiplies():
    ctx, module = function_of(chain())
    load("sram-choose-tiles")().apply(ctx, module)
    said = {name: [each.data for each in op.attributes["sram.tiles"]] for name, op in products(module).items()}
    assert {name: [(each.part, each.sizes) for each in tiles] for name, tiles in said.items()} == {
        "first": [(Part(None, 0), (1, 256, 256)), (Part(None, 1), (1, 256, 256))],
        "second": [(Part(0), (1, 256, 256)), (Part(1), (1, 256, 256))],
    }
