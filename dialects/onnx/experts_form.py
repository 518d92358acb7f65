"""The sizes of a mixture of experts (com.microsoft's MoE and QMoE), as its kernels take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.types import shape_of
from gimlet.runtime.expr import Expr

DOMAIN: Final = "com.microsoft"
OPERATORS: Final = frozenset({"MoE", "QMoE"})
_BITS: Final = (2, 4, 8)
_SCALES: Final = {3: "fc1_scales", 6: "fc2_scales", 9: "fc3_scales"}
_FORMS: Final = {
    "MoE": {
        2: ("fc1_experts_weights", "E", "F", "H"),
        3: ("fc1_experts_bias", "E", "F"),
        4: ("fc2_experts_weights", "E", "H", "I"),
        5: ("fc2_experts_bias", "E", "H"),
        6: ("fc3_experts_weights", "E", "I", "H"),
        7: ("fc3_experts_bias", "E", "I"),
    },
    # How many values stand in a byte, and what a scale is of, is the kernels' to know.
    "QMoE": {
        2: ("fc1_experts_weights", "E", "", ""),
        4: ("fc1_experts_bias", "E", ""),
        5: ("fc2_experts_weights", "E", "", ""),
        7: ("fc2_experts_bias", "E", ""),
        8: ("fc3_experts_weights", "E", "", ""),
        10: ("fc3_experts_bias", "E", ""),
    },
}


def verify_experts(op: OnnxOp) -> None:
    """Checks the sizes that are known: T tokens of H values, E experts of I values inside, F or 2·I with a gate.

    VerifyException names the input, the size that it has, and the one that another input asks for.
    """
    tokens, router = _dims(op, 0), _dims(op, 1)
    sizes: dict[str, tuple[int, str]] = {}
    if tokens is not None:
        if len(tokens) not in (2, 3):
            raise VerifyException(f"{op.name}: input 0 (input) has {len(tokens)} dimensions, not 2 or 3")
        _meet(op, sizes, "input", ("H",), tokens[-1:])
        if all(size is not None for size in tokens):
            count = 1
            for size in tokens[:-1]:
                count *= size or 0
            sizes["T"] = (count, "input")
    if router is not None:
        _check_rank(op, 1, "router_probs", router, 2)
        _meet(op, sizes, "router_probs", ("T", "E"), router)
    for index, (name, *letters) in _FORMS[op.op_type].items():
        dims = _dims(op, index)
        if dims is not None:
            _check_rank(op, index, name, dims, len(letters))
            _meet(op, sizes, name, letters, dims)
    if op.op_type == "QMoE":
        _check_quantised(op)
    _check_inside(op, sizes)
    _check_chosen(op, sizes)


def _check_quantised(op: OnnxOp) -> None:
    """ONNX Runtime ends the process when it packs weights without scales."""
    bits = int(op.attr("expert_weight_bits", 4))
    if bits not in _BITS:
        raise VerifyException(f"{op.name}: expert_weight_bits is {bits}, not {', '.join(map(str, _BITS))}")
    for index, name in _SCALES.items():
        if 0 in (_dims(op, index) or ()):
            raise VerifyException(f"{op.name}: input {index} ({name}) is empty")


def _dims(op: OnnxOp, index: int) -> tuple[int | None, ...] | None:
    """The sizes of an input, None for one that is no number; None for an input without a shape."""
    value: SSAValue | None = op.inputs[index] if index < len(op.inputs) else None
    dims = None if value is None else shape_of(value)
    return None if dims is None else tuple(_number(dim) for dim in dims)


def _number(dim: Expr | None) -> int | None:
    return dim.as_int() if dim is not None and dim.is_constant else None


def _check_rank(op: OnnxOp, index: int, name: str, dims: Sequence[int | None], rank: int) -> None:
    if len(dims) != rank:
        raise VerifyException(f"{op.name}: input {index} ({name}) has {len(dims)} dimensions, not {rank}")


def _meet(
    op: OnnxOp, sizes: dict[str, tuple[int, str]], name: str, letters: Sequence[str], dims: Sequence[int | None]
) -> None:
    """Remembers sizes by their letters, with the input that had them first."""
    for axis, (letter, size) in enumerate(zip(letters, dims, strict=True)):
        if size is None or not letter:
            continue
        wanted, owner = sizes.setdefault(letter, (size, name))
        if size != wanted:
            raise VerifyException(
                f"{op.name}: dimension {axis} of {name} is {size}, and {owner} has {wanted} there ({letter} of [T, H] "
                "tokens, a [T, E] router, and weights [E, F, H], [E, H, I] and [E, I, H])"
            )


def _check_inside(op: OnnxOp, sizes: dict[str, tuple[int, str]]) -> None:
    """What the first product gives is what the second takes, or twice as much where it holds gates, too."""
    if not {"F", "I"} <= sizes.keys():
        return
    (first, _), (inside, _) = sizes["F"], sizes["I"]
    gated = str(op.attr("activation_type", "relu")) in ("swiglu", "geglu") and (len(op.inputs) < 7 or not op.inputs[6])
    if first != (2 * inside if gated else inside):
        raise VerifyException(
            f"{op.name}: fc1_experts_weights give {first} values, and fc2_experts_weights take {inside}"
            f"{': with a gate among them, they are twice as many' if gated else ''}"
        )


def _check_chosen(op: OnnxOp, sizes: dict[str, tuple[int, str]]) -> None:
    chosen, experts = int(op.attr("k", 1)), sizes.get("E", (None, ""))[0]
    if chosen < 1 or (experts is not None and chosen > experts):
        raise VerifyException(
            f"{op.name}: a token is sent to {chosen} experts, of {'E' if experts is None else experts}"
        )
