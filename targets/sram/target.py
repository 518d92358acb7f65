"""The SRAM accelerator as a target: programs for a machine that the emulator executes and the cycle model times.

What it costs to run an op is what it adds to the program of its neighbours, as the cycle model says, and what it
refuses is what no program can be generated for: both come from the code generator itself, so that they cannot disagree
with it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, OpResult, SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp, shape_of, value_name
from gimlet.dialects.onnx.work import work_of
from gimlet.dialects.placement import SegmentOp
from gimlet.passes.entry import ENTRY
from gimlet.runtime.errors import InputError
from gimlet.runtime.sram.encoding import dumps
from gimlet.runtime.sram.formats import MX_BLOCK, encode_pieces, stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.api import (
    Artifact,
    Cost,
    Device,
    DimBound,
    HardwareKind,
    Reason,
    Rounding,
    SegmentContext,
    Target,
    WeightStore,
)
from gimlet.targets.one_op import is_constant
from gimlet.targets.roofline import energy_joules, roofline
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.codegen import RESIDENT_SHARES, Generated, Work, first_program, generate
from gimlet.targets.sram.context import Added, Run, added_by, runs, signature_of_ops
from gimlet.targets.sram.lowering import rule_name
from gimlet.targets.sram.precision import MATRIX_TYPES, MX_ERROR_BUDGET, product_types
from gimlet.targets.sram.quantized import EVERYTHING, dequantizers
from gimlet.targets.sram.rules import LARGE, RULES
from gimlet.targets.sram.states import changes_in_place

PROGRAM_FILE = "program.sram"
WEIGHTS_FILE = "weights.sram"
_ASSUMED_SIZES = tuple(64 << power for power in range(15))
"""Sizes of symbolic dimensions, where all that is asked is whether there is a program: the first that will do."""

_RUN_SHARE = 1 / 2
"""The part of all SRAM that the weights of ops priced together may take, beside those before them."""
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_EXPERTS = "com.microsoft.MoE"
_EXPERT_OPERANDS = frozenset({0, 2, 4, 6})
"""The inputs of the experts' products: the tokens, and the weights of up to three layers, their depth last."""


def machine_of(kind: HardwareKind) -> Machine:
    """The machine that a device kind describes. A matrix unit is never faster than the kind's own peak."""
    machine = Machine.from_options(kind.options)
    slots = 2.0 * machine.cores * machine.matrix_rows * machine.matrix_columns * machine.clock_hz
    cycles = dict(machine.row_cycles)
    for fmt, dtype in (*MATRIX_TYPES.items(), ("int8", "i8")):
        if fmt in kind.peak and dtype in cycles:
            cycles[dtype] = max(cycles[dtype], slots / kind.peak[fmt])
    return Machine.from_options({**kind.options, "row_cycles": cycles})


class SramTarget(Target):
    """Programs for an SRAM accelerator."""

    name: ClassVar[str] = "sram"
    executor: ClassVar[str] = "sram"
    option_names: ClassVar[frozenset[str] | None] = frozenset({*Machine().figures(), "host_link", "mx_error_budget"})
    costs_when_built: ClassVar[bool] = True

    def __init__(self) -> None:
        self._machines: dict[str, tuple[HardwareKind, Machine]] = {}
        self._refusals: dict[Hashable, str | None] = {}
        self._costs: dict[Hashable, Cost] = {}
        self._added: dict[Hashable, tuple[Added, ...] | None] = {}

    def machine(self, device: Device) -> Machine:
        """The machine of a device, remembered."""
        known = self._machines.get(device.kind.name)
        if known is None or known[0] is not device.kind:
            known = self._machines[device.kind.name] = (device.kind, machine_of(device.kind))
        return known[1]

    def formats(self, device: Device) -> tuple[str, ...]:
        cycles = self.machine(device).row_cycles
        return tuple(fmt for fmt in ("fp32", "bf16", "mxint8") if MATRIX_TYPES[fmt] in cycles)

    def deciding(self, device: Device) -> Device:
        """The device without the budget that keeps most products of a segment in bf16."""
        options = {**device.kind.options, "mx_error_budget": 1.0}
        return replace(device, kind=replace(device.kind, options=options))

    def rounding(self, op: Operation, device: Device, fmt: str, ctx: Context) -> Rounding | None:
        """Operands of products in the format that they are multiplied in; sums and all else are float32."""
        del ctx
        if fmt == "fp32" or not isinstance(op, OnnxOp):
            return None
        if rule_name(op) == "Attention":
            return Rounding(("bf16",) * 3)
        if rule_name(op) not in _PRODUCTS | {_EXPERTS}:
            return None
        sizes = dict.fromkeys(_symbols(op), 1)
        types = product_types([op], fmt, self.machine(device), sizes, mx_budget=1.0, inside=EVERYTHING)
        dtype = types.get(op, "bf16")
        if dtype in ("f32", "i8"):
            return None
        if rule_name(op) == _EXPERTS:
            given = (position for position, value in enumerate(op.inputs) if value is not None)
            return Rounding(tuple(dtype if position in _EXPERT_OPERANDS else None for position in given))
        return Rounding((dtype, dtype), axes=_depth_axes(op))

    def weight_store(self, device: Device) -> WeightStore | None:
        """As many weights as code generation lets be resident, the rest in LPDDR; None where there is none."""
        if len(device.kind.memory) < 2:
            return None
        machine = self.machine(device)
        return WeightStore(int(machine.sram_bytes * RESIDENT_SHARES[0]), 1.0 / machine.lpddr_bytes_per_s)

    def large_operators(self, device: Device) -> frozenset[str]:
        del device
        return LARGE

    def refuses(self, op: Operation, device: Device, fmt: str) -> Reason | None:
        if not isinstance(op, OnnxOp):
            return Reason(op.name, f"{op.name} is not an ONNX operation")
        if is_constant(op):
            return None
        if rule_name(op) not in RULES:
            return Reason(_label(op), f"{op.op_type} has no lowering to the machine")
        if data_dims := _data_dims(op):
            return Reason(_label(op), f"its shape depends on data: {data_dims[0]} is not known before it has run")
        key = (device.kind.name, _mx_budget(device.kind), fmt, signature_of_ops([*dequantizers(op), op]))
        if key not in self._refusals:
            self._refusals[key] = self._refusal(op, device, fmt)
        why = self._refusals[key]
        return None if why is None else Reason(_label(op), why)

    def _refusal(self, op: OnnxOp, device: Device, fmt: str) -> str | None:
        try:
            work = work_of_ops([*dequantizers(op), op], _assumed_sizes(op), _mx_budget(device.kind))
            first_program(work, self.machine(device), fmt)
        except RefusedError as error:
            return str(error)
        return None

    def updates_in_place(self, op: Operation) -> bool:
        """Where its program changes the state's tensor by scatters."""
        return isinstance(op, OnnxOp) and changes_in_place(op)

    def op_cost(self, op: Operation, device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """What the program of an op alone costs; the roofline where there is none."""
        if not isinstance(op, OnnxOp) or is_constant(op):
            return Cost(0.0, None if device.kind.load_w is None else 0.0)
        ops = [*dequantizers(op), op]
        known = _known(ops, sizes)
        key = ("alone", *self._key(ops, device, fmt, known))
        if key not in self._costs:
            generated = self._generated(ops, device, fmt, known)
            found = roofline(work_of(op), device, fmt, known) if generated is None else self._cost(generated, device)
            self._costs[key] = found
        return self._costs[key]

    def op_costs(self, ops: Sequence[Operation], device: Device, fmt: str, sizes: Mapping[str, int]) -> list[Cost]:
        """What each op adds to the program of its neighbours (context.py), whose sum is near a whole segment's.

        How near that is what benchmarks/sram_costs.py prints.
        """
        known = [op for op in ops if isinstance(op, OnnxOp) and not is_constant(op)]
        costs: dict[Operation, Cost] = {}
        element_bytes = stored_bytes(MATRIX_TYPES[fmt], (MX_BLOCK,)) / MX_BLOCK
        fitting = _RUN_SHARE * self.machine(device).sram_bytes / element_bytes
        for run in runs(known, sizes, fitting):
            costs |= self._costs_in(run, device, fmt, sizes)
        return [costs[op] if op in costs else self.op_cost(op, device, fmt, sizes) for op in ops]

    def _costs_in(self, run: Run, device: Device, fmt: str, sizes: Mapping[str, int]) -> dict[OnnxOp, Cost]:
        """What each op of a run adds to its program, remembered; of two halves where the run has no program."""
        before = [*run.before, *(each for op in run.ops for each in dequantizers(op))]
        ops = [*(each for each in dict.fromkeys(before) if each not in run.ops), *run.ops]
        known = _known(ops, sizes)
        key = (len(run.ops), *self._key(ops, device, fmt, known))
        if key not in self._added:
            generated = self._generated(ops, device, fmt, known)
            found = None if generated is None else added_by(generated, known)
            self._added[key] = None if found is None else tuple(found.get(op, Added()) for op in run.ops)
        added = self._added[key]
        if added is not None:
            return {op: self._adding(each, device) for op, each in zip(run.ops, added, strict=True)}
        if len(run.ops) == 1:
            return {op: self.op_cost(op, device, fmt, sizes) for op in run.ops}
        half = len(run.ops) // 2
        parts = Run(run.before, run.ops[:half]), Run((), run.ops[half:])
        return {op: cost for part in parts for op, cost in self._costs_in(part, device, fmt, sizes).items()}

    def _adding(self, added: Added, device: Device) -> Cost:
        joules = energy_joules(device.kind, added.seconds, 0.0)
        return Cost(added.seconds, joules, added.weight_bytes, added.activation_bytes)

    def _key(self, ops: Sequence[OnnxOp], device: Device, fmt: str, known: Mapping[str, int]) -> tuple[Hashable, ...]:
        """What decides the program of some ops at the sizes that are `known`."""
        return device.kind.name, _mx_budget(device.kind), fmt, signature_of_ops(ops), *sorted(known.items())

    def estimate(self, ops: Sequence[Operation], device: Device, fmt: str, sizes: Mapping[str, int]) -> Cost:
        """What the program of all ops together costs, and one launch."""
        known = [op for op in ops if isinstance(op, OnnxOp) and not is_constant(op)]
        if len(known) < len(ops):
            return super().estimate(ops, device, fmt, sizes)
        here = _known(known, sizes)
        key = self._key(known, device, fmt, here)
        if key not in self._costs:
            generated = self._generated(known, device, fmt, here)
            found = (
                super().estimate(ops, device, fmt, sizes) if generated is None else self._launched(generated, device)
            )
            self._costs[key] = found
        return self._costs[key]

    def _generated(self, ops: Sequence[OnnxOp], device: Device, fmt: str, sizes: Mapping[str, int]) -> Generated | None:
        try:
            return generate(work_of_ops(ops, sizes, _mx_budget(device.kind)), self.machine(device), fmt)
        except RefusedError:
            return None

    def _launched(self, generated: Generated, device: Device) -> Cost:
        """What a program costs, and one launch."""
        cost = self._cost(generated, device)
        return replace(cost, seconds=cost.seconds + device.kind.segment_overhead_s)

    def _cost(self, generated: Generated, device: Device) -> Cost:
        seconds, tensors = generated.timing.seconds, generated.program.tensors
        weights = sum(tensor.capacity_bytes for tensor in tensors if tensor.role == "weight")
        others = sum(tensor.capacity_bytes for tensor in tensors) - weights
        return Cost(seconds, energy_joules(device.kind, seconds, 0.0), weights, others)

    def emit(self, segment: SegmentContext, device: Device, fmt: str, folder: Path) -> Artifact | Reason:
        op = segment.op
        name = op.sym_name.data
        if fmt not in self.formats(device):
            return Reason(name, f"{device.kind.name} does not compute in {fmt}")
        ctx = segment.ctx if isinstance(segment.ctx, GimletContext) else None
        work = Work(
            name=name,
            inputs=_named((each.data for each in op.arg_names), op.body.block.args),
            outputs=_named((each.data for each in op.res_names), op.results_yielded),
            ctx=ctx,
            bounds=segment.bounds,
            mx_budget=_mx_budget(device.kind),
        )
        try:
            generated = generate(work, self.machine(device), fmt)
            _check_told(generated, op)
            artifact = self._write(generated, fmt, folder, ctx)
        except RefusedError as error:
            return Reason(name, str(error))
        return replace(artifact, cost=self._launched(generated, device))

    def _write(self, generated: Generated, fmt: str, folder: Path, ctx: GimletContext | None) -> Artifact:
        program, timing = generated.program, generated.timing
        folder.mkdir(parents=True, exist_ok=True)
        files = [PROGRAM_FILE]
        weights = [tensor for tensor in program.tensors if tensor.role == "weight" and tensor.capacity_bytes]
        if weights:
            files.append(WEIGHTS_FILE)
            with (folder / WEIGHTS_FILE).open("wb") as file:
                for tensor in weights:
                    file.write(b"\0" * (tensor.offset - file.tell()))
                    file.writelines(encode_pieces(tensor.dtype, generated.readers[tensor.name]()))
                    if ctx is not None:
                        ctx.weights.give_back()
        (folder / PROGRAM_FILE).write_text(dumps(program), encoding="utf-8")
        ends = {
            space: max((t.address + t.capacity_bytes for t in program.tensors if t.space == space), default=0)
            for space in ("sram", "lpddr")
        }
        total = sum(generated.flops.values())
        return Artifact(
            executor=self.executor,
            format=fmt,
            files=tuple(files),
            facts={
                "cycles": timing.cycles,
                "seconds": timing.seconds,
                "cores": program.cores,
                "kernels": len(program.kernels),
                "sram_bytes": ends["sram"],
                "lpddr_bytes": ends["lpddr"],
                "weight_bytes": sum(tensor.capacity_bytes for tensor in weights),
                "products": {dtype: round(flops / total, 4) for dtype, flops in generated.flops.items() if total},
                "product_flops": total,
                "utilisation": {unit: round(share, 4) for unit, share in timing.utilisation.items()},
            },
        )


def work_of_ops(ops: Sequence[OnnxOp], sizes: Mapping[str, int], mx_budget: float = MX_ERROR_BUDGET) -> Work:
    """Operations alone, at one set of sizes, with everything that they read from outside given."""
    made = {result for op in ops for result in op.results}
    inside = set(ops)
    given: dict[SSAValue, None] = {}
    for op in ops:
        for value in op.operands:
            if value not in made:
                given[value] = None
    wanted = [
        result
        for op in ops
        for result in op.results
        if not (uses := list(result.uses)) or any(use.operation not in inside for use in uses)
    ]
    return Work(
        name="estimate",
        inputs=[(f"x{index}", value) for index, value in enumerate(given) if not _is_constant_value(value)],
        outputs=[(f"y{index}", value) for index, value in enumerate(wanted)],
        ctx=None,
        bounds={name: DimBound(size, size, size) for name, size in sizes.items()},
        keeps_views=True,
        mx_budget=mx_budget,
    )


def _is_constant_value(value: SSAValue) -> bool:
    return isinstance(value, OpResult) and is_constant(value.op)


def _symbols(op: OnnxOp) -> set[str]:
    """The symbolic dimensions in the types around an op."""
    return _symbols_in((*op.operands, *op.results))


def _symbols_in(values: Iterable[SSAValue]) -> set[str]:
    return {name for value in values for dim in shape_of(value) or () if dim is not None for name in dim.symbols}


def _model_symbols(op: Operation) -> set[str] | None:
    """The symbolic dimensions of the model's inputs; None for an op of no whole model."""
    top: Operation | None = op
    while top is not None and not isinstance(top, ModuleOp):
        top = top.parent_op()
    functions = () if top is None else top.body.block.ops
    main = next((each for each in functions if isinstance(each, FuncOp) and each.sym_name.data == ENTRY), None)
    return None if main is None else _symbols_in(main.args)


def _data_dims(op: OnnxOp) -> list[str]:
    """The dimensions of an op's results that are known only when it has run."""
    new = _symbols_in(op.results) - _symbols_in(op.operands)
    known = _model_symbols(op) if new else None
    return [] if known is None else sorted(new - known)


def _check_told(generated: Generated, segment: SegmentOp) -> None:
    """RefusedError for a program with a dimension that neither the segment's inputs nor the model's tell."""
    told = _symbols_in(segment.body.block.args) | (_model_symbols(segment) or set())
    for dim in generated.program.dims:
        if dim.name not in told:
            raise RefusedError(f"the shapes of its inputs do not tell the size of dimension {dim.name}")


def _assumed_sizes(op: OnnxOp) -> dict[str, int]:
    """Sizes of the symbolic dimensions around an op at which no dimension is below 1: a window has to fit.

    RefusedError where the sizes tried give none.
    """
    symbols = sorted(_symbols(op))
    known = (dim for value in (*op.operands, *op.results) for dim in shape_of(value) or () if dim is not None)
    dims = [dim for dim in known if dim.symbols]
    rising = range(len(symbols))
    for size in _ASSUMED_SIZES:
        for doublings in ([0] * len(symbols), rising, rising[::-1]):
            sizes = {name: size << times for name, times in zip(symbols, doublings, strict=True)}
            if all(dim.evaluate(sizes) >= 1 for dim in dims):
                return sizes
    raise RefusedError("no sizes were found at which its dimensions are positive")


def _known(ops: Sequence[OnnxOp], sizes: Mapping[str, int]) -> dict[str, int]:
    """Those of the sizes that the ops depend on."""
    return {name: sizes[name] for op in ops for name in _symbols(op) if name in sizes}


def _mx_budget(kind: HardwareKind) -> float:
    """The option `mx_error_budget` of a device kind. InputError if it is not a number."""
    budget = kind.options.get("mx_error_budget", MX_ERROR_BUDGET)
    if not isinstance(budget, int | float) or budget < 0:
        raise InputError(f"mx_error_budget must be a number from 0 to 1, not {budget!r}", where=kind.name)
    return float(budget)


def _depth_axes(op: OnnxOp) -> tuple[int, int]:
    """The axes of both operands of a product that it sums over: of a convolution the channels."""
    if op.op_type == "Conv":
        return 1, 1
    if op.op_type == "ConvTranspose":
        return 1, 0
    if op.op_type == "Gemm":
        return (0 if op.attr("transA", 0) else -1), (-1 if op.attr("transB", 0) else 0)
    return -1, -2


def _label(op: OnnxOp) -> str:
    return op.node_name or (value_name(op.results[0]) if op.results else op.name)


def _named(names: Iterable[str], values: Sequence[SSAValue]) -> list[tuple[str, SSAValue]]:
    return list(zip(names, values, strict=True))
