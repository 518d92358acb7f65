"""The code model as a digital in-memory-compute array beside ZigZag.

    python benchmarks/sram_zigzag.py --python ZZ/bin/python

ZigZag (PyPI `zigzag-dse`) needs other versions of libraries than we do, so it gets an environment of its own:

    python -m venv ZZ && ZZ/bin/pip install zigzag-dse==3.9.1 six

It runs its own test point (`tests/main/test_imc/test_dimc.py`: resnet18.onnx on an array of 128 x 128 cells of 8 bits,
an activation's bits one after the other, DRAM of 8 bytes a cycle) and should find the 5,681,000 cycles that its test
expects; that takes some three minutes. `--outputs FOLDER` keeps what it writes, and reads it if it is there already.

Each of its layers is compiled for `zigzag_dimc.toml`, in MXINT8, with inputs and outputs in bf16, and timed with its
weights in DRAM, as they are in ZigZag. Printed: for ZigZag the cycles in which the array computes, what it stalls for
memory, and the whole, with what comes before and after; for us those in which the array multiplies and in which weights
go into it, the whole, and what of that is the conversion of the input to MXINT8.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.runtime.sram.binding import bind
from gimlet.runtime.sram.cycles import Timing, time_program
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.codegen import generate_for
from gimlet.targets.sram.target import machine_of, work_of_ops

KIND = Path(__file__).with_name("zigzag_dimc.toml")
_RUN = """
import logging, os, sys
from pathlib import Path
import zigzag
from zigzag.api import get_hardware_performance_zigzag
logging.disable(logging.CRITICAL)
os.chdir(Path(zigzag.__file__).parent.parent)
get_hardware_performance_zigzag(
    "zigzag/inputs/workload/resnet18.onnx",
    "zigzag/inputs/hardware/dimc.yaml",
    "zigzag/inputs/mapping/default_imc.yaml",
    dump_folder=sys.argv[1], in_memory_compute=True, loma_show_progress_bar=False,
)
"""


@dataclass(frozen=True)
class Layer:
    """A layer of ZigZag's: its loops by name, cycles that compute, stalls, and all with loading and unloading."""

    name: str
    loops: Mapping[str, int]
    stride: int
    computes: float
    stalls: float
    cycles: float


def layers(folder: Path) -> list[Layer]:
    """What ZigZag wrote, in the order of the network."""
    found: list[Layer] = []
    for path in sorted(folder.glob("*_complete.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        latency, layer = data["outputs"]["latency"], data["inputs"]["layer"]
        parts = latency["computation_breakdown"]
        cycles = latency["data_onloading"] + latency["computation"] + latency["data_offloading"]
        stride = next((int(each[5]) for each in layer["equation_relations"] if each.startswith("IX = ")), 1)
        found.append(
            Layer(
                layer["name"],
                layer["loop_dimensions"],
                stride,
                parts["mac_computation"],
                parts["memory_stalling"],
                cycles,
            )
        )
    return found


def model_of(layer: Layer) -> ir.Model:
    """A layer as a convolution, or as a product where it has no positions."""
    dtype, loops = ir.DataType.BFLOAT16, layer.loops
    outputs, inputs = loops["K"], loops["C"]
    if "OX" in loops:
        size, kernel = loops["OX"], loops["FX"]
        shape: tuple[int, ...] = (outputs, inputs, kernel, kernel)
        given, made = (1, inputs, *(size * layer.stride,) * 2), (1, outputs, size, size)
        pads = ir.AttrInt64s("pads", [kernel // 2] * 4)
        attributes, kind = [pads, ir.AttrInt64s("strides", [layer.stride] * 2)], "Conv"
    else:
        shape, given, made, attributes, kind = (inputs, outputs), (1, inputs), (1, outputs), [], "MatMul"
    tensor = ir.LazyTensor(lambda: ir.tensor(np.zeros(shape, np.float32)), dtype, ir.Shape(shape))
    x = ir.Value(name="x", shape=ir.Shape(given), type=ir.TensorType(dtype))
    w = ir.Value(name="w", shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)
    node = ir.Node("", kind, [x, w], attributes, num_outputs=1)
    y = node.outputs[0]
    y.name, y.shape, y.type = "y", ir.Shape(made), ir.TensorType(dtype)
    return ir.Model(ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 22}), ir_version=10)


def timed(layer: Layer, machine: Machine) -> Timing:
    """A layer on the code model, all its weights in DRAM."""
    module = import_model(model_of(layer), GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type in ("Conv", "MatMul")]
    work = replace(work_of_ops(ops, {}, mx_budget=1.0), keeps_views=False)
    program = generate_for(work, machine, "mxint8", machine.cores).program
    tensors = [replace(each, space="lpddr") if each.role == "weight" else each for each in program.tensors]
    return time_program(bind(replace(program, tensors=tuple(tensors)), {}))


def run_zigzag(python: str, folder: Path) -> None:
    arguments: list[Any] = [python, "-c", _RUN, str(folder.resolve())]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="the interpreter of the environment that has zigzag-dse")
    parser.add_argument("--outputs", type=Path, help="the folder that ZigZag writes to, or has written to")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.outputs or Path(scratch)
        if not layers(folder):
            if given.python is None:
                sys.exit(f"{folder} has no output of ZigZag: name the interpreter that has it with --python")
            run_zigzag(given.python, folder)
        found = layers(folder)
    machine = machine_of(load_kind(str(KIND)))
    print("| layer | ZigZag computes | stalls | whole | we multiply | fill the array | convert | whole | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    totals = np.zeros(7)
    for layer in found:
        timing = timed(layer, machine)
        multiplies, fills = (sum(each.busiest[unit] for each in timing.kernels) for unit in ("matrix", "array"))
        converts = sum(each.cycles for each in timing.kernels if each.name.startswith("convert"))
        row = (layer.computes, layer.stalls, layer.cycles, multiplies, fills, converts, timing.cycles)
        totals += row
        cells = " | ".join(f"{each:,.0f}" for each in row)
        print(f"| {layer.name.removeprefix('/')} | {cells} | {timing.cycles / layer.cycles:.2f} |", flush=True)
    print(f"| all | {' | '.join(f'{each:,.0f}' for each in totals)} | {totals[-1] / totals[2]:.2f} |")


if __name__ == "__main__":
    main()
