"""The sram dialect: programs of the SRAM machine as text. `assembly` goes between text and what the runtime loads."""

from xdsl.ir import Dialect

from gimlet.dialects.sram.attributes import (
    AccessAttr,
    DealtAttr,
    LifeAttr,
    OperandsAttr,
    RangeAttr,
    SizesAttr,
    TileType,
    ValueAttr,
)
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
from gimlet.dialects.sram.tiles import PatchesAttr, TilesAttr

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
    [TileType, SizesAttr, ValueAttr, OperandsAttr, RangeAttr, AccessAttr, LifeAttr, DealtAttr, TilesAttr, PatchesAttr],
)

__all__ = [
    "AccessAttr",
    "AddOp",
    "DealtAttr",
    "FillOp",
    "GatherOp",
    "IotaOp",
    "KernelOp",
    "LifeAttr",
    "LoadOp",
    "LoopOp",
    "MapOp",
    "MatmulOp",
    "OperandsAttr",
    "PatchesAttr",
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
    "TilesAttr",
    "ValueAttr",
]
