"""Which nodes are meant, and where each one's probe is; without it a misspelt name would look like a dead node."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.sources.kubernetes import Cluster
from bot.sources.resources import everything
from facts import Blind
from fixes.resources.kinds import Object


async def nodes(cluster: Cluster, names: Sequence[str]) -> dict[str, Object]:
    """The Node resources of these names, in their order; of all nodes for none. Raises UserError."""
    blind: list[Blind] = []
    found = (await everything(cluster, ["nodes"], blind))["nodes"]
    if found is None:
        raise UserError(
            f"The nodes of {cluster.name} cannot be listed ({blind[0].reason}), so no probe can be found.",
            status=COULD_NOT_JUDGE,
        )
    known = {str(one["metadata"]["name"]): one for one in found}
    for wanted in names:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There is {', '.join(sorted(known)[:6]) or 'none'}."
            raise UserError(f"There is no node {wanted[:60]!r} in {cluster.name}. {hint}")
    return {one: known[one] for one in dict.fromkeys(names)} if names else dict(sorted(known.items()))


def address(node: Object) -> str:
    """Where its probe listens: the InternalIP, IPv4 where it has both; "" for none."""
    addresses = [
        str(one.get("address"))
        for one in (node.get("status") or {}).get("addresses") or ()
        if one.get("type") == "InternalIP"
    ]
    return next((one for one in addresses if ":" not in one), addresses[0] if addresses else "")
