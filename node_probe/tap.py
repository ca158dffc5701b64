"""Looks at a leg's packets on this node's network cards, below every firewall; without it nobody could tell whether a
packet is lost between two nodes or in one of them.

Each node tells the others when it listens, and when its probes begin and end, by marks: a few bytes in UDP and in ping,
from node address to node address. Who saw both marks of a node and none of the packets sent in between looked long
enough to say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import msgspec

from facts import Blind, Fact, NodeAsk, Sighting, Watch
from node_probe import filters
from node_probe.checksum import IPV6_HEADER, checksum, header_length, spoilt
from node_probe.filters import BEHIND, HALF, PACKET_HOST, PACKET_OUTGOING, SNAP, WORD, Condition, packed, places
from node_probe.ours import INSIDE

MOST = 2000  # packets of one leg, then enough was seen
LEGS = 32  # of one ask: each is a filter that the kernel asks about every packet of the node
AT_ONCE = 64
QUIET_S = 0.3  # without a mark: this long after the last packet of a leg no other one of the same probes comes
LATE_S = 0.6  # the same, where the peer waits for answers of this node's: it may have begun so much later
POLL_S = 0.01
STILL_S = 0.03  # between two looks at whether it has become quiet; a mark that says so is heard at once
RESERVE_S = 0.1  # of the deadline, to bring the answer home
MAGIC = b"cwhy"
MARK = re.compile("[0-9a-f]{16}")
LISTENING, BEGIN, END = b"L", b"B", b"E"
# Between two marks that say the same, as the peer's probe may be asked a little later: the first ten, and all others.
SOON_S, SOON, AGAIN_S = 0.01, 10, 0.05
READY_S = 0.3  # for the peer to listen
DISCARD_PORT = 9
ECHO_REQUEST = 8
ENCAPSULATIONS = ("vxlan", "ipip", "wireguard", "direct")
# linux/if_packet.h
CHECKSUM_NOT_READY, CHECKSUM_VALID = 0x8, 0x80
IPIP, UDP, ICMPV6 = 4, 17, 58
NEIGHBOR_DISCOVERY = range(133, 138)  # types of ICMPv6
UDP_HEADER = 8

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
    all_sent: bool = False  # of this very question
    at: float = 0.0

    def complete(self, now: float, quiet_s: float, *, counts: bool) -> bool:
        """counts: the number of this question's packets is asked for, so that another one's end is none."""
        ended = self.all_sent if counts else self.ended
        return self.watch.way == "out" or ended or (self.packets > 0 and now - self.at > quiet_s)


Met = Callable[[socket.socket, Packet], None]


class Tap:
    """To be opened before the first packet is sent, and to be closed. For one event loop."""

    def __init__(self, ask: NodeAsk) -> None:
        self._ask = ask
        self._nonce = bytes.fromhex(ask.mark) if MARK.fullmatch(ask.mark) else os.urandom(8)
        self._seen = [_Seen(watch) for watch in ask.watch]
        self._quiet_s = LATE_S if ask.answering else QUIET_S
        self._counts = any(one.train for one in ask.trace)
        if self._counts:
            self._quiet_s = math.inf  # between trains it is quiet, too
        self._trouble = ""
        self._sockets: dict[socket.socket, Met] = {}
        self._told = asyncio.Event()  # a mark that says something new
        self._telling: asyncio.Task[None] | None = None
        self._sending = False
        self._opened = 0.0
        self._had_time = False  # for peers that are not heard

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
        """Returns once every peer that sends here has ended, or shortly before `deadline`. Goes on until `close`.

        A peer that was asked at the same time has begun after twice the time that all this takes a node.
        """
        until = deadline - RESERVE_S
        begun_until = self._opened + 2 * (READY_S + self._ask.patience_ms / 1000)
        while self._sockets and (now := time.monotonic()) < until:
            missing = [seen for seen in self._seen if not seen.complete(now, self._quiet_s, counts=self._counts)]
            if not missing:
                break
            if now > begun_until and not any(seen.begun for seen in missing):
                self._had_time = True
                break
            self._told.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(STILL_S, until - now)):
                    await self._told.wait()

    def all_sent(self) -> bool:
        """Have the peers sent all packets of this question, and waited for their answers? So they say, or they are not
        heard at all and `look` has waited as long as that takes."""
        here = [seen for seen in self._seen if seen.watch.way == "in"]
        return bool(here) and (self._had_time or all(seen.all_sent for seen in here))

    def sightings(self) -> list[Fact]:
        """A Sighting for each watch, of all that has come so far. A mark may have been read before earlier packets."""
        self._read_on()
        looked_ms = int((time.monotonic() - self._opened) * 1000) if self._sockets else -1
        facts: list[Fact] = [self._sighting(seen, looked_ms) for seen in self._seen]
        if self._trouble:
            facts.append(Blind(node=self._ask.node, look="tap", reason=self._trouble, minor=True))
        return facts

    def met(self, source: str, target: str) -> tuple[bool, bool]:
        """(this node looked on from before packets between these two were sent until after, the other end said that it
        looks on before they were), by what the marks say. Of trains, which are counted, only this question's do."""
        here = [seen for seen in self._seen if {seen.watch.source, seen.watch.target} == {source, target}]
        ended = any(seen.all_sent if self._counts else seen.ended for seen in here)
        return ended, any(seen.listening for seen in here)

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

    def _listen(self, accepts: bytes, met: Met) -> None:
        one = filters.opened(accepts)
        self._sockets[one] = met
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
            seen.outer_target = filters.written(data, places(seen.watch.peer)[1], ":" in seen.watch.peer)
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
            self._told.set()
        elif said == self._said(END, seen.watch, nonce) and nonce in seen.begun:
            seen.ended = True
            seen.all_sent = seen.all_sent or said == self._said(END, seen.watch)
            self._told.set()

    def _close(self, one: socket.socket) -> None:
        self._sockets.pop(one, None)
        filters.close(one)

    def _give_up(self, why: str) -> None:
        self._trouble = why
        self.close()

    # -- telling

    def _said(self, stage: bytes, watch: Watch, nonce: bytes = b"") -> bytes:
        return MAGIC + stage + (nonce or self._nonce) + packed(watch.source) + packed(watch.target)

    async def _tell_on(self) -> None:
        for number in count(1):
            self._tell("in", LISTENING)
            await asyncio.sleep(SOON_S if number <= SOON else AGAIN_S)

    def _tell(self, way: str, stage: bytes) -> None:
        for seen in self._seen:
            watch = seen.watch
            if stage == LISTENING and self._nonce in seen.begun:
                continue  # the peer waits no longer to hear it
            if watch.way == way and watch.peer and not self._trouble:
                for send in (_send, _ping):
                    with contextlib.suppress(OSError):  # no route, no such address: nobody claims to have heard it
                        send(self._ask.uplink_address, watch.peer, self._said(stage, watch))


def _discovers_neighbors(packet: bytes) -> bool:
    if len(packet) <= IPV6_HEADER or packet[0] >> 4 != 6:
        return False
    return packet[6] == ICMPV6 and packet[IPV6_HEADER] in NEIGHBOR_DISCOVERY


def _send(source: str, target: str, said: bytes) -> None:
    family = filters.family(target)
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        if source:
            one.bind((source, 0))
        one.sendto(said, (target, DISCARD_PORT))


def _ping(source: str, target: str, said: bytes) -> None:
    family = filters.family(target)
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
        conditions += [filters.protocol(":" in watch.peer, UDP), Condition(HALF + BEHIND, 2, watch.port)]
    if watch.encapsulation == "ipip":
        conditions.append(filters.protocol(":" in watch.peer, IPIP))
    source, target = places(watch.source)
    if watch.encapsulation == "wireguard":
        source, target = places(watch.peer)
        conditions += filters.address(watch.peer, target if watch.way == "out" else source)
    elif watch.encapsulation == "direct":
        conditions += filters.address(watch.source, source) + filters.address(watch.target, target)
    else:
        inside = INSIDE[watch.encapsulation]
        conditions += filters.address(watch.source, inside + source, BEHIND) + filters.address(
            watch.target, inside + target, BEHIND
        )
    outer = watch.source if watch.encapsulation == "direct" else watch.peer
    return filters.program(":" in outer, conditions, PACKET_OUTGOING if watch.way == "out" else PACKET_HOST)


def peer_filter(watch: Watch) -> bytes:
    """Accepts whatever comes from the peer's node address."""
    return filters.program(":" in watch.peer, filters.address(watch.peer, places(watch.peer)[0]), PACKET_HOST)


def mark_filter(watch: Watch) -> bytes:
    """Accepts marks of the peer. UDP and ping both have a header of eight bytes."""
    magic = Condition(WORD + BEHIND, UDP_HEADER, int.from_bytes(MAGIC, "big"))
    return filters.program(":" in watch.peer, [*filters.address(watch.peer, places(watch.peer)[0]), magic], PACKET_HOST)


def _bad(packet: bytes, told: list[tuple[int, int, bytes]], watch: Watch) -> bool:
    """Is a checksum wrong that this node's kernel will look at? What never left a machine has none yet, by right."""
    status = next((struct.unpack_from("=I", data)[0] for _, kind, data in told if kind == filters.PACKET_AUXDATA), 0)
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
