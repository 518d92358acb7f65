"""What TensorRT can run, asked of the library one operation at a time.

Operations with equal types, attributes and constants are asked about once. The parser answers in 0.3 ms; where its word
is not enough (see `rules`), an engine of one operation is built, which takes about 0.15 s. Answers are kept on disk by
the model that was asked about, the compute capability and the library's version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gimlet.dialects.onnx import InitializerOp, OnnxOp
from gimlet.runtime.errors import InputError
from gimlet.runtime.expr import Expr
from gimlet.targets.one_op import OneOpModel, one_op_model, signature_of
from gimlet.targets.tensorrt.client import Worker, WorkerError
from gimlet.targets.tensorrt.rules import depends_on_its_place, must_be_built, static_refusal

_PROBE_SIZE = 64
"""The size of every symbol in a probe's profile. Multiples of it are what kernels are tuned for."""

_UNKNOWN_SIZE = 8


@dataclass(frozen=True)
class _Question:
    op: OnnxOp
    model: OneOpModel
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
        signatures = [None if _is_free(op) else signature_of(op) for op in ops]
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
                question = self._question(op)
                if isinstance(question, str):
                    self._known[signature] = question
                else:
                    asked[signature] = question
        stored = AnswerFile(self.folder / f"{self.worker.module}-{self.version}.json")
        self._ask_by_name(by_name, stored)
        answers = self._answers(asked.values(), stored)
        for signature, question in asked.items():
            self._known[signature] = answers[question.key]

    def _question(self, op: OnnxOp) -> _Question | str:
        try:
            model = one_op_model(op)
        except InputError as error:
            return error.message
        build = self.builds and must_be_built(op)
        key = hashlib.sha256(model.data + (self.compute_capability.encode() if build else b"")).hexdigest()
        return _Question(op, model, key, build)

    def _ask_by_name(self, ops: Mapping[Hashable, OnnxOp], stored: AnswerFile) -> None:
        names = sorted({op.op_type for op in ops.values()})
        unknown = [name for name in names if stored.get(name) is None]
        if unknown:
            found = set(self.worker.call("operators", names=unknown))
            stored.add({name: "" if name in found else f"TensorRT has no {name}" for name in unknown})
        for signature, op in ops.items():
            self._known[signature] = stored.get(op.op_type) or None

    def _answers(self, questions: Iterable[_Question], stored: AnswerFile) -> dict[str, str | None]:
        distinct = {question.key: question for question in questions}
        answers = {key: found for key in distinct if (found := stored.get(key)) is not None}
        parse = [question for key, question in distinct.items() if key not in answers]
        answers |= self._one_by_one(parse, self._parse)
        build = [question for question in parse if question.build and not answers[question.key]]
        answers |= self._one_by_one(build, self._build)
        stored.add({question.key: answers[question.key] for question in parse})
        return {key: answer or None for key, answer in answers.items()}

    def _parse(self, questions: Sequence[_Question]) -> list[list[str]]:
        return self.worker.call("supports", [question.model.data for question in questions])

    def _build(self, questions: Sequence[_Question]) -> list[list[str]]:
        return self.worker.call(
            "probe",
            [question.model.data for question in questions],
            profiles=[_profile(question.model.inputs) for question in questions],
            compute_capability=self.compute_capability,
        )

    def _one_by_one(
        self, questions: Sequence[_Question], ask: Callable[[Sequence[_Question]], list[list[str]]]
    ) -> dict[str, str]:
        """Asks all at once; where the worker dies of it, halves until the one that it dies of is found."""
        if not questions:
            return {}
        try:
            found = ask(questions)
        except WorkerError as error:
            if len(questions) == 1:
                return {questions[0].key: f"{questions[0].op.op_type}: {error}"}
            middle = len(questions) // 2
            return self._one_by_one(questions[:middle], ask) | self._one_by_one(questions[middle:], ask)
        return {question.key: "; ".join(errors) for question, errors in zip(questions, found, strict=True)}


def _is_free(op: OnnxOp) -> bool:
    """Constants go wherever their reader goes."""
    return isinstance(op, InitializerOp) or (op.op_type == "Constant" and not op.domain)


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


class AnswerFile:
    """Answers on disk: a JSON object from a question's key, or an operator's name, to a refusal or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answers = self._read()

    def get(self, key: str) -> str | None:
        """The stored answer, None where the question was never asked."""
        return self._answers.get(key)

    def add(self, answers: Mapping[str, str]) -> None:
        """Adds answers to what is on disk now. A folder that cannot be written to only costs the next compile time."""
        if not answers:
            return
        self._answers = {**self._read(), **answers}
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._answers, indent=0, sort_keys=True))
            partial.replace(self.path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {str(key): text for key, text in found.items() if isinstance(text, str)}
