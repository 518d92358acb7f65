"""How far a bundle's numbers are from the model's, segment by segment.

Two distances are told apart. *Accumulated*: a segment's outputs in a run of the whole bundle, with all that earlier
segments did to its inputs. *Alone*: its outputs when it is given the reference's own values, so that a segment that is
wrong is told from one that only passes an error on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gimlet.compiler.checking.numerics import Deviation, coarsest, deviation
from gimlet.compiler.checking.reference import OTHER_MODEL, Reference
from gimlet.compiler.checking.reference_steps import STEPS, ReferenceSteps
from gimlet.compiler.checking.segment_runs import Arrays, SegmentRunner, segment_runner
from gimlet.runtime.bundle import Bundle
from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Manifest, Port, Segment, Value
from gimlet.runtime.program import load


@dataclass(frozen=True)
class SegmentComparison:
    """A segment's distance from the reference, over the outputs that the reference could tell; None for none.

    `format` is the coarser of the one that the segment computes in and of those that the model itself asks for there.
    """

    segment: str
    device: str
    format: str
    accumulated: Deviation | None
    alone: Deviation | None
    emulated: bool

    @property
    def ok(self) -> bool:
        """Whether the segment by itself is within the tolerance of its format."""
        return self.alone is None or self.alone.within(self.format)


@dataclass(frozen=True)
class Comparison:
    """A bundle against its reference: each output of the program, and each segment in the order of launches.

    `sizes` are those of the dimensions, where they were chosen for the comparison.
    """

    reference: str
    format: str
    outputs: Mapping[str, Deviation]
    segments: Sequence[SegmentComparison]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def ok(self) -> bool:
        """Whether every output of the program is within the tolerance of the coarsest format in it."""
        return all(found.within(self.format) for found in self.outputs.values())

    @property
    def first_bad(self) -> SegmentComparison | None:
        """The first segment that is out of tolerance by itself, or None."""
        return next((segment for segment in self.segments if not segment.ok), None)


def compare(bundle: Bundle, reference: Reference, inputs: Arrays) -> Comparison:
    """Runs the bundle and the reference on `inputs` (by the program's input names) and compares them.

    Errors as those of running the bundle. Segments of an absent device run in their portable form.
    """
    manifest = bundle.manifest
    if manifest.states:
        return _compare_steps(bundle, reference, inputs)
    with segment_runner(bundle) as runner:
        values = runner.run_all(inputs)
        wanted, known = _wanted(reference, manifest, inputs)
        known |= {spec.name: ({**runner.defaults, **inputs})[port.name] for port, spec in _input_specs(manifest)}
        outputs = {
            port.name: deviation(values[name], array)
            for port, name, array in zip(manifest.outputs, _output_names(manifest), wanted, strict=True)
        }
        known |= dict(zip(_output_names(manifest), wanted, strict=True))
        segments = [_compare_segment(runner, segment, values, known) for segment in runner.launches()]
    return Comparison(reference.name, coarsest({judged_by(each) for each in manifest.segments}), outputs, segments)


def _wanted(reference: Reference, manifest: Manifest, inputs: Arrays) -> tuple[list[Any], dict[str, Any]]:
    """The reference's outputs, and what it has between segments.

    InputError where it cannot be the model that the bundle was compiled from.
    """
    names = [spec.name for segment in manifest.segments for spec in (*segment.inputs, *segment.outputs)]
    given = {port.name: inputs[port.name] for port in manifest.inputs if port.name in inputs}
    wanted, known = reference.run_and_see(given, names)
    if len(wanted) != len(manifest.outputs):
        message = f"has {len(wanted)} outputs, and the bundle {len(manifest.outputs)}"
        raise InputError(message, where="the reference", hint=OTHER_MODEL)
    return wanted, known


def _compare_steps(bundle: Bundle, reference: Reference, inputs: Arrays) -> Comparison:
    """As `compare`, over `STEPS` runs with the same inputs, each of which goes on from what the one before has left.

    Segments are compared in the last step, on the reference's states.
    """
    manifest = bundle.manifest
    worst: dict[str, Deviation] = {}
    fmt = coarsest({judged_by(each) for each in manifest.segments})
    with load(bundle.root, emulate_missing=True) as program:
        stepper = ReferenceSteps(reference, manifest, program.initial_state(inputs))
        before: Arrays = {}
        wanted: Arrays = {}
        for _ in range(STEPS):
            found = program.run(inputs)
            before, wanted = stepper.states, stepper.step(inputs)
            for port in manifest.outputs:
                each = deviation(found[port.name], wanted[port.name])
                known = worst.get(port.name)
                worst[port.name] = each if known is None else _worst([known, each], fmt) or each
    with segment_runner(bundle) as runner:
        values = runner.run_all(inputs, before)
        known = {spec.name: ({**runner.defaults, **inputs})[port.name] for port, spec in _input_specs(manifest)}
        names = {value.id: value.name for value in manifest.values}
        known |= {names[state.read]: before[state.name] for state in manifest.states}
        known |= {names[state.written]: wanted[state.result] for state in manifest.states}
        known |= {name: wanted[port.name] for port, name in zip(manifest.outputs, _output_names(manifest), strict=True)}
        segments = [_compare_segment(runner, segment, values, known) for segment in runner.launches()]
    return Comparison(reference.name, fmt, worst, segments)


def judged_by(segment: Segment) -> str:
    """The format whose tolerance a segment is held to: the coarser of its own and of the model's in its ops."""
    return coarsest({segment.format} if segment.portable is None else {segment.format, segment.portable.format})


def _compare_segment(runner: SegmentRunner, segment: Segment, values: Arrays, known: Arrays) -> SegmentComparison:
    fmt = judged_by(segment)
    outputs = [spec.name for spec in segment.outputs if spec.name in known]
    alone = None
    if outputs and all(spec.name in known for spec in segment.inputs):
        given = {
            spec.name: known[spec.name].astype(spec.numpy_type) if spec.is_tensor else known[spec.name]
            for spec in segment.inputs
        }
        found = runner.run(segment, given)
        alone = _worst([deviation(found[name], known[name]) for name in outputs], fmt)
    return SegmentComparison(
        segment.id,
        segment.device,
        fmt,
        _worst([deviation(values[name], known[name]) for name in outputs], fmt),
        alone,
        runner.segments[segment.id].emulated,
    )


def _worst(found: Sequence[Deviation], fmt: str) -> Deviation | None:
    return max(found, key=lambda d: (not d.within(fmt), d.of_range, d.relative_l2), default=None)


def _input_specs(manifest: Manifest) -> list[tuple[Port, Value]]:
    values = {value.id: value for value in manifest.values}
    return [(port, values[port.value]) for port in manifest.inputs]


def _output_names(manifest: Manifest) -> list[str]:
    values = {value.id: value.name for value in manifest.values}
    return [values[port.value] for port in manifest.outputs]
