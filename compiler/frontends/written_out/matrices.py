"""Systems of linear equations and factors of matrices of a small, known size: eliminated row by row.

ONNX has a determinant, and nothing that solves. A size is at most `LARGEST`: about ten operators a row. What PyTorch
refuses as it runs, a singular matrix or one that is not positive definite, gives infinities or NaN here.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from gimlet.compiler.frontends.written_out.inline import Written

_aten: Final = torch.ops.aten
LARGEST: Final = 16


def _eliminated(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution X [*, n, k] of matrix · X = right, by Gauss and Jordan, with the largest pivot of each column."""
    count = matrix.shape[-1]
    batch = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-2])
    both = torch.cat([matrix.expand(*batch, -1, -1), right.expand(*batch, -1, -1)], -1)
    rows = torch.arange(count).unsqueeze(-1)
    for place in range(count):
        column = both.narrow(-1, place, 1)
        sizes = torch.where(rows < place, -1.0, column.abs())
        pivot = sizes.argmax(-2, keepdim=True)
        chosen = (rows == pivot).to(both.dtype)
        row = (both * chosen).sum(-2, keepdim=True)
        swapped = torch.where(rows == pivot, both.narrow(-2, place, 1), both)
        row = row / row.narrow(-1, place, 1)
        rest = swapped - swapped.narrow(-1, place, 1) * row
        both = torch.where(rows == place, row, rest)
    return both.narrow(-1, count, right.shape[-1])


def _inverse(matrix: Tensor) -> Tensor:
    return _eliminated(matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype))


def _inverse_and_info(matrix: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    del check_errors
    return _inverse(matrix), torch.zeros(matrix.shape[:-2], dtype=torch.int32)


def _solution(matrix: Tensor, right: Tensor, *, left: bool = True) -> Tensor:
    is_vector = right.ndim == 1 or (right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1])
    wide = right.unsqueeze(-1) if is_vector else right
    found = _eliminated(matrix, wide) if left else _eliminated(matrix.mT, wide.mT).mT
    return found.squeeze(-1) if is_vector else found


def _cholesky(matrix: Tensor, *, upper: bool = False) -> Tensor:
    """Column by column, of the lower half."""
    count = matrix.shape[-1]
    matrix = matrix.mT if upper else matrix
    rows = torch.arange(count).unsqueeze(-1)
    columns: list[Tensor] = []
    for place in range(count):
        column = matrix.narrow(-1, place, 1)
        if columns:
            done = torch.cat(columns, -1)
            column = column - done @ done.narrow(-2, place, 1).mT
        column = column / torch.sqrt(column.narrow(-2, place, 1))
        columns.append(torch.where(rows < place, 0.0, column))
    found = torch.cat(columns, -1)
    return found.mT if upper else found


def _of_triangle(
    matrix: Tensor, right: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """One row of the solution after the other, from the end of the triangle that has one value."""
    if not left:
        return _of_triangle(matrix.mT, right.mT, upper=not upper, unitriangular=unitriangular).mT
    count = matrix.shape[-1]
    found: dict[int, Tensor] = {}
    for place in reversed(range(count)) if upper else range(count):
        row, rest = matrix.narrow(-2, place, 1), right.narrow(-2, place, 1)
        for other, value in found.items():
            rest = rest - row.narrow(-1, other, 1) * value
        found[place] = rest if unitriangular else rest / row.narrow(-1, place, 1)
    return torch.cat([found[place] for place in range(count)], -2)


def _sign_and_logarithm(matrix: Tensor) -> tuple[Tensor, Tensor]:
    size = torch.linalg.det(matrix)
    return torch.sign(size), torch.log(size.abs())


def _is_small(matrix: Tensor, *_args: Any, **_kwargs: Any) -> bool:
    size: Any = matrix.shape[-1]
    return type(size) is int and 0 < size <= LARGEST and matrix.is_floating_point()


MATRICES: Final[dict[Any, Written]] = {
    _aten.linalg_inv.default: Written(_inverse, _is_small),
    _aten.inverse.default: Written(_inverse, _is_small),
    _aten.linalg_inv_ex.default: Written(_inverse_and_info, _is_small),
    _aten.linalg_solve.default: Written(_solution, _is_small),
    _aten.linalg_cholesky.default: Written(_cholesky, _is_small),
    _aten.linalg_solve_triangular.default: Written(_of_triangle, _is_small),
    _aten.linalg_slogdet.default: Written(_sign_and_logarithm, _is_small),
    _aten.slogdet.default: Written(_sign_and_logarithm, _is_small),
}
