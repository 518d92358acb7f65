"""What changed between two bundles: interface, placement, predicted cost, engines, weights and tool versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gimlet.runtime.errors import UsageError
from gimlet.runtime.manifest import Manifest, Segment
from gimlet.runtime.units import amount_text

ASPECTS: Final = ("interface", "topology", "placement", "cost", "engines", "weights", "producer")
_UNITS: Final = {"energy": "J", "cost": "USD"}
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Change:
    """One difference: what it is about, where, and the two sides. `ratio` is new over old where both are figures."""

    aspect: str
    where: str
    old: str
    new: str
    ratio: float | None = None

    def __str__(self) -> str:
        change = "" if self.ratio is None else f" ({self.ratio - 1:+.1%})"
        return f"{self.aspect}: {self.where}: {self.old} → {self.new}{change}"


@dataclass(frozen=True)
class Limit:
    """An aspect that may not change; a figure may change by up to `fraction` of the old one, in either direction."""

    aspect: str
    fraction: float = 0.0

    def breaks(self, change: Change) -> bool:
        """Whether a change goes beyond this limit."""
        if change.aspect != self.aspect:
            return False
        return change.ratio is None or abs(change.ratio - 1.0) > self.fraction


def parse_limits(text: str) -> list[Limit]:
    """Limits from text such as `placement,cost:5%`. UsageError for what is not of that form."""
    limits: list[Limit] = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        aspect, colon, figure = item.partition(":")
        if aspect not in ASPECTS:
            raise UsageError(f"unknown aspect {aspect!r}", where="--fail-on", hint=f"known: {', '.join(ASPECTS)}")
        percent = _PERCENT.fullmatch(figure)
        if colon and (percent is None or aspect != "cost"):
            raise UsageError(f"cannot read {item!r}", where="--fail-on", hint="write, for example, placement,cost:5%")
        limits.append(Limit(aspect, float(percent.group(1)) / 100 if percent else 0.0))
    return limits


def diff(old: Manifest, new: Manifest) -> list[Change]:
    """All changes from `old` to `new`, in the order of `ASPECTS`. Empty for bundles with the same meaning."""
    return [
        *_mappings("interface", _interface(old), _interface(new)),
        *_mappings("topology", _topology(old), _topology(new)),
        *_mappings("placement", _placement(old), _placement(new)),
        *_costs(old, new),
        *_mappings("engines", _engines(old), _engines(new)),
        *_mappings("weights", _weights(old), _weights(new)),
        *_mappings("producer", old.producer, new.producer),
    ]


def _interface(manifest: Manifest) -> dict[str, str]:
    ports = [("input", port) for port in manifest.inputs] + [("output", port) for port in manifest.outputs]
    found = {f"{kind} {port.name}": str(manifest.spec(port)) for kind, port in ports}
    dims = {f"dimension {name}": f"{d.minimum}:{d.optimum}:{d.maximum}" for name, d in manifest.dims.items()}
    return found | dims


def _topology(manifest: Manifest) -> dict[str, str]:
    devices = {f"device {device.name}": device.kind for device in manifest.topology.devices}
    return devices | {f"link {link.name}": f"{link.kind} {'–'.join(link.between)}" for link in manifest.topology.links}


def _placement(manifest: Manifest) -> dict[str, str]:
    """A segment by its place in the order of launches. What flows in and out fixes which ops are in it."""

    def describe(segment: Segment) -> str:
        inputs = ", ".join(spec.name for spec in segment.inputs)
        outputs = ", ".join(spec.name for spec in segment.outputs)
        return f"{segment.device} {segment.format}, {segment.ops} ops, ({inputs}) to ({outputs})"

    return {f"segment {index}": describe(segment) for index, segment in enumerate(manifest.segments)}


def _costs(old: Manifest, new: Manifest) -> Iterable[Change]:
    if old.placement.objective != new.placement.objective:
        yield Change("cost", "objective", old.placement.objective, new.placement.objective)
        return
    before, after = old.placement.value, new.placement.value
    if before == after:
        return
    ratio = after / before if before else float("inf")
    texts = [amount_text(value, _UNITS.get(old.placement.objective, "s")) for value in (before, after)]
    yield Change("cost", f"predicted {old.placement.objective}", texts[0], texts[1], ratio)


def _engines(manifest: Manifest) -> dict[str, str]:
    variants = [(segment.id, variant) for segment in manifest.segments for variant in segment.variants]
    return {f"{name} {variant.executor}": variant.key for name, variant in variants if variant.key}


def _weights(manifest: Manifest) -> dict[str, str]:
    return {path: entry.sha256[:12] for path, entry in manifest.files.items() if path.startswith("weights/")}


def _mappings(aspect: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterable[Change]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if before != after:
            yield Change(aspect, key, before, after)
