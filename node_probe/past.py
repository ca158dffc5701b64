"""First packets of connections that leave a pod past the rules of its own network; without them the proxy of a service
mesh, which takes every connection of its pod, would be taken for the target.

They are handed to the pod's device as they are, and what answers them is met there, too. The pod's kernel knows of no
such connection, and ends it with a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from facts import Blind, Fact, LocalPod, NodeAsk, ProbeResult, SendProbe
from node_probe import filters, packets, syn
from node_probe.checksum import checksum, header_length
from node_probe.netlink_messages import NetlinkError
from node_probe.packets import Diverted, heard, met_by, new_identity, result, sender, wait_s
from node_probe.view import View

HOPS = 64
WHOLE = 0x4000  # DF
IPV4_HEADER, IPV6_HEADER = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!IHBB16s16s")


async def send(ask: NodeAsk, probe: SendProbe, view: View) -> Fact:
    """What `packets.send` gives, of connections by packets that a proxy in the pod does not take."""
    try:
        return await packets.send(ask, probe, view)
    except Diverted:
        pass
    return await packets.or_blind(ask, probe, _past(ask, probe, view))


async def _past(ask: NodeAsk, probe: SendProbe, view: View) -> Fact:
    pod = sender(ask, probe)
    if not pod or probe.protocol != "tcp":
        return _answered_within(ask, probe)
    try:
        ways = await asyncio.to_thread(_opened, probe, pod, view)
    except NetlinkError:
        return _answered_within(ask, probe)
    with contextlib.ExitStack() as opened:
        for one in ways:
            opened.callback(one.close)
        timeout, wanted = wait_s(packets.patience(ask), view), packets.patience(ask)
        met = await asyncio.gather(*(met_by(one.answers, probe, one.knock(), timeout) for one in ways))
    found = result(ask.node, probe, ways[0].source, 0, heard(met, timeout, wanted))
    assert isinstance(found, ProbeResult)
    return msgspec.structs.replace(found, past_proxy=True)


def _answered_within(ask: NodeAsk, probe: SendProbe) -> Blind:
    reason = (
        f"{probe.protocol} {probe.port} from {probe.pod} to {probe.target} was answered, and no such packet left "
        f"{probe.pod}: something inside the pod answers in the target's place, as the proxy of a service mesh does"
    )
    return Blind(node=ask.node, look="packets", reason=reason)


@dataclass
class _Way:
    """Of one packet."""

    answers: socket.socket  # is given what comes in from the target
    door: socket.socket  # by which it is handed to the device
    holder: socket.socket  # has its port meanwhile
    where: tuple[str, int, int, int, bytes]
    source: str
    probe: SendProbe

    async def knock(self) -> None:
        """Returns when the target answered. Raises Reset, OSError."""
        port, number = self.holder.getsockname()[1], int.from_bytes(new_identity(), "big")
        first = syn.Segment(port, self.probe.port, number, 0, syn.SYN, syn.MSS, b"")
        self.door.sendto(packet(self.source, self.probe.target, first), self.where)
        while True:
            data = await asyncio.get_running_loop().sock_recv(self.answers, filters.SNAP)
            answer = syn.parsed(data[header_length(data) :])
            if (answer.source, answer.target, answer.about) == (self.probe.port, port, (number + 1) % 2**32):
                if answer.refuses:
                    raise syn.Reset
                return

    def close(self) -> None:
        filters.close(self.answers)
        self.door.close()
        self.holder.close()


def _opened(probe: SendProbe, pod: LocalPod, view: View) -> Sequence[_Way]:
    """Raises OSError, CannotEnter, NetlinkError."""
    six = ":" in probe.target
    entered = view.enter(pod)
    route = entered.netlink.route(probe.target)
    entry = entered.netlink.neighbor(route.device, route.next_hop or probe.target)
    device = entered.netlink.link(index=route.device).name
    where = device, filters.IPV6 if six else filters.IPV4, 0, 0, bytes.fromhex(entry.mac.replace(":", ""))
    coming = [
        filters.protocol(six, socket.IPPROTO_TCP),
        *filters.address(probe.target, filters.places(probe.target)[0]),
    ]
    accepts = filters.program(six, coming, filters.PACKET_HOST)

    def made() -> list[_Way]:
        with contextlib.ExitStack() as opened:
            some = []
            for _ in range(probe.count):
                answers = opened.enter_context(filters.opened(accepts))
                door = opened.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
                holder = opened.enter_context(socket.socket(packets.family_of(probe).number, socket.SOCK_STREAM))
                holder.bind(("", 0))
                some.append(_Way(answers, door, holder, where, route.preferred_source or pod.address, probe))
            opened.pop_all()
        return some

    return entered.run(made)


def packet(source: str, target: str, segment: syn.Segment) -> bytes:
    """The segment with its IP header."""
    ends = filters.packed(source), filters.packed(target)
    data = syn.summed(source, target, segment)
    if ":" in target:
        return IPV6_HEADER.pack(6 << 28, len(data), socket.IPPROTO_TCP, HOPS, *ends) + data

    def header(total: int) -> bytes:
        length = IPV4_HEADER.size + len(data)
        return IPV4_HEADER.pack(0x45, 0, length, 0, WHOLE, HOPS, socket.IPPROTO_TCP, total, *ends)

    return header(checksum(header(0))) + data
