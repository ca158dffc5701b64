"""Who tells whom of its blocks over BGP; without VXLAN, and where Felix writes no routes, nobody else does."""

from __future__ import annotations

from facts.fact import Fact


class Bird(Fact, frozen=True, kw_only=True):
    """BIRD on a node, by its control socket. `show protocols` as `birdcl` would print it, one BgpPeer a row."""

    node: str
    family: int = 4
    seen: bool  # False: the probe sees no process of Calico on this node, so it cannot say
    running: bool = False
    detail: str = ""  # its version, or why it did not answer


class BgpPeer(Fact, frozen=True, kw_only=True):
    """One BGP session of a node's BIRD."""

    node: str
    family: int = 4
    name: str  # Mesh_172_30_0_12
    kind: str  # "mesh" | "node" | "global"; "local_workload": with a pod, where the node as a whole is asked about
    address: str  # 172.30.0.12
    state: str  # up | start | down
    session: str = ""  # Established | Active | Connect | Idle | OpenSent | OpenConfirm | Passive
    since: str = ""  # as BIRD prints it
    info: str = ""  # what it says behind the session's state: an error
