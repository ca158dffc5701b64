"""Follows our own fresh packets through this node's firewall, live; without it no rule that ate them could be named.

For that the kernel is given a table of our own for a moment (arming.py). It tells each rule those packets meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from facts import Blind, Fact, FirewallTrace, NodeAsk, SendProbe, Trace
from node_probe import nfnetlink
from node_probe.firewall import arming, legacy, reading, rewrites, ruleset
from node_probe.firewall.arming import OwnTable
from node_probe.firewall.drops import Counted, drops, grown, wanted
from node_probe.firewall.event import Event
from node_probe.firewall.legacy import CannotLog, Log, Logged
from node_probe.firewall.ruleset import Chain, Ruleset
from node_probe.netlink_messages import attributes
from node_probe.ours import Followed, answers, ends_of, followed, talk_of

log = logging.getLogger(__name__)

LOOK = "firewall trace"
MOST = 20_000  # events of one ask; a packet tells some sixty
AT_ONCE = 200
BUFFER = 4 << 20  # bytes
RESERVE_S = 0.05  # of the deadline, to bring the answer home
LATER_S = 0.3
POLL_S = 0.01
# linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, linux/netlink.h, asm-generic/socket.h
NFNLGRP_NFTRACE, SOL_NETLINK, ADD_MEMBERSHIP, SO_RCVBUFFORCE = 9, 270, 1, 33
TRACE = nfnetlink.NFTABLES << 8 | 17
TABLE, CHAIN, HANDLE, TYPE, VERDICT, ID, NETWORK, TRANSPORT, MARK, POLICY = 1, 2, 3, 4, 5, 6, 8, 9, 14, 16
KINDS = {1: "policy", 2: "return", 3: "rule"}
VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    0xFFFFFFFF: "continue",
    0xFFFFFFFE: "break",
    0xFFFFFFFD: "jump",
    0xFFFFFFFC: "goto",
    0xFFFFFFFB: "return",
}
AT_DEVICE = "netdev"
FAMILIES = {1: "inet", 2: "ip", 5: AT_DEVICE, 7: "bridge", 10: "ip6"}
IP = {4: "ip", 6: "ip6"}


@dataclass
class _Packet:
    """One packet on its one way through this node. With a tunnel's header, or without one, it is another."""

    followed: int
    number: int
    identity: bytes  # by which the tracer of iptables-legacy is known to speak of the same
    talk: bytes  # the ports, the forward sender's first, or a ping's id and number: an answer has those of its packet
    entered: bool = False  # it was met behind the device by which it came
    device: str = ""  # the last one whose hooks told of it
    mark: int = 0  # as it was told last
    places: set[str] = field(default_factory=set)  # its hooks and the others', as they are called in arming
    events: list[Event] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AtDevices:
    """What of a leg was met at the devices' own hooks."""

    trace: Trace
    outer: bool
    kinds: tuple[str, ...]  # of arming.AT_DEVICES: where anybody looked
    devices: tuple[str, ...]  # at which
    met: Counter[str]  # packets by kind and device
    known: Counter[str]  # of these, no old answers of a server that repeats them
    entered: bool  # any of them was met behind the device by which it came


class Following:
    """To be armed before the first packet is sent, and to be closed. For one event loop."""

    def __init__(self, ask: NodeAsk, log: Log, mode: str = "all", devices: Callable[[], Sequence[str]] = list) -> None:
        """mode: "all"; "nft": not what iptables-legacy does; "off": only by counters. devices: at whose own hooks
        packets are followed, too; may raise OSError."""
        self._ask = ask
        self._devices = devices
        self._log = log
        self._mode = mode
        self._family = IP[ask.family]
        self._followed: list[Followed] = []
        self._packets: list[_Packet] = []
        self._by_id: dict[bytes, _Packet] = {}
        self._name = arming.NAME + os.urandom(4).hex()
        self._table: OwnTable | None = None
        self._socket: socket.socket | None = None
        self._logging = False
        self._events = 0
        self._before: Ruleset | None = None  # counters are compared with these
        self._uncounted = False  # iptables-legacy alone is to be counted
        self._troubles: list[str] = []
        self._closed = False

    async def arm(self, deadline: float) -> None:
        """Never raises: what cannot be followed is told by `facts`. deadline: time.monotonic, s."""
        try:
            if self._ask.trace:
                await self._arm(deadline)
        except Exception as error:
            self._mistake(error)

    async def _arm(self, deadline: float) -> None:
        count = True
        try:
            self._followed = followed(self._ask.trace)
            if self._mode == "off":
                self._trouble("following packets through the firewall is turned off here (--trace off)")
            else:
                # The table comes last: whatever it marks is told to somebody.
                self._socket = _listening()
                asyncio.get_running_loop().add_reader(self._socket, self._drain)
                count = self._uncounted = not self._legacy_tells()
                await asyncio.to_thread(self._make)
        except PermissionError:
            self._trouble("not permitted; to follow packets through the firewall the probe needs NET_ADMIN")
            return
        except OSError as error:
            self._trouble(f"the kernel refused to follow packets: {error.strerror or error}")
            count, self._uncounted = True, False
        except ValueError as error:
            self._trouble(str(error))
            return
        if count:
            self._before = await self._all_rules(deadline)

    def _make(self) -> None:
        devices: Sequence[str] = ()
        try:
            devices = self._devices()
        except OSError as error:
            why = error.strerror or error
            self._trouble(f"rules of the devices' own were not followed: the kernel did not tell its devices: {why}")
        self._table = OwnTable(self._name, self._followed, self._ask.family, devices)
        if self._closed:  # broken off meanwhile: nobody waits for this thread
            self._table.close()

    def _legacy_tells(self) -> bool:
        """What iptables-legacy does is told, or it does nothing here."""
        if not legacy.holds_tables(self._ask.family):
            return True
        try:
            self._join_log()
        except CannotLog as error:
            self._trouble(f"what the rules of iptables-legacy do with packets is only counted: {error}")
            return False
        return True

    def _join_log(self) -> None:
        if self._mode == "nft":
            raise CannotLog("tracing them is turned off here (--trace nft)")
        self._log.join(self._ask.family, self._logged)
        self._logging = True

    def close(self) -> None:
        self._closed = True
        if self._logging:
            self._log.leave(self._ask.family, self._logged)
            self._logging = False
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._table:
            self._table.close()
            self._table = None

    async def _wait(self, deadline: float, all_sent: bool) -> None:
        """Waits a little for announced packets that have not come: where it is not known that all were sent."""
        until = min(deadline - LATER_S, time.monotonic() + LATER_S)
        while not self._ask.send and time.monotonic() < until:
            came = self._all_came()
            await asyncio.sleep(POLL_S)  # also for those that came just now and have rules before them
            if came or all_sent:
                break

    def _all_came(self) -> bool:
        counts = Counter(packet.followed for packet in self._packets)
        return all(one.outer or counts[number] >= one.trace.count for number, one in enumerate(self._followed))

    async def facts(self, deadline: float, *, all_sent: bool = False) -> list[Fact]:
        """Of each leg, with and without its tunnel: how far its packets came, and the rules that ended them.

        all_sent: by another node, as that says, long enough ago for their answers to come.
        """
        if self._table:
            await self._wait(deadline, all_sent)
        if self._socket:
            self._drain()
        if self._logging:
            self._log.drain()
        found: list[Fact] = []
        try:
            if self._table:
                found += await self._traced(deadline - RESERVE_S)
            if self._before:
                found += await self._counted(self._before, deadline - RESERVE_S)
        except OSError as error:
            self._trouble(f"the rules of the firewall could not be read: {error.strerror or error}")
        except Exception as error:
            self._mistake(error)
        return found + [Blind(node=self._ask.node, look=LOOK, reason=one, minor=True) for one in self._troubles]

    def at_devices(self) -> list[AtDevices]:
        """Of each leg, with and without its tunnel; nothing where nobody could follow packets there."""
        if not self._table or not self._table.at_devices:
            return []
        found = []
        for number, one in enumerate(self._followed):
            packets = [packet for packet in self._packets if packet.followed == number]
            met, known = (
                Counter(place for packet in some for place in packet.places) for some in (packets, self._of(number))
            )
            entered = any(packet.entered for packet in packets)
            kinds, devices = self._table.at_devices, self._table.devices
            found.append(AtDevices(one.trace, one.outer, kinds, devices, met, known, entered))
        return found

    async def _traced(self, deadline: float) -> list[Fact]:
        places = [(self._family, name, hook) for name, (hook, _) in arming.CHAINS.items()]
        if self._table:
            places += [(AT_DEVICE, name, hook) for name, hook in self._table.chains_at_devices()]
        own = [
            Chain(backend=ruleset.NFT, family=family, table=self._name, name=name, hook=hook, policy="accept")
            for family, name, hook in places
        ]
        rules = Ruleset(own)
        lost = [event for packet in self._packets if _may_be_lost(packet) for event in packet.events]
        altered = [event for packet in self._packets if self._unaltered(packet.followed) for event in packet.events]
        keys = [key for key in (*wanted(lost), *rewrites.wanted(altered)) if key[2] != self._name]
        if lost or keys:
            read = await asyncio.to_thread(reading.read, self._ask.family, deadline, wanted=keys)
            rules = read.besides(own)
            for sentence in read.unread:
                self._trouble(sentence)
        found: list[Fact] = []
        for number, one in enumerate(self._followed):
            packets = self._of(number)
            events = [event for packet in packets for event in packet.events]
            for fact in drops(self._ask.node, one.trace, events, rules, outer=one.outer):
                if isinstance(fact, FirewallTrace) and not _routed(packets, fact):
                    fact = msgspec.structs.replace(fact, last_hook="")
                elif isinstance(fact, FirewallTrace) and fact.last_hook in ("prerouting", "input"):
                    fact = msgspec.structs.replace(fact, mark=packets[-1].mark)
                found.append(fact)
            if self._unaltered(number):
                found += rewrites.rewrites(self._ask.node, one.trace, events, rules)
        return found

    def _unaltered(self, number: int) -> bool:
        """Is nobody to give the packets of this entry of `followed` another address? Answers get their old one back."""
        one = self._followed[number]
        return one.trace.unaltered and not one.trace.reply and not one.outer

    def _of(self, number: int) -> list[_Packet]:
        """The packets of one entry of `followed`. Servers repeat old answers, which are none to what was sent now;
        natOutgoing changes ports as well, so there they cannot be told apart."""
        packets = [packet for packet in self._packets if packet.followed == number]
        reply = self._followed[number]
        if reply.outer or not reply.trace.reply or reply.trace.translated:
            return packets
        asking = [n for n, one in enumerate(self._followed) if not one.outer and answers(reply.trace, one.trace)]
        talks = {packet.talk for packet in self._packets if packet.followed in asking}
        return [packet for packet in packets if packet.talk in talks] if asking else packets

    async def _counted(self, before: Ruleset, deadline: float) -> list[Fact]:
        after = await self._all_rules(deadline)
        legs: list[Counted] = []
        for one in self._followed:
            if one.outer or one.trace.reply:
                continue  # counters cannot tell these from the packets that they carry or answer
            if one.trace.later:
                self._trouble("what follows in a connection is not compared by counters: nobody knows how many packets")
                continue
            sent = one.trace.count or sum(probe.count for probe in self._ask.send if _is_of(probe, one.trace))
            ends = (one.trace.source, one.trace.target)
            legs.append(
                Counted(one.trace, sent, [pod.interface for pod in self._ask.local_pods if pod.address in ends])
            )
        return list(grown(self._ask.node, legs, before, after))

    async def _all_rules(self, deadline: float) -> Ruleset:
        """Those whose counters are to be compared."""
        return await asyncio.to_thread(reading.read, self._ask.family, deadline, legacy_only=self._uncounted)

    def _trouble(self, why: str) -> None:
        if why not in self._troubles:
            self._troubles.append(why)

    def _mistake(self, error: Exception) -> None:
        """Whatever it is must not cost what else was seen."""
        log.error("following packets broke", exc_info=error)
        self._trouble(f"a mistake in the probe ({type(error).__name__}: {error}); its log has the details")

    # -- what the kernel tells

    def _drain(self) -> None:
        for _ in range(AT_ONCE):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                self._trouble("the kernel told more of packets than could be read, so some of it is missing")
                if error.errno != errno.ENOBUFS:
                    return
                continue
            for kind, family, body in nfnetlink.messages(data):
                if kind == TRACE:
                    self._told(FAMILIES.get(family, str(family)), attributes(body))

    def _told(self, family: str, has: dict[int, bytes]) -> None:
        table, chain = _text(has, TABLE), _text(has, CHAIN)
        kind, identity = KINDS.get(_u32(has.get(TYPE)), ""), has.get(ID, b"")
        own = table == self._name
        if table.startswith(arming.NAME) and not own:
            return  # somebody else's question
        looks, behind = _identity(has.get(NETWORK, b""), has.get(TRANSPORT, b"")), has.get(TRANSPORT, b"")
        if own and kind == "rule" and chain.startswith(arming.FOLLOWED):
            if looks:  # else it was followed before it came here
                self._by_id[identity] = self._new(int(chain.removeprefix(arming.FOLLOWED)), looks, behind)
            return
        met = self._by_id.get(identity) or (self._met_before(looks) if own and looks else None)
        if met is None or not kind or self._events >= MOST:
            return
        self._events += 1
        self._by_id[identity] = met
        met.mark = _u32(has.get(MARK))
        met.entered = met.entered or family != AT_DEVICE
        if own and family == AT_DEVICE:
            met.device = chain.removeprefix(next(one for one in arming.AT_DEVICES if chain.startswith(one)))
            met.places.add(chain)
        verdict = attributes(has.get(VERDICT, b""))
        code = _u32(has[POLICY]) if POLICY in has else _u32(verdict.get(1))
        met.events.append(
            Event(
                packet=str(met.number),
                backend=ruleset.NFT,
                family=family,
                table=table,
                chain=chain,
                kind=kind,
                handle=int.from_bytes(has[HANDLE], "big") if HANDLE in has else -1,
                verdict=VERDICTS.get(code & 0xFFFFFFFF, VERDICTS.get(code & 0xFF, "")),
                target=_text(verdict, 2),
                ends=("", "", 0) if family == AT_DEVICE else ends_of(has.get(NETWORK, b""), behind),
                device=met.device,
            )
        )

    def _met_before(self, looks: bytes) -> _Packet | None:
        """The same packet under another number: it has one at each member of a bond or bridge, and where it was made
        longer on its way out."""
        alike = (packet for packet in reversed(self._packets) if packet.identity == looks)
        return next((one for one in alike if all(event.verdict != "drop" for event in one.events)), None)

    def _new(self, follows: int, looks: bytes, behind: bytes) -> _Packet:
        talk = talk_of(self._followed[follows].trace, behind)
        packet = _Packet(followed=follows, number=len(self._packets), identity=looks, talk=talk)
        self._packets.append(packet)
        return packet

    def _logged(self, line: Logged) -> None:
        if self._socket:
            self._drain()  # it was marked before it could be logged
        identity = _identity(line.packet, _behind(line.packet))
        for packet in reversed(self._packets):
            if packet.identity == identity:
                event = Event(
                    packet=str(packet.number),
                    backend=ruleset.IPTABLES_LEGACY,
                    family=self._family,
                    table=line.table,
                    chain=line.chain,
                    kind=line.kind,
                    number=line.number,
                )
                packet.events.append(event)
                return


def sweep() -> None:
    """Undoes what a probe that was killed left behind. Raises OSError."""
    for one in arming.left():
        if one.name.startswith(arming.LOG_NAME):
            legacy.restore(one.name)
        with contextlib.suppress(OSError):  # another probe's has just ended by itself
            arming.unmark(one.name, one.family)


def _listening() -> socket.socket:
    """A socket that is told of every traced packet of this network namespace. Raises OSError."""
    wire = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, nfnetlink.NETLINK_NETFILTER
    )
    try:
        wire.bind((0, 0))
        try:
            wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:  # root of a namespace only
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        wire.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
    except BaseException:
        wire.close()
        raise
    return wire


def _may_be_lost(packet: _Packet) -> bool:
    ended = any(event.verdict == "drop" for event in packet.events)
    return ended or not any(event.chain in arming.LEFT_BY for event in packet.events)


def _routed(packets: Sequence[_Packet], fact: FirewallTrace) -> bool:
    """Is it known that all rules before the routing decision let the last packet through?"""
    return fact.last_hook != "prerouting" or any(
        event.chain == arming.PASSED_PREROUTING for event in packets[-1].events
    )


def _is_of(probe: SendProbe, trace: Trace) -> bool:
    return (probe.target, probe.protocol, probe.port) == (trace.target, trace.protocol, trace.port)


def _identity(packet: bytes, behind: bytes) -> bytes:
    """What stays the same of a packet: IPv4's identification, and the beginning of what is behind the IP header.

    packet: from its IP header on. A UDP checksum may be made on the way.
    """
    if not packet:
        return b""
    six = packet[0] >> 4 == 6
    protocol = packet[6:7] if six else packet[9:10]
    return (b"" if six else packet[4:6]) + protocol + behind[: 6 if protocol == b"\x11" else 8]


def _behind(packet: bytes) -> bytes:
    if not packet:
        return b""
    return packet[40 if packet[0] >> 4 == 6 else (packet[0] & 0xF) * 4 :]


def _u32(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")


def _text(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")
