"""What the API alone shows: each of its failure modes where the lab has no wound for it, and its healthy variants."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import diagnose
from facts import (
    AddressHolders,
    Allocation,
    Blind,
    CalicoNode,
    CalicoPod,
    CalicoSettings,
    Diagnosis,
    Endpoint,
    Fact,
    FelixHealth,
    Leg,
    PodInterface,
    Pool,
    PoolUsage,
    ProbeResult,
    RouteLookup,
)
from tests.other_ways import plain
from tests.scene import DB, WEB, change, healthy

LOST = {"answered": 0, "outcome": "silence", "rtt_us": -1}
UNREADY = {"ready": False, "unready": "NodeStatusUnknown: Kubelet stopped posting node status."}
TUNNEL = {"address": "10.244.218.64"}
ADDRESS = {"address": DB[2]}
TO_DB = {"node": "node-a", "destination": DB[2], "source": "", "incoming": ""}
BY_DEFAULT = {"prefix": "0.0.0.0/0", "device": "eth0", "next_hop": "172.30.0.1"}


def causes(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.causes]


def warnings(diagnosis: Diagnosis) -> list[str]:
    return [cause.rule for cause in diagnosis.warnings]


@pytest.mark.parametrize(
    ("kind", "where", "fields"),
    [
        # A StatefulSet's pod that was restarted: the same name under another container.
        (Allocation, ADDRESS, {"handle": "k8s-pod-network.of-the-container-before"}),
        (Allocation, ADDRESS, {"owner_kind": "virtualMachine", "owner": "", "handle": "k8s-pod-network.vmi.shop.vm"}),
        (AddressHolders, ADDRESS, {"pods": (DB[0], "shop/virt-launcher-2"), "machine": "shop/vm"}),
        (AddressHolders, ADDRESS, {"pods": ()}),  # its status does not name the address yet
        (Allocation, ADDRESS, {"block_node": "node-c"}),  # borrowed
        (Allocation, TUNNEL, {"block_node": "node-c"}),
        (Allocation, TUNNEL, {"block_node": ""}),
        (PodInterface, {"pod": DB[0]}, {"pod_addresses": ("192.0.2.7/24", f"{DB[2]}/32")}),
        (Endpoint, {"name": DB[0]}, {"annotated": (DB[2], "fd00::1")}),
        (Endpoint, {"name": DB[0]}, {"terminating": True}),
        (Pool, {}, {"disabled": True}),  # with live pods; another pool gives the nodes their tunnel addresses
        (CalicoNode, {"name": "node-b"}, {"ready": False}),  # a node without conditions says nothing
        (FelixHealth, {"node": "node-b"}, {"ready": False}),  # once: it may be restarting
        (FelixHealth, {"node": "node-b"}, {"reachable": False, "ready": False, "live": False}),
    ],
)
def test_a_healthy_variant_is_not_accused(kind: type[Fact], where: dict[str, Any], fields: dict[str, Any]) -> None:
    diagnosis = diagnose(change(healthy(), kind, where, **fields))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("healthy", (), ())


def test_host_local_addresses_are_in_no_block_and_no_fault() -> None:
    facts = healthy()
    for address in (DB[2], TUNNEL["address"]):
        facts = change(facts, Allocation, {"address": address}, found=False, block="", block_node="")
    facts = change(facts, CalicoNode, {"name": "node-b"}, pod_cidrs=("10.244.218.0/24",))
    assert not {"allocation_missing", "tunnel_address_freed"} & {*causes(diagnose(facts)), *warnings(diagnose(facts))}


def test_an_address_outside_all_pools_is_not_ipams_business() -> None:
    facts = change(healthy(), Allocation, ADDRESS, found=False, block="", pool="", vxlan_mode="")
    assert "allocation_missing" not in (*causes(diagnose(facts)), *warnings(diagnose(facts)))


def test_a_block_that_is_gone_explains_the_route_that_is_gone() -> None:
    facts = change(healthy(), Allocation, ADDRESS, found=False, block="", block_node="")
    facts = change([one for one in facts if not isinstance(one, Leg)], RouteLookup, TO_DB, **BY_DEFAULT)
    assert causes(diagnose(facts)) == ["allocation_missing"]


FREE = {"found": False, "owner_kind": "", "owner": "", "node": "", "handle": ""}
BY_LENDER = {"found": False, "error": "EINVAL", "type": "blackhole", "prefix": "10.244.174.128/26", "protocol": 80}


@pytest.mark.parametrize(
    ("block_node", "route"),
    [
        ("", BY_DEFAULT),
        ("node-c", {"next_hop": "10.244.99.192"}),
        ("node-a", {**BY_LENDER, "device": "", "next_hop": ""}),
        ("", {"found": False, "error": "ENETUNREACH", "type": "", "prefix": "", "device": "", "next_hop": ""}),
    ],
)
def test_a_free_address_in_a_block_of_another_or_of_nobody_has_no_route(block_node: str, route: dict[str, Any]) -> None:
    facts = change(healthy(), Allocation, ADDRESS, **FREE, block_node=block_node)
    facts = change(facts, RouteLookup, TO_DB, **route)
    diagnosis = diagnose(change(facts, ProbeResult, {}, **LOST))
    assert [(one.rule, one.node, one.leg) for one in diagnosis.causes] == [("allocation_missing", "node-b", "forward")]


def test_an_address_that_ipam_holds_as_free_breaks_nothing_where_a_route_leads_to_it() -> None:
    """routeSource WorkloadIPs and BIRD route to pods whatever IPAM says; so does the block of the pod's own node."""
    for block_node in ("node-b", "node-c", ""):
        diagnosis = diagnose(change(healthy(), Allocation, ADDRESS, **FREE, block_node=block_node))
        assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", ["allocation_missing"])
    for facts in (plain(), healthy(target=WEB)):
        address = {"address": DB[2]} if facts == plain() else {"address": WEB[2]}
        diagnosis = diagnose(change(facts, Allocation, address, **FREE, block="", block_node=""))
        assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", ["allocation_missing"])


def test_a_route_that_is_gone_is_not_put_on_an_address_whose_block_is_the_node_s_own() -> None:
    facts = change(healthy(), Allocation, ADDRESS, **FREE)
    facts = change(facts, RouteLookup, TO_DB, **BY_DEFAULT)
    diagnosis = diagnose(change(facts, ProbeResult, {}, **LOST))
    assert (causes(diagnosis), warnings(diagnosis)) == (["route_missing"], ["allocation_missing"])


def test_an_address_of_another_pod_of_the_same_node_is_a_warning() -> None:
    diagnosis = diagnose(change(healthy(), Allocation, ADDRESS, owner="shop/former"))
    assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", ["allocation_owner_mismatch"])


def test_a_tunnel_address_that_the_asked_pod_was_given_breaks_it() -> None:
    both = healthy(target=(DB[0], "node-b", TUNNEL["address"], DB[3]))
    facts = [one for one in both if not (isinstance(one, Allocation) and one.handle == "vxlan-tunnel-addr-node-b")]
    (cause,) = diagnose(facts).causes
    assert (cause.rule, cause.severity, cause.node) == ("tunnel_address_used_by_pod", "breaks", "node-b")


def test_a_tunnel_address_that_another_pod_was_given_degrades() -> None:
    facts = change(healthy(), Allocation, TUNNEL, owner_kind="pod", owner="shop/other", handle="k8s-pod-network.x")
    (cause,) = diagnose(facts).causes
    assert (cause.rule, cause.severity) == ("tunnel_address_used_by_pod", "degrades")


@pytest.mark.parametrize(
    ("version", "told"), [("v3.29.7", ["tunnel_address_borrowed"]), ("v3.30.0", []), ("master", []), ("", [])]
)
def test_a_borrowed_tunnel_address_matters_before_the_version_that_routes_it(version: str, told: list[str]) -> None:
    facts = change(change(healthy(), Allocation, TUNNEL, block_node="node-c"), CalicoSettings, {}, version=version)
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", told)


# -- the node, Felix and calico-node ---------------------------------------------------------------------------------


def test_a_silent_kubelet_is_a_warning_while_packets_pass_and_the_cause_when_nothing_else_explains_their_loss() -> None:
    unready = change(healthy(), CalicoNode, {"name": "node-b"}, **UNREADY)
    diagnosis = diagnose(unready)
    assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", ["node_not_ready"])
    lost = change(unready, ProbeResult, {"size": 0}, **LOST)
    assert [(cause.rule, cause.node) for cause in diagnose(lost).causes] == [("node_not_ready", "node-b")]
    explained = diagnose(change(lost, RouteLookup, TO_DB, **BY_DEFAULT))
    assert "node_not_ready" in warnings(explained) and "node_not_ready" not in causes(explained)
    unsent = diagnose([one for one in unready if not isinstance(one, ProbeResult)])
    assert (unsent.verdict, warnings(unsent)) == ("unknown", ["node_not_ready"])


def test_a_missing_calico_node_explains_a_felix_that_does_not_answer() -> None:
    dead = {"reachable": False, "live": False, "ready": False, "confirmed": True, "detail": "nothing listens"}
    facts = change(healthy(), FelixHealth, {"node": "node-b"}, **dead)
    assert warnings(diagnose(facts)) == ["felix_not_ready"]
    diagnosis = diagnose([*facts, CalicoPod(node="node-b", running=False)])
    assert (diagnosis.verdict, warnings(diagnosis)) == ("healthy", ["calico_node_missing"])
    crashing = CalicoPod(node="node-b", running=False, name="kube-system/calico-node-x", reason="CrashLoopBackOff")
    assert "CrashLoopBackOff" in diagnose([*healthy(), crashing]).warnings[0].text


def test_a_look_that_only_warnings_rest_on_is_listed_and_leaves_a_healthy_path_healthy() -> None:
    diagnosis = diagnose([*healthy(), Blind(look="calico-node pods", reason="forbidden", minor=True)])
    assert (diagnosis.verdict, [blind.look for blind in diagnosis.blind]) == ("healthy", ["calico-node pods"])
    assert all(hop.state == "ok" for path in diagnosis.path for hop in path.hops)
    assert diagnose([*healthy(), Blind(look="pods", reason="forbidden")]).verdict == "unknown"


# -- a pod without an address ----------------------------------------------------------------------------------------

FAILED = "FailedCreatePodSandBox: error getting ClusterInformation: Unauthorized"


def waiting(**fields: Any) -> list[Fact]:
    """shop/db is scheduled and has no address; its pool has plenty."""
    young = {"address": "", "addresses": (), "phase": "Pending", "ready": False, "reason": "ContainerCreating"}
    facts = change(healthy(), Endpoint, {"name": DB[0]}, **{**young, **fields})
    roomy = PoolUsage(
        pool="default-ipv4-ippool", cidr="10.244.0.0/16", node="node-b", block_size=26, addresses=65536,
        blocks_possible=1024, blocks_taken=3, nodes=3, free_on_node=60, free_elsewhere=120, empty_elsewhere=0,
        strict_affinity=False, exhausted=False,
    )  # fmt: skip
    return [*facts, roomy]


def test_a_pod_that_is_merely_being_created_is_not_accused() -> None:
    diagnosis = diagnose(waiting(starting=True))
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.warnings) == ("unknown", (), ())
    assert "has no address yet (Pending: ContainerCreating)" in diagnosis.summary


def test_what_cni_said_is_the_cause_unless_the_datastore_is_locked() -> None:
    facts = waiting(network_failure=FAILED, reason=FAILED)
    assert causes(diagnose(facts)) == ["pod_without_ip"]
    locked = diagnose(change(facts, CalicoSettings, {}, datastore_ready=False))
    assert (causes(locked), locked.warnings) == (["datastore_not_ready"], ())


def test_a_pod_that_waits_on_a_dead_node_waits_for_the_node() -> None:
    diagnosis = diagnose(change(waiting(starting=True), CalicoNode, {"name": "node-b"}, **UNREADY))
    assert causes(diagnosis) == ["node_not_ready"]


@pytest.mark.parametrize("forbids", ["strict_affinity", "block_limit", ""])
def test_one_pool_with_room_is_enough(forbids: str) -> None:
    """The other pools' shortage is then no reason, whatever it is."""
    facts = waiting(starting=True)
    full = change(facts, PoolUsage, {}, pool="small", exhausted=True, forbids=forbids, other_pool=True)
    assert diagnose([*facts, *(one for one in full if isinstance(one, PoolUsage))]).causes == ()


def test_what_cni_said_is_told_where_no_pool_is_for_the_node() -> None:
    facts = change(waiting(network_failure=FAILED, reason=FAILED), PoolUsage, {}, pool="", cidr="")
    assert causes(diagnose(facts)) == ["pod_without_ip"]
