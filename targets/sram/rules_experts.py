"""Rules for mixtures of experts (com.microsoft.MoE): each token goes to the k experts that its router likes best.

Few tokens fetch the experts that they are sent to: an item multiplies one token with a tile of one of its experts,
whose rows the DMA engine gathers, so that no other expert is read. Many tokens multiply with all experts at once, which
is one product with their matrices side by side, and weigh what they were not sent to by zero. The choice is the time
that the array takes, which holds a tile for one row or for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.expr import ONE, ZERO, Expr
from gimlet.runtime.sram.formats import stored_bytes
from gimlet.runtime.sram.machine import Machine
from gimlet.targets.sram.builder import RefusedError
from gimlet.targets.sram.constants import Array, Constant
from gimlet.targets.sram.expression import Argument, Index, is_small
from gimlet.targets.sram.lowering import Lowering, Rule, shape_of
from gimlet.targets.sram.mapping import largest_steps
from gimlet.targets.sram.products import WeightMatrix, multiply, product_of
from gimlet.targets.sram.rules_elementwise import present, result
from gimlet.targets.sram.rules_order import largest
from gimlet.targets.sram.rules_reduce import softmax
from gimlet.targets.sram.rules_shape import reshaped
from gimlet.targets.sram.views import Counter, Shape, View

_ACTIVATIONS = {"gelu": "gelu", "identity": "copy", "relu": "relu", "silu": "silu"}


@dataclass(frozen=True)
class _Layer:
    """A matrix [experts, outputs, inputs] and a bias [experts, outputs] of all experts."""

    weights: Constant
    bias: Constant | None

    def part(self, what: str, change: Callable[[Array], Array], outputs: int) -> _Layer:
        """The layer with some of its outputs, which are the second dimension of both."""
        experts, _, inputs = self.weights.shape
        weights = self.weights.derived(what, (experts, outputs, inputs), change)
        return _Layer(weights, None if self.bias is None else self.bias.derived(what, (experts, outputs), change))


@dataclass(frozen=True)
class _Experts:
    """The layers of a MoE op in the way that both forms compute it: `up` is what the activation gates, if it does."""

    lowering: Lowering
    op: OnnxOp
    dtype: str
    gate: _Layer
    up: _Layer | None
    down: _Layer

    def activated(self, gate: Argument, up: Argument | None, shape: Shape) -> Argument:
        """What stands between the layers, as the operator's documentation has it."""
        node, kind = self.lowering.node, str(self.op.attr("activation_type", "relu"))
        if kind != "swiglu":
            found = node(_ACTIVATIONS[kind], (gate,), shape)
            return found if up is None else node("mul", (found, up), shape)
        if up is None:
            raise RefusedError("experts of swiglu have nothing to gate")
        limit = float(self.op.attr("swiglu_limit", inf) or inf)
        alpha, beta = float(self.op.attr("activation_alpha", 1.0)), float(self.op.attr("activation_beta", 0.0))
        if limit < inf:
            gate = node("min", (gate, limit), shape)
            up = node("max", (node("min", (up, limit), shape), -limit), shape)
        scaled = node("mul", (gate, alpha), shape) if alpha != 1 else gate
        found = node("mul", (gate, node("sigmoid", (scaled,), shape)), shape)
        return node("mul", (found, node("add", (up, beta), shape) if beta else up), shape)

    def dense(self, tokens: View, weights: View) -> Argument:
        """All experts for all `tokens` [tokens, inputs], weighed by `weights` [tokens, experts]."""
        lowering, rows = self.lowering, tokens.shape[0]
        experts, inner, _ = self.gate.weights.shape
        shape = (rows, Expr.const(experts), Expr.const(inner))

        def layer(given: _Layer) -> Argument:
            wide = given.weights.derived("side by side", (experts * inner, given.weights.shape[2]), _joined)
            matrix = WeightMatrix(lowering.weights, wide, self.dtype, transposed=True)
            product = multiply(lowering, self.op, tokens, matrix, ())
            found = lowering.computed(product, (rows, Expr.const(experts * inner)), "f32")
            found = reshaped(lowering, found, shape)
            if given.bias is None:
                return found
            return lowering.node("add", (found, lowering.weights.view(given.bias, "f32")), shape)

        inside = self.activated(layer(self.gate), None if self.up is None else layer(self.up), shape)
        inside = lowering.node("mul", (inside, weights.unsqueeze(2)), shape)
        flat = reshaped(lowering, lowering.computed(inside, shape, "f32"), (rows, Expr.const(experts * inner)))
        outputs = self.down.weights.shape[1]
        below = self.down.weights.derived(
            "one above the other", (outputs, experts * inner), lambda array: _joined(array.transpose(1, 0, 2), 1)
        )
        return multiply(lowering, self.op, flat, WeightMatrix(lowering.weights, below, self.dtype, transposed=True), ())

    def chosen(self, tokens: View, indices: View, weights: View) -> Argument:
        """The experts `indices` [tokens, k] alone, weighed by `weights` [tokens, k]."""
        lowering = self.lowering
        shape = (*indices.shape, Expr.const(self.gate.weights.shape[1]))

        def layer(given: _Layer) -> Argument:
            each = tokens.unsqueeze(1).expand((*indices.shape, tokens.shape[1]))
            found = self._gathered_product(each, given, indices)
            if given.bias is None:
                return found
            return lowering.node("add", (found, self._gathered_bias(given.bias, indices)), shape)

        inside = self.activated(layer(self.gate), None if self.up is None else layer(self.up), shape)
        inside = lowering.node("mul", (inside, weights.unsqueeze(2)), shape)
        return self._gathered_product(lowering.computed(inside, shape, "f32"), self.down, indices, sums=True)

    def _gathered_bias(self, bias: Constant, indices: View) -> View:
        """The biases of the chosen experts, [tokens, k, outputs]."""
        lowering, builder = self.lowering, self.lowering.builder
        outputs = bias.shape[1]
        source = lowering.weights.view(bias, "f32").rigid()
        target = builder.temporary("f32", (*indices.shape, Expr.const(outputs)))
        with builder.kernel("expert_bias") as kernel:
            token, slot = (kernel.range(size, 1) for size in indices.shape)
            n = kernel.range(Expr.const(outputs), min(outputs, 1024))
            begin = (token.start, slot.start)
            at = kernel.load(indices.rigid(), begin, [[Counter(0, ONE), Counter(1, ONE)]], [1], repeated=True)
            tile = [[Counter(0, ONE)], [Counter(1, n.size)]]
            found = kernel.gather(source.access((ZERO, n.start), tile, repeated=True), "f32", [1, n.step], at, 0)
            stored = [[Counter(0, ONE), Counter(1, ONE)], [Counter(2, n.size)]]
            kernel.store(target.rigid(), (*begin, n.start), stored, found)
        return target

    def _gathered_product(self, lhs: View, layer: _Layer, indices: View, sums: bool = False) -> View:
        """`lhs` [tokens, k, inputs] times the matrices of the chosen experts: [tokens, k, outputs].

        With `sums` [tokens, outputs], added up over the chosen. The matrices lie in memory as the model has them: row
        e·outputs + n has column n of expert e, and the array's tile is made of the rows that a tile of indices names.
        """
        builder, machine = self.lowering.builder, self.lowering.builder.machine
        experts, outputs, inputs = layer.weights.shape
        rows = layer.weights.derived("rows", (experts * outputs, inputs), _joined)
        source = self.lowering.weights.view(rows, self.dtype).rigid()
        steps = largest_steps(machine)
        width, deep = min(steps.columns, outputs), min(steps.depth, inputs)
        tiles = ceil(inputs / deep)
        items = builder.bounds.best(product_of(indices.shape)) * ceil(outputs / width)
        splits = max(1, min(tiles, builder.cores // items)) if machine.dataflow == "rhs" else 1
        along = ceil(tiles / splits) * deep
        adds = sums or along < inputs
        shape = (indices.shape[0], *(() if sums else (indices.shape[1],)), Expr.const(outputs))
        target = builder.temporary("f32", shape)
        with builder.kernel("experts") as kernel:
            token, slot = (kernel.range(size, 1) for size in indices.shape)
            n, group = kernel.range(Expr.const(outputs), width), kernel.range(Expr.const(inputs), along)
            pair = (Counter(0, ONE), Counter(1, ONE))
            expert = kernel.load(indices.rigid(), (token.start, slot.start), [pair], [1], repeated=True)
            first = kernel.map("mul", [expert, outputs], "i64")
            names = kernel.map("add", [kernel.iota([n.size], [width], 0, n.start), first], "i64")
            total = kernel.new_tile("f32", [1, width], depth=2)
            with kernel.loop(group.size, deep) as k:
                begin = group.start + k.start
                held = source.access((ZERO, begin), [[Counter(1, k.size)], [Counter(0, n.size)]], repeated=True)
                b = kernel.gather(held, self.dtype, [deep, width], names, 1)
                at = (token.start, slot.start, begin)
                a = kernel.load(lhs, at, [pair, [Counter(2, k.size)]], [1, deep], repeated=True)
                if lhs.dtype != self.dtype:
                    a = kernel.map("copy", [a], self.dtype, depth=2)
                kernel.matmul(total, a, b, k.name, machine.dataflow)
            to = target.rigid()
            if sums:
                kernel.store(to, (token.start, n.start), [[Counter(0, ONE)], [Counter(1, n.size)]], total, adds=adds)
            else:
                kernel.store(to, (token.start, slot.start, n.start), [pair, [Counter(2, n.size)]], total, adds=adds)
        return target


def _joined(array: Array, axis: int = 0) -> Array:
    """An array with dimension `axis` and the next as one."""
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


def _experts_of(lowering: Lowering, op: OnnxOp) -> _Experts:
    """The layers of the op. RefusedError for what no form computes."""
    kind = str(op.attr("activation_type", "relu"))
    if kind != "swiglu" and kind not in _ACTIVATIONS:
        raise RefusedError(f"experts with activation {kind} are not generated")
    if op.attr("use_sparse_mixer", 0) or op.attr("swiglu_limit_after_activation", 0):
        raise RefusedError("experts with a sparse mixer, or a limit behind the activation, are not generated")
    first, second, third = (_layer(lowering, op, index) for index in (2, 4, 6))
    if first is None or second is None:
        raise RefusedError("experts without weights are not generated")
    fused = int(op.attr("swiglu_fusion", 0))
    if kind == "swiglu" and (third is None) == (not fused):
        raise RefusedError(f"experts of swiglu_fusion {fused} {'without' if third is None else 'with'} third weights")
    dtype = lowering.product_type(op)
    if kind != "swiglu" or not fused:
        return _Experts(lowering, op, dtype, first, third, second)
    half = first.weights.shape[1] // 2
    if fused == 1:
        gate = first.part("even", lambda array: array[:, 0::2], half)
        return _Experts(lowering, op, dtype, gate, first.part("odd", lambda array: array[:, 1::2], half), second)
    gate = first.part("first half", lambda array: array[:, :half], half)
    return _Experts(lowering, op, dtype, gate, first.part("second half", lambda array: array[:, half:], half), second)


def _layer(lowering: Lowering, op: OnnxOp, index: int) -> _Layer | None:
    weights, bias = op.input_at(index), op.input_at(index + 1)
    if weights is None:
        return None
    found = lowering.get(weights), None if bias is None else lowering.get(bias)
    if not isinstance(found[0], Constant) or not isinstance(found[1], Constant | None):
        raise RefusedError("the weights of experts are computed, they must be constant")
    return _Layer(found[0], found[1])


def _fetches(machine: Machine, experts: _Experts, tokens: int, chosen: int) -> bool:
    """Whether the array takes less time for a tile for each token and choice than for one for each expert."""
    steps = largest_steps(machine)
    held = stored_bytes(experts.dtype, (steps.columns, steps.depth)) / machine.sram_bytes_per_cycle
    row = machine.row_cycles[experts.dtype]
    return tokens * chosen * (held + row) <= experts.gate.weights.shape[0] * (held + tokens * row)


def _moe(lowering: Lowering, op: OnnxOp) -> None:
    experts, value = _experts_of(lowering, op), result(op)
    width, tokens = shape_of(value)[-1], product_of(shape_of(value)[:-1])
    count = experts.gate.weights.shape[0]
    chosen = min(int(op.attr("k", 1)), count)
    source = reshaped(lowering, lowering.view(present(op, 0)), (tokens, width))
    router = lowering.converted(lowering.view(present(op, 1)), "f32")
    router = reshaped(lowering, router, (tokens, Expr.const(count)))
    if op.attr("normalize_routing_weights", 0):
        weights, indices = largest(lowering, router, Expr.const(chosen))
        weights = softmax(lowering, weights, [1])
    else:
        weights, indices = largest(lowering, softmax(lowering, router, [1]), Expr.const(chosen))
    fetches = _fetches(lowering.builder.machine, experts, lowering.bounds.best(tokens), chosen)
    bias = experts.down.bias
    spread = _spread(lowering, weights, indices, count) if bias is not None or not fetches else weights
    found = experts.chosen(source, indices, weights) if fetches else experts.dense(source, spread)
    if bias is not None:
        shared = multiply(lowering, op, spread, WeightMatrix(lowering.weights, bias, "f32", transposed=False), ())
        added = lowering.computed(shared, shared.shape, "f32")
        found = lowering.node("add", (lowering.computed(found, (tokens, width), "f32"), added), (tokens, width))
    lowering.define(value, reshaped(lowering, lowering.computed(found, (tokens, width), "f32"), shape_of(value)))


def _spread(lowering: Lowering, weights: View, indices: View, count: int) -> View:
    """The weights of the chosen experts in a row of all of them, zero for the others: [tokens, experts]."""
    shape = (weights.shape[0], Expr.const(count))
    found: Argument = lowering.node("copy", (0.0,), shape)
    for slot in range(weights.shape[1].as_int()):
        here = lowering.node("equal", (Index(0), indices.slice(1, slot, ONE)), shape, "i1")
        found = lowering.node("select", (here, weights.slice(1, slot, ONE), found), shape)
        if not is_small(found):
            found = lowering.computed(found, shape, "f32")
    return lowering.computed(found, shape, "f32")


RULES: dict[str, Rule] = {"com.microsoft.MoE": _moe}
