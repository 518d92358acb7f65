"""gimlet-run: runs a bundle on arrays from files, or on random ones."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click

from gimlet.tools.cli import SEED, command, print_json, run
from gimlet.tools.files import check_outputs, writing

if TYPE_CHECKING:
    from concurrent.futures import Future

    from gimlet.runtime.program import Program, Running

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Timing:
    """How long runs took, and when each ended after the first began, both in seconds and by the order of their ends."""

    latencies_s: tuple[float, ...]
    ends_s: tuple[float, ...]
    inflight: int

    @property
    def period_s(self) -> float | None:
        """Seconds a run at steady state: from when as many runs have ended as are in flight, to the last one's end.

        None where no run is left after that.
        """
        steady = len(self.ends_s) - self.inflight
        return (self.ends_s[-1] - self.ends_s[self.inflight - 1]) / steady if steady > 0 else None

    def to_json(self, predicted_s: float | None, predicted_period_s: float | None) -> dict[str, Any]:
        """The figures that a user wants of it, beside the latency and the period that placement predicted."""
        period_s = self.period_s
        return {
            "runs": len(self.latencies_s),
            "inflight": self.inflight,
            "median_s": statistics.median(self.latencies_s),
            "min_s": min(self.latencies_s),
            "predicted_s": predicted_s,
            "period_s": period_s,
            "predicted_period_s": predicted_period_s,
            "runs_per_s": 1 / period_s if period_s else len(self.ends_s) / self.ends_s[-1],
        }


@command("gimlet-run")
@click.argument("bundle", type=PATH)
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input; .npz if no tensor.")
@click.option("--random", "is_random", is_flag=True, help="Make up the inputs that are not given.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The seed of --random.")
@click.option("--output", type=PATH, metavar="DIR", help="Write each output to DIR/NAME.npy, with '/' as '_'.")
@click.option("--repeat", type=click.IntRange(min=1), default=1, metavar="N", help="Run N times and print latencies.")
@click.option("--inflight", type=click.IntRange(min=1), default=1, metavar="N", help="Keep N requests in flight.")
@click.option("--feed", multiple=True, metavar="OUTPUT=INPUT", help="What a run returns is the next one's input.")
@click.option("--profile", type=PATH, metavar="T.json", help="Write a trace that Perfetto (ui.perfetto.dev) opens.")
@click.option("--emulate-missing", is_flag=True, help="Run segments of absent devices in their portable form here.")
@click.option("--verify-hashes", is_flag=True, help="Compare every file with its hash before running.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_run(
    bundle: Path,
    inputs: tuple[str, ...],
    seed: int,
    output: Path | None,
    repeat: int,
    inflight: int,
    feed: tuple[str, ...],
    profile: Path | None,
    *,
    is_random: bool,
    emulate_missing: bool,
    verify_hashes: bool,
    as_json: bool,
) -> None:
    """Run BUNDLE, a folder that gimlet-compile wrote.

    Random floats are normal with variance 1, random integers are 1 or 2, and dimensions are at their optimum. Where the
    program keeps a state, --repeat runs on from step to step, each request in flight on a state of its own, and
    --output writes DIR/NAME.STEP.npy.
    """
    from gimlet.runtime.program import load
    from gimlet.runtime.trace import Trace
    from gimlet.tools.arrays import complete, read_inputs, write_outputs

    check_outputs({"--profile": profile})
    given = read_inputs(inputs)
    with load(bundle, emulate_missing=emulate_missing, verify_hashes=verify_hashes, inflight=inflight) as program:
        arrays = complete(program.manifest, given, seed, is_random=is_random)
        feeds = _feeds(program, feed, inflight)
        if repeat > 1 and not feeds:
            program.run(arrays)
            if program.states:
                program.reset()
        if profile is not None:
            program.trace = Trace()
        outputs, timing, steps = _timed(program, arrays, repeat, inflight, feeds)
        if profile is not None and program.trace is not None:
            _write_trace(program.trace, profile)
        files = write_outputs(output, outputs) if output is not None else {}
        if output is not None and program.states:
            _write_steps(output, steps)
        data: dict[str, Any] = {
            "bundle": str(bundle),
            "id": program.id,
            "states": [str(spec) for spec in program.states],
            "segments": [_segment(item) for item in program.running],
            "outputs": [
                {"name": spec.name, **_described(outputs[spec.name], spec.dtype), "file": files.get(spec.name)}
                for spec in program.outputs
            ],
            "latency": timing.to_json(program.manifest.placement.latency_s, _predicted_period_s(program)),
        }
    if as_json:
        print_json(data)
        return
    _print(data, outputs)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_run, args)


def _feeds(program: Program, texts: Sequence[str], inflight: int) -> dict[str, str]:
    """Outputs by the names of the inputs that they are in the next run."""
    from gimlet.runtime.errors import UsageError

    outputs, inputs = [spec.name for spec in program.outputs], [spec.name for spec in program.inputs]
    found: dict[str, str] = {}
    for text in texts:
        output, _, name = text.partition("=")
        if output not in outputs or name not in inputs:
            hint = f"the outputs are: {', '.join(outputs)}; the inputs are: {', '.join(inputs)}"
            raise UsageError("this is no output and input of the program", where=f"--feed {text}", hint=hint)
        found[name] = output
    if found and inflight > 1:
        raise UsageError("a run that waits for another is not in flight with it", where="--feed", hint="no --inflight")
    return found


def _write_steps(folder: Path, steps: Sequence[Mapping[str, Any]]) -> None:
    from gimlet.tools.arrays import write_outputs

    for number, outputs in enumerate(steps):
        write_outputs(folder, {f"{name}.{number}": value for name, value in outputs.items()})


def _timed(
    program: Program, arrays: Mapping[str, Any], repeat: int, inflight: int, feeds: Mapping[str, str]
) -> tuple[dict[str, Any], Timing, list[dict[str, Any]]]:
    """Runs `repeat` times with `inflight` requests at once. The outputs of the last run, the times, and all outputs.

    All outputs only where the program keeps a state, and one request is in flight.
    """
    ended: list[tuple[float, float]] = []
    steps: list[dict[str, Any]] = []
    start = perf_counter()
    if inflight > 1:
        outputs = _pipelined(program, arrays, repeat, inflight, ended)
    else:
        outputs = {}
        given = dict(arrays)
        for _ in range(repeat):
            begin = perf_counter()
            outputs = program.run(given)
            ended.append((perf_counter(), begin))
            given |= {name: outputs[output] for name, output in feeds.items()}
            steps += [outputs] if program.states else []
    ended.sort()
    latencies, ends = tuple(end - begin for end, begin in ended), tuple(end - start for end, _ in ended)
    return outputs, Timing(latencies, ends, inflight), steps


def _pipelined(
    program: Program,
    arrays: Mapping[str, Any],
    repeat: int,
    inflight: int,
    ended: list[tuple[float, float]],
) -> dict[str, Any]:
    """Runs with `inflight` requests at once, and appends the end and the begin of each run."""
    slots = threading.Semaphore(inflight)
    errors: list[BaseException] = []

    states = [program.state() for _ in range(inflight)] if program.states else []
    turn = count()

    def submit() -> Future[dict[str, Any]]:
        return states[next(turn) % inflight].submit_run(arrays) if states else program.submit_run(arrays)

    def request() -> Future[dict[str, Any]]:
        begin = perf_counter()

        def finish(future: Future[dict[str, Any]]) -> None:
            ended.append((perf_counter(), begin))
            error = future.exception()
            if error is not None:
                errors.append(error)
            slots.release()

        future = submit()
        future.add_done_callback(finish)
        return future

    slots.acquire()
    last = request()
    for _ in range(repeat - 1):
        slots.acquire()
        if errors:
            slots.release()
            break
        last = request()
    # A future wakes its waiters before it calls back, so a result is no sign that the times are there.
    for _ in range(inflight):
        slots.acquire()
    if errors:
        raise errors[0]
    return last.result()


def _predicted_period_s(program: Program) -> float | None:
    """The period of a pipeline in the schedule that placement promised. Bundles before schema 5 say it only where
    they were placed for throughput."""
    promised = program.manifest.placement
    if promised.period_s is None and promised.objective == "throughput":
        return promised.value
    return promised.period_s


def _write_trace(trace: Any, path: Path) -> None:
    with writing(path, "--profile"):
        trace.write(path)


def _described(value: Any, dtype: str) -> dict[str, Any]:
    """A value's type and shape; of a sequence, those of its items; of a map, how many entries it has."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, list):
        return {"dtype": dtype, "items": [_described(item, "map") for item in cast("list[Any]", value)]}
    return {"dtype": dtype, "items": None if value is None else len(value)}


def _segment(item: Running) -> dict[str, Any]:
    return {
        "id": item.segment,
        "device": item.device,
        "executor": item.executor,
        "format": item.format,
        "emulated": item.emulated,
    }


def _print(data: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    for item in data["segments"]:
        how = f"{item['executor']}, emulated here" if item["emulated"] else item["executor"]
        click.echo(f"segment {item['id']} on {item['device']}: {item['format']} ({how})")
    for item in data["states"]:
        click.echo(f"state {item}")
    for item in data["outputs"]:
        array = outputs[item["name"]]
        line = f"output {item['name']}: {_form(item)}"
        if "shape" in item and array.size and array.dtype.kind in "fiu":
            line += f" min {array.min():.6g} mean {array.mean():.6g} max {array.max():.6g}"
        click.echo(f"{line} -> {item['file']}" if item["file"] else line)
    latency = data["latency"]
    click.echo(_latency_text(data))
    if latency["period_s"] is not None:
        click.echo(_period_text(data))


def _form(item: Mapping[str, Any]) -> str:
    if "shape" in item:
        return f"{item['dtype']}{item['shape']}"
    items = item["items"]
    if not isinstance(items, list):
        return f"{item['dtype']} without a value" if items is None else f"{item['dtype']} of {items}"
    return f"{item['dtype']} of [{', '.join(map(_form, cast('list[Any]', items)))}]"


def _latency_text(data: Mapping[str, Any]) -> str:
    latency = data["latency"]
    text = f"latency: median {_milliseconds(latency['median_s'])}, min {_milliseconds(latency['min_s'])}"
    text += f" over {latency['runs']} runs" if latency["runs"] > 1 else " (first run)"
    return text if latency["inflight"] > 1 else text + _predicted_text(latency["predicted_s"], data)


def _period_text(data: Mapping[str, Any]) -> str:
    """The period, beside the predicted one where enough is in flight for a pipeline."""
    latency = data["latency"]
    text = f"period: {_milliseconds(latency['period_s'])} with {latency['inflight']} in flight"
    text += f", {latency['runs_per_s']:.4g} inferences/s"
    return text + _predicted_text(latency["predicted_period_s"], data) if latency["inflight"] > 1 else text


def _predicted_text(seconds: float | None, data: Mapping[str, Any]) -> str:
    if seconds is None:
        return ""
    emulated = sorted({item["device"] for item in data["segments"] if item["emulated"]})
    text = f"; predicted {_milliseconds(seconds)}"
    return f"{text} with the real {', '.join(emulated)}, emulated here" if emulated else text


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


if __name__ == "__main__":
    main()
