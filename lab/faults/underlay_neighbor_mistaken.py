"""The node has learned a MAC that nobody has for the peer's own address, as after a second machine answered for it."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound

WRONG_MAC = "02:00:00:00:00:99"

WHERE = ("source", "target")
FAMILIES = (4, 6)


def inflict(cluster: Cluster, wound: Wound) -> None:
    # The peer knows this node afresh: else it would ask it soon, and a question tells who asks.
    own = cluster.uplink(wound.node)
    cluster.kernel(wound.peer).put_learned_neighbor(
        cluster.uplink(wound.peer),
        cluster.node_address(wound.node, wound.family),
        cluster.kernel(wound.node).links()[own].mac,
    )
    cluster.kernel(wound.node).put_learned_neighbor(own, cluster.node_address(wound.peer, wound.family), WRONG_MAC)
