"""CNI failed to set up the pod's network for a reason of its own: the pod has no address and never starts."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Endpoint


@cause(
    title="The pod's network could not be set up",
    severity="breaks",
    remedy="The event quotes the CNI plugin: repair what it names. The kubelet tries again by itself.",
    after=["pool_exhausted", "strict_affinity_without_block", "block_limit_reached"],
    after_peer=["datastore_not_ready"],  # of the whole cluster, so of no node
    at=the.endpoint.node,
    heals_within_s=NOT_FELIX,
    endpoint=some(Endpoint, kind="pod", host_network=False),
)
def pod_without_ip(endpoint: Endpoint) -> Text | None:
    """A pod that is merely being created has no failed attempt behind it."""
    waits = endpoint.phase == "Pending" and endpoint.node and not endpoint.addresses and not endpoint.terminating
    if not waits or not endpoint.network_failure:
        return None
    return say(
        "{pod} has no address on {node}: {why}.",
        pod=endpoint.name,
        node=endpoint.node,
        why=endpoint.network_failure.rstrip("."),
    )
