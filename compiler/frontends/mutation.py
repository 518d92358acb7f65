"""What a traced program changes in place: inputs, which become outputs too, and buffers, which become states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.utils import _pytree

from gimlet.compiler.frontends.origin import place_of
from gimlet.compiler.frontends.quiet import quiet_torch
from gimlet.runtime.errors import InputError
from gimlet.runtime.signature import Signature

AFTER: Final = ".after"
_CHANGES: Final = {OutputKind.USER_INPUT_MUTATION, OutputKind.BUFFER_MUTATION}


@dataclass(frozen=True)
class ChangesAsOutputs:
    """A program that returns, behind its own outputs, the new values of the inputs and buffers that it changes."""

    program: ExportedProgram
    inputs: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()

    def take_from(self, graph: ir.Graph) -> list[ir.Value]:
        """Takes the new values from the outputs of the program's graph: of the inputs, then of the buffers."""
        outputs = list(graph.outputs)
        kept = len(outputs) - len(self.inputs) - len(self.buffers)
        graph.outputs.clear()
        graph.outputs.extend(outputs[:kept])
        return outputs[kept:]

    def give_back(self, graph: ir.Graph, values: Sequence[ir.Value], signature: Signature) -> Signature:
        """Puts them behind the others, called `x.after` of an input `x`, unless the module returns them anyway.

        Buffers become inputs behind the others.
        """
        names = (*self.inputs, *self.buffers)
        for name, value in zip(names, values, strict=True):
            if value not in graph.outputs:
                value.name = f"{name}{AFTER}"
                graph.outputs.append(value)
        for name in self.buffers:
            value = graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
        changed = tuple((name, str(value.name)) for name, value in zip(self.inputs, values, strict=False))
        return replace(signature, changed=changed)

    def states(self, graph: ir.Graph, values: Sequence[ir.Value]) -> list[tuple[str, int, int]]:
        """The buffers, each with the numbers of its input and of its output."""
        inputs = [value.name for value in graph.inputs]
        outputs = {value: index for index, value in enumerate(graph.outputs)}
        after = values[len(self.inputs) :]
        return [(name, inputs.index(name), outputs[value]) for name, value in zip(self.buffers, after, strict=True)]


def changes_as_outputs(program: ExportedProgram) -> ChangesAsOutputs:
    """The program with what it does to its inputs and buffers as outputs.

    InputError, with the line of PyTorch source, for one that changes a parameter, or a buffer that begins with other
    values than zeros: it becomes a state, and these do.
    """
    program = _without_aliases(program)
    owners = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    changing = any(spec.kind in _CHANGES for spec in program.graph_signature.output_specs)
    _check_returned(program)
    for node in program.graph.nodes:
        for changed in written(node):
            spec = owners.get(origin_of(changed).name)
            if spec is None:
                continue
            changing = True
            if spec.kind == InputKind.PARAMETER:
                raise InputError(
                    f"parameter {spec.target!r} is changed in place, and a bundle's weights are constants",
                    where=place_of(node),
                    hint="take it as an argument: an argument may be changed in place",
                )
            _check_begin(program, spec, place_of(node))
    return _with_changes(program) if changing else ChangesAsOutputs(program)


def _check_returned(program: ExportedProgram) -> None:
    """As for what is changed in place, of a program that returns the new values of its buffers instead."""
    buffers = {spec.target: spec for spec in program.graph_signature.input_specs if spec.kind == InputKind.BUFFER}
    returned = cast(Sequence[Any], program.graph.output_node().args[0])
    for spec, node in zip(program.graph_signature.output_specs, returned, strict=True):
        if spec.kind == OutputKind.BUFFER_MUTATION and spec.target in buffers:
            _check_begin(program, buffers[spec.target], place_of(node))


def _check_begin(program: ExportedProgram, spec: InputSpec, place: str) -> None:
    tensor = _tensor(program, spec) if spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR) else None
    if tensor is not None and tensor.device.type != "meta" and bool(tensor.count_nonzero()):
        raise InputError(
            f"buffer {spec.target!r} is changed in place, and begins with other values than zeros",
            where=place,
            hint="it would become a state, which begins with zeros: take it as an argument",
        )


def _without_aliases(program: ExportedProgram) -> ExportedProgram:
    """The program with a buffer in the place of each constant that is the same memory.

    An object of the module's that is no module, such as a cache of transformers, may hold a buffer beside the module:
    torch.export then takes what the object holds for a constant.
    """
    specs = program.graph_signature.input_specs
    tensors = {spec.arg.name: _tensor(program, spec) for spec in specs}
    buffers = {_memory(tensors[spec.arg.name]): spec.arg.name for spec in specs if spec.kind == InputKind.BUFFER}
    aliases = {
        spec.arg.name: buffers[memory]
        for spec in specs
        if spec.kind == InputKind.CONSTANT_TENSOR
        and (memory := _memory(tensors[spec.arg.name])) is not None
        and memory in buffers
    }
    if not aliases:
        return program
    module = copied(program)
    nodes = {node.name: node for node in module.graph.nodes if node.op == "placeholder"}
    for alias, buffer in aliases.items():
        nodes[alias].replace_all_uses_with(nodes[buffer])
        module.graph.erase_node(nodes[alias])
    kept = [spec for spec in specs if spec.arg.name not in aliases]
    return rebuilt(program, module, input_specs=kept)


def _tensor(program: ExportedProgram, spec: InputSpec) -> torch.Tensor | None:
    target = str(spec.target)
    found = program.state_dict.get(target, program.constants.get(target))
    return found if isinstance(found, torch.Tensor) else None


def _memory(tensor: torch.Tensor | None) -> tuple[Any, ...] | None:
    if tensor is None or tensor.device.type == "meta" or tensor.numel() == 0:
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def copied(program: ExportedProgram) -> torch.fx.GraphModule:
    """A copy of the program's graph in which nodes keep their names: by itself, fx renames one called `input`."""
    module = copy.deepcopy(program.graph_module)
    for node, original in zip(module.graph.nodes, program.graph_module.graph.nodes, strict=True):
        node.name = original.name
    return module


def rebuilt(program: ExportedProgram, module: torch.fx.GraphModule, **changes: Any) -> ExportedProgram:
    """The program with another graph, and what of `input_specs`, `output_specs`, `state_dict`, … has other values."""
    signature = replace(
        program.graph_signature,
        input_specs=changes.get("input_specs", program.graph_signature.input_specs),
        output_specs=changes.get("output_specs", program.graph_signature.output_specs),
    )
    return ExportedProgram(
        root=module,
        graph=module.graph,
        graph_signature=signature,
        state_dict=changes.get("state_dict", program.state_dict),
        range_constraints=program.range_constraints,
        module_call_graph=changes.get("module_call_graph", program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=changes.get("constants", program.constants),
        verifiers=program.verifiers,
    )


def _with_changes(program: ExportedProgram) -> ChangesAsOutputs:
    with quiet_torch(), torch.no_grad():
        functional = program.run_decompositions({})
    specs = functional.graph_signature.output_specs
    module = copied(functional)
    output = module.graph.output_node()
    pairs = list(zip(specs, cast(Sequence[Any], output.args[0]), strict=True))
    order = [spec.arg.name for spec in functional.graph_signature.input_specs]
    of_inputs = sorted(
        (pair for pair in pairs if pair[0].kind == OutputKind.USER_INPUT_MUTATION),
        key=lambda pair: order.index(str(pair[0].target)),
    )
    # A buffer that is written before it is read keeps nothing.
    read = {node.name for node in module.graph.nodes if any(not _overwrites(reader, node) for reader in node.users)}
    owners = {buffer: name for name, buffer in functional.graph_signature.inputs_to_buffers.items()}
    of_buffers = [
        pair for pair in pairs if pair[0].kind == OutputKind.BUFFER_MUTATION and owners[str(pair[0].target)] in read
    ]
    pairs = [pair for pair in pairs if pair[0].kind == OutputKind.USER_OUTPUT] + of_inputs + of_buffers
    output.args = (tuple(node for _, node in pairs),)
    outputs = [replace(spec, kind=OutputKind.USER_OUTPUT, target=None) for spec, _ in pairs]
    whole = functional.module_call_graph[0]
    if whole.signature is None:
        raise InputError("the program does not say how it is called", hint="export it again")
    call = replace(
        whole.signature,
        outputs=[spec.arg for spec in outputs],
        out_spec=_pytree.tree_structure(tuple(range(len(outputs)))),
    )
    made = rebuilt(functional, module, output_specs=outputs, module_call_graph=[replace(whole, signature=call)])
    inputs, buffers = (tuple(str(spec.target) for spec, _ in changes) for changes in (of_inputs, of_buffers))
    return ChangesAsOutputs(made, inputs, buffers)


def _overwrites(reader: torch.fx.Node, node: torch.fx.Node) -> bool:
    """Whether an operation takes only the form of `node`, and other values."""
    return reader.target is torch.ops.aten.copy.default and reader.args[0] is node and reader.args[1] is not node


def written(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The arguments that an operation writes to."""
    return [value for value, info in _aliases(node) if info.is_write]


def _aliases(node: torch.fx.Node) -> list[tuple[torch.fx.Node, Any]]:
    """The arguments that an operation writes to or whose memory its result shares, by its schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    pairs = [
        (node.args[index] if index < len(node.args) else node.kwargs.get(argument.name), argument.alias_info)
        for index, argument in enumerate(schema.arguments)
    ]
    return [(value, info) for value, info in pairs if info is not None and isinstance(value, torch.fx.Node)]


def origin_of(node: torch.fx.Node) -> torch.fx.Node:
    """What a node is a view of."""
    while aliases := _aliases(node):
        node = aliases[0][0]
    return node
