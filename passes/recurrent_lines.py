"""LSTM, GRU and RNN as lines of a function in ONNX's text form: one step after the other, for a fixed number of them.

What the inputs add to the gates is one product for all steps. A step is then the product of the state with its weights,
[1, batch, hidden] by [hidden, gates · hidden], and functions element by element. The equations, and the order of gates
in the weights, are those of ONNX's documentation of the operators. The first step has no product where no initial state
is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gimlet.dialects.onnx import OnnxOp, dims_of
from gimlet.passes.function_lines import Lines, LineWriter, Unwritten, has, number

MOST_STEPS = 256
"""Steps of all directions together: each is about 14 operators."""

_AXES_ARE_AN_INPUT = 13
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_FUNCTIONS = {name.lower(): name for name in ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")}
_WEIGHTS, _STATE_WEIGHTS, _BIASES, _LENGTHS, _STATE, _CELL, _PEEPHOLES = range(1, 8)


def recurrent(op: OnnxOp, opset: int) -> Lines:
    """The lines that compute `y0`, all states, and `y1` and `y2`, the last ones, of `x0`, `x1`, ..."""
    source, weights = op.input_at(0), op.input_at(_STATE_WEIGHTS)
    dims, sizes = (None if value is None else dims_of(value) for value in (source, weights))
    if opset < _AXES_ARE_AN_INPUT or dims is None or sizes is None or len(dims) != 3 or len(sizes) != 3:
        return Unwritten("where the shapes of its inputs are known, from opset 13 on")
    is_batch_first, direction = bool(op.attr("layout", 0)), str(op.attr("direction", "forward"))
    steps = dims[1 if is_batch_first else 0]
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    if not steps.is_constant or not 0 < steps.as_int() * len(ways) <= MOST_STEPS:
        return Unwritten(f"for a fixed number of steps, up to {MOST_STEPS}, and this one has {steps}")
    if has(op, _LENGTHS):
        return Unwritten("for sequences that are all as long as each other, without sequence_lens")
    if op.attr("input_forget", 0) or op.attr("activation_alpha") or op.attr("activation_beta"):
        return Unwritten("without input_forget and without parameters of activations")
    named = [str(name) for name in op.attr("activations") or _DEFAULTS[op.op_type] * len(ways)]
    functions = [_FUNCTIONS.get(name.lower()) for name in named]
    known = [function for function in functions if function is not None]
    if len(known) < len(functions):
        return Unwritten(f"for the activations {', '.join(_FUNCTIONS.values())}, and this one has {named}")
    if not sizes[2].is_constant:
        return Unwritten("for states of a known size")
    writer = _Writer(op, sizes[2].as_int(), steps.as_int(), is_batch_first=is_batch_first)
    count = len(known) // len(ways)
    return writer.written([(is_back, known[at * count :][:count]) for at, is_back in enumerate(ways)])


@dataclass
class _Writer(LineWriter):
    """Writes the lines of one operator, for `steps` steps of states of `hidden` numbers."""

    op: OnnxOp
    hidden: int
    steps: int
    is_batch_first: bool

    def written(self, ways: Sequence[tuple[bool, Sequence[str]]]) -> list[str]:
        """All directions: whether each goes backwards, and its activations."""
        if clip := float(self.op.attr("clip", 0.0) or 0.0):
            self.lines += [*number("below", -clip, "x0"), *number("above", clip, "x0")]
        values = self.line("Transpose <perm: ints = [1, 0, 2]> (x0)") if self.is_batch_first else "x0"
        first = [self.of_each(index, len(ways)) for index in (_STATE, _CELL)]
        found = [
            self.direction(at, values, is_back, functions, [states[at] for states in first])
            for at, (is_back, functions) in enumerate(ways)
        ]
        all_states = [self.line(f"Unsqueeze ({self.joined(states, 0)}, {self.numbers(1)})") for states, _ in found]
        last = [self.joined([cells[index] for _, cells in found], 0) for index in range(len(found[0][1]))]
        perms = ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])
        for index, value in enumerate((self.joined(all_states, 1), *last)):
            how = f"Transpose <perm: ints = {perms[index]}>" if self.is_batch_first else "Identity"
            self.lines.append(f"y{index} = {how} ({value})")
        return self.lines

    def direction(
        self, at: int, values: str, is_back: bool, functions: Sequence[str], states: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """The states [1, batch, hidden] of one direction in the order of the inputs, and the last ones."""
        place = self.line(f"Constant <value_int: int = {at}> ()")
        weights, of_state, *biases = (
            self.line(f"Gather <axis: int = 0> (x{index}, {place})")
            for index in (_WEIGHTS, _STATE_WEIGHTS, _BIASES)
            if has(self.op, index)
        )
        inputs = self.line(f"MatMul ({values}, {self.turned(weights)})")
        gates = _GATES[self.op.op_type]
        parts = self.split(biases[0], [gates * self.hidden] * 2, 0) if biases else []
        cell = _Cell(self, functions, of_state)
        if self.op.op_type == "GRU" and self.op.attr("linear_before_reset", 0):
            cell.bias, parts = parts[1] if parts else "", parts[:1]
        for part in parts:
            inputs = self.line(f"Add ({inputs}, {part})")
        if has(self.op, _PEEPHOLES):
            peepholes = self.line(f"Gather <axis: int = 0> (x{_PEEPHOLES}, {place})")
            cell.peepholes = self.split(peepholes, [self.hidden] * 3, 0)
        step = {"LSTM": cell.lstm, "GRU": cell.gru, "RNN": cell.rnn}[self.op.op_type]
        given = self.split(inputs, [1] * self.steps, 0)
        made: list[str] = []
        now = list(states) if self.op.op_type == "LSTM" else [states[0]]
        for each in reversed(given) if is_back else given:
            now = step(each, *now)
            made.append(now[0])
        return made[::-1] if is_back else made, now

    def of_each(self, index: int, directions: int) -> list[str]:
        """The state before the first step of each direction; "" where there is none."""
        if not has(self.op, index):
            return [""] * directions
        value = self.line(f"Transpose <perm: ints = [1, 0, 2]> (x{index})") if self.is_batch_first else f"x{index}"
        return self.split(value, [1] * directions, 0)

    def activated(self, function: str, value: str) -> str:
        if self.op.attr("clip", 0.0):
            value = self.line(f"Clip ({value}, below, above)")
        return self.line(f"{function} ({value})")

    def turned(self, matrix: str) -> str:
        return self.line(f"Transpose <perm: ints = [1, 0]> ({matrix})")

    def split(self, value: str, sizes: Sequence[int], axis: int) -> list[str]:
        if len(sizes) == 1:
            return [value]
        names = [f"{value}_{index}" for index in range(len(sizes))]
        self.lines.append(f"{', '.join(names)} = Split <axis: int = {axis}> ({value}, {self.numbers(*sizes)})")
        return names

    def joined(self, values: Sequence[str], axis: int) -> str:
        return values[0] if len(values) == 1 else self.line(f"Concat <axis: int = {axis}> ({', '.join(values)})")


@dataclass
class _Cell:
    """One step of a direction. `weights` [gates · hidden, hidden] are the state's, `bias` what GRU adds behind them."""

    writer: _Writer
    functions: Sequence[str]
    weights: str
    bias: str = ""
    peepholes: Sequence[str] = ()
    known: dict[str, str] = field(default_factory=dict[str, str])

    def lstm(self, given: str, state: str, cell: str) -> list[str]:
        gate, inner, outer = self.functions
        enter, leave, forget, new = self.split(self.plus(given, state, self.weights), 4)
        if cell and self.peepholes:
            enter, forget = self.seen(enter, 0, cell), self.seen(forget, 2, cell)
        entering = self.line(f"Mul ({self.on(gate, enter)}, {self.on(inner, new)})")
        kept = self.line(f"Mul ({self.on(gate, forget)}, {cell})") if cell else ""
        after = self.line(f"Add ({kept}, {entering})") if cell else entering
        leaving = self.on(gate, self.seen(leave, 1, after) if self.peepholes else leave)
        # Only what the gates read is clipped.
        shown = self.line(f"{outer} ({after})")
        return [self.line(f"Mul ({leaving}, {shown})"), after]

    def gru(self, given: str, state: str) -> list[str]:
        gate, inner = self.functions
        before = bool(self.writer.op.attr("linear_before_reset", 0))
        hidden, sizes = self.writer.hidden, [2 * self.writer.hidden, self.writer.hidden]
        both, new = self.writer.split(given, sizes, 2)
        inside = ""
        if before:
            product = self.line(f"MatMul ({state}, {self.turned(self.weights)})") if state else ""
            total = self.line(f"Add ({product}, {self.bias})") if product and self.bias else product or self.bias
            if total:
                of_both, inside = self.writer.split(total, sizes, 2 if product else 0)
                both = self.line(f"Add ({both}, {of_both})")
        elif state:
            if "both" not in self.known:
                first, last = self.writer.split(self.weights, sizes, 0)
                self.known = {"both": first, "new": last}
            both = self.plus(both, state, self.known["both"])
        update, reset = self.writer.split(self.on(gate, both), [hidden] * 2, 2)
        if before and inside:
            new = self.line(f"Add ({new}, {self.line(f'Mul ({reset}, {inside})')})")
        elif state and not before:
            new = self.plus(new, self.line(f"Mul ({reset}, {state})"), self.known["new"])
        made = self.on(inner, new)
        # (1 - update) · made + update · state
        if not state:
            return [self.line(f"Sub ({made}, {self.line(f'Mul ({update}, {made})')})")]
        change = self.line(f"Sub ({state}, {made})")
        return [self.line(f"Add ({made}, {self.line(f'Mul ({update}, {change})')})")]

    def rnn(self, given: str, state: str) -> list[str]:
        return [self.on(self.functions[0], self.plus(given, state, self.weights))]

    def plus(self, given: str, state: str, weights: str) -> str:
        if not state:
            return given
        return self.line(f"Add ({given}, {self.line(f'MatMul ({state}, {self.turned(weights)})')})")

    def seen(self, value: str, which: int, cell: str) -> str:
        return self.line(f"Add ({value}, {self.line(f'Mul ({self.peepholes[which]}, {cell})')})")

    def split(self, value: str, count: int) -> list[str]:
        return self.writer.split(value, [self.writer.hidden] * count, 2)

    def on(self, function: str, value: str) -> str:
        return self.writer.activated(function, value)

    def turned(self, weights: str) -> str:
        name = f"turned {weights}"
        if name not in self.known:
            self.known[name] = self.writer.turned(weights)
        return self.known[name]

    def line(self, text: str) -> str:
        return self.writer.line(text)
