"""Why a placement is as it is: for every op its device and what each other one would cost, or why it refused.

`explanation` gives one JSON object, `print_explanation` shows it as tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from gimlet.compiler.placement.model.problem import UNITS, Problem
from gimlet.compiler.placement.model.schedule import load_w
from gimlet.compiler.placement.reasons.moves import Move, Moves, moves_of
from gimlet.compiler.placement.reasons.predicted import segment_figures
from gimlet.compiler.placement.solve import Solution
from gimlet.compiler.tables import figure_table
from gimlet.runtime.units import amount_text, bytes_text, joules_text, seconds_text

Json = dict[str, Any]
NOT_ASKED = "no target of this device was asked"


def explanation(problem: Problem, solution: Solution, notes: Sequence[str] = ()) -> Json:
    """What was decided, in numbers: `summary`, `devices`, `segments`, `transfers` and `ops`.

    An op's seconds and joules are those of the op alone on its place, streaming of its weights included; a segment's
    have also its launch, what fusion saves and what its edges take (`predicted.py`). Each place that it could be on as
    well has `alone` and `with_segment`: how much more of the objective the move costs, and what it `breaks`.
    """
    moves = moves_of(problem, solution.placement)
    if moves.left_out:
        notes = [*notes, f"moves of single ops are known for the longest ops; {moves.left_out} were not tried"]
    return {
        "schema": 1,
        "summary": _summary(problem, solution) | {"notes": list(notes)},
        "devices": [_device(problem, solution, index) for index in range(len(problem.devices))],
        "segments": _segments(problem, solution),
        "transfers": _transfers(problem, solution),
        "ops": [_op(problem, solution, moves, index) for index in range(len(problem.nodes))],
    }


def _summary(problem: Problem, solution: Solution) -> Json:
    schedule, objective = solution.schedule, problem.rules.objective
    return {
        "objective": objective,
        "unit": UNITS[objective],
        "value": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap,
        "status": solution.status,
        "wall_s": solution.wall_s,
        "ops": len(problem.nodes),
        "groups": solution.groups,
        "group_bound": solution.group_bound,
        "latency_s": schedule.latency_s,
        "period_s": schedule.period_s,
        "energy_j": schedule.energy_j,
        "cost_usd": schedule.cost_usd,
    }


def _device(problem: Problem, solution: Solution, index: int) -> Json:
    device, schedule = problem.devices[index], solution.schedule
    places = [place for place in problem.places if place.device == index]
    return {
        "name": device.name,
        "kind": device.kind,
        "members": [problem.devices[member].name for member in device.members],
        "targets": sorted({place.target for place in places}),
        "costs": sorted({place.provider for place in places}),
        "ops": sum(1 for place in solution.placement.place if problem.device_of[place] == index),
        "flops_share": _share(problem, solution, index),
        "busy_s": schedule.device_busy_s.get(index, 0.0),
        "idle_joules": schedule.idle_j.get(index),
        "memory_bytes": schedule.memory_bytes.get(index, 0),
        "capacity_bytes": device.memory_bytes,
        "fast_bytes": device.fast_bytes,
        "streamed_bytes": schedule.streamed.size_bytes.get(index, 0),
        "streamed_s": _streamed_s(problem, solution, index),
        "takes": sum(1 for node in problem.nodes if any(problem.device_of[place] == index for place in node.options)),
    }


def _segments(problem: Problem, solution: Solution) -> list[Json]:
    launches = solution.schedule.launches
    figures = segment_figures(problem, solution.placement, solution.schedule)
    return [
        {
            "device": problem.devices[problem.device_of[launch.place]].name,
            "target": problem.places[launch.place].target,
            "format": problem.places[launch.place].format,
            "ops": len(launch.nodes),
            "start_s": launch.start_s,
            **asdict(own),
        }
        for launch, own in zip(launches, figures, strict=True)
    ]


def _transfers(problem: Problem, solution: Solution) -> list[Json]:
    return [
        {
            "value": problem.values[transfer.value].name,
            "from": problem.devices[transfer.source].name,
            "to": problem.devices[transfer.destination].name,
            "bytes": transfer.size_bytes,
            "seconds": transfer.seconds,
            "start_s": transfer.start_s,
        }
        for transfer in solution.schedule.transfers
    ]


def _share(problem: Problem, solution: Solution, device: int) -> float:
    places = solution.placement.place
    flops = sum(n.flops for n, p in zip(problem.nodes, places, strict=True) if problem.device_of[p] == device)
    return flops / problem.total_flops if problem.total_flops else 0.0


def _streamed_s(problem: Problem, solution: Solution, device: int) -> float:
    """What the ops on a device take longer because their weights are streamed."""
    places = solution.placement.place
    return sum(s for node, s in solution.schedule.streamed.seconds.items() if problem.device_of[places[node]] == device)


def _op(problem: Problem, solution: Solution, moves: Moves, index: int) -> Json:
    node, place = problem.nodes[index], solution.placement.place[index]
    own = node.options[place]
    streamed = solution.schedule.streamed.seconds.get(index, 0.0)
    watts = load_w(problem, problem.device_of[place])
    others: list[Json] = []
    for other, data in enumerate(problem.places):
        if other == place:
            continue
        entry: Json = {"device": problem.devices[data.device].name, "target": data.target, "format": data.format}
        option = node.options.get(other)
        if option is None:
            entry["refused"] = node.refusals.get(other, NOT_ASKED)
        else:
            entry |= {"seconds": option.seconds, "joules": option.joules, "loss": option.loss}
            entry["alone"] = _move(moves.alone.get((index, other)))
            entry["with_segment"] = _move(moves.whole.get((solution.placement.segment[index], other)))
            if other not in problem.allowed[index]:
                entry["pinned_away"] = True
        others.append(entry)
    return {
        "name": node.name,
        "type": node.op_type,
        "device": problem.devices[problem.device_of[place]].name,
        "target": problem.places[place].target,
        "format": problem.places[place].format,
        "segment": solution.placement.segment[index],
        "seconds": own.seconds + streamed,
        "streamed_s": streamed,
        "joules": None if own.joules is None else own.joules + streamed * watts,
        "loss": own.loss,
        "flops": node.flops,
        "pinned": index in problem.rules.pins,
        "others": others,
    }


def _move(move: Move | None) -> Json | None:
    return None if move is None else {"delta": move.delta, "breaks": list(move.breaks)}


def print_explanation(data: Mapping[str, Any], console: Console, ops: bool = True) -> None:
    """The explanation as tables. `ops` adds the table of all ops."""
    summary = data["summary"]
    console.print(summary_line(data), soft_wrap=True)
    if "loss" in data:
        console.print(loss_line(data["loss"]), soft_wrap=True)
    for note in summary["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    columns = ("device", "kind", "costs", "ops", "FLOPs", "busy", "memory", "of", "streamed")
    console.print(figure_table("devices", columns, _device_rows(data)))
    columns = ("segment", "device", "format", "ops", "weights", "start", "time", "of it launch", "energy")
    if ops:
        columns = (*columns, "what moving all of it costs")
    if data["segments"]:
        console.print(figure_table("segments", columns, _segment_rows(data, moves=ops)))
    if data["transfers"]:
        console.print(figure_table("transfers", ("value", "from", "to", "size", "time"), _transfer_rows(data)))
    if ops and data["ops"]:
        columns = ("op", "type", "device", "time", "energy", "elsewhere: time there, and what moving it alone costs")
        console.print(figure_table("ops", columns, _op_rows(data)))


def summary_line(data: Mapping[str, Any]) -> str:
    """One line: the objective, its bound, and how sure that is."""
    summary = data["summary"]
    value, bound = (amount_text(summary[key], summary["unit"]) for key in ("value", "bound"))
    return (
        f"{summary['objective']} {value}, at least {bound} for any placement "
        f"(gap {summary['gap']:.2%}, {summary['status']}; {_ops_text(summary['ops'], summary['groups'])}, "
        f"{summary['wall_s']:.2f} s)"
    )


def _ops_text(ops: int, groups: int) -> str:
    """How many ops were placed, and as how many groups where that is fewer."""
    text = "1 op" if ops == 1 else f"{ops} ops"
    return text if ops == groups else f"{text} as {groups_text(groups)}"


def groups_text(groups: int) -> str:
    """A number of groups that ops were placed as."""
    return "1 group" if groups == 1 else f"{groups} groups"


def loss_line(loss: Mapping[str, Any]) -> str:
    """One line: what the formats lose, and the budget for it."""
    return (
        f"loss {loss['measured']:.3g} (relative L2 of the worst output, on {loss['inputs']}), "
        f"{loss['expected']:.3g} expected from the ops, {loss['budget']:g} allowed"
    )


def _device_rows(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for device in data["devices"]:
        yield (
            device["name"],
            device["kind"],
            ", ".join(device["costs"]),
            f"{device['ops']} of {device['takes']}",
            f"{device['flops_share']:.1%}",
            seconds_text(device["busy_s"]),
            bytes_text(device["memory_bytes"]),
            bytes_text(device["capacity_bytes"]),
            _streamed_text(device),
        )


def _streamed_text(device: Mapping[str, Any]) -> str:
    if device["fast_bytes"] is None:
        return ""
    if not device["streamed_bytes"]:
        return "none"
    return f"{bytes_text(device['streamed_bytes'])}, {seconds_text(device['streamed_s'])} a run"


def _segment_rows(data: Mapping[str, Any], *, moves: bool) -> Iterable[Sequence[str]]:
    """A row a segment; with `moves` also what it costs to move it whole, which all of its ops say alike."""
    first = {op["segment"]: op for op in reversed(data["ops"])}
    unit = data["summary"]["unit"]
    for segment in data["segments"]:
        others = first[segment["segment"]]["others"] if moves else ()
        whole = [
            f"{other['device']} ({place_text(other, data)}): {_move_text(other['with_segment'], unit)}"
            for other in others
            if other.get("with_segment") is not None
        ]
        yield (
            f"s{segment['segment']}",
            segment["device"],
            place_text(segment, data),
            str(segment["ops"]),
            bytes_text(segment["weight_bytes"]),
            seconds_text(segment["start_s"]),
            seconds_text(segment["seconds"]),
            seconds_text(segment["launch_s"]),
            "" if segment["joules"] is None else joules_text(segment["joules"]),
            *(["\n".join(whole)] if moves else []),
        )


def place_text(entry: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The format of a segment, an op or another place for it; the target as well where its device has several."""
    several = any(device["name"] == entry["device"] and len(device["targets"]) > 1 for device in data["devices"])
    return f"{entry['target']}, {entry['format']}" if several else entry["format"]


def _transfer_rows(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for transfer in data["transfers"]:
        yield (
            transfer["value"],
            transfer["from"],
            transfer["to"],
            bytes_text(transfer["bytes"]),
            seconds_text(transfer["seconds"]),
        )


def _op_rows(data: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    unit = data["summary"]["unit"]
    for op in data["ops"]:
        elsewhere = "\n".join(
            f"{other['device']} ({place_text(other, data)}): {_elsewhere(other, unit)}" for other in op["others"]
        )
        pinned = " (pinned)" if op["pinned"] else ""
        energy = "" if op["joules"] is None else joules_text(op["joules"])
        loss = f", loses {op['loss']:.2g}" if op["loss"] else ""
        device = f"{op['device']} ({place_text(op, data)}{loss}){pinned}"
        streamed = f" ({seconds_text(op['streamed_s'])} streaming)" if op["streamed_s"] else ""
        yield op["name"], op["type"], device, seconds_text(op["seconds"]) + streamed, energy, elsewhere


def _elsewhere(other: Mapping[str, Any], unit: str) -> str:
    if "refused" in other:
        return f"not there: {other['refused']}"
    loss = [f"loses {other['loss']:.2g}"] if other["loss"] else []
    move = [] if other["alone"] is None else [f"moving {_move_text(other['alone'], unit)}"]
    return "; ".join([seconds_text(other["seconds"]), *loss, *move])


def _move_text(move: Mapping[str, Any], unit: str) -> str:
    """How much more of the objective a move costs, and the limits that it breaks."""
    return _delta_text(move["delta"], unit) + "".join(f" ({text})" for text in move["breaks"])


def _delta_text(delta: float, unit: str) -> str:
    """A difference for people: `+1.5 ms`."""
    sign = "-" if delta < 0 else "+"
    return sign + amount_text(abs(delta), unit)
