"""python -m tests.fuzz: mutants of models and of IR text through the compiler; each must succeed or be refused.

A worker with bounded memory tries the mutants; where it dies or hangs, another goes on behind the one that did it.
What is a mistake of ours is kept in build/fuzz/, and the exit code is then 4. The same seed makes the same mutants.
"""

from __future__ import annotations

import logging
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import click
from tests.fuzz.mutate import protobuf_mutant, text_mutant
from tests.fuzz.subjects import subjects, texts
from tests.fuzz.trial import FINE, REFUSED, try_model, try_text

KEPT = Path(__file__).resolve().parents[2] / "build" / "fuzz"
MEMORY_BYTES = 6 << 30
HANG_S = 300


class Round:
    """The mutants of one seed by their numbers. Models alternate, and so does what is changed in them."""

    def __init__(self, folder: Path, seed: int, kind: str) -> None:
        self.folder = folder
        self.seed = seed
        self.kind = kind
        self.models = list(subjects(folder).items())
        self.texts = texts(folder) if kind == "text" else []

    def name(self, number: int) -> str:
        of = self.texts or self.models
        return f"{self.kind}-{self.seed}-{number}-{of[number % len(of)][0].replace(' ', '-')}"

    def mutant(self, number: int) -> bytes:
        rng = Random(f"{self.seed}/{self.kind}/{number}")
        if self.kind == "model":
            return protobuf_mutant(self.models[number % len(self.models)][1], rng)
        text, passes = self.texts[number % len(self.texts)][1]
        return f"// {passes}\n{text_mutant(text, rng)}".encode()

    def outcome(self, number: int) -> str:
        path = self.folder / ("mutant.onnx" if self.kind == "model" else "mutant.mlir")
        path.write_bytes(self.mutant(number))
        return try_model(path) if self.kind == "model" else try_text(path)


def outcomes(this: Round, count: int) -> Iterator[tuple[int, str]]:
    """The number and outcome of each mutant of a round."""
    number = 0
    while number < count:
        context = get_context("fork")
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(this, number, count, there))
        worker.start()
        there.close()
        try:
            while number < count:
                if not here.poll(HANG_S):
                    yield number, f"hangs: nothing came of it in {HANG_S} s"
                    break
                yield number, here.recv()
                number += 1
        except EOFError:
            yield number, "the process died"
        number += 1
        worker.kill()
        worker.join()


def _work(this: Round, start: int, count: int, results: Connection) -> None:
    # What the process has mapped already, and as much again as a mutant may take.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    for number in range(start, count):
        results.send(this.outcome(number))


@click.command("fuzz")
@click.option("--count", default=1000, show_default=True, help="How many mutants.")
@click.option("--seed", default=None, type=int, help="Which round; by default a random one.")
@click.option(
    "--kind", type=click.Choice(["model", "text"]), default="model", show_default=True, help="What is mutated."
)
def main(count: int, seed: int | None, kind: str) -> None:
    """Try COUNT mutants."""
    seed = Random().randrange(10**6) if seed is None else seed
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        this = Round(Path(folder), seed, kind)
        for number, outcome in outcomes(this, count):
            counts[outcome if outcome in (FINE, REFUSED) else "mistakes"] += 1
            if outcome not in (FINE, REFUSED):
                KEPT.mkdir(parents=True, exist_ok=True)
                path = KEPT / f"{this.name(number)}{'.onnx' if kind == 'model' else '.mlir'}"
                path.write_bytes(this.mutant(number))
                path.with_suffix(".txt").write_text(outcome)
                click.echo(f"{path}: {outcome.splitlines()[0][:160]}", err=True)
    click.echo(f"{kind}, seed {seed}: " + ", ".join(f"{number} {what}" for what, number in sorted(counts.items())))
    sys.exit(4 if counts["mistakes"] else 0)


if __name__ == "__main__":
    main()
