"""What TensorRT can run, asked of the library one operation at a time.

Operations with equal types, attributes and constants are asked about once. The parser answers in 0.3 ms; where its word
is not enough (see `rules`), an engine of one operation is built, which takes about 0.15 s. Answers are kept on disk by
the model that was asked about, the compute capability and the library's version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gimlet.dialects.onnx import OnnxOp
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.targets.answers import AnswerFile
from gimlet.targets.one_op import OneOpModel, is_constant, one_op_model, signature_of, signature_text
from gimlet.targets.tensorrt.rules import depends_on_its_place, must_be_built, static_refusal
from gimlet.targets.worker import Worker, WorkerError

_PROBE_SIZE = 64
"""The size of every symbol in a probe's profile. Multiples of it are what kernels are tuned for."""

_UNKNOWN_SIZE = 8


@dataclass(frozen=True)
class _Question:
    op: OnnxOp
    key: str
    build: bool


@dataclass
class Probes:
    """What one library says about operations, for one compute capability.

    `builds` says whether engines can be built for it on this machine; where not, the parser's word is all there is.
    """

    worker: Worker
    version: str
    compute_capability: str
    builds: bool
    folder: Path
    _known: dict[Hashable, str | None] = field(default_factory=dict[Hashable, str | None])

    def refusals(self, ops: Sequence[OnnxOp]) -> list[str | None]:
        """For each operation why it cannot run, or None."""
        signatures = [None if is_constant(op) else signature_of(op) for op in ops]
        unknown: dict[Hashable, OnnxOp] = {}
        for op, signature in zip(ops, signatures, strict=True):
            if signature is not None and signature not in self._known:
                unknown.setdefault(signature, op)
        self._learn(unknown)
        return [None if signature is None else self._known[signature] for signature in signatures]

    def _learn(self, unknown: Mapping[Hashable, OnnxOp]) -> None:
        asked: dict[Hashable, _Question] = {}
        by_name: dict[Hashable, OnnxOp] = {}
        for signature, op in unknown.items():
            refusal = static_refusal(op, self.compute_capability)
            if refusal is not None:
                self._known[signature] = refusal
            elif depends_on_its_place(op):
                by_name[signature] = op
            else:
                asked[signature] = self._question(op)
        stored = AnswerFile(self.folder / f"{self.worker.name}-{self.version}.json")
        self._ask_by_name(by_name, stored)
        answers = self._answers(asked.values(), stored)
        for signature, question in asked.items():
            self._known[signature] = answers[question.key] or None

    def _question(self, op: OnnxOp) -> _Question:
        build = self.builds and must_be_built(op)
        about = f"{self.compute_capability}\n" if build else ""
        return _Question(op, hashlib.sha256((about + signature_text(op)).encode()).hexdigest(), build)

    def _ask_by_name(self, ops: Mapping[Hashable, OnnxOp], stored: AnswerFile) -> None:
        names = sorted({op.op_type for op in ops.values()})
        unknown = [name for name in names if stored.get(name) is None]
        if unknown:
            found = set(self.worker.call("operators", names=unknown))
            stored.add({name: "" if name in found else f"TensorRT has no {name}" for name in unknown})
        for signature, op in ops.items():
            self._known[signature] = stored.get(op.op_type) or None

    def _answers(self, questions: Iterable[_Question], stored: AnswerFile) -> dict[str, str]:
        distinct = {question.key: question for question in questions}
        answers = {key: found for key in distinct if (found := stored.get(key)) is not None}
        models: dict[str, OneOpModel] = {}
        new: dict[str, str] = {}
        for key, question in distinct.items():
            if key in answers:
                continue
            try:
                models[key] = one_op_model(question.op)
            except InputError as error:
                new[key] = error.message
        new |= self._halving(list(models.items()), self._parse)
        new |= self._halving(
            [item for item in models.items() if distinct[item[0]].build and not new[item[0]]], self._build
        )
        stored.add(new)
        return answers | new

    def _parse(self, models: Sequence[OneOpModel]) -> list[list[str]]:
        return self.worker.call("supports", [model.data for model in models])

    def _build(self, models: Sequence[OneOpModel]) -> list[list[str]]:
        return self.worker.call(
            "probe",
            [model.data for model in models],
            profiles=[_profile(model.inputs) for model in models],
            compute_capability=self.compute_capability,
        )

    def _halving(
        self, models: Sequence[tuple[str, OneOpModel]], ask: Callable[[Sequence[OneOpModel]], list[list[str]]]
    ) -> dict[str, str]:
        """Asks about all at once; where the worker dies of it, halves until the one that it dies of is found."""
        if not models:
            return {}
        try:
            found = ask([model for _, model in models])
        except WorkerError as error:
            if len(models) == 1:
                return {models[0][0]: str(error)}
            middle = len(models) // 2
            return self._halving(models[:middle], ask) | self._halving(models[middle:], ask)
        return {key: "; ".join(errors) for (key, _), errors in zip(models, found, strict=True)}


def _profile(inputs: Mapping[str, tuple[Expr | None, ...] | None]) -> dict[str, dict[str, list[int]]]:
    profile: dict[str, dict[str, list[int]]] = {}
    for name, dims in inputs.items():
        shape = [_size(dim) for dim in dims or ()]
        profile[name] = {"min": shape, "opt": shape, "max": shape}
    return profile


def _size(dim: Expr | None) -> int:
    if dim is None:
        return _UNKNOWN_SIZE
    return max(1, dim.evaluate(dict.fromkeys(dim.symbols, _PROBE_SIZE)))
