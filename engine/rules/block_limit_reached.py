"""Addresses are left, but the node has as many blocks as it may have, or takes none by itself, and its own are full."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="The node has as many blocks as it may have, and they are full",
    severity="breaks",
    remedy="Raise maxBlocksPerHost of the IPAM configuration (20 where it is not set), or set autoAllocateBlocks to "
    "true where that is off; move pods to other nodes, or look for leaked addresses in this node's blocks with "
    "`calico-why ipam check`.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def block_limit_reached(endpoint: Endpoint, usage: PoolUsage) -> Text | None:
    if not usage.exhausted or usage.other_pool or usage.forbids not in ("block_limit", "auto_allocate"):
        return None
    full = say("{count} full block" if usage.blocks_on_node == 1 else "{count} full blocks", count=usage.blocks_on_node)
    if usage.forbids == "auto_allocate":
        return say(
            "{pod} waits for an address on {node}, which has {full_blocks} and takes no other by itself "
            "(autoAllocateBlocks is off); the {left} addresses its pools have left are not for it.",
            pod=endpoint.name,
            node=usage.node,
            full_blocks=full if usage.blocks_on_node else say("no block of its own"),
            left=usage.forbidden,
        )
    return say(
        "{pod} waits for an address on {node}, which has {full_blocks} and may have {limit}; "
        "the {left} addresses its pools have left are for other nodes.",
        pod=endpoint.name,
        node=usage.node,
        full_blocks=full,
        limit=usage.block_limit,
        left=usage.forbidden,
    )
