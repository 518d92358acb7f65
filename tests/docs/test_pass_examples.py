"""Runs the example in every pass's docstring: gimlet-opt turns the first fence into the second.

Options are given in the sentence between the two, as "After `bind-dims{names="batch" sizes=4}`:".
"""

import inspect
import re
from pathlib import Path

import pytest

from gimlet.passes.registry import PASSES, load
from gimlet.tools.gimlet_opt import main

FENCE = re.compile(r"^```mlir\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PIPELINE = re.compile(r"After `([^`]+)`")


def optimised(text: str, folder: Path, *options: str) -> str:
    (folder / "in.mlir").write_text(text)
    with pytest.raises(SystemExit) as stop:
        main([str(folder / "in.mlir"), "-o", str(folder / "out.mlir"), *options])
    assert stop.value.code in (0, None)
    return (folder / "out.mlir").read_text()


@pytest.mark.parametrize("name", sorted(PASSES))
def test_the_example_of_a_pass_holds(name: str, tmp_path: Path):
    text = inspect.cleandoc(load(name).__doc__ or "")
    before, after = FENCE.findall(text)
    pipeline = PIPELINE.search(text)
    spelled = pipeline[1] if pipeline else name
    assert re.match(r"[\w-]+", spelled)[0] == name
    assert optimised(before, tmp_path, "-p", spelled) == optimised(after, tmp_path)
    assert optimised(before, tmp_path) != optimised(after, tmp_path), "the example shows no change"
