"""The placement dialect from Python: constructors, accessors, and how states go on."""

import pytest
from xdsl.dialects import test
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Block, Region
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.placement import (
    BufferAttr,
    CostAttr,
    DeviceOp,
    ExprAttr,
    GroupOp,
    LaunchOp,
    LinkOp,
    SegmentOp,
    StateType,
    TopologyOp,
    TransferOp,
    YieldOp,
    completion_of,
    find_segment,
    topology_of,
)
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr

TENSOR = TensorType(f32, [4])
STATE = StateType.of(TensorType(f32, [4, 8]), [4, 8])


def test_a_cost_holds_expressions():
    cost = CostAttr.of("width*2", 4, Expr.symbol("width"), 0)
    assert cost.fields == {
        "flops": Expr.parse("2*width"),
        "bytes_read": Expr.const(4),
        "bytes_written": Expr.symbol("width"),
        "weight_bytes": Expr.const(0),
    }
    assert cost == CostAttr.of("2*width", "4", "width", 0)
    with pytest.raises(InputError, match="expected a number"):
        CostAttr.of("2*", 0, 0, 0)
    with pytest.raises(VerifyException, match="flops of a cost is negative: -1"):
        CostAttr.of(-1, 0, 0, 0)


def test_a_buffer_names_its_device():
    buffer = BufferAttr.of("gpu0", "4*width")
    assert buffer.device_name == "gpu0"
    assert buffer.size == ExprAttr(Expr.parse("4*width"))


@pytest.mark.parametrize(
    ("kinds", "given", "host"),
    [
        ({"a": "chip", "b": "host", "c": "host"}, None, "b"),
        ({"a": "chip", "b": "chip"}, None, "a"),
        ({"a": "host", "b": "chip"}, "b", "b"),
    ],
)
def test_the_host_is_given_or_the_first_of_its_kind(kinds: dict[str, str], given: str | None, host: str):
    topology = TopologyOp("rack", [DeviceOp(name, kind) for name, kind in kinds.items()], given)
    topology.verify()
    assert topology.host_name == host


def test_a_topology_lists_its_parts():
    parts = [DeviceOp("a", "chip"), DeviceOp("b", "chip"), LinkOp("l", "a", "b", "wire"), GroupOp("g", ["a", "b"], [2])]
    topology = TopologyOp("rack", parts)
    topology.verify()
    assert list(topology.devices) == ["a", "b"]
    assert topology.links["l"].between == ("a", "b")
    assert list(topology.groups) == ["g"]
    inner = test.TestOp()
    module = ModuleOp([topology, inner])
    assert topology_of(module) is topology
    assert topology_of(inner) is topology
    assert topology_of(test.TestOp()) is None


def identity(name: str) -> SegmentOp:
    body = Block(arg_types=[TENSOR])
    body.add_op(YieldOp(body.args))
    return SegmentOp(name, "a", "fp32", Region(body), ["x"], ["y"])


def test_a_segment_and_its_launch():
    segment = identity("s0")
    source = test.TestOp(result_types=[TENSOR])
    transfer = TransferOp(source.results[0], [], "b", "a", ["l"])
    launch = LaunchOp("s0", [transfer.copy], [transfer.token], [TENSOR])
    module = ModuleOp([segment, source, transfer, launch])
    module.verify()
    assert (segment.device_name, segment.format) == ("a", "fp32")
    assert segment.results_yielded == tuple(segment.body.block.args)
    assert find_segment(module, "s0") is segment
    assert find_segment(module, "s1") is None
    assert completion_of(launch.outputs[0]) is launch.token
    assert completion_of(transfer.copy) is transfer.token
    assert completion_of(source.results[0]) is None
