"""Dimensions spelled as ONNX's tools do, `floor(width/2 - 1/2) + 1`, as expressions.

These tools compute with rational numbers, and so do we here, until a `floor` makes the value whole again.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from functools import lru_cache
from math import gcd

from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import ONE, Expr, ceildiv, floordiv, maximum, minimum, mod

_MOST_POWER = 8


class _Ratio:
    """A fraction of two expressions."""

    def __init__(self, top: Expr, bottom: Expr = ONE) -> None:
        if top.is_constant and bottom.is_constant and (common := gcd(top.as_int(), bottom.as_int())) > 1:
            top, bottom = Expr.const(top.as_int() // common), Expr.const(bottom.as_int() // common)
        self.top = top
        self.bottom = bottom

    def __add__(self, other: _Ratio) -> _Ratio:
        if self.bottom == other.bottom:
            return _Ratio(self.top + other.top, self.bottom)
        if self.bottom.is_constant and other.bottom.is_constant:
            mine, theirs = self.bottom.as_int(), other.bottom.as_int()
            common = mine * theirs // gcd(mine, theirs)
            return _Ratio(self.top * (common // mine) + other.top * (common // theirs), Expr.const(common))
        return _Ratio(self.top * other.bottom + other.top * self.bottom, self.bottom * other.bottom)

    def __mul__(self, other: _Ratio) -> _Ratio:
        return _Ratio(self.top * other.top, self.bottom * other.bottom)

    def __truediv__(self, other: _Ratio) -> _Ratio:
        return _Ratio(self.top * other.bottom, self.bottom * other.top)

    def whole(self) -> Expr:
        """The value, rounded down; exact where the division has no remainder."""
        return floordiv(self.top, self.bottom)


def parse_symbolic(text: str, names: Mapping[str, Expr]) -> Expr:
    """The expression that `text` spells over `names`. InputError if it uses another name, or cannot be an integer."""
    try:
        tree = ast.parse(text, mode="eval").body
        return _ratio(tree, names).whole()
    except (SyntaxError, RecursionError) as error:
        raise InputError(f"{text!r} is not an expression of dimensions") from error


def _ratio(node: ast.expr, names: Mapping[str, Expr]) -> _Ratio:
    match node:
        case ast.Constant(value=int() as number):
            return _Ratio(Expr.const(number))
        case ast.Name(id=name) if name in names:
            return _Ratio(names[name])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _Ratio(Expr.const(-1)) * _ratio(operand, names)
        case ast.BinOp(left=left, op=operator, right=right):
            return _binary(operator, _ratio(left, names), _ratio(right, names))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _call(function, [_ratio(argument, names) for argument in arguments])
        case _:
            raise InputError(f"{ast.unparse(node)!r} is not an expression of known dimensions")


def _binary(operator: ast.operator, left: _Ratio, right: _Ratio) -> _Ratio:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left + _Ratio(Expr.const(-1)) * right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
        case ast.FloorDiv():
            return _Ratio((left / right).whole())
        case ast.Mod():
            return _Ratio(mod(left.whole(), right.whole()))
        case ast.Pow() if right.top.is_constant and right.bottom == ONE and 0 <= right.top.as_int() <= _MOST_POWER:
            power = _Ratio(ONE)
            for _ in range(right.top.as_int()):
                power = power * left
            return power
        case _:
            raise InputError(f"{type(operator).__name__} is not an operation on dimensions")


def _call(function: str, arguments: list[_Ratio]) -> _Ratio:
    match function.lower(), arguments:
        case ("floor", [value]):
            return _Ratio(value.whole())
        case ("ceiling", [value]):
            return _Ratio(ceildiv(value.top, value.bottom))
        case ("mod", [left, right]):
            return _Ratio(mod(left.whole(), right.whole()))
        case ("max" | "min", [first, *others]):
            value = first.whole()
            for other in others:
                value = (maximum if function.lower() == "max" else minimum)(value, other.whole())
            return _Ratio(value)
        case _:
            raise InputError(f"{function} is not a function of dimensions")


class SymbolTable:
    """Gives what an expression is made of plain names, `g0`, `g1`, …, for tools that allow only identifiers.

    These tools take every name for at least 1: what may be 0, as the symbols in `empty`, is spelled `g0 - 1`.
    """

    def __init__(self, empty: Collection[str] = ()) -> None:
        self._empty = empty
        self._names: dict[Expr, str] = {}
        self.expressions: dict[str, Expr] = {}
        self.parse = lru_cache(maxsize=None)(self._parse)

    def spell(self, expr: Expr) -> str:
        """The text of `expr` with plain names: a polynomial, each name of which stands for a symbol or a function."""
        terms: list[str] = []
        for monomial, coefficient in expr.terms:
            factors = [str(coefficient)]
            for atom, power in monomial:
                factors += [self._name(Expr({((atom, 1),): 1}))] * power
            terms.append("*".join(factors[1:] if coefficient == 1 and len(factors) > 1 else factors))
        return " + ".join(terms) or "0"

    def _name(self, atom: Expr) -> str:
        name = self._names.setdefault(atom, f"g{len(self._names)}")
        if atom.symbols <= set(self._empty):
            self.expressions[name] = atom + ONE
            return f"({name} - 1)"
        self.expressions[name] = atom
        return name

    def _parse(self, text: str) -> Expr | None:
        """The expression that a tool's text stands for, None if it uses names that are not of this table."""
        try:
            return parse_symbolic(text, self.expressions)
        except InputError:
            return None
