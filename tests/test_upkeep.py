"""Who writes routes, what has leaked and who claims whose block: against a recorded Calico and the words of others."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.sources import ipam, upkeep
from bot.sources.names import affinity_name, block_of
from bot.words import parse
from facts import (
    Allocation,
    Blind,
    BlockClaim,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    GarbageCollector,
    LeakedAddresses,
    Pool,
    Typha,
)
from tests.recorded import Object, World, objects, served
from tests.recordings import load

POOL = Pool(name="default-ipv4-ippool", cidr="10.245.0.0/25", block_size=26)
NOW = datetime(2026, 11, 22, 21, 35, 40, tzinfo=UTC)
RECORDED = load("v3.32.1/loose")
BLOCKS = [one["spec"] for one in RECORDED["leaks/1-before/ipamblocks.json"]["items"]]
PODS = RECORDED["leaks/2-release/pods-after-del-before-api-delete.json"]["items"]


# -- who writes routes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "felix", "bgp", "ipip", "plain"),
    [
        ("v3.26.5", "", "", "bird", "bird"),
        ("v3.32.1", "", "", "bird", "bird"),
        ("v3.33.0", "", "", "felix", "bird"),  # the default of each of the two has moved
        ("v3.34.0-0.dev-head", "", "", "felix", "bird"),
        ("v3.32.1", "Enabled", "Disabled", "felix", "felix"),
        ("v3.31.7", "Enabled", "", "both", "both"),
        ("v3.32.1", "Disabled", "Disabled", "nobody", "nobody"),
        ("v3.33.0", "Disabled", "Enabled", "bird", "bird"),
        ("v3.33.0", "EnabledNoEncapOnly", "EnabledIPIPOnly", "bird", "felix"),
        ("v3.33.0", "Enabled", "", "felix", "both"),
        ("v3.33.0", "Disabled", "", "nobody", "bird"),
        ("", "", "", "", ""),  # nobody knows the defaults of a version nobody knows
        ("", "Enabled", "Disabled", "felix", "felix"),
        ("v3.36.0", "SomethingNew", "", "", ""),
    ],
)
def test_felix_and_bird_are_each_told_whose_routes_to_write(
    version: str, felix: str, bgp: str, ipip: str, plain: str
) -> None:
    specs = [{"programClusterRoutes": value} if value else {} for value in (felix, bgp)]
    found = CalicoSettings(version=version, group="", **upkeep.routes(version, *specs))
    assert (found.ipip_routes_by, found.plain_routes_by) == (ipip, plain)


def test_what_could_not_be_read_says_nothing_of_routes() -> None:
    assert upkeep.routes("v3.32.1", {}, None) == {}
    said = upkeep.routes("v3.32.1", {"programClusterRoutes": "Enabled"}, {})["routes_said"]
    assert said == (
        "FelixConfiguration programClusterRoutes: Enabled, BGPConfiguration programClusterRoutes: Enabled (default)"
    )


@pytest.mark.parametrize(
    ("version", "spec", "expected"),
    [
        ("v3.31.7", {}, "iptables"),
        ("v3.32.1", {}, ""),  # as kube-proxy does, on each node
        ("v3.32.1", {"nftablesMode": "Auto"}, ""),
        ("v3.29.7", {"nftablesMode": "Enabled"}, "nftables"),
        ("v3.32.1", {"nftablesMode": "Disabled"}, "iptables"),
        ("v3.32.1", {"nftablesMode": "Enabled", "bpfEnabled": True}, "ebpf"),
        ("", {}, ""),
    ],
)
def test_the_dataplane_is_known_where_the_settings_say_it(version: str, spec: Object, expected: str) -> None:
    assert upkeep.dataplane(version, spec) == expected


# -- leaks -----------------------------------------------------------------------------------------------------------


def leaked(
    blocks: list[Object] = BLOCKS,
    again: list[Object] = BLOCKS,
    pods: list[Object] = PODS,
    nodes: tuple[Object, ...] = (),
) -> LeakedAddresses:
    return upkeep.leaked(POOL, "node-a", blocks, again, pods, nodes, now=NOW)


def test_the_same_addresses_have_leaked_as_calicoctl_says() -> None:
    found = leaked()
    assert (found.count, found.examined, found.oldest_s) == (4, 10, 3601)
    assert found.examples == (
        "10.245.0.7 (default/gone-b, node-b)",
        "10.245.0.67 (default/ghost-1, node-a)",
        "10.245.0.68 (default/ghost-twice, node-a)",
        "10.245.0.69 (default/ghost-twice, node-a)",
    )


def changed(name: str, edit: Any) -> list[Object]:
    pods: list[Object] = copy.deepcopy(PODS)
    edit(next(pod for pod in pods if pod["metadata"]["name"] == name))
    return pods


def test_a_pod_that_is_only_starting_or_lost_its_status_has_not_leaked_its_address() -> None:
    def starting(pod: Object) -> None:
        pod["status"] = {"phase": "Pending"}
        pod["metadata"]["annotations"] = {}

    def done(pod: Object) -> None:
        pod["status"]["phase"] = "Succeeded"

    def evicted(pod: Object) -> None:
        pod["status"] = {"phase": "Failed", "reason": "Evicted"}
        pod["metadata"]["annotations"] = {}

    def again_elsewhere(pod: Object) -> None:
        pod["status"].update(podIP="10.245.0.99", podIPs=[{"ip": "10.245.0.99"}])
        pod["metadata"]["annotations"] = {
            "cni.projectcalico.org/containerID": "f" * 64,
            "cni.projectcalico.org/podIP": "10.245.0.99/32",
        }

    assert [leaked(pods=changed("p-a1", edit)).count for edit in (starting, done, evicted, again_elsewhere)] == [
        4, 4, 5, 5,
    ]  # fmt: skip


def test_an_address_that_another_pod_or_a_node_uses_has_not_leaked() -> None:
    thief: Object = {
        "metadata": {"name": "t", "namespace": "x"},
        "status": {"phase": "Running", "podIP": "10.245.0.67"},
    }
    assert leaked(pods=[*PODS, thief]).count == 3
    node: Object = {"metadata": {"annotations": {"projectcalico.org/IPv4IPIPTunnelAddr": "10.245.0.67"}}}
    assert leaked(nodes=(node,)).count == 3


@pytest.mark.parametrize(
    "edit",
    [
        {"handle_id": "windows-reserved-ipam-handle"},
        {"handle_id": None},
        {"releasedAt": "2026-11-22T20:36:00Z"},  # in its cooldown, from 3.33
        {"alternateOwnerAttrs": {"pod": "other", "namespace": "default"}},
        {"secondary": {"namespace": "default", "pod": "virt-launcher-x", "vmi-name": "x"}},
        {"secondary": {"node": "node-z", "type": "ipipTunnelAddress"}},
        {"secondary": {"service": "web", "namespace": "default"}},
    ],
)
def test_what_is_no_pod_s_is_nobody_s_leak(edit: Object) -> None:
    blocks: list[Object] = copy.deepcopy(BLOCKS)
    attributes = next(one for one in blocks if one["cidr"] == "10.245.0.64/26")["attributes"]
    next(one for one in attributes if (one.get("secondary") or {}).get("pod") == "ghost-1").update(edit)
    assert (leaked(blocks, blocks).count, leaked(blocks, blocks).examined) == (3, 9)


def test_a_leak_is_one_in_both_looks_at_its_block() -> None:
    """A pod that went between the looks took its address with it; one that came has its own."""
    freed = copy.deepcopy(BLOCKS)
    next(one for one in freed if one["cidr"] == "10.245.0.64/26")["allocations"][3] = None
    assert leaked(again=freed).count == 3
    given_anew = copy.deepcopy(BLOCKS)
    next(one for one in given_anew if one["cidr"] == "10.245.0.64/26")["sequenceNumberForAllocation"]["3"] += 1
    assert leaked(again=given_anew).count == 3
    assert leaked(blocks=freed).count == 3


def test_other_pools_and_blocks_that_are_being_deleted_do_not_count() -> None:
    other = Pool(name="other", cidr="10.246.0.0/16", block_size=26)
    assert upkeep.leaked(other, "node-a", BLOCKS, BLOCKS, PODS, (), now=NOW).examined == 0
    gone = [{**one, "deleted": True} for one in BLOCKS]
    assert leaked(gone, gone).count == 0


@pytest.mark.parametrize(
    ("pods", "daemon_set", "configuration", "expected"),
    [
        ([], None, None, GarbageCollector(running=False)),
        ([], {"status": {}}, {}, GarbageCollector(running=False, unavailable=0)),
        (
            ["Running"],
            {"status": {"numberUnavailable": 1}},
            {"controllers": {"node": {"leakGracePeriod": "1m0s"}}},
            GarbageCollector(running=True, name="calico-system/calico-kube-controllers-x", grace_s=60, unavailable=1),
        ),
        (
            ["Pending", "Running"],  # a rollout
            None,
            {"controllers": {"node": {"leakGracePeriod": "0s"}}},
            GarbageCollector(running=True, name="calico-system/calico-kube-controllers-x", grace_s=0),
        ),
    ],
)
def test_who_frees_leaked_addresses(
    pods: list[str], daemon_set: Object | None, configuration: Object | None, expected: GarbageCollector
) -> None:
    found = [
        {
            "metadata": {"name": "calico-kube-controllers-x", "namespace": "calico-system"},
            "status": {"phase": phase, "containerStatuses": [{"state": {"running": {}}}] * (phase == "Running")},
        }
        for phase in pods
    ]
    assert upkeep.garbage_collector(found, daemon_set, configuration) == expected


# -- claims ----------------------------------------------------------------------------------------------------------

AFFINITY = {"cidr": "10.244.0.0/26", "node": "node-c", "state": "confirmed", "type": "host", "deleted": "false"}


@pytest.mark.parametrize(
    ("edit", "claimed"),
    [
        ({}, True),
        ({"node": "node-a"}, False),
        ({"deleted": "true"}, False),
        ({"deleted": True}, False),  # the native store's
        ({"deleted": False}, True),
        ({"type": "virtual", "node": "load-balancer"}, False),
        ({"cidr": "10.244.0.64/26"}, False),
    ],
)
def test_a_claim_counts_where_the_block_names_somebody_else(edit: Object, claimed: bool) -> None:
    found = upkeep.claims([{"spec": {**AFFINITY, **edit}}], {"10.244.0.0/26": "node-a"})
    expected = BlockClaim(block="10.244.0.0/26", node="node-c", block_node="node-a", state="confirmed")
    assert found == ([expected] if claimed else [])


def test_a_long_name_is_cut_as_calico_cuts_it() -> None:
    import ipaddress

    block = block_of(ipaddress.IPv4Address("10.244.0.5"), 26)
    assert affinity_name("node-a", block) == "node-a-10-244-0-0-26"
    found = affinity_name("n" * 250, block)
    assert len(found) == 252 and "-10-244-0-0-26-" in found
    assert found != affinity_name("n" * 249 + "m", block)


# -- looked at in a cluster ------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with served(objects("v3.32.1/healthy"), tmp_path) as world:
        yield world


async def look(world: World, *words: str, **fields: Any) -> list[Fact]:
    async with world.cluster(**fields) as cluster:
        return await cluster.look(parse(words or ("default/pod-a1", "default/pod-b1")))


def of(facts: list[Fact], kind: type[Fact]) -> list[Fact]:
    return [fact for fact in facts if isinstance(fact, kind)]


async def test_bgp_s_settings_are_read_only_where_a_pool_needs_them(world: World) -> None:
    (settings,) = of(await look(world), CalicoSettings)
    assert isinstance(settings, CalicoSettings) and settings.plain_routes_by == ""
    assert not any("bgpconfigurations" in path for path, _ in world.asked)
    world.change("ippools", "default-ipv4-ippool", vxlanMode="Never", ipipMode="Always")
    (settings,) = of(await look(world), CalicoSettings)
    assert isinstance(settings, CalicoSettings) and settings.ipip_routes_by == "bird"


async def test_a_claim_of_the_other_node_is_found_by_its_name(world: World) -> None:
    affinity = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {"name": "node-a-10-244-218-64-26"},
        "spec": {**AFFINITY, "cidr": "10.244.218.64/26", "node": "node-a"},
    }
    assert of(await look(world), BlockClaim) == []
    world.store.create(affinity)
    expected = [BlockClaim(block="10.244.218.64/26", node="node-a", block_node="node-b", state="confirmed")]
    assert of(await look(world), BlockClaim) == expected
    assert not any(path.endswith("/blockaffinities") for path, _ in world.asked)


async def test_where_bird_writes_the_routes_a_third_node_s_claim_is_found_too(world: World) -> None:
    world.change("ippools", "default-ipv4-ippool", vxlanMode="Never")
    world.store.create(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "BlockAffinity",
            "metadata": {"name": "node-c-10-244-218-64-26"},
            "spec": {**AFFINITY, "cidr": "10.244.218.64/26"},
        }
    )
    found = of(await look(world), BlockClaim)
    assert found == [BlockClaim(block="10.244.218.64/26", node="node-c", block_node="node-b", state="confirmed")]


def agent(**environment: Any) -> Object:
    """A calico-node pod on node-a."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "calico-node-x", "namespace": "kube-system", "labels": {"k8s-app": "calico-node"}},
        "spec": {
            "nodeName": "node-a",
            "hostNetwork": True,
            "containers": [{"name": "calico-node", "image": "x", "env": [environment] if environment else []}],
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "calico-node", "state": {"running": {}}}]},
    }


FROM_MAP = {"valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "typha_service_name"}}}


@pytest.mark.parametrize(
    ("setting", "in_map", "ready", "expected"),
    [
        ({}, "", [False], []),  # not told of any
        ({"value": "calico-typha"}, "", [True, False], [("kube-system/calico-typha", 1, 2)]),
        ({"value": "calico-typha"}, "", [], [("kube-system/calico-typha", 0, 0)]),
        ({"value": "none"}, "", [False], []),
        (FROM_MAP, "none", [False], []),  # the manifests' way to have none
        (FROM_MAP, "calico-typha", [False], [("kube-system/calico-typha", 0, 1)]),
        (FROM_MAP, "calico-typha", [None], [("kube-system/calico-typha", 1, 1)]),
    ],
)
async def test_typha_is_looked_at_where_calico_node_is_told_of_one(
    world: World, setting: Object, in_map: str, ready: list[bool | None], expected: list[tuple[str, int, int]]
) -> None:
    world.store.create(agent(**({"name": "FELIX_TYPHAK8SSERVICENAME", **setting} if setting else {})))
    if in_map:
        data = {"typha_service_name": in_map}
        meta = {"name": "calico-config", "namespace": "kube-system"}
        world.store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    world.store.create(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "calico-typha-x",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "calico-typha"},
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [f"172.30.0.{11 + i}"], "conditions": {} if one is None else {"ready": one}}
                for i, one in enumerate(ready)
            ],
        }
    )
    facts = await look(world)
    found = [(one.service, one.ready, one.addresses) for one in of(facts, Typha) if isinstance(one, Typha)]
    assert found == expected
    assert of(facts, Blind) == []


async def test_leaks_are_counted_where_a_pod_waits_on_a_full_pool(tmp_path: Path) -> None:
    async with served(objects("v3.32.1/exhaustion/7-pool-full"), tmp_path) as world:
        waiting = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "late", "namespace": "default"},
            "spec": {"containers": [{"name": "app", "image": "x"}], "nodeName": "node-a"},
            "status": {"phase": "Pending"},
        }
        world.store.create(waiting)
        running = [
            f"default/{pod['metadata']['name']}" for pod in world.store.list("pods") if pod["status"].get("podIP")
        ]
        facts = await look(world, "default/late", running[0])
        (found,) = of(facts, LeakedAddresses)
        assert isinstance(found, LeakedAddresses)
        # The pods that filled the pool were never made, only their addresses taken.
        assert (found.pool, found.node, found.count, found.examined) == ("default-ipv4-ippool", "node-a", 120, 125)
        assert len(found.examples) == upkeep.SHOWN and all("default/ghost-" in one for one in found.examples)
        assert of(facts, GarbageCollector) == [GarbageCollector(running=False)]
        assert of(await look(world, *running[:2]), LeakedAddresses) == []  # nobody waits, so nothing is counted


async def test_windows_vpp_and_keys_are_told_by_node(world: World) -> None:
    node = world.store.get("nodes", "node-a")
    node["metadata"]["labels"]["kubernetes.io/os"] = "windows"
    node["metadata"]["annotations"]["projectcalico.org/WireguardPublicKey"] = "a2V5"
    world.store.update(node)
    world.change("felixconfigurations", "default", useInternalDataplaneDriver=False, prometheusMetricsPort=9191)
    nodes = {one.name: one for one in of(await look(world), CalicoNode) if isinstance(one, CalicoNode)}
    a, b = nodes["node-a"], nodes["node-b"]
    assert (a.system, a.wireguard_key, a.wireguard, a.foreign_dataplane) == ("windows", "a2V5", False, True)
    assert (b.system, b.wireguard_key, b.metrics_port) == ("linux", "", 9191)


async def test_who_may_not_read_the_further_things_is_told_of_it_and_no_path_is_doubted(world: World) -> None:
    world.store.create(agent(name="FELIX_TYPHAK8SSERVICENAME", value="calico-typha"))
    async with world.cluster() as cluster:
        send = cluster.api._send

        async def refusing(path: str, query: dict[str, Any]) -> tuple[int, bytes]:
            if "endpointslices" in path or "blockaffinities" in path:
                return 403, b'{"kind": "Status", "message": "forbidden", "reason": "Forbidden"}'
            return await send(path, query)

        cluster.api._send = refusing  # type: ignore[method-assign]
        facts = await cluster.look(parse(["default/pod-a1", "default/pod-b1"]))
    blind = [one for one in of(facts, Blind) if isinstance(one, Blind)]
    assert {one.look for one in blind} == {"endpointslices", "blockaffinities"}
    assert all(one.minor for one in blind)
    assert len(of(facts, Allocation)) == 4


def test_a_released_address_is_nobody_s_and_not_yet_free() -> None:
    """Recorded of 3.34: after CNI's DEL the address points to an attribute that only says when it was released."""
    loose = load("master-87c15906f20c/loose")
    pool = Pool(name="default-ipv4-ippool", cidr="10.244.0.0/16", block_size=26)
    blocks = [one["spec"] for one in loose["ip-cooldown/ipamblocks-after-del.json"]["items"]]
    used = ipam.usage(
        pool, "node-a", blocks, (), nodes=3, version="v3.34.0-0.dev-head", strict_affinity=False, cooldown_s=60
    )
    assert (used.cooling, used.cooldown_s, used.free_on_node) == (1, 60, 61)
    block = next(one for one in blocks if one["cidr"] == "10.244.174.128/26")
    assert not ipam.allocation(ip_address("10.244.174.130"), block, pool).found
    assert upkeep.leaked(pool, "node-a", blocks, blocks, (), (), now=NOW).examined == 5


@pytest.mark.parametrize(
    ("spec", "environments", "expected"),
    [
        ({}, [], "iptables"),
        ({}, [{"FELIX_NFTABLESMODE": "Enabled"}, {"FELIX_NFTABLESMODE": "enabled"}], "nftables"),
        (
            {"nftablesMode": "Enabled"},
            [{"FELIX_NFTABLESMODE": "Disabled"}, {"FELIX_NFTABLESMODE": "Disabled"}],
            "iptables",
        ),
        ({}, [{"FELIX_NFTABLESMODE": "Enabled"}, {}], ""),
        ({"nftablesMode": "Enabled"}, [{"FELIX_BPFENABLED": "true"}], "ebpf"),
    ],
)
def test_the_dataplane_is_the_one_that_felix_s_environment_names(
    spec: dict[str, Any], environments: list[dict[str, str]], expected: str
) -> None:
    """The operator says it there, so that rules of nftables are taken for what is left behind where nobody looks."""
    settings = CalicoSettings(
        version="v3.31.7", group="", datastore_ready=True, dataplane=upkeep.dataplane("v3.31.7", spec)
    )
    agents = [[told({"name": name, "value": value} for name, value in one.items())] for one in environments]
    assert upkeep.as_set(settings, spec, agents).dataplane == expected


def told(environment: Iterable[Object], **container: Any) -> Object:
    """A calico-node pod with this in its container."""
    found = agent()
    found["spec"]["containers"][0].update(env=list(environment), **container)
    return found


FROM_SETTINGS = {"configMapKeyRef": {"name": "calico-config", "key": "vni"}}


@pytest.mark.parametrize(
    ("data", "vni", "unread"),
    [
        ({"vni": "77"}, 77, ()),
        ({"other": "77"}, 4096, ()),
        (None, 4096, ("FELIX_VXLANVNI",)),  # nobody may read it
    ],
)
async def test_felix_s_settings_in_a_config_map_are_read_and_where_they_cannot_be_no_default_is_taken_for_one(
    tmp_path: Path, data: Object | None, vni: int, unread: tuple[str, ...]
) -> None:
    denied = frozenset({("get", "", "configmaps")}) if data is None else frozenset()
    async with served(objects("v3.32.1/healthy"), tmp_path, denied={"limited": denied}) as world:
        pod = told([{"name": "FELIX_VXLANVNI", "valueFrom": FROM_SETTINGS}])
        world.store.create(pod)
        meta = {"name": "calico-config", "namespace": "kube-system"}
        world.store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data or {"vni": "77"}})
        facts = await look(world, token="limited")
    (node,) = [one for one in facts if isinstance(one, CalicoNode) and one.name == "node-a"]
    assert (node.vni, node.settings_unread, node.settings_read) == (vni, unread, not unread)
    told_so = [one for one in facts if isinstance(one, Blind) and one.look == "calico-node settings"]
    assert [one.node for one in told_so] == (["node-a"] if unread else [])
    assert [one.minor for one in facts if isinstance(one, Blind) and one.look == "configmaps"] == [True] * len(unread)


@pytest.mark.parametrize(
    ("environment", "container", "unread"),
    [
        ([{"name": "FELIX_VXLANPORT", "valueFrom": {"secretKeyRef": {"name": "a"}}}], {}, "FELIX_VXLANPORT"),
        ([{"name": "Felix_BpfEnabled", "value": "$(BPF)"}], {}, "FELIX_BPFENABLED"),
        ([], {"volumeMounts": [{"mountPath": "/etc/calico", "name": "settings"}]}, "/etc/calico/felix.cfg"),
        ([], {"volumeMounts": [{"mountPath": "/etc/calico/felix.cfg", "name": "one"}]}, "/etc/calico/felix.cfg"),
        ([], {"volumeMounts": [{"mountPath": "/etc/calico/certs", "name": "certs"}]}, ""),
        ([{"name": "FELIX_VXLANPORT"}], {}, ""),  # which is how the API writes an empty value
        ([{"name": "FELIX_FELIXHOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}], {}, ""),
        ([{"name": "FELIX_IPINIPMTU", "valueFrom": FROM_SETTINGS}], {}, ""),
    ],
)
def test_what_felix_is_told_by_what_nobody_reads_is_known_to_be_unknown(
    environment: list[Object], container: Object, unread: str
) -> None:
    assert upkeep.unread([told(environment, **container)]) == ((unread,) if unread else ())


async def test_felix_s_environment_goes_before_its_configuration(world: World) -> None:
    """The manifests for eBPF switch it on there; nothing in the API says so then."""
    pod = agent()
    pod["spec"]["containers"][0]["env"] = [
        {"name": "FELIX_BPFENABLED", "value": "true"},
        {"name": "FELIX_INTERFACEPREFIX", "value": "tap,cali"},
        {"name": "felix_healthport", "value": "9199"},
        {"name": "FELIX_PROMETHEUSMETRICSPORT", "value": "not a number"},
        {"name": "FELIX_USEINTERNALDATAPLANEDRIVER", "value": "false"},
        {"name": "FELIX_WIREGUARDENABLED", "valueFrom": {"configMapKeyRef": {"name": "calico-config", "key": "y"}}},
        {"name": "FELIX_VXLANPORT", "value": "8472"},
        {"name": "FELIX_VXLANVNI", "value": "77"},
        {"name": "FELIX_ROUTEREFRESHINTERVAL", "value": "300"},
        {"name": "FELIX_HEALTHENABLED", "value": "false"},
        {"name": "CALICO_NETWORKING_BACKEND", "value": "none"},
    ]
    world.store.create(pod)
    facts = await look(world)
    nodes = {one.name: one for one in of(facts, CalicoNode) if isinstance(one, CalicoNode)}
    a, b = nodes["node-a"], nodes["node-b"]
    assert (a.bpf, a.foreign_dataplane, a.wireguard, a.backend) == (True, True, False, "none")
    assert (a.interface_prefix, a.felix_health_port, a.metrics_port) == ("tap", 9199, 9091)
    assert (a.vxlan_port, a.vni, a.route_refresh_s, a.felix_health) == (8472, 77, 300, False)
    assert (b.vxlan_port, b.vni, b.route_refresh_s, b.felix_health) == (4789, 4096, 90, True)
    assert (b.bpf, b.foreign_dataplane, b.interface_prefix, b.felix_health_port) == (False, False, "cali", 9099)
    endpoints = {one.name: one.interface for one in of(facts, Endpoint) if isinstance(one, Endpoint)}
    assert endpoints["default/pod-a1"] == "tapdd33ceb84a6"


@pytest.mark.parametrize(
    ("value", "cidrs", "address", "block"),
    [
        ("true", ["10.244.7.0/24", "fd00:7::/64"], "10.244.7.1", "10.244.7.0/24"),
        ("true", ["fd00:7::/64"], "10.244.174.190", ""),  # reckoned for IPv4 only
        ("true", [], "10.244.174.190", ""),
        ("false", ["10.244.7.0/24"], "10.244.174.190", ""),
    ],
)
async def test_with_host_local_addresses_calico_reckons_a_node_s_own(
    world: World, value: str, cidrs: list[str], address: str, block: str
) -> None:
    """It does not look at the annotation then. In other clusters nodes have ranges as well, and nobody uses them."""
    node = world.store.get("nodes", "node-a")
    node["metadata"]["annotations"]["projectcalico.org/IPv4IPIPTunnelAddr"] = "10.244.174.190"
    if cidrs:
        node["spec"].update(podCIDR=cidrs[0], podCIDRs=cidrs)
    world.store.update(node)
    pod = agent()
    pod["spec"]["containers"][0]["env"] = [{"name": "USE_POD_CIDR", "value": value}]
    world.store.create(pod)
    (found,) = [
        one for one in of(await look(world), CalicoNode) if isinstance(one, CalicoNode) and one.name == "node-a"
    ]
    assert (found.ipip_address, found.ipip_block, found.wireguard_address) == (address, block, "")
