"""The node's neighbor table is full."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.errors import LabError
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "a machine of its own, since all namespaces of a machine share one neighbor table,"


def inflict(cluster: Cluster, wound: Wound) -> None:
    """Raises LabError: it would cut off the whole machine that the lab runs on."""
    raise LabError(f"This fault needs {NEEDS} and {wound.node} is a namespace of this one.", 2)
