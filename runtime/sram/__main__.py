"""Where a program's cycles go: python -m gimlet.runtime.sram program.sram [--size DIM=N] [--trace T.json]

Prints the share in which each unit is busy, what it waits for, the longest kernels, and what the cycles of the longest
path go to, with every dimension at its optimum unless `--size` says otherwise. `--trace` writes a trace that Perfetto
(ui.perfetto.dev) opens.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gimlet.runtime.errors import GimletError, InputError, UsageError
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import time_program
from gimlet.runtime.sram.encoding import loads
from gimlet.runtime.sram.path import longest_path, path_summary
from gimlet.runtime.sram.trace import summary, trace


def main(args: list[str] | None = None) -> int:
    """Prints the summary and returns an exit code."""
    parser = argparse.ArgumentParser("python -m gimlet.runtime.sram", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path, help="a segment's program.sram")
    parser.add_argument("--size", action="append", default=[], metavar="DIM=N", help="a dimension, else its optimum")
    parser.add_argument("--trace", type=Path, metavar="T.json", help="write a trace that ui.perfetto.dev opens")
    given = parser.parse_args(args)
    try:
        program = loads(given.program.read_text(encoding="utf-8"))
        sizes = {dim.name: dim.optimum for dim in program.dims} | dict(_size(text) for text in given.size)
        bound = bind(program, sizes)
        if given.trace is not None:
            given.trace.write_text(json.dumps(trace(bound)), encoding="utf-8")
    except GimletError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        return InputError.exit_code
    except UnicodeDecodeError as error:
        sys.stderr.write(f"error: {given.program}: {error}\n")
        return InputError.exit_code
    sys.stdout.write(f"{summary(time_program(bound))}\n{path_summary(longest_path(bound))}\n")
    return 0


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise UsageError(f"--size takes DIM=N, not {text!r}")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
