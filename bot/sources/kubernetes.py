"""What Kubernetes and Calico say about both sides of a question; without it a kernel has nothing to be held against."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import msgspec

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.settings import Settings
from bot.sources import describe, ipam, upkeep
from bot.sources.allocations import Addresses, Calico, placed_in_pools
from bot.sources.api import Api, Missing, Refused, Unreachable, name
from bot.sources.behind import Services, looked_up
from bot.sources.names import family
from bot.sources.reader import Object, Reader, spec, together
from bot.sources.resolve import SAME_NAME, Found, Resolver
from bot.sources.upkeep import CALICO_NODE
from bot.words import Asked
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    CalicoPod,
    CalicoSettings,
    Endpoint,
    Fact,
    Question,
    listed,
    say,
)

CLASSIC = "crd.projectcalico.org/v1"
NATIVE = "projectcalico.org/v3"


class _Agents(NamedTuple):
    """What the calico-node pods of the asked nodes say, and those of each with their settings."""

    facts: list[Fact]
    by_node: dict[str, list[Object]]


class Cluster:
    """One cluster, looked at with targeted GETs only: nothing is listed whole to find one thing.

    async with Cluster(settings) as cluster:
        facts = await cluster.look(parse(["shop/cart", "shop/db", "5432/tcp"]))
    """

    def __init__(self, settings: Settings, *, timeout_s: float = 5.0) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._connected: Api | None = None
        self._group = ""
        self.name = settings.cluster  # how answers call it

    async def __aenter__(self) -> Cluster:
        self._connected = await Api.connect(
            self._settings.kubeconfig, self._settings.context, timeout_s=self._timeout_s
        )
        self.name = self.name or self._connected.context
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected:
            await self._connected.close()

    @property
    def api(self) -> Api:
        """Of the entered cluster; `api.calls` counts the requests sent."""
        if self._connected is None:
            raise RuntimeError("the cluster is used outside `async with`")
        return self._connected

    @property
    def reader(self) -> Reader:
        """Of the entered cluster."""
        return Reader(self.api)

    async def look(self, asked: Asked) -> list[Fact]:
        """The question, both endpoints and all that Calico says about them and their nodes.

        What could not be read is a `Blind`. Raises UserError when the question falls: no such pod, an ambiguous name,
        an API server that does not answer or does not let this user read pods, no Calico.
        """
        try:
            return await self._look(asked)
        except Unreachable as error:
            raise self.api.unreachable(error) from error

    async def _look(self, asked: Asked) -> list[Fact]:
        group = asyncio.ensure_future(self.group())
        calico = asyncio.ensure_future(self._calico(group))
        resolver, in_ipam = Resolver(self.reader), Addresses(self.reader, calico)
        try:
            named = await together(resolver.word(asked.source), resolver.word(asked.target))
            source, target = await together(
                resolver.by_second_address(named[0], in_ipam, sends=True), resolver.by_second_address(named[1], in_ipam)
            )
            if source.name == target.name:
                raise UserError(
                    f"Both sides are {source.name}: what it sends to itself never leaves it. Name two different pods."
                )
            services = Services(self.reader, resolver)
            target = await services.of_address(target, asked)
            behind = await services.behind(source, target, asked)
            sides = list({one.name: one for one in (source, target, *behind.found)}.values())
            names = list(dict.fromkeys(one.node for one in sides if one.node))
            # The blocks of the pods are read beside their nodes: the tunnel addresses are in the same ones, mostly.
            *nodes, _, holders, agents = await together(
                *(self._node(one, group, calico) for one in names),
                in_ipam.of([to for one in sides if one.routed for to in one.addresses]),
                self._holders([one.addresses for one in sides if one.kind == "pod" and one.routed]),
                self._calico_pods(names),
            )
            common = await calico
        finally:
            for task in (calico, group):
                task.cancel()
            await asyncio.gather(calico, group, return_exceptions=True)

        known = [upkeep.as_told(node, agents.by_node.get(node.name, ())) for found, _, _ in nodes for node in found]
        prefixes = {node.name: node.interface_prefix for node in known}
        endpoints = [_endpoint(one, prefixes) for one in sides]
        addresses = [to for one in sides if one.routed for to in one.addresses]
        senders = {one.node for one in sides if not one.routed}  # nodes that send under an address of their tunnel's
        addresses += [node.tunnel_address for node in known]
        addresses += [
            one for node in known if node.name in senders for one in (node.ipip_address, node.wireguard_address)
        ]
        waiting = {one.node: one for one in endpoints if _waits_for_address(one) and one.node in prefixes}
        resources = {found[0].name: resource for found, resource, _ in nodes if found}
        allocated, *used = await together(
            in_ipam.of(addresses),
            *(in_ipam.usage(resources[node], _namespaces(endpoints, node)) for node in waiting),
        )
        claims = await in_ipam.claims(known, allocated) if len(prefixes) > 1 else []
        placed = [placed_in_pools(one, common.pools) for one in endpoints]
        facts: list[Fact] = [
            Question(
                source=source.name,
                target=target.name,
                protocol=behind.protocol,
                port=behind.port,
                family=family(asked.source) or family(asked.target) or behind.family,
                service=behind.service,
            ),
            *placed,
            *behind.ports,
            *(looked_up(one, placed, common.pools) for one in behind.backends),
            upkeep.as_set(common.settings, common.felix, agents.by_node.values()),
            *(_with_tunnel_block(node, allocated) for node in known),
            *(pool for pool, _ in common.pools or ()),
            *allocated,
            *(fact for found in used for fact in found),
            *claims,
            *holders,
            *(one for one in agents.facts if not _needs_no_agent(one, resources)),
            *(blind for one in sides for blind in one.blind),
            *behind.blind,
            *common.blind,
            *(_settings_unread(node) for node in known if node.settings_unread),
            *(blind for _, _, blinds in nodes for blind in blinds),
        ]
        return list(dict.fromkeys(facts))

    # -- which store, and what holds for all ------------------------------------------------------------------------

    async def group(self) -> str:
        """The API group Calico keeps its objects in, by Calico's own rule; remembered. Raises UserError when none."""
        if self._settings.api_group:
            if self._settings.api_group not in (CLASSIC, NATIVE):
                raise UserError(
                    f"CALICO_API_GROUP is {self._settings.api_group!r}; Calico knows {CLASSIC} and {NATIVE}."
                )
            return self._settings.api_group
        if not self._group:
            try:
                self._group = await self._discover()
            except (Missing, Refused):
                return CLASSIC  # discovery is closed to this user; the looks that follow say what they met themselves
            except Unreachable as error:
                raise self.api.unreachable(error) from error
        return self._group

    async def _discover(self) -> str:
        served = {one.get("name") for one in (await self.api.get("/apis")).get("groups") or ()}
        if CLASSIC.split("/")[0] in served:
            return CLASSIC
        if NATIVE.split("/")[0] in served:
            return NATIVE
        raise UserError(
            f"{self.name} is not a Calico cluster: its API server {self.api.server} serves neither {CLASSIC} nor "
            f"{NATIVE}. Check that KUBECONFIG points to the cluster you mean. "
            "A Calico that keeps its objects in an etcd of its own cannot be asked about.",
            status=COULD_NOT_JUDGE,
        )

    async def _calico(self, group: Awaitable[str]) -> Calico:
        """ClusterInformation, IPAM configuration, cluster-wide FelixConfiguration and the pools."""
        base = f"/apis/{await group}"
        config = "ipamconfigs" if base.endswith(CLASSIC) else "ipamconfigurations"
        blind: list[Blind] = []
        information, configuration, felix, pools = await together(
            self.reader.optional(f"{base}/clusterinformations/default", "clusterinformations", blind),
            self.reader.optional(f"{base}/{config}/default", config, blind),
            self.reader.optional(f"{base}/felixconfigurations/default", "felixconfigurations", blind),
            self.reader.listed(f"{base}/ippools", "ippools", blind),
        )
        about, limits = spec(information), spec(configuration)
        version = str(about.get("calicoVersion") or "")
        bgp: Object | None = None
        if any("Always" != spec(one).get("vxlanMode") != "CrossSubnet" for one in pools or ()):
            hidden = list[Blind]()
            resource = await self.reader.optional(f"{base}/bgpconfigurations/default", "bgpconfigurations", hidden)
            bgp = None if hidden else spec(resource)
            blind += [msgspec.structs.replace(one, minor=True) for one in hidden]
        return Calico(
            settings=CalicoSettings(
                version=version,
                group=base.removeprefix("/apis/"),
                datastore_ready=bool(about.get("datastoreReady", True)),
                strict_affinity=bool(limits.get("strictAffinity")),
                dataplane=upkeep.dataplane(version, spec(felix)),
                **upkeep.routes(version, spec(felix), bgp),
            ),
            auto_allocate=bool(limits.get("autoAllocateBlocks", True)),
            block_limit=int(limits.get("maxBlocksPerHost") or ipam.BLOCKS_PER_NODE),
            cooldown_s=int(limits.get("ipCooldownSeconds") or 0),
            pools=None if pools is None else [(pool, one) for one in pools if (pool := describe.pool(one))],
            felix=spec(felix),
            blind=blind,
        )

    async def _node(
        self, node: str, group: Awaitable[str], calico: Awaitable[Calico]
    ) -> tuple[list[CalicoNode], Object, list[Blind]]:
        """The node as Calico's annotations have it, with its resource; empty when it cannot be read or is gone."""
        blind: list[Blind] = []
        base = f"/apis/{await group}"
        resource, overrides = await together(
            self.reader.optional(f"/api/v1/nodes/{name(node)}", "nodes", blind, node=node),
            self.reader.optional(
                f"{base}/felixconfigurations/node.{name(node)}", "felixconfigurations", blind, node=node
            ),
        )
        common = await calico
        if resource is None:
            if not any(one.look == "nodes" for one in blind):
                missing = say("there is no node {node} in the API", node=node)
                blind.append(Blind(node=node, look="nodes", reason=missing))
            return [], {}, blind
        felix = {**common.felix, **spec(overrides)}
        found = describe.calico_nodes(resource, common.pools, felix)
        if any(one.look == "felixconfigurations" for one in (*common.blind, *blind)):
            found = [msgspec.structs.replace(one, settings_read=False) for one in found]
        return found, resource, blind

    # -- pods beside the asked ones ---------------------------------------------------------------------------------

    async def _holders(self, pods: Sequence[Sequence[str]]) -> list[Fact]:
        """Who has each of these pods' addresses now.

        The API finds pods by their first address only. That finds the other ones' as well: who took one address twice
        took the whole pod's.
        """
        blind: list[Blind] = []
        unique = list(dict.fromkeys(addresses[0] for addresses in pods))
        found = await together(
            *(
                self.reader.listed("/api/v1/pods", "pods", blind, fieldSelector=f"status.podIP={one}", limit=SAME_NAME)
                for one in unique
            )
        )
        listed = dict(zip(unique, found, strict=True))
        holders = [
            describe.address_holders(one, listed[addresses[0]] or ())
            for addresses in pods
            for one in addresses
            if listed[addresses[0]] is not None
        ]
        return [*holders, *blind]

    async def _calico_pods(self, nodes: Sequence[str]) -> _Agents:
        """The calico-node pod of each node; nothing where Calico runs in another way."""
        blind: list[Blind] = []
        found = await together(
            *(
                self.reader.listed(
                    "/api/v1/pods",
                    "calico-node pods",
                    blind,
                    labelSelector=CALICO_NODE,
                    fieldSelector=f"spec.nodeName={node}",
                    limit=SAME_NAME,
                )
                for node in nodes
            )
        )
        told: list[Fact] = [describe.calico_pod(node, pods) for node, pods in zip(nodes, found, strict=True) if pods]
        agents = iter(await self.with_settings([pod for pods in found for pod in pods or ()], blind))
        by_node = {node: [next(agents) for _ in pods] for node, pods in zip(nodes, found, strict=True) if pods}
        told += await self.typha(next((pods[0] for pods in by_node.values()), {}), blind)
        lacking = [node for node, pods in zip(nodes, found, strict=True) if pods == []]
        # A node without one is news only where other nodes have one.
        if lacking and (
            told
            or await self.reader.listed("/api/v1/pods", "calico-node pods", blind, labelSelector=CALICO_NODE, limit=1)
        ):
            told += [describe.calico_pod(node, ()) for node in lacking]
        told += (msgspec.structs.replace(one, minor=True) for one in blind)
        return _Agents(told, by_node)

    async def with_settings(self, agents: Sequence[Object], blind: list[Blind]) -> list[Object]:
        """calico-node pods with the values that their environment has from ConfigMaps, each of which is read once."""
        pods = [(str((pod.get("metadata") or {}).get("namespace", "")), pod) for pod in agents]
        places = list(dict.fromkeys((namespace, one) for namespace, pod in pods for one in upkeep.config_maps(pod)))
        read = await together(*(self._config_map(*place) for place in places))
        maps = dict(zip(places, read, strict=True))
        found = [
            upkeep.with_values(pod, {one: maps[namespace, one][0] for one in upkeep.config_maps(pod)})
            for namespace, pod in pods
        ]
        if any(upkeep.unread([pod]) or upkeep.typha_unread(pod) for pod in found):
            blind += dict.fromkeys(one for _, hidden in read for one in hidden)
        return found

    async def _config_map(self, namespace: str, config_map: str) -> tuple[Object | None, list[Blind]]:
        """Its data, {} where there is none such; None where it cannot be read."""
        hidden: list[Blind] = []
        path = f"/api/v1/namespaces/{name(namespace)}/configmaps/{name(config_map)}"
        found = await self.reader.optional(path, "configmaps", hidden)
        return None if hidden else (found or {}).get("data") or {}, hidden

    async def typha(self, agent: Object, blind: list[Blind]) -> list[Fact]:
        """What stands behind the Service by which a calico-node pod is told to find Typha, if it is told of one. agent:
        as `with_settings` gives it."""
        setting = upkeep.typha_setting(agent)
        namespace = str((agent.get("metadata") or {}).get("namespace", ""))
        service = setting.service
        if service in ("", "none"):
            return []
        namespace = setting.namespace or namespace
        slices = await self.reader.listed(
            f"/apis/discovery.k8s.io/v1/namespaces/{name(namespace)}/endpointslices",
            "endpointslices",
            blind,
            labelSelector=f"kubernetes.io/service-name={service}",
        )
        return [] if slices is None else [upkeep.typha(f"{namespace}/{service}", slices)]


def _settings_unread(node: CalicoNode) -> Blind:
    reason = say(
        "calico-node on {node} is told {settings} by what was not read, and that goes before FelixConfiguration",
        node=node.name,
        settings=listed(node.settings_unread),
    )
    return Blind(node=node.name, look="calico-node settings", reason=reason)


def _needs_no_agent(fact: Fact, nodes: Mapping[str, Object]) -> bool:
    """Does it say that a node has no calico-node pod, where none is meant to run?"""
    return isinstance(fact, CalicoPod) and not fact.name and describe.without_daemons(nodes.get(fact.node, {}))


def _endpoint(found: Found, prefixes: Mapping[str, str]) -> Endpoint:
    """prefixes: of the interfaces of pods, by node."""
    if found.kind == "pod":
        return describe.pod_endpoint(found.resource, found.events, interface_prefix=prefixes.get(found.node) or "cali")
    return Endpoint(
        name=found.name,
        kind=found.kind,
        node=found.node,
        address=describe.of_family(found.addresses, 4),
        address6=describe.of_family(found.addresses, 6),
        addresses=tuple(found.addresses),
    )


def _with_tunnel_block(node: CalicoNode, allocated: Sequence[Fact]) -> CalicoNode:
    blocks = {one.address: one.block for one in allocated if isinstance(one, Allocation)}
    return msgspec.structs.replace(
        node,
        tunnel_block=blocks.get(node.tunnel_address, ""),
        ipip_block=blocks.get(node.ipip_address) or node.ipip_block,
        wireguard_block=blocks.get(node.wireguard_address) or node.wireguard_block,
    )


def _namespaces(endpoints: Sequence[Endpoint], node: str) -> list[str]:
    """Namespaces of the pods that wait for an address on this node."""
    return [one.name.split("/")[0] for one in endpoints if one.node == node and _waits_for_address(one)]


def _waits_for_address(endpoint: Endpoint) -> bool:
    return (
        endpoint.kind == "pod"
        and bool(endpoint.node)
        and not endpoint.addresses
        and not endpoint.host_network
        and endpoint.phase not in describe.FINISHED
        and not endpoint.terminating
    )
