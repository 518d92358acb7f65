"""Operators that are written out compute what PyTorch's own do, at the corners too."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim, export
from torch.nn import functional
from torch.utils import _pytree

import gimlet
from gimlet.compiler.frontends.written_out import missing_written_out
from gimlet.runtime.errors import InputError

NAN, INF = math.nan, math.inf
CORNERS = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.5, -2.5, INF, -INF, NAN, 1e30, -1e-30, 0.5, -0.5, -3.0])
HOLES = torch.tensor([[1.0, NAN, 0.0, 2.0], [3.0, 1.0, 1.0, 3.0], [NAN, NAN, NAN, NAN], [-INF, 5.0, 5.0, -2.0]])
TIES = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
PLACES = torch.tensor([[0, 0, 3], [1, 1, 1], [2, 0, 2]])


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def written(module: nn.Module, args: tuple[torch.Tensor, ...], shapes: Any = None) -> nn.Module:
    """The module with none of the operators of the table in it."""
    program = export(module.eval(), args, dynamic_shapes=shapes, strict=False)
    made = missing_written_out(program)
    assert made is not program
    assert [spec.arg.name for spec in made.graph_signature.output_specs] == [
        spec.arg.name for spec in program.graph_signature.output_specs
    ]
    return made.module()


def hold_to(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    found, expected = written(module, args)(*args), module(*args)
    for leaf, wanted in zip(_pytree.tree_leaves(found), _pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(leaf, wanted, rtol=2e-5, atol=2e-6, equal_nan=True)


UNARY = {
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "erfinv": torch.erfinv,
    "median": torch.median,
}
PAIRS = {"fmax": torch.fmax, "fmin": torch.fmin, "hypot": torch.hypot}


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_value(name: str) -> None:
    hold_to(Function(UNARY[name]), (CORNERS,))
    hold_to(Function(UNARY[name]), (torch.linspace(-0.999, 0.999, 101),))


@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two_values(name: str) -> None:
    hold_to(Function(PAIRS[name]), (CORNERS.unsqueeze(1), CORNERS))


def test_a_sign_is_that_of_a_zero_too() -> None:
    signs = CORNERS[~CORNERS.isnan()]
    hold_to(Function(torch.copysign), (CORNERS.unsqueeze(1), signs))


@pytest.mark.parametrize("low", [1.0, 10.0, 300.0])
def test_gamma_far_out(low: float) -> None:
    values = torch.linspace(low, low * 9, 50)
    hold_to(Function(torch.lgamma), (values,))
    hold_to(Function(torch.digamma), (values,))


ORDERS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "cummax of ties": (lambda x: torch.cummax(x, 1), (TIES,)),
    "cummin of ties": (lambda x: torch.cummin(x, -1), (TIES,)),
    "cummax with NaN": (lambda x: torch.cummax(x, 1).values, (HOLES,)),
    "cummin of integers": (lambda x: torch.cummin(x, 0), (PLACES,)),
    "cumprod": (lambda x: torch.cumprod(x, 1), (TIES,)),
    "cumprod of integers": (lambda x: torch.cumprod(x, 1), (PLACES,)),
    "vander": (lambda x: torch.vander(x, 4), (TIES[0],)),
    "linalg.vander": (lambda x: torch.linalg.vander(x), (-TIES,)),
    "cumprod of one": (lambda x: torch.cumprod(x, 1), (TIES[:, :1],)),
    "median with NaN": (lambda x: torch.median(x, 1).values, (HOLES,)),
    "nanmedian": (lambda x: torch.nanmedian(x, 1).values, (HOLES,)),
    "kthvalue, kept": (lambda x: torch.kthvalue(x, 2, 1, keepdim=True).values, (TIES,)),
    "searchsorted": (lambda s, x: torch.searchsorted(s, x), (torch.tensor([1.0, 2.0, 2.0, 3.0]), TIES)),
    "searchsorted, right": (
        lambda s, x: torch.searchsorted(s, x, side="right", out_int32=True),
        (torch.tensor([1.0, 2.0, 2.0, 3.0]), TIES),
    ),
    "isin": (lambda x, y: torch.isin(x, y, invert=True), (PLACES, torch.tensor([1, 3]))),
    "amax": (torch.amax, (TIES,)),
    "put": (lambda x, s: torch.put(x, PLACES[:2], s[:2], accumulate=True), (TIES, TIES[:, :3])),
    "index_reduce": (
        lambda x, s: torch.index_reduce(x, 1, torch.tensor([0, 2, 0]), s, "mean", include_self=False),
        (TIES, TIES[:, :3]),
    ),
    "scatter_reduce": (lambda x, s: torch.scatter_reduce(x, 1, PLACES, s, "mean"), (TIES, TIES[:, :3])),
    "scatter_reduce without what is there": (
        lambda x, s: torch.scatter_reduce(x, 1, PLACES, s, "mean", include_self=False),
        (TIES, TIES[:, :3]),
    ),
    "diagonal_scatter": (lambda x, s: torch.diagonal_scatter(x, s, -1, 1, 0), (TIES, torch.ones(3))),
    "stacks": (lambda x, y: (torch.hstack([x, y]), torch.vstack([x, y]), torch.dstack([x, y])), (TIES[0], TIES[1])),
}


@pytest.mark.filterwarnings("ignore:index_reduce\\(\\) is in beta")
@pytest.mark.parametrize("name", ORDERS)
def test_order_and_places(name: str) -> None:
    function, args = ORDERS[name]
    hold_to(Function(function), args)


BAGS = {
    "padding": nn.EmbeddingBag(9, 3, padding_idx=2, mode="mean"),
    "sum": nn.EmbeddingBag(9, 3, mode="sum"),
    "max": nn.EmbeddingBag(9, 3, padding_idx=-7, mode="max"),
}


@pytest.mark.parametrize("name", BAGS)
def test_bags_that_are_empty_or_hold_padding_alone(name: str) -> None:
    ids, begins = torch.tensor([2, 2, 1, 5, 2, 8]), torch.tensor([0, 2, 2, 5])
    hold_to(BAGS[name], (ids, begins))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_classes_and_of_probabilities(reduction: str, smoothing: float) -> None:
    scores, weight = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(0.5, 2, 4)
    loss = nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    hold_to(loss, (scores, torch.softmax(scores * 2, 1)))
    if smoothing:
        loss.ignore_index = 1
        hold_to(loss, (scores, torch.tensor([[0, 1, 3], [1, 1, 2]])))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_a_pool_with_a_divisor_at_edges_that_do_not_fill_a_window(ceil_mode: bool) -> None:
    pool = nn.AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=ceil_mode, divisor_override=7)
    hold_to(pool, (torch.randn(1, 2, 8, 9),))


@pytest.mark.parametrize("size", [4, 5, 6, 7, 11])
def test_adaptive_pools_follow_a_size_that_varies(size: int) -> None:
    """The program is traced at six, of which three windows are alike."""
    module, shapes = nn.AdaptiveAvgPool2d((3, 2)), ({2: Dim("m", min=3, max=20)},)
    values = torch.randn(1, 2, size, 5)
    found = written(module, (torch.randn(1, 2, 6, 5),), shapes)(values)
    torch.testing.assert_close(found, module(values))


def test_equal_values_of_an_adaptive_pool_are_told_apart_as_in_pytorch() -> None:
    values = torch.randint(0, 2, (2, 3, 5, 6, 7), generator=torch.Generator().manual_seed(0)).float()
    hold_to(nn.AdaptiveMaxPool3d((2, 3, 4), return_indices=True), (values,))


def test_attention_of_five_dimensions_broadcasts_its_mask() -> None:
    heads = torch.randn(2, 3, 2, 4, 8)
    mask = torch.randn(3, 1, 4, 4)
    hold_to(Function(functional.scaled_dot_product_attention), (heads, heads, heads, mask))


def test_the_norm_of_weights_in_half_precision_is_added_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.utils.parametrizations.weight_norm(nn.Conv1d(64, 64, 8, groups=2), dim=2).half().eval()
    values = torch.randn(1, 64, 40).half()
    with torch.no_grad():
        expected = copy.deepcopy(module).float()(values.float()).numpy()
    bundle = gimlet.compile(module, (values,), output=tmp_path / "m.gimlet")
    with gimlet.load(bundle.path) as program:
        found = np.asarray(program(values), np.float32)
    assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


def test_what_is_inside_of_a_branch() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: torch.lgamma(x.abs()), lambda x: x * 2, (x,))

    hold_to(Branch(), (TIES,))


def test_a_program_without_them_stays_as_it_is() -> None:
    program = export(nn.Linear(3, 4).eval(), (torch.ones(2, 3),), strict=False)
    assert missing_written_out(program) is program


def test_the_place_of_what_is_written_out_is_its_operators() -> None:
    program = missing_written_out(export(nn.Sequential(nn.RReLU()).eval(), (TIES,), strict=False))
    (node,) = (node for node in program.graph.nodes if node.op == "call_function")
    assert node.name == "rrelu"
    assert [path for path, _ in node.meta["nn_module_stack"].values()][-1] == "0"


NARROW = torch.tensor([[3, 0, 200, 7], [100, 5, 2, 1]])
NARROW_CASES: dict[str, Callable[..., Any]] = {
    "tril": torch.tril,
    "triu": lambda x: torch.triu(x, 1),
    "pow": lambda x: x**2,
    "pow of a tensor": lambda x: x ** (x % 3),
    "matmul": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("ij,kj->ik", x, x),
    "shift": lambda x: x >> 1,
}
SHORT_CASES: dict[str, Callable[..., Any]] = {
    "where": lambda x: torch.where(x > 3, x, -x),
    "where, a number": lambda x: torch.where(x > 3, x, 1),
    "masked_fill": lambda x: x.masked_fill(x > 3, 2),
    "clamp": lambda x: x.clamp(1, 5),
    "max": lambda x: (x.max(), x.max(1)),
    "min": lambda x: (x.min(), x.min(0)),
    "maximum": lambda x: torch.maximum(x, 2 - x),
    "argmax": lambda x: x.argmax(1),
    "pad": lambda x: functional.pad(x, (1, 2), value=3),
}


BYTES_CASES: dict[str, Callable[..., Any]] = {
    **NARROW_CASES,
    "truth": lambda x: (x.any(), x.all(), x.any(1), x.all(1) + 254, x.any((0, 1))),
    "pow of another type": lambda x: torch.pow(x, (x % 3).to(torch.int8)),
}
FLAG_CASES: dict[str, Callable[..., Any]] = {
    "added": lambda x, y: (x + y, x * y, x * 2.5, y + 1),
    "chosen": lambda x, y: torch.where(x, y, ~x),
    "filled": lambda x, y: (x.masked_fill(y, True), x.masked_fill(y, False)),
    "sorted": lambda x, y: (x.sort(1).values, y.sort(0, descending=True).values),
}


def test_narrow_numbers_wrap_around_as_they_do() -> None:
    run_to(NARROW_CASES, NARROW.to(torch.int8))
    run_to(BYTES_CASES, NARROW.to(torch.uint8))


def test_short_numbers_are_computed_in_int32() -> None:
    run_to({**NARROW_CASES, **SHORT_CASES}, NARROW.to(torch.int16))


def test_flags_are_added_chosen_and_sorted() -> None:
    run_to(FLAG_CASES, NARROW > 3, NARROW % 2 == 0)


def run_to(functions: Mapping[str, Callable[..., Any]], *args: torch.Tensor) -> None:
    """Held to PyTorch by the program that is compiled: these are what ONNX Runtime would not take.

    One program of all the functions, for each that is traced takes most of a second.
    """

    def together(*args: torch.Tensor) -> tuple[Any, ...]:
        return tuple(function(*args) for function in functions.values())

    for name, found, expected in zip(functions, compiled(Function(together), args), together(*args), strict=True):
        for leaf, wanted in zip(_pytree.tree_leaves(found), _pytree.tree_leaves(expected), strict=True):
            np.testing.assert_array_equal(np.asarray(leaf), wanted.numpy(), err_msg=name, strict=True)


def compiled(module: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        bundle = gimlet.compile(module.eval(), args, output=Path(folder) / "m.gimlet")
        with gimlet.load(bundle.path) as program:
            return program(*args)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_returned_has_the_type_that_it_was_traced_with(dtype: torch.dtype) -> None:
    values = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=dtype)
    absolute, total, same = compiled(Function(lambda x: (x.abs(), x.sum(1), x - 1)), (values,))
    assert {str(array.dtype) for array in (absolute, total, same)} == {str(dtype).removeprefix("torch.")}
    assert total.astype(np.float32).tolist() == [-1.0, 4.5]


def test_chances_of_one_and_zero_are_certain() -> None:
    chances = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    first, always = compiled(Function(lambda x: (torch.bernoulli(x), torch.bernoulli(x, 1.0))), (chances,))
    assert first.tolist() == [1, 0, 1, 1, 0]
    assert always.tolist() == [1, 1, 1, 1, 1]


def test_special_functions_have_the_names_of_others() -> None:
    values = torch.linspace(0.05, 0.95, 19)
    for function in (torch.special.gammaln, torch.special.digamma, torch.special.psi, torch.special.erfinv):
        hold_to(Function(function), (values,))
    hold_to(Function(torch.special.ndtri), (values,))
    hold_to(Function(lambda x: torch.special.multigammaln(x + 3, 2)), (values,))


@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_likelihoods_that_are_not_reduced(weight: torch.Tensor | None) -> None:
    scores = torch.tensor([[0.1, -2.0, -0.5], [-1.0, -0.2, -3.0]])
    targets = torch.tensor([2, -100])
    module = Function(lambda x, at: functional.nll_loss(x, at, weight, reduction="none"))
    hold_to(module, (scores, targets))
    assert compiled(module, (scores, targets)).shape == (2,)


SMALL = torch.tensor([[0.0, 1, 2], [3, 0.5, 4], [5, 6, 0]])


@pytest.mark.parametrize(
    "function",
    [
        torch.linalg.inv,
        torch.inverse,
        lambda a: torch.linalg.inv_ex(a)[0],
        lambda a: torch.linalg.solve(a, a[:, 0]),
        lambda a: torch.linalg.solve(a.expand(2, 3, 3), a[:2]),
        lambda a: torch.linalg.solve(a, a.mT, left=False),
        lambda a: torch.linalg.cholesky(a @ a.mT),
        lambda a: torch.linalg.cholesky(a @ a.mT, upper=True),
        lambda a: torch.linalg.solve_triangular(a.triu() + torch.eye(3), a, upper=True),
        lambda a: torch.linalg.solve_triangular(a.tril() + torch.eye(3), a, upper=False, left=False),
        lambda a: torch.linalg.solve_triangular(a.tril(), a, upper=False, unitriangular=True),
        torch.linalg.slogdet,
    ],
)
def test_small_matrices_are_eliminated(function: Callable[..., Any]) -> None:
    """The first pivot is zero: rows must change places."""
    hold_to(Function(function), (SMALL,))


def test_large_matrices_are_not() -> None:
    program = export(Function(torch.linalg.inv), (torch.eye(17),), strict=False)
    assert missing_written_out(program) is program


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32], ids=str)
def test_extremes_and_what_is_not_zero(dtype: torch.dtype) -> None:
    values = torch.tensor([[3, 0, 7], [1, 0, 2]], dtype=dtype)
    hold_to(Function(lambda x: (torch.aminmax(x), torch.aminmax(x, dim=1), x.amax(), x.amin(0))), (values,))


def test_an_order_by_chance_has_each_place_once() -> None:
    made = written(Function(lambda x: torch.randperm(x.shape[0])), (torch.zeros(9),))
    assert sorted(made(torch.zeros(9)).tolist()) == list(range(9))


def test_a_diagonal_that_is_filled_in_place() -> None:
    def fill(values: torch.Tensor) -> torch.Tensor:
        made = values * 1
        made.fill_diagonal_(7)
        return made

    hold_to(Function(fill), (torch.arange(12.0).reshape(3, 4),))


def test_windows_are_pytorch_s() -> None:
    def windows(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * torch.hamming_window(8), x * torch.hamming_window(8, False, 0.6), x * torch.hamming_window(8, True)

    hold_to(Function(windows), (torch.ones(8),))


def test_what_no_kernel_takes_says_its_type_and_its_line() -> None:
    values = torch.zeros(3, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder, pytest.raises(InputError) as refused:
        gimlet.compile(Function(torch.erf), (values,), output=Path(folder) / "m.gimlet")
    assert "implementation for Erf(13) of float64" in str(refused.value)
    assert "test_written_out.py:" in str(refused.value.where)
    assert "module.float()" in str(refused.value.hint)


def test_different_values_of_few_bits() -> None:
    values = torch.tensor([3, 1, 3, 2, 9])
    types = {str(dtype): dtype for dtype in (torch.int16, torch.int32, torch.uint8)}
    run_to(
        {name: lambda x, to=dtype: torch.unique(x.to(to), return_inverse=True) for name, dtype in types.items()}, values
    )
