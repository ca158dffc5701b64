"""How far our own fresh packets came, stage by stage; without it a loss that no rule explains has no place at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from engine.passage import wanted
from engine.path import UNTUNNELLED, stages_of
from facts import (
    Bystander,
    CalicoNode,
    Fact,
    Leg,
    Link,
    PodInterface,
    ProbeResult,
    RuleDrop,
    RuleRewrite,
    StageSighting,
    Text,
    in_turn,
    say,
)
from facts.flow import TUNNEL_DEVICES

CARRIED = ("local", "vxlan", "direct", "ipip", "wireguard", "host", "outside")
WITH_HEADER = ("vxlan", "ipip")  # WireGuard seals what it carries: around it nobody knows our packets again
LOOPBACK = "lo"
UPLINK = "uplink"
POD_DEVICE = "eth0"

Picks = Callable[[StageSighting], bool]
Says = Callable[[StageSighting], str]


@dataclass(frozen=True)
class Met:
    """What was seen of a leg's packets where they leave one stage for the next."""

    packets: int = -1  # that were as they should be; 0: none was seen; -1: nobody could look
    place: str = ""  # where that is, as `say` made it: "coming in by {device} of {node}"
    wrong: str = ""  # what is wrong with those that were seen instead, a part of a sentence
    device: str = ""  # by which those that were seen passed
    where: str = ""  # the node, or the pod, whose device that is
    several: bool = False  # they passed by several devices there, or with several headers


@dataclass(frozen=True)
class Track:
    """A leg's packets on their way, as both nodes saw them in one look."""

    leg: Leg
    stages: Mapping[str, Met]  # each stage of the leg, in order
    last_good: str = ""
    first_bad: str = ""  # the stage they were lost in; "" where nobody could look at it, or none was lost
    missing: str = ""  # the first stage behind the last good one that none is known to have left

    @property
    def told(self) -> Text | None:
        """Where they were lost, as a sentence. None: not known, or not at all."""
        if not self.missing:
            return None
        names = {"source": self.leg.source, "target": self.leg.target}
        answer, last, lost = self.leg.direction == "reverse", self.stages.get(self.last_good), self.stages[self.missing]
        if not last:
            return say(
                "No answer from {source} to {target} was seen {place}."
                if answer
                else "No packet from {source} to {target} was seen {place}.",
                place=lost.place,
                **names,
            )
        if lost.wrong:
            return say(
                "An answer from {source} to {target} was seen {place}; {wrong}."
                if answer
                else "A packet from {source} to {target} was seen {place}; {wrong}.",
                place=last.place,
                wrong=lost.wrong,
                **names,
            )
        if wrong := next((met.wrong for met in self.stages.values() if met.wrong), ""):
            return say(
                "An answer from {source} to {target} was seen {place}, and never {missing}: {wrong}."
                if answer
                else "A packet from {source} to {target} was seen {place}, and never {missing}: {wrong}.",
                place=last.place,
                missing=lost.place,
                wrong=wrong,
                **names,
            )
        return say(
            "An answer from {source} to {target} was seen {place}, and never {missing}."
            if answer
            else "A packet from {source} to {target} was seen {place}, and never {missing}.",
            place=last.place,
            missing=lost.place,
            **names,
        )


@dataclass(frozen=True)
class Step:
    """How many packets of trains were met at one stage on their way there and back."""

    leg: Leg
    stage: str
    packets: int
    device: str
    where: str  # node, or pod


def steps(forward: Leg, back: Leg, facts: Sequence[Fact]) -> list[Step]:
    """Those of the trains of a flow, in order; a stage that nobody looked at all the time, or where it is not sure how
    many passed, is left out."""
    # Marks tell whether the other end looked on all the time: a part of them may be lost, too.
    seen = [
        one if one.enclosed or one.node == forward.source_node else msgspec.structs.replace(one, seen=-1, device="")
        for one in facts
        if isinstance(one, StageSighting) and one.train
    ]
    sights = _Sights(
        forward, back, seen, _names(facts), _programmed(facts), objected=False, rewritten=_rewritten(forward, facts)
    )
    found: list[Step] = []
    for leg in (forward, back):
        for stage in stages_of(leg):
            met = sights.met(leg, stage)
            # Of what passes by two devices, one within the other or beside it, nobody knows the sum.
            sure = not met.several or not found or met.packets >= found[-1].packets
            if met.packets >= 0 and sure and (leg, stage) != (back, "source pod"):
                found.append(Step(leg, stage, met.packets, met.device, met.where))
    # Where fewer were met than further on, not all that passed were.
    return [one for at, one in enumerate(found) if one.packets >= max(later.packets for later in found[at:])]


def _names(facts: Sequence[Fact]) -> dict[str, str]:
    """Node names by node address."""
    nodes = {fact.address: fact.name for fact in facts if isinstance(fact, CalicoNode)}
    return nodes | {fact.address: fact.node for fact in facts if isinstance(fact, Bystander)}


def _programmed(facts: Sequence[Fact]) -> set[tuple[str, str]]:
    """What a program of a device (XDP) drops, nobody sees come in."""
    found = {(fact.node, fact.interface) for fact in facts if isinstance(fact, PodInterface) and fact.program}
    return found | {(fact.node, UPLINK) for fact in facts if isinstance(fact, Link) and fact.programs}


def _rewritten(forward: Leg, facts: Sequence[Fact]) -> bool:
    """Did a rule give the flow's packets another address?"""
    ends = forward.source_address, forward.target_address
    return any(isinstance(fact, RuleRewrite) and (fact.source_address, fact.target_address) == ends for fact in facts)


def _own(forward: Leg, seen: Sequence[StageSighting], facts: Sequence[Fact]) -> list[StageSighting]:
    """Without what can only be of somebody else's question, who asks at the same time about the node whose address
    natOutgoing gives to packets: what is met behind the rule that ended all of ours before they left their node."""
    ends = forward.source_address, forward.target_address
    ours = [one for one in seen if (one.source_address, one.target_address, one.reply) == (*ends, False)]
    at_home = [one for one in ours if one.node == forward.source_node]
    sent = max((one.seen for one in at_home), default=0)
    ended = sent > 0 and any(
        isinstance(fact, RuleDrop)
        and (fact.source_address, fact.target_address, fact.node) == (*ends, forward.source_node)
        and fact.packets >= sent
        and not (fact.reply or fact.partly)
        for fact in facts
    )
    return at_home if ended else list(seen)


def spent(forward: Leg, facts: Sequence[Fact]) -> str:
    """What came in at a node of the flow's with too few hops left to be passed on; "" where nothing did."""
    legs = {leg.direction: leg for leg in facts if isinstance(leg, Leg) and leg.flow == forward.flow}
    found: dict[Text, None] = {}
    for one in facts:
        if not isinstance(one, StageSighting) or one.going != "in" or one.hops not in (0, 1) or one.others or one.pod:
            continue
        leg = legs.get("reverse" if one.reply else "forward")
        if leg is None or (one.source_address, one.target_address) != (leg.source_address, leg.target_address):
            continue
        if one.encapsulation or (leg.target_kind != "pod" and one.node == leg.target_node):
            continue  # nobody is to pass it on there
        text = say(
            "What comes in from {source} by {device} of {node} has a time to live (TTL, hop limit) of {hops}, with "
            "which no node passes it on: look at net.ipv4.ip_default_ttl and hop_limit where it is sent, and for rules "
            "that set it.",
            source=leg.source,
            device=one.device,
            node=one.node,
            hops=one.hops,
        )
        found[text] = None
    return in_turn(found)


def tracks(legs: Sequence[Leg], facts: Sequence[Fact], *, large: str = "", later: bool = False) -> list[Track]:
    """Of each flow whose packets were lost in this look: its forward leg, and where they came to its end the other one
    too. Nothing where nobody met one, or where all that was sent was answered and the answers came home.

    large: of packets that were sent to see whether full-size ones pass, as SendProbe.large. later: of what follows in
    connections that were made.
    """
    kind = False, large, later
    seen = [fact for fact in facts if isinstance(fact, StageSighting) and (fact.train, fact.large, fact.later) == kind]
    if not seen:
        return []
    nodes, programmed = _names(facts), _programmed(facts)
    probes = [fact for fact in facts if isinstance(fact, ProbeResult)]
    found: list[Track] = []
    for forward in legs:
        back = next((leg for leg in legs if leg.flow == forward.flow and leg.direction == "reverse"), None)
        if forward.direction != "forward" or back is None or forward.encapsulation not in CARRIED:
            continue
        objected = any(one.outcome != "silence" for one in wanted(forward, probes) if one.answered < one.sent)
        rewritten = _rewritten(forward, facts)
        own = _own(forward, seen, facts)
        sights = _Sights(forward, back, own, nodes, programmed, objected=objected, rewritten=rewritten)
        there, home = sights.track(forward), sights.track(back)
        if there.missing or (there.last_good and not sights.answered):
            found.append(there)
        elif home.missing and sights.answered:
            found += [there, home]
    return found


class _Sights:
    """What was seen of one flow."""

    def __init__(
        self,
        forward: Leg,
        back: Leg,
        seen: Sequence[StageSighting],
        nodes: Mapping[str, str],
        programmed: Collection[tuple[str, str]],
        *,
        objected: bool,
        rewritten: bool,
    ) -> None:
        """nodes: names by node address. programmed: (node, pod's interface or UPLINK) of devices with an XDP program.
        objected: somebody said no to a packet, and that answer is not looked for. rewritten: a rule gave them other
        addresses."""
        self._of = {
            leg.direction: [
                one
                for one in seen
                if (one.source_address, one.target_address, one.reply)
                == (leg.source_address, leg.target_address, leg.direction == "reverse")
            ]
            for leg in (forward, back)
        }
        self._nodes = nodes
        self._programmed = programmed
        self._objected = objected
        self._rewritten = rewritten
        self._listened = any(one.listened for one in self._of["forward"] if one.node == forward.source_node)
        self.answered = any(one.seen > 0 for one in self._of["reverse"])

    def track(self, leg: Leg) -> Track:
        names = stages_of(leg)
        met = {stage: self.met(leg, stage) for stage in names}
        good = [stage for stage in names if met[stage].packets > 0]
        last = good[-1] if good else ""
        behind = names[names.index(last) + 1 :] if last else names
        missing = next((stage for stage in behind if met[stage].packets == 0), "")
        if not last and (leg.source_kind != "pod" or missing != names[0]):
            missing = ""  # whether they were sent at all, and under which address, nobody saw
        silent = missing == "target pod" and leg.protocol == "udp"  # nobody need answer a datagram
        return Track(
            leg=leg,
            stages=met,
            last_good=last,
            # With a stage between that nobody could look at, they may have been lost in either.
            first_bad=missing if behind[:1] == (missing,) and not silent else "",
            missing=missing,
        )

    def met(self, leg: Leg, stage: str) -> Met:
        met = self._met(leg, stage)
        # Under the addresses that they got on a node nobody looks for them.
        renamed = self._rewritten and met.packets == 0 and stage not in ("source pod", "source veth")
        return replace(met, packets=-1) if renamed else met

    def _met(self, leg: Leg, stage: str) -> Met:
        if stage == "target pod" or (stage == "target node" and leg.target_kind != "pod"):
            return self._answered(leg)
        source, target = leg.source_node, leg.target_node
        if stage == "source pod":
            return self._seen(
                leg,
                source,
                _always(say("leaving {device} of {where}", device=POD_DEVICE, where=leg.source)),
                _out,
                leg.source,
            )
        if stage == "source veth":
            place = _always(say("coming in by {device} of {where}", device=leg.source_interface, where=source))
            known = (source, leg.source_interface) not in self._programmed
            return self._seen(leg, source, place, _by(leg.source_interface, "in"), wrong=_for_others, known=known)
        if stage == "target veth":
            place = _always(say("arriving at {device} of {where}", device=POD_DEVICE, where=leg.target))
            return self._seen(leg, target, place, _in, leg.target, wrong=_for_others)
        met = {
            "source node": self._routed_away,
            "source tunnel": self._leaves_in_tunnel,
            "underlay": self._arrives,
            "target tunnel": self._leaves_tunnel,
            "target node": self._routed_to_pod,
        }[stage](leg)
        # natOutgoing gives packets another address, and which one a node sends under is its routes' choice.
        translated = leg.source_kind != leg.target_kind and met.packets == 0
        return replace(met, packets=-1) if translated else met

    def _routed_away(self, leg: Leg) -> Met:
        node, tunnel = leg.source_node, leg.tunnel_device
        if leg.encapsulation == "local":
            return self._routed_to_pod(leg)
        if leg.encapsulation in UNTUNNELLED:
            own = (*TUNNEL_DEVICES.values(), LOOPBACK, leg.source_interface)
            return self._seen(
                leg,
                node,
                lambda device: (
                    say("leaving {node} by {device}", node=node, device=device)
                    if device
                    else say("leaving {node}", node=node)
                ),
                lambda one: _out(one) and one.device not in own,
                astray=lambda one: _out(one) and one.device in TUNNEL_DEVICES.values(),
                elsewhere=lambda one: say("it went into {device}", device=one.device),
            )
        return self._seen(
            leg,
            node,
            _always(say("going into {device} of {where}", device=tunnel, where=node)),
            _by(tunnel, "out"),
            astray=lambda one: _out(one) and one.device not in (tunnel, LOOPBACK),
            elsewhere=lambda one: say("it left {node} by {device} without the tunnel", node=node, device=one.device),
        )

    def _leaves_in_tunnel(self, leg: Leg) -> Met:
        node = leg.source_node

        def place(device: str) -> Text:
            if device:
                return say("leaving {node} by {device} inside the tunnel", node=node, device=device)
            return say("leaving {node} inside the tunnel", node=node)

        return self._seen(
            leg,
            node,
            place,
            lambda one: one.going == "out" and one.encapsulation == leg.encapsulation,
            wrong=lambda one: self._wrongly_sent(leg, one),
            known=leg.encapsulation in WITH_HEADER,
        )

    def _wrongly_sent(self, leg: Leg, one: StageSighting) -> str:
        """What of the tunnel's headers is not as the target's node needs it; "" for nothing."""
        peer = leg.target_node
        names = {"peer": peer, "device": leg.tunnel_device}
        if leg.target_node_address not in ("", one.outer_target) and self._arrives(leg).packets <= 0:
            other = self._nodes.get(one.outer_target, "")
            return say(
                "it was sent to {address}, which is {other} and not {peer}"
                if other
                else "it was sent to {address}, which is not {peer}",
                address=one.outer_target,
                other=other,
                **names,
            )
        if leg.encapsulation != "vxlan":
            return ""
        if one.port != leg.vxlan_port:
            return say(
                "it was sent to UDP port {port}, and VXLAN's is {expected}", port=one.port, expected=leg.vxlan_port
            )
        if one.vni != leg.vni:
            return say("its VNI is {vni} and should be {expected}", vni=one.vni, expected=leg.vni)
        if leg.target_tunnel_mac not in ("", one.inner_mac):
            return say(
                "its inner frame is for {mac}, and {device} of {peer} is {expected}",
                mac=one.inner_mac,
                expected=leg.target_tunnel_mac,
                **names,
            )
        return ""

    def _arrives(self, leg: Leg) -> Met:
        node = leg.target_node
        own = (*TUNNEL_DEVICES.values(), LOOPBACK, leg.target_interface)
        header = leg.encapsulation if leg.encapsulation in WITH_HEADER else ""

        def place(device: str) -> Text:
            if device:
                return say("reaching {node} by {device}", node=node, device=device)
            return say("reaching {node}", node=node)

        return self._seen(
            leg,
            node,
            place,
            lambda one: one.going == "in" and one.encapsulation == header and one.device not in own,
            wrong=_for_others,
            known=leg.encapsulation != "wireguard" and (node, UPLINK) not in self._programmed,
        )

    def _leaves_tunnel(self, leg: Leg) -> Met:
        place = _always(say("coming out of {device} of {where}", device=leg.tunnel_device, where=leg.target_node))
        return self._seen(leg, leg.target_node, place, _by(leg.tunnel_device, "in"), wrong=_for_others)

    def _routed_to_pod(self, leg: Leg) -> Met:
        node, interface = leg.target_node, leg.target_interface
        return self._seen(
            leg,
            node,
            _always(say("going out by {device} of {where}", device=interface, where=node)),
            _by(interface, "out"),
            astray=lambda one: _out(one) and one.device not in (interface, LOOPBACK),
            elsewhere=lambda one: say(
                "it went out by {device} of {node}, and not by {expected}",
                device=one.device,
                node=node,
                expected=interface,
            ),
        )

    def _answered(self, leg: Leg) -> Met:
        place = say("answered by {target}", target=leg.target)
        if leg.direction == "reverse":
            return Met(place=place)  # with an answer a conversation may be at its end
        pod = leg.target if leg.target_kind == "pod" else ""
        here = [one for one in self._of["reverse"] if (one.node, one.pod) == (leg.target_node, pod)]
        packets = max((one.seen for one in here if _out(one)), default=0)
        if not packets and (self._objected or leg.source_kind != leg.target_kind or not self._looked(here)):
            packets = -1
        where = pod or leg.target_node
        return Met(packets=packets, place=place, device=POD_DEVICE if pod else "", where=where)

    # -- what all stages share

    def _seen(
        self,
        leg: Leg,
        node: str,
        place: Callable[[str], Text],
        here: Picks,
        pod: str = "",
        *,
        wrong: Says = lambda one: "",
        astray: Picks = lambda one: False,
        elsewhere: Says = lambda one: "",
        known: bool = True,
    ) -> Met:
        """place: told with the device they passed, or "". here: which sightings are of this stage, of which `wrong` may
        say what is wrong. astray: which others show that they went `elsewhere`. known: our packets can be told there.
        """
        looked = [one for one in self._of[leg.direction] if (one.node, one.pod) == (node, pod)]
        passed = [one for one in looked if one.seen > 0]
        of_stage = [one for one in passed if here(one)]
        if good := [one for one in of_stage if not wrong(one)]:
            return Met(
                packets=max(one.seen for one in good),
                place=place(good[0].device),
                device=good[0].device,
                where=pod or node,
                several=len(good) > 1,
            )
        if of_stage:
            return Met(packets=0, place=place(of_stage[0].device), wrong=wrong(of_stage[0]))
        if not known or not self._looked(looked):
            return Met(place=place(""))
        strays = [elsewhere(one) for one in passed if astray(one)]
        return Met(packets=0, place=place(""), wrong=strays[0] if strays else "")

    def _looked(self, here: Sequence[StageSighting]) -> bool:
        """Did they look there all the time? Who met packets did: every device is looked at from the same moment on."""
        return (
            bool(here)
            and all(one.seen >= 0 for one in here)
            and (self._listened or any(one.enclosed or one.seen > 0 for one in here))
        )


def _always(place: Text) -> Callable[[str], Text]:
    return lambda _: place


def _out(one: StageSighting) -> bool:
    return one.going == "out" and not one.encapsulation


def _in(one: StageSighting) -> bool:
    return one.going == "in" and not one.encapsulation


def _by(device: str, going: str) -> Picks:
    return lambda one: (one.device, one.going, one.encapsulation) == (device, going, "")


def _for_others(one: StageSighting) -> str:
    return say("its frame is for a MAC that is not that of {device}", device=one.device) if one.others else ""


def strangers(known: Sequence[Fact], seen: Sequence[Fact]) -> set[str]:
    """Addresses that a tunnel's packets were sent to and that no node of the question has."""
    own = {
        address for node in known if isinstance(node, CalicoNode) for address in (node.address, node.internal_address)
    }
    return {one.outer_target for one in seen if isinstance(one, StageSighting) and one.going == "out"} - own - {""}
