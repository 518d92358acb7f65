"""What OpenVINO runs, found by trying: each op is built alone, run on made-up values, and compared with ONNX Runtime.

OpenVINO takes some ops and computes something else: an attribute of a newer opset is ignored, an output is not written,
a rounding differs. Its own `query_model` says yes to them. So an op is taken if its model builds and gives the same
numbers as the reference on made-up values. Where the reference accepts none of these values (they would have to fit
together), a build is all there is; an op that it does not know is refused.

They run in a process of their own (worker.py), which OpenVINO may end. Compiling a model takes it tens of milliseconds,
however small it is. The ops of a question that are of the same opsets are therefore put into one model side by side;
where it does not build, halves are tried. Answers are kept on disk by the op and the versions.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.targets.answers import AnswerFile
from gimlet.targets.one_op import is_constant, one_op_model, signature_of, signature_text
from gimlet.targets.openvino.client import worker
from gimlet.targets.openvino.library import core, installed_version, tidy
from gimlet.targets.openvino.reference import Values, reference
from gimlet.targets.openvino.rules import static_refusal
from gimlet.targets.worker import WorkerCrashError

_SIZES = (16, 64, 256, 1024)
"""Sizes of every symbol, and of dimensions that have none: the first at which the op runs, which it may not where a
window is larger or a size that was divided and multiplied again is another one. They divide evenly in most models.
"""

_MOST_ELEMENTS = 1 << 22
"""Larger sizes are not tried where an input would have more elements."""

_TOGETHER = 64

_METHOD = 4
"""Counts up where ops are tried in another way, so that what was found before is asked again."""
_RELATIVE, _OF_LARGEST = 1e-3, 1e-5


@dataclass(frozen=True)
class _Trial:
    """One op as a model of its own, with values for it, and what the reference makes of them."""

    key: str
    model: onnx.ModelProto
    inputs: Values
    wanted: Values | None


@dataclass
class Probes:
    """Answers of this process, and those on disk in `folder`."""

    folder: Path
    _known: dict[Hashable, str | None] = field(default_factory=dict[Hashable, str | None])

    def refusals(self, ops: Sequence[OnnxOp]) -> list[str | None]:
        """For each op why OpenVINO does not run it, or None."""
        # A rule may look at what an op's operands are made of, which its signature does not say.
        ruled = [None if is_constant(op) else static_refusal(op) for op in ops]
        signatures = [
            None if is_constant(op) or refusal is not None else signature_of(op)
            for op, refusal in zip(ops, ruled, strict=True)
        ]
        unknown: dict[Hashable, OnnxOp] = {}
        for op, signature in zip(ops, signatures, strict=True):
            if signature is not None and signature not in self._known:
                unknown.setdefault(signature, op)
        self._learn(unknown)
        return [
            refusal if signature is None else self._known[signature]
            for refusal, signature in zip(ruled, signatures, strict=True)
        ]

    def _learn(self, unknown: Mapping[Hashable, OnnxOp]) -> None:
        stored = AnswerFile(self.folder / f"openvino-{installed_version()}-{_METHOD}.json")
        keys: dict[Hashable, str] = {}
        asked: dict[str, OnnxOp] = {}
        for signature, op in unknown.items():
            key = keys[signature] = hashlib.sha256(signature_text(op).encode()).hexdigest()
            if stored.get(key) is None:
                asked.setdefault(key, op)
        stored.add(answers(asked))
        for signature, key in keys.items():
            self._known[signature] = stored.get(key) or None


def answers(ops: Mapping[str, OnnxOp]) -> dict[str, str]:
    """For each op by its key why OpenVINO does not run it, or an empty text."""
    found: dict[str, str] = {}
    trials: list[_Trial] = []
    for key, op in ops.items():
        try:
            trial = _trial(key, op)
            # Milliseconds, where a build of 64 ops that fails is halved six times to find the one.
            core().read_model(trial.model.SerializeToString())
            trials.append(trial)
        except InputError as error:
            found[key] = error.message
        except RuntimeError as error:
            found[key] = tidy(error)
    for alike in _of_the_same_opsets(trials):
        for start in range(0, len(alike), _TOGETHER):
            found |= _tried(alike[start : start + _TOGETHER])
    return found


def _of_the_same_opsets(trials: Sequence[_Trial]) -> Iterable[list[_Trial]]:
    """The trials in groups: an op that is moved to another opset may mean something else there."""
    groups: dict[frozenset[tuple[str, int]], list[_Trial]] = {}
    for trial in trials:
        opsets = frozenset((item.domain, item.version) for item in trial.model.opset_import)
        groups.setdefault(opsets, []).append(trial)
    return groups.values()


def _trial(key: str, op: OnnxOp) -> _Trial:
    """At the first size at which the reference runs the op, else at the first. InputError where it knows it at none."""
    one = one_op_model(op)
    first: _Trial | InputError | None = None
    for size in _sizes(one.inputs.values()):
        try:
            model = _fixed(onnx.load_from_string(one.data), one.inputs, size)
            found = _Trial(key, model, *reference(model))
        except InputError as error:
            first = first or error
            continue
        if found.wanted is not None:
            return found
        first = found if first is None else first
    if not isinstance(first, _Trial):
        raise first or InputError("no size is small enough to try it")
    return first


def _sizes(inputs: Iterable[tuple[Expr | None, ...] | None]) -> Iterator[int]:
    """Sizes of symbols to try: those at which no dimension is below 1, or the smallest where that is so at none."""
    shapes = [shape for shape in inputs if shape is not None]
    dims = [dim for shape in shapes for dim in shape]
    fit = [size for size in _SIZES if all(_size(dim, size) >= 1 for dim in dims if dim is None or dim.symbols)]
    sizes = fit or _SIZES[:1]
    yield sizes[0]
    if all(dim is not None and not dim.symbols for dim in dims):
        return
    for size in sizes[1:]:
        if max(prod(_size(dim, size) for dim in shape) for shape in shapes) <= _MOST_ELEMENTS:
            yield size


def _fixed(model: onnx.ModelProto, inputs: Mapping[str, tuple[Expr | None, ...] | None], size: int) -> onnx.ModelProto:
    """The model with a size for every dimension of its inputs, and varied numbers for its weights."""
    for info in model.graph.input:
        dims = inputs[info.name]
        if dims is None:
            continue
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        for dim in dims:
            shape.dim.add(dim_value=max(1, _size(dim, size)))
    generator = np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 1 and np.all(values == 1):
            tensor.CopyFrom(numpy_helper.from_array(_varied(generator, values.shape), tensor.name))
    del model.graph.value_info[:]
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model


def _varied(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Weights that keep values as large as they were, so that nothing saturates; scales and variances are positive."""
    if len(shape) < 2:
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    return (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _size(dim: Expr | None, size: int) -> int:
    return size if dim is None else dim.evaluate(dict.fromkeys(dim.symbols, size))


def _tried(trials: Sequence[_Trial], again: bool = True) -> dict[str, str]:
    """Tries all at once; where that fails, halves until it is known which of them fail.

    An op that alone ends the process is tried once more: that may have been another reason. That an op computes other
    numbers is believed of an op alone: after some that cannot work, such as a Resize to sizes that it does not take,
    the CPU plug-in leaves all that follows uncomputed, and says nothing.
    """
    if not trials:
        return {}
    try:
        computed = _computed(trials)
    except RuntimeError as error:
        if len(trials) == 1:
            crashed = isinstance(error, WorkerCrashError)
            return _tried(trials, again=False) if crashed and again else {trials[0].key: tidy(error)}
        middle = len(trials) // 2
        return _tried(trials[:middle]) | _tried(trials[middle:])
    found = {trial.key: _difference(trial, computed[index]) for index, trial in enumerate(trials)}
    differ = [trial for trial in trials if found[trial.key]]
    if len(trials) == 1 or not differ:
        return found
    if len(differ) < len(trials):
        return found | _tried(differ)
    middle = len(differ) // 2
    return _tried(differ[:middle]) | _tried(differ[middle:])


def _computed(trials: Sequence[_Trial]) -> list[Values]:
    """What OpenVINO computes for each trial that the reference could run. RuntimeError where it does not."""
    runnable = [trial for trial in trials if trial.wanted is not None]
    if len(runnable) < len(trials):
        _run(trials, runs=False)
        found = dict(zip((id(trial) for trial in runnable), _computed(runnable) if runnable else [], strict=True))
        return [found.get(id(trial), {}) for trial in trials]
    outputs = _run(trials, runs=True)
    return [
        {info.name: outputs[f"{index}_{info.name}"] for info in trial.model.graph.output}
        for index, trial in enumerate(trials)
    ]


def _run(trials: Sequence[_Trial], *, runs: bool) -> Values:
    """Builds the models of all trials as one, and what it computes where it `runs`, in the process for that."""
    merged = side_by_side([trial.model for trial in trials])
    values = {f"{index}_{name}": array for index, trial in enumerate(trials) for name, array in trial.inputs.items()}
    arrays = [values[info.name] for info in merged.graph.input] if runs else []
    with tempfile.TemporaryDirectory(prefix="gimlet-probe-") as folder:
        found = worker().call(
            "run",
            [merged.SerializeToString(), *(array.tobytes() for array in arrays)],
            dtypes=[array.dtype.name for array in arrays],
            shapes=[array.shape for array in arrays],
            inputs=len(merged.graph.input),
            outputs=len(merged.graph.output),
            runs=runs,
            folder=folder,
        )
        return {
            info.name: np.fromfile(Path(folder) / str(position), each["dtype"]).reshape(each["shape"])
            for position, (info, each) in enumerate(zip(merged.graph.output, found, strict=runs))
        }


def side_by_side(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """The models, which are of the same opsets, as one, with the number of each before its names."""
    merged = onnx.ModelProto()
    merged.CopyFrom(models[0])
    for field_name in ("node", "initializer", "input", "output"):
        merged.graph.ClearField(field_name)
    for index, model in enumerate(models):
        part = onnx.GraphProto()
        part.CopyFrom(model.graph)
        _prefix(part, f"{index}_")
        for field_name in ("node", "initializer", "input", "output"):
            getattr(merged.graph, field_name).extend(getattr(part, field_name))
    return merged


def _prefix(graph: onnx.GraphProto, prefix: str) -> None:
    for info in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        info.name = prefix + info.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [name and prefix + name for name in names]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _prefix(attribute.g, prefix)


def _difference(trial: _Trial, computed: Mapping[str, Any]) -> str:
    """How OpenVINO's outputs differ from the reference's, or an empty text."""
    for name, wanted in (trial.wanted or {}).items():
        found = computed[name]
        operator = trial.model.graph.node[-1].op_type
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return (
                f"OpenVINO's {operator} gives {found.dtype}{list(found.shape)}, not {wanted.dtype}{list(wanted.shape)}"
            )
        if not _is_close(found, wanted):
            return f"OpenVINO's {operator} computes other numbers than ONNX Runtime's"
    return ""


def _is_close(found: np.ndarray, wanted: np.ndarray) -> bool:
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(found, wanted))
    finite = np.abs(wanted[np.isfinite(wanted)])
    largest = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(found, wanted, _RELATIVE, _OF_LARGEST * max(largest, 1e-3), equal_nan=True))
