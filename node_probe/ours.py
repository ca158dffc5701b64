"""Which packets are our own fresh ones, and which answers are theirs; without it the firewall's trace and the looks at
the devices would each follow packets of their own idea.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import msgspec

from facts import Trace
from node_probe.large import TEXTS
from node_probe.packets import SMALL
from node_probe.syn import LENGTH, LOWEST_PORT, WHOLE_FROM

MOST = 16  # traces of an ask
NETWORK, TRANSPORT = 1, 2
PROTOCOLS = {"tcp": 6, "udp": 17}
ICMP = {4: 1, 6: 58}
IPIP = {4: 4, 6: 41}
ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
TCP_FLAGS, SYN, SYN_ACK, FIN_ACK = 0x17, 0x02, 0x12, 0x11  # of fin, syn, rst, ack
ACK, NO_FIN = 0x10, 0x16
ADDRESSES = {4: 12, 6: 8}  # where the source stands in the IP header; the target is behind it
NEXT_HEADER = {4: 9, 6: 6}
HEADER = {4: 20, 6: 40}
# From the end of the outer IP header to the inner packet: UDP, VXLAN and the inner Ethernet header; nothing.
INSIDE = {"vxlan": 8 + 8 + 14, "ipip": 0}
AT_ONCE = 16  # bytes that a load takes
OURS = SMALL[:AT_ONCE]
TRAIN_PORTS = (LOWEST_PORT >> 8).to_bytes(1, "big")  # no lower port has all of these bits
WHOLE_PORTS = (WHOLE_FROM >> 8).to_bytes(1, "big")


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes of a packet that must be these, where the mask has a bit."""

    header: int  # counted from the start of its NETWORK or TRANSPORT header
    offset: int
    value: bytes
    mask: bytes = b""

    def moved(self, header: int, offset: int) -> Bytes:
        return Bytes(header, self.offset + offset, self.value, self.mask)


@dataclass(frozen=True, slots=True)
class Followed:
    """Packets the kernel is told to follow: a leg's own ones, or the tunnel's around them."""

    trace: Trace
    outer: bool

    def at(self, hook: str, family: int) -> tuple[int, list[list[Bytes]]]:
        """Which packets those are at "prerouting" or "output": protocol number, and what else must hold, in any of some
        ways."""
        if not self.outer:
            kind = _kind(self.trace, family)
            return _protocol(self.trace, family), [[*_pair(one, family), *kind] for one in _as_seen(self.trace)]
        peer = _address(self.trace.peer)
        place = ADDRESSES[family] + (len(peer) if hook == "output" else 0)
        around = [Bytes(NETWORK, place, peer)]
        if self.trace.encapsulation != "ipip":
            around.append(Bytes(TRANSPORT, 2, self.trace.tunnel_port.to_bytes(2, "big")))
        protocol = IPIP[family] if self.trace.encapsulation == "ipip" else PROTOCOLS["udp"]
        if self.trace.encapsulation not in INSIDE:  # sealed
            return protocol, [around]
        return protocol, [around + self.inside(family)]

    def inside(self, family: int) -> list[Bytes]:
        """What must hold of the packet within VXLAN or IPIP, whichever nodes it goes between."""
        start = INSIDE[self.trace.encapsulation]
        within = [
            *_pair(self.trace, family),
            Bytes(NETWORK, NEXT_HEADER[family], bytes([_protocol(self.trace, family)])),
        ]
        kind = [one.moved(TRANSPORT, start + HEADER[family]) for one in _kind(self.trace, family)]
        return [*(one.moved(TRANSPORT, start) for one in within), *kind]


def followed(traces: Sequence[Trace]) -> list[Followed]:
    """Raises ValueError for what cannot be followed."""
    if len(traces) > MOST:
        raise ValueError(f"{len(traces)} legs at a time are too many to follow; {MOST} are not")
    found = []
    for trace in traces:
        if trace.protocol not in ("icmp", "tcp", "udp"):
            raise ValueError(f"{trace.protocol} packets cannot be followed")
        if trace.encapsulation not in ("", "direct", *INSIDE, "wireguard"):
            raise ValueError(f"{trace.encapsulation} packets cannot be followed")
        if trace.large not in ("", *TEXTS):
            raise ValueError(f"large packets that go {trace.large!r} cannot be followed")
        found.append(Followed(trace, outer=False))
        if trace.encapsulation not in ("", "direct") and trace.peer:
            found.append(Followed(trace, outer=True))
    return found


def talk_of(trace: Trace, behind: bytes) -> bytes:
    """What a packet and its answer have in common: the ports, the forward sender's first, or a ping's id and number.

    behind: the packet, from behind its IP header on.
    """
    if trace.protocol == "icmp":
        return behind[4:8]
    return behind[2:4] + behind[:2] if trace.reply else behind[:4]


def ends_of(packet: bytes, behind: bytes) -> tuple[str, str, int]:
    """Source, target and, of TCP and UDP, the target's port. packet: its IP header, which may be cut off: ("", "", 0).

    behind: the packet, from behind its IP header on.
    """
    family = 6 if packet[:1] and packet[0] >> 4 == 6 else 4
    if len(packet) < HEADER[family]:
        return "", "", 0
    start, length = ADDRESSES[family], 16 if family == 6 else 4
    source, target = packet[start : start + length], packet[start + length : start + 2 * length]
    ported = packet[NEXT_HEADER[family]] in PROTOCOLS.values()
    return str(ip_address(source)), str(ip_address(target)), int.from_bytes(behind[2:4], "big") if ported else 0


def answers(reply: Trace, trace: Trace) -> bool:
    """Are packets of the one leg answers to those of the other?"""
    same = (reply.protocol, reply.port, reply.large, reply.later) == (
        trace.protocol,
        trace.port,
        trace.large,
        trace.later,
    )
    return same and not trace.reply and (reply.source, reply.target) == (trace.target, trace.source)


def _protocol(trace: Trace, family: int) -> int:
    return PROTOCOLS.get(trace.protocol, ICMP[family])


def _pair(trace: Trace, family: int) -> list[Bytes]:
    return [Bytes(NETWORK, ADDRESSES[family], _address(trace.source) + _address(trace.target))]


def _as_seen(trace: Trace) -> list[Trace]:
    if not trace.translated:
        return [trace]
    end = {"target": trace.translated} if trace.reply else {"source": trace.translated}
    return [trace, msgspec.structs.replace(trace, **end)]


def _kind(trace: Trace, family: int) -> list[Bytes]:
    """A fresh packet of the asked kind, or the first answer to one; of pings, datagrams and large ones only this
    program's own."""
    if trace.protocol == "icmp":
        kind = (ECHO_REPLY if trace.reply else ECHO_REQUEST)[family]
        return [Bytes(TRANSPORT, 0, bytes([kind])), Bytes(TRANSPORT, 8, OURS)]
    port = Bytes(TRANSPORT, 0 if trace.reply else 2, trace.port.to_bytes(2, "big"))
    if trace.large:
        flags = SYN_ACK if trace.reply else SYN
        text = TEXTS[trace.large][trace.reply][:AT_ONCE]
        if trace.protocol == "udp":
            return [port, Bytes(TRANSPORT, 8, text)]
        return [port, Bytes(TRANSPORT, 13, bytes([flags]), bytes([TCP_FLAGS])), Bytes(TRANSPORT, LENGTH, text)]
    if trace.protocol == "tcp":
        flags, from_port = SYN_ACK if trace.reply else SYN, 2 if trace.reply else 0
        if trace.later:
            own = [] if trace.translated else [Bytes(TRANSPORT, from_port, WHOLE_PORTS)]  # NAT changes ports as well
            ending = (ACK, NO_FIN) if trace.reply else (FIN_ACK, TCP_FLAGS)
            return [port, *own, Bytes(TRANSPORT, 13, *(bytes([one]) for one in ending))]
        own = [Bytes(TRANSPORT, from_port, TRAIN_PORTS, TRAIN_PORTS)] if trace.train else []
        return [port, *own, Bytes(TRANSPORT, 13, bytes([flags]), bytes([TCP_FLAGS]))]
    return [port] if trace.reply else [port, Bytes(TRANSPORT, 8, OURS)]


def _address(address: str) -> bytes:
    return ip_address(address).packed
