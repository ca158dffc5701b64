"""Addresses are left, but only in blocks of other nodes, and strict affinity forbids borrowing them."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="Strict affinity leaves this node without an address for a new pod",
    severity="breaks",
    remedy="Add an IPPool or a larger one, or set strictAffinity to false (not where Windows nodes are). "
    "Look for leaked addresses in this node's blocks with `calico-why ipam check` before that.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def strict_affinity_without_block(endpoint: Endpoint, usage: PoolUsage) -> Text | None:
    if not usage.exhausted or usage.other_pool or usage.forbids != "strict_affinity":
        return None
    if usage.blocks_on_node == 0:
        blocks = say("no block of its own")
    elif usage.blocks_on_node == 1:
        blocks = say("one block, a full one,")
    else:
        blocks = say("{count} full blocks", count=usage.blocks_on_node)
    return say(
        "{pod} waits for an address on {node}, which has {blocks} and can get no other; strict affinity "
        "forbids it to borrow the {left} addresses that its pools have left on other nodes.",
        pod=endpoint.name,
        node=usage.node,
        blocks=blocks,
        left=usage.forbidden,
    )
