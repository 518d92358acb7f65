"""Puts the bodies of a model's own functions where they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, NameLoc
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import PassFailedException, VerifyException

from gimlet.dialects.onnx import AnyType, CustomOp, OnnxOp, ReferenceAttr, ops, schema_table
from gimlet.dialects.onnx.attributes import int_attr, texts_of
from gimlet.dialects.onnx.exporter import read_opsets
from gimlet.dialects.onnx.importer import FUNCTION
from gimlet.dialects.onnx.names import named_location, node_name, proposed_name, set_value_name
from gimlet.dialects.onnx.op import ABSENT_INPUTS, without_absent
from gimlet.dialects.onnx.verify import OPSETS
from gimlet.passes.entry import describe, entry_function

Key = tuple[str, str, str]


@dataclass(frozen=True)
class InlineFunctionsPass(ModulePass):
    """Replaces calls of the model's own functions by the functions' bodies, and removes the functions.

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = onnx.custom "my", "Leaky"(%x) {slope = 0.25} : (tensor<4xf32>) -> tensor<4xf32> loc("act")
        func.return %y : tensor<4xf32>
      }
      func.func private @my.Leaky(%a: !onnx.any) -> !onnx.any attributes {
          onnx.function = {attributes = ["slope"], defaults = {}, domain = "my", name = "Leaky"},
          onnx.opsets = {"" = 17 : i64}} {
        %b = onnx.LeakyRelu v16(%a) {alpha = #onnx.ref<"slope", "float">} : (!onnx.any) -> !onnx.any loc("leaky")
        func.return %b : !onnx.any
      }
    }
    ```

    ```mlir
    builtin.module attributes {onnx.opsets = {"" = 17 : i64, my = 1 : i64}} {
      func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
        %y = onnx.LeakyRelu v16(%x) {alpha = 0.25} : (tensor<4xf32>) -> tensor<4xf32> loc("act/leaky")
        func.return %y : tensor<4xf32>
      }
    }
    ```

    An attribute takes the value of the call, else the function's default, else it is left out. A node of the body is
    called after the call and itself, and a value as well; results keep the names that they have at the call.

    It must not act where the function calls itself, or where an operator has another version at the function's opset
    than at the module's: it fails and names them. A function that nobody calls is removed.

    Requires: nothing. Ensures: no function is left that is part of the model but @main.
    """

    name = "inline-functions"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        del ctx
        functions = {
            key_of(function): function
            for function in op.body.block.ops
            if isinstance(function, FuncOp) and FUNCTION in function.attributes
        }
        if not functions:
            return
        opsets = _add_opsets(op, functions.values())
        _Inliner(functions, opsets).inline_all(entry_function(op), ())
        for function in functions.values():
            Rewriter.erase_op(function, safe_erase=False)


def _key(op: OnnxOp) -> Key:
    return op.domain, op.op_type, op.overload if isinstance(op, CustomOp) else ""


def key_of(function: FuncOp) -> Key:
    """The domain, name and overload that a function of the model is called by."""
    facts = texts_of(function.attributes[FUNCTION])
    return facts.get("domain", ""), facts.get("name", ""), facts.get("overload", "")


def _add_opsets(module: ModuleOp, functions: Iterable[Operation]) -> dict[str, int]:
    """The versions of the domains that the module imports, with those that only its functions do."""
    opsets, table = read_opsets(module), schema_table()
    added: dict[str, int] = {}
    for function in functions:
        for domain, version in read_opsets(function).items():
            if domain not in opsets:
                added.setdefault(domain, version)
    opsets |= added
    own = (op for op in entry_function(module).walk() if isinstance(op, OnnxOp) and op.domain in added)
    for op in own:
        if table.in_force(op.domain, op.op_type, added[op.domain]) is not op.schema:
            raise PassFailedException(
                f"{describe(op)}: the model imports no opset of this operator's domain, and its functions import "
                f"{added[op.domain]}, at which it is another one"
            )
    module.attributes[OPSETS] = DictionaryAttr({domain: int_attr(opsets[domain]) for domain in sorted(opsets)})
    return opsets


@dataclass
class _Inliner:
    functions: Mapping[Key, FuncOp]
    opsets: Mapping[str, int]
    checked: set[Key] = field(default_factory=set[Key])

    def inline_all(self, root: Operation, stack: tuple[Key, ...]) -> None:
        """Inlines the calls under `root`, which are in the functions of `stack`, the outermost first."""
        for op in list(root.walk()):
            if isinstance(op, CustomOp) and (key := _key(op)) in self.functions:
                if key in stack:
                    cycle = " → ".join(".".join(filter(None, one)) for one in (*stack, key))
                    raise PassFailedException(f"{describe(op)}: the model's functions call each other: {cycle}")
                self._check_versions(key)
                for inlined in self._inline(op, self.functions[key]):
                    self.inline_all(inlined, (*stack, key))

    def _check_versions(self, key: Key) -> None:
        if key in self.checked:
            return
        self.checked.add(key)
        function = self.functions[key]
        own, table = read_opsets(function), schema_table()
        for op in function.walk():
            if not isinstance(op, OnnxOp) or op.domain not in own or _key(op) in self.functions:
                continue
            # An operator that no schema has is None on both sides.
            if table.in_force(op.domain, op.op_type, self.opsets[op.domain]) is not op.schema:
                raise PassFailedException(
                    f"function @{function.sym_name.data} is written for opset {own[op.domain]}, at which {op.op_type} "
                    f"is another one than at the model's opset {self.opsets[op.domain]}: convert one of the two"
                )

    def _inline(self, call: CustomOp, function: FuncOp) -> list[Operation]:
        """Puts a copy of the body before the call, erases the call, and returns what was put there."""
        block = function.body.block
        last = block.last_op
        if not isinstance(last, ReturnOp):
            raise PassFailedException(f"function @{function.sym_name.data} does not end with func.return")
        given = [*call.inputs, *[None] * (len(block.args) - len(call.inputs))]
        if len(given) > len(block.args) or len(call.outputs) > len(last.operands):
            raise PassFailedException(
                f"{describe(call)} has {len(call.inputs)} inputs and {len(call.outputs)} outputs, and function "
                f"@{function.sym_name.data} {len(block.args)} and {len(last.operands)}"
            )
        values: dict[SSAValue, SSAValue] = {
            argument: value for argument, value in zip(block.args, given, strict=True) if value is not None
        }
        arguments = _arguments(call, function)
        copies = [op.clone(values) for op in block.ops if op is not last]
        for copy in (nested for op in copies for nested in op.walk()):
            if any(isinstance(value, OpResult) and value.op.parent is block for value in copy.operands):
                raise PassFailedException(f"function @{function.sym_name.data} uses a value before it is computed")
            _prefix_names(copy, node_name(call) or function.sym_name.data)
            _leave_out(copy, block)
            _fill_in(copy, arguments)
        Rewriter.insert_op(copies, InsertPoint.before(call))
        for original, result in zip(last.operands, call.outputs, strict=False):
            if result is not None:
                self._replace(call, result, values.get(original))
        Rewriter.erase_op(call)
        for copy in (nested for op in copies for nested in op.walk()):
            _check(copy, function)
        return copies

    def _replace(self, call: CustomOp, result: SSAValue, value: SSAValue | None) -> None:
        if value is None:
            raise PassFailedException(f"{describe(call)} leaves out an input that the function returns")
        is_given = value in call.operands
        hint = value.name_hint if is_given else result.name_hint
        if isinstance(value.type, AnyType) and not is_given:
            value = Rewriter.replace_value_with_new_type(value, result.type)
        if value.type != result.type and any(isinstance(use.operation, ReturnOp) for use in result.uses):
            # What the model says of its output stays to be compared with what infer-shapes finds.
            identity = ops.Identity.make([value], [result.type], opset=self.opsets.get(""))
            Rewriter.insert_op(identity, InsertPoint.before(call))
            value, hint = identity.results[0], result.name_hint
        result.replace_all_uses_with(value)
        value.name_hint = hint


def _check(op: Operation, function: FuncOp) -> None:
    """What a call gives, or leaves out, may not fit the operator in the body."""
    try:
        op.verify(verify_nested_ops=False)
    except VerifyException as error:
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise PassFailedException(f"{describe(op)} of function @{function.sym_name.data}: {reason}") from None


def _arguments(call: CustomOp, function: FuncOp) -> dict[str, Attribute]:
    """The function's attributes: those of the call, else its defaults."""
    facts = function.attributes[FUNCTION]
    defaults = facts.data.get("defaults") if isinstance(facts, DictionaryAttr) else None
    found = dict(defaults.data) if isinstance(defaults, DictionaryAttr) else {}
    return found | call.onnx_attributes()


def _prefix_names(op: Operation, prefix: str) -> None:
    if name := node_name(op):
        inner = op.location.location if isinstance(op.location, NameLoc) else None
        op.location = named_location(f"{prefix}/{name}", inner)
    for value in (
        *op.results,
        *(argument for region in op.regions for block in region.blocks for argument in block.args),
    ):
        if value.name_hint:
            set_value_name(value, f"{prefix}/{proposed_name(value)}")


def _leave_out(op: Operation, function: Block) -> None:
    """Makes absent the inputs of a copy that are still arguments of the function: the call does not give them."""
    missing = [index for index, value in enumerate(op.operands) if value.owner is function]
    if not missing:
        return
    if not isinstance(op, OnnxOp):
        raise PassFailedException(f"{describe(op)} of a function needs an input that a call leaves out")
    inputs = [None if value is None or value.owner is function else value for value in op.inputs]
    op.properties.pop(ABSENT_INPUTS, None)
    op.operands = without_absent(inputs, ABSENT_INPUTS, op.properties)


def _fill_in(op: Operation, arguments: Mapping[str, Attribute]) -> None:
    """Puts the function's attributes where the body refers to them; what has no value is left out."""
    for name, value in list(op.properties.items()):
        if not isinstance(value, ReferenceAttr):
            continue
        if (given := arguments.get(value.data[0])) is None:
            del op.properties[name]
        else:
            op.properties[name] = given
