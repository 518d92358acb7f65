"""gimlet-diff: what changed between two bundles, for people and for CI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from gimlet.runtime.errors import CheckError
from gimlet.tools.cli import command, print_json, run

PATH = click.Path(path_type=Path)


@command("gimlet-diff")
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@click.option(
    "--fail-on",
    default="",
    metavar="ASPECT[:N%],…",
    help="Exit with 4 if one of these changed: interface, topology, placement, cost, engines, weights, producer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def gimlet_diff(old: Path, new: Path, fail_on: str, *, as_json: bool) -> None:
    """Print what changed from bundle OLD to bundle NEW. With `--fail-on placement,cost:5%` some changes are errors."""
    from gimlet.compiler.diff import diff, parse_limits
    from gimlet.runtime.bundle import open_bundle

    limits = parse_limits(fail_on)
    before, after = open_bundle(old), open_bundle(new)
    changes = diff(before.manifest, after.manifest)
    broken = [change for change in changes if any(limit.breaks(change) for limit in limits)]
    if as_json:
        rows = [
            {"aspect": c.aspect, "where": c.where, "old": c.old, "new": c.new, "ratio": c.ratio, "broken": c in broken}
            for c in changes
        ]
        print_json({"old": before.id, "new": after.id, "same": before.id == after.id, "changes": rows})
        if broken:
            click.get_current_context().exit(CheckError.exit_code)
        return
    for change in changes:
        click.echo(str(change))
    if not changes:
        click.echo("no difference" if before.id == after.id else "no difference but in the costs and the IR")
    if broken:
        counts = Counter(change.aspect for change in broken)
        raise CheckError(
            "not allowed to change: " + ", ".join(f"{aspect} ({count})" for aspect, count in counts.items()),
            where=f"{old} → {new}",
            hint="if the change is meant, take the new bundle as the baseline",
        )


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The command's entry point."""
    run(gimlet_diff, args)


if __name__ == "__main__":
    main()
