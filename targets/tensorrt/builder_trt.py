"""TensorRT as a builder: engines that are built on the GPU that runs them.

Where that GPU is not at hand, a segment is emitted as portable ONNX with the settings of its build, and
`gimlet-compile finish` builds it on the GPU's host. What this file asks of TensorRT is written against the documented
Python API of TensorRT 10; it was checked against a recording stand-in and has never run with the real library.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from gimlet.runtime.errors import InputError, MissingError
from gimlet.runtime.executors.cuda import compute_capability as capability_at_hand
from gimlet.targets.tensorrt.client import worker
from gimlet.targets.tensorrt.engine import BuildJob, BuildReport
from gimlet.targets.worker import WorkerError

MODULE = "tensorrt"
SETTINGS_FILE = "build.json"
ENGINE_FILE = "engine.trt"
SCHEMA = 1


@dataclass(frozen=True)
class BuildSettings:
    """How to build the engine of a deferred segment. Files are named relative to the bundle's folder.

    `profile` maps an input to its `min`, `opt` and `max` shape. `trtexec` is the same build by hand, run in the
    bundle's folder: the first line puts the model where its external data is found.
    """

    model: str
    engine: str
    compute_capability: str
    profile: Mapping[str, Mapping[str, list[int]]]
    allow_tf32: bool
    trtexec: tuple[str, ...] = field(default=())

    def write(self, path: Path) -> None:
        """Writes the settings, with the `trtexec` lines."""
        data = {"schema": SCHEMA, "library": MODULE, "strongly_typed": True, **asdict(self)}
        data["trtexec"] = trtexec_lines(self)
        path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")

    @staticmethod
    def read(path: Path) -> BuildSettings:
        """Reads what `write` wrote. InputError where the file is missing or is not that."""
        try:
            data = json.loads(path.read_text())
            if data["schema"] != SCHEMA or data["library"] != MODULE:
                raise InputError(f"build settings of schema {data['schema']} for {data['library']!r}", where=str(path))
            names = BuildSettings.__dataclass_fields__
            return BuildSettings(**{name: data[name] for name in names})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"cannot read the build settings: {error}", where=str(path), hint="compile the bundle again"
            ) from error


def trtexec_lines(settings: BuildSettings) -> list[str]:
    """The commands that build the same engine with TensorRT's own tool, for the bundle's folder."""
    local = Path(settings.model).name
    command = ["trtexec", f"--onnx={local}", f"--saveEngine={settings.engine}", "--stronglyTyped", "--skipInference"]
    if not settings.allow_tf32:
        command.append("--noTF32")
    if any(shape["min"] != shape["max"] for shape in settings.profile.values()):
        for option, bound in (("minShapes", "min"), ("optShapes", "opt"), ("maxShapes", "max")):
            shapes = [f"{name}:{'x'.join(map(str, shape[bound]))}" for name, shape in settings.profile.items()]
            command.append(f"--{option}={','.join(shapes)}")
    return [shlex.join(["cp", settings.model, local]), shlex.join(command), shlex.join(["rm", local])]


@cache
def installed_version() -> str | None:
    """The version of the package, or None where it is not installed."""
    if find_spec(MODULE) is None:
        return None
    try:
        return version("tensorrt")
    except PackageNotFoundError:
        return "unknown"


def builds_here(compute_capability: str) -> bool:
    """Whether this machine has the library and a GPU of this compute capability."""
    return installed_version() is not None and capability_at_hand() == compute_capability


def finish(settings: BuildSettings, root: Path, engine: Path) -> BuildReport:
    """Builds the engine of a deferred segment of the bundle `root` on this machine, and writes it to `engine`.

    MissingError where the library or a GPU of the right compute capability is not here. The report has the errors of
    a build that failed.
    """
    if installed_version() is None:
        raise MissingError(
            "TensorRT is not installed",
            where="target tensorrt",
            hint=f"on the GPU's host: pip install tensorrt; or, by hand: {trtexec_lines(settings)[1]}",
        )
    here = capability_at_hand()
    if here != settings.compute_capability:
        raise MissingError(
            f"this engine is for a GPU of compute capability {settings.compute_capability}, "
            + ("and this machine has none" if here is None else f"and this machine's is {here}"),
            where="target tensorrt",
            hint="run gimlet-compile finish on the host of that GPU",
        )
    job = BuildJob(
        model=str(root / settings.model),
        root=str(root),
        engine=str(engine),
        profile=settings.profile,
        allow_tf32=settings.allow_tf32,
    )
    try:
        return BuildReport.from_json(worker(MODULE).call("build", **asdict(job)))
    except WorkerError as error:
        return BuildReport(errors=[str(error)])
