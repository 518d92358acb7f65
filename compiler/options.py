"""What a compile is asked to do: the flags of `gimlet-compile`, as one value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from gimlet.targets.api import DimBound, Topology

Objective = Literal["latency", "throughput", "energy", "cost"]
PHASES = ("import", "normalize", "quantize", "annotate", "place", "split", "lower", "emit")


def default_cache() -> Path:
    """The folder for engines and probes that outlives a compile: `$GIMLET_CACHE`, else `gimlet` in the user's cache."""
    if "GIMLET_CACHE" in os.environ:
        return Path(os.environ["GIMLET_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "gimlet"


@dataclass(frozen=True)
class CompileOptions:
    """Options of one compile. `pins` are `(regular expression, device)` in the order given; later ones win.

    `formats` limits a device to number formats; `min_shares` asks for a least share of all FLOPs on a device;
    `max_segments` caps the launches; `bounds` limit other figures than the objective, such as `("latency", "5ms")`. Ops
    that an expression of `together` matches share a device, those of a pair of `apart` do not. `cost_providers` says
    for a device where its costs are from. With `fuse` the model is matched into large operators, which
    costs and targets see; without, it stays as it is written. `states` are pairs of an input and the output that it is
    in the next run, as `gimlet.compiler.states` reads them. With `loss_budget`, the most that the outputs may be
    off (relative L2), placement chooses the format of each op among all that its device has; losses are measured on
    `loss_inputs`, arrays by the names of the inputs, else on random ones.
    """

    topology: Topology
    objective: Objective = "latency"
    bindings: Mapping[str, DimBound] = field(default_factory=dict[str, DimBound])
    pins: tuple[tuple[str, str], ...] = ()
    formats: tuple[tuple[str, str], ...] = ()
    min_shares: tuple[tuple[str, float], ...] = ()
    max_segments: int | None = None
    bounds: tuple[tuple[str, str], ...] = ()
    together: tuple[str, ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    placement: Path | None = None
    costs: Path | None = None
    cost_providers: tuple[tuple[str, str], ...] = ()
    fuse: bool = True
    states: tuple[tuple[str, str], ...] = ()
    loss_budget: float | None = None
    loss_inputs: Mapping[str, NDArray[Any]] | None = None
    allow_tf32: bool = False
    time_limit_s: float | None = None
    seed: int = 0
    cache: Path = field(default_factory=default_cache)
