"""Both legs drawn as hops with the last good and the first bad one; a person reads the picture before the words."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from facts import Blind, Cause, Hop, Leg, LegPath
from facts.flow import STAGES, TUNNEL_DEVICES, mirrored

if TYPE_CHECKING:
    from engine.sights import Track

UNTUNNELLED = ("local", "direct", "host", "outside")


def paths(
    legs: Iterable[Leg],
    causes: Sequence[Cause],
    blind: Sequence[Blind],
    well: Collection[str],
    tracks: Iterable[Track],
    *,
    lost: bool,
) -> tuple[LegPath, ...]:
    """One LegPath per leg. A hop is "ok" only where nothing on its node was hidden and no bad hop comes before it.

    well: names of the flows that carry packets and have nothing wrong; all of their hops are.
    tracks: legs on which packets were followed to where they were lost. Of these only what packets passed is ok, and
    where no cause has another place for it, the first bad hop is where they were seen no more.
    lost: nothing was found that explains what was met. Then no other hop is called ok: one of them loses the packets.
    The network between the nodes is only proven by packets that came back.
    """
    hidden = {one.node for one in blind if not one.minor}
    of = {(track.leg.flow, track.leg.direction): track for track in tracks if track.leg.flow not in well}
    return tuple(
        _path(leg, causes, hidden, of.get((leg.flow, leg.direction)), well=leg.flow in well, lost=lost) for leg in legs
    )


def _path(
    leg: Leg, causes: Sequence[Cause], hidden: Collection[str], track: Track | None, *, well: bool, lost: bool
) -> LegPath:
    stages = stages_of(leg)
    bad = min((stages.index(stage) for stage in _bad_stages(leg, causes) if stage in stages), default=-1)
    if track and track.first_bad and bad < 0:
        bad = stages.index(track.first_bad)
    last = stages.index(track.last_good) if track and track.last_good else -1
    hops = []
    for index, stage in enumerate(stages):
        node, name = place_of(leg, stage)
        packets = track.stages[stage].packets if track else -1
        if index == bad:
            state = "bad"
        elif track:
            # Nobody could look into one that they were met behind; where one looked and saw none, they went around it.
            state = "ok" if index <= last and packets and (bad < 0 or index < bad) else "unknown"
        elif well or (not lost and (bad < 0 or index < bad) and node and node not in hidden):
            state = "ok"
        else:
            state = "unknown"
        hops.append(Hop(stage=stage, node=node, name=name, state=state, met=packets))
    before = bad if bad >= 0 else len(hops) if track else 0
    return LegPath(
        flow=leg.flow,
        direction=leg.direction,
        source=leg.source,
        target=leg.target,
        hops=tuple(hops),
        last_good=next((hop.stage for hop in reversed(hops[:before]) if hop.state == "ok"), ""),
        first_bad=stages[bad] if bad >= 0 else "",
        lost=(track.told if track else None) or "",
    )


def stage_at(leg: Leg, node: str, device: str, *, outer: bool = False, pod: str = "") -> str:
    """The stage in which packets of a leg pass a device of a node, or of a pod that is named."""
    if pod:
        return "source pod" if pod == leg.source else "target pod"
    if device == leg.source_interface and not outer:
        return "source veth"
    if device == leg.target_interface and not outer:
        return "target veth"
    end = "source" if node == leg.source_node else "target"
    of_tunnel = outer or device in TUNNEL_DEVICES.values()
    return f"{end} tunnel" if of_tunnel and leg.crosses else f"{end} node"


def stages_of(leg: Leg) -> tuple[str, ...]:
    """The stages this leg has: no tunnel where it needs none, no veth where an end is a node."""
    absent = {f"{end} tunnel" for end in ("source", "target") if leg.encapsulation in UNTUNNELLED}
    for end, kind in (("source", leg.source_kind), ("target", leg.target_kind)):
        if kind != "pod":
            absent |= {f"{end} pod", f"{end} veth"}
        if kind == "outside":
            absent.add(f"{end} node")
    if leg.encapsulation == "local":
        absent |= {"underlay", "target node"}
    return tuple(stage for stage in STAGES if stage not in absent)


def _bad_stages(leg: Leg, causes: Iterable[Cause]) -> list[str]:
    """First bad stages as counted from the source of this leg."""
    found = []
    for cause in causes:
        if cause.severity != "breaks" or not cause.stage or cause.leg not in (leg.direction, "both"):
            continue
        if cause.flow not in (leg.flow, ""):
            continue
        stage = mirrored(cause.stage) if cause.leg == "both" and leg.direction == "reverse" else cause.stage
        if leg.encapsulation == "local" and stage == "target node":
            stage = "source node"
        found.append(stage)
    return found


def place_of(leg: Leg, stage: str) -> tuple[str, str]:
    """(node, name) of a stage: what a person would type after `ip link show`."""
    end, _, place = stage.partition(" ")
    if not place:
        return "", "network"
    node = leg.source_node if end == "source" else leg.target_node
    names = {
        "pod": "eth0",
        "veth": leg.source_interface if end == "source" else leg.target_interface,
        "node": node,
        "tunnel": leg.tunnel_device,
    }
    return node, names[place]
