"""What keeps Calico going beside the paths themselves: who writes routes, Typha, leaked addresses and who frees them.

Pure: Kubernetes and Calico objects as they are stored, said as facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from bot.sources import describe
from bot.sources.names import seconds
from facts import (
    Allocation,
    BlockClaim,
    CalicoNode,
    CalicoSettings,
    GarbageCollector,
    Leak,
    LeakedAddresses,
    Pool,
    Typha,
)
from facts.version import release
from fixes.release import fingerprint, kind_of

Object = Mapping[str, Any]

KUBE_CONTROLLERS = "calico-kube-controllers"
CALICO_NODE = "k8s-app=calico-node"  # what the operator, the manifests and the chart all call Calico's own pods

# Who writes which routes for each value of programClusterRoutes, Felix's and BIRD's alike.
OWNS = {
    "Disabled": (),
    "EnabledIPIPOnly": ("ipip",),
    "EnabledNoEncapOnly": ("plain",),
    "Enabled": ("ipip", "plain"),
}
SPLIT_SINCE = (3, 33)  # from here on Felix has the IPIP pools where nobody says otherwise
FOLLOWS_PROXY_SINCE = (3, 32)  # nftablesMode Auto is the default: as kube-proxy does on each node
TYPHA_SETTING, TYPHA_NAMESPACE = "FELIX_TYPHAK8SSERVICENAME", "FELIX_TYPHAK8SNAMESPACE"
BACKEND = "CALICO_NETWORKING_BACKEND"
POD_CIDRS = "USE_POD_CIDR"  # host-local IPAM
BPF, NFTABLES_MODE, REFRESH = "FELIX_BPFENABLED", "FELIX_NFTABLESMODE", "FELIX_ROUTEREFRESHINTERVAL"
YES = ("true", "1", "yes", "y", "t")  # as Felix reads them
CONFIG_FILE = "/etc/calico/felix.cfg"  # where somebody mounts one, which goes before FelixConfiguration
# All that a device, a route or an answer of Felix is judged by.
DECIDING = {
    *(BPF, NFTABLES_MODE, POD_CIDRS, "FELIX_USEINTERNALDATAPLANEDRIVER", "FELIX_INTERFACEPREFIX", "FELIX_VXLANVNI"),
    *("FELIX_VXLANPORT", "FELIX_HEALTHPORT", "FELIX_HEALTHENABLED"),
    *(f"FELIX_WIREGUARD{what}{v6}" for what in ("ENABLED", "INTERFACENAME", "LISTENINGPORT") for v6 in ("", "V6")),
}
USED = DECIDING | {TYPHA_SETTING, TYPHA_NAMESPACE, BACKEND, REFRESH, "FELIX_PROMETHEUSMETRICSPORT"}
SHOWN = 5  # leaked addresses that are named, and proposed for release


def routes(version: str, felix: Object, bgp: Object | None) -> dict[str, str]:
    """The fields of CalicoSettings that say who writes routes. felix, bgp: specs; bgp is None when it was not read.

    An owner is "" where neither the version nor the settings tell.
    """
    number = release(version)
    split = number is not None and number >= SPLIT_SINCE
    by_felix, by_bird = felix.get("programClusterRoutes"), (bgp or {}).get("programClusterRoutes")
    mine = str(by_felix or ("EnabledIPIPOnly" if split else "Disabled"))
    theirs = str(by_bird or ("EnabledNoEncapOnly" if split else "Enabled"))
    if bgp is None or (number is None and not (by_felix and by_bird)):
        return {}
    felix_owns, bird_owns = OWNS.get(mine), OWNS.get(theirs)
    if felix_owns is None or bird_owns is None:
        return {}
    names = {(True, True): "both", (True, False): "felix", (False, True): "bird", (False, False): "nobody"}
    default = " (default)"
    return {
        "ipip_routes_by": names["ipip" in felix_owns, "ipip" in bird_owns],
        "plain_routes_by": names["plain" in felix_owns, "plain" in bird_owns],
        "routes_said": f"FelixConfiguration programClusterRoutes: {mine}{'' if by_felix else default}, "
        f"BGPConfiguration programClusterRoutes: {theirs}{'' if by_bird else default}",
    }


def by_bird(one: Allocation, settings: CalicoSettings) -> bool:
    """Does BIRD write the routes to this address's block, as far as anybody knows?"""
    if one.vxlan_mode in ("Always", "CrossSubnet") or not one.vxlan_mode:
        return False
    tunnelled = one.ipip_mode in ("Always", "CrossSubnet")
    return (settings.ipip_routes_by if tunnelled else settings.plain_routes_by) in ("bird", "both", "")


def dataplane(version: str, felix: Object) -> str:
    """As CalicoSettings.dataplane."""
    if felix.get("bpfEnabled"):
        return "ebpf"
    mode = felix.get("nftablesMode")
    if mode == "Enabled":
        return "nftables"
    number = release(version)
    follows = mode == "Auto" or (mode is None and (number is None or number >= FOLLOWS_PROXY_SINCE))
    return "" if follows else "iptables"


def as_set(settings: CalicoSettings, felix: Object, agents: Iterable[Sequence[Object]]) -> CalicoSettings:
    """With the dataplane that the environment of each Felix names before FelixConfiguration does, as where the operator
    is told linuxDataplane; "" where they name different ones, or one is told by what nobody read. agents: calico-node
    pods, of each node."""
    found = set()
    for pods in agents:
        told, said = environment(pods), dict(felix)
        if BPF in told:
            said["bpfEnabled"] = told[BPF].lower() in YES
        if NFTABLES_MODE in told:
            said["nftablesMode"] = told[NFTABLES_MODE].capitalize()
        hidden = {BPF, NFTABLES_MODE, CONFIG_FILE} & {*unread(pods)}
        found.add("" if hidden else dataplane(settings.version, said))
    if not found:
        return settings
    return msgspec.structs.replace(settings, dataplane=found.pop() if len(found) == 1 else "")


def environment(pods: Sequence[Object]) -> dict[str, str]:
    """Calico's settings out of the environment of a node's calico-node pod, the running one where there are two."""
    return {
        str(setting["name"]).upper(): str(setting["value"])
        for setting in _settings(max(pods, key=describe.runs))
        if "value" in setting
    }


def unread(pods: Sequence[Object]) -> tuple[str, ...]:
    """What decides how that node is to be, and is told in a place that nobody read: what is elsewhere a default is
    none here."""
    pod = max(pods, key=describe.runs)
    names = {
        str(one["name"]).upper() for one in _settings(pod) if "valueFrom" in one or "$(" in str(one.get("value") or "")
    }
    mounts = {str(mount.get("mountPath")) for one in _containers(pod) for mount in one.get("volumeMounts") or ()}
    mounted = mounts & {CONFIG_FILE, CONFIG_FILE.rpartition("/")[0]}
    return (*sorted(names & DECIDING), *((CONFIG_FILE,) if mounted else ()))


def config_maps(pod: Object) -> list[str]:
    """Names of those of its namespace that its settings are said to be in."""
    names = (_key(one).name for one in _settings(pod) if str(one["name"]).upper() in USED)
    return list(dict.fromkeys(filter(None, names)))


def with_values(pod: Object, maps: Mapping[str, Object | None]) -> dict[str, Any]:
    """The pod with what its environment has from ConfigMaps. maps: by name, their data; None for one that could not be
    read. A key that is not there is no setting."""

    def said(setting: Object) -> list[Object]:
        where = _key(setting)
        data = maps.get(where.name)
        if data is None or not _is_ours(setting):
            return [setting]
        return [{"name": setting["name"], "value": data[where.key]}] if where.key in data else []

    spec = pod.get("spec") or {}
    containers = [
        {**one, "env": [each for setting in one.get("env") or () for each in said(setting)]} for one in _containers(pod)
    ]
    return {**pod, "spec": {**spec, "containers": containers}}


class _Key(NamedTuple):
    name: str  # of a ConfigMap; "" where the value is none of one's
    key: str


def _key(setting: Object) -> _Key:
    reference: Object = (setting.get("valueFrom") or {}).get("configMapKeyRef") or {}
    return _Key(str(reference.get("name") or ""), str(reference.get("key") or ""))


def _is_ours(setting: Object) -> bool:
    return str(setting.get("name")).upper().startswith(("FELIX_", BACKEND, POD_CIDRS))


def _settings(pod: Object) -> list[Object]:
    return [setting for one in _containers(pod) for setting in one.get("env") or () if _is_ours(setting)]


def _containers(pod: Object) -> list[Object]:
    return list((pod.get("spec") or {}).get("containers") or ())


def as_told(node: CalicoNode, pods: Sequence[Object]) -> CalicoNode:
    """The node as its own Felix sees it: its environment goes before FelixConfiguration. pods: of calico-node there.

    Where nodes are told different VNIs or ports, each rightly has its own, and that they differ is what is wrong.
    """
    v6 = "V6" if node.family == 6 else ""
    if not pods:
        return node
    told, hidden = environment(pods), unread(pods)

    def yes(name: str, otherwise: bool) -> bool:
        return told[name].lower() in YES if name in told else otherwise

    def number(name: str, otherwise: int) -> int:
        value = told.get(name, "")
        return int(value) if value.isascii() and value.isdigit() else otherwise

    if yes(POD_CIDRS, False):
        node = _with_reckoned_addresses(node)
    return msgspec.structs.replace(
        node,
        bpf=yes(BPF, node.bpf),
        wireguard=yes("FELIX_WIREGUARDENABLED" + v6, node.wireguard),
        wireguard_device=told.get("FELIX_WIREGUARDINTERFACENAME" + v6) or node.wireguard_device,
        wireguard_port=number("FELIX_WIREGUARDLISTENINGPORT" + v6, node.wireguard_port),
        foreign_dataplane=not yes("FELIX_USEINTERNALDATAPLANEDRIVER", not node.foreign_dataplane),
        interface_prefix=(told.get("FELIX_INTERFACEPREFIX") or node.interface_prefix).split(",")[0],
        vni=number("FELIX_VXLANVNI", node.vni),
        vxlan_port=number("FELIX_VXLANPORT", node.vxlan_port),
        route_refresh_s=number(REFRESH, seconds(told.get(REFRESH, ""), node.route_refresh_s)),
        felix_health_port=number("FELIX_HEALTHPORT", node.felix_health_port),
        felix_health=yes("FELIX_HEALTHENABLED", node.felix_health),
        metrics_port=number("FELIX_PROMETHEUSMETRICSPORT", node.metrics_port),
        backend=told.get(BACKEND, "").lower(),
        settings_read=node.settings_read and not hidden,
        settings_unread=hidden,
    )


def _with_reckoned_addresses(node: CalicoNode) -> CalicoNode:
    """With host-local IPAM the first address of the node's first range is that of its IPIP and WireGuard devices,
    whatever its annotations say (calico.md 1.7). IPv4 only."""
    first = node.pod_cidrs[0] if node.pod_cidrs else ""
    if not first or node.family == 6 or ":" in first:
        return node
    own = str(ip_network(first).network_address + 1)
    encrypts = bool(node.wireguard_key)
    return msgspec.structs.replace(
        node,
        ipip_address=own,
        ipip_block=first,
        wireguard_address=own if encrypts else "",
        wireguard_block=first if encrypts else "",
    )


class TyphaSetting(NamedTuple):
    """How a calico-node pod is told to find Typha."""

    service: str = ""  # "" and "none": there is none
    namespace: str = ""  # of the Service, where it is told


def typha_setting(pod: Object) -> TyphaSetting:
    """Out of its environment, with what ConfigMaps have of it."""
    told = environment([pod])
    return TyphaSetting(told.get(TYPHA_SETTING, ""), told.get(TYPHA_NAMESPACE, ""))


def typha_unread(pod: Object) -> bool:
    """Is it told of Typha in a place that nobody read?"""
    return any(str(one["name"]).upper() == TYPHA_SETTING and "valueFrom" in one for one in _settings(pod))


def typha(service: str, slices: Sequence[Object]) -> Typha:
    """service: namespace/name."""
    endpoints = [one for piece in slices for one in piece.get("endpoints") or ()]
    # "not said" counts as ready, as in the API.
    ready = [one for one in endpoints if (one.get("conditions") or {}).get("ready") in (True, None)]
    return Typha(service=service, ready=len(ready), addresses=len(endpoints))


def garbage_collector(
    pods: Sequence[Object], daemon_set: Object | None, configuration: Object | None
) -> GarbageCollector:
    """pods: of calico-kube-controllers. daemon_set: calico-node. configuration: KubeControllersConfiguration's spec."""
    known = sorted(pods, key=describe.runs, reverse=True)
    controllers: Object = (configuration or {}).get("controllers") or {}
    grace = str((controllers.get("node") or {}).get("leakGracePeriod") or "")
    status: Object = (daemon_set or {}).get("status") or {}
    # The API leaves a zero out.
    unavailable = int(status.get("numberUnavailable") or 0) if daemon_set is not None else -1
    about: dict[str, Any] = {"grace_s": seconds(grace, 900), "unavailable": unavailable}
    if not known:
        return GarbageCollector(running=False, **about)
    pod = known[0]
    running = describe.runs(pod)
    reason = "" if running else describe.reason_of(pod) or "none of its containers runs"
    return GarbageCollector(running=running, name=describe.pod_name(pod), reason=reason, **about)


def leaked(
    pool: Pool,
    node: str,
    blocks: Iterable[Object],
    again: Iterable[Object],
    pods: Sequence[Object],
    nodes: Sequence[Object],
    *,
    now: datetime,
) -> LeakedAddresses:
    """Allocations to pods that are gone, in one pool's blocks (calico.md 2.3).

    blocks: specs read before the pods; again: after them, so that a pod that came or went meanwhile is no leak.
    nodes: whose annotations name addresses in use. Tunnels, machines, services and reserved addresses are nobody's
    leaks.
    """
    before, after = _allocations(pool, blocks), _allocations(pool, again)
    gone = forsaken(before, pods, nodes)
    found = [(address, about) for address, about in gone.items() if after.get(address) == about]
    found.sort(key=lambda one: ip_address(one[0]))
    ages = [old for _, about in found if (old := age(about, now)) >= 0]
    shown = [leak(address, about) for address, about in found[:SHOWN]]
    first = msgspec.structs.asdict(shown[0]) if shown else {}
    first.pop("unrouted", None)
    return LeakedAddresses(
        pool=pool.name,
        node=node,
        count=len(found),
        examined=len(before),
        oldest_s=max(ages, default=-1),
        examples=tuple(f"{address} ({_placed(about)})" for address, about in found[:SHOWN]),
        others=tuple(shown[1:]),
        **first,
    )


def forsaken(allocations: Mapping[str, Object], pods: Sequence[Object], nodes: Sequence[Object]) -> dict[str, Object]:
    """Those of allocations to pods (address -> attribute) whose pod is gone and whose address nobody else has."""
    by_name = {describe.pod_name(pod): pod for pod in pods}
    living = [pod for pod in pods if not describe.finished(pod)]
    used = {one for pod in living for one in (*describe.addresses(pod), *describe.annotated(pod))}
    used |= {str(value) for one in nodes for value in ((one.get("metadata") or {}).get("annotations") or {}).values()}
    return {
        address: about
        for address, about in allocations.items()
        if address not in used and _gone(by_name.get(_owner(about)), about)
    }


def leak(address: str, about: Object) -> Leak:
    """What releasing it rests on. about: the attribute, with its `sequence` and the CIDR of its `block`."""
    return Leak(
        address=address,
        block=str(about["block"]),
        handle=str(about["handle_id"]).split("\r")[0],
        sequence=str(about["sequence"]),
        owner=fingerprint({key: value for key, value in about.items() if key not in ("sequence", "block")}),
        pod=_owner(about),
    )


def _allocations(pool: Pool, blocks: Iterable[Object]) -> dict[str, Object]:
    """address -> attribute (with its sequence number and block) of each that is a pod's."""
    network = ip_network(pool.cidr)
    found: dict[str, Object] = {}
    for spec in blocks:
        cidr = ip_network(spec["cidr"])
        if spec.get("deleted") or cidr.version != network.version or not cidr.overlaps(network):
            continue
        attributes: Sequence[Object] = spec.get("attributes") or ()
        numbers: Object = spec.get("sequenceNumberForAllocation") or {}
        for ordinal, index in enumerate(spec.get("allocations") or ()):
            if index is None or not 0 <= index < len(attributes):
                continue
            if kind_of(attributes[index], str(spec.get("affinity") or "")) == "pod":
                number = numbers.get(str(ordinal), 0)
                found[str(cidr[ordinal])] = {**attributes[index], "sequence": number, "block": spec["cidr"]}
    return found


def _owner(attribute: Object) -> str:
    about: Object = attribute["secondary"]
    return f"{about['namespace']}/{about['pod']}"


def _placed(attribute: Object) -> str:
    node = attribute["secondary"].get("node")
    return f"{_owner(attribute)}, {node}" if node else _owner(attribute)


def _gone(pod: Object | None, attribute: Object) -> bool:
    """There is no such pod any more, it failed, or it is another one that has another address."""
    if pod is None:
        return True
    status: Object = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return True
    container = str((pod["metadata"].get("annotations") or {}).get("cni.projectcalico.org/containerID") or "")
    if describe.finished(pod) or not container or not describe.addresses(pod):
        return False  # it may be starting
    return not str(attribute["handle_id"]).split("\r")[0].endswith(container)


def age(attribute: Object, now: datetime) -> int:
    """-1 when the allocation does not say since when it is: `2026-11-22 20:26:45.120391 +0000 UTC`."""
    text = str((attribute.get("secondary") or {}).get("timestamp") or "")[:19]
    try:
        since = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return -1
    return max(round((now - since).total_seconds()), 0)


def claims(affinities: Iterable[Object], owners: Mapping[str, str]) -> list[BlockClaim]:
    """The BlockAffinities that name another node than the block does. owners: block -> whom it names itself."""
    found = []
    for one in affinities:
        spec: Object = one.get("spec") or {}
        block, node = str(spec.get("cidr", "")), str(spec.get("node", ""))
        virtual = str(spec.get("type") or "host") != "host"
        if virtual or block not in owners or node == owners[block] or str(spec.get("deleted")).lower() == "true":
            continue
        found.append(BlockClaim(block=block, node=node, block_node=owners[block], state=str(spec.get("state") or "")))
    return found
