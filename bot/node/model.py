"""How a node is, as values; without it judge, table and picture would each have words of their own for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from facts import Allocation, CalicoNode, CalicoPod, CalicoSettings, Text, listed, say
from facts.service import SETTLED_S

Object = Mapping[str, Any]

WRONG, UNSEEN, NOTE = "wrong", "unseen", "note"
ESTABLISHED = "Established"
EXAMPLES = 3
WORKLOAD = "local_workload"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a person should know of a node. rule: the failure mode, "" where none is meant."""

    weight: str  # "wrong" | "unseen" | "note"
    text: Text
    rule: str = ""
    remedy: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A BGP session. node: whose address the peer's is; "" for nobody's of the cluster."""

    family: int
    kind: str  # "mesh" | "node" | "global" | "local_workload"
    address: str
    node: str = ""
    state: str = ""  # up | start | down
    session: str = ""  # Established | Active | ...
    since: str = ""
    info: str = ""


class Bgp(msgspec.Struct, frozen=True, kw_only=True):
    """Of one family."""

    family: int
    running: bool | None = None  # None: not seen
    version: str = ""  # as BIRD greets
    needed: bool = False  # BIRD writes the routes of a pool
    sessions: tuple[Session, ...] = ()
    source: str = ""  # "probe" | "CalicoNodeStatus" with the time it is of
    told: Text | None = None  # why there is no session, where that is as it should be, or was not seen


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel device that is there or ought to be."""

    device: str
    family: int
    needed: bool
    found: bool | None = None  # None: not seen
    up: bool = False
    mtu: int = -1
    addresses: tuple[str, ...] = ()


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one family. expected: to blocks and borrowed addresses of other nodes; -1 where that is not known."""

    family: int
    expected: int
    met: int = -1  # -1: not seen
    by_wider: int = 0  # of those BGP brings, the ones that only a wider route leads to
    by_default: int = 0  # and at most the default route
    lacking: int = 0
    astray: int = 0
    examples: tuple[str, ...] = ()
    by_device: Mapping[str, int] = {}  # all the node has that lead by a tunnel or the uplink
    by_protocol: Mapping[str, int] = {}  # all the node has


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One node."""

    node: str
    mark: str  # "healthy" | "cause" | "unknown"
    probe: str = ""  # version of its probe; "" where it does not say or did not answer
    answered: bool = False
    kubelet: str = ""  # "ready" | "not ready" | "silent" | "not known"
    addresses: tuple[str, ...] = ()
    agent: str = ""  # calico-node pod, namespace/name
    agent_ready: bool | None = None  # as the kubelet has it
    restarts: int = -1
    calico: str = ""  # version of its image
    felix: str = ""  # "ready" | "not ready" | "not live" | "no answer" | "" not seen
    felix_says: str = ""
    felix_age_s: int = -1
    bgp: tuple[Bgp, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    routes: tuple[Routes, ...] = ()
    kernel: str = ""
    uptime_s: int = -1
    findings: tuple[Finding, ...] = ()


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A node's calico-node pod."""

    pod: CalicoPod
    ready: bool | None = None
    unready_s: int = -1  # for how long the kubelet has it so
    version: str = ""
    bird_checked: bool = False  # the kubelet's readiness check asks for BIRD as well: it has a session

    @property
    def starting(self) -> bool:
        """Has it been unready for a moment only, or for nobody knows how long?"""
        return self.unready_s < SETTLED_S


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """With whom a node should speak BGP, of one family."""

    mesh: Mapping[str, str] = {}  # node -> address of all that peer with each other, itself among them
    configured: int = 0  # BGPPeers that are for this node, and name the peer
    selected: int = 0  # and those that select nodes as its peers
    mesh_on: bool = True
    known: bool = True  # False: BGPConfiguration or BGPPeers could not be read


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a node before its probe is asked."""

    name: str
    families: Mapping[int, CalicoNode]  # only those it has, or should have
    unjudged: Text | None = None  # why nothing is expected of its routes
    peers: Mapping[int, Peers] = {}
    agent: Agent | None = None
    ready: str = "not known"
    machine: bool = True  # False: no DaemonSet runs there, so neither Calico nor a probe
    kernel: str = ""  # as the kubelet has it
    status: Object | None = None  # its CalicoNodeStatus


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for all nodes. calico: by family and name."""

    settings: CalicoSettings
    calico: Mapping[int, Mapping[str, CalicoNode]]
    owners: Mapping[str, str]  # address -> node
    allocations: Mapping[str, Allocation] = {}  # of tunnel addresses, where blocks were read

    def peer(self, family: int, name: str) -> CalicoNode:
        return self.calico[family][name]


def shown(examples: Sequence[str], count: int) -> str:
    shown = list(examples[:EXAMPLES])
    if count > len(shown):
        return listed([*shown, say("{count} more", count=count - len(shown))])
    return listed(shown)


def finding(weight: str, text: Text, rule: str = "", remedy: str = "") -> Finding:
    return Finding(weight=weight, text=text, rule=rule, remedy=remedy)
