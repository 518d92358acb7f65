"""Where a traced model's inputs and outputs stand in what it takes and returns: `past[3][0]` is of layer 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import TreeSpec

Path = tuple[int, ...]


class Places:
    """Of the inputs and outputs of a graph that a program was converted to."""

    def __init__(self, graph: ir.Graph, program: ExportedProgram) -> None:
        signature = program.graph_signature
        taken = [spec.arg for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
        returned = [spec.arg for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
        in_paths, out_paths = _paths(program.call_spec.in_spec), _paths(program.call_spec.out_spec)
        kept = [path for path, arg in zip(in_paths, taken, strict=True) if not isinstance(arg, ConstantArgument)]
        left = [path for path, arg in zip(out_paths, returned, strict=True) if not isinstance(arg, ConstantArgument)]
        self._inputs = dict(zip(kept, graph.inputs, strict=True))
        self._outputs = {path: index for index, path in enumerate(left)}
        self._paths = left

    def inputs(self, first: int, place: int, members: Sequence[int]) -> dict[ir.Value, ir.Value]:
        """The inputs for layer `first`, and for each what the layer at `place` has, where all `members` have one."""
        found: dict[ir.Value, ir.Value] = {}
        for path, value in self._inputs.items():
            moved = _moved(path, first, place, members, self._inputs)
            if moved is not None:
                found[value] = self._inputs[moved]
        return found

    def output(self, index: int, first: int, place: int, members: Sequence[int]) -> int | None:
        """The number of the output that stands for layer `place` where that of this number does for layer `first`."""
        moved = _moved(self._paths[index], first, place, members, self._outputs)
        return None if moved is None else self._outputs[moved]


def _moved(path: Path, first: int, place: int, members: Sequence[int], known: Mapping[Path, object]) -> Path | None:
    """A path with `place` instead of `first`, where there is one way to write that for all members."""
    ways = [
        position
        for position, step in enumerate(path)
        if step == first and all(_with(path, position, member) in known for member in members)
    ]
    return _with(path, ways[0], place) if len(ways) == 1 else None


def _with(path: Path, position: int, step: int) -> Path:
    return (*path[:position], step, *path[position + 1 :])


def _paths(spec: TreeSpec | None, path: Path = ()) -> Iterator[Path]:
    if spec is None:
        return
    if spec.is_leaf():
        yield path
        return
    for step, child in enumerate(spec.children()):
        yield from _paths(child, (*path, step))
