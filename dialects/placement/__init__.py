"""The placement dialect: hardware at hand, what runs where, and the order of launches and transfers."""

from xdsl.ir import Dialect

from gimlet.dialects.placement.attributes import (
    BUFFERS,
    COST,
    DEVICE,
    FORMAT,
    PEAK_BYTES,
    SEGMENT_HINT,
    SETTINGS,
    TARGET,
    BufferAttr,
    CostAttr,
    ExprAttr,
    StateType,
    TokenType,
)
from gimlet.dialects.placement.hardware import DeviceOp, GroupOp, LinkOp, TopologyOp, topology_of
from gimlet.dialects.placement.segments import (
    LaunchOp,
    SegmentOp,
    TransferOp,
    YieldOp,
    completion_of,
    find_segment,
)
from gimlet.dialects.placement.states import StateOp, StateReadOp, StateWriteOp

__all__ = [
    "BUFFERS",
    "COST",
    "DEVICE",
    "FORMAT",
    "PEAK_BYTES",
    "SEGMENT_HINT",
    "SETTINGS",
    "TARGET",
    "BufferAttr",
    "CostAttr",
    "DeviceOp",
    "ExprAttr",
    "GroupOp",
    "LaunchOp",
    "LinkOp",
    "Placement",
    "SegmentOp",
    "StateOp",
    "StateReadOp",
    "StateType",
    "StateWriteOp",
    "TokenType",
    "TopologyOp",
    "TransferOp",
    "YieldOp",
    "completion_of",
    "find_segment",
    "topology_of",
]

Placement = Dialect(
    "placement",
    [
        TopologyOp,
        DeviceOp,
        LinkOp,
        GroupOp,
        SegmentOp,
        YieldOp,
        LaunchOp,
        TransferOp,
        StateOp,
        StateReadOp,
        StateWriteOp,
    ],
    [TokenType, StateType, ExprAttr, CostAttr, BufferAttr],
)
