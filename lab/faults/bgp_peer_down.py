"""A node's BGP session with its peer is down: TCP 179 is shut between them."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.errors import LabError
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "BIRD"


def inflict(cluster: Cluster, wound: Wound) -> None:
    """Raises LabError: the nodes of a lab speak no BGP."""
    raise LabError(f"This fault needs {NEEDS} on {wound.node}, and no node of a lab runs it.", 2)
