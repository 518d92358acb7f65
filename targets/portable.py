"""The portable form of a segment: ONNX that any CPU can run, beside whatever its target makes of it.

Number formats that the reference runtime has no CPU kernel for (bfloat16, the 8-bit floats) are computed in float32
with a round trip at each op's edge (`gimlet.targets.widen`). Types at the edge of the segment stay what they are.
Weights of 8 bits get the sign that makes a CPU's sums of products exact (`gimlet.targets.unsigned_weights`).

Weights are external data, in the file that the whole bundle shares. Their locations are relative to the bundle's
folder, and whoever reads the model names that folder (the libraries refuse `../`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import ModelProto
from xdsl.ir import SSAValue

from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.exporter import WEIGHT_KEY, export_block
from gimlet.dialects.onnx.proto import to_proto
from gimlet.dialects.onnx.types import element_by_dtype
from gimlet.dialects.onnx.weights import Weight
from gimlet.targets.api import Reason, SegmentContext, WeightReference, WeightsWriter
from gimlet.targets.unsigned_weights import UnsignedWeights
from gimlet.targets.widen import widen_missing_formats

MODEL_FILE = "model.onnx"
PARTS_FILE = "parts.onnx"
"""The portable form, where the segment's own target takes large operators whole and may write `MODEL_FILE` itself."""
WEIGHTS_FILE = "model.weights"

_ALIGNMENT = 64


@dataclass(frozen=True)
class SegmentModel:
    """A segment as an ONNX model, and the weights of the store among its initializers, by the initializer's name."""

    segment: str
    model: ir.Model
    weights: dict[str, Weight]

    @property
    def weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in {weight.key: weight for weight in self.weights.values()}.values())


class FolderWeights:
    """A weights file of a folder's own, where there is no bundle to share one with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._places: dict[str, WeightReference] = {}

    def place(self, weight: Weight) -> WeightReference:
        """Appends the weight to the file, aligned for memory mapping."""
        place = self._places.get(weight.digest())
        if place is None:
            data = ir.Tensor(np.ascontiguousarray(weight.array())).tobytes()
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / WEIGHTS_FILE).open("ab" if self._places else "wb") as file:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                place = WeightReference(WEIGHTS_FILE, file.tell(), len(data))
                file.write(data)
            self._places[weight.digest()] = place
        return place


def segment_model(segment: SegmentContext) -> SegmentModel | Reason:
    """The segment as it is, in its own number formats. Its inner values have types until it is written."""
    op, ctx = segment.op, segment.ctx
    name = op.sym_name.data
    if not isinstance(ctx, GimletContext):
        raise TypeError("a segment is emitted with the context that holds its weights")
    inputs = _named((item.data for item in op.arg_names), op.body.block.args)
    outputs = _named((item.data for item in op.res_names), op.results_yielded)
    model = export_block(op.body.block, inputs, outputs, segment.opsets, ctx, name, types=True)
    weights = {
        initializer: ctx.weights[value.meta[WEIGHT_KEY]]
        for initializer, value in model.graph.initializers.items()
        if WEIGHT_KEY in value.meta
    }
    return SegmentModel(name, model, weights)


def _named(names: Iterable[str], values: Sequence[SSAValue]) -> list[tuple[str, SSAValue]]:
    return list(zip(names, values, strict=True))


def write_model(segment: SegmentModel, weights: WeightsWriter, path: Path) -> ModelProto:
    """Writes the model with its weights in the writer's file, and returns what was written.

    Inner values lose their types: frameworks infer them, and refuse what disagrees.
    """
    _forget_inner_types(segment.model.graph)
    for name, weight in segment.weights.items():
        value = segment.model.graph.initializers.get(name)
        if value is None:
            continue
        place = weights.place(weight)
        dtype = ir.DataType(element_by_dtype(weight.dtype).code)
        value.const_value = ir.ExternalTensor(
            place.location, place.offset, place.length, dtype, shape=ir.Shape(weight.shape), name=name
        )
    proto = to_proto(segment.model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def _forget_inner_types(graph: ir.Graph) -> None:
    for owner in (graph, *graph.subgraphs()):
        for node in owner:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type = value.shape = None


def identity_of(proto: ModelProto, weights: Mapping[str, Weight]) -> bytes:
    """The bytes that tell whether two segments compute the same: the model with digests in place of locations."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in weights and tensor.external_data:
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=f"sha256:{weights[tensor.name].digest()}")
    return copy.SerializeToString(deterministic=True)


def write_portable(segment: SegmentContext, folder: Path, file: str = MODEL_FILE) -> tuple[str, ...] | Reason:
    """Writes the portable form into `folder`. Returns the names of its files there, or why there is no such form."""
    found = segment_model(segment)
    if isinstance(found, Reason):
        return found
    reasons = widen_missing_formats(found.model)
    if reasons:
        return reasons[0]
    UnsignedWeights(found.model, found.weights).rewrite()
    write_model(found, segment.weights or FolderWeights(folder), folder / file)
    own_weights = segment.weights is None and bool(found.weights)
    return (file, WEIGHTS_FILE) if own_weights else (file,)
