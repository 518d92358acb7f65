"""Which operators ONNX Runtime's CPU provider has kernels for, from the list that the library itself gives.

A kernel is registered for an operator's domain, name, range of versions and, per type variable of the schema, a set
of element types. That the list lacks an entry does not mean that a session refuses the node: ONNX Runtime inlines
operators that are functions of others and wraps float16 nodes in casts. `probe` builds a session to find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from gimlet.dialects.onnx.schema import OpSchema

PROVIDER = "CPUExecutionProvider"
EXPERTS = frozenset({"MoE"})
LARGE = frozenset({"Attention", "RMSNormalization", "RotaryEmbedding"})
"""Operators whose kernel is quicker than those of their parts (`benchmarks/fusions.py`). Gelu, Swish and
LayerNormalization are as quick in parts: the optimiser recognises them, and merges them with their neighbours."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One registered kernel: the versions it holds for, and the types of each type variable or named parameter."""

    first: int
    last: int
    types: Mapping[str, frozenset[str]]


@cache
def kernels() -> dict[tuple[str, str], tuple[Kernel, ...]]:
    """Every CPU kernel by (domain, operator); about 1,500 of them in 7 ms."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    found: dict[tuple[str, str], list[Kernel]] = {}
    for item in get_all_opkernel_def():
        if item.provider == PROVIDER:
            first, last = item.version_range
            types = {name: frozenset(allowed) for name, allowed in item.type_constraints.items()}
            found.setdefault((item.domain, item.op_name), []).append(Kernel(first, last, types))
    return {key: tuple(group) for key, group in found.items()}


def value_types(
    schema: OpSchema, inputs: Iterable[str | None], outputs: Iterable[str | None]
) -> dict[str, frozenset[str]]:
    """The types that a node's values have, under the names of type variables and of parameters.

    `inputs` and `outputs` are ONNX type strings in the order of the schema, None where absent or unknown.
    """
    found: dict[str, set[str]] = {}
    for parameters, types in ((schema.inputs, inputs), (schema.outputs, outputs)):
        for index, type_ in enumerate(types):
            if type_ is not None and parameters:
                parameter = schema.parameter(parameters, index)
                found.setdefault(parameter.type_var or parameter.name, set()).add(type_)
                found.setdefault(parameter.name, set()).add(type_)
    return {name: frozenset(types) for name, types in found.items()}


def has_kernel(domain: str, op_type: str, since_version: int, types: Mapping[str, frozenset[str]]) -> bool:
    """Whether a kernel is registered for an operator's version that takes all of `types` (from `value_types`)."""
    return any(
        kernel.first <= since_version <= kernel.last
        and all(types.get(name, frozenset()) <= allowed for name, allowed in kernel.types.items())
        for kernel in kernels().get((domain, op_type), ())
    )
