"""A function of ONNX operations as passes take it: its machine, and which of its programs is meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.utils.exceptions import PassFailedException

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import function_inputs, function_outputs
from gimlet.dialects.sram.assembly import machine_of
from gimlet.passes.dim_ranges import read_ranges
from gimlet.passes.refusal import RefusedError
from gimlet.runtime.sram.machine import Machine
from gimlet.runtime.sram.program import Program
from gimlet.targets.api import DimBound
from gimlet.targets.sram.codegen import RESIDENT_SHARES, Work, kernels_for
from gimlet.targets.sram.lowering import Lowering
from gimlet.targets.sram.precision import MATRIX_TYPES

MACHINE = "sram.machine"
CHOSEN_FOR = "sram.chosen_for"


@dataclass(frozen=True)
class Variant:
    """One of the programs of a function: the format of products, how many cores, and each one's bytes for weights."""

    format: str
    cores: int
    room: int

    def attribute(self) -> DictionaryAttr:
        """What says in the IR that tiles were chosen for it."""
        numbers = {"cores": IntegerAttr(self.cores, i64), "room": IntegerAttr(self.room, i64)}
        return DictionaryAttr({"format": StringAttr(self.format), **numbers})


def functions_in(module: ModuleOp) -> Iterator[FuncOp]:
    """The functions with a body."""
    yield from [each for each in module.walk() if isinstance(each, FuncOp) and not each.is_declaration]


def variant_of(function: FuncOp, fmt: str | None, cores: int | None, room: int | None) -> tuple[Machine, Variant]:
    """A function's machine, and the variant that options ask for: what they leave open is as its tiles were chosen.

    PassFailedException where the machine has no such variant.
    """
    name, figures = function.sym_name.data, function.attributes.get(MACHINE)
    machine = machine_of(figures) if isinstance(figures, DictionaryAttr) else Machine()
    said = function.attributes.get(CHOSEN_FOR)
    known = said.data if isinstance(said, DictionaryAttr) else {}

    def number(key: str, option: int | None, default: int) -> int:
        attribute = known.get(key)
        return option if option is not None else attribute.value.data if isinstance(attribute, IntegerAttr) else default

    written = known.get("format")
    fmt = fmt or (written.data if isinstance(written, StringAttr) else "fp32")
    if fmt not in MATRIX_TYPES:
        raise PassFailedException(f"{name}: products are in {', '.join(MATRIX_TYPES)}, not in {fmt}")
    cores = number("cores", cores, machine.cores)
    if not 0 < cores <= machine.cores or cores % machine.cores_per_chiplet:
        raise PassFailedException(
            f"{name}: {cores} of {machine.cores} cores are not whole chiplets of {machine.cores_per_chiplet}"
        )
    return machine, Variant(fmt, cores, number("room", room, int(machine.sram_bytes_per_core * RESIDENT_SHARES[0])))


def lowered(
    module: ModuleOp, function: FuncOp, ctx: Context, machine: Machine, variant: Variant
) -> tuple[Program, Lowering]:
    """A function's kernels, and what was chosen on the way. PassFailedException where there are none."""
    work = Work(
        name=function.sym_name.data,
        inputs=function_inputs(function),
        outputs=function_outputs(function),
        ctx=ctx if isinstance(ctx, GimletContext) else None,
        bounds={name: DimBound(*sizes) for name, sizes in read_ranges(module).items()},
    )
    try:
        return kernels_for(work, machine, variant.format, variant.cores, variant.room)
    except RefusedError as refusal:
        raise PassFailedException(f"{work.name}: {refusal}") from None
