"""What a PyTorch module takes and returns is what its program takes and returns."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gimlet
from gimlet.runtime.errors import InputError

Pair = namedtuple("Pair", "first second")


@dataclass
class Result:
    logits: torch.Tensor
    extra: torch.Tensor | None = None


torch.export.register_dataclass(Result)


class Nested(torch.nn.Module):
    """Containers of every kind on both sides, and outputs that are one another or an input."""

    def forward(
        self,
        x: torch.Tensor,
        pair: dict[str, list[torch.Tensor]],
        *rest: torch.Tensor,
        scaled: bool = True,
        options: None = None,
        mask: torch.Tensor,
    ) -> Any:
        a, b = pair["parts"]
        total = x + a * b + rest[0]
        masked = total * mask if scaled else total
        return {"total": total, "list": [x, None, 3, (masked,)]}, Pair(x, total), Result(logits=masked - 1)


def arrays(seed: int, count: int = 5, size: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(np.float32) for _ in range(count)]


def nested(wrap: Callable[[np.ndarray], Any], seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, a, b, rest, mask = map(wrap, arrays(seed))
    return (x, {"parts": [a, b]}, rest), {"scaled": True, "options": None, "mask": mask}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> gimlet.Program:
    args, kwargs = nested(torch.from_numpy, 0)
    path = tmp_path_factory.mktemp("calls") / "m.gimlet"
    gimlet.compile(Nested(), args, kwargs=kwargs, output=path)
    return gimlet.load(path)


class OnlyDlpack:
    """A tensor of a library that numpy does not know."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy, OnlyDlpack])
def test_nested_containers(program: gimlet.Program, wrap: Callable[[np.ndarray], Any]):
    args, kwargs = nested(wrap, 1)
    table, pair, result = program(*args, **kwargs)
    expected = Nested()(*nested(torch.from_numpy, 1)[0], **nested(torch.from_numpy, 1)[1])
    assert list(table) == ["total", "list"]
    assert table["list"][1:3] == [None, 3]
    assert isinstance(table["list"][3], tuple)
    assert list(result) == ["logits", "extra"]
    assert result["extra"] is None
    np.testing.assert_allclose(table["total"], expected[0]["total"].numpy(), rtol=1e-6)
    np.testing.assert_allclose(table["list"][0], expected[1].first.numpy())
    np.testing.assert_allclose(table["list"][3][0], expected[0]["list"][3][0].numpy(), rtol=1e-6)
    np.testing.assert_allclose(pair[1], expected[1].second.numpy(), rtol=1e-6)
    np.testing.assert_allclose(result["logits"], expected[2].logits.numpy(), rtol=1e-6)


def test_the_same_by_name_and_on_another_thread(program: gimlet.Program):
    args, kwargs = nested(np.asarray, 2)
    flat = dict(zip([spec.name for spec in program.inputs], arrays(2), strict=True))
    found = program(**flat)
    assert [spec.name for spec in program.outputs] == list(found)
    table, _, result = program.submit(*args, **kwargs).result()
    np.testing.assert_array_equal(found["total"], table["total"])
    np.testing.assert_array_equal(program.run(flat)["logits"], result["logits"])
    np.testing.assert_array_equal(program.submit_run(flat).result()["logits"], result["logits"])


def test_constants_may_be_left_out_and_arguments_be_named(program: gimlet.Program):
    (x, pair, rest), kwargs = nested(np.asarray, 3)
    table, *_ = program(x, pair, rest, mask=kwargs["mask"])
    again, *_ = program(x, pair=pair, rest_0=rest, mask=kwargs["mask"])
    np.testing.assert_array_equal(table["total"], again["total"])


ONES = np.ones(4, np.float32)
PARTS = {"parts": [ONES, ONES]}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((ONES, PARTS, ONES, ONES), {"mask": ONES}, "4 positional arguments, and the module was traced with 3"),
        ((ONES, PARTS), {"mask": ONES}, r"argument 'rest_0': is missing"),
        ((ONES, PARTS, ONES), {}, "argument 'mask': is missing"),
        ((ONES, PARTS, ONES), {"mask": None}, "argument 'mask': is None, and the module was traced with a tensor"),
        ((ONES, PARTS, ONES), {"mask": ONES, "scaled": False}, "'scaled': is False, and .* traced with True"),
        ((ONES, PARTS, ONES), {"mask": ONES, "options": ONES}, "'options': is a ndarray, and .* traced with None"),
        ((ONES, PARTS, ONES), {"mask": ONES, "other": 1}, "'other': the module was not traced with it"),
        ((ONES, {"parts": [ONES]}, ONES), {"mask": ONES}, r"pair\.parts': has 1 items, .* traced with 2"),
        ((ONES, {"parts": ONES}, ONES), {"mask": ONES}, r"pair\.parts': is a ndarray, not a list"),
        ((ONES, {}, ONES), {"mask": ONES}, r"pair\.parts': is missing"),
        ((ONES, {**PARTS, "q": ONES}, ONES), {"mask": ONES}, "has 'q', and the module was traced with 'parts'"),
        ((ONES, ONES, ONES), {"mask": ONES}, "argument 'pair': is a ndarray, not a dict"),
        ((ONES, PARTS, np.ones(5, np.float32)), {"mask": ONES}, "dimension 0 is 5 instead of 4"),
    ],
)
def test_calls_that_the_module_would_not_take(program: gimlet.Program, args: Any, kwargs: Any, message: str):
    with pytest.raises(InputError, match=message):
        program(*args, **kwargs)


class Keywords(torch.nn.Module):
    def forward(self, record: Result, factor: float = 0.1) -> torch.Tensor:
        return record.logits * factor


def test_a_module_that_was_traced_by_keywords_alone(tmp_path: Path):
    record = Result(torch.ones(4))
    gimlet.compile(Keywords(), kwargs={"record": record, "factor": 1 / 3}, output=tmp_path / "m.gimlet")
    with gimlet.load(tmp_path / "m.gimlet") as program:
        found = program(record=Result(torch.full((4,), 3.0)), factor=1 / 3)
        np.testing.assert_allclose(found, np.ones(4))
        np.testing.assert_array_equal(program(record={"logits": np.full(4, 3, np.float32)}), found)
        (name,) = [spec.name for spec in program.inputs]
        assert list(program.run({name: ONES})) == [spec.name for spec in program.outputs]


def test_a_model_without_a_signature_takes_names_alone(tmp_path: Path):
    from tests.unit.compiler.test_frontends import RELU

    gimlet.compile(RELU, output=tmp_path / "m.gimlet", bind={"n": "1:2:4"})
    array = np.ones((2, 4), np.float32)
    with gimlet.load(tmp_path / "m.gimlet") as program, pytest.raises(InputError, match="positional") as error:
        program(array)
    assert error.value.hint == "give the inputs by name: x"
