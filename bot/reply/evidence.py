"""What was expected beside what was seen, a row a fact; without it a reader would have to believe the conclusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from engine.prefix import host
from facts import (
    AddressHolders,
    Allocation,
    Backend,
    BgpPeer,
    Bird,
    BlockClaim,
    CalicoNode,
    CalicoPod,
    CalicoService,
    CalicoSettings,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    GarbageCollector,
    LeakedAddresses,
    Leg,
    Link,
    LinkAddresses,
    Listener,
    Neighbor,
    PodInterface,
    PodRoute,
    Pool,
    PoolUsage,
    ProbeResult,
    RouteLookup,
    ServicePort,
    Sysctl,
    Typha,
    WireguardDevice,
    WireguardPeer,
)

NOTHING = "none"


class Row(NamedTuple):
    """One fact. `expected` is "" where no single value is the right one; then the row only tells."""

    node: str
    what: str
    expected: str
    seen: str
    cited: bool  # a cause or a warning rests on it

    @property
    def wrong(self) -> bool:
        return bool(self.expected) and self.expected != self.seen


Said = tuple[str, str, str]  # what, expected, seen


def rows(diagnosis: Diagnosis) -> list[Row]:
    """The wrong ones first, those a cause rests on before others; then what was seen and is as it should be."""
    legs = [fact for fact in diagnosis.facts if isinstance(fact, Leg)]
    cited = {one for cause in (*diagnosis.causes, *diagnosis.warnings) for one in cause.evidence}
    found: dict[tuple[str, str, str, str], Row] = {}
    for fact in diagnosis.facts:
        tell = _TELL.get(type(fact))
        said = tell(fact, legs) if tell else None
        if isinstance(fact, Neighbor) and fact.id not in cited and not _of_a_tunnel(fact, legs):
            continue  # of the uplink and of pods anything goes, as long as no rule says otherwise
        if said and (said[1] or fact.id in cited):
            node = str(getattr(fact, "node", "") or (fact.name if isinstance(fact, CalicoNode) else ""))
            row = Row(node, *said, fact.id in cited)
            if row[:4] not in found or row.cited:
                found[row[:4]] = row
    return sorted(found.values(), key=lambda row: (not (row.cited and row.wrong), not row.cited, not row.wrong))


def _find(legs: Iterable[Leg], **fields: Any) -> Leg | None:
    return next((leg for leg in legs if all(getattr(leg, name) == value for name, value in fields.items())), None)


def _of_a_tunnel(fact: Neighbor, legs: Sequence[Leg]) -> bool:
    return _find(legs, source_node=fact.node, tunnel_device=fact.device) is not None


def _neighbor(fact: Neighbor, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, target_tunnel_address=fact.address, tunnel_device=fact.device)
    what = f"neighbor {fact.address} on {fact.device}"
    if not _of_a_tunnel(fact, legs):
        fixed = fact.state == "PERMANENT"
        return what, "learned" if fixed else "an answer", f"{fact.mac or NOTHING} ({fact.state or 'no entry'})"
    return what, leg.target_tunnel_mac if leg and leg.encapsulation == "vxlan" else "", fact.mac or NOTHING


def _fdb(fact: FdbEntry, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, target_tunnel_mac=fact.mac, tunnel_device=fact.device)
    what = f"FDB entry of {fact.mac} on {fact.device}"
    return what, leg.target_node_address if leg and leg.encapsulation == "vxlan" else "", fact.peer or NOTHING


def _route(fact: RouteLookup, legs: Sequence[Leg]) -> Said | None:
    what = f"route to {fact.destination}" + (f" for packets in by {fact.incoming}" if fact.incoming else "")
    if fact.type and fact.type != "unicast":
        seen = f"{fact.type} {fact.prefix}".strip()
    elif not fact.found:
        seen = f"{NOTHING} ({fact.error})" if fact.error else NOTHING
    else:
        seen = _via(fact.next_hop, fact.device)
    expected = ""
    if leg := _find(legs, target_address=fact.destination, target_node=fact.node):
        expected = _via("", leg.target_interface)
    elif leg := _find(legs, target_address=fact.destination, source_node=fact.node, route_by="felix"):
        uplink = fact.device if fact.device not in ("", leg.tunnel_device) else "the uplink"  # any name is right
        expected = _via(leg.expected_next_hop, leg.expected_device or uplink)
    elif not fact.found:
        expected = "a route"  # of a pod's gateway
    return what, expected, seen


def _via(next_hop: str, device: str) -> str:
    return f"via {next_hop} dev {device}" if next_hop else f"dev {device}"


def _link(fact: Link, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    expected = ""
    if leg and leg.encapsulation in ("ipip", "wireguard"):
        return f"device {fact.device}", "up", NOTHING if not fact.found else "up" if fact.up else "down"
    if leg and leg.encapsulation == "vxlan":
        expected = f"up, {leg.source_tunnel_mac}, VNI {leg.vni}, port {leg.vxlan_port}, local {leg.source_node_address}"
    seen = f"{'up' if fact.up else 'down'}, {fact.mac}"
    if fact.link_kind == "vxlan":
        seen += f", VNI {fact.vni}, port {fact.vxlan_port}, local {fact.vxlan_local}"
    else:
        seen += f", MTU {fact.mtu}"
    return f"device {fact.device}", expected, seen if fact.found else NOTHING


def _addresses(fact: LinkAddresses, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    expected = ""
    if leg and leg.encapsulation == "vxlan" and leg.source_tunnel_address:
        expected = host(leg.source_tunnel_address)
    return f"addresses of {fact.device}", expected, ", ".join(fact.addresses) or NOTHING


def _pod_interface(fact: PodInterface, legs: Sequence[Leg]) -> Said | None:
    if not fact.found:
        seen = NOTHING
    elif fact.entered and fact.pod_gateway_state == "PERMANENT" and fact.pod_gateway_mac != fact.mac:
        return f"neighbor {fact.pod_default_next_hop} inside {fact.pod}", fact.mac, fact.pod_gateway_mac or NOTHING
    elif fact.entered and (leg := _stranger(fact, legs)):
        what = f"addresses of {fact.pod_device} in {fact.pod}"
        return what, host(leg.source_address), ", ".join(fact.pod_addresses) or NOTHING
    elif fact.entered:
        seen = f"{'up' if fact.up else 'down'}, in the pod {'up' if fact.pod_up else 'down'}"
        return f"{fact.interface} and {fact.pod_device} of {fact.pod}", "up, in the pod up", seen
    else:
        seen = "up" if fact.up else "down"
    return f"{fact.interface} of {fact.pod}", "up", seen


def _stranger(fact: PodInterface, legs: Sequence[Leg]) -> Leg | None:
    """The leg of this pod when the pod does not have the address the leg starts from."""
    leg = _find(legs, source=fact.pod, source_node=fact.node, family=fact.family)
    return leg if leg and leg.source_address not in [one.split("/")[0] for one in fact.pod_addresses] else None


def _pod_route(fact: PodRoute, legs: Sequence[Leg]) -> Said | None:
    seen = _via(fact.next_hop, fact.device) if fact.found else f"{NOTHING} ({fact.error})"
    return f"route to {fact.destination} inside {fact.pod}", "" if fact.found else "a route", seen


def _sysctl(fact: Sysctl, legs: Sequence[Leg]) -> Said | None:
    own = fact.switch == "proxy_arp" and _find(legs, source_node=fact.node, source_interface=fact.device)
    forwards = fact.name.endswith((".ip_forward", "all.forwarding")) or (
        fact.switch == "forwarding" and fact.family == 4
    )
    expected = "1" if own or forwards else "0" if fact.switch == "disable_ipv6" else ""
    return fact.name, expected, fact.value if fact.found else NOTHING


def _listener(fact: Listener, legs: Sequence[Leg]) -> Said | None:
    what = f"who listens on {fact.port}/{fact.protocol} in {fact.pod}"
    if fact.addresses and all(ip_address(address).is_loopback for address in fact.addresses):
        return what, "a socket for all", f"a socket on {', '.join(fact.addresses)} only"
    return what, "a socket", "a socket" if fact.found else NOTHING


def _probe(fact: ProbeResult, legs: Sequence[Leg]) -> Said | None:
    kind = f"{fact.protocol} {fact.port}" if fact.port else fact.protocol
    size = f", {fact.size} bytes" if fact.size else ""
    what = f"{kind}{size} from {fact.pod or fact.node} to {fact.target_address}"
    if not fact.sent:
        return what, "an answer", f"not to be sent ({fact.outcome})"
    met = "" if fact.answered else f" ({fact.outcome})"
    return what, f"{fact.sent} of {fact.sent} answered", f"{fact.answered} of {fact.sent} answered{met}"


def _felix(fact: FelixHealth, legs: Sequence[Leg]) -> Said | None:
    seen = "ready" if fact.ready else "not ready" if fact.reachable else "no answer"
    return "Felix", "ready", seen + (f": {fact.detail}" if fact.detail and not fact.ready else "")


def _allocation(fact: Allocation, legs: Sequence[Leg]) -> Said | None:
    expected = ""
    if leg := _find(legs, target_address=fact.address):
        expected = f"{leg.target} on {leg.target_node}"
    elif leg := _find(legs, target_tunnel_address=fact.address):
        expected = f"tunnel of {leg.target_node}"
    if not fact.found:
        seen = NOTHING
    elif fact.owner_kind == "pod":
        seen = f"{fact.owner} on {fact.node}"
    else:
        seen = f"tunnel of {fact.owner}" if fact.owner_kind == "vxlanTunnelAddress" else fact.owner_kind or fact.handle
    return f"IPAM owner of {fact.address}", expected, seen


def _calico_node(fact: CalicoNode, legs: Sequence[Leg]) -> Said | None:
    if fact.unready:
        return f"node {fact.name}", "ready", f"not ready ({fact.unready})"
    tunnelled = any(leg.encapsulation == "vxlan" and fact.name in (leg.source_node, leg.target_node) for leg in legs)
    if not fact.vxlan_expected and not tunnelled:
        return None
    return f"annotation IPv{fact.family}VXLANTunnelAddr", "an address", "an address" if fact.tunnel_address else NOTHING


def _endpoint(fact: Endpoint, legs: Sequence[Leg]) -> Said | None:
    if fact.kind != "pod":
        return None
    untold = [one for one in fact.annotated if (":" in one) not in {":" in known for known in fact.addresses}]
    if fact.phase == "Running" and fact.addresses and untold:
        return f"addresses in the status of {fact.name}", ", ".join(fact.annotated), ", ".join(fact.addresses)
    seen = fact.phase + ("" if fact.addresses else ", without an address")
    return f"pod {fact.name}", "Running", seen + (f" ({fact.reason})" if fact.reason and seen != "Running" else "")


def _pool(fact: PoolUsage, legs: Sequence[Leg]) -> Said | None:
    if not fact.pool:
        return f"pools that {fact.node} may use", "a pool", NOTHING
    seen = (
        f"{fact.free_on_node} addresses free in its blocks, {fact.free_elsewhere} elsewhere; "
        f"{fact.blocks_taken} of {fact.blocks_possible} blocks taken"
    )
    return f"pool {fact.pool} {fact.cidr}", "an address to give" if fact.exhausted else "", seen


def _holders(fact: AddressHolders, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, target_address=fact.address)
    expected = leg.target if leg and leg.target in fact.pods and not fact.machine else ""
    return f"pods with {fact.address}", expected, ", ".join(fact.pods) or NOTHING


def _calico_pod(fact: CalicoPod, legs: Sequence[Leg]) -> Said | None:
    seen = "running" if fact.running else f"{fact.name} not running" if fact.name else NOTHING
    return "calico-node pod", "running", seen


def _settings(fact: CalicoSettings, legs: Sequence[Leg]) -> Said | None:
    if fact.datastore_ready and fact.routes_said:
        one = {"felix", "bird", ""} >= {fact.ipip_routes_by, fact.plain_routes_by}
        return "who writes routes", "" if one else "one of the two", fact.routes_said
    return "ClusterInformation datastoreReady", "true", "true" if fact.datastore_ready else "false"


def _configured_pool(fact: Pool, legs: Sequence[Leg]) -> Said | None:
    state = "being deleted" if fact.deleting else "disabled" if fact.disabled else "enabled"
    return f"pool {fact.name} {fact.cidr}", "", state


def _service_port(fact: ServicePort, legs: Sequence[Leg]) -> Said | None:
    what = f"{fact.port}/{fact.protocol} of service {fact.service}" + (" over IPv6" if fact.family == 6 else "")
    if not fact.found:
        return what, "one of its ports", f"its ports are {', '.join(fact.ports) or NOTHING}"
    if not fact.counted:
        return None
    local = f", on {', '.join(filter(None, fact.nodes)) or NOTHING}" if fact.local else ""
    ready = f"{fact.ready} endpoints ready"
    if not fact.ready and not fact.serving:
        return what, "a ready endpoint", NOTHING
    return what, ready + local, ready + local


def _backend(fact: Backend, legs: Sequence[Leg]) -> Said | None:
    has = f"{fact.pod} has {fact.has_now}" if fact.has_now else NOTHING
    what = f"who has {fact.address}, an endpoint of service {fact.service}"
    return (what, fact.pod, has) if fact.stale else (what, "", fact.pod or fact.endpoint)


def _service(fact: CalicoService, legs: Sequence[Leg]) -> Said | None:
    if fact.loops:
        return fact.service, "one process", f"{fact.starts} one after the other"
    if fact.still_s:
        return f"{fact.service}'s applied changes", "", f"{fact.applies} since {fact.still_s} s"
    return None


def _typha(fact: Typha, legs: Sequence[Leg]) -> Said | None:
    return f"service {fact.service}", "" if fact.ready else "a ready address", f"{fact.ready} of {fact.addresses} ready"


def _leaked(fact: LeakedAddresses, legs: Sequence[Leg]) -> Said | None:
    return f"addresses of pool {fact.pool} held for pods that are gone", NOTHING, str(fact.count or NOTHING)


def _collector(fact: GarbageCollector, legs: Sequence[Leg]) -> Said | None:
    seen = "running" if fact.running else f"{fact.name} not running" if fact.name else NOTHING
    if fact.running and fact.unavailable > 0:
        seen += f", {fact.unavailable} calico-node pods not available"
    return "calico-kube-controllers", "running", seen


def _claim(fact: BlockClaim, legs: Sequence[Leg]) -> Said | None:
    return f"BlockAffinity of {fact.block}", fact.block_node or "nobody's", fact.node


def _bird(fact: Bird, legs: Sequence[Leg]) -> Said | None:
    needed = _find(legs, source_node=fact.node, family=fact.family, route_by="bgp")
    seen = "running" if fact.running else "not running"
    return ("BIRD", "running" if needed else "", seen) if fact.seen else None


def _bgp_peer(fact: BgpPeer, legs: Sequence[Leg]) -> Said | None:
    expected = "Established" if _find(legs, source_node=fact.node, target_node_address=fact.address) else ""
    seen = " ".join(filter(None, (fact.session or fact.state, fact.info)))
    return f"BGP session with {fact.address}", expected, seen


def _wireguard(fact: WireguardDevice, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    return f"key of {fact.device}", leg.source_wireguard_key if leg else "", fact.public_key or NOTHING


def _wireguard_peer(fact: WireguardPeer, legs: Sequence[Leg]) -> Said | None:
    seen = ", ".join(fact.allowed) if fact.found else NOTHING
    return f"peer {fact.public_key} of {fact.device}", "" if fact.found else "a peer", seen


_TELL: dict[type[Fact], Callable[[Any, Sequence[Leg]], Said | None]] = {
    Neighbor: _neighbor,
    FdbEntry: _fdb,
    RouteLookup: _route,
    Link: _link,
    LinkAddresses: _addresses,
    PodInterface: _pod_interface,
    PodRoute: _pod_route,
    Sysctl: _sysctl,
    Listener: _listener,
    ProbeResult: _probe,
    FelixHealth: _felix,
    Allocation: _allocation,
    CalicoNode: _calico_node,
    Endpoint: _endpoint,
    PoolUsage: _pool,
    AddressHolders: _holders,
    CalicoPod: _calico_pod,
    CalicoSettings: _settings,
    Pool: _configured_pool,
    ServicePort: _service_port,
    Backend: _backend,
    CalicoService: _service,
    Typha: _typha,
    LeakedAddresses: _leaked,
    GarbageCollector: _collector,
    BlockClaim: _claim,
    Bird: _bird,
    BgpPeer: _bgp_peer,
    WireguardDevice: _wireguard,
    WireguardPeer: _wireguard_peer,
}
