"""gimlet-inspect: what a bundle is made of, and what of it can run on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gimlet.runtime.units import amount_text, bytes_text, joules_text, seconds_text
from gimlet.tools.cli import command, print_json, run

if TYPE_CHECKING:
    from rich.console import Console

    from gimlet.runtime.bundle import Bundle
    from gimlet.runtime.manifest import Manifest, PlacementSummary, Segment, StateEntry, Variant

PATH = click.Path(path_type=Path)


@command("gimlet-inspect")
@click.argument("bundle", type=PATH)
@click.option("--verify-hashes", is_flag=True, help="Compare every file with its hash; exit with 4 if one differs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_inspect(bundle: Path, *, verify_hashes: bool, as_json: bool) -> None:
    """Print the segments, devices, transfers and files of BUNDLE, and which devices are here."""
    from gimlet.compiler.tables import console_for_tables
    from gimlet.runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    verified = opened.verify_all() if verify_hashes else None
    if as_json:
        print_json(_as_data(opened, verified))
        return
    _print(opened, verified, console_for_tables())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_inspect, args)


def _as_data(bundle: Bundle, verified: int | None) -> dict[str, Any]:
    import json

    from gimlet.runtime.manifest_json import MANIFEST

    return {
        "bundle": str(bundle.root),
        "id": bundle.id,
        "manifest": json.loads((bundle.root / MANIFEST).read_bytes()),
        "engines": {path: {"sha256": item.sha256, "bytes": item.bytes} for path, item in bundle.engines.items()},
        "here": {segment.id: _here(bundle, segment) for segment in bundle.manifest.segments},
        "verified_bytes": verified,
    }


def _here(bundle: Bundle, segment: Segment) -> dict[str, Any]:
    """Whether a segment can run on this machine, by what, and if not, why."""
    from gimlet.runtime.loader import candidates

    found = candidates(bundle, segment)
    for item in found:
        if item.availability and item.executor is not None:
            return {"runs": True, "by": item.variant.executor, "emulated": item.executor.emulation, "reason": None}
    return {"runs": False, "by": None, "emulated": False, "reason": found[0].availability.reason}


def _print(bundle: Bundle, verified: int | None, console: Console) -> None:
    manifest = bundle.manifest
    placement = manifest.placement
    producer = ", ".join(f"{name} {version}" for name, version in sorted(manifest.producer.items()))
    lines = [
        f"{bundle.root.name} {bundle.id}",
        f"model: {manifest.model.name} from {manifest.model.source}",
        f"made by: {producer}",
        *(f"input {manifest.spec(port)}" for port in manifest.inputs),
        *(f"output {manifest.spec(port)}" for port in manifest.outputs),
        *(f"state {_state(manifest, state)}" for state in manifest.states),
        *(f"dimension {name}: {dim.minimum} to {dim.maximum}, best at {dim.optimum}" for name, dim in _dims(bundle)),
        f"placement: {placement.objective} {_objective(placement, placement.value)}, "
        f"bound {_objective(placement, placement.bound)}, gap {placement.gap:.2%} ({placement.status})",
        *_promised(placement),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    _print_devices(bundle, console)
    _print_segments(bundle, console)
    _print_transfers(bundle, console)
    _print_files(bundle, console)
    if verified is not None:
        console.print(f"all hashes hold ({bytes_text(verified)})")


def _objective(placement: PlacementSummary, value: float) -> str:
    return amount_text(value, {"energy": "J", "cost": "USD"}.get(placement.objective, "s"))


def _promised(placement: PlacementSummary) -> list[str]:
    """One line with the figures of a run in the schedule, as far as they are known."""
    known = {
        "latency": (placement.latency_s, "s"),
        "period": (placement.period_s, "s"),
        "energy": (placement.energy_j, "J"),
        "cost": (placement.cost_usd, "USD"),
    }
    texts = [f"{name} {amount_text(value, unit)}" for name, (value, unit) in known.items() if value is not None]
    return [f"predicted for one run: {', '.join(texts)}"] if texts else []


def _state(manifest: Manifest, state: StateEntry) -> str:
    value = next(value for value in manifest.values if value.id == state.read)
    how = "in place" if state.in_place else "in two memories"
    return f"{state.name} on {value.device}: {value.dtype}, room for {list(state.capacity)}, updated {how}"


def _dims(bundle: Bundle) -> list[tuple[str, Any]]:
    return sorted(bundle.manifest.dims.items())


def _sizes(bundle: Bundle) -> dict[str, int]:
    return {name: dim.optimum for name, dim in bundle.manifest.dims.items()}


def _print_devices(bundle: Bundle, console: Console) -> None:
    from gimlet.compiler.tables import figure_table

    rows: list[tuple[str, ...]] = []
    for device in bundle.manifest.topology.devices:
        segments = [segment for segment in bundle.manifest.segments if segment.device == device.name]
        answers = dict.fromkeys(_answer(_here(bundle, segment)) for segment in segments)
        rows.append((device.name, device.kind, str(len(segments)), "; ".join(answers) or "nothing to run"))
    console.print(figure_table("devices", ("device", "kind", "segments", "runs here"), rows))


def _answer(here: dict[str, Any]) -> str:
    if not here["runs"]:
        return f"no: {here['reason']}"
    return f"emulated by {here['by']}" if here["emulated"] else f"yes, by {here['by']}"


def _print_segments(bundle: Bundle, console: Console) -> None:
    from gimlet.compiler.tables import figure_table

    columns = (
        "segment",
        "device",
        "format",
        "artifact",
        "ops",
        "FLOPs",
        "weights",
        "size",
        "predicted",
        "energy",
    )
    rows = [_segment_row(bundle, segment) for segment in bundle.manifest.segments]
    console.print(figure_table("segments", columns, rows))


def _segment_row(bundle: Bundle, segment: Segment) -> tuple[str, ...]:
    sizes = _sizes(bundle)
    variant = segment.variants[0]
    flops = segment.flops.evaluate(sizes) if segment.flops.symbols <= sizes.keys() else None
    return (
        segment.id,
        segment.device,
        segment.format,
        variant.executor + (" (deferred)" if _is_deferred(bundle, variant) else ""),
        str(segment.ops),
        "?" if flops is None else _count(flops),
        bytes_text(segment.weight_bytes),
        bytes_text(_artifact_bytes(bundle, segment, variant)),
        seconds_text(segment.seconds),
        "" if segment.joules is None else joules_text(segment.joules),
    )


def _is_deferred(bundle: Bundle, variant: Variant) -> bool:
    return any(bundle.entry(path) is None for path in variant.undigested)


def _artifact_bytes(bundle: Bundle, segment: Segment, variant: Variant) -> int:
    """The bytes of a variant's own files, those that segments share left out."""
    own = [path for path in variant.files if path.startswith(f"segments/{segment.id}/")]
    return sum(entry.bytes for path in own if (entry := bundle.entry(path)) is not None)


def _print_transfers(bundle: Bundle, console: Console) -> None:
    from gimlet.compiler.tables import figure_table

    if not bundle.manifest.transfers:
        return
    values = {value.id: value for value in bundle.manifest.values}
    rows: list[tuple[str, ...]] = []
    for step in bundle.manifest.transfers:
        known = step.bytes.symbols <= _sizes(bundle).keys()
        rows.append(
            (
                values[step.source].name,
                values[step.source].device,
                values[step.target].device,
                " → ".join(step.route),
                bytes_text(step.bytes.evaluate(_sizes(bundle))) if known else str(step.bytes),
                seconds_text(step.seconds),
            )
        )
    console.print(figure_table("transfers", ("value", "from", "to", "route", "bytes", "predicted"), rows))


def _print_files(bundle: Bundle, console: Console) -> None:
    groups: dict[str, int] = {}
    for path, entry in bundle.manifest.files.items():
        groups[path.partition("/")[0]] = groups.get(path.partition("/")[0], 0) + entry.bytes
    if bundle.engines:
        groups["engines"] = sum(entry.bytes for entry in bundle.engines.values())
    parts = ", ".join(f"{name} {bytes_text(size)}" for name, size in sorted(groups.items()))
    console.print(f"files: {parts}", soft_wrap=True)


def _count(value: float) -> str:
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.4g} T"


if __name__ == "__main__":
    main()
