"""gimlet-compare: how far a bundle's numbers are from its model's, and the first segment and op where they part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gimlet.runtime.errors import CheckError, UsageError
from gimlet.tools.cli import SEED, command, print_json, run

if TYPE_CHECKING:
    from gimlet.compiler.checking.bisect import OpDeviation
    from gimlet.compiler.checking.compare import Comparison
    from gimlet.compiler.checking.numerics import Deviation

PATH = click.Path(path_type=Path)


@command("gimlet-compare")
@click.argument("bundle", type=PATH)
@click.option("--ref", "model", required=True, help="The model the bundle was compiled from, as for gimlet-compile.")
@click.option("--bisect", "bisecting", is_flag=True, help="Find the first op whose numbers part from the reference.")
@click.option("--segment", help="With --bisect, look into this segment instead of the first that is out of tolerance.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=FILE.npy", help="An input; random ones otherwise.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The seed of random inputs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_compare(
    bundle: Path, model: str, segment: str | None, inputs: tuple[str, ...], seed: int, *, bisecting: bool, as_json: bool
) -> None:
    """Compare BUNDLE with the model that it was compiled from. Exits with 4 where an output is out of tolerance.

    Segments of devices that are not here run in their portable form.
    """
    from gimlet.compiler.checking.compare import compare
    from gimlet.compiler.checking.reference import reference_of
    from gimlet.compiler.sources import open_source
    from gimlet.runtime.bundle import open_bundle
    from gimlet.tools.arrays import complete, read_inputs

    if segment is not None and not bisecting:
        raise UsageError("there is nothing to look for in a segment", where="--segment", hint="add --bisect")
    opened = open_bundle(bundle)
    known = [each.id for each in opened.manifest.segments]
    if segment is not None and segment not in known:
        hint = f"the segments are: {', '.join(known)}"
        raise UsageError(f"there is no segment {segment!r}", where="--segment", hint=hint)
    reference = reference_of(open_source(model))
    given = read_inputs(inputs)
    arrays = complete(opened.manifest, given, seed, is_random=True)
    found = compare(opened, reference, arrays)
    ops: list[OpDeviation] = []
    name = segment or (found.first_bad.segment if found.first_bad else None)
    if bisecting and name is not None:
        from gimlet.compiler.checking.bisect import bisect_bundle

        ops = bisect_bundle(opened, name, reference, arrays)
    if as_json:
        print_json(_as_data(found, ops))
    else:
        _print(found, ops, bisecting=bisecting)
    if not found.ok:
        if as_json:
            click.get_current_context().exit(CheckError.exit_code)
        raise CheckError("the bundle's outputs are not the model's", where=str(bundle))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_compare, args)


def _print(found: Comparison, ops: Sequence[OpDeviation], *, bisecting: bool) -> None:
    from gimlet.compiler.tables import console_for_tables, figure_table

    console = console_for_tables()
    columns = ("segment", "device", "format", "accumulated", "alone", "within tolerance")
    rows = [
        (
            row.segment,
            f"{row.device} (emulated)" if row.emulated else row.device,
            row.format,
            _text(row.accumulated),
            _text(row.alone),
            _verdict(row.ok),
        )
        for row in found.segments
    ]
    console.print(figure_table(f"segments, against {found.reference}", columns, rows))
    for name, each in found.outputs.items():
        limit = each.limit(found.format)
        console.print(f"output {name}: {_text(each)}, {limit}: {_verdict(each.within(found.format))}", soft_wrap=True)
    if not bisecting:
        return
    bad = next((op for op in ops if not op.ok), None)
    if bad is not None:
        console.print(f"first op that parts: {bad.op}, value {bad.value}: {_text(bad.deviation)}", soft_wrap=True)
    elif ops:
        console.print("no op of the segment parts by itself: the error adds up, or is in what the framework fuses")
    else:
        console.print("every segment is within its tolerance")


def _text(found: Deviation | None) -> str:
    return "not known" if found is None else str(found)


def _verdict(ok: bool) -> str:
    return "yes" if ok else "NO"


def _as_data(found: Comparison, ops: Sequence[OpDeviation]) -> dict[str, Any]:
    def plain(each: Deviation | None) -> dict[str, float] | None:
        return None if each is None else {"of_range": each.of_range, "relative_l2": each.relative_l2}

    return {
        "reference": found.reference,
        "ok": found.ok,
        "outputs": {name: plain(each) for name, each in found.outputs.items()},
        "segments": [
            {
                "segment": row.segment,
                "device": row.device,
                "format": row.format,
                "emulated": row.emulated,
                "ok": row.ok,
                "accumulated": plain(row.accumulated),
                "alone": plain(row.alone),
            }
            for row in found.segments
        ],
        "ops": [{"op": op.op, "value": op.value, "ok": op.ok, **(plain(op.deviation) or {})} for op in ops],
    }


if __name__ == "__main__":
    main()
