"""Nodes, endpoints and profiles as Calico makes them of Kubernetes' objects; the cluster keeps none of these."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bot.sources.names import veth_name
from fixes.resources.form import convert_uid
from fixes.resources.kinds import V3, Object

ANNOTATION = "projectcalico.org/"
PODS = "cni.projectcalico.org/"
NETWORKS = "k8s.v1.cni.cncf.io/network-status"
DEFAULT_ALLOW: Object = {
    "kind": "Profile",
    "apiVersion": V3,
    "metadata": {"name": "projectcalico-default-allow", "resourceVersion": "1"},
    "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]},
}
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def node(core: Object) -> Object:
    """A Calico node of a Kubernetes one. An annotation that is not of its form counts as none, as for Calico."""
    own: Object = core["metadata"]
    notes: Mapping[str, str] = own.get("annotations") or {}

    def said(name: str, right: Callable[[str], bool]) -> str:
        value = notes.get(ANNOTATION + name) or ""
        return value if value and right(value) else ""

    labels = {**_mapping(notes.get(f"{ANNOTATION}labels")), **(own.get("labels") or {})}
    annotations = _mapping(notes.get(f"{ANNOTATION}annotations"))
    annotations[f"{ANNOTATION}kube-labels"] = json.dumps(own.get("labels"), separators=(",", ":"), sort_keys=True)
    asn = said("ASNumber", _is_asn)
    bgp = _some(
        asNumber=_asn(asn) if asn else 0,
        ipv4Address=said("IPv4Address", _of(4)),
        ipv6Address=said("IPv6Address", _of(6)),
        ipv4IPIPTunnelAddr=said("IPv4IPIPTunnelAddr", _of(4)),
        routeReflectorClusterID=said("RouteReflectorClusterID", _of(4)),
    )
    wireguard = _some(
        interfaceIPv4Address=said("IPv4WireguardInterfaceAddr", _of(4)),
        interfaceIPv6Address=said("IPv6WireguardInterfaceAddr", _of(6)),
    )
    addresses = [{"address": bgp[one], "type": "CalicoNodeIP"} for one in ("ipv4Address", "ipv6Address") if one in bgp]
    for one in (core.get("status") or {}).get("addresses") or ():
        if one.get("type") in ("InternalIP", "ExternalIP"):
            addresses.append({"address": one.get("address"), "type": one["type"]})
    spec = _some(
        bgp=bgp,
        ipv4VXLANTunnelAddr=said("IPv4VXLANTunnelAddr", _of(4)),
        vxlanTunnelMACAddr=said("VXLANTunnelMACAddr", _is_mac),
        ipv6VXLANTunnelAddr=said("IPv6VXLANTunnelAddr", _of(6)),
        vxlanTunnelMACAddrV6=said("VXLANTunnelMACAddrV6", _is_mac),
        orchRefs=[{"nodeName": own["name"], "orchestrator": "k8s"}],
        wireguard=wireguard,
        addresses=addresses,
        interfaces=_list(notes.get(f"{ANNOTATION}Interfaces")),
    )
    status = _some(
        wireguardPublicKey=notes.get(f"{ANNOTATION}WireguardPublicKey") or "",
        wireguardPublicKeyV6=notes.get(f"{ANNOTATION}WireguardPublicKeyV6") or "",
        podCIDRs=list((core.get("spec") or {}).get("podCIDRs") or ()),
    )
    metadata = _some(**{name: own.get(name) for name in ("name", "uid", "resourceVersion", "creationTimestamp")})
    metadata |= _some(labels=labels) | {"annotations": annotations}
    return {"kind": "Node", "apiVersion": V3, "metadata": metadata, "spec": spec, "status": status}


def endpoint(pod: Object, prefix: str = "cali") -> Object | None:
    """The workload endpoint of a pod; None for one that is none: of its node's network, or not scheduled."""
    own, spec = pod["metadata"], pod.get("spec") or {}
    if spec.get("hostNetwork") or not spec.get("nodeName"):
        return None
    namespace, name, on = str(own["namespace"]), str(own["name"]), str(spec["nodeName"])
    notes: Mapping[str, str] = own.get("annotations") or {}
    account = str(spec.get("serviceAccountName") or "")
    labels = {**(own.get("labels") or {}), f"{ANNOTATION}namespace": namespace, f"{ANNOTATION}orchestrator": "k8s"}
    if 0 < len(account) < 63:
        labels[f"{ANNOTATION}serviceaccount"] = account
    addresses = [] if _finished(pod, notes) else _addresses(pod, notes)
    outside = _list(notes.get(f"{PODS}floatingIPs")) if addresses else []
    nats = [
        {"internalIP": inside.partition("/")[0], "externalIP": one}
        for one in outside
        for inside in [next((have for have in reversed(addresses) if (":" in have) == (":" in str(one))), "")]
        if inside
    ]
    profiles = [f"kns.{namespace}", *([f"ksa.{namespace}.{account}"] if account else [])]
    metadata = _some(
        name="-".join(part.replace("-", "--") for part in (on, "k8s", name, "eth0")),
        generateName=own.get("generateName"),
        namespace=namespace,
        uid=own.get("uid"),
        resourceVersion=own.get("resourceVersion"),
        creationTimestamp=own.get("creationTimestamp"),
        labels=labels,
        annotations=_some(**{NETWORKS: notes.get(NETWORKS)}),
    )
    found = _some(
        orchestrator="k8s",
        node=on,
        containerID=notes.get(f"{PODS}containerID"),
        pod=name,
        endpoint="eth0",
        serviceAccountName=account,
        ipNetworks=addresses,
        ipNATs=nats,
        profiles=profiles,
        interfaceName=veth_name(namespace, name, prefix),
        ports=list(_ports(spec)),
        allowSpoofedSourcePrefixes=_list(notes.get(f"{PODS}allowedSourcePrefixes")),
    )
    return {"kind": "WorkloadEndpoint", "apiVersion": V3, "metadata": metadata, "spec": found}


def profiles(namespaces: Iterable[Object], accounts: Iterable[Object]) -> list[Object]:
    """Of every namespace and every service account, after the one that allows all."""
    allow: Object = DEFAULT_ALLOW["spec"]
    return [
        DEFAULT_ALLOW,
        *(_profile(one, f"kns.{one['metadata']['name']}", "pcns.", "{}/", allow) for one in namespaces),
        *(
            _profile(one, f"ksa.{one['metadata']['namespace']}.{one['metadata']['name']}", "pcsa.", "/{}", {})
            for one in accounts
        ),
    ]


def _profile(core: Object, name: str, prefix: str, revision: str, rules: Object) -> Object:
    own = core["metadata"]
    labels = {prefix + key: value for key, value in (own.get("labels") or {}).items()}
    labels[f"{prefix}{ANNOTATION}name"] = own["name"]
    metadata = _some(
        name=name,
        uid=convert_uid(str(own.get("uid") or "")),
        resourceVersion=revision.format(own.get("resourceVersion") or ""),
        creationTimestamp=own.get("creationTimestamp"),
    )
    return {"kind": "Profile", "apiVersion": V3, "metadata": metadata, "spec": {**rules, "labelsToApply": labels}}


def _finished(pod: Object, notes: Mapping[str, str]) -> bool:
    """Its addresses are not its own any more, whatever its status says."""
    removed = any(notes.get(name) == "" for name in (f"{PODS}podIP", "vpc.amazonaws.com/pod-ips"))
    leaving = bool(pod["metadata"].get("deletionTimestamp")) and removed
    return leaving or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded", "Completed")


def _addresses(pod: Object, notes: Mapping[str, str]) -> list[str]:
    """As networks of one address each, by the order of sources of Calico (calico.md 1.8)."""
    status: Object = pod.get("status") or {}
    found = [str(one.get("ip") or "") for one in status.get("podIPs") or ()]
    found = found or [str(status.get("podIP") or "")]
    if not any(found):
        sources = (f"{PODS}podIPs", f"{PODS}podIP", "vpc.amazonaws.com/pod-ips")
        found = next((text.split(",") for name in sources if (text := notes.get(name))), [])
    networks = []
    for one in filter(None, found):
        try:
            networks.append(str(ipaddress.ip_network(one, strict=False)))
        except ValueError:
            continue
    return networks


def _ports(spec: Object) -> Iterable[Object]:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            if port.get("containerPort") and (port.get("hostPort") or port.get("name")):
                yield {
                    "name": port.get("name") or "",
                    "protocol": port.get("protocol") or "TCP",
                    "port": port["containerPort"],
                    **_some(hostPort=port.get("hostPort"), hostIP=port.get("hostIP")),
                }


def _some(**values: Any) -> Object:
    """Those that are not empty."""
    return {name: value for name, value in values.items() if value}


def _of(family: int) -> Callable[[str], bool]:
    def right(text: str) -> bool:
        try:
            return ipaddress.ip_interface(text).version == family
        except ValueError:
            return False

    return right


def _is_mac(text: str) -> bool:
    return bool(_MAC.fullmatch(text))


def _is_asn(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,10}|\d{1,5}\.\d{1,5}", text)) and _asn(text) < 1 << 32


def _asn(text: str) -> int:
    high, dot, low = text.partition(".")
    return (int(high) << 16) + int(low) if dot else int(high)


def _mapping(text: str | None) -> dict[str, Any]:
    found = _json(text)
    return dict(found) if isinstance(found, dict) else {}


def _list(text: str | None) -> list[Any]:
    found = _json(text)
    return list(found) if isinstance(found, list) else []


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None
