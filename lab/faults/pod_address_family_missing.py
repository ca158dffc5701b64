"""Both pods were given an IPv6 address as well, and the status of one of them names only its IPv4 address."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.faults import Wound
from lab.intent import Object

WHERE = ("source", "target")
SIXTH = {"source": "fd00:10:244::a", "target": "fd00:10:244::b"}


def inflict(cluster: Cluster, wound: Wound) -> None:
    other = "target" if wound.where == "source" else "source"

    def give(pod: Object, address: str) -> None:
        pod["metadata"]["annotations"]["cni.projectcalico.org/podIPs"] += f",{address}/128"

    def give_and_tell(pod: Object) -> None:
        give(pod, SIXTH[other])
        pod["status"]["podIPs"].append({"ip": SIXTH[other]})

    for name, edit in ((wound.pod, lambda pod: give(pod, SIXTH[wound.where])), (wound.other, give_and_tell)):
        namespace, _, pod = name.partition("/")
        cluster.change("pods", pod, edit, namespace)
