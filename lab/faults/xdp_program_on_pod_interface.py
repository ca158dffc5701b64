"""A program on the node's side of the pod's interface drops what the pod sends."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.errors import LabError
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "root of the whole machine, who alone may load an XDP program,"


def inflict(cluster: Cluster, wound: Wound) -> None:
    """Raises LabError: whoever is root of a lab only may load none."""
    raise LabError(f"This fault needs {NEEDS} and {wound.node} is a namespace of somebody else's.", 2)
