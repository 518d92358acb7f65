"""What must hold between the parts of a manifest, checked when one is written and again when one is read.

Every name refers to something that exists and is listed once; a path stays inside the bundle; the steps are in an
order in which every value is made before it is read, by steps that the reader waits for; a launch fits its segment.
Each violation is an `InputError` that names the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import PurePosixPath

from gimlet.runtime.errors import InputError
from gimlet.runtime.manifest import Launch, Manifest, Port, Segment, Step, Transfer, Value, Variant
from gimlet.runtime.packed import BITS
from gimlet.runtime.signature import leaves
from gimlet.runtime.structures import parse_type
from gimlet.runtime.tensors import STRING, TensorSpec

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_path(path: str, where: str) -> None:
    """InputError for a path that could leave the bundle's folder, or that two systems would read differently."""
    parts = PurePosixPath(path).parts
    clean = "/".join(parts) == path and "\\" not in path and "\0" not in path and ":" not in path
    if not parts or not clean or path.startswith("/") or ".." in parts:
        raise InputError(f"the path {path!r} leaves the bundle's folder or is not in its normal form", where=where)


def check_manifest(manifest: Manifest, where: str = "manifest.json") -> None:
    """InputError for the first rule that `manifest` breaks."""
    _Checker(manifest, where).run()


class _Checker:
    """The tables of names that the rules look into."""

    def __init__(self, manifest: Manifest, where: str) -> None:
        self.manifest = manifest
        self.where = where
        self.devices = self.unique("topology.devices", (device.name for device in manifest.topology.devices))
        self.links = self.unique("topology.links", (link.name for link in manifest.topology.links))
        self.buffers = {buffer.id: buffer for buffer in manifest.buffers}
        self.values = {value.id: value for value in manifest.values}
        self.segments = {segment.id: segment for segment in manifest.segments}

    def fail(self, place: str, message: str) -> InputError:
        return InputError(message, where=f"{self.where}: {place}")

    def unique(self, place: str, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for index, name in enumerate(names):
            if not name or name in found:
                raise self.fail(f"{place}[{index}]", f"the name {name!r} is empty or taken")
            found.add(name)
        return found

    def known(self, place: str, what: str, name: str, names: Iterable[str]) -> None:
        if name not in names:
            raise self.fail(place, f"there is no {what} {name!r}")

    def run(self) -> None:
        manifest = self.manifest
        self.unique("values", (value.id for value in manifest.values))
        self.unique("buffers", (buffer.id for buffer in manifest.buffers))
        self.unique("segments", (segment.id for segment in manifest.segments))
        self.unique("steps", (step.id for step in manifest.steps))
        self.unique("inputs", (port.name for port in manifest.inputs))
        self.unique("outputs", (port.name for port in manifest.outputs))
        self.check_topology()
        self.check_files()
        self.check_values()
        for index, segment in enumerate(manifest.segments):
            self.check_segment(f"segments[{index}]", segment)
        self.check_steps()
        self.check_signature()

    def check_topology(self) -> None:
        topology = self.manifest.topology
        self.known("topology.host", "device", topology.host, self.devices)
        for index, link in enumerate(topology.links):
            for end in link.between:
                self.known(f"topology.links[{index}].between", "device", end, self.devices)
        for index, buffer in enumerate(self.manifest.buffers):
            self.known(f"buffers[{index}].device", "device", buffer.device, self.devices)

    def check_files(self) -> None:
        for path, entry in self.manifest.files.items():
            check_path(path, f"{self.where}: files")
            if not _SHA256.fullmatch(entry.sha256):
                raise self.fail(f"files.{path}", f"{entry.sha256!r} is not a sha256 in hexadecimal")

    def check_values(self) -> None:
        for index, value in enumerate(self.manifest.values):
            place = f"values[{index}]"
            self.known(f"{place}.device", "device", value.device, self.devices)
            self.check_dtype(place, value.dtype)
            if value.buffer is None:
                continue
            self.known(f"{place}.buffer", "buffer", value.buffer, self.buffers)
            if self.buffers[value.buffer].device != value.device:
                raise self.fail(f"{place}.buffer", f"buffer {value.buffer!r} is on another device")

    def check_dtype(self, place: str, dtype: str) -> None:
        try:
            parse_type(dtype)
        except InputError as error:
            raise self.fail(f"{place}.dtype", error.message) from None

    def check_segment(self, place: str, segment: Segment) -> None:
        check_path(segment.id, f"{self.where}: {place}.id")
        self.known(f"{place}.device", "device", segment.device, self.devices)
        for kind, specs in (("inputs", segment.inputs), ("outputs", segment.outputs)):
            self.unique(f"{place}.{kind}", (spec.name for spec in specs))
            for index, spec in enumerate(specs):
                self.check_dtype(f"{place}.{kind}[{index}]", spec.dtype)
        if not segment.variants:
            raise self.fail(f"{place}.variants", "a segment needs at least one artifact")
        for index, variant in enumerate(segment.variants):
            self.check_variant(f"{place}.variants[{index}]", variant)
        if segment.portable is not None:
            self.check_variant(f"{place}.portable", segment.portable)

    def check_variant(self, place: str, variant: Variant) -> None:
        for path in variant.files:
            check_path(path, f"{self.where}: {place}.files")
            if path not in variant.undigested:
                self.known(f"{place}.files", "entry in files for", path, self.manifest.files)
        for path in variant.undigested:
            self.known(f"{place}.undigested", "file of this variant", path, variant.files)
            if path in self.manifest.files:
                raise self.fail(f"{place}.undigested", f"{path!r} is listed among the hashed files too")

    def check_steps(self) -> None:
        manifest = self.manifest
        made: dict[str, str | None] = {}
        self.check_states_read(made)
        for index, port in enumerate(manifest.inputs):
            place = f"inputs[{index}].value"
            self.known(place, "value", port.value, self.values)
            self.check_default(f"inputs[{index}].default", port)
            if port.value in made or self.values[port.value].device != manifest.topology.host:
                raise self.fail(place, f"{port.value!r} is another input's value, or not on the host")
            made[port.value] = None
        before: dict[str, set[str]] = {}
        for index, step in enumerate(manifest.steps):
            self.check_step(f"steps[{index}]", step, made, before)
        for index, port in enumerate(manifest.outputs):
            self.known(f"outputs[{index}].value", "value that is made", port.value, made)
            if self.values[port.value].device != manifest.topology.host:
                raise self.fail(f"outputs[{index}].value", f"{port.value!r} is not on the host")

        self.check_states_written(made)

    def check_states_read(self, made: dict[str, str | None]) -> None:
        """What a state holds is there before the steps, in memory that its name stands for once."""
        states = self.manifest.states
        self.unique("states", (state.name for state in states))
        self.unique("inputs and states", [*(port.name for port in self.manifest.inputs), *(s.name for s in states)])
        self.unique("outputs and states", [*(port.name for port in self.manifest.outputs), *(s.result for s in states)])
        self.unique("states", (state.written for state in states))
        for index, state in enumerate(states):
            place = f"states[{index}].read"
            self.known(place, "value", state.read, self.values)
            value = self.values[state.read]
            if state.read in made:
                raise self.fail(place, f"{state.read!r} is another state's value")
            if not value.spec.is_tensor or value.dtype == STRING or value.dtype in BITS or value.shape is None:
                raise self.fail(place, f"a value of type {value.dtype} is no state")
            if len(value.shape) != len(state.capacity):
                raise self.fail(f"states[{index}].capacity", f"{value.spec} is not of rank {len(state.capacity)}")
            made[state.read] = None

    def check_states_written(self, made: dict[str, str | None]) -> None:
        """What becomes of a state is made by a launch on its device, in its form."""
        for index, state in enumerate(self.manifest.states):
            place = f"states[{index}].written"
            self.known(place, "value that is made", state.written, made)
            read, written = self.values[state.read], self.values[state.written]
            if made[state.written] is None or written.device != read.device:
                raise self.fail(place, f"{state.written!r} is not made on {read.device!r}, where the state is")
            if not _same_form(written, read.spec) or written.shape is None or None in written.shape:
                raise self.fail(place, f"{read.spec} cannot become {written.spec}")
            if state.in_place and written.shape != read.shape:
                raise self.fail(place, f"{read.spec} cannot become {written.spec} in place")

    def check_default(self, place: str, port: Port) -> None:
        """A default is a tensor of the input's type, and lies in a file of the bundle."""
        default = port.default
        if default is None:
            return
        check_path(default.file, f"{self.where}: {place}.file")
        self.known(f"{place}.file", "entry in files for", default.file, self.manifest.files)
        spec = self.values[port.value].spec
        if not spec.is_tensor or spec.dtype == STRING:
            raise self.fail(place, f"an input of type {spec.dtype} has no default")
        bits = BITS.get(spec.dtype, 8 * spec.numpy_type.itemsize)
        if default.bytes != (prod(default.shape) * bits + 7) // 8:
            raise self.fail(place, f"{default.bytes} bytes are no {spec.dtype} of shape {list(default.shape)}")
        if default.offset + default.bytes > self.manifest.files[default.file].bytes:
            raise self.fail(place, f"it reaches beyond the end of {default.file!r}")

    def check_signature(self) -> None:
        """Every input stands in the signature once, and what it returns are outputs."""
        signature = self.manifest.signature
        if signature is None:
            return
        names = self.unique("signature.args", signature.inputs())
        states = {state.name for state in self.manifest.states}
        # A state may be a buffer of the module, which is no argument.
        odd = ({port.name for port in self.manifest.inputs} ^ names) - states
        if odd:
            raise self.fail(
                "signature.args", f"{min(odd)!r} is an input of the program or of the module, but not of both"
            )
        outputs = {port.name for port in self.manifest.outputs} | {state.result for state in self.manifest.states}
        for name in leaves(signature.result):
            self.known("signature.result", "output", name, outputs)
        for name, after in signature.changed:
            self.known("signature.changed", "input", name, names)
            self.known("signature.changed", "output", after, outputs)

    def check_step(self, place: str, step: Step, made: dict[str, str | None], before: dict[str, set[str]]) -> None:
        """Checks one step against what the steps before it `made`; `before` maps each to all that precede it."""
        waited: set[str] = set()
        for name in step.after:
            self.known(f"{place}.after", "earlier step", name, before)
            waited |= before[name] | {name}
        before[step.id] = waited
        if isinstance(step, Launch):
            self.check_launch(place, step)
            reads, writes = step.inputs, step.outputs
        else:
            self.check_transfer(place, step)
            reads, writes = (step.source,), (step.target,)
        for name in reads:
            self.known(place, "value made before this step", name, made)
            maker = made[name]
            if maker is not None and maker not in waited:
                raise self.fail(f"{place}.after", f"the step reads {name!r} and does not wait for {maker!r}")
        for name in writes:
            self.known(place, "value", name, self.values)
            if name in made:
                raise self.fail(place, f"the value {name!r} is made twice")
            made[name] = step.id

    def check_launch(self, place: str, step: Launch) -> None:
        self.known(f"{place}.segment", "segment", step.segment, self.segments)
        segment = self.segments[step.segment]
        self.check_ports(f"{place}.inputs", segment, step.inputs, segment.inputs)
        self.check_ports(f"{place}.outputs", segment, step.outputs, segment.outputs)

    def check_ports(self, place: str, segment: Segment, names: Sequence[str], specs: Sequence[TensorSpec]) -> None:
        if len(names) != len(specs):
            raise self.fail(place, f"segment {segment.id!r} has {len(specs)} of them, not {len(names)}")
        for name, spec in zip(names, specs, strict=True):
            self.known(place, "value", name, self.values)
            value = self.values[name]
            if value.device != segment.device:
                raise self.fail(place, f"{name!r} lives on {value.device!r}, the segment runs on {segment.device!r}")
            if not _same_form(value, spec):
                raise self.fail(place, f"{name!r} is {value.spec}, the segment has {spec}")

    def check_transfer(self, place: str, step: Transfer) -> None:
        for name in (step.source, step.target):
            self.known(place, "value", name, self.values)
        source, target = self.values[step.source], self.values[step.target]
        if source.device == target.device:
            raise self.fail(place, f"{step.source!r} and {step.target!r} are on the same device")
        if not _same_form(source, target.spec):
            raise self.fail(place, f"{source.spec} cannot become {target.spec}")
        for link in step.route:
            self.known(f"{place}.route", "link", link, self.links)


def _same_form(value: Value, spec: TensorSpec) -> bool:
    """Whether type and rank agree. Shapes may be written over other dimensions inside a segment."""
    ranks_agree = value.shape is None or spec.shape is None or len(value.shape) == len(spec.shape)
    return value.dtype == spec.dtype and ranks_agree
