"""The SRAM emulator's time against numpy's: python benchmarks/sram_emulator.py [--size N]

A matrix product in fp32, bf16 and MXINT8: the program that the code generator makes, on the emulator, against numpy's
product of the same float32 matrices. Medians of pairs that alternate in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from sram_bounds import chain

from gimlet.compiler.hardware import load_kind
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import OnnxOp
from gimlet.dialects.onnx.importer import import_model
from gimlet.runtime.sram.emulator import Emulator
from gimlet.runtime.sram.formats import encode
from gimlet.targets.sram.codegen import generate
from gimlet.targets.sram.target import machine_of, work_of_ops

PAIRS = 5


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    size = parser.parse_args().size
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((size, size)).astype(np.float32) for _ in range(2))
    module = import_model(chain(size, (size, size)), GimletContext())
    ops = [op for op in module.walk() if isinstance(op, OnnxOp) and op.op_type == "MatMul"]
    for fmt in ("fp32", "bf16", "mxint8"):
        generated = generate(work_of_ops(ops, {}, mx_budget=1.0), machine_of(load_kind("d-matrix/corsair")), fmt)
        program = generated.program
        (weight,) = (tensor for tensor in program.tensors if tensor.role == "weight")
        values = rng.standard_normal([dim.as_int() for dim in weight.shape]).astype(np.float32)
        emulator = Emulator(program, np.frombuffer(encode(weight.dtype, values), np.uint8))
        emulated = partial(emulator.run, {program.inputs[0].name: x}, {})
        emulated()
        pairs = [(seconds(emulated), seconds(partial(np.matmul, x, w))) for _ in range(PAIRS)]
        ratio = statistics.median(mine / peer for mine, peer in pairs)
        mine, peer = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"{size}³ {fmt:7} emulator {mine * 1e3:7.1f} ms  numpy {peer * 1e3:6.1f} ms  ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
