"""The pool has no address left that this node may use: the pod waits for one and never starts."""

from engine.rule import NOT_FELIX, cause, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="No address left for a new pod on this node",
    severity="breaks",
    remedy="Add an IPPool or a larger one; look for leaked addresses with `calicoctl ipam check` before that.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def pool_exhausted(endpoint: Endpoint, usage: PoolUsage) -> str | None:
    if not usage.exhausted or usage.forbids or usage.other_pool:
        return None
    blocks = f"{usage.blocks_taken} of {usage.blocks_possible} blocks of /{usage.block_size} are taken"
    nodes = f" for {usage.nodes} nodes" if usage.nodes >= 0 else ""
    strict = " and strict affinity forbids borrowing" if usage.strict_affinity else ""
    free = f"{usage.free_on_node} addresses are free in blocks of {usage.node} and {usage.free_elsewhere} elsewhere"
    return (
        f"{endpoint.name} waits for an address on {usage.node}: in pool {usage.pool} ({usage.cidr}) {blocks}{nodes}, "
        f"{free}{strict}."
    )
