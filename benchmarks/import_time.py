"""`import gimlet.runtime` against `import onnxruntime, numpy`: `python benchmarks/import_time.py [--pairs 15]`.

Each import is timed in a fresh interpreter, in turns; the median ratio is to be at most 1.1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CODE = "import time; start = time.perf_counter_ns(); {}; print(time.perf_counter_ns() - start)"


def import_ns(statement: str) -> int:
    """Nanoseconds that an import takes in a fresh interpreter, its start not included."""
    done = subprocess.run([sys.executable, "-c", CODE.format(statement)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    pairs = parser.parse_args().pairs
    sides = ("import gimlet.runtime", "import onnxruntime, numpy")
    for side in sides:
        import_ns(side)
    times = [(import_ns(sides[0]), import_ns(sides[1])) for _ in range(pairs)]
    report = {
        "ratio": statistics.median(ours / theirs for ours, theirs in times),
        "gimlet_runtime_ms": statistics.median(ours for ours, _ in times) / 1e6,
        "onnxruntime_numpy_ms": statistics.median(theirs for _, theirs in times) / 1e6,
    }
    print(json.dumps({name: round(value, 3) for name, value in report.items()}, indent=2))


if __name__ == "__main__":
    main()
