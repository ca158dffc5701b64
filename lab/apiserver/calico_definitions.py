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
    short_names: tuple[str, ...] = ()


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


# Not Calico's own group, yet Calico's manifests bring it.
_CLUSTER_NETWORK_POLICY = _Kind("ClusterNetworkPolicy", "clusternetworkpolicies", status=True, short_names=("cnp",))


def definitions(group: Group) -> list[Object]:
    """The CustomResourceDefinitions of one backing store."""
    own = [_definition(group, _VERSIONS[group], kind) for kind in sorted((*_KINDS, _IPAM_CONFIG[group]))]
    return [*own, _definition("policy.networking.k8s.io", "v1alpha2", _CLUSTER_NETWORK_POLICY)]


def _definition(group: str, version_name: str, kind: _Kind) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version: Object = {
        "name": version_name,
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
                **({"shortNames": list(kind.short_names)} if kind.short_names else {}),
            },
            "versions": [version],
        },
    }


def install(store: Store, group: Group = "crd.projectcalico.org") -> None:
    """Adds the Calico kinds of one backing store to a store."""
    for definition in definitions(group):
        store.create(definition)
