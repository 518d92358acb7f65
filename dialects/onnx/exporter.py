"""From operations of the onnx dialect to a model of `onnx_ir`.

Weights become tensors that are read only when the model is written. Values keep their names where these are unique;
dimensions of inputs and outputs keep their symbols. A model is made from a whole module, or from any block: a segment,
or a single operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.traits import IsTerminator

from gimlet.dialects.onnx.attributes import (
    SparseAttr,
    WeightAttr,
    decode_text,
    encode_text,
    python_value,
    tensor_value,
    text_of,
    texts_of,
)
from gimlet.dialects.onnx.defaults import default_weights
from gimlet.dialects.onnx.extra_ops import CustomOp, InitializerOp
from gimlet.dialects.onnx.importer import (
    FUNCTION,
    INPUTS,
    IR_VERSION,
    MODEL,
    PHASE,
    QUANTIZATION,
    QUANTIZATION_META,
    TRAINING,
)
from gimlet.dialects.onnx.ir_sparse import dense_tensor, sparse_proto
from gimlet.dialects.onnx.ir_types import attribute_to_ir, type_to_ir
from gimlet.dialects.onnx.ir_weights import inline_tensor, tensor_of
from gimlet.dialects.onnx.names import declared_name, proposed_name, value_name
from gimlet.dialects.onnx.op import OnnxOp
from gimlet.dialects.onnx.proto import TRAINING_META, disguise
from gimlet.dialects.onnx.provenance import (
    DOC,
    GRAPH_METADATA,
    METADATA,
    RESULTS,
    SCOPE_KEY,
    SUBGRAPHS,
    add_notes,
    scope_of,
)
from gimlet.dialects.onnx.types import dims_of, dtype_of
from gimlet.dialects.onnx.values import constant_value
from gimlet.dialects.onnx.verify import OPSETS
from gimlet.dialects.onnx.weights import Weight, WeightStore
from gimlet.runtime.errors import InputError

if TYPE_CHECKING:
    from gimlet.dialects.context import GimletContext

DEFAULT_IR_VERSION = 10
WEIGHT_KEY = "gimlet.weight"
"""In `meta` of an exported initializer: its key in the weight store."""

NamedValues = Sequence[tuple[str, SSAValue]]


def export_block(
    block: Block | FuncOp,
    inputs: NamedValues,
    outputs: NamedValues,
    opsets: Mapping[str, int],
    ctx: GimletContext,
    name: str,
    *,
    ir_version: int = DEFAULT_IR_VERSION,
    types: bool = False,
) -> ir.Model:
    """A model of the ONNX operations of a block, with the given names for its inputs and outputs.

    `inputs` and `outputs` are (name, value) pairs. A constant that the block reads and that is defined outside it is
    taken along. Inner values have `types` only if asked for: frameworks infer them, and refuse what disagrees.
    InputError if the block reads any other value that is not an input, or holds a foreign operation.
    """
    if isinstance(block, FuncOp):
        block = block.body.block
    return _Exporter(ctx, opsets, types=types).model(block, inputs, outputs, name, ir_version)


def export_module(module: ModuleOp, ctx: GimletContext) -> ir.Model:
    """The model of a module of ONNX operations, as it was imported if nothing changed: names, types, texts and all.

    `proto.to_proto` makes the protobuf. InputError if there is no `@main`.
    """
    functions = {op.sym_name.data: op for op in module.body.block.ops if isinstance(op, FuncOp)}
    if "main" not in functions:
        raise InputError("the module has no function @main", hint="is this a model that was imported?")
    main = functions.pop("main")
    opsets = read_opsets(module)
    version = module.attributes.get(IR_VERSION)
    exporter = _Exporter(ctx, opsets, faithful=True, types=module.attributes.get(PHASE) == StringAttr("import"))
    model = exporter.model(
        main.body.block,
        function_inputs(main),
        function_outputs(main),
        texts_of(module.attributes.get(MODEL)).get("graph_name", "main"),
        version.value.data if isinstance(version, IntegerAttr) else DEFAULT_IR_VERSION,
    )
    for function in functions.values():
        exported = exporter.function(function)
        model.functions[exported.identifier()] = exported
    _add_facts(model, module, exporter.by_name)
    _add_defaults(model.graph, main, ctx)
    _add_default_inputs(model.graph, main)
    for value, attributes in zip(model.graph.inputs, main.arg_attrs or (), strict=False):
        add_notes(value, attributes.data)
    for value, attributes in zip(model.graph.outputs, main.res_attrs or (), strict=False):
        add_notes(value, attributes.data)
    return model


def _add_defaults(graph: ir.Graph, main: FuncOp, ctx: GimletContext) -> None:
    """The initializers of inputs that have a default."""
    inputs = list(graph.inputs)
    for index, weight in default_weights(main, ctx).items():
        inputs[index].const_value = tensor_of(inputs[index].name or "", weight)
        graph.register_initializer(inputs[index])


def _add_default_inputs(graph: ir.Graph, main: FuncOp) -> None:
    """Inputs that have initializers, which are constants in the IR, are inputs again in the place where they were."""
    names = main.attributes.get(INPUTS)
    order: list[str] = [] if names is None else python_value(names)
    inputs = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    if order:
        kept = [inputs[name] for name in order if name in inputs]
        rest = [value for value in graph.inputs if value.name not in order]
        graph.inputs.clear()
        graph.inputs.extend([*kept, *rest])


def export_without_weights(function: FuncOp, opsets: Mapping[str, int]) -> tuple[ir.Model, dict[SSAValue, ir.Value]]:
    """A model to analyse, and which of its values is which. Tensors of the weight store are inputs without values."""
    exporter = _Exporter(None, opsets)
    name = function.sym_name.data
    inputs, outputs = function_inputs(function), function_outputs(function)
    model = exporter.model(function.body.block, inputs, outputs, name, DEFAULT_IR_VERSION)
    return model, exporter.values


def read_opsets(op: Operation) -> dict[str, int]:
    """The opset versions that a module or function declares. InputError where they are not whole numbers by domain."""
    opsets = op.attributes.get(OPSETS)
    if opsets is None:
        return {}
    hint = 'write it as {"" = 17 : i64}, each domain with a whole number'
    if not isinstance(opsets, DictionaryAttr):
        raise InputError(f"{OPSETS} is {opsets}, not a table of versions by domain", hint=hint)
    for domain, version in opsets.data.items():
        if not isinstance(version, IntegerAttr):
            raise InputError(f"{OPSETS} has {version} for the domain {domain!r}, not a version", hint=hint)
    return {domain: python_value(version) for domain, version in opsets.data.items()}


def function_inputs(function: FuncOp) -> list[tuple[str, SSAValue]]:
    """The arguments of a function with their declared names."""
    attributes = list(function.arg_attrs or ())
    names = [declared_name(attributes[i]) if i < len(attributes) else "" for i in range(len(function.args))]
    return [(name or value_name(value), value) for name, value in zip(names, function.args, strict=True)]


def function_outputs(function: FuncOp) -> list[tuple[str, SSAValue]]:
    """The results of a function with their declared names. InputError if the function does not return."""
    terminator = function.body.block.last_op
    if not isinstance(terminator, ReturnOp):
        raise InputError(f"function @{function.sym_name.data} does not end with func.return")
    attributes = list(function.res_attrs or ())
    values = list(terminator.operands)
    names = [declared_name(attributes[i]) if i < len(attributes) else "" for i in range(len(values))]
    return [(name or value_name(value), value) for name, value in zip(names, values, strict=True)]


def _add_facts(model: ir.Model, module: ModuleOp, values: Mapping[str, ir.Value]) -> None:
    facts = texts_of(module.attributes.get(MODEL))
    model.producer_name = facts.get("producer_name")
    model.producer_version = facts.get("producer_version")
    model.domain = facts.get("domain")
    model.doc_string = facts.get("doc")
    model.graph.doc_string = facts.get("graph_doc")
    version = module.attributes.get("onnx.model_version")
    model.model_version = python_value(version) if version is not None else None
    model.metadata_props.update(texts_of(module.attributes.get(METADATA)))
    if (training := module.attributes.get(TRAINING)) is not None:
        model.meta[TRAINING_META] = python_value(training)
    model.graph.metadata_props.update(texts_of(module.attributes.get(GRAPH_METADATA)))
    annotations = module.attributes.get(QUANTIZATION)
    for name, annotation in annotations.data.items() if isinstance(annotations, DictionaryAttr) else ():
        name = decode_text(name)
        if name in values:
            values[name].meta[QUANTIZATION_META] = texts_of(annotation)


class _Exporter:
    def __init__(
        self, ctx: GimletContext | None, opsets: Mapping[str, int], *, faithful: bool = False, types: bool = False
    ) -> None:
        """`faithful` keeps what frameworks do without: sparse storage, texts, scopes of weights; `types` types."""
        self.ctx = ctx
        self.opsets = dict(opsets)
        self.values: dict[SSAValue, ir.Value] = {}
        self.by_name: dict[str, ir.Value] = {}
        self.endings: Counter[str] = Counter()
        self.node_names: Counter[str] = Counter()
        self.initializers: list[ir.Value] = []
        self.by_key: dict[str, ir.Value] = {}
        self.in_function = False
        self.faithful = faithful
        self.types = types

    def model(self, block: Block, inputs: NamedValues, outputs: NamedValues, name: str, ir_version: int) -> ir.Model:
        for input_name, value in inputs:
            self._define(value, input_name)
        for output_name, _ in outputs:
            self.by_name.setdefault(output_name, ir.Value(name=output_name))
        graph_inputs = [self.values[value] for _, value in inputs]
        nodes = self._nodes(block.ops)
        graph_inputs += [value for value in self.by_key.values() if value.const_value is None]
        results = self._outputs(outputs, nodes, {id(node) for node in nodes})
        graph = ir.Graph(
            graph_inputs, results, nodes=nodes, initializers=self.initializers, opset_imports=self.opsets, name=name
        )
        return ir.Model(graph, ir_version=ir_version, functions=())

    def function(self, function: FuncOp) -> ir.Function:
        """One of the model's own functions."""
        facts = function.attributes.get(FUNCTION)
        if not isinstance(facts, DictionaryAttr):
            raise InputError(f"@{function.sym_name.data} is not a function of an ONNX model", hint="inline it")
        exporter = _Exporter(self.ctx, read_opsets(function), faithful=self.faithful, types=self.types)
        exporter.in_function = True
        for name, value in function_inputs(function):
            exporter._define(value, name)
        inputs = [exporter.values[value] for value in function.args]
        nodes = exporter._nodes(function.body.block.ops)
        outputs = exporter._outputs(function_outputs(function), nodes, {id(node) for node in nodes})
        texts = texts_of(facts)
        defaults = facts.data["defaults"]
        names = python_value(facts.data["attributes"])
        attributes = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in names]
        if isinstance(defaults, DictionaryAttr):
            attributes += [attribute_to_ir(name, value) for name, value in defaults.data.items()]
        graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports=exporter.opsets, name=function.sym_name.data)
        overload = texts.get("overload", "")
        exported = ir.Function(texts["domain"], texts["name"], overload, graph=graph, attributes=attributes)
        add_notes(exported, function.attributes)
        return exported

    def _define(self, value: SSAValue, name: str = "") -> ir.Value:
        """The `onnx_ir` value for one that is defined here, under a name that no other has."""
        name = self._free(name or proposed_name(value))
        made = isinstance(value, OpResult) and not isinstance(value.op, InitializerOp)
        inner = made and self.ctx is not None and not self.types
        type_, shape = (None, None) if inner else type_to_ir(value.type)
        exported = ir.Value(name=name, type=type_, shape=shape)
        self.values[value] = self.by_name[name] = exported
        return exported

    def _use(self, value: SSAValue, reader: str) -> ir.Value:
        found = self.values.get(value)
        if found is not None:
            return found
        if isinstance(value, OpResult) and isinstance(value.op, InitializerOp):
            return self._initializer(value.op)
        if (array := constant_value(value)) is not None:
            exported = self._define(value)
            exported.const_value = inline_tensor(exported.name or "", array)
            self.initializers.append(exported)
            return exported
        raise InputError(
            f"value %{proposed_name(value)} is not among the model's inputs", where=reader, hint="pass it as an input"
        )

    def _initializer(self, op: InitializerOp) -> ir.Value:
        result = op.results[0]
        if op.key is not None and op.key in self.by_key:
            self.values[result] = self.by_key[op.key]
            return self.by_key[op.key]
        exported = self._define(result)
        name = exported.name or ""
        if op.key is None:
            exported.const_value = self._inline(name, op)
        else:
            exported.meta[WEIGHT_KEY] = op.key
            self.by_key[op.key] = exported
            if self.ctx is None:
                return exported
            exported.const_value = tensor_of(name, self.ctx.weights[op.key])
        if self.faithful:
            add_notes(exported, {METADATA: op.attributes.get(METADATA, StringAttr(""))})
            exported.const_value.doc_string = text_of(op.attributes.get(DOC)) or None
        self.initializers.append(exported)
        return exported

    def _nodes(self, ops: Iterable[Operation]) -> list[ir.Node]:
        nodes: list[ir.Node] = []
        for op in ops:
            if op.has_trait(IsTerminator):
                continue
            if isinstance(op, InitializerOp) and not self.in_function:
                self._use(op.results[0], op.name)
            elif isinstance(op, OnnxOp):
                nodes.append(self._node(op))
            else:
                raise InputError(f"{op.name} is not an ONNX operation", hint="export before or after it")
        return nodes

    def _node(self, op: OnnxOp) -> ir.Node:
        inputs = [None if value is None else self._use(value, op.name) for value in op.inputs]
        attributes = self._attributes(op)
        outputs = [ir.Value(name="") if value is None else self._define(value) for value in op.outputs]
        results = op.attributes.get(RESULTS)
        texts = results.data if isinstance(results, DictionaryAttr) else {}
        for value in outputs:
            if isinstance(said := texts.get(encode_text(value.name or "")), DictionaryAttr):
                add_notes(value, said.data)
        metadata = texts_of(op.attributes.get(METADATA))
        if scope := scope_of(op):
            metadata[SCOPE_KEY] = scope
        return ir.Node(
            op.domain,
            "Constant" if isinstance(op, InitializerOp) else op.op_type,
            inputs,
            attributes,
            overload=op.overload if isinstance(op, CustomOp) else "",
            outputs=outputs,
            name=op.node_name if self.faithful else self._free_node(op.node_name),
            doc_string=text_of(op.attributes.get(DOC)) or None,
            metadata_props=metadata or None,
        )

    def _attributes(self, op: OnnxOp) -> list[ir.Attr]:
        if isinstance(op, InitializerOp):
            return [ir.AttrTensor("value", self._constant(op))]
        attributes = [self._attribute(name, value) for name, value in op.onnx_attributes().items()]
        graphs: dict[str, list[ir.Graph]] = {}
        said = op.attributes.get(SUBGRAPHS)
        for name, region in op.subgraphs.items():
            graph = self._subgraph(name, region)
            if isinstance(said, DictionaryAttr) and isinstance(texts := said.data.get(name), DictionaryAttr):
                graph.name = text_of(texts.data.get("name")) or graph.name
                add_notes(graph, texts.data)
            graphs.setdefault(name.partition("[")[0], []).append(graph)
        for name, members in graphs.items():
            single = name in op.subgraphs
            attributes.append(ir.AttrGraph(name, members[0]) if single else ir.AttrGraphs(name, members))
        return attributes

    def _constant(self, op: InitializerOp) -> ir.TensorProtocol:
        if op.key is None:
            return self._inline("", op)
        return self._stored(op.key, op.results[0].type)

    def _inline(self, name: str, op: InitializerOp) -> ir.TensorProtocol:
        if op.sparse is None:
            return inline_tensor(name, tensor_value(op.properties["value"]))
        if self.faithful:
            text = disguise(sparse_proto(op.sparse, name, self._store)).encode()
            return ir.StringTensor([text], shape=ir.Shape([]), name=name)
        return dense_tensor(op.sparse, name, self._store)

    @property
    def _store(self) -> WeightStore | None:
        return None if self.ctx is None else self.ctx.weights

    @property
    def _keeps_sparse(self) -> bool:
        """A model to analyse keeps them too: nobody runs it."""
        return self.faithful or self.ctx is None

    def _sparse_attribute(self, name: str, value: SparseAttr) -> ir.Attr:
        if self.faithful:
            return ir.AttrString(name, disguise(sparse_proto(value, "", self._store)))
        if name != "sparse_value":
            raise InputError(f"attribute {name!r} is a sparse tensor, which a segment cannot have")
        return ir.AttrTensor("value", dense_tensor(value, "", self._store))

    def _attribute(self, name: str, value: Attribute) -> ir.Attr:
        if isinstance(value, WeightAttr):
            return ir.AttrTensor(name, self._stored(value.key.data, value.type))
        if isinstance(value, SparseAttr):
            return self._sparse_attribute(name, value)
        if isinstance(value, ArrayAttr) and any(isinstance(item, SparseAttr) for item in value) and self._keeps_sparse:
            items = [item for item in value if isinstance(item, SparseAttr)]
            return ir.AttrStrings(name, [disguise(sparse_proto(item, "", self._store)) for item in items])
        return attribute_to_ir(name, value)

    def _stored(self, key: str, type_: Attribute) -> ir.TensorProtocol:
        if self.ctx is not None:
            return tensor_of(key, self.ctx.weights[key])
        return tensor_of(key, Weight(key, dtype_of(type_), [dim.as_int() for dim in dims_of(type_) or ()], None))

    def _subgraph(self, name: str, region: Region) -> ir.Graph:
        block = region.block
        outer = self.initializers, self.by_key
        if scoped := self.faithful and not self.in_function:
            self.initializers, self.by_key = [], dict(self.by_key)
        inputs = [self._define(argument) for argument in block.args]
        nodes = self._nodes(block.ops)
        terminator = block.last_op
        operands = terminator.operands if terminator is not None else ()
        # ONNX Runtime allocates what a Scan gives by the shapes that its body declares.
        is_scan = isinstance(parent := region.parent_op(), OnnxOp) and parent.op_type == "Scan"
        ids = {id(node) for node in nodes}
        outputs = self._outputs([("", value) for value in operands], nodes, ids, shapes=is_scan)
        initializers = self.initializers if scoped else ()
        self.initializers, self.by_key = outer
        return ir.Graph(inputs, outputs, nodes=nodes, initializers=initializers, name=name)

    def _outputs(
        self, outputs: NamedValues, nodes: list[ir.Node], own: set[int], *, shapes: bool = False
    ) -> list[ir.Value]:
        """The outputs of a graph. What is not made by one of its own nodes, or is an output already, is copied."""
        results: list[ir.Value] = []
        used: set[ir.Value] = set()
        for name, value in outputs:
            exported = self._use(value, f"output {name!r}")
            if exported in used or not self._may_be_output(exported, name, own):
                exported = self._copy(name, value, nodes)
            elif name and exported.name != name:
                self._rename(exported, name)
            exported.type, shape = type_to_ir(value.type)
            # A subgraph's outputs have no names of their own, and are inner values too.
            exported.shape = shape if name or shapes or (self.types and self.faithful) else None
            used.add(exported)
            results.append(exported)
        return results

    @staticmethod
    def _may_be_output(exported: ir.Value, name: str, own: set[int]) -> bool:
        producer = exported.producer()
        return exported.name == name if producer is None else id(producer) in own

    def _rename(self, exported: ir.Value, name: str) -> None:
        self.by_name.pop(exported.name or "", None)
        exported.name = name
        self.by_name[name] = exported

    def _copy(self, name: str, value: SSAValue, nodes: list[ir.Node]) -> ir.Value:
        source = self._use(value, f"output {name!r}")
        type_, shape = type_to_ir(value.type)
        copy = ir.Value(name=name or self._free(f"{source.name}_copy"), type=type_, shape=shape)
        self.by_name[copy.name or ""] = copy
        nodes.append(ir.Node("", "Identity", [source], outputs=[copy], name=f"{copy.name}_identity"))
        return copy

    def _free_node(self, base: str) -> str:
        """`base`, or with a number where another node has it: ONNX lets nodes share a name, ONNX Runtime does not."""
        name = base
        while name in self.node_names:
            self.node_names[base] += 1
            name = f"{base}_{self.node_names[base]}"
        if name:
            self.node_names[name] = 1
        return name

    def _free(self, base: str) -> str:
        """`base`, or where that is taken, `base` with the first number that makes a new name."""
        name = base
        while name in self.by_name:
            self.endings[base] += 1
            name = f"{base}_{self.endings[base]}"
        return name
