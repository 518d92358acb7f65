"""A segment as an OpenVINO model whose weights are in the bundle's file.

OpenVINO writes a model as `model.xml` and a file with its constants, to which the layers refer by offset and size.
Here every constant goes to the writer of the bundle's weights instead, which keeps equal ones once, and the layers
refer to that file: OpenVINO then maps the same bytes that ONNX Runtime's segments use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from gimlet.dialects.onnx.types import shape_of
from gimlet.dialects.onnx.weights import Weight
from gimlet.runtime.expr import Expr
from gimlet.targets.api import DimBound, Reason, SegmentContext, WeightsWriter
from gimlet.targets.openvino.client import check_build
from gimlet.targets.openvino.library import core, tidy
from gimlet.targets.portable import SegmentModel, segment_model, write_model

MODEL_FILE = "model.xml"


def write_xml(segment: SegmentContext, weights: WeightsWriter, folder: Path) -> Reason | int:
    """Writes the segment's model into `folder`. Returns the bytes of its constants, or why there is no model."""
    found = segment_model(segment)
    if isinstance(found, Reason):
        return found
    weights.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".openvino-", dir=weights.root) as name:
        temporary = Path(name)
        try:
            _convert(found, segment, weights, temporary)
        except RuntimeError as error:
            return Reason(found.segment, tidy(error))
        tree = ElementTree.parse(temporary / MODEL_FILE)
        nbytes = _share(tree, temporary / "model.bin", weights)
    _drop_provenance(tree)
    folder.mkdir(parents=True, exist_ok=True)
    tree.write(folder / MODEL_FILE, encoding="utf-8", xml_declaration=True)
    return nbytes


def _convert(found: SegmentModel, segment: SegmentContext, weights: WeightsWriter, folder: Path) -> None:
    """The model as OpenVINO writes it. RuntimeError with its message where it does not convert or build."""
    import openvino

    # ONNX's external data lies relative to the model: it has to be read from where the weights file is.
    with tempfile.NamedTemporaryFile(suffix=".onnx", prefix=".openvino-", dir=weights.root) as source:
        write_model(found, weights, Path(source.name))
        model = core().read_model(source.name)
    shapes = [_shape(value, segment.bounds) for value in segment.op.body.block.args]
    model.reshape({index: shape for index, shape in enumerate(shapes) if shape is not None})
    if (len(model.inputs), len(model.outputs)) != (len(shapes), len(segment.op.results_yielded)):
        raise RuntimeError("OpenVINO's model has other inputs or outputs than the segment")
    written, constants = str(folder / MODEL_FILE), str(folder / "model.bin")
    openvino.serialize(model, written, constants)
    check_build(written, constants)


def _shape(value: Any, bounds: Mapping[str, DimBound]) -> Any:
    """The shape of an input with the range of each dimension, None where not even the rank is known."""
    import openvino

    dims = shape_of(value)
    if dims is None:
        return None
    return openvino.PartialShape([_dimension(dim, bounds) for dim in dims])


def _dimension(dim: Expr | None, bounds: Mapping[str, DimBound]) -> Any:
    import openvino

    if dim is None:
        return openvino.Dimension()
    if dim.is_constant:
        return openvino.Dimension(dim.as_int())
    (name, *others) = dim.symbols
    if others or dim != Expr.symbol(name) or name not in bounds:
        return openvino.Dimension()
    return openvino.Dimension(bounds[name].minimum, bounds[name].maximum)


def _share(tree: ElementTree.ElementTree[Any], constants: Path, weights: WeightsWriter) -> int:
    """Moves the constants to the bundle's weights, and their offsets with them. Returns their bytes."""
    if not constants.stat().st_size:
        return 0
    stored = np.memmap(constants, np.uint8, "r")
    nbytes = 0
    for data in _constants(tree):
        offset, size = int(data.get("offset", 0)), int(data.get("size", 0))
        nbytes += size
        if not size:
            continue
        raw = stored[offset : offset + size]
        place = weights.place(Weight(f"{offset}", raw.dtype, raw.shape, lambda raw=raw: raw))
        data.set("offset", str(place.offset))
    return nbytes


def _constants(tree: ElementTree.ElementTree[Any]) -> Iterator[ElementTree.Element]:
    for layer in tree.iter("layer"):
        if layer.get("type") == "Const":
            data = layer.find("data")
            if data is not None:
                yield data


def _drop_provenance(tree: ElementTree.ElementTree[Any]) -> None:
    """Removes what differs from release to release or only repeats names: notes on layers and on the model."""
    for parent in list(tree.iter()):
        for note in parent.findall("rt_info"):
            parent.remove(note)
