"""`gimlet.compile`: from a model to a bundle, from Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from gimlet.compiler.bounds import parse_bindings
from gimlet.compiler.bundle import check_target
from gimlet.compiler.compile import Compilation
from gimlet.compiler.hardware import default_topology, load_topology
from gimlet.compiler.options import PHASES, CompileOptions, Objective, default_cache
from gimlet.compiler.pipeline import phase_of
from gimlet.compiler.placement.model.rules import load_placement, read_expression, read_json
from gimlet.compiler.placement.service import PlacementResult
from gimlet.compiler.progress import Progress
from gimlet.compiler.sources import Source, open_source
from gimlet.compiler.states import add_states
from gimlet.compiler.topology_ir import check_topology
from gimlet.dialects.context import GimletContext
from gimlet.dialects.onnx import value_name
from gimlet.dialects.onnx.defaults import DEFAULT
from gimlet.dialects.onnx.importer import INPUTS
from gimlet.passes.entry import entry_function
from gimlet.runtime.errors import UsageError
from gimlet.runtime.manifest import Manifest
from gimlet.targets.api import DimBound, Topology

Given = TypeVar("Given")


@dataclass(frozen=True)
class CompiledBundle:
    """A bundle that was written: where, its id, what its manifest says, and how its placement was found."""

    path: Path
    id: str
    manifest: Manifest
    placement: PlacementResult | None
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])


def compile(
    model: Any,
    args: Sequence[Any] | None = None,
    *,
    output: str | Path,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
    overridable: str | None = None,
    topology: str | Path | Topology | None = None,
    objective: Objective = "latency",
    bind: Mapping[str, int | str] | None = None,
    pins: Mapping[str, str] | None = None,
    formats: Mapping[str, str] | None = None,
    min_shares: Mapping[str, float] | None = None,
    max_segments: int | None = None,
    bounds: Mapping[str, str] | None = None,
    together: Sequence[str] = (),
    apart: Sequence[tuple[str, str]] = (),
    placement: str | Path | None = None,
    costs: str | Path | None = None,
    cost_providers: Mapping[str, str] | None = None,
    fuse: bool = True,
    states: Mapping[str, str] | None = None,
    loss_budget: float | None = None,
    loss_inputs: Mapping[str, NDArray[Any]] | None = None,
    allow_tf32: bool = False,
    time_limit_s: float | None = None,
    seed: int = 0,
    force: bool = False,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> CompiledBundle:
    """Compiles a model into the bundle `output`.

    `model` is an `nn.Module` (with example `args` and `kwargs`, and `dynamic_shapes` as `torch.export.export` takes
    them), an `ExportedProgram`, an ONNX model, or the path of one, or `package.module:callable`. `translations` says
    how PyTorch operators that its ONNX exporter lacks are written in ONNX, as torch.onnx.export's
    `custom_translation_table` does. `overridable` is a regular expression: inputs of an ONNX model that have
    initializers and whose whole names match stay inputs, with defaults; all of them without it, from IR version 4 on.
    `topology` is a TOML
    file, by default this machine alone. `bind` fixes dimensions (`{"batch": 1}`) or gives their range
    (`{"width": "32:320:2048"}`). `pins` are regular expressions over op names and types, with the device of each;
    `formats` are number formats by device; `min_shares` the least share of all FLOPs by device,
    and `max_segments` caps how many pieces the model is cut into. `bounds` limit other figures than the objective
    (`{"latency": "5ms"}`). Ops that an expression of `together` matches share a device, those of a pair of `apart` do
    not. `cost_providers` says by device where its costs are
    from ("analytic", "measured"). `loss_budget` lets placement choose number formats, as long as the outputs are off by
    at most that (relative L2), measured on `loss_inputs`, arrays by the names of the inputs, else on random ones.
    `states` says which inputs are in each run what an output was in the run before (`{"past": "present"}`): the program
    keeps them, on the device that uses them.

    Raises UsageError, InputError, MissingError or InfeasibleError as the commands do.
    """
    options = CompileOptions(
        topology=resolve_topology(topology),
        objective=objective,
        bindings=_bindings(bind or {}),
        pins=_pairs("pins", pins),
        formats=_pairs("formats", formats),
        min_shares=_pairs("min_shares", min_shares),
        max_segments=max_segments,
        bounds=_pairs("bounds", bounds),
        together=tuple(together),
        apart=tuple(apart),
        placement=Path(placement) if placement else None,
        costs=Path(costs) if costs else None,
        cost_providers=_pairs("cost_providers", cost_providers),
        fuse=fuse,
        states=_pairs("states", states),
        loss_budget=loss_budget,
        loss_inputs=loss_inputs,
        allow_tf32=allow_tf32,
        time_limit_s=time_limit_s,
        seed=seed,
        cache=Path(cache) if cache else default_cache(),
    )
    path = Path(output)
    check_target(path, force=force)
    progress = progress or Progress(quiet=True)
    source = replace(open_source(model, args, kwargs, dynamic_shapes, translations), overridable=overridable)
    compilation = start(source, options, progress)
    bundle_id, manifest = compilation.emit(path, force=force)
    return CompiledBundle(path, bundle_id, manifest, compilation.placement, dict(progress.seconds))


def _pairs(name: str, given: Mapping[str, Given] | None) -> tuple[tuple[str, Given], ...]:
    """The entries of an argument; UsageError where it is no mapping, as the text that a command takes."""
    if given is not None and not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"{name} is a {type(given).__name__}, not a mapping", hint=f"{name}={{key: value}}")
    return tuple((given or {}).items())


def start(source: Source, options: CompileOptions, progress: Progress) -> Compilation:
    """Imports a source: the compilation in the phase `import`, or in that of the IR it was given.

    UsageError for a seed, a time limit or an expression that means nothing, and for an input to measure losses on that
    the model does not have; that or InputError for a placement or costs that cannot be read.
    """
    _check_numbers(options)
    _check_rules(options)
    _check_expression(source.overridable)
    ctx = GimletContext()
    with progress.phase("import", source.origin):
        module = source.import_module(ctx, progress.say)
    say_defaults(module, progress)
    _check_loss_inputs(module, options.loss_inputs or {})
    add_states(module, options.states)
    if PHASES.index(phase_of(module)) >= PHASES.index("place"):
        check_topology(module, options.topology)
    return Compilation(module, ctx, options, source.info(module), progress)


def _check_rules(options: CompileOptions) -> None:
    """Reads what placement will read, so that what cannot be read is said before the work."""
    if options.costs is not None:
        read_json(options.costs)
    rules = load_placement(options.placement).rules if options.placement is not None else ()
    together, apart = options.together, chain.from_iterable(options.apart)
    given = {str(options.placement): [expression for expression, _ in rules], "--together": together, "--apart": apart}
    for where, expressions in (given | {"--pin": [expression for expression, _ in options.pins]}).items():
        for expression in expressions:
            read_expression(expression, where)


def _check_numbers(options: CompileOptions) -> None:
    """As the command's options check them."""
    if options.seed < 0:
        raise UsageError(f"{options.seed} is not in the range x>=0", where="--seed")
    limit = options.time_limit_s
    if limit is not None and math.isnan(limit):
        raise UsageError("'nan' is no number of seconds", where="--time-limit")
    if limit is not None and limit <= 0:
        raise UsageError(f"{limit} is not in the range x>0", where="--time-limit")


def _check_expression(overridable: str | None) -> None:
    try:
        re.compile(overridable or "")
    except re.error as error:
        raise UsageError(f"{overridable!r} is not a regular expression: {error}", where="--overridable") from None


def _check_loss_inputs(module: ModuleOp, given: Mapping[str, NDArray[Any]]) -> None:
    known = [value_name(value) for value in entry_function(module).args]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        hint = f"the inputs are: {', '.join(known) or 'none'}"
        raise UsageError(f"there is no input {unknown[0]!r}", where="--loss-input", hint=hint)


def say_defaults(module: ModuleOp, progress: Progress) -> None:
    """Says which inputs that have initializers a caller may give, and that the others are constants."""
    function = entry_function(module)
    attributes = function.arg_attrs or ()
    given = [value_name(function.args[i]) for i, notes in enumerate(attributes) if DEFAULT in notes.data]
    if given:
        progress.say(f"inputs with a default: {', '.join(given)}")
    if INPUTS in function.attributes:
        progress.say("inputs with initializers that --overridable does not name are constants")


def resolve_topology(topology: str | Path | Topology | None) -> Topology:
    """The topology that is meant: a value, a TOML file, or this machine alone."""
    if topology is None:
        return default_topology()
    return topology if isinstance(topology, Topology) else load_topology(topology)


def _bindings(bind: Mapping[str, int | str]) -> dict[str, DimBound]:
    return parse_bindings(f"{name}={size}" for name, size in bind.items())
