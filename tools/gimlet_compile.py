"""gimlet-compile: a model in, a bundle out; and `gimlet-compile finish`, which completes one on its device's host."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gimlet.runtime.errors import CheckError, UsageError
from gimlet.tools.cli import SECONDS, SEED, command, print_json, run
from gimlet.tools.files import check_folder, check_outputs, writing

if TYPE_CHECKING:
    from gimlet.compiler.checking.numerics import Deviation
    from gimlet.compiler.compile import Compilation
    from gimlet.compiler.instruments import Instrument
    from gimlet.compiler.options import CompileOptions
    from gimlet.compiler.sources import Source
    from gimlet.runtime.manifest import Manifest

PHASES = ("import", "normalize", "quantize", "annotate", "place", "split", "lower", "emit")
PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Request:
    """The flags of one call, as they were given."""

    model: str
    output: Path | None
    topology: Path | None
    objective: str
    bind: tuple[str, ...]
    overridable: str | None
    pin: tuple[str, ...]
    use_format: tuple[str, ...]
    min_share: tuple[str, ...]
    max_segments: int | None
    bound: tuple[str, ...]
    together: tuple[str, ...]
    apart: tuple[tuple[str, str], ...]
    placement: Path | None
    save_placement: Path | None
    costs: Path | None
    save_costs: Path | None
    save_problem: Path | None
    cost_provider: tuple[str, ...]
    state: tuple[str, ...]
    loss_budget: str | None
    loss_input: tuple[str, ...]
    to: str | None
    explain: bool
    dry_run: bool
    verify: bool
    fuse: bool
    allow_tf32: bool
    report: Path | None
    dump_ir: Path | None
    timing: bool
    time_limit: float | None
    seed: int
    force: bool
    as_json: bool


@command("gimlet-compile")
@click.argument("model")
@click.option("-o", "--output", type=PATH, help="The bundle to write, a folder NAME.gimlet.")
@click.option("--topology", type=PATH, help="The hardware at hand, a TOML file. Default: this machine alone.")
@click.option(
    "--objective",
    type=click.Choice(["latency", "throughput", "energy", "cost"]),
    default="latency",
    show_default=True,
    help="What placement minimises.",
)
@click.option(
    "--bind",
    multiple=True,
    metavar="DIM=N|DIM=MIN:OPT:MAX",
    help="Fix a dimension or give its range; x[3] is dimension 3 of input x. Several with commas.",
)
@click.option("--overridable", metavar="REGEX", help="Inputs that have initializers and stay inputs. Default: all.")
@click.option("--pin", multiple=True, metavar="REGEX=DEVICE", help="Put ops whose name or type matches on a device.")
@click.option("--format", "use_format", multiple=True, metavar="DEVICE=FORMAT", help="Compute in a format there.")
@click.option("--min-share", multiple=True, metavar="DEVICE=SHARE", help="At least this share of all FLOPs there.")
@click.option("--max-segments", type=click.IntRange(min=1), help="Cut the model into at most this many pieces.")
@click.option("--bound", multiple=True, metavar="FIGURE=AMOUNT", help="At most this: latency=5ms, energy=2J, …")
@click.option("--together", multiple=True, metavar="REGEX", help="Put all ops that match on one device.")
@click.option("--apart", multiple=True, nargs=2, metavar="REGEX REGEX", help="No device gets ops of both.")
@click.option("--placement", type=PATH, help="A placement saved before, perhaps edited.")
@click.option("--save-placement", type=PATH, help="Write the placement, for --placement.")
@click.option("--costs", type=PATH, help="Costs saved before: the same costs give the same placement.")
@click.option("--save-costs", type=PATH, help="Write the costs that placement used, for --costs.")
@click.option("--save-problem", type=PATH, help="Write the placement problem as it was solved, for gimlet-place.")
@click.option(
    "--cost-provider",
    multiple=True,
    metavar="DEVICE=PROVIDER",
    help="Where a device's costs are from: analytic (default), measured on this machine, or a table.",
)
@click.option(
    "--state",
    multiple=True,
    metavar="INPUT=OUTPUT",
    help="The program keeps what OUTPUT is and gives it to INPUT in the next run; past=present means all past.*.",
)
@click.option(
    "--loss-budget",
    metavar="X",
    help="Choose number formats op by op; the outputs may be off by a relative error (L2) of X, such as 0.01 or 1%.",
)
@click.option("--loss-input", multiple=True, metavar="NAME=FILE.npy", help="An input to measure losses on.")
@click.option("--to", type=click.Choice(PHASES[:-1]), help="Stop after a phase and print the IR.")
@click.option("--explain", is_flag=True, help="Say for each op where it runs, and what it would cost elsewhere.")
@click.option("--dry-run", is_flag=True, help="Place and split, print what would be built, write nothing.")
@click.option("--verify", is_flag=True, help="Run the bundle and compare it with the source model.")
@click.option("--fuse/--no-fuse", default=True, help="Match the model into large operators (Attention, …), or not.")
@click.option("--allow-tf32", is_flag=True, help="Let float32 matrix products be computed in TF32 where a device can.")
@click.option("--report", type=PATH, help="Write a page with the segments, the placement and the schedule.")
@click.option("--dump-ir", type=PATH, metavar="DIR", help="Write the IR before the first pass and after each there.")
@click.option("--timing", is_flag=True, help="Print the seconds of each pass and of the verifier, and counts of ops.")
@click.option(
    "--time-limit", type=SECONDS, metavar="S", help="Seconds for placement, not for pricing ops and building."
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="The seed of placement and of --verify's inputs.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_compile(**flags: Any) -> None:
    """Compile MODEL, an .onnx, .pt2 or .mlir file or package.module:callable, into a bundle.

    `gimlet-compile finish OUT.gimlet` builds, on the machine that has them, the parts for devices that were deferred.
    """
    request = Request(**flags)
    if request.output is None and not (request.to or request.dry_run):
        raise click.UsageError("say where the bundle goes: -o OUT.gimlet (or --to PHASE, or --dry-run)")
    check_together(request)
    compile_request(request)


@command("gimlet-compile finish")
@click.argument("bundle", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def finish(bundle: Path, *, as_json: bool) -> None:
    """Build the deferred parts of BUNDLE on this machine. The bundle's id stays what it is."""
    from gimlet.compiler.finish import finish_bundle

    built = finish_bundle(bundle)
    if as_json:
        print_json({"bundle": str(bundle), "built": built})
        return
    for path in built:
        click.echo(f"built {path}")
    if not built:
        click.echo("nothing was deferred")


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    import sys

    given = list(sys.argv[1:] if args is None else args)
    if given[:1] == ["finish"]:
        run(finish, given[1:])
    run(gimlet_compile, given)


def compile_request(request: Request) -> None:
    """Does what the flags ask for and prints the outcome."""
    from gimlet.compiler.api import start
    from gimlet.compiler.bundle import check_target
    from gimlet.compiler.progress import Progress
    from gimlet.compiler.sources import open_source

    options = options_of(request)
    check_outputs(files_of(request))
    check_folder(request.dump_ir, "--dump-ir")
    if request.output is not None and not (request.to or request.dry_run):
        check_target(request.output, force=request.force)
    progress = Progress(quiet=request.as_json or request.to is not None)
    source = replace(open_source(request.model), overridable=request.overridable)
    if request.verify and source.is_ir:
        from gimlet.compiler.checking.reference import no_reference

        raise no_reference(source)
    compilation = start(source, options, progress)
    compilation.instruments = instruments_of(request)
    build(compilation, request, source)
    for instrument in compilation.instruments:
        click.echo(instrument.report(), nl=False, err=True)


def check_together(request: Request) -> None:
    """Refuses a flag that another one leaves nothing to do for. UsageError."""
    stop = f"--to {request.to}" if request.to else "--dry-run"
    idle = {"--verify": request.verify and (request.to or request.dry_run), "--explain": request.to and request.explain}
    if request.to:
        idle["--dry-run"] = request.dry_run
    if request.to in PHASES[: PHASES.index("place")]:
        idle |= {flag: path for flag, path in files_of(request).items() if flag != "--output"}
    for flag, given in idle.items():
        if given:
            raise UsageError(f"has no effect with {stop}", where=flag, hint="leave one of them out")


def files_of(request: Request) -> dict[str, Path | None]:
    """The files that are to be written besides the bundle, by their flags."""
    return {
        "--save-placement": request.save_placement,
        "--save-costs": request.save_costs,
        "--save-problem": request.save_problem,
        "--report": request.report,
        "--output": request.output if request.to else None,
    }


def instruments_of(request: Request) -> list[Instrument]:
    """What is to watch the passes."""
    from gimlet.compiler.instruments import DumpIr, Timing

    timing = [Timing()] if request.timing else []
    return [*timing, *([DumpIr(request.dump_ir)] if request.dump_ir else [])]


def build(compilation: Compilation, request: Request, source: Source) -> None:
    """Runs the phases that are asked for and prints what came of them."""
    if request.to:
        print_phase(compilation, request)
        return
    if request.dry_run or request.output is None:
        compilation.run_to("place")
        if compilation.placement is None or compilation.placement.grouped is None:
            compilation.run_to("split")
        save(compilation, request)
        print_plan(compilation, request)
        return
    bundle_id, manifest = compilation.emit(request.output, force=request.force)
    save(compilation, request)
    checks: list[dict[str, Any]] | None = None
    if request.verify:
        with compilation.progress.phase("verify"):
            checks = verify(request, request.output, source)
    print_outcome(compilation, request, bundle_id, manifest, checks)


def options_of(request: Request) -> CompileOptions:
    """The options that the flags spell. UsageError for one that is spelled wrong."""
    from gimlet.compiler.api import resolve_topology
    from gimlet.compiler.bounds import parse_bindings
    from gimlet.compiler.options import CompileOptions
    from gimlet.tools.arrays import read_inputs

    if request.loss_input and request.loss_budget is None:
        raise UsageError("there is nothing to measure losses for", where="--loss-input", hint="add --loss-budget")
    return CompileOptions(
        topology=resolve_topology(request.topology),
        objective=request.objective,  # pyright: ignore[reportArgumentType]  (click checked the choice)
        bindings=parse_bindings(request.bind),
        pins=pairs(request.pin, "--pin", "REGEX=DEVICE"),
        formats=pairs(request.use_format, "--format", "DEVICE=FORMAT"),
        min_shares=tuple(
            (device, _share(text)) for device, text in pairs(request.min_share, "--min-share", "DEVICE=0.2")
        ),
        max_segments=request.max_segments,
        bounds=pairs(request.bound, "--bound", "FIGURE=AMOUNT, such as latency=5ms"),
        together=request.together,
        apart=request.apart,
        placement=request.placement,
        costs=request.costs,
        cost_providers=pairs(request.cost_provider, "--cost-provider", "DEVICE=measured"),
        fuse=request.fuse,
        states=pairs(request.state, "--state", "INPUT=OUTPUT"),
        loss_budget=None if request.loss_budget is None else _budget(request.loss_budget),
        loss_inputs=read_inputs(request.loss_input, "--loss-input") if request.loss_input else None,
        allow_tf32=request.allow_tf32,
        time_limit_s=request.time_limit,
        seed=request.seed,
    )


def pairs(texts: Iterable[str], flag: str, form: str) -> tuple[tuple[str, str], ...]:
    """Texts of the form KEY=VALUE, split at the last equals sign. UsageError for another form."""
    found: list[tuple[str, str]] = []
    for text in texts:
        key, _, value = text.rpartition("=")
        if not key or not value:
            raise UsageError(f"cannot read {text!r}", where=flag, hint=f"write {form}")
        found.append((key, value))
    return tuple(found)


def _fraction(text: str) -> float:
    """`0.2` or `20%` as a number. ValueError for another text."""
    return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)


def _budget(text: str) -> float:
    try:
        budget = _fraction(text)
    except ValueError:
        budget = -1.0
    if not 0 <= budget < 1:
        hint = "write 0.01 or 1%; outputs that are off by all of themselves are no outputs"
        raise UsageError(f"{text!r} is no budget for losses", where="--loss-budget", hint=hint)
    return budget


def _share(text: str) -> float:
    try:
        share = _fraction(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(
            f"{text!r} is no share", where="--min-share", hint="write a number from 0 to 1, or a percentage"
        )
    return share


def print_phase(compilation: Compilation, request: Request) -> None:
    """The IR after a phase, on standard output, or in the file that -o names with where its weights are beside it."""
    from gimlet.compiler.ir_text import module_text
    from gimlet.compiler.weight_references import references_of, write_references

    # `lower` and `emit` leave the IR as it is after `split`.
    compilation.run_to("split" if request.to == "lower" else request.to or "split")
    text = module_text(compilation.module)
    if request.output is None:
        click.echo(text, nl=False)
    else:
        with writing(request.output, "--output"):
            request.output.write_text(text, encoding="utf-8")
            write_references(compilation.module, compilation.ctx.weights, references_of(request.output))
    save(compilation, request)


def save(compilation: Compilation, request: Request) -> None:
    """Writes the placement, its costs and its problem where they are asked for."""
    placement = compilation.placement
    if placement is None:
        return
    if request.save_placement:
        with writing(request.save_placement, "--save-placement"):
            placement.save(request.save_placement)
    if request.save_costs:
        text = json.dumps(placement.costs(), indent=1, sort_keys=True) + "\n"
        with writing(request.save_costs, "--save-costs"):
            request.save_costs.write_text(text, encoding="utf-8")
    if request.save_problem:
        from gimlet.compiler.placement.model.saved_problem import save_problem

        with writing(request.save_problem, "--save-problem"):
            save_problem(request.save_problem, placement.problem)
    if request.report:
        from gimlet.compiler.report.page import write_report

        write_report(request.report, compilation)


def verify(request: Request, bundle: Path, source: Source) -> list[dict[str, Any]]:
    """Compares the bundle with the source on random inputs. CheckError where an output is out of tolerance."""
    from gimlet.compiler.checking.verify import verify_bundle

    comparisons = verify_bundle(bundle, source, seed=request.seed)
    budget = None if request.loss_budget is None else _budget(request.loss_budget)
    for comparison in comparisons:
        if not all(_within(found, comparison.format, budget) for found in comparison.outputs.values()):
            worst = "; ".join(
                f"{name}: {found}"
                for name, found in comparison.outputs.items()
                if not _within(found, comparison.format, budget)
            )
            raise CheckError(
                f"the bundle's outputs are not the model's{_at(comparison.sizes)}: {worst}",
                where=str(bundle),
                hint=f"gimlet-compare {bundle} --ref {request.model} --bisect finds the op; "
                "with --input NAME=FILE.npy it compares on values of your own",
            )
    return [
        {
            "reference": item.reference,
            "outputs": {name: found.of_range for name, found in item.outputs.items()},
            "uniform": [name for name, found in item.outputs.items() if found.uniform],
            "sizes": dict(item.sizes),
        }
        for item in comparisons
    ]


def _at(sizes: Mapping[str, int]) -> str:
    return f" at {', '.join(f'{name} = {size}' for name, size in sorted(sizes.items()))}" if sizes else ""


def _within(found: Deviation, fmt: str, budget: float | None) -> bool:
    """Whether an output is as near as its format must be; under a budget for losses, as that allows."""
    if budget is None:
        return found.within(fmt)
    return found.within("fp32") or found.relative_l2 <= budget


def print_plan(compilation: Compilation, request: Request) -> None:
    """What a dry run found: coverage, what is refused, segments, with --explain every op, and a recommendation."""
    from gimlet.compiler.placement.reasons.coverage import print_coverage
    from gimlet.compiler.placement.reasons.explain import print_explanation
    from gimlet.compiler.tables import console_for_tables

    if compilation.placement is None:
        raise UsageError("the IR is placed already", hint="give the model itself, or IR up to the phase annotate")
    data, found = compilation.placement.explain(), compilation.placement.coverage()
    if request.as_json:
        print_json(data | {"coverage": found})
        return
    console = console_for_tables()
    print_coverage(found, console)
    print_explanation(data, console, ops=request.explain)
    console.print(found["recommendation"], soft_wrap=True)


def _outcome(request: Request, bundle_id: str, manifest: Manifest) -> dict[str, Any]:
    summary = manifest.placement
    return {
        "bundle": str(request.output),
        "id": bundle_id,
        "objective": summary.objective,
        "value": summary.value,
        "bound": summary.bound,
        "gap": summary.gap,
        "status": summary.status,
        "segments": [
            {
                "id": segment.id,
                "device": segment.device,
                "format": segment.format,
                "ops": segment.ops,
                "seconds": segment.seconds,
                "deferred": any(variant.deferred for variant in segment.variants),
            }
            for segment in manifest.segments
        ],
    }


def print_outcome(
    compilation: Compilation,
    request: Request,
    bundle_id: str,
    manifest: Manifest,
    checks: list[dict[str, Any]] | None,
) -> None:
    """The bundle that was written, and with --explain why it is as it is."""
    placement = compilation.placement
    if request.as_json:
        data = _outcome(request, bundle_id, manifest) | {"seconds": compilation.progress.seconds}
        data["notes"] = [] if placement is None else list(placement.notes)
        if request.explain and placement is not None:
            data["explain"] = placement.explain()
        if checks is not None:
            data["verify"] = checks
        print_json(data)
        return
    if request.explain and placement is not None:
        from gimlet.compiler.placement.reasons.explain import print_explanation
        from gimlet.compiler.tables import console_for_tables

        print_explanation(placement.explain(), console_for_tables())
    elif placement is not None:
        for note in placement.notes:
            click.echo(f"note: {note}")
    for item in checks or []:
        errors = ", ".join(f"{name} {error:.2g} of range" for name, error in item["outputs"].items())
        click.echo(f"verified against {item['reference']}{_at(item['sizes'])}: {errors}")
        if item["uniform"]:
            names = ", ".join(item["uniform"])
            click.echo(
                f"  of little worth for {names}: the same everywhere with random inputs; "
                f"gimlet-compare {request.output} --ref {request.model} --input NAME=FILE.npy takes real ones"
            )
    deferred = [segment.id for segment in manifest.segments if any(v.deferred for v in segment.variants)]
    if deferred:
        click.echo(f"deferred to the device's own host: {', '.join(deferred)} (gimlet-compile finish {request.output})")
    click.echo(f"{request.output} {bundle_id}")


if __name__ == "__main__":
    main()
