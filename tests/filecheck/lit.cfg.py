"""lit's configuration: RUN lines of .mlir files, with the environment's tools first on PATH and this tree's code."""

import os
import sys
from pathlib import Path

SOURCES = str(Path(__file__).parents[2] / "src")
# Before numpy is loaded.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).parent), SOURCES]

from forked import ForkedTest, load_passes  # noqa: E402

load_passes()
config = globals()["config"]
config.name = "gimlet"
config.test_format = ForkedTest()
config.suffixes = [".mlir"]
config.test_source_root = str(Path(__file__).parent)
config.test_exec_root = str(Path(__file__).parents[2] / "build" / "lit")
config.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
config.environment["PYTHONPATH"] = SOURCES
config.environment["OMP_NUM_THREADS"] = "1"
config.environment["GIMLET_CACHE"] = str(Path(__file__).parents[2] / "build" / "test-cache")
