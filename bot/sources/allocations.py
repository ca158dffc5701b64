"""Says who has an address and how full pools are; without it a stale address or a full pool would have no name."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from bot.sources import ipam, upkeep
from bot.sources.api import Missing, Refused, Unreachable, name
from bot.sources.names import Address, affinity_name, block_name, is_address
from bot.sources.reader import Object, Reader, labels, spec, together
from bot.sources.upkeep import CALICO_NODE, KUBE_CONTROLLERS
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    GarbageCollector,
    Pool,
)


class Calico(NamedTuple):
    """What is read once for both sides."""

    settings: CalicoSettings
    auto_allocate: bool
    block_limit: int  # blocks a node may have
    cooldown_s: int  # how long a released address is kept back
    pools: list[tuple[Pool, Object]] | None  # IPv4 pools with their resources; None when they could not be read
    felix: Object  # spec of FelixConfiguration default
    blind: list[Blind]


class Addresses:
    """What Calico's IPAM says within one look; each block is read once for all the addresses in it."""

    def __init__(self, reader: Reader, calico: Awaitable[Calico]) -> None:
        self._reader = reader
        self.calico = calico
        self._blocks: dict[str, asyncio.Future[Object | Blind | None]] = {}  # by object name

    async def of(self, addresses: Sequence[str]) -> list[Fact]:
        """What the blocks say about each of the addresses; those that are none are passed over."""
        calico = await self.calico
        unique = [one for one in dict.fromkeys(addresses) if is_address(one)]
        found = await together(*(self._allocation(one, calico) for one in unique))
        return [fact for facts in found for fact in facts]

    async def usage(self, node: Object, namespaces: Sequence[str]) -> list[Fact]:
        """How full the pools are that a waiting pod on this node could get its address from."""
        calico = await self.calico
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        blocks, reservations, nodes, labels = await together(
            self._reader.everything(f"{base}/ipamblocks", "ipamblocks", blind),
            self._reader.everything(f"{base}/ipreservations", "ipreservations", blind),
            self._count_nodes(),
            self._namespace_labels(namespaces, calico, blind),
        )
        # Half of what decides says nothing: a pool with a limit nobody could read looks like one with room.
        unread = [one for one in calico.blind if one.look.startswith("ipamconfig")]
        if blocks is None or calico.pools is None or blind or unread:
            return list(blind)
        reserved = ipam.reservations(reservations or ())
        chosen = [pool for pool, one in calico.pools if not ipam.refusal(pool, one, node, labels)]
        usable = [
            ipam.usage(
                pool,
                node["metadata"]["name"],
                [spec(block) for block in blocks],
                reserved,
                among=[one for one in chosen if (":" in one.cidr) == (":" in pool.cidr)],
                nodes=nodes,
                version=calico.settings.version,
                strict_affinity=calico.settings.strict_affinity,
                auto_allocate=calico.auto_allocate,
                block_limit=calico.block_limit,
                cooldown_s=calico.cooldown_s,
            )
            for pool in chosen
        ]
        if not usable:
            strict = calico.settings.strict_affinity
            usable = [ipam.no_pool(node["metadata"]["name"], nodes=nodes, strict_affinity=strict)]
        told = ipam.together(usable)
        full = [
            pool
            for pool, _ in calico.pools
            if any(one.pool == pool.name and one.exhausted and not one.other_pool for one in told)
        ]
        leaks = await self._leaks(node["metadata"]["name"], full, blocks, calico) if full else []
        return [*told, *leaks]

    async def claims(self, nodes: Sequence[CalicoNode], allocated: Sequence[Fact]) -> list[Fact]:
        """Who claims the blocks of the asked pods beside their owners.

        Each of the asked nodes is looked at; where BIRD writes the routes, where a claim does harm, all claims are.
        """
        calico = await self.calico
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        blocks = {one.block: one for one in allocated if isinstance(one, Allocation) and one.block and one.block_node}
        owners = {block: one.block_node for block, one in blocks.items()}
        names = dict.fromkeys(node.name for node in nodes)
        if any(upkeep.by_bird(one, calico.settings) for one in blocks.values()):
            found = await self._reader.everything(f"{base}/blockaffinities", "blockaffinities", blind) or []
        else:
            claimed = [
                affinity_name(node, ipaddress.ip_network(block))
                for block, owner in owners.items()
                for node in names
                if node != owner
            ]
            looked = (
                self._reader.optional(f"{base}/blockaffinities/{name(one)}", "blockaffinities", blind)
                for one in claimed
            )
            found = [one for one in await together(*looked) if one]
        return [*upkeep.claims(found, owners), *(msgspec.structs.replace(one, minor=True) for one in blind)]

    async def _allocation(self, address: str, calico: Calico) -> list[Fact]:
        """What the block that contains the address says about it. The block is found by name: nothing is listed."""
        ip = ipaddress.ip_address(address)
        pools = [pool for pool, _ in calico.pools or ()]
        for networks in ipam.candidates(ip, pools):
            answers = await together(*(self._block(block_name(one), calico.settings.group) for one in networks))
            if unread := [one for one in answers if isinstance(one, Blind)]:
                return [unread[0]]
            living = [spec for spec in answers if spec and not spec.get("deleted")]
            if living:
                return [self._judged(ip, living[0], calico.pools)]
        return [self._judged(ip, None, calico.pools)]

    async def _block(self, block: str, group: str) -> Object | Blind | None:
        """Spec of a block; None when there is none."""
        if block not in self._blocks:
            self._blocks[block] = asyncio.ensure_future(self._read_block(block, group))
        return await self._blocks[block]

    async def _read_block(self, block: str, group: str) -> Object | Blind | None:
        blind: list[Blind] = []
        found = await self._reader.optional(f"/apis/{group}/ipamblocks/{block}", "ipamblocks", blind)
        return blind[0] if blind else spec(found) or None

    @staticmethod
    def _judged(ip: Address, spec: Object | None, pools: list[tuple[Pool, Object]] | None) -> Allocation:
        found = ipam.allocation(ip, spec, ipam.pool_of(ip, [pool for pool, _ in pools or ()]))
        return msgspec.structs.replace(found, pools_read=pools is not None)

    async def _namespace_labels(self, namespaces: Sequence[str], calico: Calico, blind: list[Blind]) -> list[Object]:
        """The namespaces, read only when a pool chooses by them."""
        if not any(spec(one).get("namespaceSelector") for _, one in calico.pools or ()):
            return []
        found = await together(
            *(
                self._reader.optional(f"/api/v1/namespaces/{name(one)}", "namespaces", blind)
                for one in dict.fromkeys(namespaces)
            )
        )
        return [one for one in found if one]

    async def _count_nodes(self) -> int:
        """Nodes of the cluster, from a list of one that says how many it left out; -1 when it cannot be known."""
        try:
            answer = await self._reader.api.get("/api/v1/nodes", limit=1)
        except (Missing, Refused, Unreachable):
            return -1
        meta: Object = answer.get("metadata") or {}
        if meta.get("continue") and "remainingItemCount" not in meta:
            return -1
        return len(answer.get("items") or ()) + int(meta.get("remainingItemCount") or 0)

    async def _leaks(self, node: str, full: Sequence[Pool], blocks: Sequence[Object], calico: Calico) -> list[Fact]:
        """Addresses of full pools that belong to nobody any more, and who should free them."""
        base, blind = f"/apis/{calico.settings.group}", list[Blind]()
        pods, nodes = await together(
            self._reader.everything("/api/v1/pods", "pods", blind),
            self._reader.everything("/api/v1/nodes", "nodes", blind),
        )
        again = await self._reader.everything(f"{base}/ipamblocks", "ipamblocks", blind)
        found: list[Fact] = [msgspec.structs.replace(one, minor=True) for one in blind]
        if pods is None or nodes is None or again is None:
            return found
        before, after, now = [spec(one) for one in blocks], [spec(one) for one in again], datetime.now(UTC)
        leaks = [upkeep.leaked(pool, node, before, after, pods, nodes, now=now) for pool in full]
        if not any(one.count for one in leaks):
            return [*found, *leaks]
        about = await self._garbage_collector(pods, base)
        grace_s = next((one.grace_s for one in about if isinstance(one, GarbageCollector)), 0)
        return [*found, *(msgspec.structs.replace(one, grace_s=grace_s or one.grace_s) for one in leaks), *about]

    async def _garbage_collector(self, pods: Sequence[Object], base: str) -> list[Fact]:
        blind: list[Blind] = []
        collectors = [pod for pod in pods if labels(pod).get("k8s-app") == KUBE_CONTROLLERS]
        agents = [pod for pod in pods if labels(pod).get("k8s-app") == CALICO_NODE.partition("=")[2]]
        namespace = next((str(pod["metadata"].get("namespace", "")) for pod in (*collectors, *agents)), "")
        daemon_set, configuration = await together(
            self._daemon_set(namespace, blind),
            self._reader.optional(
                f"{base}/kubecontrollersconfigurations/default", "kubecontrollersconfigurations", blind
            ),
        )
        found = upkeep.garbage_collector(collectors, daemon_set, spec(configuration))
        return [found, *(msgspec.structs.replace(one, minor=True) for one in blind)]

    async def _daemon_set(self, namespace: str, blind: list[Blind]) -> Object | None:
        """Of calico-node; None where no pod tells in which namespace it would be."""
        if not namespace:
            return None
        path = f"/apis/apps/v1/namespaces/{name(namespace)}/daemonsets/calico-node"
        return await self._reader.optional(path, "daemonsets", blind)


def placed_in_pools(endpoint: Endpoint, pools: list[tuple[Pool, Object]] | None) -> Endpoint:
    """An address of a pool that no pod has is nobody's, and not one outside the cluster."""
    if endpoint.kind == "address" and ipam.pool_of(
        ipaddress.ip_address(endpoint.name), [pool for pool, _ in pools or ()]
    ):
        return msgspec.structs.replace(endpoint, kind="nobody")
    return endpoint
