"""Looks up whose address packets were sent to that were for another node; without it a wrong node would have no name.

It reads the list of all nodes, so it is asked only where that was seen.
"""

from __future__ import annotations

from collections.abc import Collection

from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.describe import node_addresses
from bot.sources.kubernetes import Cluster
from facts import Bystander


async def bystanders(cluster: Cluster, addresses: Collection[str]) -> list[Bystander]:
    """One for each address; nothing where the nodes cannot be listed. Raises UserError when not let in any more."""
    if not addresses:
        return []
    try:
        nodes = await cluster.api.pages("/api/v1/nodes")
    except (Missing, Refused, Unreachable):
        return []  # the address is told without a name
    owners = {address: name for name, held in map(node_addresses, nodes) for address in held}
    return [Bystander(address=one, node=owners.get(one, "")) for one in sorted(addresses)]
