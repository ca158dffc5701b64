"""What fresh packets of a flow met; without it a path could be called healthy that carries nothing."""

from __future__ import annotations

from collections.abc import Sequence

from facts import Blind, DropReasons, Fact, Leg, ProbeResult, Text, in_turn, joined, say

MOST_REASONS = 3
OUTCOMES = {  # of facts.ProbeResult, as a person reads them
    "refused": "refused",
    "unreachable": "unreachable",
    "too_big": "too_big",
    "silence": "silence",
    "error": "error",
}


def asked(leg: Leg) -> tuple[str, int]:
    """Protocol and port of the packets that count: pings where none was asked."""
    if leg.node_port:
        return leg.node_port_protocol, leg.node_port
    return (leg.protocol, leg.port) if leg.port_asked else ("icmp", 0)


def sent(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Everything that went from one end of the leg to the other."""
    pod = leg.source if leg.source_kind == "pod" else ""
    return [
        one
        for one in probes
        if one.pod == pod and one.node == leg.source_node and one.target_address == leg.target_address
    ]


def wanted(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Of these, packets of the asked protocol. All of them where none was asked, or where nobody could send any to a
    node's port that is a Service's."""
    every = sent(leg, probes)
    if leg.node_port:
        return [one for one in every if (one.protocol, one.port) == asked(leg)] or every
    return [one for one in every if one.protocol == leg.protocol] if leg.port_asked else every


def loses(leg: Leg, probes: Sequence[ProbeResult]) -> bool:
    """Did a small fresh packet of the asked kind not come back?"""
    return any(is_lost(one) for one in wanted(leg, probes) if not one.size)


def loses_later_only(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Connections of the asked kind that were made, and in which what follows does not come back. Empty where anything
    else was lost as well."""
    lost = [one for one in wanted(leg, probes) if not one.size and is_lost(one)]
    return lost if all(map(only_unended, lost)) else []


def only_unended(probe: ProbeResult) -> bool:
    """Was each connection made, and nothing lost but what follows in some of them?"""
    return 0 < probe.unended == probe.sent - probe.answered


def large_of_port(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """What became of full-size packets of the asked port, and of answers of that size; empty where nobody knows."""
    return [one for one in wanted(leg, probes) if leg.port_asked and one.size and one.port == leg.port]


def loses_large_only(leg: Leg, probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """What was lost on a leg for nothing but its size: of the asked port, else pings. Empty where nothing was, or who
    has no room for it says so: no firewall does."""
    every = sent(leg, probes)

    def lost(some: Sequence[ProbeResult]) -> list[ProbeResult]:
        small = [one for one in some if not one.size]
        large = [one for one in some if one.size and one.outcome != "too_big"]
        return [one for one in large if any(map(one.lost_for_its_size, small))]

    of_port = [one for one in every if leg.port_asked and (one.protocol, one.port) == (leg.protocol, leg.port)]
    return lost(of_port) or lost([one for one in every if one.protocol == "icmp"])


def is_lost(probe: ProbeResult) -> bool:
    """Did one not come back, or was none let out? A firewall or a route of the sender's own refuses to its face."""
    return probe.answered < probe.sent or (not probe.sent and probe.outcome in ("error", "unreachable"))


def all_answered(probe: ProbeResult) -> bool:
    return probe.answered == probe.sent > 0


def judged(
    forward: Leg, probes: Sequence[ProbeResult], blind: Sequence[Blind], *, pings_stopped: bool = False
) -> tuple[str, Text]:
    """Verdict and summary of a flow in which no cause was found. pings_stopped: by a rule that is told as a warning.

    `healthy` only when everything was seen and fresh packets of the asked kind came back; else `unknown`.
    """
    every = sent(forward, probes)
    small = [one for one in wanted(forward, probes) if not one.size]
    full = [one for one in every if one.size and one.protocol == "icmp"]
    ping = [one for one in every if one.protocol == "icmp" and not one.size]
    of_port = large_of_port(forward, probes)
    proved = not all(one.answers for one in of_port) and all(map(all_answered, of_port))  # whatever pings meet
    met = told(every)
    ends = {"source": forward.source, "target": forward.target}
    if not small:
        return "unknown", say("No fresh packet could be sent from {source} to {target}.", **ends)
    if pings_stopped and not proved:
        return "unknown", say(
            "Pings from {source} to {target} are dropped by a rule of a firewall, as told beside ({met}); other "
            "packets may pass.",
            **ends,
            met=met,
        )
    if any(one.answered == 0 for one in small):
        return "unknown", say(
            "Nothing wrong was found, and yet {source} does not reach {target}: {met}."
            if forward.port_asked or forward.node_port
            else "Nothing wrong was found, and yet {source} does not reach {target}: {met}. "
            "Policy often drops ICMP: ask again with the port, such as 5432/tcp.",
            **ends,
            met=met,
        )
    if any(one.answered < one.sent for one in small):
        return "unknown", say("Nothing wrong was found, and yet packets are lost: {met}.", met=met)
    # The target may have a smaller MTU by right (made before an MTU change). What passes then is its own full size.
    back = [one for one in probes if one.pod == forward.target and one.target_address == forward.source_address]
    fits = max((one.size for one in back if one.protocol == "icmp" and all_answered(one)), default=0)
    lost = [one for one in full if not all_answered(one)]
    too_large = not proved and any(one.answered for one in ping) and any(not 0 < fits < one.size for one in lost)
    if too_large or any(one.lost_for_its_size(other) for one in of_port for other in small):
        return "unknown", say("Small packets pass and full-size ones do not: {met}.", met=met)
    if not full:
        return "unknown", say("Small packets pass ({met}); no full-size one could be sent.", met=met)
    if any(not one.minor for one in blind):
        return "unknown", say("Fresh packets pass ({met}), but not everything on the way could be seen.", met=met)
    said = say("{met}.", met=met)
    if lost and not proved and any(one.answered for one in ping):
        said = say(
            "{met}. {target} takes at most {fits} bytes, and packets of that size pass.",
            met=met,
            target=forward.target,
            fits=fits,
        )
    elif lost and not proved:
        said = say("{met}. Full-size packets could not be tested: ICMP is not answered.", met=met)
    unseen = _unseen(forward, of_port)
    return "healthy", say("{said} {unseen}", said=said, unseen=unseen) if unseen else said


def _unseen(forward: Leg, of_port: Sequence[ProbeResult]) -> str:
    """What is not known of full-size packets of the asked port, where these are sent at all; "" where nothing is."""
    if not forward.port_asked or forward.target_kind == "outside":
        return ""
    kind = f"{forward.protocol} {forward.port}"
    well = {one.answers for one in of_port if one.answered}
    if not well:
        return say("Whether {kind} passes in full size could not be seen.", kind=kind)
    return "" if True in well else say("Whether answers of full size come back to {kind} could not be seen.", kind=kind)


def told(probes: Sequence[ProbeResult]) -> str:
    """`tcp 5432 2 of 2 answered, icmp 2 of 2, icmp 1450 bytes 0 of 2 (silence)`."""
    parts = []
    for one in sorted(probes, key=lambda p: (p.protocol == "icmp", p.protocol, p.port, p.size, p.answers)):
        name = packets(one)
        parts.append(
            say("{packets} {answered} of {sent} answered", packets=name, answered=one.answered, sent=one.sent)
            if one.answered == one.sent and one.outcome not in ("error", "unreachable")
            else say(
                "{packets} {answered} of {sent} answered ({met})",
                packets=name,
                answered=one.answered,
                sent=one.sent,
                met=say("some lost") if one.answered and not one.unended else outcome(one),
            )
        )
    return joined(parts)


def packets(one: ProbeResult) -> str:
    """`tcp 5432`, `icmp 1450 bytes`, `tcp 5432 answers of 1450 bytes`."""
    kind = f"{one.protocol} {one.port}" if one.port else one.protocol
    if not one.size:
        return kind
    return say(
        "{kind} answers of {size} bytes" if one.answers else "{kind} {size} bytes",
        kind=kind,
        size=one.size,
    )


def dropped(leg: Leg, facts: Sequence[Fact]) -> str:
    """What the kernels at both ends dropped meanwhile, where they tell; "" where they do not, or dropped nothing."""
    nodes = (leg.source_node, leg.target_node)
    return in_turn(
        say(
            "Meanwhile the kernel of {node} dropped packets, whoever's they were: {drops}.",
            node=one.node,
            drops=joined(
                say("{count} for {reason} in {place}", count=drop.count, reason=drop.reason, place=drop.place)
                for drop in one.drops[:MOST_REASONS]
            ),
        )
        for one in dict.fromkeys(facts)
        if isinstance(one, DropReasons) and one.node in nodes and one.drops
    )


def objections(leg: Leg, probes: Sequence[ProbeResult]) -> str:
    """Who said no to small packets of the asked kind, and how: a node on the way, or the sender's own kernel."""
    lost = [one for one in wanted(leg, probes) if not one.size and is_lost(one) and one.detail]
    return in_turn(dict.fromkeys(say("{packets}: {detail}.", packets=packets(one), detail=one.detail) for one in lost))


def silent_node(leg: Leg, probes: Sequence[ProbeResult], blind: Sequence[Blind]) -> str:
    """Where one node's probe said nothing, and no ping of the other node's own came back from there either."""
    if leg.target_kind != "pod" or leg.source_node == leg.target_node:
        return ""
    ends = (leg.source_node, leg.source_node_address), (leg.target_node, leg.target_node_address)
    for (node, _), (peer, address) in (ends, ends[::-1]):
        if all((one.node, one.look) != (peer, "probe") for one in blind):
            continue
        own = [
            one
            for one in probes
            if (one.node, one.pod, one.protocol, one.size) == (node, "", "icmp", 0) and one.target_address == address
        ]
        if not own or any(one.answered or not one.sent for one in own):
            continue
        return say(
            "{node} gets no answer from {peer} itself either ({address}, {met}), and the probe there said nothing: see "
            "first whether {peer} is up, and what is between the two nodes.",
            node=node,
            peer=peer,
            address=address,
            met=told(own),
        )
    return ""


def with_largest(lost: Text, full: ProbeResult) -> Text:
    """What is said of full-size packets that are lost, and which ones pass, where that was found out."""
    if full.passes <= 0:
        return lost
    return say(
        "{lost} Packets of up to {passes} bytes come back, those of {stops} do not.",
        lost=lost,
        passes=full.passes,
        stops=full.stops,
    )


def outcome(probe: ProbeResult) -> str:
    """What the packets met when none of them was answered."""
    if probe.passes > 0:
        return say("{met}, while up to {passes} bytes pass", met=_outcome(probe), passes=probe.passes)
    return _outcome(probe)


def _outcome(probe: ProbeResult) -> str:
    if only_unended(probe):
        return say("connections are made, and nothing that follows in them comes back")
    return say(OUTCOMES[probe.outcome]) if probe.outcome in OUTCOMES else probe.outcome
