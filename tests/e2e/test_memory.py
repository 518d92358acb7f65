"""A compile takes the memory of a piece of its weights, not of all: weights go from file to file."""

import sys
from pathlib import Path

import pytest
from compile_memory import PINS, TOPOLOGIES, peak_of, write_model

# Packages loaded, and for the accelerator the largest matrix (256 MiB) as it is read, turned and rounded.
MOST_MB = {"cpu": 400, "sram": 1300}


@pytest.mark.full
@pytest.mark.parametrize("device", sorted(TOPOLOGIES))
def test_weights_of_a_gigabyte_are_not_held_in_memory(device: str, tmp_path: Path):
    model = write_model(tmp_path, 1 << 30)
    (tmp_path / "topology.toml").write_text(TOPOLOGIES[device])
    command = [sys.executable, "-m", "gimlet.tools.gimlet_compile", str(model), "--bind", "n=1:1:4"]
    command += ["--topology", str(tmp_path / "topology.toml"), *PINS[device], "-o", str(tmp_path / "large.gimlet")]
    _, bare, _ = peak_of([sys.executable, "-c", "pass"])
    _, peak, _ = peak_of(command)
    assert peak - bare < MOST_MB[device]
