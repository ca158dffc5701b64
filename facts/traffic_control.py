"""What a device's traffic control (tc) did with fresh packets; without it what it takes would be lost between two
devices that are in order."""

from __future__ import annotations

import msgspec

from facts.fact import Fact


class Taker(msgspec.Struct, frozen=True, kw_only=True):
    """A filter, program or queueing discipline of tc that can take packets away."""

    text: str  # as `tc` names it: "filter protocol ip pref 7 bpf handle 0x1 cil_from_netdev direct-action"
    how: str  # "drop" | "police" | "redirect" | "decide" (a program) | "queue"
    to: str = ""  # of "redirect": the device
    drops: int = -1  # packets it counted as dropped meanwhile; -1: it does not count by itself
    any_kind: bool = False  # it asks for no protocol and no port: other packets of this flow are taken as well


class TrafficControl(Fact, frozen=True, kw_only=True):
    """Fresh packets of a leg came to a device's traffic control, and nobody met them behind it. Inside of a pod that
    sends them they are counted as they were sent."""

    node: str
    pod: str = ""  # namespace/name of the pod inside of which the device is; "": the node's own
    device: str
    going: str  # "in": behind the tap, before all rules | "out": behind all rules, before the tap
    source_address: str  # of the leg: what the packets carry inside of any tunnel
    target_address: str
    protocol: str  # icmp | tcp | udp: of that inner packet
    port: int = 0
    reply: bool = False
    outer: bool = False  # they have the tunnel's header around them
    large: str = ""  # they were sent to see whether full-size ones pass, as SendProbe.large
    later: bool = False  # they follow in connections that were made, as Trace.later
    packets: int  # that came to it
    drops: int = -1  # that all of it together counted as dropped meanwhile; -1: nobody counts there
    takers: tuple[Taker, ...] = ()  # those that count drops did, where any did; else whatever could have
