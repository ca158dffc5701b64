"""How a node is beside any one path: its machine, and whether the routes it should have are there."""

from __future__ import annotations

import msgspec

from facts.fact import Fact

NEEDED = ("NET_ADMIN", "NET_RAW", "SYSLOG", "SYS_ADMIN", "SYS_PTRACE")  # capabilities of which a probe makes use


class NodeMachine(Fact, frozen=True, kw_only=True):
    """The machine below a node, and the probe on it."""

    node: str
    kernel: str  # `uname -r`
    uptime_s: int  # since the machine started
    probe: str = ""  # version of calico-why its probe is of
    capabilities: tuple[str, ...] | None = None  # of NEEDED those its probe has; None: a probe too old to tell


class RouteGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Routes that have all of this in common."""

    device: str  # a tunnel's or the uplink; "" for all other devices together, and for those without one
    protocol: int  # as `ip route` numbers them: 2 kernel, 3 boot, 12 bird, 80 Felix
    type: str = "unicast"  # unicast | blackhole | ...
    count: int


class RouteTable(Fact, frozen=True, kw_only=True):
    """All routes of a node's tables but the local one, counted, and the asked ones looked for."""

    node: str
    family: int = 4
    groups: tuple[RouteGroup, ...] = ()
    asked: int = 0  # routes that were looked for
    met: int = 0  # of those there, leading where they should
    covered: int = 0  # of those for which any route will do, the ones that only a wider one leads to
    unled: int = 0  # of the same, the ones that at most the default route leads to
    local: int = 0  # of the others those of one address that a pod of this node has instead, which goes before
    missing: tuple[str, ...] = ()  # prefixes of the rest that are not there, the first few
    lacking: int = 0  # how many those are
    astray: tuple[str, ...] = ()  # of those that lead elsewhere, as `ip route` writes them, the first few
    strayed: int = 0  # how many those are
