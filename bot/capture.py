"""From "capture A B" to one file with packets of both nodes; without it they would be two captures nobody could lay
side by side."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

import msgspec

from bot import pcapng, words
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.language import ENGLISH, Language
from bot.reply.wording import printable, width
from bot.sources.kubernetes import Cluster
from bot.sources.probes import CannotCapture, Heard, Probes
from engine.plan import expected_flows, expected_legs
from facts import CalicoNode, Endpoint, Fact, LocalPod, Question, listed, say
from facts.capture import (
    CAPTURE_PACKETS,
    CAPTURE_SECONDS,
    LINK_ETHERNET,
    SNAP_HEADERS,
    SNAP_WHOLE,
    CaptureAsk,
    CaptureBegan,
    CapturedPacket,
    CaptureEnd,
    CaptureStage,
)

SECONDS, PACKETS = 10.0, 1000
USAGE = "capture POD POD [PORT/tcp|udp] [--seconds N] [--packets N] [--payload]"
TICK_S = 0.25
VXLAN_HEADERS = 8 + 8 + 14  # from the end of the outer IP header to the inner one
TUNNELS = ("vxlan", "ipip", "wireguard")
PLACES = ("pod", "veth", "tunnel", "uplink", "other")  # as a packet that leaves passes them
# What a phone or an editor makes of two hyphens.
_OPTION = re.compile(r"(?:--|—|–)(seconds|packets|payload)(?:=(.*))?")

Progress = Callable[[str], Awaitable[None]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be captured."""

    asked: words.Asked
    seconds: float = SECONDS
    packets: int = PACKETS
    payload: bool = False

    def __str__(self) -> str:
        """As it would be typed."""
        options = [f"--seconds {self.seconds:g}"] if self.seconds != SECONDS else []
        options += [f"--packets {self.packets}"] if self.packets != PACKETS else []
        options += ["--payload"] if self.payload else []
        return " ".join([str(self.asked), *options])


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A place, and how many packets passed it."""

    place: str  # "node-a eth0 (uplink)", as in the file
    there: int  # from the first pod to the second
    back: int
    errors: int = 0  # ICMP about them


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """One capture, finished or cut short."""

    name: str  # of the file
    file: bytes  # pcapng
    wanted: Wanted
    seconds: float  # that it took
    packets: int
    rows: tuple[Row, ...]  # in the order of the way there
    notes: tuple[str, ...]  # what a reader of the file has to know, as `say` puts it
    complete: bool  # every place could be looked at


class Take(Protocol):
    """`capture`, bound to a cluster."""

    async def __call__(self, wanted: Wanted, *, progress: Progress | None = None) -> Captured: ...


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What a capture would look at."""

    ends: tuple[Endpoint, Endpoint]
    lines: tuple[str, ...]  # for who decides whether it is made


class Plan(Protocol):
    """`plan`, bound to a cluster."""

    async def __call__(self, wanted: Wanted) -> Planned: ...


def understand(said: Sequence[str]) -> Wanted:
    """Two pods, perhaps a port, and options among the words. Raises UserError."""
    plain: list[str] = []
    options: dict[str, str] = {}
    left = iter(said)
    for word in left:
        if found := _OPTION.fullmatch(word):
            options[found[1]] = found[2] if found[2] is not None or found[1] == "payload" else next(left, "")
        elif word.startswith(("--", "—", "–")):
            raise UserError(f"{printable(word)[:40]!r} is no option of a capture. Write: {USAGE}")
        else:
            plain.append(word)
    return wanted(
        plain,
        seconds=options.get("seconds", f"{SECONDS:g}"),
        packets=options.get("packets", str(PACKETS)),
        payload="payload" in options,
    )


def wanted(said: Sequence[str], *, seconds: str, packets: str, payload: bool) -> Wanted:
    """Raises UserError for numbers that cannot be meant."""
    try:
        asked = words.parse(said)
    except UserError as error:
        sentence = error.sentence.replace(words.USAGE, USAGE).replace(" why ", " capture ")
        raise UserError(sentence, status=error.status) from error
    if not re.fullmatch(r"\d{1,4}(\.\d{1,3})?s?", seconds, re.ASCII):
        raise UserError(f"{printable(seconds)[:40]!r} is no number of seconds. Write: {USAGE}")
    length = float(seconds.rstrip("s"))
    if not 0.1 <= length <= CAPTURE_SECONDS:
        raise UserError(f"A capture lasts from 0.1 to {CAPTURE_SECONDS:g} s, and {length:g} was asked for.")
    if not re.fullmatch(r"\d{1,9}", packets, re.ASCII) or not 0 < int(packets) <= CAPTURE_PACKETS:
        raise UserError(f"A capture holds from 1 to {CAPTURE_PACKETS} packets, and {packets[:40]!r} was asked for.")
    return Wanted(asked=asked, seconds=length, packets=int(packets), payload=payload)


@dataclass
class _Node:
    """What one node's probe has said so far."""

    ask: CaptureAsk
    address: str
    began: CaptureBegan | None = None
    told_ns = 0  # by its own clock: all that it met until then was told
    end: CaptureEnd | None = None
    trouble: str = ""
    stages: dict[int, CaptureStage] = field(default_factory=dict)
    packets: list[CapturedPacket] = field(default_factory=list)
    # Its clock is ahead of this machine's by something between these, ns.
    least: int = -(1 << 62)
    most: int = 1 << 62

    async def listen(self, probes: Probes) -> None:
        try:
            async with contextlib.aclosing(probes.capture(self.ask, self.address)) as lines:
                async for heard in lines:
                    self._take(heard)
        except CannotCapture as error:
            self.trouble = error.reason
        if self.end is None and not self.trouble:
            self.trouble = say("its probe broke off before the capture was complete")

    def _take(self, heard: Heard) -> None:
        line = heard.line
        if isinstance(line, CapturedPacket):
            if line.stage not in self.stages:
                raise CannotCapture(say("its probe told packets of a place it had not named"))
            self.packets.append(line)
        elif isinstance(line, CaptureStage):
            self.stages[line.number] = line
        else:
            # An answer cannot have come before it was sent.
            self.least = max(self.least, line.at_ns - heard.came_ns)
            self.told_ns = line.at_ns
            if isinstance(line, CaptureBegan):
                self.began = line
                self.most = min(self.most, line.asked_ns - heard.sent_ns)
            elif isinstance(line, CaptureEnd):
                self.end = line

    def until(self, at_ns: int) -> tuple[int, int]:
        """Between which times of this machine's clock it was that time by the node's, ns."""
        return at_ns - self.most, at_ns - self.least


async def plan(wanted: Wanted, *, cluster: Cluster) -> Planned:
    """Which places of which nodes, which packets, and how much of them; no probe is asked. Raises UserError where
    `capture` would."""
    known = await cluster.look(wanted.asked)
    asks = [node.ask for node in _nodes(known, wanted)]
    port = f", {wanted.asked.protocol} port {wanted.asked.port}" if wanted.asked.port else ""
    pairs = " and ".join(f"{one} - {other}{port}" for one, other in asks[0].pairs)
    return Planned(
        ends=_ends(known),
        lines=(
            *map(_places, asks),
            f"packets {pairs}, both ways, and ICMP errors about them",
            "whole packets, with what the applications say" if wanted.payload else "headers only, payloads are cut off",
            f"for {wanted.seconds:g} s, {wanted.packets} packets at most",
        ),
    )


def _places(ask: CaptureAsk) -> str:
    """Where a node would look, in a line."""
    pods = [f"in {pod.name}, at {pod.interface or 'its veth'}" for pod in ask.pods]
    uplink = f"the uplink ({', '.join(ask.uplink_addresses)})" if ask.uplink_addresses else "the uplink"
    return f"{ask.node}: {', '.join([*pods, *ask.tunnels, uplink])}, every other device they pass"


async def capture(
    wanted: Wanted,
    *,
    cluster: Cluster,
    probes: Probes,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> Captured:
    """Packets between two pods at every stage of both nodes. stop: ends it early, with what there is.

    Raises UserError when there is nothing to look at: not two pods of Calico's, no probe that captures.
    """
    if progress:
        await progress(say("looking up {source} and {target}", source=wanted.asked.source, target=wanted.asked.target))
    known = await cluster.look(wanted.asked)
    nodes = _nodes(known, wanted)
    if progress:
        await progress(say("asking {nodes}", nodes=listed([node.ask.node for node in nodes])))
    await probes.greet({node.ask.node: node.address for node in nodes})
    began = 0.0
    listening = {asyncio.ensure_future(node.listen(probes)) for node in nodes}
    try:
        while not all(task.done() for task in listening):
            await asyncio.wait(listening, timeout=TICK_S, return_when=asyncio.ALL_COMPLETED)
            met = sum(len(node.packets) for node in nodes)
            if not began and all(node.began or node.trouble for node in nodes):
                began = time.monotonic()
            if progress and began:
                passed = min(time.monotonic() - began, wanted.seconds)
                counts = {"passed": f"{passed:.0f}", "seconds": f"{wanted.seconds:g}", "packets": met}
                await progress(say("{passed} of {seconds} s, {packets} packets", **counts))
            if _enough(nodes) or (stop and stop.is_set()):
                break
    finally:
        for task in listening:
            task.cancel()
        results = await asyncio.gather(*listening, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    early = bool(stop and stop.is_set())
    return _captured(wanted, known, nodes, early=early)


def _enough(nodes: Sequence[_Node]) -> bool:
    """Has a node ended, and have the others told what they met until then?"""
    ends = [node for node in nodes if node.end]
    return bool(ends) and all(
        node.trouble or node.end or all(node.until(node.told_ns)[0] >= end.until(end.told_ns)[1] for end in ends)
        for node in nodes
    )


def _nodes(known: Sequence[Fact], wanted: Wanted) -> list[_Node]:
    """Whom to ask for what, the first pod's node first. Raises UserError."""
    source, target = _ends(known)
    of_calico = {node.name: node for node in known if isinstance(node, CalicoNode)}
    flows = expected_flows(known)
    pairs = tuple(dict.fromkeys((flow.source_address, flow.target_address) for flow in flows))
    if not pairs:
        raise UserError(
            f"{source.name} and {target.name} have no addresses of one family, so no packet goes from one to the "
            f"other. Ask `why {source.name} {target.name}`.",
            status=COULD_NOT_JUDGE,
        )
    legs = expected_legs(known)
    found: list[_Node] = []
    for name in dict.fromkeys((source.node, target.node)):
        node = of_calico.get(name)
        if node is None or node.system == "windows":
            what = "is no node of Calico's that could be read" if node is None else "runs Windows"
            raise UserError(
                f"{name} {what}, so the packets of the pods there cannot be captured. "
                f"Ask `why {source.name} {target.name}`, which tells what can be seen.",
                status=COULD_NOT_JUDGE,
            )
        pods = [
            LocalPod(name=end.name, address=end.address or end.address6, interface=end.interface)
            for end in (source, target)
            if end.node == name
        ]
        tunnels = [
            leg.tunnel_device
            for leg in legs
            if leg.encapsulation in TUNNELS and name in (leg.source_node, leg.target_node)
        ]
        uplinks = [one.address for one in known if isinstance(one, CalicoNode) and one.name == name and one.address]
        ask = CaptureAsk(
            node=name,
            pairs=pairs,
            protocol=wanted.asked.protocol,
            port=wanted.asked.port,
            pods=tuple(pods),
            tunnels=tuple(dict.fromkeys(tunnels)),
            uplink_addresses=tuple(dict.fromkeys(uplinks)),
            seconds=wanted.seconds,
            packets=wanted.packets,
            payload=wanted.payload,
        )
        found.append(_Node(ask, node.internal_address))
    return found


def _ends(known: Sequence[Fact]) -> tuple[Endpoint, Endpoint]:
    """Both pods. Raises UserError for what is none of Calico's."""
    question = next(one for one in known if isinstance(one, Question))
    named = {one.name: one for one in known if isinstance(one, Endpoint)}
    for name in (question.source, question.target):
        end = named[name]
        if end.kind != "pod":
            what = {"node": "a node", "service": "a Service"}.get(end.kind, "an address that no running pod has")
            advice = "one of the pods behind it" if end.kind == "service" else "two pods"
            raise UserError(f"{name} is {what}; packets are captured between two pods. Name {advice}: {USAGE}")
        if end.host_network:
            raise UserError(
                f"{name} uses its node's own network (hostNetwork): it has no interface of its own to capture at, and "
                f"all of the node's packets carry its address. Name another pod, or ask `why` about it."
            )
        if not end.node or not (end.address or end.address6):
            raise UserError(
                f"{name} has no {'address' if end.node else 'node'} yet ({end.phase or 'not running'}), so no packet "
                f"is its own. `why` tells what it waits for.",
                status=COULD_NOT_JUDGE,
            )
    return named[question.source], named[question.target]


# -- the file


def _captured(wanted: Wanted, known: Sequence[Fact], nodes: Sequence[_Node], *, early: bool) -> Captured:
    source, target = _ends(known)
    if not any(node.began for node in nodes):
        reasons = "; ".join(f"{node.ask.node}: {ENGLISH(node.trouble)}" for node in nodes)
        raise UserError(
            f"Nothing was captured. {reasons}. Each node of the two pods needs a probe of this version that runs and "
            "captures (`calico-why probe`, without --capture off).",
            status=COULD_NOT_JUDGE,
        )
    pairs = nodes[0].ask.pairs
    places = sorted(
        ((node, stage) for node in nodes for stage in node.stages.values()),
        key=lambda place: _on_the_way(nodes.index(place[0]), place[1], target.name),
    )
    numbers = {(id(node), stage.number): number for number, (node, stage) in enumerate(places)}
    interfaces = [
        pcapng.Interface(name=_name(node, stage), link=stage.link, description=_description(stage))
        for node, stage in places
    ]
    packets: list[pcapng.Packet] = []
    ways: list[dict[str, int]] = [{"there": 0, "back": 0, "errors": 0} for _ in places]
    met, took = _together(nodes)
    met = met[: wanted.packets]
    for node, one in met:
        number = numbers[id(node), one.stage]
        packets.append(pcapng.Packet(interface=number, at_ns=one.at_ns, length=one.length, out=one.out, data=one.data))
        ways[number][way(one.data, node.stages[one.stage].link, pairs)] += 1
    notes = _notes(wanted, nodes, len(packets), took, early)
    if packets:
        notes.append(
            say(
                "Wireshark takes a packet that passes the next place for one that is sent again; to look at one place: "
                "{filter}",
                filter=f'frame.interface_name == "{interfaces[packets[0].interface].name}"',
            )
        )
    file = pcapng.write(
        interfaces,
        packets,
        comments=[_asked(wanted, source, target, took), *(ENGLISH(note) for note in notes)],
        application=f"calico-why {version('calico-why')}",
        snap=SNAP_WHOLE if wanted.payload else SNAP_HEADERS,
    )
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    safe = re.sub(r"[^a-z0-9.-]+", "-", f"{source.name}-{target.name}")[:120]
    return Captured(
        name=f"capture-{safe}-{stamp}.pcapng",
        file=file,
        wanted=wanted,
        seconds=took,
        packets=len(packets),
        rows=tuple(Row(place=interfaces[number].name, **ways[number]) for number in range(len(places))),
        notes=tuple(notes),
        complete=all(node.began and not node.began.blind and not node.trouble for node in nodes),
    )


def _together(nodes: Sequence[_Node]) -> tuple[list[tuple[_Node, CapturedPacket]], float]:
    """Packets of the time when all nodes looked on and told what they met, in order, and how long that was, s. What is
    from before would seem to come from nowhere, and what is from afterwards to be lost."""
    looking = [node for node in nodes if node.began]
    whole = [node for node in looking if not node.trouble] or looking
    found = [(node, one) for node in looking for one in node.packets if _looked_on(node, one.at_ns, looking, whole)]
    took_ns = min(node.told_ns - node.began.at_ns for node in whole if node.began)
    return sorted(found, key=lambda one: one[1].at_ns), max(0, took_ns) / 1e9


def _looked_on(node: _Node, at_ns: int, looking: Sequence[_Node], whole: Sequence[_Node]) -> bool:
    """Had all begun at that time of the node's, and was it told of by all? Yes where two clocks leave it in doubt."""
    first, last = node.until(at_ns)
    return all(
        one.began.at_ns <= at_ns if one is node else one.until(one.began.at_ns)[0] <= last
        for one in looking
        if one.began
    ) and all(at_ns <= one.told_ns if one is node else first <= one.until(one.told_ns)[1] for one in whole)


def _on_the_way(position: int, stage: CaptureStage, target: str) -> tuple[int, int, int]:
    """What places are sorted by. position: of the node, 0 for the first pod's."""
    place = PLACES.index(_kind(stage))
    inwards = position > 0 or target in (stage.pod, stage.of_pod)
    return (position, int(inwards), -place if inwards else place)


def _kind(stage: CaptureStage) -> str:
    return stage.kind if stage.kind in PLACES else "other"


def _name(node: _Node, stage: CaptureStage) -> str:
    sort = {"veth": " (veth)", "uplink": " (uplink)"}.get(stage.kind, "")
    return printable(" ".join(filter(None, (node.ask.node, stage.pod, stage.device))) + sort)


def _description(stage: CaptureStage) -> str:
    return printable(f"the node's side of {stage.of_pod}'s interface" if stage.of_pod else "")


def _asked(wanted: Wanted, source: Endpoint, target: Endpoint, took: float) -> str:
    """What the file's first comment says."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() - took))
    sides = (
        f"{end.name} ({', '.join(filter(None, (end.address, end.address6)))}, {end.node})" for end in (source, target)
    )
    return f"calico-why capture {wanted}: packets between {' and '.join(sides)}; begun {when} UTC, {took:.1f} s."


def _notes(wanted: Wanted, nodes: Sequence[_Node], packets: int, took: float, early: bool) -> list[str]:
    found: list[str] = []
    if not packets:
        found.append(
            say(
                "No packet passed in {seconds} s. A capture sends nothing itself: nobody talked meanwhile, or what was "
                "sent was lost before the first place. Capture again while the application tries, or ask "
                "`why {source} {target}`, which sends packets of its own.",
                seconds=f"{took:.1f}",
                source=wanted.asked.source,
                target=wanted.asked.target,
            )
        )
    for node in nodes:
        name = node.ask.node
        if node.trouble:
            found.append(say("{node}: {reason}; packets there are missing.", node=name, reason=node.trouble))
        elif node.began is None:
            found.append(say("{node} had not begun when the capture ended; packets there are missing.", node=name))
        else:
            found += [say("{node}: {reason}.", node=name, reason=printable(one)) for one in node.began.blind]
        if node.end and node.end.lost:
            found.append(say("{node}: {count} packets came too fast to be kept.", node=name, count=node.end.lost))
    if early:
        found.append(say("It was stopped after {seconds} s.", seconds=f"{took:.1f}"))
    elif packets >= wanted.packets or any(node.end and node.end.why == "packets" for node in nodes):
        enough = say(
            "It ended after {seconds} s, when as many packets had passed as were asked for: {count}.",
            seconds=f"{took:.1f}",
            count=wanted.packets,
        )
        found.append(enough)
    elif any(node.end and node.end.why == "bytes" for node in nodes):
        found.append(say("It ended early where a node had captured as many bytes as it may."))
    if not wanted.payload:
        found.append(say("Headers only: payloads were cut off on the nodes."))
    if any(device.startswith(("wireguard", "wg-")) for node in nodes for device in node.ask.tunnels):
        found.append(
            say("WireGuard seals what leaves a node: on the uplinks these packets cannot be told from others.")
        )
    if len(nodes) > 1 and all(node.began for node in nodes):
        one, other = nodes
        found.append(
            say(
                "Times are as each node's kernel wrote them, and two nodes' clocks differ: as far as the round trips "
                "tell, {other} shows from {least} to {most} ms more than {node}.",
                node=one.ask.node,
                other=other.ask.node,
                least=f"{(other.least - one.most) / 1e6:+.2f}",
                most=f"{(other.most - one.least) / 1e6:+.2f}",
            )
        )
    return found


def way(data: bytes, link: int, pairs: Sequence[tuple[str, str]]) -> str:
    """Which way a packet goes, by its inside: "there", "back", or "errors" for an ICMP error about one."""
    start = 14 if link == LINK_ETHERNET else 0
    if start and data[12:14] in (b"\x81\x00", b"\x88\xa8"):
        start += 4
    here = data[start:]
    length = 40 if here[:1] and here[0] >> 4 == 6 else (here[0] & 0xF) * 4 if here else 0
    inner = [here, here[length:], here[length + VXLAN_HEADERS :]]
    for one, other in pairs:
        family, at, size = (socket.AF_INET6, 8, 32) if ":" in one else (socket.AF_INET, 12, 8)
        first, second = socket.inet_pton(family, one), socket.inet_pton(family, other)
        for packet in inner:
            ends = packet[at : at + size]
            if ends in (first + second, second + first):
                return "there" if ends == first + second else "back"
    return "errors"


# -- in words


def headline(captured: Captured, language: Language) -> str:
    """What came of it, in one line."""
    return language(
        say(
            "{packets} packets between {source} and {target} in {seconds} s",
            packets=captured.packets,
            source=captured.wanted.asked.source,
            target=captured.wanted.asked.target,
            seconds=f"{captured.seconds:.1f}",
        )
    )


def table(captured: Captured, language: Language) -> list[str]:
    """Every place in the order of the way there, with the number of packets."""
    heads = [language(say("there")), language(say("back"))]
    if any(row.errors for row in captured.rows):
        heads.append("ICMP")
    room = max((width(row.place) for row in captured.rows), default=0)
    lines = [" " * room + "".join(" " * (8 - width(head)) + head for head in heads)]
    for row in captured.rows:
        numbers = (row.there, row.back, row.errors)[: len(heads)]
        lines.append(row.place + " " * (room - width(row.place)) + "".join(f"{number:>8}" for number in numbers))
    return lines


def notes(captured: Captured, language: Language) -> list[str]:
    return [language(note) for note in captured.notes]
