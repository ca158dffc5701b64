"""What was expected beside what was seen, a row a fact; without it a reader would have to believe the conclusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple

from engine import passage
from engine.dropped import packets
from engine.prefix import host
from engine.rules import conntrack_table_full
from facts import (
    AddressHolders,
    Allocation,
    Backend,
    BgpPeer,
    Bird,
    BlockClaim,
    CalicoFirewall,
    CalicoNode,
    CalicoPod,
    CalicoService,
    CalicoSettings,
    ConnectionTable,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    FirewallTrace,
    ForeignVxlans,
    GarbageCollector,
    LeakedAddresses,
    Leg,
    Link,
    LinkAddresses,
    Listener,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    PeerGateway,
    PodInterface,
    PodRoute,
    Pool,
    PoolUsage,
    ProbeResult,
    RouteLookup,
    RuleDrop,
    RuleRewrite,
    ServicePort,
    Sighting,
    StageSighting,
    Sysctl,
    TrafficControl,
    Train,
    Typha,
    WireguardDevice,
    WireguardPeer,
    listed,
    say,
)

NOTHING: str = say("none")
UP: str = say("up")
DOWN: str = say("down")
READY, RUNNING, AN_ADDRESS = say("ready"), say("running"), say("an address")


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


def is_wrong(fact: Fact, legs: Sequence[Leg]) -> bool:
    """Something else was expected than what was seen."""
    tell = _TELL.get(type(fact))
    said = tell(fact, legs) if tell else None
    return said is not None and Row("", *said, cited=True).wrong


def _find(legs: Iterable[Leg], **fields: Any) -> Leg | None:
    return next((leg for leg in legs if all(getattr(leg, name) == value for name, value in fields.items())), None)


def _of_a_tunnel(fact: Neighbor, legs: Sequence[Leg]) -> bool:
    return _find(legs, source_node=fact.node, tunnel_device=fact.device) is not None


def _neighbor(fact: Neighbor, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, target_tunnel_address=fact.address, tunnel_device=fact.device)
    what = say("neighbor {address} on {device}", address=fact.address, device=fact.device)
    if not _of_a_tunnel(fact, legs):
        fixed = fact.state == "PERMANENT"
        seen = say("{what} ({why})", what=fact.mac or NOTHING, why=fact.state or say("no entry"))
        return what, say("learned") if fixed else say("an answer"), seen
    return what, leg.target_tunnel_mac if leg and leg.encapsulation == "vxlan" else "", fact.mac or NOTHING


def _gateway(fact: PeerGateway, legs: Sequence[Leg]) -> Said | None:
    what = say(
        "next hop {address} on {device}, on the way to {peer}", address=fact.address, device=fact.device, peer=fact.peer
    )
    return what, say("an answer"), fact.mac or say("{what} ({why})", what=NOTHING, why=fact.state or say("no entry"))


def _fdb(fact: FdbEntry, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, target_tunnel_mac=fact.mac, tunnel_device=fact.device)
    what = say("FDB entry of {mac} on {device}", mac=fact.mac, device=fact.device)
    return what, leg.target_node_address if leg and leg.encapsulation == "vxlan" else "", fact.peer or NOTHING


def _route(fact: RouteLookup, legs: Sequence[Leg]) -> Said | None:
    what = say(
        "route to {address} for packets in by {device}" if fact.incoming else "route to {address}",
        address=fact.destination,
        device=fact.incoming,
    )
    if fact.type and fact.type != "unicast":
        seen = f"{fact.type} {fact.prefix}".strip()
    elif not fact.found:
        seen = say("{what} ({why})", what=NOTHING, why=fact.error) if fact.error else NOTHING
    else:
        seen = _via(fact.next_hop, fact.device)
    expected = ""
    if leg := _find(legs, target_address=fact.destination, target_node=fact.node):
        expected = _via("", leg.target_interface)
    elif leg := _find(legs, target_address=fact.destination, source_node=fact.node, route_by="felix"):
        uplink = fact.device if fact.device not in ("", leg.tunnel_device) else say("the uplink")  # any name is right
        expected = _via(leg.expected_next_hop, leg.expected_device or uplink)
    elif (leg := _find(legs, target_address=fact.destination, source_node=fact.node)) and (
        leg.encapsulation == "wireguard" and not fact.source and not fact.incoming
    ):
        expected = _via(fact.next_hop if fact.device == leg.tunnel_device else "", leg.tunnel_device)
    elif not fact.found:
        expected = say("a route")  # of a pod's gateway
    return what, expected, seen


def _via(next_hop: str, device: str) -> str:
    return say("via {next_hop} dev {device}" if next_hop else "dev {device}", next_hop=next_hop, device=device)


def _link(fact: Link, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    expected = ""
    if leg and leg.encapsulation in ("ipip", "wireguard"):
        return say("device {name}", name=fact.device), UP, NOTHING if not fact.found else UP if fact.up else DOWN
    if leg and leg.encapsulation == "vxlan":
        expected = _vxlan(UP, leg.source_tunnel_mac, leg.vni, leg.vxlan_port, leg.source_node_address)
    state = UP if fact.up else DOWN
    seen = (
        _vxlan(state, fact.mac, fact.vni, fact.vxlan_port, fact.vxlan_local)
        if fact.link_kind == "vxlan"
        else say("{state}, {mac}, MTU {mtu}", state=state, mac=fact.mac, mtu=fact.mtu)
    )
    if fact.sums:
        seen, expected = _summed(seen, fact), _summed(expected, fact) if expected else ""
    return say("device {name}", name=fact.device), expected, seen if fact.found else NOTHING


def _summed(told: str, fact: Link) -> str:
    if fact.sums == "card":
        return say("{device}, checksum offload on", device=told)
    return say("{device}, checksum offload off", device=told)


def _vxlan(state: str, mac: str, vni: int, port: int, local: str) -> str:
    return say(
        "{state}, {mac}, VNI {vni}, port {port}, local {local}", state=state, mac=mac, vni=vni, port=port, local=local
    )


def _addresses(fact: LinkAddresses, legs: Sequence[Leg]) -> Said | None:
    if fact.family == 6 and _find(legs, source_node=fact.node, source_interface=fact.device):
        linked = any(one.startswith("fe80:") for one in fact.addresses)  # the pod's gateway is such a one
        expected = "" if linked else say("a link-local address")
        return say("addresses of {device}", device=fact.device), expected, ", ".join(fact.addresses) or NOTHING
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    expected = ""
    if leg and leg.encapsulation == "vxlan" and leg.source_tunnel_address:
        expected = host(leg.source_tunnel_address)
    seen = [one for one in fact.addresses if not (expected and one.startswith("fe80:"))]
    return say("addresses of {device}", device=fact.device), expected, ", ".join(seen) or NOTHING


def _pod_interface(fact: PodInterface, legs: Sequence[Leg]) -> Said | None:
    if not fact.found:
        seen = NOTHING
    elif fact.entered and fact.pod_gateway_state == "PERMANENT" and fact.pod_gateway_mac != fact.mac:
        what = say("neighbor {address} inside {pod}", address=fact.pod_default_next_hop, pod=fact.pod)
        return what, fact.mac, fact.pod_gateway_mac or NOTHING
    elif fact.entered and (leg := stranger(fact, legs)):
        what = say("addresses of {device} in {pod}", device=fact.pod_device, pod=fact.pod)
        return what, host(leg.source_address), ", ".join(fact.pod_addresses) or NOTHING
    elif fact.entered:
        what = say("{interface} and {device} of {pod}", interface=fact.interface, device=fact.pod_device, pod=fact.pod)
        return what, _ends(True, True), _ends(fact.up, fact.pod_up)
    else:
        seen = UP if fact.up else DOWN
    return say("{interface} of {pod}", interface=fact.interface, pod=fact.pod), UP, seen


def _ends(node: bool, pod: bool) -> str:
    """Both ends of a veth."""
    return say("{node}, in the pod {pod}", node=UP if node else DOWN, pod=UP if pod else DOWN)


def stranger(fact: PodInterface, legs: Sequence[Leg]) -> Leg | None:
    """The leg of this pod when the pod does not have the address the leg starts from."""
    leg = _find(legs, source=fact.pod, source_node=fact.node, family=fact.family)
    return leg if leg and leg.source_address not in [one.split("/")[0] for one in fact.pod_addresses] else None


def _pod_route(fact: PodRoute, legs: Sequence[Leg]) -> Said | None:
    seen = _via(fact.next_hop, fact.device) if fact.found else say("{what} ({why})", what=NOTHING, why=fact.error)
    what = say("route to {address} inside {pod}", address=fact.destination, pod=fact.pod)
    return what, "" if fact.found else say("a route"), seen


def _sysctl(fact: Sysctl, legs: Sequence[Leg]) -> Said | None:
    own = fact.switch == "proxy_arp" and _find(legs, source_node=fact.node, source_interface=fact.device)
    forwards = fact.name.endswith((".ip_forward", "all.forwarding")) or (
        fact.switch == "forwarding" and fact.family == 4
    )
    expected = "1" if own or forwards else "0" if fact.switch == "disable_ipv6" else ""
    return fact.name, expected, fact.value if fact.found else NOTHING


def _listener(fact: Listener, legs: Sequence[Leg]) -> Said | None:
    what = say("who listens on {port}/{protocol} in {pod}", port=fact.port, protocol=fact.protocol, pod=fact.pod)
    if fact.addresses and all(ip_address(address).is_loopback for address in fact.addresses):
        only = say("a socket on {addresses} only", addresses=", ".join(fact.addresses))
        return what, say("a socket for all"), only
    return what, say("a socket"), say("a socket") if fact.found else NOTHING


def _probe(fact: ProbeResult, legs: Sequence[Leg]) -> Said | None:
    kind = f"{fact.protocol} {fact.port}" if fact.port else fact.protocol
    what = say(
        "{kind}, answers of {size} bytes to {source} from {target}"
        if fact.size and fact.answers
        else "{kind}, {size} bytes from {source} to {target}"
        if fact.size
        else "{kind} from {source} to {target}, past what answers in its place inside {source}"
        if fact.past_proxy
        else "{kind} from {source} to {target}",
        kind=kind,
        size=fact.size,
        source=fact.pod or fact.node,
        target=fact.target_address,
    )
    if not fact.sent:
        return what, say("an answer"), say("not to be sent ({why})", why=passage.outcome(fact))
    seen = say(
        "{answered} of {sent} answered" if fact.answered else "{answered} of {sent} answered ({met})",
        answered=fact.answered,
        sent=fact.sent,
        met=passage.outcome(fact),
    )
    return what, say("{answered} of {sent} answered", answered=fact.sent, sent=fact.sent), seen


def _train(fact: Train, legs: Sequence[Leg]) -> Said | None:
    kind = f"{fact.protocol} {fact.port}" if fact.port else fact.protocol
    what = say(
        "{kind}, trains of packets from {source} to {target}, most often answered within {usual} ms, always within "
        "{longest} ms"
        if fact.rtt_us >= 0
        else "{kind}, trains of packets from {source} to {target}",
        kind=kind,
        source=fact.pod or fact.node,
        target=fact.target_address,
        usual=f"{fact.rtt_us / 1000:.1f}",
        longest=f"{fact.rtt_most_us / 1000:.1f}",
    )
    sent = fact.sent + fact.sent_again
    expected = say("{answered} of {sent} answered", answered=sent, sent=sent)
    return what, expected, say("{answered} of {sent} answered", answered=sent - fact.lost, sent=sent)


def _felix(fact: FelixHealth, legs: Sequence[Leg]) -> Said | None:
    seen = READY if fact.ready else say("not ready") if fact.reachable else say("no answer")
    if fact.detail and not fact.ready:
        seen = say("{state}: {why}", state=seen, why=fact.detail)
    return "Felix", READY, seen


def _allocation(fact: Allocation, legs: Sequence[Leg]) -> Said | None:
    expected = ""
    if leg := _find(legs, target_address=fact.address):
        expected = say("{owner} on {node}", owner=leg.target, node=leg.target_node)
    elif leg := _find(legs, target_tunnel_address=fact.address):
        expected = say("tunnel of {node}", node=leg.target_node)
    if not fact.found:
        seen = NOTHING
    elif fact.owner_kind == "pod":
        seen = say("{owner} on {node}", owner=fact.owner, node=fact.node)
    else:
        tunnel = fact.owner_kind in ("vxlanTunnelAddress", "vxlanV6TunnelAddress")
        seen = say("tunnel of {node}", node=fact.owner) if tunnel else fact.owner_kind or fact.handle
    return say("IPAM owner of {address}", address=fact.address), expected, seen


def _calico_node(fact: CalicoNode, legs: Sequence[Leg]) -> Said | None:
    if fact.unready:
        return say("node {name}", name=fact.name), READY, say("not ready ({why})", why=fact.unready)
    if not fact.address:
        return say("annotation IPv{family}Address", family=fact.family), AN_ADDRESS, NOTHING
    tunnelled = any(leg.encapsulation == "vxlan" and fact.name in (leg.source_node, leg.target_node) for leg in legs)
    if not fact.vxlan_expected and not tunnelled:
        return None
    what = say("annotation IPv{family}VXLANTunnelAddr", family=fact.family)
    return what, AN_ADDRESS, AN_ADDRESS if fact.tunnel_address else NOTHING


def _endpoint(fact: Endpoint, legs: Sequence[Leg]) -> Said | None:
    if fact.kind != "pod":
        return None
    untold = [one for one in fact.annotated if (":" in one) not in {":" in known for known in fact.addresses}]
    if fact.phase == "Running" and fact.addresses and untold:
        return (
            say("addresses in the status of {pod}", pod=fact.name),
            ", ".join(fact.annotated),
            ", ".join(fact.addresses),
        )
    seen = fact.phase if fact.addresses else say("{phase}, without an address", phase=fact.phase)
    if fact.reason and seen != "Running":
        seen = say("{what} ({why})", what=seen, why=fact.reason)
    return say("pod {name}", name=fact.name), "Running", seen


def _pool(fact: PoolUsage, legs: Sequence[Leg]) -> Said | None:
    if not fact.pool:
        return say("pools that {node} may use", node=fact.node), say("a pool"), NOTHING
    seen = say(
        "{here} addresses free in its blocks, {elsewhere} elsewhere; {taken} of {possible} blocks taken",
        here=fact.free_on_node,
        elsewhere=fact.free_elsewhere,
        taken=fact.blocks_taken,
        possible=fact.blocks_possible,
    )
    what = say("pool {name} {cidr}", name=fact.pool, cidr=fact.cidr)
    return what, say("an address to give") if fact.exhausted else "", seen


def _holders(fact: AddressHolders, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, target_address=fact.address)
    expected = leg.target if leg and leg.target in fact.pods and not fact.machine else ""
    return say("pods with {address}", address=fact.address), expected, ", ".join(fact.pods) or NOTHING


def _calico_pod(fact: CalicoPod, legs: Sequence[Leg]) -> Said | None:
    return say("calico-node pod"), RUNNING, _runs(fact)


def _runs(fact: CalicoPod | GarbageCollector) -> str:
    if fact.running or not fact.name:
        return RUNNING if fact.running else NOTHING
    return say("{name} not running", name=fact.name)


def _settings(fact: CalicoSettings, legs: Sequence[Leg]) -> Said | None:
    if fact.datastore_ready and fact.routes_said:
        one = {"felix", "bird", ""} >= {fact.ipip_routes_by, fact.plain_routes_by}
        return say("who writes routes"), "" if one else say("one of the two"), fact.routes_said
    return "ClusterInformation datastoreReady", "true", "true" if fact.datastore_ready else "false"


def _configured_pool(fact: Pool, legs: Sequence[Leg]) -> Said | None:
    state = say("being deleted") if fact.deleting else say("disabled") if fact.disabled else say("enabled")
    return say("pool {name} {cidr}", name=fact.name, cidr=fact.cidr), "", state


def _service_port(fact: ServicePort, legs: Sequence[Leg]) -> Said | None:
    what = say(
        "{port}/{protocol} of service {service} over IPv6"
        if fact.family == 6
        else "{port}/{protocol} of service {service}",
        port=fact.port,
        protocol=fact.protocol,
        service=fact.service,
    )
    if not fact.found:
        return what, say("one of its ports"), say("its ports are {ports}", ports=", ".join(fact.ports) or NOTHING)
    if not fact.counted:
        return None
    ready = say(
        "{count} endpoints ready, on {nodes}" if fact.local else "{count} endpoints ready",
        count=fact.ready,
        nodes=", ".join(filter(None, fact.nodes)) or NOTHING,
    )
    if not fact.ready and not fact.serving:
        return what, say("a ready endpoint"), NOTHING
    return what, ready, ready


def _backend(fact: Backend, legs: Sequence[Leg]) -> Said | None:
    has = say("{pod} has {address}", pod=fact.pod, address=fact.has_now) if fact.has_now else NOTHING
    what = say("who has {address}, an endpoint of service {service}", address=fact.address, service=fact.service)
    return (what, fact.pod, has) if fact.stale else (what, "", fact.pod or fact.endpoint)


def _service(fact: CalicoService, legs: Sequence[Leg]) -> Said | None:
    if fact.loops:
        return fact.service, say("one process"), say("{count} one after the other", count=fact.starts)
    if fact.still_s:
        seen = say("{count} since {seconds} s", count=fact.applies, seconds=fact.still_s)
        return say("{service}'s applied changes", service=fact.service), "", seen
    return None


def _typha(fact: Typha, legs: Sequence[Leg]) -> Said | None:
    seen = say("{ready} of {count} ready", ready=fact.ready, count=fact.addresses)
    return say("service {name}", name=fact.service), "" if fact.ready else say("a ready address"), seen


def _leaked(fact: LeakedAddresses, legs: Sequence[Leg]) -> Said | None:
    what = say("addresses of pool {pool} held for pods that are gone", pool=fact.pool)
    return what, NOTHING, str(fact.count) if fact.count else NOTHING


def _collector(fact: GarbageCollector, legs: Sequence[Leg]) -> Said | None:
    seen = _runs(fact)
    if fact.running and fact.unavailable > 0:
        seen = say("running, {count} calico-node pods not available", count=fact.unavailable)
    return "calico-kube-controllers", RUNNING, seen


def _claim(fact: BlockClaim, legs: Sequence[Leg]) -> Said | None:
    return say("BlockAffinity of {block}", block=fact.block), fact.block_node or say("nobody's"), fact.node


def _bird(fact: Bird, legs: Sequence[Leg]) -> Said | None:
    needed = _find(legs, source_node=fact.node, family=fact.family, route_by="bgp")
    seen = RUNNING if fact.running else say("not running")
    return ("BIRD", RUNNING if needed else "", seen) if fact.seen else None


def _bgp_peer(fact: BgpPeer, legs: Sequence[Leg]) -> Said | None:
    expected = "Established" if _find(legs, source_node=fact.node, target_node_address=fact.address) else ""
    seen = " ".join(filter(None, (fact.session or fact.state, fact.info)))
    return say("BGP session with {address}", address=fact.address), expected, seen


def _wireguard(fact: WireguardDevice, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_node=fact.node, tunnel_device=fact.device)
    return (
        say("key of {device}", device=fact.device),
        leg.source_wireguard_key if leg else "",
        fact.public_key or NOTHING,
    )


def _wireguard_peer(fact: WireguardPeer, legs: Sequence[Leg]) -> Said | None:
    seen = ", ".join(fact.allowed) if fact.found else NOTHING
    what = say("peer {key} of {device}", key=fact.public_key, device=fact.device)
    return what, "" if fact.found else say("a peer"), seen


def _sighting(fact: Sighting, legs: Sequence[Leg]) -> Said | None:
    if fact.seen < 0:
        return None
    what = say(
        "packets from {source} to {target} leaving"
        if fact.way == "out"
        else "packets from {source} to {target} arriving",
        source=fact.source_address,
        target=fact.target_address,
    )
    if fact.bad_checksums:
        return what, say("right checksums"), say("{count} of {all} spoilt", count=fact.bad_checksums, all=fact.seen)
    seen = say("{count} by {device}", count=fact.seen, device=fact.device) if fact.seen else NOTHING
    return what, say("some") if fact.enclosed and not fact.seen else "", seen


def _stage_sighting(fact: StageSighting, legs: Sequence[Leg]) -> Said | None:
    if fact.seen < 0:
        return None
    what = say(
        "packets from {source} to {target} in {place}",
        source=fact.source_address,
        target=fact.target_address,
        place=fact.pod or fact.node,
    )
    return what, "", say("{count} by {device}", count=fact.seen, device=fact.device) if fact.seen else NOTHING


def _node_address(fact: NodeAddress, legs: Sequence[Leg]) -> Said | None:
    held = fact.device if fact.found else NOTHING
    return say("device with {address}", address=fact.address), "" if fact.found else say("a device"), held


def _foreign_vxlans(fact: ForeignVxlans, legs: Sequence[Leg]) -> Said | None:
    if not fact.devices:
        return None
    told = (f"{one.device} ({one.vni if one.vni >= 0 else '*'}, {one.port})" for one in fact.devices)
    return say("other VXLAN devices (VNI, port)"), "", ", ".join(told)


def _mac_sharers(fact: MacSharers, legs: Sequence[Leg]) -> Said | None:
    what = say("neighbors with {mac} on {device}", mac=fact.mac, device=fact.device)
    return what, "" if len(fact.addresses) < 2 else say("one"), ", ".join(fact.addresses) or NOTHING


def _neighbor_table(fact: NeighborTable, legs: Sequence[Leg]) -> Said | None:
    seen = say("{count} of {limit}, {refused} refused", count=fact.collectable, limit=fact.limit, refused=fact.refused)
    full = fact.refused > 0 and fact.collectable >= 0.9 * fact.limit  # as the rule has it
    return say("IPv{family} neighbor table", family=fact.family), say("room") if full else "", seen


def _connection_table(fact: ConnectionTable, legs: Sequence[Leg]) -> Said | None:
    seen = say("{count} of {limit}, {refused} refused", count=fact.count, limit=fact.limit, refused=fact.refused)
    full = fact.limit > 0 and fact.count >= fact.limit * conntrack_table_full.FULL
    return say("table of connections"), say("room") if full else "", seen


def _calico_firewall(fact: CalicoFirewall, legs: Sequence[Leg]) -> Said | None:
    """In nftables mode how full its maps and its set are; else only where Calico's chains stand."""
    what = say("Calico's IPv{family} firewall", family=fact.family)
    if fact.from_pods < 0:
        return what, "", listed(fact.backends) if fact.backends else NOTHING
    pods = _find(legs, source_node=fact.node, family=fact.family, source_kind="pod") is not None
    peers = _find(legs, source_node=fact.node, family=fact.family, encapsulation="vxlan") is not None
    empty = (pods and 0 in (fact.from_pods, fact.to_pods)) or (peers and fact.vxlan_peers == 0)
    seen = say(
        "knows {from_pods} pods that send, {to_pods} that receive, {peers} nodes that send VXLAN",
        from_pods=fact.from_pods,
        to_pods=fact.to_pods,
        peers=max(fact.vxlan_peers, 0),
    )
    return what, say("its pods and nodes") if empty else "", seen


def _traffic_control(fact: TrafficControl, legs: Sequence[Leg]) -> Said | None:
    what = say("traffic control of {device}", device=fact.device)
    return what, say("to pass"), listed([one.text for one in fact.takers])


def _rule_drop(fact: RuleDrop, legs: Sequence[Leg]) -> Said | None:
    leg = _find(legs, source_address=fact.source_address, target_address=fact.target_address)
    seen = say("dropped by rule {number} of {chain}", number=fact.number, chain=fact.chain)
    return say("in the firewall: {packets}", packets=packets(fact, leg)), say("to pass"), seen


def _firewall_trace(fact: FirewallTrace, legs: Sequence[Leg]) -> Said | None:
    """Where packets passed all rules before their route is chosen, and were met by none after that."""
    if not fact.seen or fact.dropped or fact.last_hook != "prerouting":
        return None
    leg = _find(legs, source_address=fact.source_address, target_address=fact.target_address)
    seen = say("lost there, with mark {mark}", mark=f"{fact.mark:#x}") if fact.mark else say("lost there")
    packet = say(
        "{packet} from {source} to {target}",
        packet=f"{fact.protocol} {fact.port}" if fact.port else fact.protocol,
        source=leg.source if leg else fact.source_address,
        target=leg.target if leg else fact.target_address,
    )
    return say("where their way is chosen: {packets}", packets=packet), say("sent on"), seen


def _rule_rewrite(fact: RuleRewrite, legs: Sequence[Leg]) -> Said | None:
    seen = say("from {source} to {target}", source=fact.source, target=fact.target)
    before = say("from {source} to {target}", source=fact.source_address, target=fact.target_address)
    return say("addresses of {protocol} behind the firewall", protocol=fact.protocol), before, seen


_TELL: dict[type[Fact], Callable[[Any, Sequence[Leg]], Said | None]] = {
    Neighbor: _neighbor,
    PeerGateway: _gateway,
    FdbEntry: _fdb,
    RouteLookup: _route,
    RuleDrop: _rule_drop,
    FirewallTrace: _firewall_trace,
    TrafficControl: _traffic_control,
    RuleRewrite: _rule_rewrite,
    Link: _link,
    LinkAddresses: _addresses,
    PodInterface: _pod_interface,
    PodRoute: _pod_route,
    Sysctl: _sysctl,
    Listener: _listener,
    ProbeResult: _probe,
    Train: _train,
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
    Sighting: _sighting,
    StageSighting: _stage_sighting,
    NodeAddress: _node_address,
    ForeignVxlans: _foreign_vxlans,
    MacSharers: _mac_sharers,
    NeighborTable: _neighbor_table,
    ConnectionTable: _connection_table,
    CalicoFirewall: _calico_firewall,
}
