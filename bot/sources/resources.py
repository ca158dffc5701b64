"""Calico's kinds of resources and how to read all of one; without it each command would know its own names for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from bot.sources.api import Missing, Refused, Unreachable, name
from bot.sources.kubernetes import CLASSIC, NATIVE, Cluster
from facts import Blind, say

Object = dict[str, Any]


class Kind(NamedTuple):
    """One kind as crd.projectcalico.org/v1 has it (calico.md 1.1), unless `core`: of Kubernetes itself."""

    plural: str
    kind: str
    namespaced: bool = False
    native: str = ""  # its plural in projectcalico.org/v3, where that is another one
    core: bool = False


KINDS = {
    one.plural: one
    for one in (
        Kind("ippools", "IPPool"),
        Kind("ipamblocks", "IPAMBlock"),
        Kind("blockaffinities", "BlockAffinity"),
        Kind("ipamhandles", "IPAMHandle"),
        Kind("ipamconfigs", "IPAMConfig", native="ipamconfigurations"),
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
        Kind("clusterinformations", "ClusterInformation"),
        Kind("kubecontrollersconfigurations", "KubeControllersConfiguration"),
        Kind("caliconodestatuses", "CalicoNodeStatus"),
        Kind("nodes", "Node", core=True),
        Kind("pods", "Pod", namespaced=True, core=True),
        Kind("services", "Service", namespaced=True, core=True),
        Kind("namespaces", "Namespace", core=True),
        Kind("serviceaccounts", "ServiceAccount", namespaced=True, core=True),
    )
}


def path(group: str, plural: str, namespace: str = "", called: str = "") -> str:
    """Of a list, or of one object, in the API; group as `Cluster.group` gives it."""
    kind = KINDS[plural]
    base = "/api/v1" if kind.core else f"/apis/{group}"
    within = f"/namespaces/{name(namespace)}" if namespace else ""
    own = kind.native if kind.native and group == NATIVE else plural
    return f"{base}{within}/{own}" + (f"/{name(called)}" if called else "")


async def everything(cluster: Cluster, plurals: Sequence[str], blind: list[Blind]) -> dict[str, list[Object] | None]:
    """All objects of each kind, read at once; None (with a Blind added) for a kind that could not be read."""
    group = await cluster.group()
    found = await asyncio.gather(*(_list(cluster, group, plural, blind) for plural in plurals))
    return dict(zip(plurals, found, strict=True))


async def _list(cluster: Cluster, group: str, plural: str, blind: list[Blind]) -> list[Object] | None:
    try:
        return await cluster.api.pages(path(group, plural))
    except (Missing, Refused, Unreachable) as error:
        missing = say("the API server has no {look}", look=plural)
        blind.append(Blind(look=plural, reason=getattr(error, "reason", missing)))
        return None


__all__ = ["CLASSIC", "KINDS", "NATIVE", "Kind", "Object", "everything", "path"]
