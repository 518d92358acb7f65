"""How long a compile takes, and how much memory: PP-OCRv4 recognition for a rack of three vendors.

    python benchmarks/compile_rack.py [--runs N]

Each compile is a process of its own, imports included. *Cold* has an empty cache of engines and probes, *warm* the
cache that the cold one left. Peak memory is that of the largest single process: the compiler, or the engine's builder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

RACK = Path(__file__).resolve().parent.parent / "examples" / "topologies" / "rack.toml"
FORCED = [part for device in ("cpu", "gpu0", "sram0") for part in ("--min-share", f"{device}=0.2")]


def recognition() -> str:
    """The path of the recognition network."""
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        raise SystemExit("install the models first: pip install --no-deps -r requirements/models.txt")
    return str(Path(spec.origin).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx")


def compile_once(folder: Path, cache: Path, more: list[str]) -> tuple[float, float]:
    """Seconds, and the peak memory of the largest process in MB, of one compile."""
    command = [sys.executable, "-m", "gimlet.tools.gimlet_compile", recognition(), "--topology", str(RACK), "--json"]
    command += ["--bind", "x[0]=1,x[2]=48,x[3]=32:320:2048", "-o", str(folder / "out.gimlet"), "--force", *more]
    start = time.perf_counter()
    null = os.open(os.devnull, os.O_WRONLY)
    process = os.posix_spawn(
        sys.executable,
        command,
        {**os.environ, "GIMLET_CACHE": str(cache)},
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)],
    )
    _, status, usage = os.wait4(process, 0)
    taken = time.perf_counter() - start
    if status:
        raise SystemExit(f"the compile failed: {os.waitstatus_to_exitcode(status)}")
    return taken, usage.ru_maxrss / 1000


def main() -> None:
    """Prints the median of several cold and warm compiles, as the cost model likes and with a forced split."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    print(f"{'placement':<10} {'cold s':>8} {'warm s':>8} {'peak MB':>8}   medians of {runs}")
    for name, more in (("free", []), ("forced", [*FORCED, "--max-segments", "8"])):
        cold: list[tuple[float, float]] = []
        warm: list[tuple[float, float]] = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                cold.append(compile_once(root, root / "cache", more))
                warm.append(compile_once(root, root / "cache", more))
        seconds = [statistics.median(s for s, _ in each) for each in (cold, warm)]
        peak = max(memory for _, memory in (*cold, *warm))
        print(f"{name:<10} {seconds[0]:8.1f} {seconds[1]:8.1f} {peak:8.0f}")


if __name__ == "__main__":
    main()
