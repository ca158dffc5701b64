"""The node tracks as many connections as it has room for."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.errors import LabError
from lab.faults import Wound

WHERE = ("source", "target")
NEEDS = "a machine's own network namespace, where alone nf_conntrack_max can be set,"


def inflict(cluster: Cluster, wound: Wound) -> None:
    """Raises LabError: a lab's nodes have namespaces of their own, for which the kernel takes the machine's limit."""
    raise LabError(f"This fault needs {NEEDS} and {wound.node} is another one.", 2)
