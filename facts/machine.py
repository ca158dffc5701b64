"""What a machine has beside its tunnel and its pods: addresses, tables and devices that can be in the way of Calico."""

from __future__ import annotations

import msgspec

from facts.fact import Fact


class NodeAddress(Fact, frozen=True, kw_only=True):
    """Which device of the node holds the address Calico uses for it. `found=False`: none does."""

    node: str
    address: str
    found: bool
    device: str = ""  # where none holds it: the one it belongs on, as far as anything tells
    duplicate: bool = False  # IPv6: somebody else on the network has it, so that the kernel does not use it
    others: tuple[str, ...] = ()  # "eth0 172.30.0.11": the node's other addresses of this family, no pod's or tunnel's


class NeighborTable(Fact, frozen=True, kw_only=True):
    """`ip ntable`: one table for each family and for all of the machine's namespaces together."""

    node: str
    family: int
    collectable: int  # entries that are not permanent, as far as this namespace tells; only these are limited
    limit: int  # gc_thresh3; -1 when the kernel does not say
    refused: int  # entries that were not made because the table was full, since the machine started


class RoutingRules(Fact, frozen=True, kw_only=True):
    """Policy routing rules that ask for more than addresses and devices, so that no route lookup tells what they do."""

    node: str
    family: int
    rules: tuple[str, ...] = ()  # as `ip rule` writes them: "100: fwmark 0x1/0xff lookup 200"


class MacSharers(Fact, frozen=True, kw_only=True):
    """Addresses that are neighbors with this MAC on a tunnel device. More than one: peers share a MAC."""

    node: str
    device: str
    mac: str
    addresses: tuple[str, ...]


class ForeignVxlan(msgspec.Struct, frozen=True, kw_only=True):
    """A VXLAN device that is not Calico's."""

    device: str
    vni: int  # -1: it takes any (a flow-based device)
    port: int
    up: bool


class ForeignVxlans(Fact, frozen=True, kw_only=True):
    """The node's VXLAN devices that are not Calico's."""

    node: str
    devices: tuple[ForeignVxlan, ...] = ()
