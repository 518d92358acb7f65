"""What may not be kept with the tables of PyTorch's exporter."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import pytest
import torch
from tests import exporter_tables
from tests.exporter_tables import materialize, registry

SIN = torch.ops.aten.sin.default


def test_a_translation_is_not_kept():
    with_one_more = registry(18)
    known = len(with_one_more.get_decomps(SIN))
    with_one_more.register_op(SIN, lambda x: x)
    assert len(with_one_more.get_decomps(SIN)) == known + 1
    assert len(registry(18).get_decomps(SIN)) == known


def test_an_opset_has_a_table_of_its_own():
    assert [registry(opset).opset_version for opset in (18, 24)] == [18, 24]


def test_operators_that_are_added_later_are_looked_up(monkeypatch: pytest.MonkeyPatch):
    looked_up: list[None] = []
    monkeypatch.setattr(exporter_tables, "_materialize", lambda: looked_up.append(None))
    monkeypatch.setattr(exporter_tables, "_materialized", [])
    materialize()
    materialize()
    assert len(looked_up) == 1
    with torch.library._scoped_library("gimlet_test_tables", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeImplicitAutograd")
        materialize()
    assert len(looked_up) == 2
