"""The report of a compile: one HTML file with the split, the schedule, a roofline a device, and every op's choices.

    write_report(Path("out.html"), compilation)

The file needs no server and no network, and is the same for the same compile. The tables travel as JSON inside it and
are shown a page at a time, so that a model of thousands of ops stays readable.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from gimlet.compiler.compile import Compilation, producers
from gimlet.compiler.options import CompileOptions
from gimlet.compiler.placement.reasons.explain import groups_text, place_text
from gimlet.compiler.report.figures import graph, timeline
from gimlet.compiler.report.modules import outline
from gimlet.compiler.report.roofline import op_bytes, rate_text, roofline
from gimlet.runtime.errors import InputError, UsageError
from gimlet.runtime.units import bytes_text, joules_text, seconds_text

Json = dict[str, Any]
COLOURS: Final = 6
"""How many colours the template has for devices; more devices share them, and are told apart by their names."""
_STATUS: Final = {
    "optimal": "no placement is better by more than 0.01%",
    "optimal-for-groups": "proven for groups of ops and so many segments; the bound is for all placements",
    "feasible": "the best that was found within the limits of work or time",
    "forced": "a placement file left nothing to decide",
}


def write_report(path: Path, compilation: Compilation) -> None:
    """Writes the report of a placed compilation to `path`, all of it or nothing.

    UsageError where the compile placed nothing (IR that was placed before), InputError where the file cannot be
    written.
    """
    text = render(compilation)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(text.encode("utf-8", "replace"))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(path),
            hint="check that the folder exists, that you may write there, and that the disk has room",
        ) from error


def render(compilation: Compilation) -> str:
    """The report as HTML. UsageError where the compile placed nothing."""
    result = compilation.placement
    if result is None:
        raise UsageError(
            "there is no placement to report on: the IR is placed already",
            where="--report",
            hint="give the model itself, or IR up to the phase annotate",
        )
    data = result.explain()
    sizes_bytes = op_bytes(result)
    topology = compilation.options.topology
    environment = Environment(
        loader=PackageLoader("gimlet.compiler.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template("report.html.j2").render(
        model=compilation.model,
        facts=[*_facts(data["summary"], result.schedule.figure("latency")), *_loss_facts(data)],
        asked=_asked(compilation.options),
        notes=data["summary"]["notes"],
        devices=[
            device | {"kind": topology.device((device["members"] or [device["name"]])[0]).kind}
            for device in data["devices"]
        ],
        links=topology.links,
        graph=graph(result),
        timeline=timeline(result, topology.links),
        rooflines=[
            (device, roofline(result, device, sizes_bytes))
            for device in topology.devices
            if any(entry["name"] == device.name and entry["ops"] for entry in data["devices"])
        ],
        tables=_tables(data, sizes_bytes),
        unit=data["summary"]["unit"],
        outline=outline(result.problem, compilation.module),
        producers=producers(),
        colours=COLOURS,
        bytes_text=bytes_text,
        seconds_text=seconds_text,
        rate_text=rate_text,
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None or not math.isfinite(value):
        return "unknown"
    return {"s": seconds_text(value), "J": joules_text(value), "USD": f"{value:.4g} USD"}[unit]


def _facts(summary: Mapping[str, Any], latency_s: float) -> list[tuple[str, str, str]]:
    """The figures at the top: what, how much, and a remark."""
    unit, objective = summary["unit"], summary["objective"]
    each = summary["groups"] == summary["ops"]
    facts = [
        (f"{objective}, predicted", _figure(summary["value"], unit), _OBJECTIVE[objective]),
        ("lower bound", _figure(summary["bound"], unit), "no placement of these ops can be better"),
        ("gap", f"{summary['gap']:.2%}", "how much of the figure the bound leaves open"),
        ("status", summary["status"], _STATUS.get(summary["status"], "")),
        ("ops", str(summary["ops"]), "each by itself" if each else f"as {groups_text(summary['groups'])}"),
    ]
    others = [
        ("latency", latency_s, "s"),
        ("throughput", summary["period_s"], "s"),
        ("energy", summary["energy_j"], "J"),
    ]
    others.append(("cost", summary["cost_usd"], "USD"))
    return facts + [
        (name, _figure(value, own), _OBJECTIVE[name]) for name, value, own in others if name != objective and value
    ]


def _loss_facts(data: Json) -> list[tuple[str, str, str]]:
    """What number formats lose, where placement was asked to choose them."""
    if "loss" not in data:
        return []
    loss = data["loss"]
    remark = f"relative L2 of the worst output, on {loss['inputs']}; {loss['budget']:g} allowed"
    return [("loss, measured", f"{loss['measured']:.3g}", remark)]


_OBJECTIVE: Final = {
    "latency": "time of one run",
    "throughput": "time between results of a pipeline",
    "energy": "for one run, idle devices in use included",
    "cost": "price of the devices in use, for one run",
}


def _asked(options: CompileOptions) -> list[tuple[str, str]]:
    """What the compile was asked for, flag by flag."""
    found = [("--objective", options.objective), ("--topology", options.topology.name)]
    for name, bound in options.bindings.items():
        sizes = (bound.minimum, bound.optimum, bound.maximum)
        found.append(("--bind", f"{name}={sizes[0] if len(set(sizes)) == 1 else ':'.join(map(str, sizes))}"))
    found += [("--pin", f"{pattern}={device}") for pattern, device in options.pins]
    found += [("--format", f"{device}={fmt}") for device, fmt in options.formats]
    if options.loss_budget is not None:
        found.append(("--loss-budget", f"{options.loss_budget:g}"))
    found += [("--min-share", f"{device}={share:g}") for device, share in options.min_shares]
    if options.max_segments is not None:
        found.append(("--max-segments", str(options.max_segments)))
    found += [("--bound", f"{figure}={amount}") for figure, amount in options.bounds]
    found += [("--together", expression) for expression in options.together]
    found += [("--apart", " ".join(pair)) for pair in options.apart]
    found += [
        (flag, str(path)) for flag, path in (("--placement", options.placement), ("--costs", options.costs)) if path
    ]
    return found


_COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "devices": {
        "device": "text",
        "kind": "text",
        "ops": "count",
        "can take": "count",
        "FLOPs": "share",
        "busy": "s",
        "busy share": "share",
        "memory": "B",
        "capacity": "B",
        "streamed": "B",
        "streaming": "s",
    },
    "segments": {
        "segment": "text",
        "device": "text",
        "format": "text",
        "ops": "count",
        "weights": "B",
        "start": "s",
        "time": "s",
        "launch": "s",
        "saved by fusion": "s",
        "casts": "s",
        "energy": "J",
        "moved whole": "moves",
    },
    "transfers": {"value": "text", "from": "text", "to": "text", "size": "B", "start": "s", "time alone": "s"},
    "ops": {
        "op": "text",
        "type": "text",
        "device": "text",
        "format": "text",
        "segment": "text",
        "pinned": "text",
        "time": "s",
        "energy": "J",
        "loss": "loss",
        "FLOPs": "count",
        "bytes": "B",
        "elsewhere": "others",
    },
}
"""The columns of each table with the kind of their values; the template's script writes and sorts each kind."""


def _tables(data: Json, sizes_bytes: Sequence[int]) -> list[Json]:
    """The tables as the template's script takes them."""
    latency = data["summary"]["latency_s"]
    devices = [
        [
            entry["name"],
            entry["kind"],
            entry["ops"],
            entry["takes"],
            entry["flops_share"],
            entry["busy_s"],
            entry["busy_s"] / latency if latency else None,
            entry["memory_bytes"],
            entry["capacity_bytes"],
            entry["streamed_bytes"],
            entry["streamed_s"],
        ]
        for entry in data["devices"]
    ]
    first = {op["segment"]: op for op in reversed(data["ops"])}
    segments = [
        [
            f"s{e['segment']}",
            e["device"],
            place_text(e, data),
            *_picked(e, "ops weight_bytes start_s seconds launch_s"),
            e["fused_s"] or None,
            e["edges_s"] or None,
            e["joules"],
            _whole_moves(first[e["segment"]], data),
        ]
        for e in data["segments"]
    ]
    transfers = [_picked(entry, "value from to bytes start_s seconds") for entry in data["transfers"]]
    ops = [_op_row(op, size, data) for op, size in zip(data["ops"], sizes_bytes, strict=True)]
    rows = {"devices": devices, "segments": segments, "transfers": transfers, "ops": ops}
    return [_table(name, rows[name]) for name in _COLUMNS]


def _picked(entry: Json, keys: str) -> list[Any]:
    return [entry[key] for key in keys.split()]


def _op_row(op: Json, size_bytes: int, data: Json) -> list[Any]:
    """A row of the table of ops. Its last cell lists the other places: the time there or why not there, the energy, and
    what it costs to move the op there alone and with its segment (more of the objective, and the limits that breaks).
    Devices of which all of that is the same are one entry.
    """
    others: dict[str, tuple[list[str], list[Any]]] = {}
    for other in op["others"]:
        format_and_loss = f"({place_text(other, data)}{_loses(other)})"
        reason = other.get("refused", "pinned away" if other.get("pinned_away") else "")
        figures = [_finite(other.get("seconds")), reason, *_moves(other)]
        others.setdefault(repr((format_and_loss, figures)), ([], [format_and_loss, figures]))[0].append(other["device"])
    elsewhere = [[f"{', '.join(names)} {where}", *figures] for names, (where, figures) in others.values()]
    where = [
        *_picked(op, "name type device"),
        place_text(op, data),
        f"s{op['segment']}",
        "pinned" if op["pinned"] else "",
    ]
    return [*where, op["seconds"], op["joules"], op["loss"] or None, op["flops"], size_bytes, elsewhere]


def _moves(other: Json) -> list[Any]:
    """The energy there, and both moves as (more of the objective, limits that break), with four digits."""
    if _finite(other.get("seconds")) is None:
        return []
    moves = [other[key] and [_short(other[key]["delta"]), *other[key]["breaks"]] for key in _MOVES]
    return [_short(other["joules"]), *moves]


def _whole_moves(op: Json, data: Json) -> list[Any]:
    """Where the segment of an op could go: the place, how much more of the objective that costs, what it breaks."""
    return [
        [f"{other['device']} ({place_text(other, data)})", _short(move["delta"]), *move["breaks"]]
        for other in op["others"]
        if (move := other.get("with_segment")) is not None
    ]


def _short(figure: float | None) -> float | None:
    return None if figure is None or not math.isfinite(figure) else float(f"{figure:.4g}")


_MOVES: Final = ("alone", "with_segment")


def _loses(place: Json) -> str:
    return f", loses {place['loss']:.2g}" if place.get("loss") else ""


def _table(name: str, rows: Sequence[Sequence[Any]]) -> Json:
    """A table without the columns that are empty in every row."""
    columns = list(_COLUMNS[name].items())
    kept = [i for i in range(len(columns)) if not rows or any(row[i] not in ("", None, []) for row in rows)]
    return {
        "name": name,
        "columns": [columns[index] for index in kept],
        "rows": [[_finite(row[index]) for index in kept] for row in rows],
    }


def _finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become None."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
