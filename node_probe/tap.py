"""Looks at a leg's packets on this node's network cards, below every firewall; without it nobody could tell whether a
packet is lost between two nodes or in one of them.

Each node tells the others when it listens, and when its probes begin and end, by marks: a few bytes in UDP and in ping,
from node address to node address. Who saw both marks of a node and none of the packets sent in between looked long
enough to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from facts import Blind, Fact, NodeAsk, Sighting, Watch
from node_probe.checksum import IPV6_HEADER, checksum, header_length, spoilt

SNAP = 256  # bytes of a packet that are looked at: headers, and all of a probe's own small packets
MOST = 2000  # packets of one leg, then enough was seen
LEGS = 32  # of one ask: each is a filter that the kernel asks about every packet of the node
AT_ONCE = 64
QUIET_S = 0.3  # without a mark: this long after the last packet of a leg no other one of the same probes comes
POLL_S = 0.01
RESERVE_S = 0.1  # of the deadline, to bring the answer home
MAGIC = b"cwhy"
LISTENING, BEGIN, END = b"L", b"B", b"E"
AGAIN_S = 0.05  # between two marks that say the same: the peer's probe may be asked a little later
READY_S = 0.3  # for the peer to listen
DISCARD_PORT = 9
ECHO_REQUEST = 8
ENCAPSULATIONS = ("vxlan", "ipip", "wireguard", "direct")
# linux/if_packet.h, linux/if_ether.h, linux/filter.h
ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, SO_ATTACH_FILTER = 263, 8, 26
PACKET_HOST, PACKET_OUTGOING = 0, 4
CHECKSUM_NOT_READY, CHECKSUM_VALID = 0x8, 0x80
AD_PROTOCOL, AD_PKTTYPE = 0xFFFFF000, 0xFFFFF004
WORD, HALF, BYTE = 0x20, 0x28, 0x30
BEHIND = 0x20  # added to a load: its offset counts from the end of the outer IP header
JEQ, JSET, RETURN, LOAD_X, LOAD_X_FROM_IPV4 = 0x15, 0x45, 0x06, 0x01, 0xB1
INSTRUCTION = struct.Struct("=HBBI")
IPV4, IPV6 = 0x0800, 0x86DD
IPIP, UDP, ICMPV6 = 4, 17, 58
NEIGHBOR_DISCOVERY = range(133, 138)  # types of ICMPv6
UDP_HEADER = 8
# From the end of the outer IP header to the inner packet: UDP, VXLAN and the inner Ethernet header; nothing.
INSIDE = {"vxlan": 8 + 8 + 14, "ipip": 0}

_libc = ctypes.CDLL(None, use_errno=True)

Condition = tuple[int, int, int]  # load, offset, value
Packet = tuple[bytes, list[tuple[int, int, bytes]], int, Any]


@dataclass
class _Seen:
    """What was met of one watched leg."""

    watch: Watch
    packets: int = 0
    device: str = ""
    outer_target: str = ""
    astray: str = ""
    bad_checksums: int = 0
    heard: bool = False
    listening: bool = False  # the peer is
    begun: set[bytes] = field(default_factory=set)  # nonces of those who said that they begin
    ended: bool = False
    at: float = 0.0

    def complete(self, now: float) -> bool:
        return self.watch.way == "out" or self.ended or (self.packets > 0 and now - self.at > QUIET_S)


Met = Callable[[socket.socket, Packet], None]


class Tap:
    """To be opened before the first packet is sent, and to be closed. For one event loop."""

    def __init__(self, ask: NodeAsk) -> None:
        self._ask = ask
        self._nonce = os.urandom(8)
        self._seen = [_Seen(watch) for watch in ask.watch]
        self._trouble = ""
        self._sockets: dict[socket.socket, Met] = {}
        self._telling: asyncio.Task[None] | None = None
        self._sending = False
        self._opened = 0.0

    def open(self) -> None:
        """Never raises: what cannot be looked at is told by `sightings`."""
        try:
            if len(self._seen) > LEGS:
                raise ValueError(f"{len(self._seen)} legs at a time are too many to watch; {LEGS} are not")
            for seen in self._seen:
                self._listen(flow_filter(seen.watch), partial(self._flow, seen))
                if seen.watch.way == "out" and seen.watch.encapsulation != "direct":
                    bare = msgspec.structs.replace(seen.watch, encapsulation="direct")
                    self._listen(flow_filter(bare), partial(self._bare, seen))
                if seen.watch.peer:
                    self._listen(mark_filter(seen.watch), partial(self._mark, seen))
                if seen.watch.way == "in":
                    self._listen(peer_filter(seen.watch), partial(self._anything, seen))
        except PermissionError:
            self._give_up("not permitted; the probe needs NET_RAW")
        except OSError as error:
            self._give_up(f"the kernel refused: {error.strerror or error}")
        except ValueError as error:
            self._give_up(str(error))
        if self._sockets:
            self._opened = time.monotonic()
            self._telling = asyncio.create_task(self._tell_on())

    def close(self) -> None:
        if self._telling:
            self._telling.cancel()
        for one in list(self._sockets):
            self._close(one)

    async def begin(self, deadline: float) -> None:
        """Waits a little until the peers listen, but not past `deadline`, and tells them that packets follow."""
        until = min(time.monotonic() + READY_S, deadline)
        while self._sockets and time.monotonic() < until:
            if all(seen.listening for seen in self._seen if seen.watch.way == "out" and seen.watch.peer):
                break
            await asyncio.sleep(POLL_S)
        self._read_on()  # what waits to be read left before
        self._sending = True
        self._tell("out", BEGIN)

    async def end(self) -> None:
        """Tells the peers that the last packet was sent."""
        self._read_on()
        self._sending = False
        self._tell("out", END)

    async def look(self, deadline: float) -> None:
        """Returns once every peer that sends here has ended, or shortly before `deadline`. Goes on until `close`."""
        until = deadline - RESERVE_S
        while self._sockets and time.monotonic() < until:
            now = time.monotonic()
            if all(seen.complete(now) for seen in self._seen):
                break
            await asyncio.sleep(POLL_S)

    def sightings(self) -> list[Fact]:
        """A Sighting for each watch, of all that has come so far. A mark may have been read before earlier packets."""
        self._read_on()
        looked_ms = int((time.monotonic() - self._opened) * 1000) if self._sockets else -1
        facts: list[Fact] = [self._sighting(seen, looked_ms) for seen in self._seen]
        if self._trouble:
            facts.append(Blind(node=self._ask.node, look="tap", reason=self._trouble, minor=True))
        return facts

    def _sighting(self, seen: _Seen, looked_ms: int) -> Sighting:
        return Sighting(
            node=self._ask.node,
            way=seen.watch.way,
            source_address=seen.watch.source,
            target_address=seen.watch.target,
            seen=-1 if self._trouble else seen.packets,
            device=seen.device,
            outer_target=seen.outer_target,
            astray=seen.astray,
            bad_checksums=seen.bad_checksums,
            looked_ms=looked_ms,
            begun=bool(seen.begun),
            heard=seen.heard,
            enclosed=seen.ended,
        )

    # -- listening

    def _listen(self, program: bytes, met: Met) -> None:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        self._sockets[one] = met
        buffer = ctypes.create_string_buffer(program)
        count = len(program) // INSTRUCTION.size
        one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", count, ctypes.addressof(buffer)))
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        _bind(one)  # only now: the filter is there before the first packet
        asyncio.get_running_loop().add_reader(one, self._drain, one, met)

    def _read_on(self) -> None:
        """Everything that has come until now, marks first: what came before them waits to be read by then."""
        sockets = self._sockets.items()
        for one, met in sorted(sockets, key=lambda each: getattr(each[1], "func", None) != self._mark):
            for _ in range(MOST // AT_ONCE):
                if one not in self._sockets or not self._drain(one, met):
                    break

    def _drain(self, one: socket.socket, met: Met) -> bool:
        """Reads some packets. True: there may be more."""
        for _ in range(AT_ONCE):
            try:
                packet = one.recvmsg(SNAP, 64)
            except BlockingIOError:
                return False
            except OSError:  # a device went down: no packet
                continue
            met(one, packet)
            if one not in self._sockets:
                return False
        return True

    def _flow(self, seen: _Seen, one: socket.socket, packet: Packet) -> None:
        data, told, _, address = packet
        if seen.watch.way == "out" and not self._sending:
            return  # nobody promised to look on
        seen.packets += 1
        seen.at = time.monotonic()
        seen.device = address[0]
        if seen.watch.encapsulation != "direct":
            seen.outer_target = _text(data, _places(seen.watch.peer)[1], seen.watch.peer)
        if seen.watch.way == "in" and _bad(data, told, seen.watch):
            seen.bad_checksums += 1
        if seen.packets >= MOST:
            self._close(one)

    def _bare(self, seen: _Seen, _: socket.socket, packet: Packet) -> None:
        """On its way into the tunnel device a packet has no tunnel's header yet."""
        device = packet[3][0]
        if self._sending and device != self._ask.tunnel_device:
            seen.astray = device

    def _anything(self, seen: _Seen, one: socket.socket, packet: Packet) -> None:
        if _discovers_neighbors(packet[0]):
            return  # as ARP, which is no packet of IPv4: it passes where nothing else does
        seen.heard = True
        self._close(one)

    def _mark(self, seen: _Seen, _: socket.socket, packet: Packet) -> None:
        said = packet[0][header_length(packet[0]) + UDP_HEADER :][: len(self._said(BEGIN, seen.watch))]
        nonce = said[5:13]
        if seen.watch.way == "out":  # and nothing else: the peer's kernel answers this node's own pings
            seen.listening = seen.listening or said == self._said(LISTENING, seen.watch, nonce)
        elif said == self._said(BEGIN, seen.watch, nonce):
            seen.begun.add(nonce)
        elif said == self._said(END, seen.watch, nonce) and nonce in seen.begun:
            seen.ended = True

    def _close(self, one: socket.socket) -> None:
        self._sockets.pop(one, None)
        asyncio.get_running_loop().remove_reader(one)
        one.close()

    def _give_up(self, why: str) -> None:
        self._trouble = why
        self.close()

    # -- telling

    def _said(self, stage: bytes, watch: Watch, nonce: bytes = b"") -> bytes:
        return MAGIC + stage + (nonce or self._nonce) + _packed(watch.source) + _packed(watch.target)

    async def _tell_on(self) -> None:
        while True:
            self._tell("in", LISTENING)
            await asyncio.sleep(AGAIN_S)

    def _tell(self, way: str, stage: bytes) -> None:
        for watch in self._ask.watch:
            if watch.way == way and watch.peer and not self._trouble:
                for send in (_send, _ping):
                    with contextlib.suppress(OSError):  # no route, no such address: nobody claims to have heard it
                        send(self._ask.uplink_address, watch.peer, self._said(stage, watch))


def _discovers_neighbors(packet: bytes) -> bool:
    if len(packet) <= IPV6_HEADER or packet[0] >> 4 != 6:
        return False
    return packet[6] == ICMPV6 and packet[IPV6_HEADER] in NEIGHBOR_DISCOVERY


def _bind(one: socket.socket) -> None:
    """To every device and every protocol, which Python's own bind cannot say. Raises OSError."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0)
    if _libc.bind(one.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _send(source: str, target: str, said: bytes) -> None:
    family = _family(target)
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        if source:
            one.bind((source, 0))
        one.sendto(said, (target, DISCARD_PORT))


def _ping(source: str, target: str, said: bytes) -> None:
    family = _family(target)
    protocol, kind = (socket.IPPROTO_ICMPV6, 128) if family == socket.AF_INET6 else (socket.IPPROTO_ICMP, ECHO_REQUEST)
    with socket.socket(family, socket.SOCK_RAW, protocol) as one:
        one.setblocking(False)
        if source:
            one.bind((source, 0))
        blank = struct.pack("!BBHHH", kind, 0, 0, 9, 9) + said
        packet = struct.pack("!BBHHH", kind, 0, checksum(blank), 9, 9) + said  # the kernel itself sums ICMPv6
        one.sendto(packet, (target, 0))


# -- filters


def flow_filter(watch: Watch) -> bytes:
    """Accepts a leg's packets in their encapsulation. WireGuard seals them: every one to or from the peer.

    Raises ValueError for a watch that makes no sense.
    """
    if watch.way not in ("out", "in") or watch.encapsulation not in ENCAPSULATIONS:
        raise ValueError(f"{watch.encapsulation} packets going {watch.way!r} cannot be watched")
    conditions: list[Condition] = []
    if watch.encapsulation in ("vxlan", "wireguard"):
        conditions += [_protocol(watch.peer, UDP), (HALF + BEHIND, 2, watch.port)]
    if watch.encapsulation == "ipip":
        conditions.append(_protocol(watch.peer, IPIP))
    source, target = _places(watch.source)
    if watch.encapsulation == "wireguard":
        source, target = _places(watch.peer)
        conditions += _address(watch.peer, target if watch.way == "out" else source)
    elif watch.encapsulation == "direct":
        conditions += _address(watch.source, source) + _address(watch.target, target)
    else:
        inside = INSIDE[watch.encapsulation]
        conditions += _address(watch.source, inside + source, BEHIND) + _address(watch.target, inside + target, BEHIND)
    outer = watch.source if watch.encapsulation == "direct" else watch.peer
    return _program(outer, PACKET_OUTGOING if watch.way == "out" else PACKET_HOST, conditions)


def peer_filter(watch: Watch) -> bytes:
    """Accepts whatever comes from the peer's node address."""
    return _program(watch.peer, PACKET_HOST, _address(watch.peer, _places(watch.peer)[0]))


def mark_filter(watch: Watch) -> bytes:
    """Accepts marks of the peer. UDP and ping both have a header of eight bytes."""
    magic = (WORD + BEHIND, UDP_HEADER, int.from_bytes(MAGIC, "big"))
    return _program(watch.peer, PACKET_HOST, [*_address(watch.peer, _places(watch.peer)[0]), magic])


def _program(outer: str, going: int, conditions: Sequence[Condition]) -> bytes:
    """Classic BPF: all must hold. outer: an address of the first IP header's family; going: PACKET_HOST, ..."""
    six = ":" in outer
    code: list[tuple[int, int]] = [(HALF, AD_PROTOCOL), (JEQ, IPV6 if six else IPV4), (WORD, AD_PKTTYPE), (JEQ, going)]
    # A later fragment has no further headers.
    code += [(LOAD_X, IPV6_HEADER)] if six else [(HALF, 6), (JSET, 0x1FFF), (LOAD_X_FROM_IPV4, 0)]
    for load, offset, value in conditions:
        code += [(load, offset), (JEQ, value)]
    code += [(RETURN, SNAP), (RETURN, 0)]
    program = b""
    for place, (operation, value) in enumerate(code):
        refuse = len(code) - 1 - place - 1
        holds, fails = {JEQ: (0, refuse), JSET: (refuse, 0)}.get(operation, (0, 0))
        program += INSTRUCTION.pack(operation, holds, fails, value)
    return program


def _protocol(outer: str, number: int) -> Condition:
    return (BYTE, 6 if ":" in outer else 9, number)


def _address(address: str, offset: int, behind: int = 0) -> list[Condition]:
    packed = _packed(address)
    words = struct.unpack(f"!{len(packed) // 4}I", packed)
    return [(WORD + behind, offset + 4 * place, word) for place, word in enumerate(words)]


def _places(address: str) -> tuple[int, int]:
    """Where source and target stand in an IP header of this address's family."""
    return (8, 24) if ":" in address else (12, 16)


def _packed(address: str) -> bytes:
    try:
        return socket.inet_pton(_family(address), address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _text(packet: bytes, offset: int, like: str) -> str:
    return socket.inet_ntop(_family(like), packet[offset : offset + len(_packed(like))])


def _bad(packet: bytes, told: list[tuple[int, int, bytes]], watch: Watch) -> bool:
    """Is a checksum wrong that this node's kernel will look at? What never left a machine has none yet, by right."""
    status = next((struct.unpack_from("=I", data)[0] for level, kind, data in told if kind == PACKET_AUXDATA), 0)
    if status & CHECKSUM_NOT_READY or watch.encapsulation == "wireguard":
        return False
    try:
        if watch.encapsulation == "direct":
            return not status & CHECKSUM_VALID and spoilt(packet)
        inner = packet[header_length(packet) + INSIDE[watch.encapsulation] :]
        # The card may have looked at the outer checksum; that says nothing about the inner one.
        return (not status & CHECKSUM_VALID and spoilt(packet)) or spoilt(inner)
    except (IndexError, struct.error):  # cut short
        return False
