"""Random placed functions through all three passes of the split phase: same results, right devices, no value lost."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, ModuleOp, StringAttr, SymbolRefAttr, TensorType, f32, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, ops, value_name
from gimlet.dialects.placement import (
    BUFFERS,
    DEVICE,
    FORMAT,
    SEGMENT_HINT,
    DeviceOp,
    LaunchOp,
    LinkOp,
    SegmentOp,
    TopologyOp,
    TransferOp,
    YieldOp,
    find_segment,
)
from gimlet.passes.assign_buffers import AssignBuffersPass
from gimlet.passes.insert_transfers import InsertTransfersPass, quickest_route
from gimlet.passes.outline_segments import OutlineSegmentsPass

DEVICES = ("cpu", "gpu0", "sram0")
TENSOR = TensorType(f32, [4])
Term = tuple[object, ...]


def rack() -> TopologyOp:
    devices = [DeviceOp(name, "host" if name == "cpu" else "example/chip") for name in DEVICES]
    return TopologyOp(
        "rack", [*devices, LinkOp("l0", "cpu", "gpu0", "pcie5x16"), LinkOp("l1", "gpu0", "sram0", "pcie5x16")]
    )


@st.composite
def modules(draw: st.DrawFn) -> ModuleOp:
    body = Block(arg_types=[TENSOR, TENSOR])
    values: list[SSAValue] = list(body.args)
    for index in range(draw(st.integers(0, 2))):
        constant = InitializerOp.from_key(f"w{index}", TENSOR, f"w{index}")
        body.add_op(constant)
        values.append(constant.results[0])
    for _ in range(draw(st.integers(0, 10))):
        inputs = [draw(st.sampled_from(values)) for _ in range(draw(st.integers(1, 2)))]
        op = (ops.Add if len(inputs) == 2 else ops.Relu).make(inputs, [TENSOR])
        op.attributes[DEVICE] = SymbolRefAttr(draw(st.sampled_from(DEVICES)))
        if draw(st.booleans()):
            op.attributes[SEGMENT_HINT] = IntegerAttr(draw(st.integers(0, 1)), i64)
        if draw(st.integers(0, 5)) == 0:
            op.attributes[FORMAT] = StringAttr("bf16")
        body.add_op(op)
        values.append(op.results[0])
    returned = draw(st.lists(st.sampled_from(values), max_size=4))
    body.add_op(ReturnOp(*returned))
    main = FuncOp("main", ([TENSOR, TENSOR], [TENSOR] * len(returned)), Region(body))
    return ModuleOp([rack(), main])


def main_of(module: ModuleOp) -> FuncOp:
    (function,) = (op for op in module.body.block.ops if isinstance(op, FuncOp))
    return function


def meaning(module: ModuleOp) -> list[Term]:
    """What @main returns, as terms over its inputs."""
    return block_meaning(module, main_of(module).body.block, [("input", 0), ("input", 1)])


def block_meaning(module: ModuleOp, block: Block, inputs: list[Term]) -> list[Term]:
    terms: dict[SSAValue, Term] = dict(zip(block.args, inputs, strict=True))
    for op in block.ops:
        match op:
            case LaunchOp():
                segment = find_segment(module, op.segment_name)
                assert segment is not None
                found = block_meaning(module, segment.body.block, [terms[value] for value in op.arguments])
                terms.update(zip(op.outputs, found, strict=True))
            case TransferOp():
                terms[op.copy] = terms[op.value]
            case InitializerOp():
                terms[op.results[0]] = ("weight", op.key)
            case ReturnOp() | YieldOp():
                return [terms[value] for value in op.operands]
            case _:
                terms[op.results[0]] = (op.name, *(terms[value] for value in op.operands))
    raise AssertionError("the block has no end")


def split(module: ModuleOp, keep_schedule: bool = False) -> None:
    ctx = GimletContext()
    for step in (OutlineSegmentsPass(keep_schedule=keep_schedule), InsertTransfersPass(), AssignBuffersPass()):
        step.apply(ctx, module)
        module.verify()


@given(modules(), st.booleans())
def test_the_function_means_the_same(module: ModuleOp, keep_schedule: bool):
    before = meaning(module)
    split(module, keep_schedule)
    assert meaning(module) == before


@given(modules(), st.booleans())
def test_every_op_runs_where_it_was_placed(module: ModuleOp, keep_schedule: bool):
    def place(op: Operation) -> tuple[str, str]:
        number_format = op.attributes.get(FORMAT)
        return op.attributes[DEVICE].string_value(), number_format.data if number_format else "fp32"

    placed = {op: place(op) for op in main_of(module).body.block.ops if DEVICE in op.attributes}
    split(module, keep_schedule)
    segments = [op for op in module.body.block.ops if isinstance(op, SegmentOp)]
    assert [segment.sym_name.data for segment in segments] == [f"s{index}" for index in range(len(segments))]
    for op, (device, number_format) in placed.items():
        segment = op.parent_op()
        assert isinstance(segment, SegmentOp)
        assert (segment.device_name, segment.format) == (device, number_format)
        assert not {DEVICE, FORMAT, SEGMENT_HINT} & op.attributes.keys()


@given(modules())
def test_values_are_where_they_are_used_and_keep_their_names(module: ModuleOp):
    split(module)
    home: dict[SSAValue, str] = dict.fromkeys(main_of(module).body.block.args, "cpu")
    sent: set[tuple[SSAValue, str]] = set()
    for op in main_of(module).body.block.ops:
        match op:
            case LaunchOp():
                segment = find_segment(module, op.segment_name)
                assert segment is not None
                assert {home[value] for value in op.arguments} <= {segment.device_name}
                assert [name.data for name in segment.arg_names] == [value_name(arg) for arg in segment.body.block.args]
                home.update(dict.fromkeys(op.outputs, segment.device_name))
            case TransferOp():
                assert home[op.value] == op.source_name
                assert (op.value, op.destination_name) not in sent
                sent.add((op.value, op.destination_name))
                home[op.copy] = op.destination_name
            case _:
                assert {home[value] for value in op.operands} <= {"cpu"}


@given(modules(), st.randoms(use_true_random=False))
def test_no_order_of_execution_overwrites_a_value_that_is_still_read(module: ModuleOp, order: random.Random):
    split(module)
    block = main_of(module).body.block
    waiting = [op for op in block.ops if not isinstance(op, ReturnOp)]
    done: set[Operation] = set()
    held: dict[int, SSAValue] = {}
    buffer_of: dict[SSAValue, int] = {}
    while waiting:
        ready = [
            op for op in waiting if all(not isinstance(v.owner, Operation) or v.owner in done for v in op.operands)
        ]
        op = order.choice(ready)
        for value in op.operands:
            assert value not in buffer_of or held[buffer_of[value]] is value
        buffers = op.attributes[BUFFERS]
        assert isinstance(buffers, DenseArrayBase)
        for value, buffer in zip(op.results[:-1], buffers.get_values(), strict=True):
            buffer_of[value] = buffer
            held[buffer] = value
        done.add(op)
        waiting.remove(op)
    for value in block.last_op.operands if block.last_op else ():
        assert value not in buffer_of or held[buffer_of[value]] is value


@given(modules())
def test_the_split_is_the_same_every_time(module: ModuleOp):
    again = module.clone()
    split(module)
    split(again)
    assert str(module) == str(again)


def test_a_route_has_as_few_links_as_there_can_be():
    topology = rack()
    assert quickest_route(topology, "cpu", "sram0") == ["l0", "l1"]
    assert quickest_route(topology, "sram0", "gpu0") == ["l1"]
    assert quickest_route(topology, "cpu", "cpu") == []
    assert quickest_route(TopologyOp("apart", [DeviceOp("a", "k"), DeviceOp("b", "k")]), "a", "b") is None


def test_a_route_is_quick_where_links_say_how_fast_they_are():
    slow, fast = (1e-5, 1e9), (1e-5, 1e11)
    devices = [DeviceOp(name, "k") for name in "abc"]
    links = [LinkOp("ac", "a", "c", "l", slow), LinkOp("ab", "a", "b", "l", fast), LinkOp("bc", "c", "b", "l", fast)]
    assert quickest_route(TopologyOp("t", [*devices, *links]), "a", "c") == ["ab", "bc"]
    links = [LinkOp("ac", "a", "c", "l"), *(link.clone() for link in links[1:])]
    assert quickest_route(TopologyOp("t", [*(d.clone() for d in devices), *links]), "a", "c") == ["ac"]


def test_a_device_that_the_topology_lacks_is_refused():
    body = Block(arg_types=[TENSOR])
    op = ops.Relu.make([body.args[0]], [TENSOR], node_name="/relu")
    op.attributes[DEVICE] = SymbolRefAttr("tpu")
    body.add_ops([op, ReturnOp(op.results[0])])
    module = ModuleOp([rack(), FuncOp("main", ([TENSOR], [TENSOR]), Region(body))])
    with pytest.raises(PassFailedException, match="'/relu' is placed on @tpu, which topology @rack does not have"):
        split(module)


def test_an_op_that_reads_what_is_made_behind_it_is_refused():
    body = Block(arg_types=[TENSOR])
    late = ops.Relu.make([body.args[0]], [TENSOR], node_name="/late")
    early = ops.Relu.make([late.results[0]], [TENSOR], node_name="/early")
    for op in (early, late):
        op.attributes[DEVICE] = SymbolRefAttr("cpu")
    body.add_ops([early, late, ReturnOp(early.results[0])])
    module = ModuleOp([rack(), FuncOp("main", ([TENSOR], [TENSOR]), Region(body))])
    with pytest.raises(PassFailedException, match="'/early' uses a value before the op that makes it"):
        split(module)
