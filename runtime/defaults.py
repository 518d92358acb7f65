"""What inputs are that the caller does not give."""

from __future__ import annotations

import numpy as np

from gimlet.runtime.bundle import Bundle
from gimlet.runtime.packed import BITS, unpack


def read_defaults(bundle: Bundle) -> dict[str, np.ndarray]:
    """The defaults of a bundle's inputs by name, read-only and mapped from its files. CheckError for a changed file."""
    found: dict[str, np.ndarray] = {}
    for port in bundle.manifest.inputs:
        default = port.default
        if default is None:
            continue
        spec = bundle.manifest.spec(port)
        path = bundle.open_file(default.file)
        data: np.ndarray = np.zeros(0, np.uint8)
        if default.bytes:
            data = np.memmap(path, np.uint8, "r", default.offset, (default.bytes,))
        if spec.dtype in BITS:
            found[port.name] = unpack(data, spec.numpy_type, BITS[spec.dtype], default.shape)
        else:
            found[port.name] = np.asarray(data).view(spec.numpy_type).reshape(default.shape)
    return found
