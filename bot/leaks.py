"""Asks every node for a route to a leaked address; the API server may have forgotten a pod that still runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    try:
        nodes = await cluster.api.pages("/api/v1/nodes")
    except (Missing, Refused, Unreachable, UserError):
        return leaked
    nodes_at = {str(node["metadata"]["name"]): _internal(node) for node in nodes}
    wanted = [leaked.address, *(one.address for one in leaked.others)]
    family = 6 if ":" in leaked.address else 4
    ways = tuple(Way(destination=address) for address in wanted)
    asks = [NodeAsk(node=name, family=family, felix=False, tunnel_device="", ways=ways) for name in nodes_at]
    looks: dict[str, list[RouteLookup]] = {address: [] for address in wanted}
    for fact in await probes.ask(asks, nodes_at):
        if isinstance(fact, RouteLookup) and not fact.source and fact.destination in looks:
            looks[fact.destination].append(fact)

    def unrouted(address: str) -> bool:
        told = looks[address]
        return {fact.node for fact in told} == set(nodes_at) and not any(_to_pod(fact) for fact in told)

    everywhere = tuple(sorted(nodes_at))
    return msgspec.structs.replace(
        leaked,
        no_route_on=everywhere if unrouted(leaked.address) else (),
        others=tuple(msgspec.structs.replace(one, unrouted=unrouted(one.address)) for one in leaked.others),
        asked=everywhere if leaked.others else (),
    )


def _to_pod(route: RouteLookup) -> bool:
    """By an interface of the node itself to this address alone."""
    alone = route.prefix in (f"{route.destination}/32", f"{route.destination}/128")
    return route.found and alone and not route.next_hop and not route.device.startswith(TUNNELS)


def _internal(node: Mapping[str, Any]) -> str:
    known = (node.get("status") or {}).get("addresses") or ()
    return next((str(one["address"]) for one in known if one.get("type") == "InternalIP"), "")
