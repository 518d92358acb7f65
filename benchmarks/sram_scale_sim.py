"""The SRAM machine as a plain systolic array against SCALE-Sim: python benchmarks/sram_scale_sim.py

Compiles matrix products for one array of `Machine.systolic`, with each operand held, and prints the last cycle of the
cycle model beside SCALE-Sim's closed form (Samajdar et al., ISPASS 2020). The model has no such formula: a tile is put
into the array, rows stream through it, the last result comes out, and the next tile waits for that.
"""

from __future__ import annotations

from math import ceil

from sram_bounds import timed

from gimlet.runtime.sram.machine import Machine, Stationary

SHAPES = ((64, 64, 64), (128, 32, 256), (100, 70, 50), (1000, 1000, 1000), (1, 4096, 4096))
ARRAYS = ((32, 32), (16, 64), (128, 128))
NAMES: dict[Stationary, str] = {"accumulator": "output", "rhs": "weight", "lhs": "input"}


def closed_form(m: int, n: int, k: int, rows: int, columns: int, held: Stationary) -> int:
    if held == "accumulator":
        return ceil(m / rows) * ceil(n / columns) * (k + rows + columns - 2) - 1
    streamed, across = (m, n) if held == "rhs" else (n, m)
    return ceil(k / rows) * ceil(across / columns) * (streamed + 2 * rows + columns - 2) - 1


def main() -> None:
    print(f"{'M, N, K':22}{'array':>10}  {'held':8}{'cycle model':>12}{'SCALE-Sim':>12}")
    for shape in SHAPES:
        for array in ARRAYS:
            for held, name in NAMES.items():
                m, n, k = shape
                found = timed(m, (k, n), Machine.systolic(*array, held), "fp32")[0].last_cycle
                expected = closed_form(m, n, k, *array, held)
                verdict = "" if found == expected else "  differs"
                print(f"{shape!s:22}{'x'.join(map(str, array)):>10}  {name:8}{found:12}{expected:12}{verdict}")


if __name__ == "__main__":
    main()
