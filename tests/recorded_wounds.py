"""Recorded clusters with the wounds that no lab can have: a case written by hand holds facts and no API, so that nobody
would know what an answer loses there when the API server refuses something.

Objects and kernels are wounded, and the product reads both. Only what no recording holds is told by hand: what network
cards saw, how full a machine's tables are, what BIRD says of its sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from bot.settings import Settings
from bot.sources.probes import Probes
from facts import (
    BgpPeer,
    Bird,
    ConnectionTable,
    Fact,
    NeighborTable,
    NodeAsk,
    ProbeResult,
    SendProbe,
    Sighting,
    WireguardDevice,
)
from tests.hand_written import LOST, OTHER_KEY
from tests.other_ways import PEERS
from tests.recorded_answers import alive
from tests.recorded_kernel import Recording
from tests.recorded_states import annotate, recorded
from tests.recorded_ways import FELIX, PUBLIC_KEY, UPLINK, WIREGUARD, Way, changed, plain, wireguard

HEALTHY = "v3.32.1/healthy"
PAIR = {"node-a": "default/pod-a1", "node-b": "default/pod-b1"}  # the source, the target
ADDRESSES = {"node-a": "172.30.0.11", "node-b": "172.30.0.12"}
PROGRAM = {"mode": 1, "prog": {"id": 7}}  # as `ip -d -j link` prints one

Look = Callable[[Fact], Fact | None]  # what the wound makes of a fact of a healthy node; None: it is not told


def as_it_is(fact: Fact) -> Fact:
    return fact


def wireguard_device_missing(recording: Recording, node: str) -> Look:
    recording.nodes[node].remove_link(WIREGUARD[4])
    gone = WireguardDevice(node=node, device=WIREGUARD[4], found=False)
    return lambda fact: gone if isinstance(fact, WireguardDevice) and fact.node == node else fact


def wireguard_route_missing(recording: Recording, node: str) -> Look:
    _without_routes(recording, node)
    return as_it_is


def wireguard_key_mismatch(recording: Recording, node: str) -> Look:
    annotate(recording, node, PUBLIC_KEY, OTHER_KEY)
    return as_it_is


def bgp_not_running(recording: Recording, node: str) -> Look:
    _without_routes(recording, PEERS[node])

    def look(fact: Fact) -> Fact | None:
        if isinstance(fact, Bird) and fact.node == node:
            return msgspec.structs.replace(fact, running=False, detail="")
        if isinstance(fact, BgpPeer) and fact.node == node:
            return None
        return _session(fact, ADDRESSES[node], "Connect")

    return look


def bgp_peer_down(recording: Recording, node: str) -> Look:
    _without_routes(recording, node)

    def look(fact: Fact) -> Fact:
        for one in PAIR:
            if isinstance(fact, BgpPeer) and fact.node == one:
                return _session(fact, ADDRESSES[PEERS[one]], "Active")
        return fact

    return look


def underlay_drops_wireguard(_: Recording, node: str) -> Look:
    return _swallowed(node)


def xdp_program_attached(recording: Recording, node: str) -> Look:
    recording.nodes[node].links[UPLINK]["xdp"] = PROGRAM
    return _swallowed(PEERS[node])


def xdp_program_on_pod_interface(recording: Recording, node: str) -> Look:
    for name, link in recording.nodes[node].links.items():
        if name.startswith("cali"):
            link["xdp"] = PROGRAM
    return lambda fact: _unseen(fact) if isinstance(fact, Sighting) and (fact.node, fact.way) == (node, "out") else fact


def neighbor_table_full(_: Recording, node: str) -> Look:
    def look(fact: Fact) -> Fact:
        if isinstance(fact, NeighborTable) and fact.node == node:
            return msgspec.structs.replace(fact, collectable=1019, refused=417)
        return fact

    return look


def conntrack_table_full(recording: Recording, node: str) -> Look:
    full = ConnectionTable(node=node, count=262144, limit=262144, refused=9127)
    recording.programs.append(lambda ask: [full] if ask.node == node else [])
    return as_it_is


WOUNDS: dict[str, tuple[tuple[Way, ...], Callable[[Recording, str], Look]]] = {
    "wireguard_device_missing": ((wireguard(),), wireguard_device_missing),
    "wireguard_route_missing": ((plain(FELIX), wireguard()), wireguard_route_missing),
    "wireguard_key_mismatch": ((wireguard(),), wireguard_key_mismatch),
    "bgp_not_running": ((plain(),), bgp_not_running),
    "bgp_peer_down": ((plain(),), bgp_peer_down),
    "underlay_drops_wireguard": ((wireguard(),), underlay_drops_wireguard),
    "xdp_program_attached": ((), xdp_program_attached),
    "xdp_program_on_pod_interface": ((), xdp_program_on_pod_interface),
    "neighbor_table_full": ((), neighbor_table_full),
    "conntrack_table_full": ((), conntrack_table_full),
}


class Wounded(NamedTuple):
    """A recorded cluster with a wound at a node of PAIR, of which no packet of a pod comes back."""

    recording: Recording
    look: Look

    def answer(self, ask: NodeAsk) -> list[Fact]:
        """What a probe would have told."""
        seen = self.recording.answer(ask, _passing, alive(ask.node))
        told = [fact for one in seen if (fact := self.look(one)) is not None]
        return [_lost(fact) if isinstance(fact, ProbeResult) and fact.pod else fact for fact in told]


def wounded(mode: str, node: str) -> Wounded:
    """Anew each time, since a wound changes it. Raises KeyError for a mode that a lab can have."""
    ways, wound = WOUNDS[mode]
    recording = changed(recorded(HEALTHY), ways)
    return Wounded(recording, wound(recording, node))


class RecordedProbes(Probes):
    """Probes of recorded nodes."""

    def __init__(self, settings: Settings, answer: Callable[[NodeAsk], list[Fact]]) -> None:
        super().__init__(settings)
        self._answer = answer

    async def _one(self, ask: NodeAsk, address: str, mark: str) -> list[Fact]:
        return self._answer(ask)


def _passing(ask: NodeAsk, probe: SendProbe) -> str:
    return "answered"


def _lost(fact: ProbeResult) -> ProbeResult:
    return msgspec.structs.replace(fact, **LOST)


def _unseen(fact: Sighting) -> Sighting:
    return msgspec.structs.replace(fact, seen=0, device="", outer_target="")


def _swallowed(node: str) -> Look:
    """What the node sends to its peer leaves it and does not get there."""
    peer = PEERS[node]
    return lambda fact: _unseen(fact) if isinstance(fact, Sighting) and (fact.node, fact.way) == (peer, "in") else fact


def _session(fact: Fact, address: str, session: str) -> Fact:
    if isinstance(fact, BgpPeer) and fact.address == address:
        return msgspec.structs.replace(fact, state="start", session=session)
    return fact


def _without_routes(recording: Recording, node: str) -> None:
    """Neither in the main table nor in WireGuard's does one lead to its peer: packets take its default route."""
    kernel, peer = recording.nodes[node], ADDRESSES[PEERS[node]]
    kernel.routes = [
        one
        for one in kernel.routes
        if one.get("gateway") != peer and not (one.get("dev") == WIREGUARD[4] and one["table"] == "1")
    ]
