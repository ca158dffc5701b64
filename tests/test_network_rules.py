"""Routes, devices and neighbors: each wrong one has one name, and what is well in odd ways is never accused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import diagnose
from facts import (
    CalicoNode,
    Diagnosis,
    Fact,
    FdbEntry,
    Link,
    LinkAddresses,
    Neighbor,
    PodInterface,
    PodRoute,
    ProbeResult,
    RouteLookup,
    RoutingRules,
    Sighting,
)
from tests.scene import CART, DB, DEVICE, NODES, WEB, change, healthy

SILENT = {"answered": 0, "outcome": "silence", "rtt_us": -1}
A_TO_B = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
B_TO_A = {"node": "node-b", "destination": CART[2], "source": "", "incoming": ""}
FLOW = {"node": "node-a", "destination": DB[2], "source": CART[2]}
ARRIVAL = {"node": "node-b", "destination": DB[2], "source": CART[2]}
AT_B = {"node": "node-b", "destination": DB[2], "source": "", "incoming": ""}
PEER = {"node": "node-a", "address": NODES["node-b"][0]}
POD_NEIGHBOR = {"node": "node-b", "address": DB[2]}
TUNNEL_A, TUNNEL_B = {"node": "node-a", "device": DEVICE}, {"node": "node-b", "device": DEVICE}
SLASH_32 = f"{DB[2]}/32"
BLOCK_B = NODES["node-b"][3]
BY_GATEWAY = {"next_hop": "172.30.0.1", "device": "eth0", "onlink": False}
BY_TABLE = {**BY_GATEWAY, "prefix": "0.0.0.0/0", "table": 100}
STATIC = {"found": True, "mac": "02:00:00:00:00:99", "state": "PERMANENT"}
NOWHERE = {"found": False, "error": "ENETUNREACH", "device": "", "next_hop": ""}
RIGHT_WAY, WRONG_WAY = f"{NODES['node-b'][1]} dev {DEVICE}", "172.30.0.1 dev eth0"
REFUSED = {"found": False, "error": "EINVAL", "type": "", "prefix": "", "device": "", "next_hop": "", "table": -1}

Changes = list[tuple[type[Fact], dict[str, Any], dict[str, Any]]]


def after(changes: Changes, *, lost: bool = True) -> Diagnosis:
    """The verdict on the healthy scene so changed."""
    facts = healthy()
    for kind, where, fields in changes:
        facts = change(facts, kind, where, **fields)
    return diagnose(change(facts, ProbeResult, {}, **SILENT) if lost else facts)


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


WOUNDS: list[tuple[str, str, str, int, Changes]] = [
    ("vxlan_vni_wrong", "node-b", "both", 10, [(Link, TUNNEL_B, {"vni": 4097})]),
    ("vxlan_port_wrong", "node-a", "both", 10, [(Link, TUNNEL_A, {"vxlan_port": 8472})]),
    ("vxlan_local_address_wrong", "node-a", "forward", 10, [(Link, TUNNEL_A, {"vxlan_local": "172.30.9.9"})]),
    ("route_wrong_device", "node-a", "forward", 95, [(RouteLookup, A_TO_B, BY_GATEWAY)]),
    ("foreign_route_to_pod", "node-a", "forward", 0, [(RouteLookup, A_TO_B, BY_GATEWAY | {"prefix": SLASH_32})]),
    (
        "foreign_route_to_pod", "node-a", "forward", 95,
        [(RouteLookup, A_TO_B, BY_GATEWAY | {"prefix": SLASH_32, "protocol": 80})],
    ),
    (
        "foreign_route_to_pod", "node-a", "forward", 0,
        [(RouteLookup, A_TO_B, BY_GATEWAY | {"prefix": "10.244.218.64/28"})],
    ),
    (
        "route_shadowed", "node-a", "forward", 95,
        [(RouteLookup, A_TO_B, {"prefix": SLASH_32, "next_hop": "", "device": "cali5", "scope": 253})],
    ),
    (
        "route_shadowed", "node-a", "forward", 0,
        [(RouteLookup, A_TO_B, {"prefix": SLASH_32, "next_hop": "", "device": "lo", "type": "local", "table": 255})],
    ),
    ("pod_route_wrong_device", "node-b", "forward", 95, [(RouteLookup, AT_B, {"device": "cali5", "metric": 0})]),
    ("pod_route_wrong_device", "node-b", "forward", 0, [(RouteLookup, AT_B, {"device": "eth0", "metric": 0})]),
    (
        "pod_route_wrong_device", "node-b", "forward", 0,  # one of somebody's for the pod alone; Felix's is still there
        [(RouteLookup, AT_B, {"found": False, "error": "EINVAL", "type": "blackhole", "device": "", "metric": 0})],
    ),
    (
        "route_blackholed", "node-a", "forward", 0,
        [(RouteLookup, A_TO_B, NOWHERE | {"type": "throw", "prefix": SLASH_32, "protocol": 3})],
    ),
    (
        "route_missing", "node-a", "forward", 95,  # the block's own route would win over a shorter one that throws
        [(RouteLookup, A_TO_B, NOWHERE | {"type": "throw", "prefix": "10.0.0.0/8", "protocol": 3})],
    ),
    ("route_wrong_next_hop", "node-a", "forward", 95, [(RouteLookup, A_TO_B, {"several": (RIGHT_WAY, WRONG_WAY)})]),
    ("fdb_entry_wrong_node", "node-a", "forward", -1, [(FdbEntry, {"node": "node-a"}, {"port": 8472})]),
    ("fdb_entry_wrong_node", "node-b", "reverse", -1, [(FdbEntry, {"node": "node-b"}, {"vni": 4097})]),
    ("fdb_entry_wrong_node", "node-b", "reverse", -1, [(FdbEntry, {"node": "node-b"}, {"via": "eth1"})]),
    ("pod_routes_astray", "node-a", "both", 0, [(PodRoute, {"pod": CART[0]}, {"device": "net1"})]),
    ("pod_routes_astray", "node-b", "both", 0, [(PodRoute, {"pod": DB[0]}, {"source": "10.9.9.9"})]),
    ("pod_routes_astray", "node-b", "both", 0, [(PodRoute, {"pod": DB[0]}, NOWHERE | {"error": "EACCES"})]),
    ("pod_routes_astray", "node-a", "both", 0, [(PodRoute, {"pod": CART[0]}, NOWHERE)]),  # its default route is there
    (
        "pod_default_route_missing", "node-a", "both", 0,
        [(PodRoute, {"pod": CART[0]}, NOWHERE), (PodInterface, {"pod": CART[0]}, {"pod_default_next_hop": ""})],
    ),
    (
        "pod_neighbor_wrong", "node-b", "forward", 0,
        [(PodInterface, {"pod": DB[0]}, {"pod_mac": "aa:bb:cc:dd:ee:ff"}), (Neighbor, POD_NEIGHBOR, STATIC)],
    ),
    (
        "pod_neighbor_wrong", "node-b", "forward", 0,
        [(Neighbor, POD_NEIGHBOR, {"found": True, "mac": "", "state": "FAILED", "asked": True})],
    ),
    ("underlay_neighbor_wrong", "node-a", "forward", -1, [(Neighbor, PEER, STATIC)]),
    ("underlay_neighbor_wrong", "node-a", "forward", -1, [(Neighbor, PEER, {"found": True, "state": "FAILED"})]),
    ("routing_rule_diverts", "node-a", "forward", 0, [(RouteLookup, FLOW, BY_TABLE)]),
    (
        "routing_rule_diverts", "node-a", "forward", 0,
        [(RouteLookup, FLOW, REFUSED | {"type": "blackhole", "prefix": "10.0.0.0/8", "table": 100, "rp_filter": 0})],
    ),
    ("routing_rule_diverts", "node-a", "forward", 0, [(RouteLookup, FLOW, REFUSED | {"error": "EACCES"})]),
    # What catches the node's own packets too leads both lookups astray: the rule is named, not the route it leads to.
    ("routing_rule_diverts", "node-a", "forward", 0, [(RouteLookup, FLOW, BY_TABLE), (RouteLookup, A_TO_B, BY_TABLE)]),
    # What looks at the destination only catches packets that arrive.
    ("routing_rule_diverts", "node-b", "forward", 0, [(RouteLookup, AT_B, BY_TABLE)]),
    ("reverse_path_filter_drops", "node-b", "forward", 0, [(RouteLookup, ARRIVAL, REFUSED | {"rp_filter": 1})]),
    (
        "reverse_path_filter_drops", "node-b", "forward", 0,
        [(RouteLookup, ARRIVAL, REFUSED | {"rp_filter": 1, "error": "EXDEV"})],
    ),
    (
        "reverse_path_filter_drops", "node-b", "forward", 0,  # beside a rule that ends what is for others
        [
            (RouteLookup, ARRIVAL, REFUSED | {"rp_filter": 1}),
            (RoutingRules, {"node": "node-b"}, {"rules": ("11: to 198.51.100.0/24 blackhole",)}),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "node", "leg", "heals", "changes"), WOUNDS)
def test_each_wrong_entry_has_one_name(mode: str, node: str, leg: str, heals: int, changes: Changes) -> None:
    diagnosis = after(changes)
    assert named(diagnosis) == [(mode, node, leg)]
    assert diagnosis.causes[0].heals_within_s == heals


BORROWED = {"prefix": SLASH_32}
WELL: dict[str, Changes] = {
    "a flow-based device has no VNI": [(Link, TUNNEL_A, {"vni": -1})],
    "no local address: the kernel takes the route's": [(Link, TUNNEL_A, {"vxlan_local": ""})],
    "a borrowed address has a /32 by the tunnel": [(RouteLookup, A_TO_B, BORROWED), (RouteLookup, FLOW, BORROWED)],
    "another table with the right way": [(RouteLookup, FLOW, {"table": 100})],
    "two next hops of one entry": [(RouteLookup, FLOW, {"next_hop": "10.244.218.64", "metric": 0})],
    "the pod answered ARP with another MAC a moment ago": [
        (PodInterface, {"pod": DB[0]}, {"pod_mac": "aa:bb:cc:dd:ee:ff"}),
        (Neighbor, POD_NEIGHBOR, STATIC | {"state": "STALE"}),
    ],
    "a cloud answers ARP for all nodes with its own MAC": [(Neighbor, PEER, STATIC | {"state": "REACHABLE"})],
    "a router's MAC counts between subnets": [
        (CalicoNode, {"name": "node-a"}, {"subnet": "172.30.0.11/32"}),
        (Neighbor, PEER, {"found": True, "state": "FAILED"}),
    ],
    "strict filters do not mind symmetric paths": [(RouteLookup, ARRIVAL, {"rp_filter": 1})],
}


@pytest.mark.parametrize("oddity", WELL)
def test_what_is_well_in_odd_ways_is_healthy(oddity: str) -> None:
    diagnosis = after(WELL[oddity], lost=False)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


def test_a_static_entry_that_stops_nothing_is_a_warning() -> None:
    diagnosis = after([(Neighbor, PEER, STATIC)], lost=False)
    assert (diagnosis.verdict, [cause.rule for cause in diagnosis.warnings]) == ("healthy", ["underlay_neighbor_wrong"])


WITHIN = {"node": "node-a", "destination": WEB[2], "source": CART[2]}
TO_WEB = {"node": "node-a", "destination": WEB[2], "source": "", "incoming": ""}
SEEN = {"node": "node-a", "way": "out", "target_address": WEB[2]}
WITHIN_NODE: dict[str, tuple[Changes, str]] = {
    "a rule about the sender": (
        [(RouteLookup, WITHIN, BY_TABLE)],
        "without the rule it would be 10.244.174.133/32 dev",
    ),
    "a rule about the target": (
        [(RouteLookup, WITHIN, BY_TABLE), (RouteLookup, TO_WEB, BY_TABLE)],
        f"the way to shop/web is by {WEB[3]}",
    ),
    "a table that swallows": (
        [(RouteLookup, WITHIN, REFUSED | {"type": "blackhole", "prefix": "10.0.0.0/8", "table": 100, "rp_filter": 0})],
        "into blackhole 10.0.0.0/8 of table 100",
    ),
    "a rule that says no": ([(RouteLookup, WITHIN, REFUSED | {"error": "EACCES"})], "nowhere: the kernel says EACCES"),
    "a rule about a mark": (
        [(Sighting, SEEN, {"device": "eth0"}), (RoutingRules, {}, {"rules": ("100: fwmark 0x1 lookup 200",)})],
        f"out by eth0, though its routes lead them into {WEB[3]}",
    ),
}


@pytest.mark.parametrize("what", WITHIN_NODE)
def test_a_rule_diverts_packets_between_pods_of_one_node(what: str) -> None:
    facts = healthy(CART, WEB)
    changes, said = WITHIN_NODE[what]
    for kind, where, fields in changes:
        facts = change(facts, kind, where, **fields)
    diagnosis = diagnose(change(facts, ProbeResult, {"pod": CART[0]}, **SILENT))
    assert named(diagnosis) == [("routing_rule_diverts", "node-a", "forward")]
    assert said in diagnosis.causes[0].text


@pytest.mark.parametrize(
    "changes",
    [
        [(RouteLookup, WITHIN, {"table": 100})],
        [(RoutingRules, {}, {"rules": ("100: fwmark 0x1 lookup 200",)})],
        [(Sighting, SEEN, {"device": "eth0"})],  # a copy somebody takes of them
        [(Sighting, {}, {"seen": 0, "device": ""})],
    ],
)
def test_a_table_that_leads_to_the_pod_diverts_nothing(changes: Changes) -> None:
    facts = healthy(CART, WEB)
    for kind, where, fields in changes:
        facts = change(facts, kind, where, **fields)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


@pytest.mark.parametrize("refusal", [{"rp_filter": 0}, {"rp_filter": 2}, {"rp_filter": 1, "error": "EHOSTUNREACH"}])
def test_a_refused_arrival_without_strict_filter_is_nobodys(refusal: dict[str, Any]) -> None:
    assert after([(RouteLookup, ARRIVAL, REFUSED | refusal)]).causes == ()


def test_a_flow_the_filter_refuses_is_no_rule() -> None:
    """rp_filter on the pod's own interface, and forwarding that is off, refuse the same lookup."""
    for error in ("EINVAL", "EXDEV", "EHOSTUNREACH", "ENODEV"):
        assert after([(RouteLookup, FLOW, REFUSED | {"error": error, "rp_filter": 1})]).causes == ()


@pytest.mark.parametrize("wrong", [{"vni": 4097}, {"vxlan_port": 8472}, {"vxlan_local": "172.30.9.9"}])
def test_a_device_made_anew_by_hand_has_lost_what_hung_on_it(wrong: dict[str, Any]) -> None:
    gone: Changes = [
        (Link, TUNNEL_A, wrong),
        (LinkAddresses, TUNNEL_A, {"addresses": ()}),
        (RouteLookup, A_TO_B, BY_GATEWAY | {"prefix": "0.0.0.0/0"}),
        (RouteLookup, FLOW, BY_GATEWAY | {"prefix": "0.0.0.0/0"}),
        (Neighbor, TUNNEL_A, {"found": False, "mac": "", "state": ""}),
    ]
    assert [cause.rule for cause in after(gone).causes] == [
        {"vni": "vxlan_vni_wrong", "vxlan_port": "vxlan_port_wrong", "vxlan_local": "vxlan_local_address_wrong"}[
            next(iter(wrong))
        ]
    ]


def test_the_way_back_past_the_tunnel_is_the_cause_and_the_filter_its_echo() -> None:
    back = [(RouteLookup, B_TO_A, BY_GATEWAY), (RouteLookup, ARRIVAL, REFUSED | {"rp_filter": 1})]
    assert named(after(back)) == [("route_wrong_device", "node-b", "reverse")]  # type: ignore[arg-type]


def test_two_wrong_routes_on_two_nodes_are_both_told() -> None:
    both: Changes = [
        (RouteLookup, A_TO_B, BY_GATEWAY | {"prefix": SLASH_32}),
        (Link, TUNNEL_B, {"vni": 4097}),
    ]
    assert {cause.rule for cause in after(both).causes} == {"foreign_route_to_pod", "vxlan_vni_wrong"}
