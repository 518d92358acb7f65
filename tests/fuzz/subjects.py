"""What is mutated: models from the tests and real ones, small enough that thousands of them take minutes, and IR text.

The text is the models' IR, with the passes of the phases up to `annotate`, and as often a case of `tests/filecheck/`,
with the passes that it is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import numpy_helper
from onnx.external_data_helper import set_external_data
from tests.fuzz import models
from tests.onnx_suite.stages import text_of
from tests.unit.dialects import test_onnx_structures as structures

from gimlet.compiler.frontends import load
from gimlet.compiler.pipeline import FUSE, NORMALIZE
from gimlet.compiler.sources import load_dialects
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx.ir_weights import INLINE_BYTES

DATA_FILE = "weights.bin"
_REAL = ("ch_ppocr_mobile_v2.0_cls_infer", "ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer")
_NODES_OF_A_PART = 40
_MADE: tuple[Callable[[], onnx.ModelProto], ...] = (
    structures.captured_values,
    structures.functions,
    structures.maps_and_sequences,
    structures.optionals,
    structures.sparse_constants,
    structures.quantization,
    structures.opaque_domains,
    structures.texts,
    structures.strings,
    structures.sparse_initializer,
    structures.a_map_of_maps,
    structures.inputs_with_defaults,
    models.contrib_operators,
    models.packed_weights,
    models.large_operators,
    models.what_fusions_look_for,
    models.carried_sequences,
    models.small_types,
)
_FILECHECK = Path(__file__).resolve().parents[1] / "filecheck"
_RUN = re.compile(r"// RUN: gimlet-opt %s.*? -p (?:'([^']+)'|(\S+))")
_PHASES = ",".join(
    item if isinstance(item, str) else str(item.spec()) for item in (*NORMALIZE, *FUSE, "annotate-costs")
)


@cache
def subjects(folder: Path) -> dict[str, bytes]:
    """The models by name. Weights of the real ones are external data in `folder`, so that mutants are of structure."""
    made = {build.__name__: build().SerializeToString() for build in _MADE}
    return made | dict(_real_models(folder))


@cache
def texts(folder: Path) -> list[tuple[str, tuple[str, str]]]:
    """IR to mutate and the passes to run on it by name, a model's and a case of filecheck's in turn."""
    made = [(name, (_ir(model, folder), _PHASES)) for name, model in subjects(folder).items()]
    return [pair for both in zip(_cases(), cycle(made), strict=False) for pair in both]


def _cases() -> Iterator[tuple[str, tuple[str, str]]]:
    """The cases of filecheck that are no refusals, without comments, and the passes of the first RUN line."""
    for path in sorted(_FILECHECK.rglob("*.mlir")):
        text = path.read_text()
        passes = _RUN.search(text)
        for index, case in enumerate(text.split("// -----")):
            bare = "\n".join(line for line in case.splitlines() if not line.strip().startswith("//"))
            if "expected-error" not in case and "invalid" not in path.stem and "refusals" not in path.stem:
                yield f"{path.stem}.{index}", (bare.strip(), "" if passes is None else passes[1] or passes[2])


def _ir(model: bytes, folder: Path) -> str:
    path = folder / "subject.onnx"
    path.write_bytes(model)
    ctx = GimletContext()
    load_dialects(ctx)
    return text_of(load(path, ctx=ctx))


def _real_models(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The first and the last nodes of PP-OCRv4's direction classifier, detection and recognition."""
    spec = find_spec("rapidocr_onnxruntime")
    if spec is None or spec.origin is None:
        return
    data = (folder / DATA_FILE).open("wb")
    with data:
        for name in _REAL:
            model = onnx.load(Path(spec.origin).parent / "models" / f"{name}.onnx")
            nodes = model.graph.node
            for part, chosen in (("first", nodes[:_NODES_OF_A_PART]), ("last", nodes[-_NODES_OF_A_PART:])):
                yield f"{name.split('_')[2]} {part}", _with_external_data(_part(model, list(chosen)), data)


def _part(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """The model of some nodes: what they read from others are inputs, what they make last is the output."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name for node in nodes for name in node.output}
    read = [name for node in nodes for name in node.input if name]
    inputs = [name for name in dict.fromkeys(read) if name not in made and name not in weights]
    graph = onnx.helper.make_graph(
        nodes,
        "part",
        [onnx.ValueInfoProto(name=name) for name in inputs],
        [onnx.ValueInfoProto(name=nodes[-1].output[0])],
        [weights[name] for name in dict.fromkeys(read) if name in weights],
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _with_external_data(model: onnx.ModelProto, data: BinaryIO) -> bytes:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*model.graph.initializer, *(attribute.t for attribute in attributes)):
        raw = numpy_helper.to_array(tensor).tobytes()
        if len(raw) <= INLINE_BYTES:
            continue
        tensor.ClearField("float_data")
        tensor.raw_data = raw
        set_external_data(tensor, DATA_FILE, data.tell(), len(raw))
        tensor.ClearField("raw_data")
        data.write(raw)
    return model.SerializeToString()
