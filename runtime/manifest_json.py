"""`manifest.json` to and from the dataclasses of `manifest`: canonical when written, strict when read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.runtime.jsonread import JsonObject, canonical_json, parse_json
from gimlet.runtime.manifest import (
    ENGINES_SCHEMA,
    OLDEST_SCHEMA,
    SCHEMA,
    BufferEntry,
    Default,
    DeviceEntry,
    DimRange,
    FileEntry,
    Launch,
    LinkEntry,
    Manifest,
    ModelInfo,
    PlacementSummary,
    Port,
    Segment,
    StateEntry,
    Step,
    TopologyEntry,
    Transfer,
    Value,
    Variant,
)
from gimlet.runtime.manifest_check import check_manifest
from gimlet.runtime.signature import Signature, signature_from_json, signature_to_json
from gimlet.runtime.tensors import TensorSpec

MANIFEST = "manifest.json"
_NO_DEFAULTS = 2
_NO_STATES = 3
_NO_FIGURES = 4


def write_manifest(manifest: Manifest) -> bytes:
    """The canonical text of a manifest, the same for equal manifests. InputError where it breaks a rule of its own."""
    check_manifest(manifest)
    return canonical_json({"schema": SCHEMA, **_plain(manifest)})


def _plain(data: Any) -> Any:
    if isinstance(data, Expr):
        return str(data)
    if isinstance(data, Signature):
        return signature_to_json(data)
    if isinstance(data, DimRange):
        return [data.minimum, data.optimum, data.maximum]
    if is_dataclass(data):
        kind = {"kind": type(data).__name__.lower()} if isinstance(data, Step) else {}
        return kind | {item.name: _plain(getattr(data, item.name)) for item in fields(data)}
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in cast(Mapping[Any, Any], data).items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in cast(list[Any], data)]
    return data


def read_manifest(text: bytes, where: str = MANIFEST) -> Manifest:
    """The manifest that `text` holds.

    InputError, with the path of the place in the JSON, for a missing or unknown key, a wrong type, a reference to
    something that does not exist, or a schema that this version does not read.
    """
    root = parse_json(text, where)
    schema = _schema_of(root)
    manifest = Manifest(
        producer=_texts(root.object("producer")),
        model=_model(root.object("model")),
        inputs=tuple(_port(item, schema) for item in root.objects("inputs")),
        outputs=tuple(_port(item, schema) for item in root.objects("outputs")),
        dims=_dims(root.object("dims")),
        topology=_topology(root.object("topology")),
        values=tuple(_value(item) for item in root.objects("values")),
        segments=tuple(_segment(item) for item in root.objects("segments")),
        steps=tuple(_step(item) for item in root.objects("steps")),
        buffers=tuple(_buffer(item) for item in root.objects("buffers")),
        states=_states(root, schema),
        placement=_placement(root.object("placement"), schema),
        costs=root.plain("costs"),
        signature=_signature(root, schema),
        files=read_files(root.object("files")),
    )
    root.done()
    check_manifest(manifest, where)
    return manifest


def _schema_of(root: JsonObject) -> int:
    schema = root.integer("schema", minimum=1)
    if OLDEST_SCHEMA <= schema <= SCHEMA:
        return schema
    made_by = "a newer version of gimlet"
    if "producer" in root and "gimlet" in (producer := root.object("producer")):
        made_by = f"gimlet {producer.text('gimlet')} or newer"
    raise root.error(
        "schema",
        f"this bundle has format {schema}, and this version reads formats {OLDEST_SCHEMA} to {SCHEMA}; "
        f"use {made_by} to run it",
    )


def _signature(root: JsonObject, schema: int) -> Signature | None:
    item = root.optional_object("signature") if schema > 1 else None
    return None if item is None else signature_from_json(item)


def _texts(item: JsonObject) -> dict[str, str]:
    return {key: item.text(key) for key in item.names()}


def _dims(item: JsonObject) -> dict[str, DimRange]:
    found: dict[str, DimRange] = {}
    for name in item.names():
        low, best, high = item.integers(name, 3)
        if not low <= best <= high:
            raise item.error(name, f"the optimum {best} must lie between {low} and {high}")
        found[name] = DimRange(low, best, high)
    return found


def read_files(item: JsonObject) -> dict[str, FileEntry]:
    """A table of files: path to sha256 and size, with an optional key."""
    found: dict[str, FileEntry] = {}
    for path in item.names():
        entry = item.object(path)
        found[path] = FileEntry(entry.text("sha256"), entry.integer("bytes"), entry.text("key"))
        entry.done()
    return found


def _model(item: JsonObject) -> ModelInfo:
    model = ModelInfo(item.text("name"), item.text("source"), item.text("digest"))
    item.done()
    return model


def _port(item: JsonObject, schema: int) -> Port:
    default = item.optional_object("default") if schema > _NO_DEFAULTS else None
    port = Port(item.text("name"), item.text("value"), None if default is None else _default(default))
    item.done()
    return port


def _default(item: JsonObject) -> Default:
    default = Default(
        file=item.text("file"),
        offset=item.integer("offset"),
        bytes=item.integer("bytes"),
        shape=item.integers("shape"),
    )
    item.done()
    return default


def _topology(item: JsonObject) -> TopologyEntry:
    devices: list[DeviceEntry] = []
    for device in item.objects("devices"):
        devices.append(DeviceEntry(device.text("name"), device.text("kind"), device.plain("requires")))
        device.done()
    links = tuple(_link(link) for link in item.objects("links"))
    topology = TopologyEntry(item.text("name"), item.text("host"), tuple(devices), links)
    item.done()
    return topology


def _link(item: JsonObject) -> LinkEntry:
    between = item.texts("between")
    if len(between) != 2:
        raise item.error("between", f"a link has two ends, not {len(between)}")
    link = LinkEntry(
        name=item.text("name"),
        kind=item.text("kind"),
        between=(between[0], between[1]),
        latency_s=item.number("latency_s"),
        bandwidth=item.number("bandwidth"),
    )
    item.done()
    return link


def _value(item: JsonObject) -> Value:
    value = Value(
        id=item.text("id"),
        name=item.text("name"),
        dtype=item.text("dtype"),
        shape=item.shape("shape"),
        device=item.text("device"),
        buffer=item.optional_text("buffer"),
    )
    item.done()
    return value


def _buffer(item: JsonObject) -> BufferEntry:
    buffer = BufferEntry(item.text("id"), item.text("device"), item.expression("bytes"))
    item.done()
    return buffer


def _states(root: JsonObject, schema: int) -> tuple[StateEntry, ...]:
    items = root.objects("states")
    if items and schema <= _NO_STATES:
        raise root.error("states", f"a bundle of format {schema} has none")
    return tuple(_state(item) for item in items)


def _state(item: JsonObject) -> StateEntry:
    state = StateEntry(
        name=item.text("name"),
        result=item.text("result"),
        read=item.text("read"),
        written=item.text("written"),
        capacity=item.integers("capacity"),
        in_place=item.flag("in_place"),
    )
    item.done()
    return state


def _spec(item: JsonObject) -> TensorSpec:
    spec = TensorSpec(item.text("name"), item.text("dtype"), item.shape("shape"))
    item.done()
    return spec


def _variant(item: JsonObject) -> Variant:
    variant = Variant(
        executor=item.text("executor"),
        format=item.text("format"),
        files=item.texts("files"),
        undigested=item.texts("undigested"),
        key=item.text("key"),
        deferred=item.flag("deferred"),
        device_kind=item.text("device_kind"),
        requires=item.plain("requires"),
        profile=_dims(item.object("profile")),
        options=item.plain("options"),
        facts=item.plain("facts"),
    )
    item.done()
    return variant


def _segment(item: JsonObject) -> Segment:
    portable = item.optional_object("portable")
    segment = Segment(
        id=item.text("id"),
        device=item.text("device"),
        format=item.text("format"),
        inputs=tuple(_spec(spec) for spec in item.objects("inputs")),
        outputs=tuple(_spec(spec) for spec in item.objects("outputs")),
        variants=tuple(_variant(variant) for variant in item.objects("variants")),
        portable=None if portable is None else _variant(portable),
        ops=item.integer("ops"),
        flops=item.expression("flops"),
        weight_bytes=item.integer("weight_bytes"),
        seconds=item.number("seconds"),
        joules=item.optional_number("joules"),
    )
    item.done()
    return segment


def _step(item: JsonObject) -> Step:
    kind = item.text("kind")
    step: Step
    if kind == "launch":
        step = Launch(
            item.text("id"), item.text("segment"), item.texts("inputs"), item.texts("outputs"), item.texts("after")
        )
    elif kind == "transfer":
        step = Transfer(
            id=item.text("id"),
            source=item.text("source"),
            target=item.text("target"),
            route=item.texts("route"),
            bytes=item.expression("bytes"),
            after=item.texts("after"),
            seconds=item.number("seconds"),
        )
    else:
        raise item.error("kind", f"a step is a launch or a transfer, not {kind!r}")
    item.done()
    return step


def _placement(item: JsonObject, schema: int) -> PlacementSummary:
    def figure(key: str) -> float | None:
        return item.optional_number(key) if schema > _NO_FIGURES else None

    summary = PlacementSummary(
        objective=item.text("objective"),
        value=item.number("value"),
        bound=item.number("bound"),
        gap=item.number("gap"),
        status=item.text("status"),
        latency_s=figure("latency_s"),
        period_s=figure("period_s"),
        energy_j=figure("energy_j"),
        cost_usd=figure("cost_usd"),
    )
    item.done()
    return summary


def read_engines(text: bytes, where: str) -> dict[str, FileEntry]:
    """The table of `engines.json`. InputError where it is malformed."""
    root = parse_json(text, where)
    schema = root.integer("schema", minimum=1)
    if schema != ENGINES_SCHEMA:
        raise InputError(f"format {schema}; this version reads format {ENGINES_SCHEMA}", where=where)
    engines = read_files(root.object("files"))
    root.done()
    return engines


def write_engines(engines: Mapping[str, FileEntry]) -> bytes:
    """The canonical text of `engines.json`."""
    return canonical_json({"schema": ENGINES_SCHEMA, "files": _plain(dict(engines))})
