"""`ipam explain` on recorded clusters whose pools ran out: what it says of each node is what that node then met."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bot.errors import UserError
from bot.ipam import explain, outlook, show
from bot.ipam.outlook import Explanation, NodeOutlook
from bot.ipam.state import State
from bot.told import Told
from facts import Blind, say
from lab.drawing import invented
from lab.sketch import Sketch
from lab.variants import VARIANTS
from tests import recorded_calicoctl
from tests.calico_allocator import empty_block
from tests.ipam_states import recorded_state, state_of
from tests.recorded_states import recorded, whole_states
from tests.recordings import load

EXHAUSTION = "v3.32.1/exhaustion"
OWN, BORROWS, STRICT, FULL = ("own", ""), ("borrowed", ""), ("", "strict_affinity"), ("", "full")

# What a node's next pod and its next tunnel address would meet, and the tunnel address it has.
TRUTH: dict[str, dict[str, tuple[tuple[str, str], tuple[str, str], str]]] = {
    "1-tunnel-borrowed": {"node-a": (OWN, OWN, "10.245.0.64"), "node-c": (BORROWS, BORROWS, "10.245.0.1")},
    "2-pods-borrowed": {"node-b": (OWN, OWN, "10.245.0.0"), "node-c": (BORROWS, BORROWS, "10.245.0.1")},
    "3-strict-affinity": {"node-a": (OWN, OWN, "10.245.0.64"), "node-c": (STRICT, STRICT, "10.245.0.1")},
    "4-strict-tunnel-lost": {"node-a": (OWN, OWN, "10.245.0.64"), "node-c": (STRICT, STRICT, "")},
    "6-strict-off": {"node-b": (OWN, OWN, "10.245.0.0"), "node-c": (BORROWS, BORROWS, "10.245.0.5")},
    "7-pool-full": {node: (FULL, FULL, address) for node, address in (
        ("node-a", "10.245.0.64"), ("node-b", "10.245.0.0"), ("node-c", "10.245.0.5"))},
}  # fmt: skip


def of(known: Explanation, node: str, family: int = 4, namespace: str = "") -> NodeOutlook:
    (found,) = [
        one
        for one in known.nodes
        if (one.node, one.family) == (node, family) and (not namespace or namespace in one.namespaces)
    ]
    return found


def told_of(found: State, *nodes: str, namespace: str = "") -> Told:
    return explain.said(found, outlook.explain(found, nodes, namespace))


def notes(told: Told) -> str:
    return "\n".join(map(str, told.notes))


@pytest.mark.parametrize("state", TRUTH)
def test_each_nodes_truth_in_the_recorded_exhaustion(state: str) -> None:
    known = outlook.explain(recorded_state(f"{EXHAUSTION}/{state}"))
    for node, (pod, tunnel, address) in TRUTH[state].items():
        found = of(known, node)
        (one,) = found.tunnels
        assert ((found.pod.how, found.pod.why), (one.how, one.why), one.address) == (pod, tunnel, address), node
        assert one.lender == ("node-b" if address and node == "node-c" else "")


@pytest.mark.parametrize(
    "path", [path for path in recorded_calicoctl.files() if "/exhaustion/" in path and "cni-add" in path]
)
def test_who_was_refused_by_the_plugin_is_told_that_it_would_be(path: str) -> None:
    """Five pods asked for an address and got none; two of them after strict affinity had been switched on."""
    run = recorded_calicoctl.parsed(path)
    recording = recorded(path.rpartition("/")[0])
    for one in recording.objects:
        if one["kind"] == "IPAMConfig" and "strict" in path:
            one["spec"]["strictAffinity"] = True
    found = of(outlook.explain(state_of(recording.objects)), run["node"])
    assert run["rc"] == 1 and "Assigned 0 out of 1" in run["result"]["msg"]
    assert found.pod.why == ("strict_affinity" if "3-strict" in path else "full")


def test_who_is_told_to_borrow_did_so() -> None:
    """Between the two recordings node-c, which has no block, got two pods."""
    after = recorded_state(f"{EXHAUSTION}/2-pods-borrowed")
    pods = {one["metadata"]["name"]: one["status"]["podIP"] for one in after.all("pods")}
    assert {name: pods[name] for name in ("p-c1", "p-c2")} == {"p-c1": "10.245.0.3", "p-c2": "10.245.0.4"}


@pytest.mark.parametrize(
    ("log", "state", "said"),
    [
        ("5-strict-allocator-restart/node-c-services", "4-strict-tunnel-lost", "strict affinity enabled"),
        ("7-pool-full/allocator-full-node-c-services", "7-pool-full", "No IPs available in pools"),
    ],
)
def test_a_tunnel_address_that_calico_node_asked_for_in_vain(log: str, state: str, said: str) -> None:
    text = load("v3.32.1/loose")[f"exhaustion/{log}.log.txt"]
    assert f"failed to reconcile tunnel address: Assigned 0 out of 1 requested IPv4 addresses; {said}" in text or (
        f"No more free affine blocks and {said}" in text
    )
    (tunnel,) = of(outlook.explain(recorded_state(f"{EXHAUSTION}/{state}")), "node-c").tunnels
    assert tunnel.how == ""


def test_what_helps_is_told_with_numbers() -> None:
    strict = told_of(recorded_state(f"{EXHAUSTION}/3-strict-affinity"))
    assert (str(strict.headline), strict.mark) == ("The next pod would get no address on node-c.", "cause")
    assert "Set strictAffinity to false (not where Windows nodes are): node-c could then borrow 120 addresses" in notes(
        strict
    )
    assert "Add an IPPool for node-c: each block of /26 gives a node 64 addresses" in notes(strict)
    assert "If node-c lost its vxlan address 10.245.0.1, it would get no other." in notes(strict)
    full = told_of(recorded_state(f"{EXHAUSTION}/7-pool-full"))
    assert "120 addresses of default-ipv4-ippool look leaked: `ipam check` says which" in notes(full)
    lost = told_of(recorded_state(f"{EXHAUSTION}/4-strict-tunnel-lost"))
    assert "node-c has no vxlan address and gets none: other nodes do not reach its pods" in notes(lost)


def test_the_runbooks_arithmetic() -> None:
    (pool,) = outlook.explain(recorded_state(f"{EXHAUSTION}/2-pods-borrowed")).pools
    assert (pool.addresses, pool.in_use, pool.free) == (128, 7, 121)
    assert (pool.blocks_possible, pool.blocks_taken, pool.blocks_left) == (2, 2, 0)
    assert (pool.nodes, pool.without_block) == (3, ("node-c",))


HEALTHY = [
    state
    for state in whole_states()
    if "exhaustion" not in state and "pool-disabled" not in state and state != "v3.32.1/scale/after-delete"
]


@pytest.mark.parametrize("state", HEALTHY)
def test_no_node_of_a_recorded_cluster_with_room_is_accused(state: str) -> None:
    found = recorded_state(state)
    if not found.all("ippools"):
        pytest.fail("a state without its objects")
    told = told_of(found)
    assert (told.mark, told.status) == ("healthy", 0), told.headline
    assert "would get an address" in str(told.headline)


@pytest.mark.parametrize("state", ["v3.31.7/pool-disabled", "master-87c15906f20c/pool-disabled"])
def test_a_disabled_pool_gives_nobody_an_address(state: str) -> None:
    told = told_of(recorded_state(state))
    assert str(told.headline) == "The next pod would get no address on node-a, node-b and node-c."
    assert "default-ipv4-ippool is not for node-a, node-b and node-c: it is disabled." in notes(told)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_shape_of_a_healthy_cluster_is_accused(variant: str) -> None:
    found = state_of(invented(Sketch(), [VARIANTS[variant]]), datetime.now(UTC))
    told, used = told_of(found), show.usage(found, blocks=True)
    assert told.notes == () and used.mark == "healthy"
    if variant == "host-local":
        assert told.mark == "unknown" and "NEXT POD" not in told.text
    else:
        assert told.mark == "healthy" and {outlook["pod"]["why"] for outlook in told.data["nodes"]} == {""}


# -- what was not recorded --------------------------------------------------------------------------------------------

Change = Callable[[list[dict[str, Any]]], None]


def healthy(*changes: Change) -> State:
    """The recorded healthy cluster, changed."""
    recording = recorded("v3.32.1/healthy")
    for change in changes:
        change(recording.objects)
    return state_of(recording.objects)


def spec_of(kind: str, **spec: Any) -> Change:
    """All objects of a kind get this into their spec."""

    def change(objects: list[dict[str, Any]]) -> None:
        for one in objects:
            if one["kind"] == kind:
                one["spec"].update(spec)

    return change


def fill(node: str) -> Change:
    """Every address of the node's blocks is taken."""

    def change(objects: list[dict[str, Any]]) -> None:
        for one in objects:
            if one["kind"] == "IPAMBlock" and one["spec"]["affinity"] == f"host:{node}":
                spec = one["spec"]
                spec["allocations"] = [0 if index is None else index for index in spec["allocations"]]
                spec["unallocated"] = []

    return change


def annotated(kind: str, name: str, **annotations: str) -> Change:
    def change(objects: list[dict[str, Any]]) -> None:
        (one,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        one["metadata"].setdefault("annotations", {}).update(
            {key.replace("__", "/").replace("_", "."): value for key, value in annotations.items()}
        )

    return change


def another_pool(name: str, cidr: str, **spec: Any) -> Change:
    def change(objects: list[dict[str, Any]]) -> None:
        objects.append({
            "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr, "blockSize": 26, **spec},
        })  # fmt: skip

    return change


def test_a_node_at_its_limit_of_blocks() -> None:
    found = healthy(fill("node-b"), spec_of("IPAMConfig", maxBlocksPerHost=1, strictAffinity=True))
    known = outlook.explain(found)
    assert (of(known, "node-b").pod.why, of(known, "node-a").pod.how) == ("block_limit", "own")
    told = explain.said(found, known)
    assert "Raise maxBlocksPerHost above 1: node-b could then take one of 1021 blocks that are left." in notes(told)


def test_blocks_in_pools_that_are_not_for_the_node_do_not_count_against_its_limit() -> None:
    """Calico counts a node's blocks in the pools the request may use."""
    found = healthy(
        spec_of("IPAMConfig", maxBlocksPerHost=1, strictAffinity=True),
        spec_of("IPPool", disabled=True),
        another_pool("new", "10.9.0.0/16"),
    )
    assert (of(outlook.explain(found), "node-a").pod.how, of(outlook.explain(found), "node-a").blocks) == ("new", 0)


def test_nodes_that_take_no_blocks_by_themselves() -> None:
    found = healthy(fill("node-b"), spec_of("IPAMConfig", autoAllocateBlocks=False, strictAffinity=True))
    assert of(outlook.explain(found), "node-b").pod.why == "auto_allocate"
    assert "Set autoAllocateBlocks to true: node-b could then take one of 1021" in notes(told_of(found, "node-b"))


def test_a_pool_that_is_reserved_as_a_whole_has_no_block_left() -> None:
    def reserve(objects: list[dict[str, Any]]) -> None:
        cidrs = ["10.244.0.0/16", "10.245.0.0/16"]
        objects.append({"kind": "IPReservation", "metadata": {"name": "x"}, "spec": {"reservedCIDRs": cidrs}})

    known = outlook.explain(healthy(reserve))
    assert of(known, "node-a").pod.why == "full" and known.pools[0].blocks_left == 0
    assert "IPReservations keep back 180 addresses of default-ipv4-ippool" in notes(told_of(healthy(reserve)))


def test_pools_choose_nodes_and_uses() -> None:
    found = healthy(
        spec_of("IPPool", nodeSelector="kubernetes.io/hostname == 'node-a'"),
        another_pool("tunnels", "10.9.0.0/24", allowedUses=["Tunnel"], vxlanMode="Always"),
        another_pool("by-hand", "10.10.0.0/24", assignmentMode="Manual"),
    )
    known = outlook.explain(found)
    other = of(known, "node-b")
    assert of(known, "node-a").pod.pools == ("default-ipv4-ippool",)
    assert (other.pod.why, other.pod.refused) == (
        "no_pool",
        {"default-ipv4-ippool": "nodeSelector", "tunnels": "allowedUses", "by-hand": "assignmentMode"},
    )
    assert (other.tunnels[0].how, other.tunnels[0].pools) == ("new", ("tunnels",))
    assert "by-hand is not for node-b and node-c: its assignmentMode is Manual." in notes(explain.said(found, known))


def test_pools_choose_namespaces() -> None:
    found = healthy(
        spec_of("IPPool", namespaceSelector="kubernetes.io/metadata.name == 'default'"),
        another_pool("rest", "10.9.0.0/24", namespaceSelector="kubernetes.io/metadata.name != 'default'"),
    )
    labelled(found)
    known = outlook.explain(found)
    assert of(known, "node-a", namespace="default").pod.pools == ("default-ipv4-ippool",)
    assert of(known, "node-a", namespace="kube-system").pod.pools == ("rest",)
    (only,) = outlook.explain(found, ["node-a"], "default").nodes
    assert only.namespaces == ("default",)
    assert "NAMESPACES" in explain.said(found, known).text


def labelled(found: State) -> None:
    """Namespaces as every API server labels them."""
    for one in found.all("namespaces"):
        one["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = one["metadata"]["name"]


def test_namespaces_that_ask_for_pools_by_annotation() -> None:
    """They get addresses of those pools whatever selectors and modes say, and none when one of them is missing."""
    asks = {"cni_projectcalico_org__ipv4pools": '["by-hand", "10.11.0.0/24"]'}
    found = healthy(
        another_pool("by-hand", "10.10.0.0/24", assignmentMode="Manual", nodeSelector="!all()"),
        annotated("Namespace", "default", **asks),
    )
    known = outlook.explain(found)
    pod = of(known, "node-a", namespace="default").pod
    assert (pod.why, pod.refused["10.11.0.0/24"]) == ("no_pool", "missing")
    assert of(known, "node-a", namespace="kube-system").pod.how == "own"
    there = healthy(
        another_pool("by-hand", "10.10.0.0/24", assignmentMode="Manual", nodeSelector="!all()"),
        another_pool("other", "10.11.0.0/24"),
        annotated("Namespace", "default", **asks),
    )
    assert of(outlook.explain(there), "node-a", namespace="default").pod.pools == ("by-hand", "other")


def test_windows_nodes_get_nothing_without_strict_affinity() -> None:
    def windows(objects: list[dict[str, Any]]) -> None:
        (one,) = [one for one in objects if one["kind"] == "Node" and one["metadata"]["name"] == "node-b"]
        one["metadata"]["labels"]["kubernetes.io/os"] = "windows"

    found = of(outlook.explain(healthy(windows)), "node-b")
    assert (found.pod.why, found.tunnels) == ("windows", ())
    strict = healthy(windows, spec_of("IPAMConfig", strictAffinity=True))
    assert of(outlook.explain(strict), "node-b").pod.how == "own"


def test_every_kind_of_tunnel_a_node_needs_is_looked_at() -> None:
    found = healthy(
        another_pool("ipip", "10.9.0.0/24", ipipMode="CrossSubnet"),
        annotated("Node", "node-a", projectcalico_org__WireguardPublicKey="key"),
    )
    kinds = {one.kind: one for one in of(outlook.explain(found), "node-a").tunnels}
    assert set(kinds) == {"vxlan", "ipip", "wireguard"}
    assert (kinds["ipip"].address, kinds["ipip"].how) == ("", "new")
    assert kinds["wireguard"].pools == ("default-ipv4-ippool", "ipip")
    assert {one.kind for one in of(outlook.explain(found), "node-b").tunnels} == {"vxlan", "ipip"}


def test_a_tunnel_address_that_ipam_does_not_hold_is_told() -> None:
    found = healthy(annotated("Node", "node-a", projectcalico_org__IPv4VXLANTunnelAddr="10.244.174.190"))
    assert of(outlook.explain(found), "node-a").tunnels[0].held is False
    assert "IPAM does not hold the vxlan address 10.244.174.190 for node-a: a pod may get it." in notes(told_of(found))


def test_a_node_without_calico_lacks_no_tunnel_address() -> None:
    """A virtual kubelet's, or one whose calico-node has never started."""

    def bare(objects: list[dict[str, Any]]) -> None:
        objects.append({"kind": "Node", "metadata": {"name": "virtual", "labels": {}}})

    found = of(outlook.explain(healthy(bare)), "virtual")
    assert (found.tunnels, found.pod.how) == ((), "new")
    assert "virtual" not in notes(told_of(healthy(bare)))


def test_without_any_pool_nothing_is_said_of_anybody() -> None:
    def without(objects: list[dict[str, Any]]) -> None:
        objects[:] = [one for one in objects if one["kind"] != "IPPool"]

    told = told_of(healthy(without))
    assert (told.mark, told.status, told.text) == ("unknown", 3, "")
    assert str(told.headline).startswith("There is no IPPool, so Calico gives out no address here")


def test_pods_of_another_ipam_are_no_trouble_of_calico() -> None:
    """Host-local, or a cloud's: pods have addresses, and no block knows one of them."""

    def without(objects: list[dict[str, Any]]) -> None:
        objects[:] = [one for one in objects if one["kind"] not in ("IPAMBlock", "IPAMHandle", "BlockAffinity")]

    told = told_of(healthy(without))
    assert (told.mark, told.status) == ("unknown", 3)
    assert "not of Calico's IPAM" in str(told.headline)


def test_what_could_not_be_read_leaves_it_open() -> None:
    found = healthy()
    unread = msgspec.structs.replace(
        found,
        resources={**found.resources, "ipreservations": None},
        blind=(Blind(look="ipreservations", reason=say("you may not")),),
    )
    told = told_of(unread)
    assert (told.mark, told.status) == ("unknown", 3) and "Could not read ipreservations: you may not." in notes(told)
    for plural in ("nodes", "ipamconfigs"):
        with pytest.raises(UserError, match="nobody can say who would get an address"):
            outlook.explain(msgspec.structs.replace(found, resources={**found.resources, plural: None}))


@pytest.mark.parametrize(
    ("nodes", "namespace", "hint"),
    [(["nod-a"], "", "did you mean node-a?"), (["x"], "", "there is node-a, node-b"), ([], "defalt", "mean default?")],
)
def test_what_there_is_not_gets_the_nearest_name(nodes: list[str], namespace: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint.replace("?", r"\?")):
        outlook.explain(healthy(), nodes, namespace)


def test_json_and_csv_have_every_node() -> None:
    told = told_of(recorded_state("v3.32.1/dualstack/healthy"))
    data = json.loads(told.form("json"))
    assert {(one["node"], one["family"]) for one in data["nodes"]} == {
        (node, family) for node in ("node-a", "node-b", "node-c") for family in (4, 6)
    }
    assert data["pools"][1]["addresses"] == 2**80 and data["help"] == []
    assert len(told.form("csv").splitlines()) == 1 + 3 * 2 * 2


def test_a_large_cluster_is_answered_at_once_with_those_in_trouble_first() -> None:
    objects = recorded("v3.32.1/healthy").objects
    (node,) = [one for one in objects if one["kind"] == "Node" and one["metadata"]["name"] == "node-a"]
    for number in range(1500):
        name, cidr = f"w-{number:04}", f"10.244.{number // 16}.{number % 16 * 16}/28"
        objects.append({**node, "metadata": {**node["metadata"], "name": name}})
        objects.append({"kind": "IPAMBlock", "metadata": {"name": cidr}, "spec": empty_block(cidr, name)})
    spec_of("IPPool", blockSize=28, vxlanMode="Never")(objects)
    spec_of("IPAMConfig", maxBlocksPerHost=1, strictAffinity=True)(objects)
    fill("w-0777")(objects)
    found = state_of(objects)
    started = time.process_time()
    told = told_of(found)
    assert time.process_time() - started < 5
    assert str(told.headline) == "The next pod would get no address on w-0777."
    lines = [line for line in told.text.splitlines() if "| w-" in line or "| node-" in line]
    assert len(lines) == 1503 and lines[0].startswith("| w-0777") and lines[1].startswith("| node-a")
