"""Figures for people: the right unit, four digits, and no unit that rounding has left behind."""

import pytest

from gimlet.runtime.units import amount_text, bytes_text, joules_text, seconds_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (1.5e-9, "1.5 ns"), (12.345e-6, "12.35 µs"), (0.99999, "1 s"), (0.02, "20 ms"), (12345.6, "12350 s")],
)
def test_times(seconds: float, text: str):
    assert seconds_text(seconds) == amount_text(seconds, "s") == text


def test_energies_and_money():
    assert joules_text(3.75e-5) == amount_text(3.75e-5, "J") == "37.5 µJ"
    assert amount_text(0.012345, "USD") == "0.01235 USD"


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "∞"), (0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (131072, "131.1 kB"), (999_960, "1 MB"), (2e12, "2 TB")],
)
def test_sizes(size: float | None, text: str):
    assert bytes_text(size) == text
