"""Which operators the machine's code generator has a rule for."""

from __future__ import annotations

from collections.abc import Mapping

from gimlet.targets.sram import (
    rules_attention,
    rules_dequantized,
    rules_elementwise,
    rules_experts,
    rules_gather,
    rules_integer,
    rules_integer_conv,
    rules_matrix,
    rules_order,
    rules_quantize,
    rules_reduce,
    rules_scatter,
    rules_shape,
)
from gimlet.targets.sram.lowering import Rule

RULES: Mapping[str, Rule] = {
    **rules_elementwise.RULES,
    **rules_shape.RULES,
    **rules_gather.RULES,
    **rules_matrix.RULES,
    **rules_integer.RULES,
    **rules_integer_conv.RULES,
    **rules_dequantized.RULES,
    **rules_reduce.RULES,
    **rules_attention.RULES,
    **rules_experts.RULES,
    **rules_order.RULES,
    **rules_quantize.RULES,
    **rules_scatter.RULES,
}

LARGE = frozenset({"Attention", "Gelu", "MoE", "RotaryEmbedding", "Swish"})
"""Operators whose rule gives a quicker program than their parts; that of a normalisation does not."""
