"""The corners of torch.export: names of dimensions, memory that is shared or changed, operators it cannot convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxscript
import pytest
import torch
from tests.unit.dialects.onnx_cases import context
from torch.export import Dim, ShapesCollection

import gimlet
from gimlet.compiler.frontends import load
from gimlet.dialects.onnx import InitializerOp, OnnxOp, dims_of
from gimlet.dialects.onnx.provenance import scope_of
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import InputError


class Pairs(torch.nn.Module):
    def forward(self, x: torch.Tensor, pair: tuple[torch.Tensor, torch.Tensor], *, flag: bool) -> Any:
        return {"sum": x + pair[0], "wide": torch.cat([x, pair[1]], dim=1)} if flag else x


X, PAIR = torch.ones(3, 4), (torch.ones(3, 4), torch.ones(3, 6))


def shapes_of(dynamic_shapes: Any) -> list[list[str]]:
    arguments = {"args": (X, PAIR), "kwargs": {"flag": True}}
    module = load(Pairs(), **arguments, dynamic_shapes=dynamic_shapes, ctx=context())
    return [[str(dim) for dim in dims_of(argument) or ()] for argument in entry_function(module).args]


def collection() -> ShapesCollection:
    shapes = ShapesCollection()
    shapes[X] = {0: Dim("rows", min=1, max=9)}
    shapes[PAIR[0]] = {0: Dim("rows", min=1, max=9)}
    shapes[PAIR[1]] = {0: Dim("rows", min=1, max=9)}
    return shapes


ROWS = {0: Dim("rows", min=1, max=9)}
BY_LIST = [Dim("rows", min=1, max=9), None]


@pytest.mark.parametrize(
    "dynamic_shapes",
    [
        {"x": ROWS, "pair": (ROWS, ROWS), "flag": None},
        (ROWS, (ROWS, ROWS), None),
        {"x": BY_LIST, "pair": (BY_LIST, tuple(BY_LIST)), "flag": None},
        collection(),
    ],
    ids=["dict", "tuple", "axes as lists", "collection"],
)
def test_dynamic_shapes_in_every_form(dynamic_shapes: Any):
    assert shapes_of(dynamic_shapes) == [["rows", "4"], ["rows", "4"], ["rows", "6"]]


def test_a_dimension_that_is_derived_from_another():
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, -1).sum(0)

    half = Dim("half", min=2, max=32)
    module = load(Halves(), args=(torch.ones(8),), dynamic_shapes={"x": {0: 2 * half}}, ctx=context())
    (argument,) = entry_function(module).args
    assert [str(dim) for dim in dims_of(argument)] == ["x_d0"]
    returned = entry_function(module).body.block.last_op.operands[0]
    assert [str(dim) for dim in dims_of(returned)] == ["floordiv(x_d0, 2)"]
    assert str(module.attributes["onnx.dim_bounds"]) == "{x_d0 = array<i64: 4, 8, 64>}"


def test_hints_without_names():
    hint = {0: Dim.DYNAMIC}
    assert shapes_of({"x": hint, "pair": (hint, hint), "flag": None}) == [["x_d0", "4"], ["x_d0", "4"], ["x_d0", "6"]]


def test_the_example_may_be_a_slice():
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).contiguous().view(-1)

    rows = torch.ones(2, 9)[:, :5]
    shapes = {"x": {0: Dim("batch", min=1, max=4), 1: Dim("length", min=2, max=64)}}
    module = load(Twice(), args=(rows,), dynamic_shapes=shapes, ctx=context())
    assert str(module.attributes["onnx.dim_bounds"]) == "{batch = array<i64: 1, 2, 4>, length = array<i64: 2, 5, 64>}"


class Tied(torch.nn.Module):
    """One weight as an embedding and as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5000, 64)
        self.head = torch.nn.Linear(64, 5000, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_a_tied_weight_is_there_once(tmp_path: Path):
    ids = torch.arange(6).reshape(2, 3)
    module = load(Tied(), args=(ids,), ctx=context())
    assert len([op for op in module.walk() if isinstance(op, InitializerOp) and op.key]) == 1
    model = Tied()
    bundle = gimlet.compile(model, (ids,), output=tmp_path / "m.gimlet")
    size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file() and "weights" in path.parts)
    assert size < 1.5 * model.embed.weight.nbytes
    with gimlet.load(bundle.path) as program:
        np.testing.assert_allclose(program(ids), model(ids).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_is_changed_in_place_inside_is_a_value(tmp_path: Path):
    class Inside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y[:, 0] = 7
            y.add_(1).clamp_(max=6)
            return y

    gimlet.compile(Inside(), (torch.ones(2, 3),), output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        np.testing.assert_array_equal(program(np.ones((2, 3), np.float32)), [[6, 3, 3]] * 2)


class Airy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), Airy()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1](self.layers[0](x))


def test_an_operator_without_a_conversion_gives_its_place():
    with pytest.raises(InputError, match=r"cannot convert aten\.special_airy_ai\.default: .*No ONNX function") as error:
        load(Model(), args=(torch.ones(4),), ctx=context())
    assert error.value.where is not None
    assert error.value.where.startswith("tests/unit/compiler/test_frontend_torch.py:")
    assert error.value.where.endswith("in layers.1")
    assert "translations={torch.ops.aten.special_airy_ai.default:" in (error.value.hint or "")


def test_an_operator_that_decomposing_makes_has_the_place_of_what_it_is_of():
    class Inverse(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x)

    with pytest.raises(InputError, match=r"cannot convert aten\.linalg_inv_ex\.default") as error:
        load(Inverse(), args=(torch.eye(20),), ctx=context())
    assert (error.value.where or "").startswith("tests/unit/compiler/test_frontend_torch.py:")


def test_the_line_is_the_models_and_not_pytorchs():
    class Drawn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = torch.nn.FractionalMaxPool2d(2, output_size=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x)

    with pytest.raises(InputError, match=r"cannot convert aten\.fractional_max_pool2d\.default") as error:
        load(Drawn(), args=(torch.ones(1, 1, 9, 9),), ctx=context())
    assert (error.value.where or "").startswith("tests/unit/compiler/test_frontend_torch.py:")
    assert (error.value.where or "").endswith("in pool")


def test_a_translation_of_ones_own(tmp_path: Path):
    op = onnxscript.opset20

    def airy(x: Any) -> Any:
        return op.Sin(x)

    translations = {torch.ops.aten.special_airy_ai.default: airy}
    gimlet.compile(Airy(), (torch.ones(4),), translations=translations, output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        np.testing.assert_allclose(program(np.ones(4, np.float32)), np.sin(np.ones(4)), rtol=1e-6)


def test_bounds_that_pytorch_violates_are_said_in_full():
    class Short(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.shape[0] < 10 else x

    with pytest.raises(InputError, match=r"Constraints violated.*n <= 64.*n = Dim\('n', max=9\)"):
        load(Short(), args=(torch.ones(4),), dynamic_shapes={"x": {0: Dim("n", min=2, max=64)}}, ctx=context())


def test_operations_know_their_module_and_line():
    model = Model()
    model.layers[1] = torch.nn.Sequential(torch.nn.Linear(4, 4))
    module = load(model, args=(torch.ones(4),), ctx=context())
    locations = [str(op.location) for op in module.walk() if isinstance(op, OnnxOp) and scope_of(op) == "layers.1.0"]
    assert locations
    assert all("test_frontend_torch.py" in text or "torch/nn/modules/linear.py" in text for text in locations)


def test_a_module_stays_in_its_mode():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout().eval())
    load(model, args=(torch.ones(4),), ctx=context())
    assert [module.training for module in model.modules()] == [True, True, False]


def test_einsum_of_bfloat16_is_products(tmp_path: Path):
    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bij,bkj->bik", x, y)

    x, y = (torch.arange(24).reshape(2, 3, 4) % each for each in (5, 7))
    gimlet.compile(Sum(), (x.bfloat16(), y.bfloat16()), output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        found = np.asarray(program(x.bfloat16(), y.bfloat16()), np.float32)
    np.testing.assert_array_equal(found, Sum()(x, y))


class OwnMask(torch.nn.Module):
    """Makes its mask up, but not while it is traced, as some models of transformers do."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is None and not torch.compiler.is_compiling():
            mask = torch.ones_like(x)
        return x * mask[:, :]  # type: ignore[index]


def test_what_a_model_makes_up_only_when_it_is_not_traced_is_to_be_given():
    with pytest.raises(InputError, match=r"'NoneType' object is not subscriptable") as error:
        load(OwnMask(), args=(X,), ctx=context())
    assert "give the arguments that the module makes up" in str(error.value)
    assert "test_frontend_torch.py:" in str(error.value)
    load(OwnMask(), args=(X, X), ctx=context())
