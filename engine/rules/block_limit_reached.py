"""Addresses are left in the pool, but the node has as many blocks as one node may have, and all of them are full."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="The node has as many blocks as it may have, and they are full",
    severity="breaks",
    remedy="Raise maxBlocksPerHost of the IPAM configuration (20 where it is not set), move pods to other nodes, or "
    "look for leaked addresses in this node's blocks with `calicoctl ipam check`.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def block_limit_reached(endpoint: Endpoint, usage: PoolUsage) -> Text | None:
    if not usage.exhausted or usage.other_pool or usage.forbids != "block_limit":
        return None
    full = say("{count} full block" if usage.blocks_on_node == 1 else "{count} full blocks", count=usage.blocks_on_node)
    return say(
        "{pod} waits for an address on {node}, which has {full_blocks} and may have {limit}; "
        "the {left} addresses its pools have left are for other nodes.",
        pod=endpoint.name,
        node=usage.node,
        full_blocks=full,
        limit=usage.block_limit,
        left=usage.forbidden,
    )
