"""Addresses are left, but only in blocks of other nodes, and strict affinity forbids borrowing them."""

from engine.rule import NOT_FELIX, cause, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="Strict affinity leaves this node without an address for a new pod",
    severity="breaks",
    remedy="Add an IPPool or a larger one, or set strictAffinity to false (not where Windows nodes are). "
    "Look for leaked addresses in this node's blocks with `calicoctl ipam check` before that.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def strict_affinity_without_block(endpoint: Endpoint, usage: PoolUsage) -> str | None:
    if not usage.exhausted or usage.other_pool or usage.forbids != "strict_affinity":
        return None
    full = {0: "no block of its own", 1: "one block, a full one,"}.get(
        usage.blocks_on_node, f"{usage.blocks_on_node} full blocks"
    )
    return (
        f"{endpoint.name} waits for an address on {usage.node}, which has {full} and can get no other; strict affinity "
        f"forbids it to borrow the {usage.forbidden} addresses that its pools have left on other nodes."
    )
