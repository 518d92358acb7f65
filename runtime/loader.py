"""Chooses, for each segment of a bundle, the variant that can run here, and loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gimlet.runtime.bundle import Bundle
from gimlet.runtime.errors import MissingError, UsageError
from gimlet.runtime.executors.base import Availability, DeviceSpec, Executor, SegmentArtifact
from gimlet.runtime.executors.registry import load_executor
from gimlet.runtime.frame import LoadedVariant
from gimlet.runtime.manifest import DeviceEntry, Segment, Variant


@dataclass(frozen=True)
class LoadedSegment:
    """A segment's loaded variants. `emulated` means that the host computes what the device would."""

    device: str
    format: str
    variants: tuple[LoadedVariant, ...]
    emulated: bool


@dataclass(frozen=True)
class Candidate:
    """A variant, the device as it needs it, and whether it can run here."""

    variant: Variant
    device: DeviceSpec
    executor: type[Executor] | None
    availability: Availability


def candidates(
    bundle: Bundle, segment: Segment, devices: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Candidate]:
    """Every variant of a segment, in the order of preference, and whether it can run here."""
    entry = next(device for device in bundle.manifest.topology.devices if device.name == segment.device)
    settings = (devices or {}).get(segment.device, {})
    return [_candidate(bundle, entry, variant, settings) for variant in segment.variants]


def _candidate(bundle: Bundle, entry: DeviceEntry, variant: Variant, settings: Mapping[str, Any]) -> Candidate:
    kind = variant.device_kind or entry.kind
    device = DeviceSpec(entry.name, kind, {**entry.requires, **variant.requires}, settings)
    unbuilt = [path for path in variant.undigested if bundle.entry(path) is None]
    if unbuilt:
        reason = f"{unbuilt[0]} is still to be built on a machine that has {kind}"
        return Candidate(variant, device, None, Availability(reason, f"run there: gimlet-compile finish {bundle.root}"))
    try:
        executor = load_executor(variant.executor)
    except MissingError as error:
        return Candidate(variant, device, None, Availability(error.message, error.hint or ""))
    return Candidate(variant, device, executor, executor.available(device))


def load_segments(
    bundle: Bundle, *, emulate_missing: bool, devices: Mapping[str, Mapping[str, Any]]
) -> dict[str, LoadedSegment]:
    """Loads every segment. MissingError names the device that is not here, and what would provide it."""
    names = [device.name for device in bundle.manifest.topology.devices]
    for name in devices:
        if name not in names:
            raise UsageError(f"the bundle has no device {name!r}", hint=f"its devices are {', '.join(names)}")
    return {
        segment.id: _load_segment(bundle, segment, devices, emulate_missing=emulate_missing)
        for segment in bundle.manifest.segments
    }


def _load_segment(
    bundle: Bundle, segment: Segment, devices: Mapping[str, Mapping[str, Any]], *, emulate_missing: bool
) -> LoadedSegment:
    found = candidates(bundle, segment, devices)
    usable = [candidate for candidate in found if candidate.availability]
    if not usable and emulate_missing:
        return _load_portable(bundle, segment)
    if not usable:
        raise _missing(segment, found)
    if not usable[0].variant.profile:
        usable = usable[:1]
    loaded = [_load(bundle, segment, candidate) for candidate in usable]
    emulated = loaded[0].executor.emulation
    return LoadedSegment(segment.device, usable[0].variant.format, tuple(loaded), emulated)


def _missing(segment: Segment, found: list[Candidate]) -> MissingError:
    reasons = "; ".join(candidate.availability.reason for candidate in found)
    hints = [candidate.availability.hint for candidate in found if candidate.availability.hint]
    if segment.portable is not None:
        hints.append("give --emulate-missing (emulate_missing=True) to run the portable form on this CPU")
    message = f"device {segment.device!r} ({found[0].device.kind}) is not here: {reasons}"
    return MissingError(message, where=segment.id, hint="; or ".join(hints) or None)


def _load_portable(bundle: Bundle, segment: Segment) -> LoadedSegment:
    if segment.portable is None:
        message = f"device {segment.device!r} is not here, and the segment has no portable form to emulate it by"
        raise MissingError(message, where=segment.id)
    portable = segment.portable
    device = DeviceSpec(segment.device, portable.device_kind or "host", portable.requires)
    executor = load_executor(portable.executor)
    availability = executor.available(device)
    if not availability:
        raise MissingError(availability.reason, where=segment.id, hint=availability.hint or None)
    loaded = _load(bundle, segment, Candidate(portable, device, executor, availability))
    return LoadedSegment(segment.device, portable.format, (loaded,), emulated=True)


def _load(bundle: Bundle, segment: Segment, candidate: Candidate) -> LoadedVariant:
    variant, executor = candidate.variant, candidate.executor
    if executor is None:
        raise MissingError(candidate.availability.reason, where=segment.id)
    for path in variant.files:
        bundle.open_file(path)
    artifact = SegmentArtifact(
        segment=segment.id,
        format=variant.format,
        root=bundle.root,
        files=variant.files,
        inputs=segment.inputs,
        outputs=segment.outputs,
        open_file=bundle.open_file,
        options=variant.options,
        content=bundle.id,
    )
    return LoadedVariant(executor.load(artifact, candidate.device), variant.profile)
