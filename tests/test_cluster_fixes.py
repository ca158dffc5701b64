"""Fixes in the cluster's objects, against an API server over a socket, and the one fixer that makes them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot.sources.upkeep import leaked
from facts import BlockClaim, CalicoPod, CalicoService, Cause, Pool
from fixes.approvers import Approvers
from fixes.calico import CLASSIC, NATIVE, ApiError, Calico, Conflict
from fixes.executor import Executor
from fixes.hands import ClusterHands, NodeHands
from fixes.kernel import Kernel
from fixes.kind import ClusterKind, EvidenceChanged, kinds
from fixes.kinds.release_ip import nodes_asked
from fixes.lease import NAME as LEASE
from fixes.lease import Lease
from fixes.release import fingerprint, holding
from fixes.request import Phase, stamp
from fixes.store import FixStore
from lab.apiserver.calico_definitions import Group, definitions, install
from tests import deployed
from tests.deployed import ADMINISTRATOR, BOT, CLUSTER_FIXER
from tests.fix_cluster import FixCluster, fix_cluster
from tests.fix_samples import BO, a_spec
from tests.recordings import load
from tests.test_node_fixes import LEG, NODE_A

ROOT = Path(__file__).parents[1]
APPROVERS = Approvers(frozenset({"U0BO"}))
Object = dict[str, Any]


@contextlib.asynccontextmanager
async def scene(
    directory: Path, group: Group = "crd.projectcalico.org"
) -> AsyncGenerator[tuple[FixCluster, FixStore, Calico]]:
    async with fix_cluster(directory) as cluster:
        install(cluster.objects, group)
        cluster.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "calico-system"}})
        create(
            cluster,
            CLASSIC if group.startswith("crd") else NATIVE,
            "ClusterInformation",
            "default",
            datastoreReady=True,
        )
        async with cluster.store(CLUSTER_FIXER) as fixing:
            yield cluster, fixing, Calico(fixing.api, environment={})


async def approved(cluster: FixCluster, pool: str = "blue") -> str:
    """The name of a request that this pool be enabled."""
    async with cluster.store(BOT) as bot:
        request = await bot.create(a_spec(datetime.now(UTC), **pool_spec(pool)))
        await bot.transition(request.name, Phase.APPROVED, by=BO)
    return request.name


def create(cluster: FixCluster, version: str, kind: str, name: str, namespace: str = "", **spec: Any) -> None:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    cluster.objects.create({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})


def kind_of(name: str) -> ClusterKind:
    kind = kinds()[name]
    assert isinstance(kind, ClusterKind)
    return kind


def a_node(cluster: FixCluster, name: str, ready: str = "True") -> None:
    conditions = [{"type": "Ready", "status": ready}]
    cluster.objects.create(
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": conditions}}
    )


# ---- the API server as the kinds see it


@pytest.mark.parametrize("group", ["crd.projectcalico.org", "projectcalico.org"])
async def test_objects_are_found_where_calico_keeps_them_and_keep_what_is_not_known(
    group: Group, tmp_path: Path
) -> None:
    async with scene(tmp_path, group) as (cluster, _, calico):
        version = await calico.group()
        assert version.startswith(group)
        kind = "IPAMConfig" if version == CLASSIC else "IPAMConfiguration"
        create(cluster, version, kind, "default", strictAffinity=False, newer={"x": 1795379363042234849})
        found = await calico.get("ipamconfigs", "default")
        assert found is not None
        found["spec"]["strictAffinity"] = True
        written = await calico.replace("ipamconfigs", found)
        assert written["spec"] == {"strictAffinity": True, "newer": {"x": 1795379363042234849}}
        with pytest.raises(Conflict):
            await calico.replace("ipamconfigs", found)
        with pytest.raises(Conflict):
            await calico.delete("ipamconfigs", found)
        await calico.delete("ipamconfigs", written)
        assert await calico.get("ipamconfigs", "default") is None
        await calico.delete("ipamconfigs", written)
        with pytest.raises(Conflict):
            await calico.replace("ipamconfigs", written)


async def test_with_both_groups_the_older_one_is_the_store(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(CLUSTER_FIXER) as store:
        with pytest.raises(ApiError, match="serves neither"):
            await Calico(store.api, environment={}).group()
        install(cluster.objects, "projectcalico.org")
        assert await Calico(store.api, environment={}).group() == NATIVE
        for definition in _definitions():
            cluster.objects.create(definition)
        assert await Calico(store.api, environment={}).group() == CLASSIC
        assert await Calico(store.api, environment={"CALICO_API_GROUP": NATIVE}).group() == NATIVE


async def test_more_objects_than_a_page_are_all_listed(tmp_path: Path) -> None:
    async with scene(tmp_path) as (cluster, _, calico):
        for number in range(1203):
            create(cluster, CLASSIC, "IPReservation", f"r-{number}", reservedCIDRs=[])
        assert len(await calico.list("ipreservations")) == 1203


async def test_who_may_not_write_is_told_so(tmp_path: Path) -> None:
    denied = frozenset({("get", "crd.projectcalico.org", "clusterinformations")})
    async with scene(tmp_path) as (cluster, _, _), cluster.store(CLUSTER_FIXER, denied=denied) as weak:
        with pytest.raises(ApiError, match="does not let this fixer at clusterinformations default"):
            await Calico(weak.api, environment={}).get("clusterinformations", "default")


def _definitions() -> list[Object]:
    return [one for one in definitions("crd.projectcalico.org") if one["spec"]["group"] == "crd.projectcalico.org"]


# ---- release_ip, on what was recorded of a running Calico


def recorded_leaks(cluster: FixCluster) -> None:
    files = load("v3.32.1/loose")
    for name in ("ipamblocks", "ipamhandles"):
        for one in files[f"leaks/1-before/{name}.json"]["items"]:
            metadata = {key: one["metadata"][key] for key in ("name", "annotations") if key in one["metadata"]}
            cluster.objects.create({**copy.deepcopy(one), "metadata": metadata})
    for node in ("node-a", "node-b", "node-c"):
        a_node(cluster, node)


async def leak(calico: Calico, address: str, cidr: str, seen_at: datetime) -> dict[str, str]:
    block = next(one for one in await calico.list("ipamblocks") if one["spec"]["cidr"] == cidr)
    held = holding(block["spec"], address)
    assert held.attribute is not None
    return {
        "address": address,
        "block": cidr,
        "handle": held.handle,
        "sequence": str(held.sequence),
        "owner": fingerprint(held.attribute),
        "pod": f"default/{held.attribute['secondary']['pod']}",
        "seen_at": stamp(seen_at),
        "again_after_s": "900",
        "no_route_on": nodes_asked(["node-a", "node-b", "node-c"]),
    }


async def test_recorded_leaks_are_released_as_calicoctl_released_them(tmp_path: Path) -> None:
    """Blocks and handles end as recorded, but for the handle that calicoctl counted wrongly (calico.md 2.2)."""
    kind, files = kind_of("release_ip"), load("v3.32.1/loose")
    async with scene(tmp_path) as (cluster, _, calico):
        recorded_leaks(cluster)
        calico.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        seen_at = datetime(2029, 12, 31, tzinfo=UTC)
        for address, cidr in (
            ("10.245.0.67", "10.245.0.64/26"),
            ("10.245.0.68", "10.245.0.64/26"),
            ("10.245.0.69", "10.245.0.64/26"),
            ("10.245.0.8", "10.245.0.0/26"),
            ("10.245.0.7", "10.245.0.0/26"),
        ):
            arguments = await leak(calico, address, cidr, seen_at)
            await kind.holds(calico, arguments)
            await kind.execute(calico, arguments)
            assert await kind.verify(calico, arguments) == (True, f"{address} is free now.")
        ours = {one["metadata"]["name"]: one["spec"] for one in await calico.list("ipamblocks")}
        for one in files["leaks/3-from-report/after/ipamblocks.json"]["items"]:
            spec = ours[one["metadata"]["name"]]
            assert {**spec, "sequenceNumber": 0} == {**one["spec"], "sequenceNumber": 0}
        handles = {one["metadata"]["name"] for one in cluster.objects.list("ipamhandles")}
        theirs = {one["metadata"]["name"] for one in files["leaks/3-from-report/after/ipamhandles.json"]["items"]}
        wrongly_counted = {name for name in theirs if name.startswith("k8s-pod-network.845d34db")}
        before = {one["metadata"]["name"] for one in files["leaks/1-before/ipamhandles.json"]["items"]}
        # A pod that was released while it lived was deleted in between, and its handle with it.
        assert handles & theirs == theirs - wrongly_counted and handles <= before


async def test_others_take_addresses_while_leaks_are_released(tmp_path: Path) -> None:
    """Over the socket, at the same time: every address that was given is still given, and the leaks are gone."""
    kind, block_name, cidr = kind_of("release_ip"), "10-245-0-64-26", "10.245.0.64/26"
    async with scene(tmp_path) as (cluster, _, calico), cluster.store(ADMINISTRATOR) as nodes:
        recorded_leaks(cluster)
        calico.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        leaks = [
            await leak(calico, address, cidr, datetime(2029, 12, 31, tzinfo=UTC))
            for address in ("10.245.0.67", "10.245.0.68", "10.245.0.69")
        ]
        given: dict[int, str] = {}

        async def take(number: int) -> None:
            other = Calico(nodes.api, environment={})
            handle = f"k8s-pod-network.new-{number}"
            while True:
                block = await other.get("ipamblocks", block_name)
                assert block is not None
                spec = block["spec"]
                ordinal = spec["unallocated"].pop(0)
                spec["attributes"].append({"handle_id": handle, "secondary": {"pod": f"p{number}", "namespace": "x"}})
                spec["allocations"][ordinal] = len(spec["attributes"]) - 1
                spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
                spec["sequenceNumber"] += 1
                with contextlib.suppress(Conflict):
                    await other.replace("ipamblocks", block)
                    given[ordinal] = handle
                    return

        await asyncio.gather(*(take(number) for number in range(12)), *(kind.execute(calico, one) for one in leaks))
        block = await calico.get("ipamblocks", block_name)
        assert block is not None and len(given) == 12
        for ordinal, handle in given.items():
            assert holding(block["spec"], f"10.245.0.{64 + ordinal}").handle == handle
        for one in leaks:
            assert holding(block["spec"], one["address"]).handle != one["handle"]
        assert await calico.get("ipamhandles", leaks[1]["handle"]) is None, "two addresses, counted down twice"


async def test_what_the_bot_reads_of_a_leak_is_what_the_fixer_finds(tmp_path: Path) -> None:
    """The recorded blocks, their leaks as facts, the request of them, and the fixer's own look."""
    kind = kind_of("release_ip")
    async with scene(tmp_path) as (cluster, _, calico):
        recorded_leaks(cluster)
        a_pod(cluster, "other", "node-a", "10.245.0.65")
        nodes, pods = await calico.list("nodes"), await calico.list("pods")
        specs = [one["spec"] for one in await calico.list("ipamblocks") if one["metadata"]["name"] == "10-245-0-64-26"]
        pool = Pool(name="small", cidr="10.245.0.0/25", block_size=26)
        found = leaked(pool, "node-a", specs, specs, pods, nodes, now=datetime.now(UTC))
        # p-a1's allocation is older than the pod that has its address, and the pods of the recording are not here.
        assert (found.address, found.block, found.pod) == ("10.245.0.66", "10.245.0.64/26", "default/p-a2")
        cause = Cause(rule="ip_leaked", title="", text="", evidence=(found.id,))
        assert kind.propose(cause, [found]) is None, "no node was asked yet"
        asked = msgspec.structs.replace(found, no_route_on=("node-a", "node-b", "node-c"))
        cause = Cause(rule="ip_leaked", title="", text="", evidence=(asked.id,))
        arguments = kind.propose(cause, [asked])
        assert arguments is not None
        calico.now = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        await kind.holds(calico, arguments | {"seen_at": "2029-12-31T00:00:00Z"})
        await kind.execute(calico, arguments | {"seen_at": "2029-12-31T00:00:00Z"})
        assert (await kind.verify(calico, arguments | {"seen_at": "2029-12-31T00:00:00Z"}))[0] is True


# ---- the other kinds


async def test_a_pool_is_enabled_again_and_nothing_else_of_it_changes(tmp_path: Path) -> None:
    kind = kind_of("enable_pool")
    pool = Pool(name="blue", cidr="10.9.0.0/16", block_size=26, disabled=True)
    arguments = kind.propose(Cause(rule="pool_disabled", title="", text="", evidence=(pool.id,)), [pool])
    assert arguments is not None
    async with scene(tmp_path) as (cluster, _, calico):
        with pytest.raises(EvidenceChanged, match="no pool blue"):
            await kind.holds(calico, arguments)
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True, vxlanMode="Always", newer=[1])
        await kind.holds(calico, arguments)
        changed = [
            line for line in await kind.preview(calico, arguments) if line[0] in "+-" and line[:3] not in ("+++", "---")
        ]
        assert changed == ["-  disabled: true", "+  disabled: false"]
        assert (await kind.verify(calico, arguments))[0] is False
        await kind.execute(calico, arguments)
        assert (await kind.verify(calico, arguments))[0] is True
        found = await calico.get("ippools", "blue")
        assert found is not None
        assert found["spec"] == {"cidr": "10.9.0.0/16", "disabled": False, "vxlanMode": "Always", "newer": [1]}
        with pytest.raises(EvidenceChanged, match="enabled already"):
            await kind.execute(calico, arguments)


@pytest.mark.parametrize(("group", "unmarked"), [("crd.projectcalico.org", "false"), ("projectcalico.org", False)])
async def test_the_wrong_claim_on_a_block_goes_and_the_right_one_stays(
    group: Group, unmarked: str | bool, tmp_path: Path
) -> None:
    kind = kind_of("delete_block_affinity")
    claim = BlockClaim(block="10.9.0.0/30", node="node-b", block_node="node-a", state="confirmed")
    arguments = kind.propose(Cause(rule="block_affinity_conflict", title="", text="", evidence=(claim.id,)), [claim])
    assert arguments is not None
    async with scene(tmp_path, group) as (cluster, _, calico):
        version = await calico.group()
        about = {"cidr": "10.9.0.0/30", "state": "confirmed", "deleted": unmarked}
        for node in ("node-a", "node-b"):
            create(cluster, version, "BlockAffinity", f"{node}-10-9-0-0-30", node=node, **about)
        attribute = {"handle_id": "h", "secondary": {"node": "node-b"}}
        create(
            cluster,
            version,
            "IPAMBlock",
            "10-9-0-0-30",
            cidr="10.9.0.0/30",
            affinity="host:node-a",
            attributes=[attribute],
        )
        with pytest.raises(EvidenceChanged, match="holds an address for node-b"):
            await kind.holds(calico, arguments)
        block = await calico.get("ipamblocks", "10-9-0-0-30")
        assert block is not None
        await calico.replace("ipamblocks", {**block, "spec": {**block["spec"], "attributes": []}})
        a_pod(cluster, "lost", "node-b", "10.9.0.2")
        with pytest.raises(EvidenceChanged, match="Pod lost on node-b"):
            await kind.execute(calico, arguments)
        cluster.objects.delete("pods", "lost", "calico-system")
        await kind.holds(calico, arguments)
        assert (await kind.verify(calico, arguments))[0] is False
        await kind.execute(calico, arguments)
        assert (await kind.verify(calico, arguments))[0] is True
        assert [one["spec"]["node"] for one in await calico.list("blockaffinities")] == ["node-a"]
        with pytest.raises(EvidenceChanged, match="no BlockAffinity"):
            await kind.holds(calico, arguments)


async def test_a_block_that_has_become_the_claimants_keeps_its_claim(tmp_path: Path) -> None:
    kind = kind_of("delete_block_affinity")
    arguments = {"claimant": "node-b", "block": "10.9.0.0/30", "owner": "node-a", "state": ""}
    async with scene(tmp_path) as (cluster, _, calico):
        create(cluster, CLASSIC, "BlockAffinity", "b", node="node-b", cidr="10.9.0.0/30")
        create(cluster, CLASSIC, "IPAMBlock", "10-9-0-0-30", cidr="10.9.0.0/30", affinity="host:node-b")
        with pytest.raises(EvidenceChanged, match="not node-a's any more"):
            await kind.execute(calico, arguments)
        assert len(await calico.list("blockaffinities")) == 1


def a_pod(cluster: FixCluster, name: str, node: str, address: str = "", app: str = "", ready: str = "True") -> None:
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "calico-node", "uid": "1", "controller": True}
    cluster.objects.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "calico-system",
                "labels": {"k8s-app": app},
                "ownerReferences": [owner] if app else [],
            },
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": address}] if address else [],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }
    )


async def test_calico_node_is_restarted_and_the_new_pod_waited_for(tmp_path: Path) -> None:
    kind = kind_of("restart_calico_node")
    pod = CalicoPod(node="node-a", running=True, name="calico-system/calico-node-1")
    arguments = kind.propose(Cause(rule="felix_stuck", title="", text="", node="node-a"), [pod])
    assert arguments is not None
    async with scene(tmp_path) as (cluster, _, calico):
        a_node(cluster, "node-a")
        a_pod(cluster, "calico-node-1", "node-a", app="calico-node")
        a_pod(cluster, "calico-node-2", "node-b", app="calico-node")
        await kind.holds(calico, arguments)
        (line,) = await kind.preview(calico, arguments)
        assert line.startswith("kubectl --namespace calico-system delete pod calico-node-1")
        await kind.execute(calico, arguments)
        seconds = 0.0

        async def daemonset(pause_s: float) -> None:
            nonlocal seconds
            seconds += pause_s
            if seconds == 3:
                a_pod(cluster, "calico-node-3", "node-a", app="calico-node", ready="False")
            if seconds == 20:
                cluster.objects.delete("pods", "calico-node-3", "calico-system")
                a_pod(cluster, "calico-node-4", "node-a", app="calico-node")

        calico.pause = daemonset
        assert await kind.verify(calico, arguments) == (
            True,
            "calico-system/calico-node-4 runs on node-a and is ready.",
        )
        assert seconds == 20
        assert await calico.get("pods", "calico-node-2", "calico-system") is not None
        with pytest.raises(EvidenceChanged, match="restarted already"):
            await kind.execute(calico, arguments)


async def test_a_pod_that_does_not_come_back_is_told(tmp_path: Path) -> None:
    kind = kind_of("restart_calico_node")
    arguments = {"node": "node-a", "pod": "calico-system/calico-node-1"}
    async with scene(tmp_path) as (_, _, calico):
        now = datetime.now(UTC)

        async def later(pause_s: float) -> None:
            nonlocal now
            now += timedelta(seconds=pause_s)

        calico.pause, calico.now = later, lambda: now
        right, said = await kind.verify(calico, arguments)
        assert not right and said.startswith("No new calico-node pod came to node-a within 90 s")


TUNNEL_ADDRESS = "projectcalico.org/IPv4VXLANTunnelAddr"


async def test_a_pod_whose_container_was_started_again_since_is_left_alone(tmp_path: Path) -> None:
    """What was stuck is gone; whether the new one is, nobody has seen."""
    kind = kind_of("restart_calico_node")
    pod = CalicoPod(node="node-a", running=True, name="calico-system/calico-node-1", restarts=2)
    arguments = kind.propose(Cause(rule="felix_stuck", title="", text="", node="node-a"), [pod])
    assert arguments is not None and arguments["restarts"] == "2"
    async with scene(tmp_path) as (cluster, _, calico):
        a_node(cluster, "node-a")
        a_pod(cluster, "calico-node-1", "node-a", app="calico-node")

        def started(times: int) -> None:
            there = cluster.objects.get("pods", "calico-node-1", "calico-system")
            there["status"]["containerStatuses"] = [{"name": "calico-node", "restartCount": times}]
            cluster.objects.update_status(there)

        await kind.holds(calico, arguments)  # a kubelet that does not say
        started(2)
        await kind.holds(calico, arguments)
        started(3)
        with pytest.raises(EvidenceChanged, match="restarted since: 3 restarts now, 2 when it was seen"):
            await kind.execute(calico, arguments)
        assert await calico.get("pods", "calico-node-1", "calico-system") is not None


async def test_a_restart_for_a_tunnel_address_is_verified_by_that_address(tmp_path: Path) -> None:
    """Ready alone is not enough: the node must have one, and IPAM must hold it for this node."""
    kind = kind_of("restart_calico_node")
    arguments = {"node": "node-a", "pod": "calico-system/calico-node-1", "annotation": TUNNEL_ADDRESS, "seen": ""}
    async with scene(tmp_path) as (cluster, _, calico):
        a_node(cluster, "node-a")
        a_pod(cluster, "calico-node-2", "node-a", app="calico-node")
        now = datetime.now(UTC)

        async def later(pause_s: float) -> None:
            nonlocal now
            now += timedelta(seconds=pause_s)

        calico.pause, calico.now = later, lambda: now
        right, said = await kind.verify(calico, arguments)
        assert not right and said.startswith(
            "calico-system/calico-node-2 runs on node-a and is ready, but has no tunnel"
        )
        there = cluster.objects.get("nodes", "node-a")
        there["metadata"]["annotations"] = {TUNNEL_ADDRESS: "10.9.0.0"}
        cluster.objects.update(there)
        a_pod(cluster, "calico-node-1", "node-a", app="calico-node")
        with pytest.raises(EvidenceChanged, match=r"is 10\.9\.0\.0 now; it was missing"):
            await kind.holds(calico, arguments)
        cluster.objects.delete("pods", "calico-node-1", "calico-system")
        right, said = await kind.verify(calico, arguments)
        assert not right and "IPAM holds its tunnel address 10.9.0.0 for nobody" in said
        held = {"handle_id": "vxlan-tunnel-addr-node-a", "secondary": {"node": "node-a", "type": "vxlanTunnelAddress"}}
        block = {"cidr": "10.9.0.0/30", "affinity": "host:node-a", "allocations": [0, None, None, None]}
        create(
            cluster,
            CLASSIC,
            "IPAMBlock",
            "10-9-0-0-30",
            **block,
            attributes=[held],
            unallocated=[1, 2, 3],
            deleted=False,
        )
        assert await kind.verify(calico, arguments) == (
            True,
            "calico-system/calico-node-2 runs on node-a and is ready; its tunnel address is 10.9.0.0.",
        )


def test_no_restart_is_proposed_where_a_start_gives_no_tunnel_address() -> None:
    kind = kind_of("restart_calico_node")
    pod = CalicoPod(node="node-b", running=True, name="calico-system/calico-node-1")
    node = msgspec.structs.replace(NODE_A, name="node-b", tunnel_address="")
    cause = Cause(rule="tunnel_address_missing", title="", text="", node="node-b", evidence=(LEG.id, node.id))
    arguments = kind.propose(cause, [LEG, node, pod])
    assert arguments is not None
    assert (arguments["annotation"], arguments["seen"], arguments["handle"]) == (TUNNEL_ADDRESS, "", "")
    assert "its peers follow" in kind.blast_radius(arguments, "node-b")
    unselected = msgspec.structs.replace(node, vxlan_expected=False)
    cause = msgspec.structs.replace(cause, evidence=(LEG.id, unselected.id))
    assert kind.propose(cause, [LEG, unselected, pod]) is None
    loops = CalicoService(node="node-b", service="node-services", seen=True, starts=3, watched_ms=9000)
    cause = msgspec.structs.replace(cause, evidence=(LEG.id, node.id))
    assert kind.propose(cause, [LEG, node, pod, loops]) is None


@pytest.mark.parametrize(
    ("app", "node", "ready", "said"),
    [
        ("", "node-a", "True", "not the calico-node pod of node-a"),
        ("web", "node-a", "True", "not the calico-node pod of node-a"),
        ("calico-node", "node-b", "True", "not the calico-node pod of node-a"),
        ("calico-node", "node-a", "Unknown", "kubelet would not start another"),
    ],
)
async def test_only_calico_node_and_only_where_it_can_come_back(
    app: str, node: str, ready: str, said: str, tmp_path: Path
) -> None:
    kind = kind_of("restart_calico_node")
    async with scene(tmp_path) as (cluster, _, calico):
        a_node(cluster, "node-a", ready)
        a_pod(cluster, "calico-node-1", node, app=app)
        with pytest.raises(EvidenceChanged, match=said):
            await kind.execute(calico, {"node": "node-a", "pod": "calico-system/calico-node-1"})
        assert await calico.get("pods", "calico-node-1", "calico-system") is not None


# ---- the one that acts


def pool_spec(name: str = "blue") -> dict[str, Any]:
    arguments = {"pool": name, "cidr": "10.9.0.0/16"}
    return {"kind": "enable_pool", "node": "", "arguments": arguments}


async def test_the_clusters_fixer_does_what_was_approved_and_a_nodes_fixer_leaves_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as (cluster, fixing, calico):
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True)
        name = await approved(cluster)
        assert not NodeHands("node-a", Kernel()).mine(await fixing.get(name))
        ended = await Executor(ClusterHands(calico), fixing, APPROVERS).handle(name)
        assert (ended.status.phase, ended.status.message.split(";")[0]) == (Phase.VERIFIED, "Pool blue is enabled")


async def test_what_somebody_else_did_meanwhile_is_stale(tmp_path: Path) -> None:
    async with scene(tmp_path) as (cluster, fixing, calico):
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=False)
        name = await approved(cluster)
        ended = await Executor(ClusterHands(calico), fixing, APPROVERS).handle(name)
        assert ended.status.phase is Phase.STALE and "enabled already" in ended.status.message


async def test_what_somebody_else_did_in_the_last_moment_is_told_as_nothing_written(tmp_path: Path) -> None:
    """Between the last look and the write: a request that runs is not Stale any more."""
    async with scene(tmp_path) as (cluster, fixing, _):
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True)

        class Overtaken(Calico):
            async def replace(self, resource: str, changed: Object) -> Object:
                there = cluster.objects.get("ippools", "blue")
                cluster.objects.update({**there, "spec": {**there["spec"], "disabled": False, "by": "another"}})
                return await super().replace(resource, changed)

        name = await approved(cluster)
        hands = ClusterHands(Overtaken(fixing.api, environment={}))
        ended = await Executor(hands, fixing, APPROVERS).handle(name)
        assert ended.status.phase is Phase.FAILED
        assert ended.status.message.startswith("Nothing was written: Pool blue is enabled already;")
        assert cluster.objects.get("ippools", "blue")["spec"]["by"] == "another"


class Broken(Calico):
    """An API server that goes away before the read, or the write, that a test names."""

    broken_at = ""

    async def _send(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, Object]:
        if self.broken_at and f"{method} {path}".startswith(self.broken_at):
            raise ApiError("The API server cannot be reached.")
        return await super()._send(method, path, *rest, **more)


async def test_what_was_done_and_cannot_be_read_did_not_fail(tmp_path: Path) -> None:
    async with scene(tmp_path) as (cluster, fixing, _):
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True)
        calico = Broken(fixing.api, environment={})

        class Gone(ClusterHands):
            async def verify(self, spec: Any) -> tuple[bool, str]:
                calico.broken_at = "GET"
                return await super().verify(spec)

        name = await approved(cluster)
        ended = await Executor(Gone(calico), fixing, APPROVERS).handle(name)
        assert ended.status.phase is Phase.UNKNOWN and ended.status.message.startswith("It was done;")
        assert cluster.objects.get("ippools", "blue")["spec"]["disabled"] is False


async def test_an_address_is_released_though_its_handle_cannot_be_written(tmp_path: Path) -> None:
    kind = kind_of("release_ip")
    async with scene(tmp_path) as (cluster, fixing, _):
        recorded_leaks(cluster)
        calico = Broken(fixing.api, environment={}, now=lambda: datetime(2030, 1, 1, tzinfo=UTC))
        arguments = await leak(calico, "10.245.0.67", "10.245.0.64/26", datetime(2029, 12, 31, tzinfo=UTC))
        calico.broken_at = f"PUT /apis/{CLASSIC}/ipamhandles"
        await kind.execute(calico, arguments)
        right, said = await kind.verify(calico, arguments)
        assert right and said.startswith("10.245.0.67 is free now. Its handle counts more")
        assert await calico.get("ipamhandles", arguments["handle"]) is not None


async def test_an_answer_that_was_lost_is_read_again(tmp_path: Path) -> None:
    """The write was made, its answer never came: it counts; one that was not made does not."""

    class Deaf(Calico):
        async def _send(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, Object]:
            answer = await super()._send(method, path, *rest, **more)
            if method == "PUT":
                raise ApiError("The API server cannot be reached (connection lost).")
            return answer

    async with scene(tmp_path) as (cluster, fixing, _):
        create(cluster, CLASSIC, "IPPool", "blue", cidr="10.9.0.0/16", disabled=True)
        await kind_of("enable_pool").execute(Deaf(fixing.api, environment={}), {"pool": "blue", "cidr": "10.9.0.0/16"})
        assert cluster.objects.get("ippools", "blue")["spec"]["disabled"] is False
        never = Broken(fixing.api, environment={})
        never.broken_at = "PUT"
        found = await never.get("ippools", "blue")
        assert found is not None
        with pytest.raises(ApiError, match="cannot be reached"):
            await never.replace("ippools", {**found, "spec": {**found["spec"], "disabled": True}})


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a state; it fails after half a minute."""
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.02)


async def test_of_several_only_the_holder_works_and_another_follows(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, fixing, _):
        working: set[str] = set()
        most = 0

        def lease(name: str) -> asyncio.Task[None]:
            async def work() -> None:
                nonlocal most
                working.add(name)
                most = max(most, len(working))
                try:
                    await asyncio.Event().wait()
                finally:
                    working.discard(name)

            one = Lease(fixing.api, fixing.namespace, name, duration_s=2, renew_s=0.05, give_up_s=1.0)
            return asyncio.create_task(one.run(work))

        tasks = {name: lease(name) for name in ("a", "b", "c")}
        for _ in range(3):
            await until(lambda: _true(len(working) == 1))
            (holder,) = working
            tasks.pop(holder).cancel()
            await until(lambda gone=holder: _true(gone not in working))  # type: ignore[misc]
        assert not tasks and most == 1


async def test_a_holder_that_was_killed_is_followed_once_its_lease_has_run_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, fixing, _):
        dead = Lease(fixing.api, fixing.namespace, "dead", duration_s=1)
        assert await dead._take()
        loop, begun = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        started = asyncio.Event()

        async def work() -> None:
            started.set()
            await asyncio.Event().wait()

        heir = asyncio.create_task(Lease(fixing.api, fixing.namespace, "heir", renew_s=0.05).run(work))
        async with asyncio.timeout(30):
            await started.wait()
        assert loop.time() - begun >= 1
        assert not await dead._take(), "it has lost it, and sees that"
        heir.cancel()


async def test_a_lease_that_was_deleted_is_not_made_by_who_may_not_and_is_taken_once_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as (cluster, fixing, _):
        lease = Lease(fixing.api, fixing.namespace, "one")
        cluster.objects.delete("leases", LEASE, fixing.namespace)
        assert not await lease._take()
        assert f"There is no Lease {fixing.namespace}/{LEASE}. Apply the manifests of deploy/ again." in caplog.text
        for one in deployed.objects():
            if one["kind"] == "Lease":
                cluster.objects.create(one)
        assert await lease._take()


async def test_who_cannot_renew_stops(tmp_path: Path) -> None:
    async with scene(tmp_path) as (cluster, weak, _):
        stopped, started = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        task = asyncio.create_task(Lease(weak.api, weak.namespace, "weak", renew_s=0.05, give_up_s=0.3).run(work))
        async with asyncio.timeout(30):
            await started.wait()
            cluster.kubeconfig(CLUSTER_FIXER, denied=frozenset({("*", "*", "*")}))
            await stopped.wait()
        task.cancel()


async def test_two_processes_one_killed_and_every_request_ends_once(tmp_path: Path) -> None:
    """`calico-why fixer --cluster` twice; the one that holds the lease is killed with -9 in the middle of it."""
    async with scene(tmp_path) as (cluster, fixing, calico):
        environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig(CLUSTER_FIXER), "CALICO_WHY_APPROVERS": "U0BO"}
        environment["PYTHONPATH"] = str(ROOT)
        command = (sys.executable, "-m", "bot.cli", "fixer", "--cluster")
        fixers = [await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT) for _ in range(2)]
        try:
            names = []
            for number in range(4):
                create(cluster, CLASSIC, "IPPool", f"pool-{number}", cidr="10.9.0.0/16", disabled=True)
                names.append(await approved(cluster, f"pool-{number}"))
                if number == 1:
                    await until(lambda: _ended(fixing, names[:1]))
                    lease = cluster.objects.get("leases", "calico-why-fixer", fixing.namespace)
                    (holder,) = [one for one in fixers if f"_{one.pid}_" in lease["spec"]["holderIdentity"]]
                    holder.kill()
            async with asyncio.timeout(60):
                while not await _ended(fixing, names):  # noqa: ASYNC110  # of another process
                    await asyncio.sleep(0.05)
            for number, name in enumerate(names):
                history = [event.phase for event in (await fixing.get(name)).status.history]
                pool = await calico.get("ippools", f"pool-{number}")
                assert pool is not None and history.count(Phase.RUNNING) == 1
                # Killed between Running and the write, nobody ran it again: then it says that nobody knows.
                assert history[-1] is Phase.VERIFIED or (number == 1 and history[-1] is Phase.UNKNOWN)
                assert pool["spec"]["disabled"] is (history[-1] is Phase.UNKNOWN)
        finally:
            for fixer in fixers:
                with contextlib.suppress(ProcessLookupError):
                    fixer.terminate()
                await fixer.wait()


async def test_a_fixer_that_is_told_to_end_while_something_happens_ends(tmp_path: Path) -> None:
    """What the API server tells at the same moment must not make it forget that."""
    async with scene(tmp_path) as (cluster, fixing, _):
        environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig(CLUSTER_FIXER), "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-m", "bot.cli", "fixer", "--cluster")
        fixer = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT)
        try:
            await until(lambda: _true(bool(cluster.server._watchers)))
            fixer.send_signal(signal.SIGSTOP)
            name = await approved(cluster)
            async for _, seen in fixing.watch():  # what this is told the fixer was told
                if seen.name == name:
                    break
            fixer.send_signal(signal.SIGTERM)
            fixer.send_signal(signal.SIGCONT)
            async with asyncio.timeout(20):
                assert await fixer.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                fixer.kill()
            await fixer.wait()


async def _true(value: bool) -> bool:
    return value


async def _ended(store: FixStore, names: list[str]) -> bool:
    return not any([(await store.get(name)).open for name in names])
