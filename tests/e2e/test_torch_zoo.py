"""Modules of torch.nn and functions of torch, each compiled for this machine and held to PyTorch: those of the zoo."""

from __future__ import annotations

import pytest
from torch_zoo import CASES
from torch_zoo.measure import measure
from torch_zoo.reasons import REASONS, reason_of

QUICK = (
    "nn.AdaptiveAvgPool1d(3), any size",
    "nn.AdaptiveMaxPool2d(3, return_indices=True)",
    "nn.AvgPool2d(3, divisor_override=5)",
    "nn.Conv3d(4, 6, 3, padding=1, stride=2, bias=False)",
    "nn.CrossEntropyLoss, weights",
    "nn.EmbeddingBag(padding_idx=0)",
    "nn.RReLU",
    "F.scaled_dot_product_attention, five dimensions",
    "torch.cummax(dim=1)",
    "torch.lgamma",
    "torch.masked_select",
    "torch.index_put of int32",
    "nn.FractionalMaxPool2d",
)


def _cases(*, dynamic: bool) -> list[object]:
    names = [name for name, case in CASES.items() if case.dims or not dynamic]
    return [
        pytest.param(name, marks=[] if name in QUICK and dynamic == bool(CASES[name].dims) else pytest.mark.full)
        for name in names
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _cases(dynamic=False))
def test_a_case_of_one_size_is_as_in_pytorch(name: str) -> None:
    said = measure(CASES[name].static())
    assert bool(said) == bool(reason_of(name, dynamic=False)), said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _cases(dynamic=True))
def test_a_case_with_dynamic_dimensions_is_as_in_pytorch(name: str) -> None:
    said = measure(CASES[name])
    assert bool(said) == bool(reason_of(name, dynamic=True)), said


def test_reasons_are_those_of_cases() -> None:
    assert set(REASONS) <= set(CASES)
