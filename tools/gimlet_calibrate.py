"""gimlet-calibrate: measures this machine and describes it as a kind of device."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from gimlet.runtime.errors import UsageError
from gimlet.tools.cli import command, print_json, run


@command("gimlet-calibrate")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help='The kind file to write. Without it, this machine\'s own, which kind = "host" then finds.',
)
@click.option("--idle-w", type=click.FloatRange(min=0), help="Watts that the machine draws while it waits.")
@click.option("--load-w", type=click.FloatRange(min=0, min_open=True), help="Watts that it draws under full load.")
@click.option("--price-usd", type=click.FloatRange(min=0), help="What it costs to buy.")
@click.option("--usd-per-hour", type=click.FloatRange(min=0), help="What it costs for an hour.")
@click.option("--cores", type=click.IntRange(min=1), help="Describe so many of its cores as a device; needs -o.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the file's name.")
def gimlet_calibrate(
    output: Path | None,
    idle_w: float | None,
    load_w: float | None,
    price_usd: float | None,
    usd_per_hour: float | None,
    cores: int | None,
    as_json: bool,
) -> None:
    """Measure this machine and write it as a kind of device: ten seconds, or a minute where it is busy.

    Name the file in a topology (kind = "cpu.toml") to compile for this machine on another one. Power and price cannot
    be measured: give them, or objectives that need them are refused.

    With --cores, segments on such a device run with so many threads: several devices of a topology can then be cores,
    or sockets, of one machine, and a pipeline over them is run as it was placed.
    """
    given = {
        "power.idle_w": idle_w,
        "power.load_w": load_w,
        "price.usd": price_usd,
        "price.usd_per_hour": usd_per_hour,
    }
    if cores is not None and output is None:
        raise UsageError("--cores describes a part of this machine", hint="name its file: -o cores.toml")
    path = _calibrate(output, {key: value for key, value in given.items() if value is not None}, cores)
    if as_json:
        print_json({"kind": str(path)})
    else:
        click.echo(str(path))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command, with the exit codes that all commands have."""
    run(gimlet_calibrate, args)


def _calibrate(output: Path | None, given: dict[str, float], cores: int | None) -> Path:
    from gimlet.compiler.hardware.calibrate import calibrate, render
    from gimlet.compiler.hardware.host import calibration_file
    from gimlet.compiler.progress import Progress

    path = output or calibration_file()
    _check_writable(path, make_folder=output is None)
    if given.get("power.idle_w", 0.0) > given.get("power.load_w", float("inf")):
        raise UsageError("--idle-w is more than --load-w")
    text = render(calibrate(Progress(), given, cores))
    _write(path, text)
    return path


def _check_writable(path: Path, *, make_folder: bool) -> None:
    """UsageError before anything is measured, if the file could not be written afterwards."""
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder: {error.strerror}", where=str(path.parent)) from error
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError("cannot write there: no such folder, or no permission", where=str(path))


def _write(path: Path, text: str) -> None:
    """The whole file or none of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise UsageError(f"cannot write it: {error.strerror}", where=str(path)) from error
