"""Fixes of the cluster's objects on a lab: what people approve mends what they asked about, and nothing after it
changed."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from bot.leaks import with_routes
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.sources.upkeep import leaked
from facts import Cause, LeakedAddresses, Pool, PoolUsage
from fixes.calico import Calico, Object
from fixes.release import holding
from fixes.request import Phase
from fixes.store import FixStore, connect
from lab.client import Lab
from tests.asking import ask, told, words_for
from tests.deployed import CLUSTER_FIXER, NAMESPACE
from tests.fixing import asked, ended, up

GONE = "k8s-pod-network." + "9" * 64
SYSTEM = "kube-system"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from up()


@pytest.fixture(scope="module")
def dual() -> Iterator[Lab]:
    yield from up("dualstack")


class Later(Calico):
    """The API server as the fixer meets it when the second look is due."""

    def __init__(self, api: Any) -> None:
        super().__init__(api, now=lambda: datetime.now(UTC) + timedelta(minutes=16))


@pytest.mark.parametrize("mode", ["pool_disabled", "block_affinity_conflict"])
async def test_what_was_approved_mends_it(lab: Lab, mode: str) -> None:
    lab.heal()
    inflicted = lab.inflict(mode)
    answer = await ask(lab.environment(), words_for(inflicted))
    assert mode in {one.rule for one in told(answer.diagnosis, mode)}
    (request,) = await ended(lab, answer, mode)
    assert request.status.phase is Phase.VERIFIED, request.status.message
    after = await well(lab, words_for(inflicted))
    assert mode not in {one.rule for one in (*after.causes, *after.warnings)}
    (again,) = await ended(lab, answer, mode)  # the old answer asked for once more
    assert again.status.phase is Phase.STALE and again.status.message.startswith("Nothing was done: ")


async def well(lab: Lab, words: str) -> Any:
    """The first healthy answer: nodes follow their objects a moment later."""
    async with asyncio.timeout(30):
        while (answer := await asked(lab, words)).verdict != "healthy":
            pass
    return answer


def fixer(lab: Lab) -> AbstractAsyncContextManager[FixStore]:
    return connect(lab.environment(account=CLUSTER_FIXER)["KUBECONFIG"], NAMESPACE)


def administrator(lab: Lab) -> AbstractAsyncContextManager[FixStore]:
    """Whoever makes pods and gives them addresses."""
    return connect(lab.administrator()["KUBECONFIG"], NAMESPACE)


class DaemonSet(Calico):
    """Stands for kubelet, DaemonSet and the start of calico-node, which a lab has not: a new pod, and all of the node
    as it was."""

    def __init__(self, api: Any, lab: Lab, cluster: Calico) -> None:
        """api: the fixer's. cluster: of who makes pods."""
        super().__init__(api, pause=self._start)
        self._lab, self._cluster, self._started = lab, cluster, False

    async def delete(self, resource: str, seen: Object) -> None:
        self._pod = copy.deepcopy(seen)
        await super().delete(resource, seen)

    async def _start(self, _: float) -> None:
        if self._started:
            return
        self._started = True
        await asyncio.to_thread(self._lab.heal)
        metadata = self._pod["metadata"]
        if (old := await self._cluster.get("pods", metadata["name"], SYSTEM)) is not None:
            await self._cluster.delete("pods", old)
        fresh = {**self._pod, "metadata": {**metadata, "name": "calico-node-anew"}}
        for key in ("uid", "resourceVersion"):
            fresh["metadata"].pop(key, None)
        status, answer = await self._cluster._send("POST", f"/api/v1/namespaces/{SYSTEM}/pods", body=fresh)
        assert status == 201, answer
        made = await self._cluster.get("pods", "calico-node-anew", SYSTEM)
        assert made is not None
        made["status"] = {**self._pod["status"], "conditions": [{"type": "Ready", "status": "True"}]}
        path = f"/api/v1/namespaces/{SYSTEM}/pods/calico-node-anew/status"
        status, answer = await self._cluster._send("PUT", path, body=made)
        assert status == 200, answer


TUNNEL_ADDRESSES = (
    "tunnel_address_missing",
    "tunnel_address_freed",
    "tunnel_address_not_owned",
    "tunnel_address_used_by_pod",
)


@pytest.mark.parametrize("mode", [*TUNNEL_ADDRESSES, "felix_not_ready"])
async def test_calico_node_is_restarted_while_the_node_is_as_it_was_seen(lab: Lab, mode: str) -> None:
    lab.heal()
    inflicted = lab.inflict(mode)
    answer = await ask(lab.environment(), words_for(inflicted))
    assert mode in {one.rule for one in (*answer.diagnosis.causes, *answer.diagnosis.warnings)}
    async with fixer(lab) as fixing, administrator(lab) as admin:
        requests = await ended(lab, answer, mode, DaemonSet(fixing.api, lab, Calico(admin.api)))
    (request,) = [one for one in requests if one.spec.node == inflicted["node"]]
    assert request.status.phase is Phase.VERIFIED, request.status.message
    tunnel = "; its tunnel address is " in request.status.message
    assert request.status.message.startswith(f"{SYSTEM}/calico-node-anew runs on {inflicted['node']} and is ready")
    assert tunnel == (mode in TUNNEL_ADDRESSES)
    assert mode not in {one.rule for one in (await well(lab, words_for(inflicted))).warnings}


@pytest.mark.parametrize("mode", TUNNEL_ADDRESSES)
async def test_it_is_not_where_the_tunnel_address_has_changed_since(lab: Lab, mode: str) -> None:
    lab.heal()
    answer = await ask(lab.environment(), words_for(lab.inflict(mode)))
    lab.heal()  # somebody else was faster
    (request,) = await ended(lab, answer, mode)
    assert request.status.phase is Phase.STALE, request.status.message
    assert "IPv4VXLANTunnelAddr" in request.status.message or "IPAM holds" in request.status.message


async def test_each_of_the_first_leaked_addresses_is_released_by_itself(lab: Lab) -> None:
    lab.heal()
    inflicted = lab.inflict("ip_leaked")
    answer = await ask(lab.environment(), words_for(inflicted))
    (fact,) = (one for one in answer.diagnosis.facts if isinstance(one, LeakedAddresses))
    addresses = [fact.address, *(one.address for one in fact.others)]
    assert len(addresses) == min(fact.count, 5) > 1
    async with fixer(lab) as fixing:
        requests = await ended(lab, answer, "ip_leaked", Later(fixing.api))
        (block,) = [
            one["spec"] for one in await Calico(fixing.api).list("ipamblocks") if one["spec"]["cidr"] == fact.block
        ]
    assert [one.spec.arguments["address"] for one in requests] == addresses
    assert {one.status.message for one in requests} == {f"{address} is free now." for address in addresses}
    facts = (await asked(lab, words_for(inflicted))).facts
    gone = {number for number, one in enumerate(block["attributes"]) if "/gone-" in _owner(one)}
    assert sum(number in gone for number in block["allocations"]) == fact.count - len(addresses), "all others wait"
    assert all(not one.exhausted for one in facts if isinstance(one, PoolUsage) and one.pool == fact.pool)


def _owner(attribute: Object) -> str:
    about = attribute.get("secondary") or {}
    return f"{about.get('namespace', '')}/{about.get('pod', '')}"


async def test_an_address_of_an_ipv6_block_is_released(dual: Lab) -> None:
    """Found by what the bot reads, asked for at every node, approved, released; the block is whole afterwards."""
    dual.heal()
    answer = await ask(dual.environment(), "shop/cart shop/db")
    settings = from_environment(dual.environment())
    async with fixer(dual) as fixing, administrator(dual) as admin:
        later, calico = Later(fixing.api), Calico(admin.api)
        address, block = await leak_of_ipv6(calico)
        nodes, pods = await calico.list("nodes"), await calico.list("pods")
        specs = [one["spec"] for one in await calico.list("ipamblocks")]
        cidr = next(one["spec"]["cidr"] for one in await calico.list("ippools") if ":" in one["spec"]["cidr"])
        pool = Pool(name="six", cidr=cidr, block_size=122)
        fact = leaked(pool, "node-a", specs, specs, pods, nodes, now=datetime.now(UTC))
        assert (fact.count, fact.address) == (1, address)
        async with Cluster(settings) as cluster, Probes(settings) as probes:
            (told_by_nodes,) = await with_routes(cluster, probes, [fact])
        assert isinstance(told_by_nodes, LeakedAddresses)
        assert told_by_nodes.no_route_on == ("node-a", "node-b", "node-c")
        cause = Cause(
            rule="ip_leaked",
            title="",
            text="",
            node="node-a",
            severity="warns",
            evidence=(told_by_nodes.id,),
            fix="release_ip",
        )
        diagnosis = msgspec.structs.replace(
            answer.diagnosis, facts=(*answer.diagnosis.facts, told_by_nodes), warnings=(cause,)
        )
        found = msgspec.structs.replace(answer, diagnosis=diagnosis)
        (request,) = await ended(dual, found, "ip_leaked", later)
        assert (request.status.phase, request.status.message) == (Phase.VERIFIED, f"{address} is free now.")
        after = await calico.get("ipamblocks", block)
        assert after is not None and holding(after["spec"], address).attribute is None
        assert await calico.get("ipamhandles", GONE) is None
    assert (await asked(dual, "shop/cart shop/db")).verdict == "healthy"


async def leak_of_ipv6(calico: Calico) -> tuple[str, str]:
    """An address that IPAM holds for a pod that is gone, as its CNI plugin would have left it: it, and its block."""
    block = next(one for one in await calico.list("ipamblocks") if ":" in one["spec"]["cidr"])
    spec = block["spec"]
    ordinal = spec["unallocated"].pop(0)
    about = {"namespace": "shop", "pod": "gone", "node": "node-a", "timestamp": "2026-11-22 20:26:45.120391 +0000 UTC"}
    spec["attributes"].append({"handle_id": GONE, "secondary": about})
    spec["allocations"][ordinal] = len(spec["attributes"]) - 1
    spec["sequenceNumberForAllocation"] = {
        **(spec.get("sequenceNumberForAllocation") or {}),
        str(ordinal): spec["sequenceNumber"],
    }
    spec["sequenceNumber"] += 1
    await calico.replace("ipamblocks", block)
    group = await calico.group()
    handle = {
        "apiVersion": group,
        "kind": "IPAMHandle",
        "metadata": {"name": GONE},
        "spec": {"handleID": GONE, "block": {spec["cidr"]: 1}, "deleted": False},
    }
    status, answer = await calico._send("POST", f"/apis/{group}/ipamhandles", body=handle)
    assert status == 201, answer
    return str(ip_network(spec["cidr"])[ordinal]), block["metadata"]["name"]
