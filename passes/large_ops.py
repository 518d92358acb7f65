"""How passes put one large operator in the place of several, and keep these (`gimlet.dialects.onnx.parts`) or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr, UnknownLoc
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from gimlet.dialects.onnx import PARTS, OnnxOp, parts_of
from gimlet.dialects.onnx.exporter import read_opsets
from gimlet.passes.entry import is_constant
from gimlet.passes.match import replace_group


@dataclass
class LargeOps:
    """Makes large operators in a module.

    With `keep_parts` each names a function with the operations that it replaces, and may be newer than the module's
    opset. Without, they are gone, and an operator that the opset lacks cannot be made.
    """

    module: ModuleOp
    keep_parts: bool
    _known: dict[tuple[str, Attribute], list[FuncOp]] = field(
        default_factory=dict[tuple[str, Attribute], list[FuncOp]], init=False
    )

    def __post_init__(self) -> None:
        self.opset = read_opsets(self.module).get("", 0)
        for op in self.module.walk():
            function = parts_of(op) if isinstance(op, OnnxOp) and PARTS in op.attributes else None
            if isinstance(op, OnnxOp) and function is not None:
                known = self._known.setdefault((op.op_type, function.function_type), [])
                if function not in known:
                    known.append(function)

    def opset_for(self, needed: int) -> int | None:
        """The opset that an operator of opset `needed` is made at; None where it cannot be made."""
        if self.opset >= needed:
            return self.opset
        return needed if self.keep_parts and self.opset else None

    def replace(
        self, root: OnnxOp, made: OnnxOp, matched: Iterable[OnnxOp], instead: Mapping[SSAValue, SSAValue] | None = None
    ) -> bool:
        """Puts `made` in the place of `root` and of `matched`, which nothing else reads a result of.

        `instead` says which values of the pattern its parts shall make otherwise: of what `made` reads, by operations
        that are in no block. False, and nothing done, where parts are to be kept and cannot be (`_outlined`), or where
        `made` reads what the pattern makes, which would then be computed twice.
        """
        matched, instead = list(matched), instead or {}
        overlaps = any(value.owner in matched for value in made.operands)
        function = _outlined(root, made, matched, instead) if self.keep_parts and not overlaps else None
        for value in instead.values():
            _erase_loose(value)
        if function is not None:
            self.name_parts(made, function)
        elif self.keep_parts or overlaps:
            _erase_loose(made.results[0])
            return False
        replace_group(root, made, matched)
        return True

    def name_parts(self, op: OnnxOp, function: FuncOp) -> None:
        """Makes `op` stand for the operations of `function`, which is put into the module where none is equal to it."""
        op.attributes[PARTS] = SymbolRefAttr(self._shared(op.op_type, function).sym_name)

    def _shared(self, op_type: str, function: FuncOp) -> FuncOp:
        """The function of the module that is equal to a new one, which is added where there is none."""
        known = self._known.setdefault((op_type, function.function_type), [])
        for other in known:
            if other.body.is_structurally_equivalent(function.body):
                return other
        taken = {op.sym_name.data for op in self.module.body.block.ops if isinstance(op, FuncOp)}
        count = len(taken)
        while (name := f"parts.{op_type}.{count}") in taken:
            count += 1
        named = FuncOp(name, function.function_type, function.detach_region(0), "private")
        self.module.body.block.add_op(named)
        known.append(named)
        return named


def _outlined(root: OnnxOp, made: OnnxOp, matched: list[OnnxOp], instead: Mapping[SSAValue, SSAValue]) -> FuncOp | None:
    """A function of `made`'s operands with copies of `root` and of what it reads among `matched`.

    None where these read another value that is no constant, or stand in several blocks, or in the subgraph of another
    operation, which targets are asked about as it is.
    """
    arguments = list(dict.fromkeys(made.operands))
    if len(arguments) != len(made.operands) or not isinstance(root.parent_op(), FuncOp):
        return None
    block = Block(arg_types=[value.type for value in arguments])
    values: dict[SSAValue, SSAValue] = dict(zip(arguments, block.args, strict=True))
    for old, new in instead.items():
        for op in _in_order(new.owner, set(), values):
            _copy(op, block, values)
        values[old] = values[new]
    for op in [] if root.results[0] in values else _in_order(root, set(matched), values):
        if any(value not in values for value in op.operands) or (op.parent is not root.parent and not is_constant(op)):
            return None
        _copy(op, block, values)
    block.add_op(ReturnOp(*(values[result] for result in root.results)))
    types = [argument.type for argument in block.args], [result.type for result in root.results]
    return FuncOp("parts", types, Region(block), "private")


def _copy(op: Operation, block: Block, values: dict[SSAValue, SSAValue]) -> None:
    """Adds a copy without a name to a block; `values` says what has become of each value, and is added to."""
    copy = op.clone(values)
    copy.location = UnknownLoc()
    for result in copy.results:
        result.name_hint = None
    block.add_op(copy)


def _erase_loose(value: SSAValue) -> None:
    """Erases the operations in no block that make a value which nothing reads, or only such operations."""
    op = value.owner
    if not isinstance(op, Operation) or op.parent is not None or any(result.first_use for result in op.results):
        return
    operands = list(op.operands)
    op.erase()
    for operand in dict.fromkeys(operands):
        _erase_loose(operand)


def _in_order(root: Operation | Block, inside: set[OnnxOp], given: Mapping[SSAValue, SSAValue]) -> Iterator[Operation]:
    """`root` and what it reads of `inside`, of constants and of loose operations, readers last; not what is `given`."""
    if isinstance(root, Block):
        return
    seen: set[Operation] = set()
    waiting: list[tuple[Operation, bool]] = [(root, False)]
    while waiting:
        op, ready = waiting.pop()
        if ready:
            yield op
            continue
        if op in seen:
            continue
        seen.add(op)
        waiting.append((op, True))
        for value in reversed(op.operands):
            owner = value.owner
            if isinstance(owner, Block) or value in given:
                continue
            if owner in inside or owner.parent is None or is_constant(owner):
                waiting.append((owner, False))
