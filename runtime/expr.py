"""Integer expressions over named dimensions: shapes in the IR and the manifest, and polynomials of the cost model.

An expression is kept as a polynomial with integer coefficients over *atoms*: a dimension's name, or one of
`floordiv`, `ceildiv`, `mod`, `min`, `max` of two expressions that could not be simplified. Equal expressions built in
the same normal form compare equal and print the same text, and the text parses back:

    >>> str(Expr.parse("width * 2 + width // 8 * 8 - 3"))
    '8*floordiv(width, 8) + 2*width - 3'

Dimensions are positive integers. That is what allows `floordiv(a*b, a)` to become `b`.

A name that is not an identifier (exporters write `past + 1` or `unk__0/x` as a *name*) stands in backquotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd

from gimlet.runtime.errors import InputError

_FUNCTIONS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_][A-Za-z0-9_.]*)|`([^`]+)`|(//|[-+*%(),]))")


@dataclass(frozen=True)
class Call:
    """An atom that is a function of two expressions."""

    function: str
    left: Expr
    right: Expr

    @cached_property
    def text(self) -> str:
        return f"{self.function}({self.left}, {self.right})"


Atom = str | Call
Monomial = tuple[tuple[Atom, int], ...]


def _atom_text(atom: Atom) -> str:
    if isinstance(atom, Call):
        return atom.text
    return atom if _IDENTIFIER.fullmatch(atom) else f"`{atom}`"


def _monomial_text(monomial: Monomial) -> str:
    return "*".join("*".join([_atom_text(atom)] * power) for atom, power in monomial)


def _order(monomial: Monomial) -> tuple[int, str]:
    degree = sum(power for _, power in monomial)
    return (-degree, _monomial_text(monomial))


class Expr:
    """An immutable, hashable integer expression. Build one with `const`, `symbol`, `of` or `parse`, and operators."""

    __slots__ = ("_hash", "_terms", "_text")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        kept = [(monomial, coefficient) for monomial, coefficient in terms.items() if coefficient]
        if len(kept) > 1:
            kept.sort(key=lambda term: _order(term[0]))
        self._terms: tuple[tuple[Monomial, int], ...] = tuple(kept)
        self._hash: int = hash(self._terms)
        self._text: str | None = None

    @staticmethod
    def const(value: int) -> Expr:
        """The constant `value`."""
        return _constant(value)

    @staticmethod
    def symbol(name: str) -> Expr:
        """The dimension called `name`. InputError if the name is empty or holds a backquote."""
        if not name or "`" in name:
            raise InputError(f"{name!r} cannot name a dimension")
        return Expr({((name, 1),): 1})

    @staticmethod
    def of(value: int | str | Expr) -> Expr:
        """`value` itself, an integer as a constant, or text parsed."""
        if isinstance(value, Expr):
            return value
        return Expr.const(value) if isinstance(value, int) else Expr.parse(value)

    @staticmethod
    def parse(text: str) -> Expr:
        """The expression that `text` spells. InputError, with the column, where it does not parse."""
        return _parse(text)

    @property
    def is_constant(self) -> bool:
        return not self._terms or (len(self._terms) == 1 and not self._terms[0][0])

    def as_int(self) -> int:
        """The value of a constant expression. InputError if it depends on a dimension."""
        if not self.is_constant:
            raise InputError(f"{self} depends on {', '.join(sorted(self.symbols))}: it has no single value")
        return self._terms[0][1] if self._terms else 0

    @property
    def terms(self) -> tuple[tuple[Monomial, int], ...]:
        """The polynomial: monomials with their coefficients, highest degree first."""
        return self._terms

    @property
    def symbols(self) -> frozenset[str]:
        """The names of all dimensions that the value depends on."""
        found: set[str] = set()
        for monomial, _ in self._terms:
            for atom, _power in monomial:
                if isinstance(atom, Call):
                    found |= atom.left.symbols | atom.right.symbols
                else:
                    found.add(atom)
        return frozenset(found)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The value with each dimension at its size. InputError names a dimension that `sizes` lacks."""
        total = 0
        for monomial, coefficient in self._terms:
            value = coefficient
            for atom, power in monomial:
                value *= _evaluate_atom(atom, sizes) ** power
            total += value
        return total

    def substitute(self, values: Mapping[str, Expr]) -> Expr:
        """The expression with dimensions replaced by other expressions."""
        total = ZERO
        for monomial, coefficient in self._terms:
            product = Expr.const(coefficient)
            for atom, power in monomial:
                factor = _substitute_atom(atom, values)
                for _ in range(power):
                    product = product * factor
            total = total + product
        return total

    def __add__(self, other: Expr | int) -> Expr:
        return _add(self, Expr.of(other), 1)

    __radd__ = __add__

    def __sub__(self, other: Expr | int) -> Expr:
        return _add(self, Expr.of(other), -1)

    def __rsub__(self, other: int) -> Expr:
        return _add(Expr.const(other), self, -1)

    def __neg__(self) -> Expr:
        return _add(ZERO, self, -1)

    def __mul__(self, other: Expr | int) -> Expr:
        return _multiply(self, Expr.of(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: Expr | int) -> Expr:
        return floordiv(self, Expr.of(other))

    def __mod__(self, other: Expr | int) -> Expr:
        return mod(self, Expr.of(other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expr) and self._terms == other._terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if self._text is None:
            self._text = self._render()
        return self._text

    def __repr__(self) -> str:
        return f"Expr({str(self)!r})"

    def _render(self) -> str:
        if not self._terms:
            return "0"
        text = ""
        for monomial, coefficient in self._terms:
            factors = _monomial_text(monomial)
            size = abs(coefficient)
            body = factors if factors and size == 1 else f"{size}*{factors}" if factors else str(size)
            sign = "-" if coefficient < 0 else "+"
            text += f" {sign} {body}" if text else f"-{body}" if coefficient < 0 else body
        return text


ZERO = Expr({})
ONE = Expr({(): 1})


def _evaluate_atom(atom: Atom, sizes: Mapping[str, int]) -> int:
    if isinstance(atom, Call):
        left, right = atom.left.evaluate(sizes), atom.right.evaluate(sizes)
        if right == 0 and atom.function in ("floordiv", "ceildiv", "mod"):
            raise InputError(f"{atom.text} divides by zero", hint="one of its dimensions is out of range")
        return _FUNCTIONS[atom.function](left, right)
    if atom not in sizes:
        raise InputError(f"dimension {atom!r} has no size", hint=f"give it one with --bind {atom}=N")
    return sizes[atom]


def _substitute_atom(atom: Atom, values: Mapping[str, Expr]) -> Expr:
    if isinstance(atom, Call):
        return _BUILDERS[atom.function](atom.left.substitute(values), atom.right.substitute(values))
    return values.get(atom) or Expr.symbol(atom)


@lru_cache(maxsize=65536, typed=True)
def _constant(value: int) -> Expr:
    return Expr({(): value})


@lru_cache(maxsize=65536)
def _add(left: Expr, right: Expr, sign: int) -> Expr:
    terms = dict(left.terms)
    for monomial, coefficient in right.terms:
        terms[monomial] = terms.get(monomial, 0) + sign * coefficient
    return Expr(terms)


@lru_cache(maxsize=65536)
def _multiply(left: Expr, right: Expr) -> Expr:
    terms: dict[Monomial, int] = {}
    for left_monomial, left_coefficient in left.terms:
        for right_monomial, right_coefficient in right.terms:
            powers = dict(left_monomial)
            for atom, power in right_monomial:
                powers[atom] = powers.get(atom, 0) + power
            monomial = tuple(sorted(powers.items(), key=lambda factor: _atom_text(factor[0])))
            terms[monomial] = terms.get(monomial, 0) + left_coefficient * right_coefficient
    return Expr(terms)


def _call(function: str, left: Expr, right: Expr) -> Expr:
    return Expr({((Call(function, left, right), 1),): 1})


def _divide_monomial(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    powers = dict(monomial)
    for atom, power in divisor:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        powers[atom] = left
    return tuple((atom, power) for atom, power in powers.items() if power)


def _split_quotient(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Splits `left` into `quotient * right + rest` over the terms that a divisor of one term divides exactly."""
    if len(right.terms) != 1:
        return ZERO, left
    divisor, scale = right.terms[0]
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, coefficient in left.terms:
        reduced = _divide_monomial(monomial, divisor)
        if reduced is None:
            rest[monomial] = coefficient
            continue
        quotient[reduced] = coefficient // scale
        if coefficient % scale:
            rest[monomial] = coefficient % scale
    return Expr(quotient), Expr(rest)


def _cancel(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Divides both by the integer and the dimensions that all of their terms share."""
    terms = left.terms + right.terms
    if not left.terms or not right.terms:
        return left, right
    common = 0
    for _, coefficient in terms:
        common = gcd(common, coefficient)
    shared = dict(terms[0][0])
    for monomial, _ in terms[1:]:
        powers = dict(monomial)
        shared = {atom: min(power, powers.get(atom, 0)) for atom, power in shared.items()}
    divisor: Monomial = tuple((atom, power) for atom, power in shared.items() if power and isinstance(atom, str))
    if common == 1 and not divisor:
        return left, right

    def reduce(expr: Expr) -> Expr:
        return Expr({_divide_monomial(m, divisor) or (): c // common for m, c in expr.terms})

    return reduce(left), reduce(right)


def _constant_divisor(right: Expr, what: str) -> None:
    if right.is_constant and right.as_int() <= 0:
        raise InputError(f"{what} by {right}: a divisor must be positive")


@lru_cache(maxsize=65536)
def floordiv(left: Expr, right: Expr) -> Expr:
    """⌊left / right⌋. InputError for a constant divisor that is not positive."""
    _constant_divisor(right, "division")
    if left == right:
        return ONE
    quotient, rest = _split_quotient(left, right)
    if rest == ZERO:
        return quotient
    if rest.is_constant and right.is_constant:
        return quotient + rest.as_int() // right.as_int()
    rest, right = _cancel(rest, right)
    if right == ONE:
        return quotient + rest
    if right.is_constant:
        nested = _nested_quotient(rest)
        if nested is not None:
            return quotient + floordiv(nested[0], nested[1] * right)
    return quotient + _call("floordiv", rest, right)


@lru_cache(maxsize=65536)
def ceildiv(left: Expr, right: Expr) -> Expr:
    """⌈left / right⌉. InputError for a constant divisor that is not positive."""
    _constant_divisor(right, "division")
    if left == right:
        return ONE
    quotient, rest = _split_quotient(left, right)
    if rest == ZERO:
        return quotient
    if rest.is_constant and right.is_constant:
        return quotient + -(-rest.as_int() // right.as_int())
    rest, right = _cancel(rest, right)
    return quotient + (rest if right == ONE else _call("ceildiv", rest, right))


@lru_cache(maxsize=65536)
def mod(left: Expr, right: Expr) -> Expr:
    """left − right · ⌊left / right⌋. InputError for a constant divisor that is not positive."""
    _constant_divisor(right, "remainder")
    _, rest = _split_quotient(left, right)
    if rest == ZERO:
        return ZERO
    if rest.is_constant and right.is_constant:
        return Expr.const(rest.as_int() % right.as_int())
    return _call("mod", rest, right)


def minimum(left: Expr, right: Expr) -> Expr:
    """The smaller of two expressions."""
    return _extremum("min", left, right)


def maximum(left: Expr, right: Expr) -> Expr:
    """The larger of two expressions."""
    return _extremum("max", left, right)


def _extremum(function: str, left: Expr, right: Expr) -> Expr:
    difference = left - right
    if difference.is_constant:
        smaller, larger = (left, right) if difference.as_int() <= 0 else (right, left)
        return smaller if function == "min" else larger
    first, second = sorted((left, right), key=str)
    return _call(function, first, second)


def _nested_quotient(expr: Expr) -> tuple[Expr, Expr] | None:
    """For ⌊a/m⌋ + c with constants m and c the pair (a + c·m, m), whose quotient it is; None for another form."""
    calls = [monomial for monomial, _ in expr.terms if monomial]
    if len(calls) != 1 or len(calls[0]) != 1 or dict(expr.terms)[calls[0]] != 1:
        return None
    atom, power = calls[0][0]
    if power != 1 or not isinstance(atom, Call) or atom.function != "floordiv" or not atom.right.is_constant:
        return None
    return atom.left + dict(expr.terms).get((), 0) * atom.right, atom.right


_BUILDERS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "floordiv": floordiv,
    "ceildiv": ceildiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
}


class _Parser:
    """Recursive descent over `sum := product (('+'|'-') product)*`, `product := unary (('*'|'//'|'%') unary)*`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        end = len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error("unexpected character", position)
            number, name, quoted, operator = match.groups()
            kind = "int" if number else "name" if name or quoted else "op"
            self.tokens.append((kind, number or name or quoted or operator, match.start()))
            position = match.end()
        self.index = 0

    def error(self, what: str, column: int | None = None) -> InputError:
        if column is None:
            column = self.tokens[self.index][2] if self.index < len(self.tokens) else len(self.text)
        return InputError(f"{what} in expression {self.text!r}", where=f"column {column + 1}")

    def peek(self) -> str | None:
        if self.index >= len(self.tokens) or self.tokens[self.index][0] != "op":
            return None
        return self.tokens[self.index][1]

    def expect(self, operator: str) -> None:
        if self.peek() != operator:
            raise self.error(f"expected {operator!r}")
        self.index += 1

    def sum(self) -> Expr:
        value = self.product()
        while (operator := self.peek()) in ("+", "-"):
            self.index += 1
            right = self.product()
            value = value + right if operator == "+" else value - right
        return value

    def product(self) -> Expr:
        value = self.unary()
        while (operator := self.peek()) in ("*", "//", "%"):
            self.index += 1
            right = self.unary()
            value = value * right if operator == "*" else value // right if operator == "//" else value % right
        return value

    def unary(self) -> Expr:
        if self.peek() == "-":
            self.index += 1
            return -self.unary()
        if self.peek() == "(":
            self.index += 1
            value = self.sum()
            self.expect(")")
            return value
        if self.index >= len(self.tokens) or self.tokens[self.index][0] == "op":
            raise self.error("expected a number or a name")
        kind, text, _ = self.tokens[self.index]
        self.index += 1
        if kind == "int":
            return Expr.const(int(text))
        if self.peek() == "(":
            return self.call(text)
        return Expr.symbol(text)

    def call(self, function: str) -> Expr:
        if function not in _BUILDERS:
            raise self.error(f"unknown function {function!r} (known: {', '.join(_BUILDERS)})")
        self.index += 1
        arguments = [self.sum()]
        while self.peek() == ",":
            self.index += 1
            arguments.append(self.sum())
        self.expect(")")
        if len(arguments) != 2 and not (function in ("min", "max") and len(arguments) > 2):
            raise self.error(f"{function} takes two arguments, not {len(arguments)}")
        value = arguments[0]
        for argument in arguments[1:]:
            value = _BUILDERS[function](value, argument)
        return value


@lru_cache(maxsize=65536)
def _parse(text: str) -> Expr:
    parser = _Parser(text)
    value = parser.sum()
    if parser.index != len(parser.tokens):
        raise parser.error("unexpected text")
    return value
