"""The sram dialect: programs of the SRAM machine as text. `assembly` goes between text and what the runtime loads."""

from xdsl.ir import Dialect

from gimlet.dialects.sram.attributes import AccessAttr, OperandsAttr, RangeAttr, SizesAttr, TileType, ValueAttr
from gimlet.dialects.sram.ops import (
    AddOp,
    FillOp,
    GatherOp,
    IotaOp,
    KernelOp,
    LoadOp,
    LoopOp,
    MapOp,
    MatmulOp,
    ProgramOp,
    ReduceOp,
    ScatterOp,
    StoreOp,
    TensorOp,
    TileOp,
)

Sram = Dialect(
    "sram",
    [
        ProgramOp,
        TensorOp,
        KernelOp,
        TileOp,
        LoopOp,
        LoadOp,
        GatherOp,
        StoreOp,
        AddOp,
        ScatterOp,
        FillOp,
        IotaOp,
        MatmulOp,
        MapOp,
        ReduceOp,
    ],
    [TileType, SizesAttr, ValueAttr, OperandsAttr, RangeAttr, AccessAttr],
)

__all__ = [
    "AccessAttr",
    "AddOp",
    "FillOp",
    "GatherOp",
    "IotaOp",
    "KernelOp",
    "LoadOp",
    "LoopOp",
    "MapOp",
    "MatmulOp",
    "OperandsAttr",
    "ProgramOp",
    "RangeAttr",
    "ReduceOp",
    "ScatterOp",
    "SizesAttr",
    "Sram",
    "StoreOp",
    "TensorOp",
    "TileOp",
    "TileType",
    "ValueAttr",
]
