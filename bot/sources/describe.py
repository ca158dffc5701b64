"""Kubernetes and Calico objects as they are stored, said as facts; pure, so that every oddity has a test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from typing import Any

from bot.sources.names import seconds, tunnel_mac, veth_name
from facts import AddressHolders, CalicoNode, CalicoPod, Endpoint, Pool, selector
from facts.stored import FINISHED as FINISHED
from facts.stored import addresses as addresses
from facts.stored import annotated as annotated
from facts.stored import finished as finished
from facts.stored import metadata as metadata
from facts.stored import pod_name as pod_name

Object = Mapping[str, Any]

DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
WITHOUT_DAEMONS = frozenset({("eks.amazonaws.com/compute-type", "fargate"), ("type", "virtual-kubelet")})
NO_NETWORK = "FailedCreatePodSandBox"  # the kubelet's event when CNI fails
# Container states that only say "not yet"; an event says more.
_STILL_STARTING = ("ContainerCreating", "PodInitializing")


def pool(resource: Object) -> Pool | None:
    """A pool of either family; None for one whose CIDR is none. One being deleted counts as disabled, as Calico has
    it."""
    spec: Object = resource.get("spec") or {}
    meta = metadata(resource)
    try:
        cidr = ip_network(str(spec.get("cidr", "")), strict=False)
    except ValueError:
        return None
    return Pool(
        name=str(meta.get("name", "")),
        cidr=str(cidr),
        block_size=int(spec.get("blockSize") or DEFAULT_BLOCK_SIZE[cidr.version]),
        vxlan_mode=str(spec.get("vxlanMode") or "Never"),
        ipip_mode=str(spec.get("ipipMode") or "Never"),
        nat_outgoing=bool(spec.get("natOutgoing")),
        disabled=bool(spec.get("disabled")) or bool(meta.get("deletionTimestamp")),
        deleting=bool(meta.get("deletionTimestamp")),
        node_selector=str(spec.get("nodeSelector") or "all()"),
    )


def allows(resource: Object, use: str) -> bool:
    """May addresses of the pool be used for "Workload" or "Tunnel"? By default for both."""
    uses = (resource.get("spec") or {}).get("allowedUses") or ("Workload", "Tunnel")
    return use in uses


def node_labels(node: Object) -> dict[str, str]:
    """Labels of a node as Calico's selectors see them: Kubernetes' own, and those Calico keeps in an annotation."""
    meta: Object = node.get("metadata") or {}
    try:
        kept = json.loads((meta.get("annotations") or {}).get("projectcalico.org/labels") or "{}")
    except ValueError:
        kept = {}
    return {**(kept if isinstance(kept, dict) else {}), **(meta.get("labels") or {})}


def without_daemons(node: Object) -> bool:
    """Is it no machine, so that no DaemonSet puts a pod there, Calico's included?"""
    return bool(WITHOUT_DAEMONS & ((node.get("metadata") or {}).get("labels") or {}).items())


def selects(node_selector: str, node: Object) -> bool:
    """Does the selector select this node? One that Calico could not read either selects none."""
    try:
        return selector.matches(node_selector, node_labels(node))
    except selector.SelectorError:
        return False


def calico_nodes(node: Object, pools: Sequence[tuple[Pool, Object]] | None, felix: Object) -> list[CalicoNode]:
    """A node by its annotations, for IPv4 and, where it has or should have such addresses, for IPv6.

    pools: None when they could not be read. felix: default overlaid by node.<name>.
    """
    annotations: Object = (node.get("metadata") or {}).get("annotations") or {}
    internal = [one for one in (node.get("status") or {}).get("addresses") or () if one.get("type") == "InternalIP"]
    written = any(annotations.get(f"projectcalico.org/IPv6{kind}") for kind in ("Address", "VXLANTunnelAddr"))
    written = written or any(":" in one["address"] for one in internal)
    pooled = any(ip_network(one.cidr).version == 6 for one, _ in pools or ())
    return [_calico_node(node, pools, felix, family) for family in ((4, 6) if written or pooled else (4,))]


def node_addresses(node: Object) -> tuple[str, list[str]]:
    """The name of a node with the addresses it may be sent a tunnel's packets under."""
    annotations: Object = (node.get("metadata") or {}).get("annotations") or {}
    written = [
        interface
        for family in (4, 6)
        if (interface := _interface(str(annotations.get(f"projectcalico.org/IPv{family}Address") or ""), family))
    ]
    internal = [one["address"] for one in (node.get("status") or {}).get("addresses") or () if one.get("address")]
    return str((node.get("metadata") or {}).get("name", "")), [*internal, *(str(one.ip) for one in written)]


def _calico_node(node: Object, pools: Sequence[tuple[Pool, Object]] | None, felix: Object, family: int) -> CalicoNode:
    meta: Object = node.get("metadata") or {}
    status: Object = node.get("status") or {}
    name = str(meta.get("name", ""))
    annotations: Object = meta.get("annotations") or {}
    interface = _interface(str(annotations.get(f"projectcalico.org/IPv{family}Address") or ""), family)
    tunnel = of_family([str(annotations.get(f"projectcalico.org/IPv{family}VXLANTunnelAddr") or "")], family)
    wireguard = of_family([str(annotations.get(f"projectcalico.org/IPv{family}WireguardInterfaceAddr") or "")], family)
    v6 = "V6" if family == 6 else ""
    mac = annotations.get("projectcalico.org/VXLANTunnelMACAddr" + v6)
    internal = [one["address"] for one in status.get("addresses") or () if one.get("type") == "InternalIP"]
    ready: Object = next((one for one in status.get("conditions") or () if one.get("type") == "Ready"), {})
    spec: Object = node.get("spec") or {}
    return CalicoNode(
        name=name,
        family=family,
        address=str(interface.ip) if interface else "",
        subnet=str(interface.network) if interface else "",
        internal_address=of_family(internal, 4) or (internal[0] if internal else ""),
        tunnel_address=tunnel,
        ipip_address=of_family([str(annotations.get("projectcalico.org/IPv4IPIPTunnelAddr") or "")], family),
        wireguard_address=wireguard,
        tunnel_mac=str(mac or tunnel_mac(name, family)).lower(),
        vxlan_expected=bool(tunnel)
        if pools is None
        else any(_tunnels(one, spec, node) for one, spec in pools if ip_network(one.cidr).version == family),
        ready=ready.get("status") == "True",
        unready=_said(ready) or str(ready["status"]) if ready.get("status") in ("False", "Unknown") else "",
        pod_cidrs=_networks(spec.get("podCIDRs") or [spec.get("podCIDR")]),
        vni=int(felix.get("vxlanVNI") or 4096),
        vxlan_port=int(felix.get("vxlanPort") or 4789),
        interface_prefix=str(felix.get("interfacePrefix") or "cali").split(",")[0],
        felix_health_port=int(felix.get("healthPort") or 9099),
        felix_health=felix.get("healthEnabled") is not False,
        route_refresh_s=seconds(str(felix.get("routeRefreshInterval") or ""), 90),
        bpf=bool(felix.get("bpfEnabled")),
        wireguard=bool(felix.get("wireguardEnabled" + v6)),
        wireguard_key=str(annotations.get("projectcalico.org/WireguardPublicKey" + v6) or ""),
        wireguard_device=str(felix.get("wireguardInterfaceName" + v6) or ""),
        wireguard_port=int(felix.get("wireguardListeningPort" + v6) or 0),
        system=str((meta.get("labels") or {}).get("kubernetes.io/os") or "linux"),
        foreign_dataplane=felix.get("useInternalDataplaneDriver") is False,
        metrics_port=int(felix.get("prometheusMetricsPort") or 9091),
    )


def _networks(written: Iterable[object]) -> tuple[str, ...]:
    """Those that are networks, as everybody writes them."""
    found = []
    for one in written:
        with contextlib.suppress(ValueError):
            found.append(str(ip_network(str(one), strict=False)))
    return tuple(found)


def _tunnels(one: Pool, resource: Object, node: Object) -> bool:
    return (
        not one.disabled
        and one.vxlan_mode != "Never"
        and allows(resource, "Tunnel")
        and selects(one.node_selector, node)
    )


def address_holders(address: str, pods: Iterable[Object]) -> AddressHolders:
    """Of the pods whose status names the address, those that have it now: running, not leaving, not on a node's own."""
    living = [
        pod
        for pod in pods
        if (pod.get("status") or {}).get("phase") == "Running"
        and not pod["metadata"].get("deletionTimestamp")
        and not (pod.get("spec") or {}).get("hostNetwork")
    ]
    machines = {_machine(pod) for pod in living}
    return AddressHolders(
        address=address,
        pods=tuple(sorted(pod_name(pod) for pod in living)),
        machine=machines.pop() if len(machines) == 1 else "",
    )


def _machine(pod: Object) -> str:
    """namespace/name of the KubeVirt machine the pod runs, "" when it runs none."""
    owners = pod["metadata"].get("ownerReferences") or ()
    name = next((str(one.get("name")) for one in owners if one.get("kind") == "VirtualMachineInstance"), "")
    return f"{pod['metadata'].get('namespace', '')}/{name}" if name else ""


def calico_pod(node: str, pods: Sequence[Object]) -> CalicoPod:
    """The calico-node pod of a node: the running one where an update has left two."""
    known = sorted(pods, key=runs, reverse=True)
    if not known:
        return CalicoPod(node=node, running=False)
    pod = known[0]
    return CalicoPod(
        node=node,
        running=runs(pod),
        name=pod_name(pod),
        reason="" if runs(pod) else reason_of(pod) or "none of its containers runs",
        restarts=_restarts(pod),
    )


def runs(pod: Object) -> bool:
    """Does one of its containers run? A pod whose container keeps crashing is called Running, too."""
    status: Object = pod.get("status") or {}
    return status.get("phase") == "Running" and any(
        "running" in (one.get("state") or {}) for one in status.get("containerStatuses") or ()
    )


def _restarts(pod: Object) -> int:
    """How often its container calico-node was started again; -1 where the kubelet does not say."""
    known = (pod.get("status") or {}).get("containerStatuses") or ()
    return next(
        (int(one["restartCount"]) for one in known if one.get("name") == "calico-node" and "restartCount" in one), -1
    )


def waits(pod: Object) -> bool:
    """Its events may say why it is not there: it has not finished and is not running, or has no address."""
    return not finished(pod) and ((pod.get("status") or {}).get("phase") != "Running" or not addresses(pod))


def pod_endpoint(pod: Object, events: Iterable[Object] = (), *, interface_prefix: str = "cali") -> Endpoint:
    """A pod as one side of the question."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    conditions = {one.get("type"): one.get("status") for one in status.get("conditions") or ()}
    found = addresses(pod)
    host_network = bool(spec.get("hostNetwork"))
    said = list(events)
    return Endpoint(
        name=pod_name(pod),
        kind="pod",
        node=str(spec.get("nodeName") or ""),
        address=of_family(found, 4),
        address6=of_family(found, 6),
        addresses=found,
        host_network=host_network,
        phase=str(status.get("phase") or "Unknown"),
        reason=reason_of(pod, said),
        ready=conditions.get("Ready") == "True",
        terminating=bool(meta.get("deletionTimestamp")),
        starting=_starting(pod, said),
        network_failure=newest([one for one in said if one.get("reason") == NO_NETWORK]),
        annotated=tuple(annotated(pod)),
        container_id=str((meta.get("annotations") or {}).get("cni.projectcalico.org/containerID") or ""),
        interface="" if host_network else veth_name(meta.get("namespace", ""), meta["name"], interface_prefix),
        own_kernel=bool(spec.get("runtimeClassName") or _machine(pod)),
    )


def reason_of(pod: Object, events: Iterable[Object] = ()) -> str:
    """Why a pod is not running or not ready: its own status, then its containers', then its newest event."""
    return _complaint(pod) or newest(events) or _still_starting(pod)


def _starting(pod: Object, events: Sequence[Object]) -> bool:
    """Is it merely being created? A complaint about finding a node is over once it has one."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    failed = any(one.get("type") == "Warning" and one.get("reason") != "FailedScheduling" for one in events)
    return (
        status.get("phase") == "Pending"
        and bool(spec.get("nodeName"))
        and not meta.get("deletionTimestamp")
        and not failed
        and not _complaint(pod)
    )


def _containers(pod: Object) -> list[Object]:
    status: Object = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _still_starting(pod: Object) -> str:
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in _containers(pod)]
    return next((_said(one) for one in waiting if one.get("reason") in _STILL_STARTING), "")


def _complaint(pod: Object) -> str:
    """What the pod's status says has gone wrong; "" when nothing has."""
    status: Object = pod.get("status") or {}
    if status.get("reason") or status.get("message"):
        return _said(status)
    for container in _containers(pod):
        state: Object = container.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason") not in _STILL_STARTING:
            return f"container {container.get('name')}: {_said(waiting)}"
        if ended and ended.get("exitCode"):
            return f"container {container.get('name')}: exited with {ended['exitCode']}, {_said(ended)}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _said(condition)
    return ""


def newest(events: Iterable[Object]) -> str:
    """The newest warning among a pod's events, else its newest event, "" when there is none."""
    known = sorted(events, key=lambda one: (one.get("type") == "Warning", _when(one)))
    return _said(known[-1]) if known else ""


def _when(event: Object) -> str:
    series: Object = event.get("series") or {}
    meta: Object = event.get("metadata") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or meta.get("creationTimestamp")
        or ""
    )


def _said(one: Object) -> str:
    return ": ".join(str(one[key]).strip() for key in ("reason", "message") if one.get(key))


def of_family(addresses: Iterable[str], family: int) -> str:
    """The first address of this family in the form Calico writes it; "" when there is none."""
    for text in addresses:
        try:
            found = ip_address(text)
        except ValueError:
            continue
        if found.version == family:
            return str(found)
    return ""


def _interface(text: str, family: int) -> IPv4Interface | IPv6Interface | None:
    """ADDRESS/LENGTH; None for what Calico, too, treats as missing."""
    try:
        found = ip_interface(text)
    except ValueError:
        return None
    return found if found.version == family else None
