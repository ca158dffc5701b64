"""Which MAC and which node a frame goes to; wrong ones are invisible to every ping."""

from __future__ import annotations

from facts.fact import Fact


class Neighbor(Fact, frozen=True, kw_only=True):
    """`ip neigh get ADDRESS dev DEVICE`. `found=False`: the kernel has no entry."""

    node: str
    device: str
    address: str
    found: bool
    mac: str = ""  # "" while unresolved (INCOMPLETE, FAILED)
    state: str = ""  # PERMANENT | REACHABLE | STALE | DELAY | PROBE | INCOMPLETE | FAILED | NOARP
    asked: bool = False  # the kernel had a packet for it just now and could ask, and an answer was waited for


class FdbEntry(Fact, frozen=True, kw_only=True):
    """`bridge fdb get MAC dev DEVICE self`: to which node frames for this MAC go. `found=False`: there is no entry."""

    node: str
    device: str
    mac: str
    found: bool
    peer: str = ""  # outer IP address
    port: int = -1  # UDP port and VNI, where the entry has others than its device; else -1
    vni: int = -1
    via: str = ""  # the device its packets leave by, where it names another than the tunnel device itself does


class PeerGateway(Fact, frozen=True, kw_only=True):
    """The next hop by which a node sends to another node's own address; only where that is a router, or by another
    device than the uplink."""

    node: str
    peer: str  # node address of the other one
    device: str
    address: str  # of the router; of the other node itself where there is none
    mac: str = ""  # "" while unresolved
    state: str = ""  # as in Neighbor; "" when the kernel has no entry
