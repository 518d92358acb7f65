"""Progress of long work: a live line on a terminal, plain lines elsewhere, and the time that each phase took."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from gimlet.compiler.tables import plain_console


@dataclass
class Progress:
    """Reports phases on standard error. `quiet` keeps the times and prints nothing."""

    quiet: bool = False
    console: Console = field(default_factory=lambda: plain_console(stderr=True))
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str, detail: str = "") -> Generator[None]:
        """Times a phase, shows it while it runs, and leaves one line when it is done."""
        label = f"{name} {detail}".strip()
        start = time.perf_counter()
        if self.quiet:
            yield
        elif self.console.is_terminal:
            with self.console.status(Text(label)):
                yield
        else:
            yield
        taken = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + taken
        self.say(f"{label:<48} {taken:6.2f} s")

    def say(self, line: str) -> None:
        """Prints one line, unless quiet."""
        if not self.quiet:
            self.console.print(line, soft_wrap=True)
