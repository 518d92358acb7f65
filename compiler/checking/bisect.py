"""The first op of a segment whose numbers part from the reference.

The segment is built again with every value inside it as an output, by the same target, and runs beside its portable
form in onnx's reference evaluator on the same inputs. A framework may fuse less when every value is an output: where
the segment is wrong and this form of it is not, the fault is in what the framework fuses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from gimlet.compiler.bounds import read_bounds
from gimlet.compiler.checking.numerics import Deviation, coarsest, deviation
from gimlet.compiler.checking.reference import Reference, onnx_reference
from gimlet.compiler.checking.segment_runs import Array, Arrays, run_once, segment_runner
from gimlet.compiler.lowering import PORTABLE_EXECUTOR, opsets_of, own_format, real_ops, segments_of, target_of
from gimlet.compiler.manifest_ir import segment_specs
from gimlet.compiler.options import default_cache
from gimlet.compiler.placement.reading.ir_topology import read_topology
from gimlet.compiler.sources import Source
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import InitializerOp, functions_of, value_name
from gimlet.dialects.onnx.types import element_of
from gimlet.dialects.placement import SegmentOp
from gimlet.passes.entry import describe
from gimlet.runtime.bundle import Bundle
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.executors.base import DeviceSpec, SegmentArtifact
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.manifest import Segment
from gimlet.targets.api import Artifact, Reason, SegmentContext, Topology
from gimlet.targets.forms import portable_form, target_form
from gimlet.targets.portable import MODEL_FILE, FolderWeights, write_portable

MODULE = "module.mlir"


@dataclass(frozen=True)
class OpDeviation:
    """An op, the name of its first result, and how far that is from the reference."""

    op: str
    value: str
    deviation: Deviation
    ok: bool


def bisect_bundle(bundle: Bundle, name: str, reference: Reference, inputs: Arrays) -> list[OpDeviation]:
    """Every op of a bundle's segment, on the reference's values where it knows the segment's inputs, else the bundle's.

    Errors as those of `bisect`; InputError where the bundle's hardware kinds are not known here.
    """
    ctx = GimletContext()
    path = bundle.open_file(MODULE)
    module = Source(path, bundle.manifest.model.name, MODULE).import_module(ctx)
    segment = bundle.manifest.segment(name)
    with segment_runner(bundle) as runner:
        values: dict[str, Array] = runner.run_all(inputs)
    found = next((op for op in segments_of(module) if op.sym_name.data == name), None)
    inner = [value for _, value in _named_values(found)] if found is not None else []
    known = reference.values(inputs, [*inner, *(spec.name for spec in segment.inputs)])
    values.update(known)
    given = {spec.name: values[spec.name].astype(spec.numpy_type) for spec in segment.inputs}
    return bisect(module, ctx, read_topology(module), name, given, default_cache(), known)


def bisect(
    module: ModuleOp,
    ctx: GimletContext,
    topology: Topology,
    name: str,
    inputs: Arrays,
    cache: Path,
    known: Arrays | None = None,
) -> list[OpDeviation]:
    """Every op of segment `name` of a module after `split`, in order, with its distance from the reference.

    `inputs` are the segment's inputs by name, `known` the values inside it that the model's own reference gives for
    them; the others are those of the segment's portable form. UsageError if there is no such segment; InputError where
    the form with all values as outputs cannot be built or the device is not here.
    """
    found = next((op for op in segments_of(module) if op.sym_name.data == name), None)
    if found is None:
        raise UsageError(f"the module has no segment {name!r}")
    opened = _with_all_outputs(found)
    fmt = coarsest({opened.format, own_format(real_ops(opened))})
    # A module of its own: the launches of the other would not fit the new outputs.
    functions = [function.clone() for function in functions_of([found])]
    ModuleOp([opened, *functions], attributes=dict(module.attributes)).verify()
    context = SegmentContext(opened, ctx, opsets_of(module), read_bounds(module), cache)
    with tempfile.TemporaryDirectory() as folder:
        wanted = {**_reference_values(context, Path(folder) / "portable", inputs), **(known or {})}
        values = _target_values(context, topology, Path(folder) / "target", inputs)
    return [
        _compare(op_name, value, values, wanted, fmt)
        for op_name, value in _named_values(opened)
        if value in values and value in wanted
    ]


def _with_all_outputs(segment: SegmentOp) -> SegmentOp:
    body = segment.body.clone()
    names = {value_name(argument) for argument in body.block.args}
    values: list[SSAValue] = []
    for op in body.block.ops:
        if isinstance(op, InitializerOp):
            continue
        for result in op.results:
            if element_of(result.type) is not None and value_name(result) not in names:
                values.append(result)
                names.add(value_name(result))
    last = body.block.last_op
    if last is not None:
        last.operands = values
    res_names = [value_name(value) for value in values]
    arg_names = [item.data for item in segment.arg_names]
    return SegmentOp(
        segment.sym_name.data,
        segment.device_name,
        segment.format,
        body,
        arg_names,
        res_names,
        segment.target_name,
    )


def _named_values(segment: SegmentOp) -> list[tuple[str, str]]:
    """Each op of a segment, as messages name it, with the name of its first result."""
    return [(describe(op), value_name(op.results[0])) for op in real_ops(segment) if op.results]


def _reference_values(context: SegmentContext, folder: Path, inputs: Arrays) -> Mapping[str, Array]:
    folder.mkdir()
    files = write_portable(portable_form(replace(context, weights=FolderWeights(folder))), folder)
    if isinstance(files, Reason):
        raise InputError(files.message, where=files.op)
    names = [item.data for item in context.op.res_names]
    return dict(zip(names, onnx_reference(folder / MODEL_FILE).run(inputs), strict=True))


def _target_values(context: SegmentContext, topology: Topology, folder: Path, inputs: Arrays) -> Mapping[str, Array]:
    """The values that the segment's target computes; where its device is not here, those of the portable form."""
    folder.mkdir()
    op = context.op
    device = topology.device(op.device_name)
    target = target_of(device, op.format, op.target_name)
    opened = replace(context, weights=FolderWeights(folder))
    spec = DeviceSpec(device.name, device.kind.name)
    if not load_executor(target.executor).available(spec):
        files = write_portable(portable_form(opened), folder)
        if isinstance(files, Reason):
            raise InputError(files.message, where=files.op)
        return _run(context, folder, Artifact(PORTABLE_EXECUTOR, op.format, files), spec, inputs)
    opened = target_form(opened, target, device).context
    target.prepare(opened)
    artifact = target.emit(opened, device, op.format, folder)
    if isinstance(artifact, Reason):
        raise InputError(
            f"cannot be built with every value as an output: {artifact.message}",
            where=artifact.op,
            hint="compare without --bisect",
        )
    return _run(context, folder, artifact, spec, inputs)


def _run(
    context: SegmentContext, folder: Path, artifact: Artifact, device: DeviceSpec, inputs: Arrays
) -> Mapping[str, Array]:
    op = context.op
    names, outputs = segment_specs(op)
    segment = Segment(op.sym_name.data, op.device_name, op.format, names, outputs, ())
    loaded = SegmentArtifact(
        segment.id, op.format, folder, artifact.files, names, outputs, lambda path: folder / path, artifact.options
    )
    executor = load_executor(artifact.executor).load(loaded, device)
    try:
        return run_once(executor, segment, inputs)
    finally:
        executor.close()


def _compare(op: str, value: str, values: Arrays, wanted: Arrays, fmt: str) -> OpDeviation:
    found = deviation(values[value], wanted[value])
    return OpDeviation(op, value, found, found.within(fmt))
