"""Writes the cases no lab can record: modes whose device or daemon no kernel and no node of a lab has.

usage: python -m tests.hand_written      tests/cases/<failure mode>.json of each of them
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec

from facts import (
    BgpPeer,
    Bird,
    CalicoNode,
    CalicoPod,
    ConnectionTable,
    Fact,
    Link,
    NeighborTable,
    PodInterface,
    ProbeResult,
    RouteLookup,
    Sighting,
)
from tests.other_ways import PEERS, leg_of, plain, wireguard
from tests.record import CASES, _lines
from tests.scene import CART, DB, change, healthy

NODES = {"source": "node-a", "target": "node-b"}
DEFAULT = {"prefix": "0.0.0.0/0", "next_hop": "172.30.0.1", "device": "eth0", "protocol": 3, "table": 254}
LOST = {"answered": 0, "outcome": "silence", "rtt_us": -1}
OTHER_KEY = "b3RoZXIga2V5IG90aGVyIGtleSBvdGhlciBrZXkgb3Q="


def without_routes(facts: list[Fact], node: str) -> list[Fact]:
    """The node's routes to its peer are gone: packets take its default route."""
    leg = leg_of(facts, "forward" if node == NODES["source"] else "reverse")
    way: dict[str, Any] = {"node": node, "destination": leg.target_address}
    facts = change(facts, RouteLookup, {**way, "source": ""}, **DEFAULT)
    return change(facts, RouteLookup, {**way, "source": leg.source_address}, **DEFAULT)


def wireguard_device_missing(node: str) -> list[Fact]:
    """Down on the one node, missing on the other."""
    down = node == NODES["source"]
    gone = change(wireguard(), Link, {"node": node, "device": "wireguard.cali"}, found=down, up=False)
    return without_routes(gone, node)


def wireguard_route_missing(node: str) -> list[Fact]:
    """Neither in the table that its rule leads to nor in the main one, where a pool's own route would be a way."""
    return without_routes(wireguard("Never"), node)


def wireguard_key_mismatch(node: str) -> list[Fact]:
    """Its annotation announces a key its device has not; its peer knows the device's, for it asked for none else."""
    pod = CalicoPod(node=node, running=True, name="kube-system/calico-node-1", restarts=0)
    return [*change(wireguard(), CalicoNode, {"name": node}, wireguard_key=OTHER_KEY), pod]


def bgp_not_running(node: str) -> list[Fact]:
    """The peer has lost what this node announced; what this node has learned stays in its kernel."""
    facts = change(plain(), Bird, {"node": node}, running=False, detail="")
    facts = [fact for fact in facts if not (isinstance(fact, BgpPeer) and fact.node == node)]
    facts = change(facts, BgpPeer, {"node": PEERS[node]}, state="start", session="Connect")
    return without_routes(facts, PEERS[node])


def bgp_peer_down(node: str) -> list[Fact]:
    """On both sides, of course; here only this one has lost its route so far."""
    facts = change(plain(), BgpPeer, {}, state="start", session="Active", info="Socket: Connection refused")
    return without_routes(facts, node)


def swallowed(facts: list[Fact], node: str) -> list[Fact]:
    """What the node sends in its tunnel leaves it and does not reach its peer."""
    leg = leg_of(facts, "forward" if node == NODES["source"] else "reverse")
    return change(
        facts, Sighting, {"way": "in", "source_address": leg.source_address}, seen=0, device="", outer_target=""
    )


def underlay_drops_wireguard(node: str) -> list[Fact]:
    return swallowed(wireguard(), node)


def xdp_program_attached(node: str) -> list[Fact]:
    """No lab may load a program; tests/test_between_nodes.py does where its user may, and meets this."""
    return change(swallowed(healthy(), PEERS[node]), Link, {"node": node, "device": "eth0"}, programs=("eth0",))


def xdp_program_on_pod_interface(node: str) -> list[Fact]:
    """What the pod sends never leaves its node."""
    facts = change(healthy(), PodInterface, {"node": node}, program=True)
    return change(facts, Sighting, {"node": node, "way": "out"}, seen=0, device="", outer_target="")


def neighbor_table_full(node: str) -> list[Fact]:
    """No namespace has a neighbor table of its own: this would cut off the machine that records it."""
    return change(healthy(), NeighborTable, {"node": node}, collectable=1019, refused=417)


def conntrack_table_full(node: str) -> list[Fact]:
    """The kernel takes the limit of the machine's own network namespace for all others, too."""
    return [*healthy(), ConnectionTable(node=node, count=262144, limit=262144, refused=9127)]


MODES: dict[str, tuple[Callable[[str], list[Fact]], dict[str, str]]] = {
    "wireguard_device_missing": (wireguard_device_missing, {"source": "both", "target": "both"}),
    "wireguard_route_missing": (wireguard_route_missing, {"source": "forward", "target": "reverse"}),
    "wireguard_key_mismatch": (wireguard_key_mismatch, {"source": "forward", "target": "reverse"}),
    "bgp_not_running": (bgp_not_running, {"source": "reverse", "target": "forward"}),
    "bgp_peer_down": (bgp_peer_down, {"source": "forward", "target": "reverse"}),
    "underlay_drops_wireguard": (underlay_drops_wireguard, {"source": "forward", "target": "reverse"}),
    "xdp_program_attached": (xdp_program_attached, {"source": "reverse", "target": "forward"}),
    "xdp_program_on_pod_interface": (xdp_program_on_pod_interface, {"source": "both", "target": "both"}),
    "neighbor_table_full": (neighbor_table_full, {"source": "both", "target": "both"}),
    "conntrack_table_full": (conntrack_table_full, {"source": "both", "target": "both"}),
}
ONLY_TOLD = ("xdp_program_attached", "xdp_program_on_pod_interface")  # what may be the cause and is not proved to be it


def case(mode: str) -> dict[str, Any]:
    """As tests.record writes it: the wound at either end, all fresh packets lost."""
    wounded, legs = MODES[mode]
    recordings = []
    for where, node in NODES.items():
        facts = change(wounded(node), ProbeResult, {"pod": CART[0]}, **LOST)
        facts = change(facts, ProbeResult, {"pod": DB[0]}, **LOST)
        recordings.append(
            {
                "where": where,
                "asked": f"{CART[0]} {DB[0]} 5432/tcp",
                "verdict": "unknown" if mode in ONLY_TOLD else "cause",
                "named": [{"rule": mode, "node": node, "leg": legs[where]}],
                "facts": msgspec.to_builtins(sorted(facts, key=lambda fact: fact.id)),
            }
        )
    return {"mode": mode, "recordings": recordings}


def main() -> int:
    for mode in MODES:
        (CASES / f"{mode}.json").write_text(_lines(case(mode)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
