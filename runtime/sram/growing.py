"""States that grow: laid out for their capacity, of which a run finds the beginning and stores what comes behind it.

So no run moves what was there: the distance from one position to the next is that of the capacity in every dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

from gimlet.runtime.expr import ONE, Expr
from gimlet.runtime.sram.faults import MachineError
from gimlet.runtime.sram.program import Access, Tensor


def check_growth(tensor: Tensor, dims: frozenset[str]) -> None:
    """Raises MachineError for a growth of what is no state, along no dimension, or of a capacity that varies."""
    growth = tensor.growth
    if growth is None:
        return
    if tensor.role != "state":
        raise MachineError(f"tensor {tensor.name} grows, and is no state but {tensor.role}")
    if not 0 <= growth.dim < len(tensor.shape):
        raise MachineError(f"state {tensor.name} grows along dimension {growth.dim} of {len(tensor.shape)}")
    if not tensor.shape[growth.dim].is_constant:
        raise MachineError(f"state {tensor.name} grows, and its capacity {tensor.shape[growth.dim]} is not fixed")
    for size in (growth.before, growth.after):
        if not size.symbols <= dims:
            raise MachineError(f"state {tensor.name} has {size} positions, which the program does not declare")


def leaves_past(access: Access, tensor: Tensor) -> bool:
    """Whether a store to a state that grows is known to be behind what is there, for all sizes."""
    growth, dim = tensor.growth, _dim_of(access, tensor)
    if growth is None or dim is None:
        return False
    beyond = access.start[dim] - growth.before
    forward = all(factor >= 0 and all(isinstance(atom, str) for atom, _ in each) for each, factor in beyond.terms)
    return forward and all(axis.step >= 0 for group in access.axes for axis in group if axis.dim == dim)


def _dim_of(access: Access, tensor: Tensor) -> int | None:
    """The dimension of an access that is the one along which a state grows; None where it is seen in another way."""
    growth = tensor.growth
    if growth is None:
        return None
    behind = _product(tensor.shape[growth.dim + 1 :])
    for dim, size in enumerate(access.shape):
        if size == tensor.shape[growth.dim] and _product(access.shape[dim + 1 :]) == behind:
            return dim
    return None


def _product(sizes: Sequence[Expr]) -> Expr:
    found = ONE
    for size in sizes:
        found = found * size
    return found
