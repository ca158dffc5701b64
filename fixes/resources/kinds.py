"""Calico's kinds of resources, one table; without it a fix could be asked for of what nobody may write."""

from __future__ import annotations

from typing import Any, NamedTuple

Object = dict[str, Any]

V3 = "projectcalico.org/v3"  # what people write, and what calicoctl prints


class Kind(NamedTuple):
    """One kind as crd.projectcalico.org/v1 has it (calico.md 1.1), unless `core`: of Kubernetes itself."""

    plural: str
    kind: str
    namespaced: bool = False
    native: str = ""  # its plural in projectcalico.org/v3, where that is another one
    core: bool = False
    written: bool = True  # people may have it written
    native_kind: str = ""  # as `native`

    @property
    def shown(self) -> str:
        """The kind in projectcalico.org/v3."""
        return self.native_kind or self.kind


KINDS = {
    one.plural: one
    for one in (
        Kind("ippools", "IPPool"),
        Kind("ipamblocks", "IPAMBlock", written=False),
        Kind("blockaffinities", "BlockAffinity", written=False),
        Kind("ipamhandles", "IPAMHandle", written=False),
        Kind("ipamconfigs", "IPAMConfig", native="ipamconfigurations", native_kind="IPAMConfiguration"),
        Kind("ipreservations", "IPReservation"),
        Kind("felixconfigurations", "FelixConfiguration"),
        Kind("bgpconfigurations", "BGPConfiguration"),
        Kind("bgppeers", "BGPPeer"),
        Kind("bgpfilters", "BGPFilter"),
        Kind("networkpolicies", "NetworkPolicy", namespaced=True),
        Kind("networksets", "NetworkSet", namespaced=True),
        Kind("globalnetworkpolicies", "GlobalNetworkPolicy"),
        Kind("globalnetworksets", "GlobalNetworkSet"),
        Kind("stagednetworkpolicies", "StagedNetworkPolicy", namespaced=True),
        Kind("stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy"),
        Kind("stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy", namespaced=True),
        Kind("tiers", "Tier"),
        Kind("hostendpoints", "HostEndpoint"),
        Kind("clusterinformations", "ClusterInformation", written=False),
        Kind("kubecontrollersconfigurations", "KubeControllersConfiguration"),
        Kind("caliconodestatuses", "CalicoNodeStatus"),
        Kind("nodes", "Node", core=True, written=False),
        Kind("pods", "Pod", namespaced=True, core=True, written=False),
        Kind("services", "Service", namespaced=True, core=True, written=False),
        Kind("namespaces", "Namespace", core=True, written=False),
        Kind("serviceaccounts", "ServiceAccount", namespaced=True, core=True, written=False),
    )
}

# Policies whose names carry the tier, and are stored under another one by some versions.
TIERED = frozenset({"networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"})
