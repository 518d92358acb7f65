"""From a model of `onnx_ir` to a module of the onnx dialect.

Nothing is copied but small tensors: weights stay where the model has them and are registered in the context's store.
Names, opsets, symbolic dimensions, subgraphs, functions and metadata are kept; where in the source a node comes from
becomes its location. `exporter` is the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from gimlet.dialects.onnx.attributes import (
    SparseAttr,
    WeightAttr,
    encode_text,
    int_attr,
    strings_attr,
    tensor_attr,
    text_dict,
)
from gimlet.dialects.onnx.defaults import DEFAULT
from gimlet.dialects.onnx.extra_ops import CustomOp, InitializerOp, YieldOp
from gimlet.dialects.onnx.ir_sparse import sparse_attr
from gimlet.dialects.onnx.ir_types import TypeReader, attribute_from_ir
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES, register_tensor, small_array
from gimlet.dialects.onnx.names import NAME_ATTR, assign_names, set_value_name
from gimlet.dialects.onnx.op import ABSENT_INPUTS, ABSENT_OUTPUTS, GRAPHS, SINCE_VERSION, OnnxOp, without_absent
from gimlet.dialects.onnx.ops import OPERATORS
from gimlet.dialects.onnx.proto import TRAINING_META, is_disguised, sparse_of
from gimlet.dialects.onnx.provenance import (
    GRAPH_METADATA,
    METADATA,
    node_location,
    notes,
    notes_of_node,
    user_metadata,
)
from gimlet.dialects.onnx.schema import schema_table
from gimlet.dialects.onnx.verify import OPSETS
from gimlet.runtime.errors import InputError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

IR_VERSION = "onnx.ir_version"
MODEL = "onnx.model"
FUNCTION = "onnx.function"
QUANTIZATION = "onnx.quantization"
INPUTS = "onnx.inputs"
"""On @main: all inputs of the graph in their order, where some have initializers and are constants here."""
FIRST_WITH_DEFAULTS = 4
"""The first IR version of ONNX whose models list an initializer among the inputs only where it is a default."""
TRAINING = "onnx.training_info"
PHASE = "gimlet.phase"
DIALECT_VERSION = "gimlet.dialect_version"
QUANTIZATION_META = "quant_parameter_tensor_names"
_DEFAULT_DOMAIN = "ai.onnx"


def import_model(
    model: ir.Model, ctx: GimletContext, *, data_roots: Iterable[Path] = (), overridable: str | None = None
) -> ModuleOp:
    """The module of a model: `@main`, and a private function for each of the model's own functions.

    External data may lie in the model's folder, or under one of `data_roots`. An input that has an initializer stays an
    input, with a default, where its whole name matches the regular expression `overridable`; by default where the IR
    version of the model is at least 4, as in ONNX Runtime: older ones list every weight among the inputs. The others
    are constants. InputError says what in the model cannot be represented, and where.
    """
    pattern = overridable if overridable is not None else ".*" if model.ir_version >= FIRST_WITH_DEFAULTS else ""
    return _Importer(model, ctx, tuple(data_roots), pattern).module()


class _Importer:
    def __init__(self, model: ir.Model, ctx: GimletContext, data_roots: tuple[Path, ...], overridable: str) -> None:
        self.overridable = overridable
        self.model = model
        self.ctx = ctx
        self.data_roots = data_roots
        self.values: dict[ir.Value, SSAValue] = {}
        self.opsets = _opsets(model.graph.opset_imports)
        self.functions = {(domain_of(f.domain), f.name, f.overload) for f in model.functions.values()}
        self.types = TypeReader(model.graph.inputs)
        self.quantization: dict[str, Attribute] = {}

    def module(self) -> ModuleOp:
        functions = [self._function(function) for function in self.model.functions.values()]
        main = self._main(self.model.graph)
        module = ModuleOp([main, *functions], attributes=self._module_attributes())
        assign_names(module)
        return module

    def _module_attributes(self) -> dict[str, Attribute]:
        model, graph = self.model, self.model.graph
        facts = {
            "producer_name": model.producer_name,
            "producer_version": model.producer_version,
            "domain": model.domain,
            "doc": model.doc_string,
            "graph_name": graph.name,
            "graph_doc": graph.doc_string,
        }
        attributes: dict[str, Attribute] = {
            OPSETS: _opset_attr(self.opsets),
            IR_VERSION: int_attr(model.ir_version),
            MODEL: DictionaryAttr({name: StringAttr(text) for name, text in facts.items() if text}),
        }
        if model.model_version:
            attributes["onnx.model_version"] = int_attr(model.model_version)
        if metadata := user_metadata(model.metadata_props):
            attributes[METADATA] = text_dict(metadata)
        if metadata := user_metadata(graph.metadata_props):
            attributes[GRAPH_METADATA] = text_dict(metadata)
        if training := model.meta.get(TRAINING_META):
            attributes[TRAINING] = strings_attr(training)
        if self.quantization:
            attributes[QUANTIZATION] = DictionaryAttr(self.quantization)
        return attributes | {PHASE: StringAttr("import"), DIALECT_VERSION: int_attr(1)}

    def _main(self, graph: ir.Graph) -> FuncOp:
        inputs = [value for value in graph.inputs if value.const_value is None or self._is_overridable(value)]
        block = Block(arg_types=[self.types.input_type(value) for value in inputs])
        self._bind(inputs, block.args)
        results = self._fill(block, graph, self.opsets)
        block.add_op(ReturnOp(*results))
        function_type = (list(block.arg_types), [value.type for value in results])
        function = FuncOp(
            "main", function_type, Region(block), arg_attrs=_name_attrs(inputs), res_attrs=_name_attrs(graph.outputs)
        )
        function.arg_attrs = self._with_defaults(inputs, function.arg_attrs)
        if len(inputs) < len(graph.inputs):
            function.attributes[INPUTS] = strings_attr([value.name or "" for value in graph.inputs])
        return function

    def _is_overridable(self, value: ir.Value) -> bool:
        """Whether an input that has an initializer stays an input. Strings have no place in a bundle's weights."""
        tensor = value.const_value
        if tensor is None or tensor.dtype == ir.DataType.STRING:
            return False
        return re.fullmatch(self.overridable, value.name or "") is not None

    def _with_defaults(
        self, inputs: Sequence[ir.Value], attributes: ArrayAttr[DictionaryAttr] | None
    ) -> ArrayAttr[DictionaryAttr]:
        found: list[DictionaryAttr] = []
        for value, known in zip(inputs, attributes or (), strict=True):
            tensor = value.const_value
            default = {} if tensor is None else {DEFAULT: self._tensor_attribute(value.name or "", tensor)}
            found.append(DictionaryAttr({**known.data, **default}))
        return ArrayAttr(found)

    def _function(self, function: ir.Function) -> FuncOp:
        block = Block(arg_types=[self.types.type_of(value) for value in function.inputs])
        self._bind(function.inputs, block.args)
        opsets = _opsets(function.opset_imports)
        results = self._fill(block, function.graph, opsets)
        block.add_op(ReturnOp(*results))
        function_type = (list(block.arg_types), [value.type for value in results])
        symbol = ".".join(part for part in (function.domain, function.name, function.overload) if part)
        func = FuncOp(
            symbol,
            function_type,
            Region(block),
            visibility="private",
            arg_attrs=_name_attrs(function.inputs),
            res_attrs=_name_attrs(function.outputs),
        )
        func.attributes[OPSETS] = _opset_attr(opsets)
        func.attributes[FUNCTION] = self._function_attr(function)
        func.attributes.update(notes(function.doc_string, function.metadata_props))
        return func

    def _function_attr(self, function: ir.Function) -> DictionaryAttr:
        defaults = {name: attribute for name, attribute in function.attributes.items() if attribute.value is not None}
        entries: dict[str, Attribute] = {
            "domain": StringAttr(domain_of(function.domain)),
            "name": StringAttr(function.name),
            "attributes": strings_attr([name for name in function.attributes if name not in defaults]),
            "defaults": DictionaryAttr({name: attribute_from_ir(value, "") for name, value in defaults.items()}),
        }
        if function.overload:
            entries["overload"] = StringAttr(function.overload)
        return DictionaryAttr(entries)

    def _bind(self, values: Sequence[ir.Value], ssa_values: Sequence[SSAValue]) -> None:
        for value, ssa in zip(values, ssa_values, strict=True):
            self.values[value] = ssa
            set_value_name(ssa, value.name or "")
            self._keep_quantization(value)

    def _keep_quantization(self, value: ir.Value) -> None:
        annotation = value.meta.get(QUANTIZATION_META)
        if annotation and value.name:
            self.quantization[encode_text(value.name)] = text_dict(annotation)

    def _fill(self, block: Block, graph: ir.Graph, opsets: Mapping[str, int]) -> list[SSAValue]:
        """Adds a graph's initializers and nodes to a block, and returns what its outputs are."""
        for value in graph.initializers.values():
            if value.const_value is not None and value not in self.values:
                block.add_op(self._initializer(value, value.const_value))
        if not _is_sorted(graph, self.values):
            try:
                graph.sort()
            except ValueError as error:
                raise InputError(f"the nodes of graph {graph.name!r} form a cycle", hint="export it again") from error
        for node in graph:
            block.add_op(self._node(node, opsets))
        return [self._value(value, f"output of graph {graph.name or ''!r}") for value in graph.outputs]

    def _value(self, value: ir.Value, reader: str) -> SSAValue:
        found = self.values.get(value)
        if found is None:
            raise InputError(
                f"{value.name!r} is read, but neither an input nor an initializer nor the output of a node",
                where=reader,
                hint="the model is not valid: check it with onnx.checker, and export it again",
            )
        return found

    def _initializer(self, value: ir.Value, tensor: ir.TensorProtocol) -> InitializerOp:
        op = self._constant(value.name or "", tensor)
        op.attributes.update(notes(tensor.doc_string, value.metadata_props))
        self._bind([value], op.results)
        return op

    def _constant(self, name: str, tensor: ir.TensorProtocol) -> InitializerOp:
        if isinstance(tensor, ir.StringTensor | ir.TensorProtoTensor) and (text := _sparse_text(tensor)):
            return InitializerOp.from_sparse(self._sparse(name, text), name)
        if _is_small(tensor) and (array := small_array(name, tensor, self.data_roots)) is not None:
            return InitializerOp.from_array(array, name)
        key, type_ = register_tensor(self.ctx.weights, name, tensor, self.data_roots)
        return InitializerOp.from_key(key, type_, name)

    def _node(self, node: ir.Node, opsets: Mapping[str, int]) -> Operation:
        where = describe(node)
        domain = domain_of(node.domain)
        if domain == "" and node.op_type == "Constant" and (tensor := _large_constant(node)) is not None:
            if [bool(value.name) for value in node.outputs] != [True]:
                raise InputError(f"it has {len(node.outputs)} outputs, not one", where=where)
            op: OnnxOp = self._constant(node.outputs[0].name or "", tensor)
            op.attributes.update(notes(tensor.doc_string, {}))
            self._bind(node.outputs, op.results)
            return op
        inputs = [None if value is None else self._value(value, where) for value in node.inputs]
        present = [value for value in node.outputs if value.name]
        result_types = [self.types.type_of(value) if value.name else None for value in node.outputs]
        graphs, attributes = self._attributes(node, opsets, where)
        properties = dict(attributes)
        cls = self._operator(node, domain, opsets, properties)
        if cls is None:
            op = CustomOp.make_custom(
                domain, node.op_type, inputs, result_types, attributes, overload=node.overload, graphs=graphs
            )
        else:
            regions = dict(sorted(graphs.items()))
            if regions and tuple(regions) != cls.schema_at(opsets[domain]).graph_names:
                properties[GRAPHS] = strings_attr(tuple(regions))
            op = cls.create(
                operands=without_absent(inputs, ABSENT_INPUTS, properties),
                result_types=without_absent(result_types, ABSENT_OUTPUTS, properties),
                properties=properties,
                regions=list(regions.values()),
            )
        op.location = node_location(node)
        op.attributes.update(notes_of_node(node))
        self._bind(present, op.results)
        return op

    def _operator(
        self, node: ir.Node, domain: str, opsets: Mapping[str, int], properties: dict[str, Attribute]
    ) -> type[OnnxOp] | None:
        """The class of a node's operator, with its version in `properties` where it is not the newest."""
        if (domain, node.op_type, node.overload) in self.functions:
            return None
        cls = OPERATORS.get((domain, node.op_type))
        if cls is None:
            return None
        if domain not in opsets:
            raise InputError(
                f"the model does not say which opset of {domain or 'ai.onnx'} it is for",
                where=describe(node),
                hint="export it again",
            )
        schema = schema_table().in_force(domain, node.op_type, opsets[domain])
        if schema is None:
            return None
        if schema is not schema_table().newest(domain, node.op_type):
            properties[SINCE_VERSION] = int_attr(schema.since_version)
        return cls

    def _attributes(
        self, node: ir.Node, opsets: Mapping[str, int], where: str
    ) -> tuple[dict[str, Region], dict[str, Attribute]]:
        graphs: dict[str, Region] = {}
        attributes: dict[str, Attribute] = {}
        for name, attribute in node.attributes.items():
            if attribute.is_ref():
                attributes[name] = attribute_from_ir(attribute, where)
            elif attribute.type == ir.AttributeType.GRAPH:
                graphs[name] = self._subgraph(attribute.as_graph(), opsets)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for index, graph in enumerate(attribute.as_graphs()):
                    graphs[f"{name}[{index}]"] = self._subgraph(graph, opsets)
            elif attribute.type == ir.AttributeType.STRING and is_disguised(attribute.value):
                attributes[name] = self._sparse(f"{node.name or node.op_type}.{name}", attribute.as_string())
            elif attribute.type == ir.AttributeType.STRINGS and any(map(is_disguised, attribute.as_strings())):
                texts = attribute.as_strings()
                attributes[name] = ArrayAttr([self._sparse(f"{node.name or node.op_type}.{name}", t) for t in texts])
            elif attribute.type == ir.AttributeType.TENSOR:
                attributes[name] = self._tensor_attribute(f"{node.name or node.op_type}.{name}", attribute.as_tensor())
            else:
                attributes[name] = attribute_from_ir(attribute, where)
        return graphs, attributes

    def _tensor_attribute(self, name: str, tensor: ir.TensorProtocol) -> Attribute:
        if _is_small(tensor) and (array := small_array(name, tensor, self.data_roots)) is not None:
            return tensor_attr(array)
        key, type_ = register_tensor(self.ctx.weights, name, tensor, self.data_roots)
        return WeightAttr(StringAttr(key), type_)

    def _sparse(self, name: str, text: str) -> SparseAttr:
        return sparse_attr(sparse_of(text), name, self.ctx.weights, self.data_roots)

    def _subgraph(self, graph: ir.Graph, opsets: Mapping[str, int]) -> Region:
        block = Block(arg_types=[self.types.type_of(value) for value in graph.inputs])
        self._bind(graph.inputs, block.args)
        results = self._fill(block, graph, opsets)
        block.add_op(YieldOp.create(operands=results))
        return Region(block)


def domain_of(domain: str) -> str:
    """A domain as the schemas spell it: the default one is ''."""
    return "" if domain == _DEFAULT_DOMAIN else domain


def describe(node: ir.Node) -> str:
    """What a message calls a node."""
    operator = f"{domain_of(node.domain) or 'ai.onnx'}.{node.op_type}"
    return f"node {node.name!r} ({operator})" if node.name else f"a node of {operator}"


def _opsets(imports: Mapping[str, int]) -> dict[str, int]:
    opsets = {domain_of(domain): version for domain, version in imports.items()}
    # ONNX Runtime's exporters and optimisers use its domain without importing it, and it has a single version.
    opsets.setdefault("com.microsoft", 1)
    for domain, newest in schema_table().opsets.items():
        if opsets.get(domain, 0) > newest:
            raise InputError(
                f"the model imports opset {opsets[domain]} of {domain or 'ai.onnx'}, and the newest known is {newest}",
                hint="export it for an older opset, or upgrade gimlet",
            )
    return opsets


def _opset_attr(opsets: Mapping[str, int]) -> DictionaryAttr:
    return DictionaryAttr({domain: int_attr(version) for domain, version in sorted(opsets.items())})


def _name_attrs(values: Iterable[ir.Value]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(
        [
            DictionaryAttr({NAME_ATTR: StringAttr(value.name or ""), **notes(value.doc_string, value.metadata_props)})
            for value in values
        ]
    )


def _is_sorted(graph: ir.Graph, known: Mapping[ir.Value, SSAValue]) -> bool:
    seen = set(known)
    for node in graph:
        if any(value is not None and value not in seen and value.producer() is not None for value in node.inputs):
            return False
        seen.update(node.outputs)
    return True


def _large_constant(node: ir.Node) -> ir.TensorProtocol | None:
    attribute = node.attributes.get("value")
    if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
        return None
    tensor = attribute.as_tensor()
    return None if _is_small(tensor) else tensor


def _sparse_text(tensor: ir.TensorProtocol) -> str:
    """The disguise of a sparse tensor, or ""."""
    if tensor.dtype != ir.DataType.STRING or tensor.size != 1:
        return ""
    (text,) = tensor.numpy().ravel().tolist()
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return decoded if is_disguised(decoded) else ""


def _is_small(tensor: ir.TensorProtocol) -> bool:
    """Whether the text holds a tensor. Strings have no place in the weight store."""
    return tensor.dtype == ir.DataType.STRING or tensor.nbytes <= INLINE_BYTES
