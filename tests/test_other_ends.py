"""A node, a pod on its node's network and an address outside as one end of the question: judged as far as they go."""

from __future__ import annotations

import pytest

from engine.diagnosis import diagnose
from engine.plan import plan
from facts import Allocation, Endpoint, Question
from facts.flow import STAGES
from lab.client import Lab
from lab.objects import SYSTEM_NAMESPACE, calico_node_name
from tests.asking import ask
from tests.scene import CART, change, healthy

THROUGH_THE_TUNNEL = [stage for stage in STAGES if stage not in ("source pod", "source veth")]
ON_NODE_A = f"{SYSTEM_NAMESPACE}/{calico_node_name('node-a')}"


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        ("shop/cart node-b", ["source pod", "source veth", "source node", "underlay", "target node"]),
        ("shop/cart node-a", ["source pod", "source veth", "source node"]),
        ("node-a shop/db", THROUGH_THE_TUNNEL),
        ("node-b shop/db", ["source node", "target veth", "target pod"]),
        ("node-a node-b", ["source node", "underlay", "target node"]),
        ("172.30.0.11 shop/db 5432/tcp", THROUGH_THE_TUNNEL),
        (f"{ON_NODE_A} shop/db", THROUGH_THE_TUNNEL),
        (f"shop/db {ON_NODE_A}", ["source pod", "source veth", "source node", "underlay", "target node"]),
    ],
)
async def test_nodes_are_reached_and_reach_pods(lab: Lab, words: str, stages: list[str]) -> None:
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind) == ("healthy", (), (), ())
    forward = next(leg for leg in diagnosis.path if leg.direction == "forward")
    assert [hop.stage for hop in forward.hops] == stages
    assert all(hop.state == "ok" for leg in diagnosis.path for hop in leg.hops)


@pytest.mark.parametrize(
    ("fault", "where", "node", "leg"),
    [
        ("vxlan_device_down", "target", "node-b", "both"),
        ("vxlan_device_address_wrong", "source", "node-a", "both"),  # pods do not suffer from it: the node does
        ("route_missing", "source", "node-a", "forward"),
        ("route_missing", "target", "node-b", "reverse"),
        ("neighbor_wrong_mac", "target", "node-b", "reverse"),
        ("pod_route_missing", "target", "node-b", "forward"),
        ("pod_interface_down", "target", "node-b", "both"),
    ],
)
async def test_what_keeps_a_node_from_a_pod_is_named(lab: Lab, fault: str, where: str, node: str, leg: str) -> None:
    """Its packets carry its tunnel address, so answers come back through the tunnel."""
    lab.inflict(fault, "shop/cart", "shop/db", where)
    diagnosis = (await ask(lab.environment(), "node-a shop/db")).diagnosis
    assert [(one.rule, one.severity, one.node, one.leg) for one in diagnosis.causes] == [(fault, "breaks", node, leg)]


@pytest.mark.parametrize(
    "words", ["shop/cart node-b 9099/tcp", "node-a node-b 9099/tcp", f"shop/db {ON_NODE_A} 9099/tcp"]
)
async def test_a_port_of_a_node_that_nobody_serves_for_others_is_named(lab: Lab, words: str) -> None:
    """Felix's health port is bound to the loopback."""
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    assert [one.rule for one in diagnosis.causes] == ["target_listens_on_loopback"]
    nobody = (await ask(lab.environment(), words.replace("9099", "9"))).diagnosis
    assert [one.rule for one in nobody.causes] == ["target_not_listening"]


async def test_a_pod_s_own_side_is_judged_when_it_sends_out_of_the_cluster(lab: Lab) -> None:
    lab.inflict("pod_default_route_missing", "shop/cart", "shop/db", "source")
    diagnosis = (await ask(lab.environment(), "shop/cart 192.0.2.7 443/tcp")).diagnosis
    assert [(one.rule, one.node) for one in diagnosis.causes] == [("pod_default_route_missing", "node-a")]


async def test_what_lies_outside_is_reached_under_the_node_s_address(lab: Lab) -> None:
    diagnosis = (await ask(lab.environment(), "shop/cart 172.30.0.1")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings, diagnosis.blind) == ("healthy", (), (), ())


async def test_a_broken_tunnel_is_no_matter_between_a_pod_and_another_node(lab: Lab) -> None:
    """Packets to a node leave under the sender's node address, and so do the answers."""
    lab.inflict("vxlan_device_down", "shop/cart", "shop/db", "target")
    diagnosis = (await ask(lab.environment(), "shop/cart node-b")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())


async def test_silence_from_outside_accuses_nobody(lab: Lab) -> None:
    diagnosis = (await ask(lab.environment(), "shop/cart 192.0.2.7 443/tcp")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "does not reach 192.0.2.7" in diagnosis.summary


def test_an_address_of_a_pool_that_no_pod_has_is_said_to_be_nobody_s() -> None:
    facts = [*healthy(), Endpoint(name="10.244.9.9", kind="nobody", address="10.244.9.9", addresses=("10.244.9.9",))]
    facts = change(facts, Question, {}, target="10.244.9.9")
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, plan(facts)) == ("unknown", [])
    assert "No pod and no node has 10.244.9.9" in diagnosis.summary


def test_two_ends_without_a_common_family_are_told_so() -> None:
    six = "fd00:10:244::9"
    facts = change(healthy(), Endpoint, {"name": CART[0]}, address="", address6=six, addresses=(six,))
    diagnosis = diagnose([*facts, Allocation(address=six, found=True, block="fd00:10:244::/122")])
    assert (diagnosis.verdict, diagnosis.causes) == ("unknown", ())
    assert "shop/cart and shop/db have no address of the same family" in diagnosis.summary
