"""Fresh packets from where the flow starts; without them nobody knows whether the path works now."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from facts import Blind, Fact, LocalPod, NodeAsk, ProbeResult, SendProbe
from node_probe import filters, syn
from node_probe.checksum import header_length
from node_probe.namespaces import CannotEnter
from node_probe.netlink_messages import NetlinkError
from node_probe.view import View

TIMEOUT_S = 1.0
RESERVE_S = 0.05  # of the deadline, to bring the answer home
POLL_S = 0.005
TRIES = 16  # for a port that nobody uses
_whole = itertools.count(os.getpid())
ENOUGH = 0.5  # of the time an answer is to be waited for: silence for so long counts
MOST = 300  # packets of one ask: a probe is no flood
SMALL = b"calico-why probe, please ignore."
LARGEST = 65535
OF_ANSWER = 128  # bytes that are read of it: headers, and by what an answer is known
PORT_OR_ECHO_HEADER = 8
# linux/in.h, linux/in6.h, linux/icmp.h, linux/icmpv6.h, linux/errqueue.h
IP_MTU_DISCOVER, IP_RECVERR, PMTUDISC_PROBE, SOL_RAW, ICMP_FILTER = 10, 11, 3, 255, 1
IPV6_MTU_DISCOVER, IPV6_RECVERR, IPV6_DONTFRAG, ICMPV6_FILTER = 23, 25, 62, 1
SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 2, 3
ECHO = struct.Struct("!BBHHH")


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the two versions of IP for whom sends probes."""

    number: socket.AddressFamily
    header: int  # bytes of the IP header
    icmp: int  # protocol number
    level: int  # of its socket options
    receive_errors: int
    whole: tuple[tuple[int, int], ...]  # options: never in fragments, and no knowledge of the path from earlier packets
    only_answers: tuple[int, int, bytes]  # option of a raw socket
    echo_request: int
    echo_reply: int
    error: struct.Struct  # sock_extended_err, then the sockaddr of whom it came from
    origin: int
    too_big: tuple[int, int]
    port_unreachable: tuple[int, int]
    words: dict[tuple[int, int], str]


IPV4 = Family(
    number=socket.AF_INET,
    header=20,
    icmp=socket.IPPROTO_ICMP,
    level=socket.IPPROTO_IP,
    receive_errors=IP_RECVERR,
    whole=((IP_MTU_DISCOVER, PMTUDISC_PROBE),),
    only_answers=(SOL_RAW, ICMP_FILTER, struct.pack("=I", ~1 & 0xFFFFFFFF)),
    echo_request=8,
    echo_reply=0,
    error=struct.Struct("=IBBBxII4x4s"),
    origin=SO_EE_ORIGIN_ICMP,
    too_big=(3, 4),
    port_unreachable=(3, 3),
    words={
        (3, 0): "network unreachable",
        (3, 1): "host unreachable",
        (3, 2): "protocol unreachable",
        (3, 3): "port unreachable",
        (3, 9): "network prohibited",
        (3, 10): "host prohibited",
        (3, 13): "communication prohibited",
        (11, 0): "time to live exceeded in transit",
    },
)
IPV6 = Family(
    number=socket.AF_INET6,
    header=40,
    icmp=socket.IPPROTO_ICMPV6,
    level=socket.IPPROTO_IPV6,
    receive_errors=IPV6_RECVERR,
    whole=((IPV6_MTU_DISCOVER, PMTUDISC_PROBE), (IPV6_DONTFRAG, 1)),
    only_answers=(
        socket.IPPROTO_ICMPV6,
        ICMPV6_FILTER,
        struct.pack("=8I", *(0xFFFFFFFF ^ (word == 129 // 32) << 129 % 32 for word in range(8))),
    ),
    echo_request=128,
    echo_reply=129,
    error=struct.Struct("=IBBBxII8x16s"),
    origin=SO_EE_ORIGIN_ICMP6,
    too_big=(2, 0),
    port_unreachable=(1, 4),
    words={
        (1, 0): "no route",
        (1, 1): "communication prohibited",
        (1, 2): "beyond the scope of the source address",
        (1, 3): "address unreachable",
        (1, 4): "port unreachable",
        (1, 5): "source address failed policy",
        (1, 6): "route rejected",
        (3, 0): "hop limit exceeded in transit",
    },
)
# When packets of one kind met different things, the most telling one is reported.
TELLING = ("silence", "error", "unreachable", "too_big", "refused", "answered")
OWN_REFUSALS = {
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EACCES,
    errno.EINVAL,
}  # EINVAL: a blackhole route
TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}


@dataclass(frozen=True, slots=True)
class Met:
    """What one packet met."""

    outcome: str
    by: str = ""
    detail: str = ""
    rtt_us: int = -1
    left: bool = True  # False: the sender's own kernel did not let it out
    mtu: int = 0  # of "too_big": what passes, as was told


UNENDED = Met("silence")  # behind the handshake
UNHEARD = (4, 9, 11)  # net/tcp_states.h: FIN_WAIT1, LAST_ACK, CLOSING


def patience(ask: NodeAsk) -> float:
    """How long a packet's answer is waited for, in s."""
    return min(TIMEOUT_S, max(0, ask.patience_ms) / 1000)


class NoTime(Exception):
    """The answer to a packet could not be waited for long enough: its silence says nothing."""


class Diverted(Exception):
    """Packets were answered, and none left the pod: something in its own network answers in the target's place."""


def wait_s(wanted: float, view: View) -> float:
    """How long an answer is waited for that is to be waited for so long, in s: less shortly before the deadline."""
    return max(0.0, min(wanted, view.deadline - time.monotonic() - RESERVE_S))


def heard(met: Sequence[Met], waited: float, wanted: float) -> Sequence[Met]:
    """The same. Raises NoTime where one of them is silence that was cut short, times in s."""
    if waited < wanted * ENOUGH and any(one.outcome == "silence" for one in met):
        raise NoTime
    return met


async def send(ask: NodeAsk, probe: SendProbe, view: View) -> Fact:
    """A ProbeResult; Blind where its packets cannot be sent. Raises Diverted."""
    return await or_blind(ask, probe, _send(ask, probe, view))


async def or_blind(ask: NodeAsk, probe: SendProbe, sending: Awaitable[Fact]) -> Fact:
    """What comes of it, or why these packets cannot be sent."""
    what = _named(ask, probe)
    try:
        return await sending
    except NoTime:
        return no_time(ask, probe)
    except (CannotEnter, ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, OSError) and error.errno == errno.EPERM:  # EACCES is a route's that prohibits
            why = "not permitted; the probe needs NET_RAW"
        return Blind(node=ask.node, look="packets", reason=f"{what}: {why}")


def no_time(ask: NodeAsk, probe: SendProbe) -> Blind:
    reason = f"{_named(ask, probe)}: no time was left to wait for answers"
    return Blind(node=ask.node, look="packets", reason=reason, late=True)


def _named(ask: NodeAsk, probe: SendProbe) -> str:
    return f"{probe.protocol} from {probe.pod or ask.node} to {probe.target}"


async def _send(ask: NodeAsk, probe: SendProbe, view: View) -> Fact:
    pod = sender(ask, probe)
    raw = probe.protocol == "tcp" and probe.size  # whose sockets know no port
    beside = partial(_departures, probe) if pod and probe.port and not raw else list
    with contextlib.ExitStack() as opened:
        made, mtu = await asyncio.to_thread(partial(open_sockets, probe, pod, view, beside=beside))
        sockets, departures = made[: probe.count], made[probe.count :]
        for one in sockets:
            opened.enter_context(one)
        for one in departures:
            opened.callback(filters.close, one)
        size = packet_size(probe, mtu)
        timeout = wait_s(patience(ask), view)
        met: Sequence[Met] = await asyncio.gather(*(attempt(one, probe, size, timeout) for one in sockets))
        source = next((name for name in map(own_address, sockets) if name), pod.address if pod else "")
        ports = [one.getsockname()[1] for one, its in zip(sockets, met, strict=True) if its.outcome == "answered"]
        if ports and any(_none_left(one, ports) for one in departures):
            raise Diverted
        heard(met, timeout, patience(ask))
        if probe.protocol == "tcp" and not raw:
            met = await _outlasting(sockets, met, wait_s(patience(ask), view), patience(ask))
    return result(ask.node, probe, source, size if probe.size else 0, met)


async def _outlasting(
    sockets: Sequence[socket.socket], met: Sequence[Met], timeout: float, wanted: float
) -> Sequence[Met]:
    """The same, but for connections of which nothing passes behind the handshake: those met silence. Raises NoTime."""
    ended = await asyncio.gather(
        *(_ended(one, timeout) for one, its in zip(sockets, met, strict=True) if its.outcome == "answered")
    )
    if not all(ended) and timeout < wanted * ENOUGH:
        raise NoTime
    passed = iter(ended)
    return [its if its.outcome != "answered" or next(passed) else UNENDED for its in met]


async def _ended(connection: socket.socket, timeout: float) -> bool:
    """Whether the peer's kernel, which does so by itself and at once, acknowledges the end of the connection."""
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:  # it has ended it by itself
        return True
    until = time.monotonic() + timeout
    while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in UNHEARD:
        if time.monotonic() > until:
            # Sent again for minutes, its end would be taken for the next question's; a reset would be answered.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1)
            return False
        await asyncio.sleep(POLL_S)
    return True


def _departures(probe: SendProbe) -> list[socket.socket]:
    """In the pod: what leaves for the target, or nothing where that cannot be looked at."""
    six = ":" in probe.target
    conditions = [
        filters.protocol(six, socket.IPPROTO_TCP if probe.protocol == "tcp" else socket.IPPROTO_UDP),
        *filters.address(probe.target, filters.places(probe.target)[1]),
    ]
    try:
        return [filters.opened(filters.program(six, conditions, filters.PACKET_OUTGOING))]
    except OSError:
        return []


def _none_left(departures: socket.socket, ports: Sequence[int]) -> bool:
    """Was none sent from one of these ports, though all that left was seen?"""
    left = set[int]()
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = departures.recv(filters.SNAP)
            start = header_length(packet)
            left.add(int.from_bytes(packet[start : start + 2], "big"))
    return not left.intersection(ports) and not filters.missed(departures)


def sender(ask: NodeAsk, probe: SendProbe) -> LocalPod | None:
    """The pod to send from, None for the node itself. Raises ValueError for what cannot be sent."""
    if probe.protocol not in TYPES:
        raise ValueError("a probe sends icmp, tcp and udp only")
    try:
        socket.inet_pton(family_of(probe).number, probe.target)
    except OSError:
        raise ValueError(f"{probe.target!r} is not an IP address") from None
    if not 0 <= probe.port <= 65535 or bool(probe.port) == (probe.protocol == "icmp"):
        raise ValueError(f"{probe.port} is not a port that {probe.protocol} can be sent to")
    if not probe.pod:
        return None
    for pod in ask.local_pods:
        if pod.name == probe.pod:
            return pod
    raise ValueError(f"{probe.pod} is not among the pods of this ask, so its namespace is not known")


def open_sockets(
    probe: SendProbe, pod: LocalPod | None, view: View, *, beside: Callable[[], list[socket.socket]] = list
) -> tuple[list[socket.socket], int]:
    """One fresh socket per packet, made where it is sent from, and that place's MTU. Raises OSError, CannotEnter.

    beside: makes further ones there, which come behind these.
    """

    def made() -> list[socket.socket]:
        return [*_sockets(probe), *beside()]

    if pod is None:
        return made(), _own_mtu(probe, view)
    entered = view.enter(pod)
    return entered.run(made), entered.device.mtu


def family_of(probe: SendProbe) -> Family:
    return IPV6 if ":" in probe.target else IPV4


def _sockets(probe: SendProbe) -> list[socket.socket]:
    family = family_of(probe)
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(probe.count):
            one = opened.enter_context(_socket(probe, family))
            one.setblocking(False)
            one.setsockopt(family.level, family.receive_errors, 1)
            if probe.size or probe.large:
                for option, value in family.whole:
                    one.setsockopt(family.level, option, value)
            if probe.protocol == "icmp":
                one.setsockopt(*family.only_answers)
            if probe.later:
                _bind(one)
            made.append(one)
        opened.pop_all()
    return made


def _bind(one: socket.socket) -> None:
    """To a port by which both nodes know our packets from other people's. Raises OSError."""
    for _ in range(TRIES):
        try:
            return one.bind(("", syn.WHOLE_FROM + next(_whole) % syn.WHOLE))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _socket(probe: SendProbe, family: Family) -> socket.socket:
    if probe.protocol == "tcp" and (probe.size or probe.large):
        return syn.open_socket(family.number)
    protocol = family.icmp if probe.protocol == "icmp" else 0
    return socket.socket(family.number, TYPES[probe.protocol], protocol)


def _own_mtu(probe: SendProbe, view: View) -> int:
    try:
        return view.netlink.link(index=view.netlink.route(probe.target).device).mtu
    except NetlinkError:
        return 1500  # no route: sending meets the same refusal, whatever the size


def packet_size(probe: SendProbe, mtu: int) -> int:
    """Length of the whole IP packet; 0 for a connection attempt, whose packets have no size to choose."""
    if probe.protocol == "tcp" and not probe.size:
        return 0
    size = mtu if probe.size < 0 else probe.size
    return min(LARGEST, max(size, _headers(probe))) if size else smallest(probe)


def smallest(probe: SendProbe) -> int:
    """Length of a small packet of this kind."""
    return _headers(probe) + len(SMALL)


def _headers(probe: SendProbe) -> int:
    return family_of(probe).header + (syn.LENGTH if probe.protocol == "tcp" else PORT_OR_ECHO_HEADER)


async def attempt(one: socket.socket, probe: SendProbe, size: int, timeout: float) -> Met:
    """One packet from a socket of `open_sockets`."""
    return await met_by(one, probe, _exchange(one, probe, family_of(probe), size), timeout)


async def met_by(one: socket.socket, probe: SendProbe, exchanging: Coroutine[Any, Any, None], timeout: float) -> Met:
    """What the packet met that this sends by the socket, and that is answered when it returns.

    A probe that was itself kept from running still finds what has come meanwhile: a timeout is no silence.
    """
    began = time.perf_counter()
    family = family_of(probe)
    exchange = asyncio.ensure_future(exchanging)
    try:
        await asyncio.wait({exchange}, timeout=timeout)
        if not exchange.done():
            return Met("silence")
        exchange.result()
    except Objection as objection:
        return objected(probe, objection)
    except syn.Reset:
        return refused(probe, ConnectionRefusedError(errno.ECONNREFUSED, "reset"))
    except OSError as error:
        said = _said(one, family)
        return objected(probe, said) if said else refused(probe, error)
    finally:
        exchange.cancel()
        await asyncio.wait({exchange})  # it lets go of the socket
    return Met("answered", rtt_us=round((time.perf_counter() - began) * 1e6))


async def _exchange(one: socket.socket, probe: SendProbe, family: Family, size: int) -> None:
    """Returns when the packet was answered. Raises Objection about it, OSError for a reset or the own kernel's no."""
    length = size - _headers(probe)
    loop = asyncio.get_running_loop()
    if probe.protocol == "tcp":
        if size:
            await syn.knock(one, probe.target, probe.port, _payload(length), new_identity())
        else:
            with contextlib.suppress(ConnectionResetError):  # a connection that was made can be reset only
                await loop.sock_connect(one, (probe.target, probe.port))
        return
    one.connect((probe.target, probe.port))  # what others answer or say is not for this socket
    if probe.protocol == "udp":
        one.send(_payload(length))
        await loop.sock_recv(one, OF_ANSWER)
    else:
        await _echo(one, family, length)


async def _echo(one: socket.socket, family: Family, length: int) -> None:
    """Returns when this very packet was answered. Raises Objection about this packet, OSError for the own kernel's.

    Every raw socket gets the answers and errors of everybody's pings to the target: its id tells whose they are.
    """
    identity = new_identity()
    packet = ping(family, length, identity)
    try:
        one.send(packet)
    except OSError:
        if _said(one, family) is None:
            raise
        one.send(packet)  # that error was about somebody else's
    while True:
        try:
            answer = await asyncio.get_running_loop().sock_recv(one, OF_ANSWER)
        except OSError:
            said = _said(one, family)
            if said is None:
                raise
            if said.about[4:8] == identity:
                raise said from None
            continue
        if pinged(family, answer) == identity:
            return


def ping(family: Family, length: int, identity: bytes) -> bytes:
    """An echo request with so many bytes behind its header."""
    number, sequence = struct.unpack("!HH", identity)
    payload = _payload(length)
    blank = ECHO.pack(family.echo_request, 0, 0, number, sequence) + payload
    # ICMPv6's sum covers addresses only the kernel knows: it sums up itself, whatever is there.
    return ECHO.pack(family.echo_request, 0, _checksum(blank), number, sequence) + payload


def pinged(family: Family, answer: bytes) -> bytes:
    """The identity of the ping that this answers; b"" when it answers none."""
    start = (answer[0] & 0xF) * 4 if family is IPV4 else 0  # IPv6's header stays with the kernel
    return answer[start + 4 : start + 8] if answer[start] == family.echo_reply else b""


def new_identity() -> bytes:
    """A fresh one for each echo: the firewall knows an old id as established and would let it through."""
    return os.urandom(4)


def _payload(length: int) -> bytes:
    return (SMALL * (length // len(SMALL) + 1))[:length]


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Objection(Exception):
    """An ICMP error: type, code, next MTU, who sent it, and the beginning of the packet it is about."""

    def __init__(self, kind: int, code: int, mtu: int, by: str, about: bytes) -> None:
        super().__init__(kind, code)
        self.kind, self.code, self.mtu, self.by, self.about = kind, code, mtu, by, about


def objections(one: socket.socket, family: Family) -> Iterator[Objection]:
    """The ICMP errors that wait in the socket's error queue; what is the own kernel's is left out."""
    while True:
        try:
            about, told, _, _ = one.recvmsg(64, 512, socket.MSG_ERRQUEUE)
        except OSError:
            return
        for level, kind, data in told:
            if (level, kind) == (family.level, family.receive_errors) and len(data) >= family.error.size:
                _, origin, icmp, code, mtu, _, packed = family.error.unpack_from(data)
                if origin == family.origin:
                    yield Objection(icmp, code, mtu, socket.inet_ntop(family.number, packed), about)


def _said(one: socket.socket, family: Family) -> Objection | None:
    """The next of them; None when there is none."""
    return next(objections(one, family), None)


def objected(probe: SendProbe, said: Objection) -> Met:
    """What a packet met that somebody objected to."""
    family, said_it = family_of(probe), (said.kind, said.code)
    if said_it == family.too_big:
        return Met("too_big", by=said.by, detail=f"{said.by} passes packets up to {said.mtu} bytes", mtu=said.mtu)
    words = family.words.get(said_it, f"ICMP type {said.kind} code {said.code}")
    # A kernel says so of its own UDP port; the same words from elsewhere, or about TCP, are a firewall's.
    own = probe.protocol == "udp" and said_it == family.port_unreachable
    outcome = "refused" if own and ip_address(said.by) == ip_address(probe.target) else "unreachable"
    return Met(outcome, by=said.by, detail=f"{said.by} says: {words}")


def refused(probe: SendProbe, error: OSError) -> Met:
    """An error without an ICMP error behind it: a reset, or the sender's own kernel."""
    if error.errno == errno.ECONNREFUSED:
        return Met("refused", by=probe.target, detail="the target answers with a reset")
    if error.errno == errno.EMSGSIZE:
        return Met("too_big", detail="larger than the sender's own kernel lets out", left=False)
    outcome = "unreachable" if error.errno in OWN_REFUSALS else "error"
    return Met(outcome, detail=f"the sender's own kernel says: {error.strerror}", left=False)


def own_address(one: socket.socket) -> str:
    try:
        address = str(one.getsockname()[0])
    except OSError:
        return ""
    return "" if address in ("0.0.0.0", "::") else address


def result(node: str, probe: SendProbe, source: str, size: int, met: Sequence[Met]) -> ProbeResult:
    """What packets of one kind met, as a fact. size: 0 for small ones."""
    answered = sorted(one.rtt_us for one in met if one.outcome == "answered")
    told = max(met, key=lambda one: TELLING.index(one.outcome))
    return ProbeResult(
        node=node,
        pod=probe.pod,
        source_address=source,
        target_address=probe.target,
        protocol=probe.protocol,
        port=probe.port,
        size=size,
        sent=sum(one.left for one in met),
        unended=sum(one is UNENDED for one in met),
        answered=len(answered),
        outcome=told.outcome,
        answered_by=told.by,
        detail=told.detail,
        # The lower median; the module for the other one costs the probe a megabyte.
        rtt_us=answered[(len(answered) - 1) // 2] if answered else -1,
    )
