"""Where the rows of a product are converted: behind the product that makes them, by a kernel, or tile by tile."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from onnx import TensorProto, helper
from tests.unit.targets.sram_models import Runner, model_of, reference, relative_error, segment_of

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.sram.tiles import Mapping, Part, Tiles
from gimlet.passes.sram_home_weights import Homes
from gimlet.runtime.expr import Expr
from gimlet.runtime.sram.dealing import Dealing
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.api import Device
from gimlet.targets.sram.builder import Bounds, ProgramBuilder
from gimlet.targets.sram.expression import Node
from gimlet.targets.sram.mapping import Sizes
from gimlet.targets.sram.products import MatrixProduct
from gimlet.targets.sram.tiling import Slot
from gimlet.targets.sram.trial import converts_tiles, timed

F = TensorProto.FLOAT
MACHINE = Machine(chiplets=2, cores=16)
DEALING = Dealing(16, 2)
ROOM = 1 << 19
SIZES = Sizes(1, 64, 256, 128, "mxint8", "mxint8", weights=True, fused=False, fixed=True)
CONVERTED = replace(SIZES, fused=True, made="mxint8")


def chain(rows: int, *widths: int):
    """Products one after the other, their input, and what ONNX Runtime makes of it."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, widths[0]), np.float32)
    shapes = list(pairwise(widths))
    weights = {f"w{at}": random.standard_normal(shape, np.float32) / shape[0] ** 0.5 for at, shape in enumerate(shapes)}
    nodes = [helper.make_node("MatMul", [f"y{at}", f"w{at}"], [f"y{at + 1}"]) for at in range(len(shapes))]
    model = model_of(nodes, {"y0": (F, x.shape)}, [f"y{len(shapes)}"], weights)
    return model, x, reference(model, y0=x)[0]


def test_results_are_converted_behind_products_that_would_be_quicker_alone_without():
    """Cutting the depth of the second product is quicker alone; then the third would convert its rows tile by tile."""
    kind = load_kind("tenstorrent/blackhole-p150")
    on = Device("sram0", replace(kind, options={**kind.options, "mx_error_budget": 1.0}))
    model, x, expected = chain(248, 634, 415, 297, 404)
    runner = Runner(segment_of(model, fmt="mxint8"), "mxint8", on)
    program = runner.executor.program
    stored = [tensor.dtype for tensor in program.tensors if tensor.role == "temporary"]
    assert stored == ["mxint8"] * 3
    assert [kernel.name.split("_")[0] for kernel in program.kernels] == ["convert", "matmul", "matmul", "matmul"]
    assert runner.artifact.facts["cycles"] < 1700
    assert relative_error(runner(y0=x)[0], expected) < 0.03


def test_a_trial_has_the_conversion_of_its_result():
    """Behind a whole depth in the kernel, behind one that is cut in a kernel of its own, which waits for the sum."""
    whole, cut = Mapping(8, 1, 4, True), Mapping(8, 4, 1, True)
    added: list[int] = []
    for mapping in (whole, cut):
        times = [timed(MACHINE, DEALING, sizes, mapping, ROOM) for sizes in (CONVERTED, SIZES)]
        assert times[0] is not None
        assert times[1] is not None
        added.append(times[0] - times[1])
    kernel = 2 * MACHINE.network_latency_cycles + MACHINE.semaphore_cycles
    assert 0 < added[0] < kernel <= added[1]


@pytest.mark.parametrize(("behind", "tiles"), [(0.0, False), (1e6, True)])
def test_tiles_are_converted_where_the_maker_would_take_longer(behind: float, tiles: bool):
    sizes = replace(SIZES, lhs="f32")
    assert converts_tiles(MACHINE, DEALING, sizes, Homes(8, ROOM, 2), 1, behind) is tiles


def test_a_product_knows_what_the_conversion_of_its_result_adds():
    builder = ProgramBuilder(MACHINE, Bounds({}, {}, {}), DEALING, Homes(8, ROOM, 2))
    rows, depth, columns = (Expr.const(size) for size in (64, 256, 128))
    lhs, rhs = builder.temporary("bf16", (rows, depth)), builder.temporary("bf16", (depth, columns))
    made = MatrixProduct(builder, lhs, rhs, (rows, columns), (), Slot("a", 0, (), []))
    behind = Node("relu", (made,), "f32", made.shape)
    before = dict(builder.tensors)
    for root in (made, behind):
        assert (made.conversion(root, "mxint8") or 0) > 0
    assert builder.tensors == before
    said = Tiles((64, 256, 128), "bf16", "bf16", 64, 64, Mapping(8, 1, 4, False), 0)
    assert replace(made, slot=Slot("a", 0, (said,), [])).conversion(made, "bf16") is None
    assert replace(made, parts=(Part(0), Part(1))).conversion(made, "bf16") is None
