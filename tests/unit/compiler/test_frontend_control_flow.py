"""`torch.cond`, `while_loop`, `scan` and `map`: nested, with captured values, constants and changes in place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.dialects.onnx_cases import context
from torch._higher_order_ops import map as map_over
from torch._higher_order_ops import scan, while_loop
from torch.export import Dim
from torch.utils import _pytree

import gimlet
from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.runtime.errors import InputError

X = torch.linspace(-1, 2, 12).reshape(3, 4)
LONG = torch.linspace(-3, 1, 28).reshape(7, 4)
ROWS = ({0: Dim("rows", min=2, max=9)},)


class Model(torch.nn.Module):
    """Of a function of the module and its argument."""

    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.linear = torch.nn.Linear(4, 4)
        self.cell = torch.nn.GRUCell(4, 4)
        self.register_buffer("count", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


def branches(m: Model, x: torch.Tensor) -> Any:
    doubled = x * 2

    def inner(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.max() > 1.5, lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.sin, (x,))

    def changing(x: torch.Tensor) -> torch.Tensor:
        changed = m.linear(x) + doubled
        changed[0] = 5
        return changed.add_(1)

    return torch.cond(x.sum() > 0, inner, changing, (x,))


def counted(m: Model, x: torch.Tensor) -> Any:
    def counting(x: torch.Tensor) -> torch.Tensor:
        m.count.add_(1)
        return x + m.count

    return torch.cond(x.sum() > 0, counting, lambda x: x - m.count, (x,))


def given_back(m: Model, x: torch.Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda x: (x.t(), x), lambda x: ((x * 2).t(), x + 1), (x,))


def looped(m: Model, x: torch.Tensor) -> Any:
    def body(i: torch.Tensor, x: torch.Tensor) -> Any:
        _, x = while_loop(lambda j, x: j < i, lambda j, x: (j + 1, m.linear(x)), (torch.tensor(0), x))
        return i + 1, torch.cond(x.sum() > 0, lambda x: x - torch.tensor(1.0), lambda x: x + 1.5, (x,))

    return while_loop(lambda i, x: i < 4, body, (torch.tensor(0), x))


def stepped(m: Model, x: torch.Tensor) -> Any:
    def step(hidden: torch.Tensor, row: torch.Tensor) -> Any:
        hidden = m.cell(row[None], hidden)
        left, right = row.split(2)
        return hidden, {"out": hidden[0] * 2, "turned": torch.cat([right, left])}

    return scan(step, torch.zeros(1, 4), x)


def stepped_from_the_end(m: Model, x: torch.Tensor) -> Any:
    return scan(lambda sums, row: (sums + row[0], sums * row[1]), torch.zeros(4), (x, x), reverse=True)


def mapped(m: Model, x: torch.Tensor) -> Any:
    return map_over(lambda rows: (m.linear(rows[0]) + rows[1], rows[0].sum()), (x, x.sin()))


CASES = [branches, counted, given_back, looped, stepped, stepped_from_the_end, mapped]


@pytest.mark.parametrize("body", CASES, ids=lambda body: body.__name__)
def test_branches_and_loops_compute_what_pytorch_does(body: Callable[..., Any], tmp_path: Path):
    model = Model(body)
    shapes = None if body is counted else ROWS
    gimlet.compile(copy.deepcopy(model), (X,), dynamic_shapes=shapes, output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program, torch.no_grad():
        for x in (X, -X, X - 3, *([LONG] if shapes else [])):
            expected, found = _pytree.tree_leaves(model(x)), _pytree.tree_leaves(program(x))
            for tensor, array in zip(expected, found, strict=True):
                np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-5, atol=1e-6)


def test_names_of_dimensions_reach_into_loops():
    model = Model(lambda m, x: while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x)))
    module = load(model, args=(X,), dynamic_shapes=ROWS, ctx=context())
    (loop,) = (op for op in module.walk() if isinstance(op, OnnxOp) and op.name == "onnx.Loop")
    carried = loop.regions[0].block.args[-1]
    assert [str(dim) for dim in dims_of(carried) or ()] == ["rows", "4"]


def inside(*arguments: Any) -> Any:
    arguments[1].add_(1.0)
    return arguments[0] + 1, arguments[1].clone()


def rows_more(i: torch.Tensor, x: torch.Tensor) -> Any:
    return i + 1, torch.cat([x, x])


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (
            lambda m, x: while_loop(lambda i, x: i < 3, inside, (torch.tensor(0), x.clone())),
            "a loop .while_loop. changes in place what it is given",
            "return it as a value that the loop carries",
        ),
        (
            lambda m, x: scan(lambda c, row: ((c[0] + row, c[1] * row), row * 2), (m.count, m.count), x),
            "begins with one tensor for two of the values that it carries",
            "give it a copy",
        ),
        (
            lambda m, x: while_loop(lambda i, x: i < 3, rows_more, (torch.tensor(0), x)),
            "cannot trace Model: .*same metadata but found:; pair.1. differ in 'shape",
            "wrapper",
        ),
        (
            lambda m, x: torch.cond(x.sum() > 0, lambda x: x, lambda x: x.long(), (x,)),
            "expected same dtype but got torch.float32 and torch.int64",
            "wrapper",
        ),
        (
            lambda m, x: x + 1 if x.sum() > 0 else x,
            "cannot trace Model: .*data-dependent expression",
            "torch.cond, torch.where",
        ),
    ],
    ids=["changes in a loop", "carried twice", "a shape that grows", "branches of two types", "branches of Python"],
)
def test_what_cannot_be_traced_gives_its_line(
    body: Callable[..., Any], message: str, hint: str, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match=message) as error:
        load(Model(body), args=(X,), ctx=context())
    assert (error.value.where or "").startswith("tests/unit/compiler/test_frontend_control_flow.py:")
    assert hint in (error.value.hint or "")
    assert capfd.readouterr() == ("", "")


def test_layers_with_branches_are_traced_whole(tmp_path: Path):
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, self.parts[0], self.parts[1], (x,))

    torch.manual_seed(0)
    model, said = torch.nn.Sequential(*(Layer() for _ in range(4))), list[str]()
    module = load(model, args=(X,), ctx=context(), say=said.append)
    assert len([op for op in module.walk() if op.name == "onnx.If"]) == 4
    assert said[0].startswith("every layer is traced: it does not run without numbers")
