"""Packets between two pods at every device of this node and inside its pods, at one moment; without it somebody would
start tcpdump in six places and hope that all of them were running when it happened.

The kernel gives this program packets of the asked flow and no other. Unless whole packets were asked for, everything
behind the headers is cut off here: it never leaves the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Literal

from facts.ask import LocalPod
from facts.capture import (
    CAPTURE_BYTES,
    CAPTURE_PACKETS,
    CAPTURE_SECONDS,
    LEAD_S,
    LINK_ETHERNET,
    LINK_IP,
    SNAP_HEADERS,
    SNAP_WHOLE,
    CaptureAsk,
    CaptureBegan,
    CapturedPacket,
    CaptureEnd,
    CaptureLine,
    CaptureProgress,
    CaptureStage,
)
from node_probe import filters
from node_probe.checksum import IPV6_HEADER, TCP, UDP, header_length
from node_probe.filters import BEHIND, BYTE, HALF, PACKET_OUTGOING, Condition, met_ns, packed, places
from node_probe.namespaces import CannotEnter
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View

MOST_PAIRS = 4
AT_ONCE = 16  # packets of one socket, before another has its turn
TURNS = 256  # then whatever else the probe does has its own: packets may come faster than they are read
TELL_S = 0.25  # between two lines, packets or not: who hangs up is noticed by the next one
BUFFER = 4 << 20  # of a socket, bytes; without NET_ADMIN the kernel gives less
# asm-generic/socket.h, linux/if_packet.h, linux/if_arp.h
SO_RCVBUFFORCE, PACKET_STATISTICS, STATUS_VLAN_VALID = 33, 6, 0x10
ARPHRD_ETHER, ARPHRD_TUNNEL, ARPHRD_NONE = 1, 768, 65534  # Ethernet and veth; tunl0; WireGuard
ETHERNET_HEADER, UDP_HEADER, VXLAN_HEADERS = 14, 8, 8 + 8 + 14
# Kinds of devices, and how long the header of their link is.
LINKS = ((ARPHRD_ETHER, ETHERNET_HEADER), (ARPHRD_TUNNEL, 0), (ARPHRD_NONE, 0))
IPIP, ICMP, ICMPV6 = 4, 1, 58
# An ICMP error quotes the packet it is about, behind eight bytes.
ICMP_HEADER, QUOTED = 8, 8
UNREACHABLE, TIME_EXCEEDED = 3, 11  # the first holds "fragmentation needed" too
ICMPV6_INFORMATIONAL = 0x80


class CannotCapture(Exception):
    """Nothing can be captured here. Its text says why and what is missing."""


class Capture:
    """One capture, for one event loop: `open`, then `lines`. To be closed."""

    def __init__(self, ask: CaptureAsk, view: View) -> None:
        """Raises CannotCapture for an ask that makes no sense."""
        asked_ns, self._asked = time.time_ns(), time.monotonic()
        self._ask = ask
        self._view = view
        self._began = CaptureBegan(asked_ns=asked_ns, at_ns=asked_ns)
        self._from_ns = 1 << 63
        self._until = 0.0
        self._most = min(max(ask.packets, 0), CAPTURE_PACKETS)
        self._snap = SNAP_WHOLE if ask.payload else SNAP_HEADERS
        self._stages: dict[tuple[str, str, int], CaptureStage] = {}
        self._kinds: dict[str, tuple[str, str]] = {}
        self._sockets: dict[socket.socket, str] = {}  # and the pod they are in, "" for the node
        self._read_ns: dict[socket.socket, int] = {}  # how far each was read
        self._waiting: list[CaptureLine] = []
        self._packets = 0
        self._bytes = 0
        self._why = ""
        self._full = asyncio.Event()
        try:
            if not 0 < len(ask.pairs) <= MOST_PAIRS:
                raise ValueError(f"{len(ask.pairs)} pairs of addresses cannot be captured at once")
            self._accepts = flow_filter(ask, self._snap)
            self._own = {packed(address) for pair in ask.pairs for address in pair}
        except ValueError as error:
            raise CannotCapture(str(error)) from error

    async def open(self) -> None:
        """Every packet from here on is seen. A pod that cannot be entered is told by `lines`. Raises CannotCapture."""
        blind: list[str] = []
        await asyncio.to_thread(self._expect)  # reads by netlink
        try:
            self._listen(filters.opened(self._accepts, kind=socket.SOCK_RAW, timed=True), "")
        except PermissionError as error:
            raise CannotCapture("not permitted; the probe needs NET_RAW") from error
        except OSError as error:
            raise CannotCapture(f"the kernel refused: {error.strerror or error}") from error
        for pod in self._ask.pods:
            try:
                self._listen(await self._inside(pod), pod.name)
            except (OSError, CannotEnter) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                blind.append(f"inside of {pod.name} nobody could look: {why}")
        # What is read until then is dropped: the sockets are empty when it counts.
        await asyncio.sleep(LEAD_S - (time.monotonic() - self._asked))
        self._began = CaptureBegan(asked_ns=self._began.asked_ns, at_ns=time.time_ns(), blind=tuple(blind))
        self._from_ns = self._began.at_ns
        self._until = time.monotonic() + min(max(self._ask.seconds, 0.0), CAPTURE_SECONDS)

    def close(self) -> None:
        for one in list(self._sockets):
            filters.close(one)
        self._sockets.clear()

    async def lines(self) -> AsyncGenerator[list[CaptureLine]]:
        """Whatever has come, a few times a second, until a bound is met; the last line is CaptureEnd."""
        yield [self._began]
        while not self._why:
            left = self._until - time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), max(0.0, min(TELL_S, left)))
            told_ns = self._read()  # what waits still came in time
            if not self._why and time.monotonic() >= self._until:
                self._why = "seconds"
            if not self._why:
                yield [*self._taken(), CaptureProgress(at_ns=told_ns, packets=self._packets)]
        if self._why != "seconds":
            told_ns = min(told_ns, *map(self._waits_since, self._sockets))
        lost = sum(map(_dropped, self._sockets))
        yield [*self._taken(), CaptureEnd(at_ns=told_ns, packets=self._packets, why=self._why, lost=lost)]

    def _taken(self) -> list[CaptureLine]:
        taken, self._waiting = self._waiting, []
        return taken

    # -- places

    def _expect(self) -> None:
        """Where packets should pass, whether any do or not."""
        for pod in self._ask.pods:
            self._kinds[pod.interface] = ("veth", pod.name)
        for device in self._ask.tunnels:
            self._kinds[device] = ("tunnel", "")
        for address in self._ask.uplink_addresses:
            with contextlib.suppress(NetlinkError, OSError):
                if found := self._view.netlink.holder(address):
                    self._kinds.setdefault(found.name, ("uplink", ""))
        for device in self._kinds:
            with contextlib.suppress(NetlinkError, OSError):
                if found := self._view.device(device):
                    # A MAC of Ethernet's length tells its header, before any packet does.
                    self._stage("", device, LINK_ETHERNET if len(found.mac) == len("00:00:00:00:00:00") else LINK_IP)

    def _stage(self, pod: str, device: str, link: Literal[1, 101]) -> CaptureStage:
        kind, of_pod = ("pod", "") if pod else self._kinds.get(device, ("other", ""))
        known = self._stages.get((pod, device, link))
        if known is None:
            number = len(self._stages)
            known = CaptureStage(number=number, pod=pod, device=device, kind=kind, of_pod=of_pod, link=link)
            self._stages[pod, device, link] = known
            self._waiting.append(known)
        return known

    # -- packets

    async def _inside(self, pod: LocalPod) -> socket.socket:
        """Raises OSError, CannotEnter."""
        entered = await asyncio.to_thread(self._view.enter, pod)
        self._stage(pod.name, entered.device.name, LINK_ETHERNET)
        return await asyncio.to_thread(
            entered.run, partial(filters.opened, self._accepts, kind=socket.SOCK_RAW, timed=True)
        )

    def _listen(self, one: socket.socket, pod: str) -> None:
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            with contextlib.suppress(PermissionError):
                one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except BaseException:
            one.close()
            raise
        self._sockets[one] = pod
        self._read_ns[one] = 0
        asyncio.get_running_loop().add_reader(one, self._read)

    def _read(self) -> int:
        """What has come to all sockets, about in the order of time: no place may use up the bounds while another waits
        to be read, else a busy flow would seem to be lost there. Until when (ns since 1970) everything was read, while
        no bound is met."""
        now_ns = time.time_ns()
        waiting = dict.fromkeys(self._sockets, True)
        for _ in range(TURNS):
            if not waiting or self._why:
                break
            behind = min(waiting, key=lambda one: self._read_ns[one])
            if not self._drain(behind):
                del waiting[behind]
        return now_ns if self._why else min([now_ns, *(self._read_ns[one] for one in waiting)])

    def _drain(self, one: socket.socket) -> bool:
        """Reads some packets, fewer the nearer the bound is: what came first is kept. True: there may be more."""
        share = (self._most - self._packets) // (2 * len(self._sockets))
        for _ in range(max(1, min(AT_ONCE, share))):
            try:
                data, told, _, address = one.recvmsg(self._snap, 128)
            except OSError:  # nothing left; or a device went down, which is no packet
                return False
            at_ns = self._read_ns[one] = met_ns(told)
            if at_ns >= self._from_ns and not self._why:
                self._met(data, told, address, self._sockets[one], at_ns)
        return True

    def _waits_since(self, one: socket.socket) -> int:
        """When the next packet came that nobody reads any more; now, where none waits."""
        try:
            _, told, _, _ = one.recvmsg(self._snap, 128)
        except OSError:
            return time.time_ns()
        return met_ns(told)

    def _met(
        self,
        data: bytes,
        told: list[tuple[int, int, bytes]],
        address: tuple[str, int, int, int, bytes],
        pod: str,
        at_ns: int,
    ) -> None:
        device, _, going, kind, *_ = address
        link: Literal[1, 101] = LINK_ETHERNET if kind == ARPHRD_ETHER else LINK_IP
        start = ETHERNET_HEADER if link == LINK_ETHERNET else 0
        auxiliary = next(value for _, what, value in told if what == filters.PACKET_AUXDATA)
        status, length, _, _, _, tag, tag_kind = struct.unpack("=IIIHHHH", auxiliary[:20])
        if not self._ask.payload:
            data = data[: headers_end(data, start, self._own)]
        if status & STATUS_VLAN_VALID and start:  # the kernel keeps the tag elsewhere; on the wire it stood here
            data = data[:12] + struct.pack("!HH", tag_kind or 0x8100, tag) + data[12:]
            length += 4
            data = data[: self._snap]
        stage = self._stage(pod, device, link)
        out = going == PACKET_OUTGOING
        self._waiting.append(
            CapturedPacket(stage=stage.number, at_ns=at_ns, length=max(length, len(data)), out=out, data=data)
        )
        self._packets += 1
        self._bytes += len(data)
        if self._packets >= self._most:
            self._end("packets")
        elif self._bytes >= CAPTURE_BYTES:
            self._end("bytes")

    def _end(self, why: str) -> None:
        self._why = why
        self._full.set()


def _dropped(one: socket.socket) -> int:
    """Packets the kernel had no room for since it was last asked."""
    try:
        _, dropped = struct.unpack("=II", one.getsockopt(filters.SOL_PACKET, PACKET_STATISTICS, 8))
    except OSError:
        return 0
    return int(dropped)


# -- which packets


def flow_filter(ask: CaptureAsk, snap: int) -> bytes:
    """Accepts packets of the flow in both directions, as they are and within VXLAN and IPIP, and the ICMP errors about
    them; for a socket that is given the link's header. Raises ValueError for an ask that makes no sense.
    """
    numbers = {"": 0, "tcp": TCP, "udp": UDP}
    if ask.protocol not in numbers:
        raise ValueError(f"{ask.protocol!r} is no protocol to capture; tcp and udp are")
    found: list[bytes] = []
    for one, other in ask.pairs:
        six = ":" in one
        if six != (":" in other):
            raise ValueError(f"{one} and {other} are not of one family")
        for kind, link in LINKS:
            program = partial(filters.program, six, snap=snap, kind=kind, link=link)
            if not ask.protocol:  # nothing behind the IP header is looked at
                both = ((one, other), (other, one))
                found += [program(_addresses(*ends, 0, 0), fragments=True) for ends in both]
            ways = [*_bare(one, other, numbers[ask.protocol], ask.port)]
            if link:  # the others carry what was inside of a tunnel
                ways += _tunnelled(one, other, numbers[ask.protocol], ask.port)
            found += [program(conditions) for conditions in ways]
    return filters.either(found)


def _tunnelled(one: str, other: str, protocol: int, port: int) -> Iterator[list[Condition]]:
    six = ":" in one
    for inside in _inner(one, other, protocol, port, VXLAN_HEADERS):
        yield [filters.protocol(six, UDP), *inside]
    if not six:
        for inside in _inner(one, other, protocol, port, 0):
            yield [filters.protocol(six, IPIP), *inside]


def _bare(one: str, other: str, protocol: int, port: int) -> Iterator[list[Condition]]:
    """The flow's own packets, as they are: the header's length may be any."""
    six = ":" in one
    for source, target, port_at in ((one, other, 2), (other, one, 0)):
        yield [
            *([filters.protocol(six, protocol)] if protocol else []),
            *_addresses(source, target, 0, 0),
            *([Condition(HALF + BEHIND, port_at, port)] if port else []),
        ]
        for kind in _errors(six, 0, BEHIND):
            yield [
                filters.protocol(six, ICMPV6 if six else ICMP),
                *filters.address(source, places(source)[1]),
                kind,
                *_quoted(source, target, protocol, port, port_at, ICMP_HEADER),
            ]


def _inner(one: str, other: str, protocol: int, port: int, start: int) -> Iterator[list[Condition]]:
    """The same as the inside of a tunnel. start: from the end of the outer IP header to the inner one, which is taken
    to have no options."""
    six = ":" in one
    header, number_at = (IPV6_HEADER, 6) if six else (20, 9)
    for source, target, port_at in ((one, other, 2), (other, one, 0)):
        yield [
            *_addresses(source, target, start, BEHIND),
            *([Condition(BYTE + BEHIND, start + number_at, protocol)] if protocol else []),
            *([Condition(HALF + BEHIND, start + header + port_at, port)] if port else []),
        ]
        for kind in _errors(six, start + header, BEHIND):
            yield [
                *filters.address(source, start + places(source)[1], BEHIND),
                Condition(BYTE + BEHIND, start + number_at, ICMPV6 if six else ICMP),
                kind,
                *_quoted(source, target, protocol, port, port_at, start + header + ICMP_HEADER),
            ]


def _errors(six: bool, at: int, behind: int) -> list[Condition]:
    """Types of ICMP that tell somebody what became of a packet of theirs."""
    if six:
        return [Condition(BYTE + behind, at, 0, ICMPV6_INFORMATIONAL)]
    return [Condition(BYTE + behind, at, kind) for kind in (UNREACHABLE, TIME_EXCEEDED)]


def _quoted(source: str, target: str, protocol: int, port: int, port_at: int, start: int) -> list[Condition]:
    """The packet that an error is about. It was sent by who gets the error; start: counted from behind the first IP
    header."""
    six = ":" in source
    header, number_at = (IPV6_HEADER, 6) if six else (20, 9)
    return [
        *_addresses(source, target, start, BEHIND),
        *([Condition(BYTE + BEHIND, start + number_at, protocol)] if protocol else []),
        *([Condition(HALF + BEHIND, start + header + port_at, port)] if port else []),
    ]


def _addresses(source: str, target: str, start: int, behind: int) -> list[Condition]:
    source_at, target_at = places(source)
    return [
        *filters.address(source, start + source_at, behind),
        *filters.address(target, start + target_at, behind),
    ]


# -- what of them


def headers_end(data: bytes, start: int, own: set[bytes]) -> int:
    """Where the payload begins of the IP packet that stands at `start`; tunnels are looked into, and of an ICMP error
    the headers it quotes are kept. own: packed addresses of the two pods, which tell a tunnel's packet by its inside.
    """
    here = data[start:]
    if len(here) < 20 or here[0] >> 4 not in (4, 6):
        return start
    six = here[0] >> 4 == 6
    protocol, later = (here[6], False) if six else (here[9], bool(int.from_bytes(here[6:8], "big") & 0x1FFF))
    end = start + header_length(here)
    behind = data[end:]
    if later:
        return end
    if protocol == TCP:
        return end + max(20, (behind[12] >> 4) * 4 if len(behind) > 12 else 0)
    if protocol == UDP:
        within = end + VXLAN_HEADERS
        return headers_end(data, within, own) if _pods(data[within:], own) else end + UDP_HEADER
    if protocol == IPIP and not six:
        return headers_end(data, end, own)
    if protocol in (ICMP, ICMPV6):
        error = bool(behind) and (
            not behind[0] & ICMPV6_INFORMATIONAL if six else behind[0] in (UNREACHABLE, TIME_EXCEEDED)
        )
        quoted = behind[ICMP_HEADER:]
        return end + ICMP_HEADER + (header_length(quoted) + QUOTED if error and quoted else 0)
    return end


def _pods(packet: bytes, own: set[bytes]) -> bool:
    """Does an IP packet from or to one of the pods begin here?"""
    if not packet or packet[0] >> 4 not in (4, 6):
        return False
    size = 16 if packet[0] >> 4 == 6 else 4
    return any(packet[at : at + size] in own for at in places("::" if size == 16 else "0.0.0.0"))
