"""Keeps tables of PyTorch's ONNX exporter from one test to the next: it builds them for each model, in a CPU second.

The exporter reads the signatures of all its conversion functions at each export anew, and `run_decompositions` looks
every operator of PyTorch up, twice for each namespace.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools

import torch
from torch._export import utils
from torch.onnx._internal.exporter._constants import TORCHLIB_OPSET
from torch.onnx._internal.exporter._registration import ONNXRegistry

_from_torchlib = ONNXRegistry.from_torchlib
_materialize = utils._materialize_cpp_cia_ops
_materialized: list[str] = []


@functools.cache
def keep_tables() -> None:
    """From now on the tables are built once in the process, and again where operators were added."""
    ONNXRegistry.from_torchlib = staticmethod(registry)  # pyright: ignore[reportAttributeAccessIssue]
    utils._materialize_cpp_cia_ops = materialize


def registry(opset_version: int = TORCHLIB_OPSET) -> ONNXRegistry:
    """A registry of its own, as translations are added to it, with the conversion functions of PyTorch."""
    found = ONNXRegistry()
    found._opset_version = opset_version
    found.functions = {target: list(each) for target, each in _torchlib(opset_version).functions.items()}
    return found


def materialize() -> None:
    """Looks operators up: nothing is to be done where the dispatcher has those that it had."""
    found = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    if found == _materialized:
        return
    _materialize()
    _materialized[:] = found


@functools.cache
def _torchlib(opset_version: int) -> ONNXRegistry:
    return _from_torchlib(opset_version)
