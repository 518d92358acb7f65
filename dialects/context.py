"""The context that gimlet's passes run in: xDSL's, with the weight store and the services that a driver provides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xdsl.context import Context

if TYPE_CHECKING:
    from gimlet.dialects.onnx.weights import WeightStore


@dataclass
class GimletContext(Context):
    """An xDSL context that also carries the module's weights and the driver's services.

    `services` holds what passes need but may not import (the placement solver, the cost model), by name: a pass that
    finds its service missing fails with a message that says which tool provides it.
    """

    weights: WeightStore = field(default=None)  # pyright: ignore[reportAssignmentType]
    services: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.weights is None:  # pyright: ignore[reportUnnecessaryComparison]
            from gimlet.dialects.onnx.weights import WeightStore

            self.weights = WeightStore()

    def clone(self) -> GimletContext:
        base = super().clone()
        return GimletContext(
            *(getattr(base, name) for name in Context.__dataclass_fields__),
            weights=self.weights,
            services=self.services,
        )
