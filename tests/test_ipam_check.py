"""`ipam check` says what calicoctl printed of every recorded cluster, but for its false alarms and what it never looked
at; and no address of anybody who lives is ever called leaked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from bot import leaks
from bot.errors import UserError
from bot.ipam import check, release
from bot.ipam.report import Problem, Report, report, settled
from bot.second_look import second_look
from bot.sources.kubernetes import CLASSIC
from bot.sources.names import affinity_name, block_name
from facts import Blind
from fixes.kinds.release_ip import nodes_asked
from fixes.request import Phase
from lab.drawing import invented
from lab.errors import LabError
from lab.sketch import Sketch
from lab.variants import VARIANTS, chosen
from tests import recorded_calicoctl
from tests.calico_allocator import empty_block
from tests.fix_samples import a_request
from tests.ipam_states import state_of
from tests.recorded_kernel import Recording
from tests.recorded_states import recorded, resource
from tests.recordings import changeable, load

Object = dict[str, Any]

NOW = datetime(2026, 11, 22, 23, tzinfo=UTC)  # an hour and more after everything that was recorded
LEAKS = "v3.32.1/leaks/1-before"
FLAGS = {
    "ipam-check.txt": {},
    "ipam-check-all-ips.txt": {"show_all": True},
    "ipam-check-problem-ips.txt": {"show_problems": True},
}
RUNS = [(state, name) for name in FLAGS for state in recorded_calicoctl.runs(name)]
BESIDE = {  # runs in files of their own: path -> the state, and how calicoctl was asked
    "v3.32.1/leaks/1-before/ipam-check.txt": (LEAKS, {}),
    "v3.32.1/leaks/1-before/ipam-check-all.txt": (LEAKS, {"show_all": True}),
    "v3.32.1/leaks/1-before/ipam-check-problem-ips.txt": (LEAKS, {"show_problems": True}),
    "v3.32.1/leaks/3-from-report/check-after.txt": ("after", {"show_problems": True}),
    "master-87c15906f20c/ip-cooldown/ipam-check.txt": ("cooldown", {"show_problems": True}),
}
IN_USE = "IPs that are allocated in IPAM but not actually in use."
# What calicoctl printed and we do not, by state, with the reason.
OTHERWISE: dict[str, dict[str, str]] = {
    # Three IPv6 tunnel addresses, which it does not load: they are in use, and leaked for it (calico.md 2.5).
    "v3.32.1/dualstack/healthy": {
        "Found 3 node tunnel IPs.": "Found 6 node tunnel IPs.",
        "Workloads and nodes are using 15 IPs.": "Workloads and nodes are using 18 IPs.",
        f"Found 3 {IN_USE}": f"Found 0 {IN_USE}",
        "Check complete; found 3 problems.": "Check complete; found 0 problems.",
    },
    # The same, and six pods whose status lost its IPv6 address: CNI's annotation and the pod have it.
    "v3.32.1/dualstack/status-podips-v4-only": {
        "Found 3 node tunnel IPs.": "Found 6 node tunnel IPs.",
        "Workloads and nodes are using 9 IPs.": "Workloads and nodes are using 12 IPs.",
        f"Found 9 {IN_USE}": f"Found 0 {IN_USE}",
        "Check complete; found 9 problems.": "Check complete; found 0 problems.",
    },
    # A node lost its tunnel address, and with it all traffic to other nodes: calicoctl does not look.
    "v3.32.1/exhaustion/4-strict-tunnel-lost": {
        "Check complete; found 0 problems.": "Check complete; found 1 problems.",
    },
    # A handle that is missing is a leak to come: it prints it, and does not count it.
    LEAKS: {"Check complete; found 6 problems.": "Check complete; found 7 problems."},
}


def looked(state: str) -> Report:
    if state == LEAKS:
        return report(state_of(leaking().objects, NOW))
    if state == "after":
        return report(state_of(recorded("v3.32.1/nftables-mode/0-before-switch").objects + after_release(), NOW))
    if state == "cooldown":
        return report(state_of(cooling().objects, NOW))
    return report(state_of(recorded(state).objects, NOW))


def leaking() -> Recording:
    """As it was when calicoctl was asked: two more pods, whose network had not been taken down yet."""
    found = recorded(LEAKS)
    there = {one["metadata"]["name"] for one in found.objects if one["kind"] == "Pod"}
    for pod in changeable(load("v3.32.1/loose")["leaks/2-release/pods-after-del-before-api-delete.json"]["items"]):
        if pod["metadata"]["name"] not in there:
            pod["metadata"]["annotations"]["cni.projectcalico.org/podIP"] = f"{pod['status']['podIP']}/32"
            found.objects.append(pod)
    return found


def after_release() -> list[Object]:
    """The one handle that calicoctl's release left behind by counting wrongly (calico.md 2.2)."""
    there = {one["metadata"]["name"] for one in recorded("v3.32.1/nftables-mode/0-before-switch").objects}
    items: list[Object] = load("v3.32.1/loose")["leaks/3-from-report/after/ipamhandles.json"]["items"]
    return [one for one in changeable(items) if one["metadata"]["name"] not in there]


def cooling() -> Recording:
    """The pod whose address cools down has no handle any more."""
    found = recorded("master-87c15906f20c/ip-cooldown/after-del")
    held = {held.handle for some in report(state_of(found.objects)).allocations.values() for held in some}
    found.objects[:] = [one for one in found.objects if one["kind"] != "IPAMHandle" or one["spec"]["handleID"] in held]
    return found


def test_every_recorded_check_is_looked_at() -> None:
    assert len(RUNS) == 51
    beside = {path for path in recorded_calicoctl.files() if "check" in path and "/calicoctl/" not in path}
    # What is left was asked of the state of another one here: pods bind the same addresses.
    assert beside - BESIDE.keys() == {
        "v3.32.1/exhaustion/3-strict-affinity/ipam-check.txt",
        "v3.32.1/leaks/3-from-report/check-locked-1.txt",
        "v3.32.1/leaks/3-from-report/check-locked-2.txt",
    }


def same_lines(theirs: str, ours: str, state: str, *, whole: bool = True) -> None:
    """Each of their lines is one of ours, and in their order, but for lists that calicoctl prints in any order.

    whole: it came to its end, so that the lists are all there.
    """
    told = OTHERWISE.get(state, {})
    printed = [told.get(line, line) for line in theirs.rstrip("\n").split("\n")]
    said = ours.split("\n")
    false_alarms = [line for line in printed if " leaked; attrs Main:vxlan-v6-tunnel-addr-" in line]
    if state == "v3.32.1/dualstack/status-podips-v4-only":
        false_alarms = [line for line in printed if " leaked; attrs " in line]
    printed = [line for line in printed if line not in false_alarms]
    assert [line for line in printed if line not in said] == []
    ordered = [
        line for line in printed if " leaked; " not in line and " has " not in line and " belongs to " not in line
    ]
    left = iter(said)
    assert all(line in left for line in ordered), "in another order"
    for kind in (" leaked; ", " belongs to ") if whole else ():
        assert sorted(line for line in said if kind in line and "fd00" not in line) == sorted(
            line for line in printed if kind in line and "fd00" not in line
        ), kind


@pytest.mark.parametrize(("state", "name"), RUNS)
def test_it_says_what_calicoctl_printed(state: str, name: str) -> None:
    printed = recorded_calicoctl.runs(name)[state]
    if printed.status:  # it gives up where there is no KubeControllersConfiguration, in the middle of it
        assert "KubeControllersConfiguration(default)" in printed.error
    same_lines(printed.text, check.text(looked(state), **FLAGS[name]), state, whole=not printed.status)


@pytest.mark.parametrize("path", BESIDE)
def test_it_says_what_calicoctl_printed_of_leaks(path: str) -> None:
    state, flags = BESIDE[path]
    same_lines(recorded_calicoctl.printed(path).text, check.text(looked(state), **flags), state)


@pytest.mark.parametrize("path", [one for one in recorded_calicoctl.files() if one.endswith("ipam-check-report.json")])
def test_the_report_is_calicoctls_own_and_more(path: str) -> None:
    """calicoctl's release --from-report would read it."""
    state = path.partition("/calicoctl/")[0]
    now = looked({"master-87c15906f20c/ip-cooldown": "cooldown"}.get(state, state))
    ours = json.loads(msgspec.json.encode(check.data(check.Looks(now), [], "test")))
    for name, theirs in recorded_calicoctl.parsed(path).items():
        if name != "allocations":
            assert (name, ours[name]) == (name, theirs)
            continue
        assert ours[name].keys() == theirs.keys()
        for address, some in theirs.items():
            if some[0].get("type") == "vxlanV6TunnelAddress":  # not in use, for calicoctl
                node = some[0]["node"]
                some = [{**some[0], "inUse": True, "owners": [f"Node({node})"]}]
            assert ours[name][address] == some


@pytest.mark.parametrize("state", [*recorded_calicoctl.runs("ipam-check.txt"), "cooldown"])
def test_nothing_is_wrong_where_nothing_was_broken(state: str) -> None:
    wounded = {
        "v3.32.1/exhaustion/4-strict-tunnel-lost": {"no_tunnel_address"},
        "v3.32.1/exhaustion/7-pool-full": {"leaked"},
        "v3.32.1/scale/200-nodes": {"missing_handle"},  # two hundred nodes that nobody but a script made
    }
    assert {one.kind for one in looked(state).problems} == wounded.get(state, set())


# -- false alarms ----------------------------------------------------------------------------------------------------


def healthy() -> list[Object]:
    return recorded("v3.32.1/healthy").objects


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def block(objects: list[Object], node: str) -> Object:
    """The spec of the node's first one."""
    return next(one["spec"] for one in objects if one["kind"] == "IPAMBlock" and one["spec"]["affinity"].endswith(node))


def hold(objects: list[Object], spec: Object, handle: str | None, *, more: Object | None = None, **about: Any) -> str:
    """One more address of the block, given to somebody; its handle counts it."""
    ordinal = spec["unallocated"].pop(0)
    attribute = {"secondary": about, **({"handle_id": handle} if handle else {}), **(more or {})}
    spec["attributes"].append(attribute)
    spec["allocations"][ordinal] = len(spec["attributes"]) - 1
    spec.setdefault("sequenceNumberForAllocation", {})[str(ordinal)] = spec.setdefault("sequenceNumber", 1)
    spec["sequenceNumber"] += 1
    if handle and handle != "windows-reserved-ipam-handle":
        objects.append(
            {
                "kind": "IPAMHandle",
                "metadata": {"name": handle.lower(), "uid": f"uid-{handle}", "resourceVersion": "1"},
                "spec": {"handleID": handle, "block": {spec["cidr"]: 1}, "deleted": False},
            }
        )
    return str(ip_network(spec["cidr"])[ordinal])


def ipv6_and_wireguard(objects: list[Object]) -> None:
    annotations = one(objects, "Node", "node-b")["metadata"]["annotations"]
    for prefix, kind, annotation in (
        ("wireguard-tunnel-addr", "wireguardTunnelAddress", "IPv4WireguardInterfaceAddr"),
        ("ipip-tunnel-addr", "ipipTunnelAddress", "IPv4IPIPTunnelAddr"),
    ):
        address = hold(objects, block(objects, "node-b"), f"{prefix}-node-b", node="node-b", type=kind)
        annotations[f"projectcalico.org/{annotation}"] = address
    cidr = "fd00:10:244::40/122"
    objects.append(
        {"kind": "IPPool", "metadata": {"name": "six"}, "spec": {"cidr": "fd00:10:244::/48", "blockSize": 122}}
    )
    spec = {**empty_block(cidr, "node-b"), "cidr": cidr}
    objects.append({"kind": "IPAMBlock", "metadata": {"name": block_name(ip_network(cidr))}, "spec": spec})
    objects.append(affinity("node-b", cidr))
    for prefix, kind, annotation in (
        ("wireguard-v6-tunnel-addr", "wireguardV6TunnelAddress", "IPv6WireguardInterfaceAddr"),
        ("vxlan-v6-tunnel-addr", "vxlanV6TunnelAddress", "IPv6VXLANTunnelAddr"),
    ):
        address = hold(objects, spec, f"{prefix}-node-b", node="node-b", type=kind)
        annotations[f"projectcalico.org/{annotation}"] = address


def affinity(node: str, cidr: str, **spec: Any) -> Object:
    return {
        "kind": "BlockAffinity",
        "metadata": {"name": affinity_name(node, ip_network(cidr))},
        "spec": {"node": node, "cidr": cidr, "state": "confirmed", "type": "host", "deleted": "false", **spec},
    }


def wireguard_on_the_nodes_own_address(objects: list[Object]) -> None:
    node = one(objects, "Node", "node-c")
    own = node["metadata"]["annotations"]["projectcalico.org/IPv4Address"].partition("/")[0]
    node["metadata"]["annotations"]["projectcalico.org/IPv4WireguardInterfaceAddr"] = own


def disabled_pool(objects: list[Object]) -> None:
    """One that is not of VXLAN: of the last one the nodes lose their tunnels."""
    one(objects, "IPPool", "default-ipv4-ippool")["spec"].update(disabled=True, vxlanMode="Never")


def starting(objects: list[Object]) -> None:
    """Its address is there before it says so."""
    hold(objects, block(objects, "node-a"), "k8s-pod-network.cafe", namespace="default", pod="new", node="node-a")
    objects.append(
        {
            "kind": "Pod",
            "metadata": {"name": "new", "namespace": "default"},
            "spec": {"nodeName": "node-a"},
            "status": {"phase": "Pending"},
        }
    )


def just_gone(objects: list[Object]) -> None:
    """Deleted by force, or between two reads of ours."""
    now = f"{NOW - timedelta(seconds=20):%Y-%m-%d %H:%M:%S}.120391 +0000 UTC"
    about: Object = {"namespace": "default", "pod": "gone", "node": "node-a", "timestamp": now}
    hold(objects, block(objects, "node-a"), "k8s-pod-network.cafe", **about)


def release_of(objects: list[Object], name: str) -> Object:
    """CNI has taken its network down; returns the pod."""
    pod = one(objects, "Pod", name)
    spec, address = block(objects, "node-a"), pod["status"]["podIP"]
    ordinal = int(ip_address(address)) - int(ip_network(spec["cidr"]).network_address)
    gone = spec["attributes"].pop(spec["allocations"][ordinal])
    index, spec["allocations"][ordinal] = spec["allocations"][ordinal], None
    spec["allocations"] = [at - 1 if at is not None and at > index else at for at in spec["allocations"]]
    spec["unallocated"].append(ordinal)
    objects[:] = [item for item in objects if (item.get("spec") or {}).get("handleID") != gone["handle_id"]]
    return pod


def ending(objects: list[Object]) -> None:
    release_of(objects, "pod-a1")["metadata"]["deletionTimestamp"] = "2026-11-22T22:59:59Z"


def made_anew(objects: list[Object]) -> None:
    """The kubelet makes its sandbox once more."""
    annotations = release_of(objects, "pod-a1")["metadata"]["annotations"]
    annotations |= {"cni.projectcalico.org/podIP": "", "cni.projectcalico.org/podIPs": ""}


def finished(objects: list[Object]) -> None:
    one(objects, "Pod", "pod-a1")["status"]["phase"] = "Succeeded"


def second_network(objects: list[Object]) -> None:
    pod = one(objects, "Pod", "pod-a1")
    address = hold(objects, block(objects, "node-a"), "net2.beef", namespace="default", pod="pod-a1-old", node="node-a")
    status = json.dumps([{"name": "net2", "interface": "net1", "ips": [address]}])
    pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"] = status


def machine_without_pod(objects: list[Object]) -> None:
    about: Object = {"namespace": "default", "pod": "virt-launcher-x", "node": "node-a", "vmi-name": "x"}
    hold(objects, block(objects, "node-a"), "k8s-pod-network.vmi.default.x", **about)


def machine_that_moves(objects: list[Object]) -> None:
    pod = changeable(one(objects, "Pod", "pod-a1"))
    owner = {"ownerReferences": [{"kind": "VirtualMachineInstance", "name": "x"}]}
    one(objects, "Pod", "pod-a1")["metadata"] |= owner
    pod["metadata"] |= {"name": "pod-a1-moved", "uid": "other", **owner}
    objects.append(pod)
    spec = block(objects, "node-a")
    (held,) = [attribute for attribute in spec["attributes"] if attribute["secondary"].get("pod") == "pod-a1"]
    held["alternateOwnerAttrs"] = {"pod": "pod-a1-moved", "namespace": "default"}


def load_balancer(objects: list[Object]) -> None:
    """Nobody configured its controller here, as calicoctl would want it."""
    objects[:] = [item for item in objects if item["kind"] != "KubeControllersConfiguration"]
    cidr = "10.244.3.0/26"
    spec = {**empty_block(cidr, "x"), "cidr": cidr, "affinity": "virtual:load-balancer"}
    objects.append({"kind": "IPAMBlock", "metadata": {"name": block_name(ip_network(cidr))}, "spec": spec})
    objects.append(affinity("load-balancer", cidr, type="virtual"))
    for name in ("shown", "asked-for", "gone"):  # of the last one kube-controllers give the address back
        about: Object = {"service": name, "namespace": "shop", "type": "LoadBalancer"}
        address = hold(objects, spec, f"lb-{name}", **about)
        status = {"loadBalancer": {"ingress": [{"ip": address}]}} if name == "shown" else {}
        metadata = {"name": name, "namespace": "shop"}
        if name != "gone":
            objects.append({"kind": "Service", "metadata": metadata, "spec": {}, "status": status})


def other_load_balancer(objects: list[Object]) -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "10.244.77.7"}, {"hostname": "lb.example"}]}}
    objects.append({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {}, "status": status})


def no_configuration(objects: list[Object]) -> None:
    objects[:] = [item for item in objects if item["kind"] not in ("KubeControllersConfiguration", "IPAMConfig")]


def windows(objects: list[Object]) -> None:
    for _ in range(3):
        about: Object = {"note": "windows host reserved"}
        hold(objects, block(objects, "node-a"), "windows-reserved-ipam-handle", **about)


def cooldown(objects: list[Object]) -> None:
    hold(objects, block(objects, "node-a"), None, more={"releasedAt": "2026-11-22T22:59:00Z"})


def of_nobody_known(objects: list[Object]) -> None:
    """What another program has of Calico's IPAM."""
    hold(objects, block(objects, "node-a"), "egress-gateway-7", node="node-a")
    hold(objects, block(objects, "node-a"), None)


def own_wish(objects: list[Object]) -> None:
    pod = changeable(one(objects, "Pod", "pod-a1"))
    pod["metadata"] |= {"name": "fixed", "annotations": {"cni.projectcalico.org/ipAddrsNoIpam": '["10.244.9.9"]'}}
    pod["status"] |= {"podIP": "10.244.9.9", "podIPs": [{"ip": "10.244.9.9"}]}
    objects.append(pod)


def empty_and_claimed(objects: list[Object]) -> None:
    """A node keeps one empty block; another is being claimed, one given up, one of a node that has gone."""
    for node, cidr in (("node-a", "10.244.5.0/26"), ("node-gone", "10.244.6.0/26")):
        spec = {**empty_block(cidr, node), "cidr": cidr}
        objects.append({"kind": "IPAMBlock", "metadata": {"name": block_name(ip_network(cidr))}, "spec": spec})
        objects.append(affinity(node, cidr))
    objects.append(affinity("node-b", "10.244.7.0/26", state="pending"))
    objects.append(affinity("node-b", "10.244.8.0/26", state="pendingDeletion", deleted="true"))
    objects.append(affinity("node-c", "10.244.5.0/26", state="pending"))


def counts_too_many(objects: list[Object]) -> None:
    handle = next(item for item in objects if item["kind"] == "IPAMHandle")
    handle["spec"]["block"] = {cidr: count + 1 for cidr, count in handle["spec"]["block"].items()} | {
        "10.244.9.0/26": 1
    }


def handle_being_deleted(objects: list[Object]) -> None:
    handle = changeable(next(item for item in objects if item["kind"] == "IPAMHandle"))
    handle["spec"] |= {"handleID": "k8s-pod-network.gone", "deleted": True, "block": {}}
    objects.append(handle)


def other_ipam(objects: list[Object]) -> None:
    """host-local: no block, no handle, and every pod has an address inside the pool."""
    gone = ("IPAMBlock", "IPAMHandle", "BlockAffinity")
    objects[:] = [item for item in objects if item["kind"] not in gone]
    for number, node in enumerate(item for item in objects if item["kind"] == "Node"):
        annotations = node["metadata"]["annotations"]
        annotations.pop("projectcalico.org/IPv4VXLANTunnelAddr")
        annotations["projectcalico.org/IPv4IPIPTunnelAddr"] = f"10.244.{number}.1"


def elsewhere(objects: list[Object]) -> None:
    """A node where no Calico runs, and one of Windows."""
    objects.append({"kind": "Node", "metadata": {"name": "virtual"}, "spec": {}, "status": {}})
    node = changeable(one(objects, "Node", "node-b"))
    node["metadata"] |= {"name": "win", "labels": {"kubernetes.io/os": "windows"}, "annotations": {}}
    objects.append(node)


def pods_of_a_node_without_calico(objects: list[Object]) -> None:
    objects.append({"kind": "Node", "metadata": {"name": "serverless"}, "spec": {}, "status": {}})
    for address in ("192.0.2.9", "10.244.201.9"):
        pod = changeable(one(objects, "Pod", "pod-a1"))
        pod["metadata"] |= {"name": f"far-{address}", "annotations": {}}
        pod["spec"]["nodeName"] = "serverless"
        pod["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
        objects.append(pod)


def host_network(objects: list[Object]) -> None:
    pod = changeable(one(objects, "Pod", "pod-a1"))
    pod["metadata"] |= {"name": "proxy"}
    pod["spec"]["hostNetwork"] = True
    pod["status"] |= {"podIP": "172.30.0.1", "podIPs": [{"ip": "172.30.0.1"}]}
    objects.append(pod)


HEALTHY = [
    ipv6_and_wireguard,
    wireguard_on_the_nodes_own_address,
    disabled_pool,
    starting,
    just_gone,
    ending,
    made_anew,
    finished,
    second_network,
    machine_without_pod,
    machine_that_moves,
    load_balancer,
    other_load_balancer,
    no_configuration,
    windows,
    cooldown,
    of_nobody_known,
    own_wish,
    empty_and_claimed,
    counts_too_many,
    handle_being_deleted,
    other_ipam,
    elsewhere,
    pods_of_a_node_without_calico,
    host_network,
]


@pytest.mark.parametrize("shape", HEALTHY)
def test_what_is_no_fault_is_not_counted(shape: Callable[[list[Object]], None]) -> None:
    objects = healthy()
    shape(objects)
    now = report(state_of(objects, NOW))
    assert [one.text for one in now.problems] == []
    assert not now.leaks
    headline = check.headline(check.Looks(now))
    assert headline.endswith("nothing to compare." if shape is other_ipam else "belongs together.")


@given(st.lists(st.sampled_from([one for one in HEALTHY if one is not other_ipam]), unique=True, max_size=8), st.data())
def test_whatever_else_is_there_nobody_who_lives_has_a_leaked_address(
    shapes: list[Callable[[list[Object]], None]], data: st.DataObject
) -> None:
    """Any healthy shapes at once, with leaks and lost objects between them."""
    objects = healthy()
    living = {str(ip["ip"]) for item in objects if item["kind"] == "Pod" for ip in item["status"].get("podIPs") or ()}
    living |= {
        item["metadata"]["annotations"]["projectcalico.org/IPv4VXLANTunnelAddr"]
        for item in objects
        if item["kind"] == "Node"
    }
    planted: set[str] = set()
    for node in data.draw(st.lists(st.sampled_from(["node-a", "node-b", "node-c"]), max_size=6)):
        about: Object = {"namespace": "shop", "pod": f"gone-{len(planted)}", "node": node}
        planted.add(hold(objects, block(objects, node), f"k8s-pod-network.dead{len(planted)}", **about))
    for shape in shapes:
        if {made_anew, ending, finished} & set(shapes) and shape in (machine_that_moves, second_network):
            continue  # of a pod that they have changed
        if shape is made_anew and ending in shapes:
            continue
        shape(objects)
    lost = data.draw(
        st.sets(st.sampled_from(["IPAMHandle", "BlockAffinity", "IPPool", "KubeControllersConfiguration"]))
    )
    objects[:] = [item for item in objects if item["kind"] not in lost]
    now = report(state_of(objects, NOW))
    leaked = {one.address for one in now.of("leaked")}
    assert leaked == planted == now.leaks.keys()
    assert not leaked & living


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_shape_of_a_healthy_cluster_is_accused(variant: str) -> None:
    now = report(state_of(invented(Sketch(), [VARIANTS[variant]]), datetime.now(UTC)))
    # Of one look nobody can tell a pod that went a moment ago from one whose address leaked, and we do not say so.
    suspected = {"young-leak": ["leaked"], "handle-that-counts-too-many": ["leaked_handle"]}
    assert [one.kind for one in now.problems] == suspected.get(variant, [])
    if variant == "young-leak":
        assert check.headline(check.Looks(now)) == "IPAM has problems: addresses that look leaked (1)."


@given(st.lists(st.sampled_from(sorted(VARIANTS)), min_size=2, max_size=4, unique=True))
def test_nor_any_of_several_shapes_at_once(variants: list[str]) -> None:
    try:
        shapes = chosen("+".join(variants))
    except LabError:
        reject()  # two that no cluster has at once
    objects = invented(Sketch(), shapes)
    now = report(state_of(objects, datetime.now(UTC)))
    left = [one for one in now.problems if one.pod != "shop/gone" and not one.about.endswith(".orphan")]
    assert [one.text for one in left] == []


# -- faults ----------------------------------------------------------------------------------------------------------


def faults() -> dict[str, Callable[[list[Object]], None]]:
    def tunnel_of_gone_node(objects: list[Object]) -> None:
        hold(objects, block(objects, "node-a"), "vxlan-tunnel-addr-node-z", node="node-z", type="vxlanTunnelAddress")

    def tunnel_not_in_use(objects: list[Object]) -> None:
        about: Object = {"node": "node-b", "type": "vxlanV6TunnelAddress"}
        hold(objects, block(objects, "node-a"), "vxlan-v6-tunnel-addr-node-b", **about)

    def old_incarnation(objects: list[Object]) -> None:
        """A StatefulSet's pod of the same name has another sandbox, and another address."""
        hold(objects, block(objects, "node-a"), "k8s-pod-network.01d", namespace="default", pod="pod-a1", node="node-a")

    def two_pods(objects: list[Object]) -> None:
        pod = changeable(one(objects, "Pod", "pod-a1"))
        pod["metadata"]["name"] = "thief"
        pod["metadata"]["annotations"].pop("cni.projectcalico.org/containerID")
        objects.append(pod)

    def tunnel_and_pod(objects: list[Object]) -> None:
        address = one(objects, "Pod", "pod-a1")["status"]["podIP"]
        one(objects, "Node", "node-b")["metadata"]["annotations"]["projectcalico.org/IPv4VXLANTunnelAddr"] = address

    def not_allocated(objects: list[Object]) -> None:
        release_of(objects, "pod-a1")

    def outside(objects: list[Object]) -> None:
        pod = changeable(one(objects, "Pod", "pod-a1"))
        pod["metadata"]["name"] = "stranger"
        pod["status"] |= {"podIP": "192.0.2.9", "podIPs": [{"ip": "192.0.2.9"}]}
        objects.append(pod)

    def no_pool(objects: list[Object]) -> None:
        objects[:] = [item for item in objects if item["kind"] != "IPPool"]

    def overlap(objects: list[Object]) -> None:
        cidr = "10.244.174.160/28"
        spec = {**empty_block(cidr, "node-a"), "cidr": cidr}
        objects.append({"kind": "IPAMBlock", "metadata": {"name": block_name(ip_network(cidr))}, "spec": spec})
        objects.append(affinity("node-a", cidr))

    def broken_block(objects: list[Object]) -> None:
        block(objects, "node-a")["unallocated"].pop()

    def orphan(objects: list[Object]) -> None:
        handle = changeable(next(item for item in objects if item["kind"] == "IPAMHandle"))
        handle["spec"]["handleID"] = "k8s-pod-network.Orphan"
        objects.append(handle)

    def lost_handle(objects: list[Object]) -> None:
        objects.remove(next(item for item in objects if item["kind"] == "IPAMHandle"))

    def forgetful_handle(objects: list[Object]) -> None:
        next(item for item in objects if item["kind"] == "IPAMHandle")["spec"]["block"] = {}

    def stale_claim(objects: list[Object]) -> None:
        objects.append(affinity("node-c", "10.244.174.128/26"))

    def no_block(objects: list[Object]) -> None:
        objects.append(affinity("node-c", "10.244.44.0/26", state=""))

    def no_affinity(objects: list[Object]) -> None:
        objects.remove(next(item for item in objects if item["kind"] == "BlockAffinity"))

    def twice(objects: list[Object]) -> None:
        again = changeable(next(item for item in objects if item["kind"] == "BlockAffinity"))
        again["metadata"]["name"] += "-again"
        objects.append(again)

    def no_tunnel(objects: list[Object]) -> None:
        node = one(objects, "Node", "node-c")["metadata"]["annotations"]
        node.pop("projectcalico.org/IPv4VXLANTunnelAddr")

    return dict(locals())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("tunnel_of_gone_node", [("leaked", "10.244.174.135")]),
        ("tunnel_not_in_use", [("leaked", "10.244.174.135")]),
        ("old_incarnation", [("leaked", "10.244.174.135")]),
        ("two_pods", [("several_owners", "10.244.174.132"), ("held_for_another", "10.244.174.132")]),
        (
            "tunnel_and_pod",
            [
                ("leaked", "10.244.218.64"),
                ("several_owners", "10.244.174.132"),
                ("held_for_another", "10.244.174.132"),
            ],
        ),
        ("not_allocated", [("not_allocated", "10.244.174.132")]),
        ("outside", [("outside_pools", "192.0.2.9")]),
        (
            "no_pool",
            [("block_in_no_pool", cidr) for cidr in ("10.244.174.128/26", "10.244.218.64/26", "10.244.99.192/26")],
        ),
        ("overlap", [("overlapping_blocks", "10.244.174.160/28")]),
        ("broken_block", [("invalid_block", "10.244.174.128/26")]),
        ("orphan", [("leaked_handle", "k8s-pod-network.Orphan")]),
        (
            "lost_handle",
            [("missing_handle", "k8s-pod-network.0a67ff089b1d14ab820aa873cd06fd7273ab3d7b370de3ec58b2c65ddae8bfc2")],
        ),
        (
            "forgetful_handle",
            [
                (
                    "handle_counts_less",
                    "k8s-pod-network.0a67ff089b1d14ab820aa873cd06fd7273ab3d7b370de3ec58b2c65ddae8bfc2",
                )
            ],
        ),
        ("stale_claim", [("claimed_by_another", "10.244.174.128/26")]),
        ("no_block", [("affinity_without_block", "10.244.44.0/26")]),
        ("no_affinity", [("block_without_affinity", "10.244.174.128/26")]),
        ("twice", [("affinity_twice", "10.244.174.128/26")]),
        ("no_tunnel", [("leaked", "10.244.99.192"), ("no_tunnel_address", "node-c")]),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(fault: str, expected: list[tuple[str, str]]) -> None:
    objects = healthy()
    faults()[fault](objects)
    now = report(state_of(objects, NOW))
    assert [(one.kind, one.about) for one in now.problems] == expected
    assert check.WORDS.keys() >= {kind for kind, _ in expected}, "the first line has no word for it"
    shown = check.text(now, show_problems=True)
    assert all(f"  {one.text}" in shown for one in now.problems)
    assert set(now.leaks) == ({"10.244.174.135"} if fault == "old_incarnation" else set()), "only a pod's is released"


def test_every_fault_is_tried() -> None:
    assert len(faults()) == 18


@pytest.mark.parametrize(
    ("lost", "kinds"),
    [
        ("pods", {"leaked_handle", "missing_handle"}),
        ("nodes", {"leaked_handle", "missing_handle"}),
        ("ipamhandles", {"leaked", "not_allocated"}),
    ],
)
def test_nothing_is_said_of_what_could_not_be_read(lost: str, kinds: set[str]) -> None:
    seen = state_of(leaking().objects, NOW)
    blind = (Blind(look=lost, reason="the API server answered 403"),)
    now = report(msgspec.structs.replace(seen, resources={**seen.resources, lost: None}, blind=blind))
    assert {one.kind for one in now.problems} == kinds
    assert "Check complete as far as could be seen; " in check.text(now)
    calm = state_of(healthy(), NOW)
    now = report(msgspec.structs.replace(calm, resources={**calm.resources, lost: None}, blind=blind))
    assert check.headline(check.Looks(now)) == "Nothing wrong was found in IPAM, but not all of it could be read."


# -- two looks -------------------------------------------------------------------------------------------------------


def test_what_shows_in_one_of_two_looks_is_no_problem() -> None:
    first, second = looked(LEAKS), looked("v3.32.1/healthy")
    assert settled(first, second).problems == []
    now = settled(second, first)
    assert now.problems == [] and now.leaks == {}
    assert len(now.of("passing")) == 7
    assert [one.key for one in settled(first, first).problems] == [one.key for one in first.problems]


def later(minutes: float, change: Callable[[list[Object]], None] = lambda _: None) -> Report:
    objects = leaking().objects
    change(objects)
    return report(state_of(objects, NOW + timedelta(minutes=minutes)))


def given_away_again(objects: list[Object]) -> None:
    (spec,) = [
        item["spec"] for item in objects if item["kind"] == "IPAMBlock" and item["spec"]["cidr"] == "10.245.0.64/26"
    ]
    spec["sequenceNumberForAllocation"]["3"] += 1


def test_an_address_may_go_once_exactly_that_allocation_was_leaked_long_enough() -> None:
    looks = check.Looks(later(0))
    assert (looks.ripe(), looks.repeated) == ([], False)
    beside = "handles without addresses (1), handles that are missing (1)"
    found = "addresses in use that are not allocated (1)"
    assert check.headline(looks) == f"IPAM has problems: {found}, {beside}, addresses that look leaked (4)."
    looks.add(later(14))
    assert (looks.ripe(), looks.repeated, len(looks.lasting())) == ([], True, 7)
    looks.add(later(15, given_away_again))
    assert looks.ripe() == ["10.245.0.7", "10.245.0.68", "10.245.0.69"]
    assert check.headline(looks) == (
        f"IPAM has problems: leaked addresses (3), {found}, {beside}, addresses that look leaked (1)."
    )
    assert [one.address for one in looks.new()] == [one.address for one in looks.gone.values()] == ["10.245.0.67"]
    looks.add(later(29.9, given_away_again))
    assert "10.245.0.67" not in looks.ripe()
    looks.add(later(30, given_away_again))
    assert "10.245.0.67" in looks.ripe()
    told = check.changes(looks)
    assert "Stayed the same: 6\n" in told and "Came meanwhile: 1\n  10.245.0.67 leaked" in told


def test_a_problem_that_went_and_came_back_is_there_since_it_came_back() -> None:
    looks = check.Looks(later(0))
    looks.add(looked("v3.32.1/healthy"))
    assert len(looks.gone) == 7
    looks.add(later(20))
    assert (looks.ripe(), looks.gone) == ([], {})


def test_the_grace_is_that_of_the_clusters_own_controllers() -> None:
    def longer(objects: list[Object]) -> None:
        configuration = resource_of(objects, "KubeControllersConfiguration")
        configuration["spec"]["controllers"]["node"]["leakGracePeriod"] = "1h0m0s"

    looks = check.Looks(later(0, longer))
    looks.add(later(59, longer))
    assert looks.ripe() == []
    looks.add(later(60, longer))
    assert len(looks.ripe()) == 4


def resource_of(objects: list[Object], kind: str) -> Object:
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def test_a_saved_report_is_the_first_of_two_looks() -> None:
    saved = msgspec.json.encode(check.data(check.Looks(later(0)), [], "test"))
    looks = check.Looks(later(15), msgspec.json.decode(saved, type=check.Earlier))
    assert len(looks.ripe()) == 4 and looks.seen()["10.245.0.7"] == NOW
    again = json.loads(msgspec.json.encode(check.data(looks, [], "test")))
    assert len(again["since"]["same"]) == 7 and again["since"]["gone"] == again["since"]["new"] == []


# -- what may not be released ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.245.0.67", ""),
        ("10.245.0.9", "it is in use by Workload(default/node--b-k8s-released--b-eth0) and not allocated, so there is"),
        ("10.245.0.65", "it is in use by Workload(default/node--a-k8s-p--a1-eth0)"),
        ("10.245.0.64", "it is in use by Node(node-a)"),
        ("10.245.0.90", "it is not assigned: block 10.245.0.64/26 has it free"),
        ("192.168.1.1", "it is not assigned: no block contains it"),
    ],
)
def test_who_may_not_be_released_is_told_why(address: str, why: str) -> None:
    seen = state_of(leaking().objects, NOW)
    assert release.why_not(report(seen), seen, address).startswith(why)
    assert bool(release.why_not(report(seen), seen, address)) == bool(why)


@pytest.mark.parametrize(
    ("handle", "about", "more", "why"),
    [
        (
            "vxlan-tunnel-addr-node-z",
            {"node": "node-z", "type": "vxlanTunnelAddress"},
            {},
            "it is the address of a node's tunnel",
        ),
        ("windows-reserved-ipam-handle", {"note": "x"}, {}, "it is reserved for Windows"),
        ("lb-x", {"service": "x", "namespace": "shop"}, {}, "it is a load balancer's"),
        (
            "k8s-pod-network.vmi.shop.x",
            {"namespace": "shop", "pod": "virt-launcher", "vmi-name": "x"},
            {},
            "it is a virtual",
        ),
        (
            "k8s-pod-network.1",
            {"namespace": "shop", "pod": "x"},
            {"alternateOwnerAttrs": {"pod": "y"}},
            "it has two owners",
        ),
        (None, {}, {}, "no pod, node or service stands in its allocation"),
        (
            None,
            {},
            {"releasedAt": "2026-11-22T22:59:00Z"},
            "it is released already and in its cooldown, since 2026-11-22T2",
        ),
        (
            "k8s-pod-network.1",
            {"namespace": "default", "pod": "pod-a1"},
            {},
            "it is allocated to default/pod-a1, and that pod",
        ),
        (
            "k8s-pod-network.1",
            {"namespace": "default", "pod": "x", "timestamp": "2026-11-22 22:59:30.1 +0000 UTC"},
            {},
            "it was given to default/x 30 s ago, which is not there",
        ),
    ],
)
def test_no_other_kind_of_address_is_ever_released(handle: str | None, about: Object, more: Object, why: str) -> None:
    objects = healthy()
    if about.get("pod") == "pod-a1":  # it has no sandbox yet that could be told from that of before
        one(objects, "Pod", "pod-a1")["metadata"]["annotations"].pop("cni.projectcalico.org/containerID")
    address = hold(objects, block(objects, "node-a"), handle, more=more, **about)
    seen = state_of(objects, NOW)
    assert release.why_not(report(seen), seen, address).startswith(why)


def asked(objects: list[Object], *, silent: tuple[str, ...] = (), routed: tuple[str, ...] = ()) -> Any:
    """What becomes of the wish to release 10.245.0.67 once the nodes have told of their routes: (evidence, arguments)
    of a request, or an Outcome."""
    seen = state_of(objects, NOW)
    found, address = report(seen), "10.245.0.67"
    nodes = tuple(sorted(one["metadata"]["name"] for one in seen.all("nodes")))
    told = leaks.Routes(nodes=nodes, silent={address: silent}, routed={address: routed})
    (held,) = found.allocations[address]
    coming = release._arguments(found.leaks[address], held, found, seen, told, NOW)
    with pytest.raises(StopIteration) as end:
        coming.send(None)
    return end.value.value


def test_a_leaked_address_is_asked_for_with_all_its_release_rests_on() -> None:
    fact, arguments = asked(leaking().objects)
    (theirs,) = recorded_calicoctl.parsed(f"{LEAKS}/calicoctl/ipam-check-report.json")["allocations"]["10.245.0.67"]
    assert fact.examples == ("10.245.0.67 (default/ghost-1, node-a)",) and fact.oldest_s == 8661
    assert arguments == {
        "address": "10.245.0.67",
        "block": "10.245.0.64/26",
        "handle": theirs["handle"],
        "sequence": str(theirs["sequenceNumber"]),
        "owner": report(state_of(leaking().objects)).leaks["10.245.0.67"].owner,
        "pod": "default/ghost-1",
        "again_after_s": "900",
        "no_route_on": nodes_asked(["node-a", "node-b", "node-c"]),
        "seen_at": "2026-11-22T23:00:00Z",
    }


def reserved(objects: list[Object]) -> None:
    objects.append(
        {"kind": "IPReservation", "metadata": {"name": "kept"}, "spec": {"reservedCIDRs": ["10.245.0.64/28"]}}
    )


def locked(objects: list[Object]) -> None:
    resource_of(objects, "ClusterInformation")["spec"]["datastoreReady"] = False


def windows_node(objects: list[Object]) -> None:
    node = next(item for item in objects if item["kind"] == "Node")
    node["metadata"]["labels"] = {"kubernetes.io/os": "windows"}


def external_address(objects: list[Object]) -> None:
    metadata = {"name": "web", "namespace": "shop"}
    objects.append({"kind": "Service", "metadata": metadata, "spec": {"externalIPs": ["10.245.0.67"]}})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (reserved, "10.245.0.67 is reserved by IPReservation kept"),
        (locked, "Calico's datastore is locked: somebody is migrating or repairing it"),
        (windows_node, "node-a runs Windows; in such a cluster no address is released from here"),
        (external_address, "10.245.0.67 is an address of service shop/web"),
    ],
)
def test_what_the_fixer_would_refuse_is_told_before_anybody_approves(
    change: Callable[[list[Object]], None], why: str
) -> None:
    objects = leaking().objects
    change(objects)
    outcome = asked(objects)
    assert (outcome.why, outcome.request, outcome.unsure) == (why, "", False)


def test_a_route_on_a_node_or_a_silent_one_keeps_an_address() -> None:
    outcome = asked(leaking().objects, routed=("node-b",))
    assert (str(outcome.why), outcome.unsure) == ("node-b has a route to a pod that uses it", False)
    outcome = asked(leaking().objects, silent=("node-a", "node-c"))
    assert (str(outcome.why), outcome.unsure) == ("node-a, node-c did not say whether it has a route to it", True)


def test_what_calicoctl_would_have_done_is_told() -> None:
    seen = state_of(leaking().objects, NOW)

    def would(address: str, found: Any = seen) -> str:
        return release.calicoctl_would(found, report(found), address)

    assert would("10.245.0.67").startswith("calicoctl would have released it at once")
    assert "could have got the address of Workload(default/node--a-k8s-p--a1-eth0)" in would("10.245.0.65")
    assert would("10.245.0.90") == would("192.168.1.1") == "calicoctl would say the same: it is not assigned."
    objects = leaking().objects
    resource_of(objects, "IPPool")["spec"]["blockSize"] = 28  # made anew with another size: the blocks are the old ones
    assert "it looks at block 10.245.0.64/28 alone, and 10.245.0.64/26 holds it" in would(
        "10.245.0.67", state_of(objects)
    )


async def test_a_release_that_is_verified_is_told_without_asking_for_a_way() -> None:
    async def why(words: Any, **_: Any) -> Any:
        raise AssertionError(f"{words} is no question about two pods")

    done = a_request(Phase.VERIFIED)
    done = msgspec.structs.replace(
        done, spec=msgspec.structs.replace(done.spec, question="ipam release --ip 10.245.0.67")
    )
    done = msgspec.structs.replace(
        done, status=msgspec.structs.replace(done.status, message="10.245.0.67 is free now.")
    )
    assert await second_look(why)(done) == ("healthy", "verified: 10.245.0.67 is free now.")


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["999.1.1.1", "10.244.1.7,", "shop/cart", "10.244.0.0/26", ""])
def test_what_is_no_address_is_answered_with_the_right_form(words: str) -> None:
    with pytest.raises(UserError, match=r"is no IP address\. Write the whole address"):
        release.parsed(words)


def test_addresses_are_taken_as_everybody_writes_them() -> None:
    assert release.parsed("10.244.1.7, fd00:0::1,10.244.1.7") == ["10.244.1.7", "fd00::1"]


def test_every_row_has_as_many_cells_as_the_head() -> None:
    now = looked(LEAKS)
    few, many = check.rows(now, show_all=False), check.rows(now, show_all=True)
    assert {len(row) for row in many} == {9} and len(few) == 8
    assert len(many) == 8 + 13 - 4, "thirteen allocations, of which four are told as leaked"


def test_a_problem_is_the_same_in_a_file() -> None:
    problems = looked(LEAKS).problems
    assert msgspec.json.decode(msgspec.json.encode(problems), type=list[Problem]) == problems
    assert state_of([]).group == CLASSIC and resource(leaking(), "Pod", "p-a1")
