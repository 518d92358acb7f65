"""How much memory a compile takes beyond the weights' own file: a model with gigabytes of weights on disk.

    python benchmarks/compile_memory.py [--gigabytes 8] [--target cpu sram] [--folder DIR]

The model is products of float32 matrices of 256 MiB, in ONNX with external data. The data file is sparse, with a few
bytes of each matrix written so that no two are equal; the bundle is not, so the folder needs twice the size free.
Prints for each device the peak of the compiling process (VmHWM: all of its memory, mapped pages of files too), of which
the most anonymous memory (RssAnon, sampled), a bare interpreter's peak, and the difference. Everything is deleted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx
from onnx import TensorProto, helper

INNER, OUTER = 4096, 16384
MATRIX_BYTES = INNER * OUTER * 4
TOPOLOGIES = {
    "cpu": '[[device]]\nname = "cpu"\nkind = "host"\n',
    "sram": (
        '[[device]]\nname = "cpu"\nkind = "host"\n[[device]]\nname = "sram0"\nkind = "d-matrix/corsair"\n'
        '[[link]]\nbetween = ["cpu", "sram0"]\nkind = "pcie5x16"\n'
    ),
}
PINS = {"cpu": [], "sram": ["--pin", ".*=sram0"]}


def write_model(folder: Path, weight_bytes: int) -> Path:
    """A chain of products with at least so many bytes of weights, in `folder`."""
    count = -(-weight_bytes // MATRIX_BYTES)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    with (folder / "weights.bin").open("wb") as data:
        for index in range(count):
            tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
            tensor.dims.extend((INNER, OUTER) if index % 2 == 0 else (OUTER, INNER))
            offset = index * MATRIX_BYTES
            for key, value in (("location", "weights.bin"), ("offset", offset), ("length", MATRIX_BYTES)):
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"x{index + 1}"], f"product{index}"))
            data.seek(offset)
            data.write((index + 1).to_bytes(4, "little"))
        data.truncate(count * MATRIX_BYTES)
    ends = [(f"x{number}", INNER if number % 2 == 0 else OUTER) for number in (0, count)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in ends]
    graph = helper.make_graph(nodes, "large", values[:1], values[1:], weights)
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def peak_of(command: list[str]) -> tuple[float, float, float]:
    """Seconds, peak memory and peak anonymous memory in MB of a command. SystemExit where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    anonymous = 0
    while True:
        done, result, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            process.returncode = os.waitstatus_to_exitcode(result)
            break
        fields = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        anonymous = max(anonymous, int(fields.get("RssAnon", "0 kB").split()[0]))
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1000, anonymous / 1000


def main() -> None:
    """Prints a line for each device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--target", nargs="+", default=list(TOPOLOGIES), choices=list(TOPOLOGIES))
    parser.add_argument("--folder", type=Path, help="where the model and the bundle are written for a while")
    arguments = parser.parse_args()
    _, bare, _ = peak_of([sys.executable, "-c", "pass"])
    print(f"{'device':<8}{'weights GB':>11}{'seconds':>9}{'VmHWM MB':>10}{'RssAnon MB':>12}{'above Python MB':>17}")
    for name in arguments.target:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
            folder = Path(place)
            model = write_model(folder, int(arguments.gigabytes * 1e9))
            size = (folder / "weights.bin").stat().st_size
            (folder / "topology.toml").write_text(TOPOLOGIES[name])
            command = [sys.executable, "-m", "gimlet.tools.gimlet_compile", str(model), "--bind", "n=1:1:4"]
            command += ["--topology", str(folder / "topology.toml"), *PINS[name], "-o", str(folder / "large.gimlet")]
            seconds, peak, anonymous = peak_of(command)
        print(f"{name:<8}{size / 1e9:>11.1f}{seconds:>9.0f}{peak:>10.0f}{anonymous:>12.0f}{peak - bare:>17.0f}")


if __name__ == "__main__":
    main()
