"""Splits of tensors that PyTorch's exporter writes as sequences, as `Split`.

It converts `split` and `chunk` to SplitToSequence and one SequenceAt for each part. Sequences stop shape inference and
placement, are no operators of most devices, and do not take bfloat16, all for nothing where the parts are constant.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def split_without_sequences(model: ir.Model) -> None:
    """Replaces each SplitToSequence of known parts, of which every use is a SequenceAt of a known one."""
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.op_type == "SplitToSequence" and node.domain == "":
            _replace(node)


def _replace(node: ir.Node) -> None:
    graph = node.graph
    sizes = _sizes(node)
    readers = [use.node for use in node.outputs[0].uses()]
    if sizes is None or graph is None or node.outputs[0].is_graph_output():
        return
    indices = [_index(reader, len(sizes)) for reader in readers]
    parts = [index for index in indices if index is not None]
    if len(parts) < len(indices):
        return
    lengths = ir.node("Constant", [], {"value": ir.tensor(np.array(sizes, np.int64))})
    split = ir.node(
        "Split",
        [node.inputs[0], lengths.outputs[0]],
        {"axis": _axis(node)},
        num_outputs=len(sizes),
        metadata_props=dict(node.metadata_props),
    )
    lengths.name, split.name = f"{node.name}_lengths", node.name
    lengths.outputs[0].name = f"{node.outputs[0].name}_lengths"
    lengths.outputs[0].dtype, lengths.outputs[0].shape = ir.DataType.INT64, ir.Shape([len(sizes)])
    for part, value in enumerate(split.outputs):
        value.name = f"{node.outputs[0].name}_{part}"
        value.type = node.inputs[0].type if node.inputs[0] is not None else None
        value.shape = _part_shape(node, sizes[part])
    graph.insert_before(node, [lengths, split])
    for part, reader in zip(parts, readers, strict=True):
        reader.outputs[0].replace_all_uses_with(split.outputs[part], replace_graph_outputs=True)
        graph.remove(reader, safe=True)
    graph.remove(node, safe=True)


def _axis(node: ir.Node) -> int:
    return node.attributes["axis"].as_int() if "axis" in node.attributes else 0


def _sizes(node: ir.Node) -> list[int] | None:
    """The lengths of the parts; None where they are not known or the parts lose their dimension."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    lengths = (
        None if len(node.inputs) < 2 or node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    )
    if shape is None or lengths is None:
        return None
    array = lengths.numpy()
    if array.ndim == 1:
        return [int(size) for size in array]
    total, size = shape[_axis(node)], int(array)
    if not isinstance(total, int) or size <= 0:
        return None
    return [min(size, total - start) for start in range(0, total, size)]


def _index(reader: ir.Node, count: int) -> int | None:
    if reader.op_type != "SequenceAt" or reader.inputs[1] is None:
        return None
    index = ir.convenience.get_const_tensor(reader.inputs[1])
    number = None if index is None else int(index.numpy())
    return number % count if number is not None and -count <= number < count else None


def _part_shape(node: ir.Node, size: int) -> ir.Shape | None:
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    if shape is None:
        return None
    dims = list(shape)
    dims[_axis(node)] = size
    return ir.Shape(dims)
