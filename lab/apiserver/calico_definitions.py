"""Defines the Calico kinds; without it the store would refuse every pool and block.

Two backing stores, of which a cluster has one: CRDs in crd.projectcalico.org/v1, or (Calico 3.32 and later, when asked
for) in projectcalico.org/v3. Their schemas accept anything: what Calico's objects hold is Calico's business here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from lab.apiserver.errors import Object
from lab.apiserver.store import Store

Group = Literal["crd.projectcalico.org", "projectcalico.org"]
GROUPS: tuple[Group, ...] = ("crd.projectcalico.org", "projectcalico.org")
_VERSIONS: dict[Group, str] = {"crd.projectcalico.org": "v1", "projectcalico.org": "v3"}


class _Kind(NamedTuple):
    kind: str
    plural: str
    namespaced: bool = False
    status: bool = False


_KINDS = (
    _Kind("BGPConfiguration", "bgpconfigurations"),
    _Kind("BGPFilter", "bgpfilters"),
    _Kind("BGPPeer", "bgppeers"),
    _Kind("BlockAffinity", "blockaffinities"),
    _Kind("CalicoNodeStatus", "caliconodestatuses"),
    _Kind("ClusterInformation", "clusterinformations"),
    _Kind("FelixConfiguration", "felixconfigurations"),
    _Kind("GlobalNetworkPolicy", "globalnetworkpolicies"),
    _Kind("GlobalNetworkSet", "globalnetworksets"),
    _Kind("HostEndpoint", "hostendpoints"),
    _Kind("IPAMBlock", "ipamblocks"),
    _Kind("IPAMHandle", "ipamhandles"),
    _Kind("IPPool", "ippools"),
    _Kind("IPReservation", "ipreservations"),
    _Kind("KubeControllersConfiguration", "kubecontrollersconfigurations", status=True),
    _Kind("NetworkPolicy", "networkpolicies", namespaced=True),
    _Kind("NetworkSet", "networksets", namespaced=True),
    _Kind("StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies"),
    _Kind("StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", namespaced=True),
    _Kind("StagedNetworkPolicy", "stagednetworkpolicies", namespaced=True),
    _Kind("Tier", "tiers"),
)
# The one kind whose name differs between the two.
_IPAM_CONFIG: dict[Group, _Kind] = {
    "crd.projectcalico.org": _Kind("IPAMConfig", "ipamconfigs"),
    "projectcalico.org": _Kind("IPAMConfiguration", "ipamconfigurations"),
}


def definitions(group: Group) -> list[Object]:
    """The CustomResourceDefinitions of one backing store."""
    return [_definition(group, kind) for kind in sorted((*_KINDS, _IPAM_CONFIG[group]))]


def _definition(group: Group, kind: _Kind) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: Object = {
        "name": _VERSIONS[group],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    if kind.status:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
            },
            "versions": [version],
        },
    }


def install(store: Store, group: Group = "crd.projectcalico.org") -> None:
    """Adds the Calico kinds of one backing store to a store."""
    for definition in definitions(group):
        store.create(definition)
