"""The hardware that a module is compiled for: `placement.topology` with its devices, links and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, prod

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    Float64Type,
    FloatAttr,
    ModuleOp,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, Region
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import HasParent, IsolatedFromAbove, NoTerminator, SymbolOpInterface, SymbolTable
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class TopologyOp(IRDLOperation):
    """The devices at hand and the links between them.

        placement.topology @rack {
          placement.device @cpu {kind = "host"}
          placement.device @gpu0 {kind = "nvidia/l4"}
          placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie4x16"}
        }

    `host @name` before the region says where inputs come from and outputs go to. Without it that is the first device
    whose kind is `host`, else the first device.
    """

    name = "placement.topology"

    sym_name = prop_def(SymbolNameConstraint())
    host = opt_prop_def(FlatSymbolRefAttrConstr)
    body = region_def("single_block")

    traits = traits_def(IsolatedFromAbove(), NoTerminator(), SymbolTable(), SymbolOpInterface())

    def __init__(self, name: str, parts: Sequence[Operation], host: str | None = None) -> None:
        super().__init__(
            properties={"sym_name": StringAttr(name), "host": None if host is None else SymbolRefAttr(host)},
            regions=[Region(Block(parts))],
        )

    @property
    def devices(self) -> dict[str, DeviceOp]:
        """The devices by name, in the order they are written."""
        return {op.sym_name.data: op for op in self.body.block.ops if isinstance(op, DeviceOp)}

    @property
    def links(self) -> dict[str, LinkOp]:
        """The links by name, in the order they are written."""
        return {op.sym_name.data: op for op in self.body.block.ops if isinstance(op, LinkOp)}

    @property
    def groups(self) -> dict[str, GroupOp]:
        """The groups by name, in the order they are written."""
        return {op.sym_name.data: op for op in self.body.block.ops if isinstance(op, GroupOp)}

    @property
    def host_name(self) -> str:
        """The device that inputs come from and outputs go to."""
        if self.host is not None:
            return self.host.string_value()
        devices = self.devices
        hosts = (name for name, device in devices.items() if device.kind.data == "host")
        return next(hosts, next(iter(devices)))

    def verify_(self) -> None:
        for op in self.body.block.ops:
            if not isinstance(op, DeviceOp | LinkOp | GroupOp):
                raise VerifyException(f"a topology holds devices, links and groups, not '{op.name}'")
        devices = self.devices
        if not devices:
            raise VerifyException("a topology needs at least one device")
        if self.host is not None and self.host.string_value() not in devices:
            raise VerifyException(f"the host {self.host} is not a device of this topology")

    @classmethod
    def parse(cls, parser: Parser) -> TopologyOp:
        properties: dict[str, Attribute] = {"sym_name": parser.parse_symbol_name()}
        if parser.parse_optional_keyword("host"):
            properties["host"] = SymbolRefAttr(parser.parse_symbol_name())
        attributes = parser.parse_optional_attr_dict_with_keyword(("sym_name", "host"))
        body = parser.parse_region()
        if not body.blocks:
            body.add_block(Block())
        return TopologyOp.create(
            properties=properties, attributes={} if attributes is None else attributes.data, regions=[body]
        )

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        if self.host is not None:
            printer.print_string(" host ")
            printer.print_attribute(self.host)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body)


@irdl_op_definition
class DeviceOp(IRDLOperation):
    """A device and its kind, the name of a hardware description. Further attributes go to the device's target."""

    name = "placement.device"

    sym_name = prop_def(SymbolNameConstraint())
    kind = prop_def(StringAttr)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(HasParent(TopologyOp), SymbolOpInterface())
    assembly_format = "$sym_name attr-dict"

    def __init__(self, name: str, kind: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        super().__init__(
            properties={"sym_name": StringAttr(name), "kind": StringAttr(kind)}, attributes=dict(attributes or {})
        )

    def verify_(self) -> None:
        if not self.kind.data:
            raise VerifyException(f"device @{self.sym_name.data} has an empty kind")


@irdl_op_definition
class LinkOp(IRDLOperation):
    """A link between two devices, the same in both directions, and its kind, the name of a hardware description.

    placement.link @pcie0 between @cpu, @gpu0 {kind = "pcie4x16", latency_s = 1.0e-5 : f64, bandwidth = 2.5e10 : f64}

    `latency_s` and `bandwidth` (bytes per second one way) are what the description says of it, for passes that choose
    between routes; both are given or none.
    """

    name = "placement.link"

    sym_name = prop_def(SymbolNameConstraint())
    first = prop_def(FlatSymbolRefAttrConstr)
    second = prop_def(FlatSymbolRefAttrConstr)
    kind = prop_def(StringAttr)
    latency_s = opt_prop_def(FloatAttr[Float64Type])
    bandwidth = opt_prop_def(FloatAttr[Float64Type])

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(HasParent(TopologyOp), SymbolOpInterface())
    assembly_format = "$sym_name `between` $first `,` $second attr-dict"

    def __init__(self, name: str, first: str, second: str, kind: str, speed: tuple[float, float] | None = None) -> None:
        """`speed` is the latency in seconds and the bandwidth in bytes per second."""
        latency_s, bandwidth = (None, None) if speed is None else (FloatAttr(figure, f64) for figure in speed)
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "first": SymbolRefAttr(first),
                "second": SymbolRefAttr(second),
                "kind": StringAttr(kind),
                "latency_s": latency_s,
                "bandwidth": bandwidth,
            }
        )

    @property
    def speed(self) -> tuple[float, float] | None:
        """The latency in seconds and the bandwidth in bytes per second, or None where the link does not say."""
        if self.latency_s is None or self.bandwidth is None:
            return None
        return self.latency_s.value.data, self.bandwidth.value.data

    @property
    def between(self) -> tuple[str, str]:
        """The names of its two devices."""
        return self.first.string_value(), self.second.string_value()

    def verify_(self) -> None:
        if not self.kind.data:
            raise VerifyException(f"link @{self.sym_name.data} has an empty kind")
        first, second = self.between
        if first == second:
            raise VerifyException(f"link @{self.sym_name.data} joins @{first} with itself")
        if (self.latency_s is None) != (self.bandwidth is None):
            raise VerifyException(f"link @{self.sym_name.data} has a latency or a bandwidth, but not both")
        speed = self.speed
        if speed is not None and not (0 <= speed[0] < inf and 0 < speed[1] < inf):
            raise VerifyException(f"link @{self.sym_name.data} takes {speed[0]} s and {speed[1]} bytes per second")
        _require_devices(self, self.between, f"link @{self.sym_name.data}")


@irdl_op_definition
class GroupOp(IRDLOperation):
    """Devices that work as one, arranged in a mesh. Ops can be placed on it; programs for it are not made yet.

    placement.group @tp [@gpu0, @gpu1] {mesh = array<i64: 2>, shard = {algorithm = "ring"}}
    """

    name = "placement.group"

    sym_name = prop_def(SymbolNameConstraint())
    members = prop_def(ArrayAttr[SymbolRefAttr])
    mesh = prop_def(DenseArrayBase.constr(i64))
    shard = opt_prop_def(DictionaryAttr)

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(HasParent(TopologyOp), SymbolOpInterface())
    assembly_format = "$sym_name $members attr-dict"

    def __init__(
        self, name: str, members: Sequence[str], mesh: Sequence[int], shard: DictionaryAttr | None = None
    ) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "members": ArrayAttr([SymbolRefAttr(member) for member in members]),
                "mesh": DenseArrayBase.from_list(i64, mesh),
                "shard": shard,
            }
        )

    def verify_(self) -> None:
        name = f"group @{self.sym_name.data}"
        members = [member.string_value() for member in self.members]
        if len(members) < 2:
            raise VerifyException(f"{name} needs at least two devices")
        if len(set(members)) != len(members):
            raise VerifyException(f"{name} names a device twice")
        mesh = self.mesh.get_values()
        if any(size <= 0 for size in mesh) or prod(mesh) != len(members):
            shape = "x".join(str(size) for size in mesh)
            raise VerifyException(f"{name} has {len(members)} devices, which a mesh of {shape} does not hold")
        _require_devices(self, members, name)


def topology_of(op: Operation) -> TopologyOp | None:
    """The topology of the module that `op` is in, or None if it has none."""
    top: Operation | None = op
    while top is not None and not isinstance(top, ModuleOp):
        top = top.parent_op()
    if top is None:
        return None
    return next((child for child in top.body.block.ops if isinstance(child, TopologyOp)), None)


def require_device(op: Operation, device: str) -> None:
    """VerifyException if the module of `op` has a topology and `device` is not one of its devices."""
    topology = topology_of(op)
    if topology is not None and device not in topology.devices:
        raise VerifyException(f"@{device} is not a device of topology @{topology.sym_name.data}")


def _require_devices(op: Operation, devices: Sequence[str], what: str) -> None:
    topology = op.parent_op()
    if not isinstance(topology, TopologyOp):
        return
    known = topology.devices
    for device in devices:
        if device not in known:
            raise VerifyException(f"{what} names @{device}, which is not a device of this topology")
