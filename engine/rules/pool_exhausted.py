"""The pool has no address left that this node may use: the pod waits for one and never starts."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Endpoint, PoolUsage


@cause(
    title="No address left for a new pod on this node",
    severity="breaks",
    remedy="Add an IPPool or a larger one; look for leaked addresses with `calico-why ipam check` before that.",
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", phase="Pending", host_network=False, address=""),
    usage=some(PoolUsage, node=the.endpoint.node),
)
def pool_exhausted(endpoint: Endpoint, usage: PoolUsage) -> Text | None:
    if not usage.exhausted or usage.forbids or usage.other_pool:
        return None
    blocks = say(
        "{taken} of {possible} blocks of /{size} are taken for {nodes} nodes"
        if usage.nodes >= 0
        else "{taken} of {possible} blocks of /{size} are taken",
        taken=usage.blocks_taken,
        possible=usage.blocks_possible,
        size=usage.block_size,
        nodes=usage.nodes,
    )
    free = say(
        "{here} addresses are free in blocks of {node} and {elsewhere} elsewhere and strict affinity forbids borrowing"
        if usage.strict_affinity
        else "{here} addresses are free in blocks of {node} and {elsewhere} elsewhere",
        here=usage.free_on_node,
        node=usage.node,
        elsewhere=usage.free_elsewhere,
    )
    if usage.cooling:
        free = say(
            "{free}; {count} more were released and are kept back for {seconds} s",
            free=free,
            count=usage.cooling,
            seconds=usage.cooldown_s,
        )
    return say(
        "{pod} waits for an address on {node}: in pool {pool} ({cidr}) {blocks}, {free}.",
        pod=endpoint.name,
        node=usage.node,
        pool=usage.pool,
        cidr=usage.cidr,
        blocks=blocks,
        free=free,
    )
