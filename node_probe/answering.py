"""Answers this program's own packets where they are sent to, inside the target's network; without it nobody would know
whether what a server sends in full size comes back, and of datagrams nothing at all.

Only packets of one question are answered: they carry its number. The answer comes from the port that was asked, so on
its way it is one of the conversation that the packet began, as a server's would be. Of TCP it is a second answer to a
first packet (SYN), with data: firewalls that know connections let it pass beside the server's own, and whoever asked
knows of no connection and ends it with a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

from facts import Answering, NodeAsk
from node_probe import filters, syn
from node_probe.checksum import checksum
from node_probe.filters import BEHIND, INSTRUCTION, JEQ, RETURN, SNAP
from node_probe.large import ASKED, BARE_TCP, HEADERS, TEXT, TEXTS, TOLD, nonce, text_of
from node_probe.namespaces import CannotEnter
from node_probe.netlink_messages import NetlinkError
from node_probe.packets import IPV4, IPV6, LARGEST, Family
from node_probe.view import View

MOST = 200  # answers of one ask: a probe is no flood
AT_ONCE = 32
ANSWERS = dict(TEXTS.values())
COMMON = b"calico-why "  # they all begin with it
# A rule of the target's own refuses the answer, no route leads back, or these are none of ours.
UNANSWERED = (OSError, NetlinkError, struct.error, KeyError)
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
UDP_HEADER = struct.Struct("!HHHH")
CHECKSUM_AT = {"tcp": 16, "udp": 6}


class Answers:
    """To be opened before the first packet is sent, and to be closed. For one event loop."""

    def __init__(self, ask: NodeAsk, view: View) -> None:
        self._ask = ask
        self._view = view
        self._nonce = nonce(ask)
        self._sockets: list[socket.socket] = []
        self._left = MOST
        self._told: dict[str, int] = {}  # by address: how large packets to it may be, as somebody on the way told

    async def open(self) -> None:
        """Never raises: who is not answered says nothing."""
        if not any(self._nonce):
            return  # a question without a number
        for wanted in self._ask.answering:
            with contextlib.suppress(OSError, ValueError, CannotEnter, NetlinkError):
                one, mtu = await asyncio.to_thread(self._opened, wanted)
                self._sockets.append(one)
                asyncio.get_running_loop().add_reader(one, self._drain, one, wanted, mtu)

    def close(self) -> None:
        for one in self._sockets:
            filters.close(one)
        self._sockets.clear()

    def _opened(self, wanted: Answering) -> tuple[socket.socket, Callable[[str], int]]:
        """A socket, and how large a packet it can send to an address. Raises OSError, ValueError, CannotEnter."""
        make = partial(_socket, wanted, self._nonce)
        if not wanted.pod:
            return make(), self._mtu_to
        pod = next((pod for pod in self._ask.local_pods if pod.name == wanted.pod), None)
        if pod is None:
            raise ValueError(f"{wanted.pod} is not among the pods of this ask")
        inside = self._view.enter(pod)
        return inside.run(make), lambda _: inside.device.mtu

    def _mtu_to(self, address: str) -> int:
        """Raises NetlinkError."""
        return self._view.netlink.link(index=self._view.netlink.route(address).device).mtu

    def _drain(self, one: socket.socket, wanted: Answering, mtu: Callable[[str], int]) -> None:
        for _ in range(AT_ONCE):
            try:
                packet, address = one.recvfrom(SNAP)
            except BlockingIOError:
                return
            except OSError:  # somebody objects to an answer
                self._heed(one)
                continue
            if self._left <= 0:
                return
            self._left -= 1
            with contextlib.suppress(*UNANSWERED):
                source = str(address[0])
                most = min(mtu(source), self._told.get(source, LARGEST))
                one.sendto(answer(one, wanted.protocol, packet, source, self._nonce, most), (source, 0))
        self._heed(one)

    def _heed(self, one: socket.socket) -> None:
        """As a server's kernel does: what is too large for somebody on the way is sent smaller from then on."""
        family = IPV6 if one.family == socket.AF_INET6 else IPV4
        while True:
            try:
                _, said, _, address = one.recvmsg(64, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return
            for level, kind, data in said:
                if (level, kind) == (family.level, family.receive_errors) and len(data) >= family.error.size:
                    _, _, icmp, code, mtu, _, _ = family.error.unpack_from(data)
                    if (icmp, code) == family.too_big and mtu:
                        self._told[str(address[0])] = mtu


def answer(one: socket.socket, protocol: str, packet: bytes, source: str, mine: bytes, mtu: int) -> bytes:
    """What answers a packet as it came by `one`. Raises struct.error, KeyError for none of ours."""
    family = IPV6 if one.family == socket.AF_INET6 else IPV4
    headers = family.header + HEADERS[protocol]
    start = 0 if family is IPV6 else (packet[0] & 0xF) * 4
    fits = mtu
    if protocol == "tcp":
        came = syn.read(one, packet)
        data = came.data
        if came.mss:
            fits = min(mtu, came.mss + family.header + BARE_TCP)
    else:
        source_port, target_port, _, _ = UDP_HEADER.unpack_from(packet, start)
        data = packet[start + UDP_HEADER.size :]
    _, size = ASKED.unpack_from(data, TEXT)
    said = text_of(ANSWERS[data[:TEXT]], TOLD.pack(mine, fits), min(size, fits) - headers)
    if protocol == "udp":
        return _datagram(one, family, source, (target_port, source_port), said)
    number = int.from_bytes(os.urandom(4), "big")
    flags, mss = syn.SYN | syn.ACK, max(1, mtu - family.header - BARE_TCP)
    about = (came.number + 1) % 2**32
    return syn.written(one, source, syn.Segment(came.target, came.source, number, about, flags, mss, said))


def _datagram(one: socket.socket, family: Family, target: str, ports: tuple[int, int], data: bytes) -> bytes:
    length = UDP_HEADER.size + len(data)
    blank = UDP_HEADER.pack(*ports, length, 0) + data
    if family is IPV6:
        return blank  # the kernel sums up itself
    ends = socket.inet_aton(one.getsockname()[0]) + socket.inet_aton(target)
    total = checksum(ends + struct.pack("!HH", socket.IPPROTO_UDP, length) + blank) or 0xFFFF
    return UDP_HEADER.pack(*ports, length, total) + data


def _socket(wanted: Answering, mine: bytes) -> socket.socket:
    """Where the calling thread is. Raises OSError, ValueError for another protocol."""
    family = IPV6 if ":" in wanted.address else IPV4
    if wanted.protocol not in PROTOCOLS:
        raise ValueError(f"{wanted.protocol} is not answered")
    one = socket.socket(family.number, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOLS[wanted.protocol])
    try:
        filters.attach(one, _ours(family, wanted.protocol, mine))
        for option, value in (*family.whole, (family.receive_errors, 1)):
            one.setsockopt(family.level, option, value)
        if family is IPV6:
            one.setsockopt(socket.IPPROTO_IPV6, syn.IPV6_CHECKSUM, CHECKSUM_AT[wanted.protocol])
        one.bind((wanted.address, 0))
    except BaseException:
        one.close()
        raise
    return one


def _ours(family: Family, protocol: str, mine: bytes) -> bytes:
    """Accepts what carries this question's number, and nothing else of what the target is sent."""
    start = HEADERS[protocol]
    places = ((start, COMMON), (start + TEXT, mine))
    if family is IPV4:
        return filters.program(
            False, [one for offset, value in places for one in filters.bytes_at(offset, value, behind=BEHIND)]
        )
    code: list[tuple[int, int, int, int]] = []  # IPv6's header stays with the kernel
    conditions = [one for offset, value in places for one in filters.bytes_at(offset, value)]
    for number, one in enumerate(conditions):
        code += [(one.load, 0, 0, one.offset), (JEQ, 0, 2 * (len(conditions) - number) - 1, one.value)]
    code += [(RETURN, 0, 0, SNAP), (RETURN, 0, 0, 0)]
    return b"".join(INSTRUCTION.pack(*one) for one in code)
