"""Files of inputs that are none: each message names the flag, the file and the reason."""

from pathlib import Path

import numpy as np
import pytest

from gimlet.runtime.errors import InputError, UsageError
from gimlet.tools.arrays import read_inputs


def test_a_folder_is_told_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        read_inputs([f"x={tmp_path}"])
    with pytest.raises(UsageError, match="there is no file"):
        read_inputs([f"x={tmp_path / 'x.npy'}"])


def test_the_flag_that_was_given_is_named() -> None:
    with pytest.raises(UsageError, match="--loss-input"):
        read_inputs(["x"], "--loss-input")


def test_a_file_of_text_is_not_called_a_pickle(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    file.write_text("1 2 3")
    with pytest.raises(InputError, match=r"it is no \.npy or \.npz file") as caught:
        read_inputs([f"x={file}"])
    assert "pickle" not in str(caught.value)


def test_an_array_of_python_objects_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.array([{}, None], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="its elements are Python objects"):
        read_inputs([f"x={file}"])
