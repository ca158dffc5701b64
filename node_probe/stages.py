"""Meets our own fresh packets at every device of the node and inside its pods; without it "they are lost in that node"
would be all that could be said.

Which packets are ours is ours.py's knowledge: the same ones are followed through the firewall meanwhile. They are
looked for where they should be and where they should not: on any device, with the tunnel's header and without it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from facts import Fact, LocalPod, NodeAsk, StageSighting, Trace
from node_probe import filters
from node_probe.checksum import header_length
from node_probe.filters import BEHIND, PACKET_HOST, PACKET_OTHERHOST, PACKET_OUTGOING, SNAP, Condition, met_ns, places
from node_probe.namespaces import CannotEnter
from node_probe.ours import (
    INSIDE,
    IPIP,
    PROTOCOLS,
    SYN_ACK,
    TRANSPORT,
    Bytes,
    Followed,
    answers,
    followed,
    talk_of,
)
from node_probe.tap import Tap
from node_probe.view import View

MOST = 2000  # packets of one leg in one place, then enough was seen
MOST_PLACES = 32  # of one leg: devices and kinds of headers
AT_ONCE = 64
RST_ACK = 0x14  # refuses a connection: an answer as well
VXLAN_VNI, VXLAN_MAC = 8 + 4, 8 + 8  # from the end of the outer IP header
TIME_TO_LIVE, HOP_LIMIT = 8, 7  # where they stand in a header of IPv4 and of IPv6
GOING = {PACKET_OUTGOING: "out", PACKET_HOST: "in", PACKET_OTHERHOST: "in"}


@dataclass(frozen=True, slots=True)
class _Place:
    """A device that packets passed, and what stood around them there."""

    device: str
    going: str
    encapsulation: str = ""
    others: bool = False
    outer_source: str = ""
    outer_target: str = ""
    port: int = -1
    vni: int = -1
    inner_mac: str = ""


@dataclass
class _Look:
    """One leg in the network of the node, or of one pod."""

    trace: Trace
    pod: str
    blocked: bool = False
    packets: int = 0
    times: dict[tuple[_Place, bytes], list[int]] = field(default_factory=dict)  # by what tells whose answer it is: ns
    hops: dict[_Place, int] = field(default_factory=dict)


class Stages:
    """To be opened before the first packet is sent, and to be closed. For one event loop."""

    def __init__(self, ask: NodeAsk, view: View) -> None:
        self._ask = ask
        self._view = view
        self._looks: list[_Look] = []
        self._readers: dict[socket.socket, Callable[[], bool]] = {}
        self._lookers: dict[socket.socket, _Look] = {}

    async def open(self) -> None:
        """Never raises: where nobody can look is told by `sightings`."""
        if not self._ask.trace:
            return
        try:
            traces = [one for one in followed(self._ask.trace) if not one.outer]
        except ValueError:
            return  # firewall.trace says so
        for one in traces:
            await self._look(one, None)
            for pod in self._ask.local_pods:
                if pod.address in (one.trace.source, one.trace.target):
                    await self._look(one, pod)

    def close(self) -> None:
        for one in list(self._readers):
            self._close(one)

    def sightings(self, tap: Tap) -> list[Fact]:
        """Of all that has come so far. tap: knows by the nodes' marks whether both looked at one time."""
        for read in list(self._readers.values()):
            for _ in range(MOST // AT_ONCE):
                if not read():
                    break
        for one, look in self._lookers.items():
            look.blocked = look.blocked or (one.fileno() >= 0 and filters.missed(one) > 0)
        known = [(look, self._known(look)) for look in self._looks]
        return [fact for look, passed in known for fact in self._told(look, passed, tap)]

    async def _look(self, one: Followed, pod: LocalPod | None) -> None:
        look = _Look(one.trace, pod.name if pod else "")
        self._looks.append(look)
        six = self._ask.family == 6
        try:
            # A pod's own packets have no header around them: who tunnels inside of a pod is not our business.
            wanted = [("", accepts) for accepts in bare_filters(one, six)]
            if not pod and one.trace.encapsulation in INSIDE:
                wanted += [(one.trace.encapsulation, accepts) for accepts in tunnel_filters(one, six)]
            opened = await self._opened([accepts for _, accepts in wanted], pod)
        except (OSError, ValueError, CannotEnter):
            look.blocked = True
            return
        for (encapsulation, _), made in zip(wanted, opened, strict=True):
            read = partial(self._drain, made, look, encapsulation)
            self._readers[made], self._lookers[made] = read, look
            asyncio.get_running_loop().add_reader(made, read)

    async def _opened(self, filtered: Sequence[bytes], pod: LocalPod | None) -> list[socket.socket]:
        """Raises OSError, CannotEnter."""
        if pod is None:
            return _opened(filtered)
        entered = await asyncio.to_thread(self._view.enter, pod)
        return await asyncio.to_thread(entered.run, partial(_opened, filtered))

    def _drain(self, one: socket.socket, look: _Look, encapsulation: str) -> bool:
        """Reads some packets. True: there may be more."""
        for _ in range(AT_ONCE):
            try:
                data, told, _, address = one.recvmsg(SNAP, 128)
            except BlockingIOError:
                return False
            except OSError:  # a device went down: no packet
                continue
            look.packets += 1
            if look.packets > MOST:
                look.blocked = look.blocked or look.trace.train  # their number is what is asked for
                self._close(one)
                return False
            going = GOING.get(address[2])
            if going:
                self._met(look, encapsulation, data, address[0], going, address[2] == PACKET_OTHERHOST, met_ns(told))
        return True

    def _met(
        self, look: _Look, encapsulation: str, data: bytes, device: str, going: str, others: bool, when: int
    ) -> None:
        around: dict[str, Any] = {}
        packet = data
        if encapsulation:
            six, behind = data[0] >> 4 == 6, header_length(data)
            source, target = places("::" if six else "0.0.0.0")
            around = {
                "outer_source": filters.written(data, source, six),
                "outer_target": filters.written(data, target, six),
            }
            if encapsulation == "vxlan":
                around["port"] = int.from_bytes(data[behind + 2 : behind + 4], "big")
                around["vni"] = int.from_bytes(data[behind + VXLAN_VNI : behind + VXLAN_VNI + 3], "big")
                around["inner_mac"] = data[behind + VXLAN_MAC : behind + VXLAN_MAC + 6].hex(":")
            packet = data[behind + INSIDE[encapsulation] :]
        place = _Place(device, going, encapsulation, others, **around)
        key = place, talk_of(look.trace, packet[header_length(packet) :])
        times = look.times.setdefault(key, [])
        times.append(when)
        hops = packet[HOP_LIMIT if packet[0] >> 4 == 6 else TIME_TO_LIVE]
        look.hops[place] = min(hops, look.hops.get(place, hops))

    def _known(self, look: _Look) -> dict[_Place, list[int]]:
        """Servers repeat old answers, which are none to what was sent now: an answer belongs to a packet that this node
        met, and of a train each to one. Where natOutgoing changes ports they cannot be told apart."""
        asking = [one for one in self._looks if answers(look.trace, one.trace)]
        talks: dict[bytes, int] = {}
        for (_, talk), asked in (item for one in asking for item in one.times.items()):
            talks[talk] = max(len(asked), talks.get(talk, 0))
        found: dict[_Place, list[int]] = {}
        for (place, talk), times in look.times.items():
            if not look.trace.reply or look.trace.translated or not asking or talk in talks:
                counted = times[: talks.get(talk)] if look.trace.train else times
                found.setdefault(place, []).extend(counted)
        return found

    def _told(self, look: _Look, known: dict[_Place, list[int]], tap: Tap) -> list[Fact]:
        trace = look.trace
        enclosed, listened = tap.met(trace.source, trace.target)
        looked = StageSighting(
            node=self._ask.node,
            pod=look.pod,
            source_address=trace.source,
            target_address=trace.target,
            reply=trace.reply,
            seen=-1 if look.blocked else 0,
            large=trace.large,
            later=trace.later,
            enclosed=enclosed or bool(self._ask.send),  # who sends them looks on meanwhile
            listened=listened,
        )
        if look.blocked or not known:
            return [looked]
        return [
            msgspec.structs.replace(
                looked,
                seen=len(times),
                hops=look.hops[place],
                **{name: getattr(place, name) for name in _Place.__slots__},
            )
            for place, times in sorted(known.items(), key=lambda one: min(one[1]))[:MOST_PLACES]
        ]

    def _close(self, one: socket.socket) -> None:
        self._readers.pop(one, None)
        self._lookers.pop(one, None)
        filters.close(one)


def bare_filters(one: Followed, six: bool) -> list[bytes]:
    """They accept our packets of a leg as they are. Raises ValueError for what is no address."""
    protocol, ways = one.at("prerouting", 6 if six else 4)
    number = filters.protocol(six, protocol)
    return [filters.program(six, [number, *_conditions(way)]) for way in _with_refusals(one.trace, ways)]


def tunnel_filters(one: Followed, six: bool) -> list[bytes]:
    """They accept the same within VXLAN or IPIP, whichever port, network and nodes it goes by. Raises ValueError."""
    number = filters.protocol(six, IPIP[4] if one.trace.encapsulation == "ipip" else PROTOCOLS["udp"])
    ways = _with_refusals(one.trace, [one.inside(6 if six else 4)])
    return [filters.program(six, [number, *_conditions(way)]) for way in ways]


def _with_refusals(trace: Trace, ways: Sequence[list[Bytes]]) -> list[list[Bytes]]:
    """A reset is an answer too: it differs from the other one in TCP's flags."""
    found = list(ways)
    if trace.reply and trace.protocol == "tcp" and not trace.later:
        found += [
            [_refusing(one) if one.value == bytes([SYN_ACK]) and one.mask else one for one in way] for way in ways
        ]
    return found


def _refusing(flags: Bytes) -> Bytes:
    return Bytes(flags.header, flags.offset, bytes([RST_ACK]), flags.mask)


def _conditions(way: Sequence[Bytes]) -> list[Condition]:
    return [
        condition
        for one in way
        for condition in filters.bytes_at(one.offset, one.value, one.mask, BEHIND if one.header == TRANSPORT else 0)
    ]


def _opened(filtered: Sequence[bytes]) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        for accepts in filtered:
            made.append(filters.opened(accepts, timed=True))
    except BaseException:
        for one in made:
            one.close()
        raise
    return made
