"""Packets met at a node's network cards; without it a loss between nodes and a loss in one of them look the same."""

from __future__ import annotations

from facts.fact import Fact


class Sighting(Fact, frozen=True, kw_only=True):
    """What of a leg's packets left its source node ("out") or reached its target node ("in") while the probes ran.

    They are looked at below every firewall of the node, tunnel header and all.
    """

    node: str
    way: str  # "out" | "in"
    source_address: str  # of the leg: what the packets carry inside of any tunnel
    target_address: str
    seen: int  # packets, where they leave only those of the time of the probes; -1 when nobody could look
    device: str = ""  # by which the last one went
    outer_target: str = ""  # the node address it was sent to; "" without a tunnel
    astray: str = ""  # "out", of a tunnel's packets: another device by which such packets left without the tunnel
    bad_checksums: int = 0  # "in": packets whose TCP or UDP checksum, or that of the tunnel around them, is wrong
    looked_ms: int = -1  # for how long, to this answer; -1: not known
    answered_ms: int = -1  # when the answer came, by the asker's clock since it asked all nodes at once; -1: not known
    # "in" only, about the leg's source node:
    begun: bool = False  # this node looked on when that one's probe said that it begins to send, and looks on itself
    heard: bool = False  # anything at all came from its node address
    enclosed: bool = False  # this node looked on from before it sent its probes until after, by its own word


class Bystander(Fact, frozen=True, kw_only=True):
    """Whose node address it is that a tunnel's packets were sent to, though they are for another node."""

    address: str
    node: str  # "": no node of the cluster has it


class StageSighting(Fact, frozen=True, kw_only=True):
    """Our own fresh packets of a leg as a node met them at one of its devices, or inside a pod, while they were sent
    once more. Below every firewall for what comes in, behind it for what goes out.

    Of each leg and place that was looked at there is at least one: with device "" and seen 0 where none was met,
    seen -1 where nobody could look.
    """

    node: str
    pod: str = ""  # namespace/name of the pod in whose network it was; "": in the node's own
    source_address: str  # of the leg: what the packets carry inside of any tunnel
    target_address: str
    reply: bool = False  # they answer those of the other leg
    device: str = ""
    going: str = ""  # "in" | "out"
    encapsulation: str = ""  # "vxlan" | "ipip": with the tunnel's header around them; "": as they are
    seen: int  # packets
    others: bool = False  # "in": they were sent to a MAC that is not the device's, whose kernel drops them
    outer_source: str = ""  # node addresses on the tunnel's header
    outer_target: str = ""
    port: int = -1  # UDP port of the tunnel
    vni: int = -1
    inner_mac: str = ""  # to which VXLAN's inner frame is sent
    hops: int = -1  # the least time to live (TTL, hop limit) they carried, inside of any tunnel
    enclosed: bool = False  # this node looked on from before they were sent until after
    listened: bool = False  # the node at the other end said that it looks on before they were sent
    train: bool = False  # they are those of trains, of which some were lost
    large: str = ""  # they were sent to see whether full-size ones pass, as SendProbe.large
    later: bool = False  # they follow in connections that were made, as Trace.later
