"""Asks every node for a route to a leaked address; the API server may have forgotten a pod that still runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bot.errors import UserError
from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from facts import Fact, LeakedAddresses, NodeAsk, RouteLookup, Way

TUNNELS = ("vxlan", "tunl", "wireguard", "wg")  # a borrowed address has its own route by one of them, on other nodes


async def with_routes(cluster: Cluster, probes: Probes, known: Sequence[Fact]) -> list[Fact]:
    """The same facts; leaked addresses that no node has a route to say so (calico.md 2.3, P5).

    Each node must have answered: of one that did not nobody knows.
    """
    return [
        await _asked(cluster, probes, fact) if isinstance(fact, LeakedAddresses) and fact.address else fact
        for fact in known
    ]


async def _asked(cluster: Cluster, probes: Probes, leaked: LeakedAddresses) -> LeakedAddresses:
    told = await routes(cluster, probes, [leaked.address, *(one.address for one in leaked.others)])
    if told is None:
        return leaked
    nodes = told.nodes
    return msgspec.structs.replace(
        leaked,
        no_route_on=nodes if told.unrouted(leaked.address) else (),
        others=tuple(msgspec.structs.replace(one, unrouted=told.unrouted(one.address)) for one in leaked.others),
        asked=nodes if leaked.others else (),
    )


class Routes(NamedTuple):
    """What the nodes said of routes to addresses. Both mappings are by address, nodes in their order."""

    nodes: tuple[str, ...]  # all of the cluster
    silent: Mapping[str, tuple[str, ...]]  # who did not tell
    routed: Mapping[str, tuple[str, ...]]  # who has a route to a pod of its own there

    def unrouted(self, address: str) -> bool:
        """Every node told, and none has one."""
        return not self.silent[address] and not self.routed[address]


async def routes(cluster: Cluster, probes: Probes, addresses: Sequence[str]) -> Routes | None:
    """Asks every node of the cluster; None where nobody knows which those are."""
    try:
        nodes = await cluster.api.pages("/api/v1/nodes")
    except (Missing, Refused, Unreachable, UserError):
        return None
    nodes_at = {str(node["metadata"]["name"]): _internal(node) for node in nodes}
    looks: dict[str, list[RouteLookup]] = {address: [] for address in addresses}
    for family in (4, 6):
        ways = tuple(Way(destination=one) for one in addresses if (6 if ":" in one else 4) == family)
        if not ways:
            continue
        asks = [NodeAsk(node=name, family=family, felix=False, tunnel_device="", ways=ways) for name in nodes_at]
        for fact in await probes.ask(asks, nodes_at):
            if isinstance(fact, RouteLookup) and not fact.source and fact.destination in looks:
                looks[fact.destination].append(fact)
    told = {address: {fact.node for fact in found} for address, found in looks.items()}
    return Routes(
        nodes=tuple(sorted(nodes_at)),
        silent={address: tuple(sorted(nodes_at.keys() - nodes)) for address, nodes in told.items()},
        routed={
            address: tuple(sorted({fact.node for fact in found if _to_pod(fact)})) for address, found in looks.items()
        },
    )


def _to_pod(route: RouteLookup) -> bool:
    """By an interface of the node itself to this address alone."""
    alone = route.prefix in (f"{route.destination}/32", f"{route.destination}/128")
    return route.found and alone and not route.next_hop and not route.device.startswith(TUNNELS)


def _internal(node: Mapping[str, Any]) -> str:
    known = (node.get("status") or {}).get("addresses") or ()
    return next((str(one["address"]) for one in known if one.get("type") == "InternalIP"), "")
