"""What every test shares: the repository's root, no network, hypothesis's profiles, and rare garbage collection."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

os.environ["HF_HUB_OFFLINE"] = "1"
# Engines and probes of the tests: not the user's own, and gone with `make clean`.
os.environ["GIMLET_CACHE"] = str(ROOT / "build" / "test-cache")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run and machine, and no verdict by the clock.
settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", deadline=None, max_examples=2_000, suppress_health_check=list(HealthCheck))
settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking at all of it again and again took a tenth of the time of tests of traces.

    The collector still runs, after 100,000 new objects instead of 700; a compilation makes it rarer.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(autouse=True)
def kept_tables() -> None:
    """PyTorch's exporter, where a test has imported it, builds its tables once."""
    if "torch.onnx._internal.exporter._registration" in sys.modules:
        from tests.exporter_tables import keep_tables

        keep_tables()
