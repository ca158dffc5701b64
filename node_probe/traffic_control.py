"""What traffic control (tc) of the devices took of our own fresh packets; without it a filter, a program or a queue
there that drops them would look like nothing at all: it has no rules that a trace could tell of.

It stands between two places that both look at packets: for what comes in between the packet sockets and the first
rules of the device, for what goes out between its last rules and the packet sockets. What is met at the one and nowhere
behind, tc has taken. Its own lists and counters tell which part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import platform
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from facts import Fact, NodeAsk, RuleDrop, StageSighting, Taker, Trace, TrafficControl
from node_probe.firewall.arming import COMES_IN, WENT_OUT
from node_probe.firewall.trace import AtDevices
from node_probe.namespaces import CannotEnter
from node_probe.netlink_messages import NetlinkError, NetlinkSocket, attributes
from node_probe.view import View

# linux/rtnetlink.h, linux/pkt_sched.h, linux/gen_stats.h
GET_DISCIPLINES, GET_FILTERS = 38, 46
HEAD = struct.Struct("=BxxxiIII")  # tcmsg
KIND, OPTIONS, STATS, STATS_QUEUE, CHAIN = 1, 2, 7, 3, 11
AT_FILTERS = ("ingress", "clsact")
BLOCKS = {"in": 0xFFFFFFF2, "out": 0xFFFFFFF3}
NONE = ("EINVAL", "ENOENT", "EOPNOTSUPP")
# linux/pkt_cls.h, linux/tc_act/*.h
ACTIONS = {"u32": 7, "bpf": 1, "matchall": 2, "flower": 3, "basic": 3, "fw": 4, "flow": 9}
U32_CHOOSES, BPF_NAME, BPF_FLAGS, BPF_ID, DIRECT = 5, 7, 8, 11, 1
FLOWER_KINDS = {9, 18, 19, 20, 21, 49, 50, 51, 52, 53, 54, 55, 56}  # protocol, ports, ICMP
PARAMETERS = {"gact": 2, "police": 1, "mirred": 2}
SHOT, STOLEN, REDIRECTS = 2, 4, (1, 3)
PROTOCOLS = {0x0003: "all", 0x0800: "ip", 0x86DD: "ipv6"}
OF_ADDRESSES = {0x0800: range(12, 20), 0x86DD: range(8, 40)}  # where they stand in the IP header
# linux/bpf.h
BPF = {"x86_64": 321, "aarch64": 280}
PROG_QUERY, ATTACHED, MOST_PROGRAMS = 16, {"in": 46, "out": 47}, 32

POD_DEVICE = "eth0"
_Where = tuple[str, str]  # pod, "" for the node, and device

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class _Discipline:
    device: int
    kind: str
    handle: int
    drops: int


class _Socket(NetlinkSocket):
    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def disciplines(self) -> list[_Discipline]:
        return self.dump(GET_DISCIPLINES, HEAD.pack(0, 0, 0, 0, 0), _discipline)

    def takers(self, device: int, going: str) -> list[Taker]:
        """Filters that can take packets, in the kernel's order."""
        try:
            return self.dump(GET_FILTERS, HEAD.pack(0, device, 0, BLOCKS[going], 0), _taker)
        except NetlinkError as error:
            if error.name in NONE:
                return []
            raise


@dataclass(frozen=True, slots=True)
class _Listing:
    """Of one device, at one moment."""

    disciplines: dict[tuple[str, int], int]  # kind and handle, what it dropped
    takers: dict[str, list[Taker]]  # by where packets go


class Queues:
    """To be opened before the first packet is sent."""

    def __init__(self, ask: NodeAsk, view: View) -> None:
        self._ask = ask
        self._view = view
        self._before: dict[_Where, _Listing] = {}

    async def open(self) -> None:
        """Never raises: where nobody can look, nothing is said of it."""
        if self._ask.trace:
            try:
                self._before = await asyncio.to_thread(self._listed)
            except OSError:
                return

    async def facts(self, sightings: Sequence[Fact], followed: Sequence[AtDevices]) -> list[Fact]:
        """sightings: with the StageSightings of this look. followed: what was met at the devices' own hooks."""
        met = [one for one in sightings if isinstance(one, StageSighting)]
        lost = [fact for one in followed for fact in _lost(self._ask.node, one, met)]
        ended = {one.pod for one in sightings if isinstance(one, RuleDrop)}
        lost += [one for one in self._within(met) if one.pod not in ended]
        if not any((one.pod, one.device) in self._before for one in lost):
            return []
        try:
            now = await asyncio.to_thread(self._listed)
        except OSError:
            return []
        found = [
            _told(one, self._before[one.pod, one.device], now[one.pod, one.device])
            for one in lost
            if (one.pod, one.device) in self._before.keys() & now.keys()
        ]
        return [fact for fact in found if fact.takers]

    def _within(self, met: Sequence[StageSighting]) -> Iterator[TrafficControl]:
        """Where nobody saw a pod's packets leave the pod itself."""
        for trace in self._ask.trace:
            if trace.later:  # nobody knows whether any were sent: that takes a connection
                continue
            kind = trace.target, trace.protocol, trace.port, trace.large
            for probe in self._ask.send:
                of_leg = [
                    one
                    for one in met
                    if (one.pod, one.source_address, one.target_address) == (probe.pod, trace.source, trace.target)
                    and one.large == trace.large
                ]
                sent = probe.pod and not trace.reply and kind == (probe.target, probe.protocol, probe.port, probe.large)
                if sent and of_leg and all(one.seen == 0 and one.enclosed for one in of_leg):
                    yield TrafficControl(
                        node=self._ask.node,
                        pod=probe.pod,
                        device=POD_DEVICE,
                        going="out",
                        source_address=trace.source,
                        target_address=trace.target,
                        protocol=trace.protocol,
                        port=trace.port,
                        large=trace.large,
                        later=trace.later,
                        packets=probe.count,
                    )

    def _listed(self) -> dict[_Where, _Listing]:
        devices: dict[int, str] = {}
        for name in self._view.on_the_way(self._ask):
            device = self._view.device(name)
            if device is not None and device.up and device.lower_up:  # else it sends nothing, and others say so
                devices[device.index] = name
        found = {("", name): one for name, one in _listings(devices).items()}
        for pod in self._ask.local_pods:
            if any(probe.pod == pod.name for probe in self._ask.send):
                with contextlib.suppress(CannotEnter):
                    entered = self._view.enter(pod)
                    own = entered.run(partial(_listings, {entered.device.index: entered.device.name}))
                    found |= {(pod.name, name): one for name, one in own.items()}
        return found


def _listings(devices: Mapping[int, str]) -> dict[str, _Listing]:
    """Of the network the calling thread is in. Raises OSError."""
    with _Socket() as wire:
        disciplines = wire.disciplines()
        return {
            name: _Listing(
                {(one.kind, one.handle): one.drops for one in disciplines if one.device == index},
                {going: [*_programs(index, going), *wire.takers(index, going)] for going in BLOCKS},
            )
            for index, name in devices.items()
        }


def _lost(node: str, one: AtDevices, met: Sequence[StageSighting]) -> Iterator[TrafficControl]:
    """Where a leg's packets, or the tunnel's around them, were met at one side of tc, and nowhere behind it."""
    trace = one.trace
    around = trace.encapsulation if one.outer else ""
    of_leg = [
        sight
        for sight in met
        if (sight.source_address, sight.target_address, sight.reply) == (trace.source, trace.target, trace.reply)
        and (sight.large, sight.later) == (trace.large, trace.later)
        and sight.seen > 0
    ]
    here = [sight for sight in of_leg if not sight.pod and sight.encapsulation == around]
    fact = TrafficControl(
        node=node,
        device="",
        going="in",
        source_address=trace.source,
        target_address=trace.target,
        protocol=trace.protocol,
        port=trace.port,
        reply=trace.reply,
        outer=one.outer,
        large=trace.large,
        later=trace.later,
        packets=0,
    )
    gone_on = one.entered or any(sight.going == "out" and not sight.pod for sight in of_leg)
    arrived = any(sight.pod and sight.going == "in" for sight in of_leg)
    inside = one.outer and any(not sight.encapsulation for sight in of_leg)
    for sight in here:
        alike = not (trace.reply and trace.protocol == "tcp")  # a reset is met by the socket, and not followed
        if sight.going == "in" and COMES_IN in one.kinds and sight.device in one.devices and not sight.others:
            behind = one.met[COMES_IN + sight.device] or gone_on or arrived or inside
            if not behind and (not one.outer or _is_of(trace, sight)):
                yield msgspec.structs.replace(fact, device=sight.device, packets=sight.seen if alike else 0)
    for device in one.devices if WENT_OUT in one.kinds else ():
        sent = one.known[WENT_OUT + device]
        left = arrived or any(sight.going == "out" and sight.device == device for sight in here)
        if sent and not left:
            yield msgspec.structs.replace(fact, device=device, going="out", packets=sent)


def _is_of(trace: Trace, sight: StageSighting) -> bool:
    """Are these the tunnel's packets that the rules would follow?"""
    return sight.outer_source == trace.peer and sight.port in (-1, trace.tunnel_port)


def _told(lost: TrafficControl, before: _Listing, now: _Listing) -> TrafficControl:
    """With what can have done it: what counted as many drops, where anything did."""
    grown = {key: drops - before.disciplines.get(key, drops) for key, drops in now.disciplines.items()}
    was = {one.text: one.drops for one in before.takers[lost.going]}
    takers = [
        msgspec.structs.replace(one, drops=one.drops - was.get(one.text, one.drops)) if one.drops >= 0 else one
        for one in now.takers[lost.going]
    ]
    counting = [drops for (kind, _), drops in grown.items() if kind in AT_FILTERS]
    if lost.going == "out":
        takers += [
            Taker(text=f"qdisc {kind} {handle >> 16:x}:", how="queue", drops=drops, any_kind=True)
            for (kind, handle), drops in grown.items()
            if kind not in AT_FILTERS and drops > 0
        ]
        counting += [drops for (kind, _), drops in grown.items() if kind not in AT_FILTERS]
    counted = [one for one in takers if one.drops >= max(lost.packets, 1)]
    return msgspec.structs.replace(
        lost, drops=sum(counting) if counting else -1, takers=tuple(counted or (one for one in takers if one.drops < 1))
    )


# -- what the kernel says


def _discipline(payload: bytes) -> _Discipline:
    _, device, handle, _, _ = HEAD.unpack_from(payload)
    has = attributes(payload[HEAD.size :])
    return _Discipline(device, _text(has.get(KIND, b"")), handle, _drops(has.get(STATS, b"")))


def _drops(stats: bytes) -> int:
    queue = attributes(stats).get(STATS_QUEUE, b"")
    return int(struct.unpack_from("=III", queue)[2]) if len(queue) >= 12 else 0


def _taker(payload: bytes) -> Taker | None:
    _, _, handle, _, info = HEAD.unpack_from(payload)
    has = attributes(payload[HEAD.size :])
    kind, options = _text(has.get(KIND, b"")), attributes(has.get(OPTIONS, b""))
    ethertype = (info & 0xFF) << 8 | info >> 8 & 0xFF  # it stands there as on the wire
    said = f"filter protocol {PROTOCOLS.get(ethertype, hex(ethertype))} pref {info >> 16} {kind} handle {handle:#x}"
    how, to, drops = "", "", -1
    for action in _each(options.get(ACTIONS.get(kind, 0), b"")):
        how, to, counted, words = _action(attributes(action))
        said += f" action {words}"
        if how:
            drops = counted
            break
    if kind == "bpf" and not how and int.from_bytes(options.get(BPF_FLAGS, b"")[:4], "little") & DIRECT:
        how = "decide"
        said += f" {_text(options.get(BPF_NAME, b''))} direct-action".replace("  ", " ")
        if BPF_ID in options:
            said += f" id {struct.unpack_from('=I', options[BPF_ID])[0]}"
    return Taker(text=said, how=how, to=to, drops=drops, any_kind=_any_kind(kind, ethertype, options)) if how else None


def _action(has: dict[int, bytes]) -> tuple[str, str, int, str]:
    """How it takes packets ("" for not at all), where it sends them, what it dropped, and its words."""
    kind = _text(has.get(1, b""))
    given = attributes(has.get(2, b"")).get(PARAMETERS.get(kind, 0), b"")
    drops = _drops(has.get(4, b""))
    if kind == "gact" and len(given) >= 12 and struct.unpack_from("=i", given, 8)[0] in (SHOT, STOLEN):
        return "drop", "", drops, "drop"
    if kind == "police" and len(given) >= 8 and struct.unpack_from("=i", given, 4)[0] == SHOT:
        return "police", "", drops, "police"
    if kind == "mirred" and len(given) >= 28:
        how, index = struct.unpack_from("=iI", given, 20)
        if how in REDIRECTS:
            return "redirect", _name(index), -1, f"mirred redirect dev {_name(index)}"
    return "", "", -1, kind


def _any_kind(kind: str, ethertype: int, options: dict[int, bytes]) -> bool:
    """Does it look at addresses alone?"""
    if kind == "matchall":
        return True
    if kind == "flower":
        return not FLOWER_KINDS & options.keys()
    if kind == "u32" and len(chooses := options.get(U32_CHOOSES, b"")) >= 16:
        keys = [struct.unpack_from("=IIii", chooses, 16 + 16 * n) for n in range(chooses[2])]
        return all(mask == 0 or offset in OF_ADDRESSES.get(ethertype, ()) for mask, _, offset, _ in keys)
    return False


def _programs(device: int, going: str) -> list[Taker]:
    """Programs that hang at the device without a filter (tcx), which have no list of tc's."""
    number = BPF.get(platform.machine())
    if number is None:
        return []
    ids = (ctypes.c_uint32 * MOST_PROGRAMS)()
    query = struct.pack("=IIIIQII", device, ATTACHED[going], 0, 0, ctypes.addressof(ids), MOST_PROGRAMS, 0).ljust(
        64, b"\0"
    )
    given = ctypes.create_string_buffer(query, len(query))
    if _libc.syscall(number, PROG_QUERY, given, len(query)) < 0:  # an older kernel, or it is not permitted
        return []
    count = struct.unpack_from("=I", given.raw, 24)[0]
    return [Taker(text=f"tcx program id {one}", how="decide") for one in ids[: min(count, MOST_PROGRAMS)]]


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"if{index}"


def _each(data: bytes) -> Iterable[bytes]:
    return (value for _, value in sorted(attributes(data).items()))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
