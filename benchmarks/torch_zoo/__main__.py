"""Compiles modules of torch.nn and functions of torch for this machine, and compares them with PyTorch.

    PYTHONPATH=benchmarks python -m torch_zoo [--part K/N] [NAME…]

Each case is a model of its own, compiled at one size, and once more with dynamic dimensions, where it can have some,
and then run at two sizes. NAME is a group (layers, shapes, functions) or a part of a case's name. It prints what does
not compute as PyTorch does, with the reason, if that is known, and a count at the end. The exit code is 1 where the
list of reasons (reasons.py) is not true.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from torch_zoo import CASES, GROUPS
from torch_zoo.case import Case
from torch_zoo.measure import measure
from torch_zoo.reasons import reason_of


def _chosen(names: list[str]) -> list[str]:
    if not names:
        return list(CASES)
    parts = [[case.name for case in GROUPS[name]] if name in GROUPS else None for name in names]
    return [
        case
        for name, part in zip(names, parts, strict=True)
        for case in (part if part is not None else [each for each in CASES if name in each])
    ]


def _forms(case: Case) -> dict[str, Case]:
    return {"one size": case.static(), **({"dynamic": case} if case.dims else {})}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="every Nth case only, from the Kth on")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    part, parts = map(int, arguments.part.split("/"))
    good = refused = wrong = 0
    print("| case | sizes | reason | said |\n|---|---|---|---|")
    for name in _chosen(arguments.names)[part - 1 :: parts]:
        for sizes, case in _forms(CASES[name]).items():
            said, reason = measure(case), reason_of(name, dynamic=sizes == "dynamic")
            good += not said
            refused += bool(said and reason)
            wrong += bool(said) != bool(reason)
            if said or reason:
                print(f"| {name} | {sizes} | {reason or 'NOT KNOWN'} | {said or 'as PyTorch'} |", flush=True)
    print(f"\n{good} as PyTorch, {refused} refused for a known reason, {wrong} not as listed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
