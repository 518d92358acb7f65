"""The context that gimlet's passes run in: xDSL's, with the weight store and the services that a driver provides."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xdsl.context import Context
from xdsl.utils.mlir_lexer import MLIRLexer

if TYPE_CHECKING:
    from gimlet.dialects.onnx.weights import WeightStore

# xDSL 0.74's own expression takes time exponential in the length of a string that does not end. This is the same one
# in which what a part of a string is does not change any more. (Python before 3.11.5 matches groups that do not go back
# wrongly, so that only classes of characters do not.)
MLIRLexer._unescaped_characters_regex = re.compile(  # pyright: ignore[reportPrivateUsage]
    r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*"'
)


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
