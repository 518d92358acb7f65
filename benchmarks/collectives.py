"""The model of collectives against the NCCL tables of aiconfigurator-core, for B200 over NVLink 5.

    python benchmarks/collectives.py

For each collective and number of GPUs: the median of |model / table - 1| over all sizes, and the error from 8 MiB on.
The link's latency and bandwidth are those of the kind `nvlink5`, taken from two of these points.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pyarrow.parquet as parquet

from gimlet.compiler.hardware import load_link
from gimlet.compiler.placement.collectives import ALGORITHMS, Collectives

_TABLE = "systems/data/b200_sxm/comm/nccl/2.29.2/nccl_perf.parquet"
_BYTES = 2
_LARGE = 8 << 20


def main() -> None:
    """Prints one line a collective, number of GPUs and algorithm."""
    spec = find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        raise SystemExit("aiconfigurator-core is not installed: pip install 'gimlet-compiler[tables]'")
    rows = parquet.read_table(Path(spec.origin).parent / _TABLE).to_pylist()
    link = load_link("nvlink5")
    print("| collective | GPUs | algorithm | median error | from 8 MiB on |")
    print("|---|---|---|---|---|")
    for name in ("all_gather", "all_reduce"):
        for count in (2, 4, 8):
            for algorithm in ALGORITHMS:
                model = Collectives(count, algorithm, link.latency_s, 1 / link.bandwidth)
                seconds = model.all_gather_s if name == "all_gather" else model.all_reduce_s
                errors = {
                    row["message_size"] * _BYTES: seconds(row["message_size"] * _BYTES) / (row["latency"] * 1e-3) - 1
                    for row in rows
                    if (row["op_name"], row["num_gpus"], row["nccl_dtype"]) == (name, count, "half")
                }
                large = [error for size, error in errors.items() if size >= _LARGE]
                print(
                    f"| {name} | {count} | {algorithm} | {median(map(abs, errors.values())):.0%} "
                    f"| {min(large):+.0%} to {max(large):+.0%} |"
                )


if __name__ == "__main__":
    main()
