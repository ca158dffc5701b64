"""How packets of each leg should travel, deduced once; wrong here, every rule about a path would accuse the well."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import diagnose
from engine.plan import expected_legs, plan
from facts import (
    Allocation,
    CalicoNode,
    Diagnosis,
    Endpoint,
    Fact,
    Leg,
    Neighbor,
    Pool,
    ProbeResult,
    Question,
    RouteLookup,
)
from tests.scene import CART, DB, DEVICE, change, healthy

TUNNEL, ADDRESS = "10.244.218.64", "172.30.0.12"  # node-b's
A_TO_B: dict[str, Any] = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
B_TO_A: dict[str, Any] = {"node": "node-b", "destination": CART[2], "source": "", "incoming": ""}


def flow(vxlan_mode: str, ipip_mode: str = "Never", **nodes: dict[str, Any]) -> list[Fact]:
    """What is seen of cart and db when their pool has these modes and nodes these fields; healthy where direct."""
    facts = change(healthy(), Allocation, {}, vxlan_mode=vxlan_mode, ipip_mode=ipip_mode)
    facts = change(facts, Pool, {}, vxlan_mode=vxlan_mode, ipip_mode=ipip_mode)
    for name, fields in nodes.items():
        facts = change(facts, CalicoNode, {"name": name.replace("_", "-")}, **fields)
    for leg in expected_legs(facts):
        if leg.encapsulation == "direct":
            way = {"node": leg.source_node, "destination": leg.target_address, "source": "", "incoming": ""}
            facts = change(facts, RouteLookup, way, next_hop=leg.target_node_address, device="eth0", protocol=80)
    return facts


def forward(facts: list[Fact]) -> Leg:
    return next(leg for leg in expected_legs(facts) if leg.direction == "forward")


@pytest.mark.parametrize(
    ("vxlan_mode", "ipip_mode", "node_a", "expected"),
    [
        ("Always", "Never", {}, ("vxlan", "felix", TUNNEL, DEVICE)),
        ("CrossSubnet", "Never", {}, ("direct", "felix", ADDRESS, "")),
        ("CrossSubnet", "Never", {"subnet": "172.31.0.0/24"}, ("vxlan", "felix", TUNNEL, DEVICE)),
        ("CrossSubnet", "Never", {"subnet": "172.30.0.11/32"}, ("vxlan", "felix", TUNNEL, DEVICE)),
        ("CrossSubnet", "Never", {"subnet": ""}, ("unknown", "", "", "")),
        ("Never", "Never", {}, ("direct", "bgp", "", "")),
        ("Never", "CrossSubnet", {}, ("direct", "bgp", "", "")),
        ("Never", "CrossSubnet", {"subnet": "172.31.0.0/24"}, ("ipip", "bgp", "", "tunl0")),
        ("Never", "Always", {}, ("ipip", "bgp", "", "tunl0")),
        ("", "", {}, ("unknown", "", "", "")),
        ("Always", "Never", {"bpf": True}, ("unknown", "", "", "")),
        ("Always", "Never", {"wireguard": True}, ("vxlan", "felix", TUNNEL, DEVICE)),  # the other node has none
    ],
)
def test_the_receiver_s_pool_and_the_sender_s_subnet_decide(
    vxlan_mode: str, ipip_mode: str, node_a: dict[str, Any], expected: tuple[str, ...]
) -> None:
    leg = forward(flow(vxlan_mode, ipip_mode, node_a=node_a))
    assert (leg.encapsulation, leg.route_by, leg.expected_next_hop, leg.expected_device) == expected
    assert leg.routed == bool(leg.route_by)


def test_pods_of_one_node_need_no_route_to_another() -> None:
    leg = forward(healthy(CART, ("shop/web", "node-a", "10.244.174.133", "cali77e0ccccccc")))
    assert (leg.encapsulation, leg.routed, leg.expected_next_hop) == ("local", False, "")


def test_nothing_of_the_tunnel_is_asked_for_where_it_is_not_used() -> None:
    asked = {mode: plan(flow(mode))[0].ways[0] for mode in ("Always", "CrossSubnet", "Never")}
    expected = {mode: (way.expected_next_hop, way.expected_peer) for mode, way in asked.items()}
    assert expected == {"Always": (TUNNEL, ADDRESS), "CrossSubnet": ("", ADDRESS), "Never": ("", ADDRESS)}


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.leg) for cause in diagnosis.causes]


@pytest.mark.parametrize("mode", ["CrossSubnet", "Never"])
def test_a_direct_flow_is_judged_without_the_tunnel(mode: str) -> None:
    diagnosis = diagnose(flow(mode))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.blind) == ("healthy", (), ())
    assert {"source tunnel", "target tunnel"}.isdisjoint(hop.stage for path in diagnosis.path for hop in path.hops)
    assert all(hop.state == "ok" for path in diagnosis.path for hop in path.hops)


@pytest.mark.parametrize("device", ["eth0", "ens192", "bond0", "br-ex"])
def test_the_uplink_may_have_any_name(device: str) -> None:
    assert diagnose(change(flow("CrossSubnet"), RouteLookup, A_TO_B, device=device)).verdict == "healthy"


def test_the_peer_s_mac_counts_without_a_tunnel_too() -> None:
    facts = change(flow("CrossSubnet"), ProbeResult, {"target_address": DB[2], "pod": CART[0]}, answered=0)
    entry = {"node": "node-a", "address": ADDRESS}
    facts = change(facts, Neighbor, entry, found=True, mac="02:00:00:00:00:99", state="PERMANENT")
    assert named(diagnose(facts)) == [("underlay_neighbor_wrong", "node-a", "forward")]


DEFAULT = {"prefix": "0.0.0.0/0", "next_hop": "172.30.0.1"}
SWALLOWED = {"found": False, "error": "EINVAL", "type": "blackhole", "device": "", "next_hop": ""}


@pytest.mark.parametrize(
    ("change_to", "mode"),
    [
        (DEFAULT, "route_missing"),
        ({"found": False, "error": "ENETUNREACH", "type": "", "prefix": "", "device": ""}, "route_missing"),
        ({"next_hop": "172.30.0.13"}, "route_wrong_next_hop"),
        (SWALLOWED, "route_blackholed"),
    ],
)
def test_felix_s_direct_route_is_expected_block_by_block(change_to: dict[str, Any], mode: str) -> None:
    diagnosis = diagnose(change(flow("CrossSubnet"), RouteLookup, A_TO_B, **change_to))
    assert named(diagnosis) == [(mode, "node-a", "forward")]
    assert "tunnel address" not in diagnosis.causes[0].text


@pytest.mark.parametrize("change_to", [DEFAULT, {"prefix": "10.0.0.0/8", "next_hop": "172.30.0.254"}])
def test_bgp_may_send_through_an_aggregate_or_a_router(change_to: dict[str, Any]) -> None:
    """Route reflectors and top-of-rack routers: packets that pass are all there is to judge by."""
    diagnosis = diagnose(change(flow("Never"), RouteLookup, A_TO_B, **change_to))
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())


def test_a_blackhole_is_a_cause_whoever_writes_the_routes() -> None:
    diagnosis = diagnose(change(flow("Never"), RouteLookup, A_TO_B, **SWALLOWED))
    assert named(diagnosis) == [("route_blackholed", "node-a", "forward")]


ALONE = {"subnet": "172.30.0.11/32"}
DROPPED = {"found": False, "error": "EINVAL", "type": "", "prefix": "", "device": "", "rp_filter": 1}


def test_nodes_that_disagree_on_their_subnet_are_a_warning_while_packets_pass() -> None:
    diagnosis = diagnose(flow("CrossSubnet", node_a=ALONE))
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())
    assert [(one.rule, one.node, one.leg) for one in diagnosis.warnings] == [
        ("cross_subnet_asymmetric", "node-a", "forward")
    ]


@pytest.mark.parametrize("apart", ["node-a", "node-b"])
def test_a_node_that_sends_is_answered_as_the_other_node_sees_it(apart: str) -> None:
    """By no tunnel where that one takes both to be of one subnet: its route is well."""
    facts = change(flow("CrossSubnet"), Question, {}, source="node-a")
    facts.append(Endpoint(name="node-a", kind="node", node="node-a", address="172.30.0.11", addresses=("172.30.0.11",)))
    facts = change(facts, CalicoNode, {"name": apart}, subnet="172.30.0.99/32")
    there, back = expected_legs(facts)
    assert (there.encapsulation, back.encapsulation) == (("vxlan", "direct") if apart == "node-a" else ("direct",) * 2)
    assert (there.source_address == "172.30.0.11") == (
        apart == "node-b"
    ) and back.target_address == there.source_address


def test_they_are_the_cause_where_the_peer_s_filter_drops_what_they_send() -> None:
    arrival = {"node": "node-b", "destination": DB[2], "source": CART[2], "incoming": DEVICE}
    diagnosis = diagnose(change(flow("CrossSubnet", node_a=ALONE), RouteLookup, arrival, **DROPPED))
    assert named(diagnosis) == [("cross_subnet_asymmetric", "node-a", "forward")]
    assert "172.30.0.11/32" in diagnosis.causes[0].text and "172.30.0.0/24" in diagnosis.causes[0].text


def test_two_pools_may_differ_each_way() -> None:
    facts = change(healthy(), Allocation, {"address": CART[2]}, vxlan_mode="CrossSubnet")
    facts = change(facts, RouteLookup, B_TO_A, next_hop="172.30.0.11", device="eth0", protocol=80)
    assert {leg.encapsulation for leg in expected_legs(facts)} == {"vxlan", "direct"}
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


def test_what_is_not_judged_is_said() -> None:
    """Addresses of no pool: another plugin gives them out."""
    diagnosis = diagnose(flow("", ""))
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "encapsulation" in {blind.look for blind in diagnosis.blind}
