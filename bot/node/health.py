"""How Calico does on one node, out of what its probe and the API say; without it a table would show numbers nobody
judges.

Pure. What breaks a path is judged by the rules of engine.rules, in their words; nothing is healthy that was not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from bot.node.bgp import bgp
from bot.node.expected import Target, Wanted, side
from bot.node.model import EXAMPLES, NOTE, UNSEEN, WRONG, Common, Finding, Node, Routes, Status, Tunnel, finding, shown
from engine.deductions.leg import legs
from engine.rule import CauseRule
from engine.rule import Finding as Judged
from engine.rules.calico_node_missing import calico_node_missing
from engine.rules.felix_not_ready import felix_not_ready
from engine.rules.felix_stuck import felix_stuck
from engine.rules.ipip_device_down import ipip_device_down
from engine.rules.ipip_device_missing import ipip_device_missing
from engine.rules.node_address_missing import node_address_missing
from engine.rules.node_address_stale import node_address_stale
from engine.rules.node_not_ready import node_not_ready
from engine.rules.node_services_crash_looping import node_services_crash_looping
from engine.rules.pool_disabled import pool_disabled
from engine.rules.route_missing import route_missing
from engine.rules.tunnel_address_borrowed import tunnel_address_borrowed
from engine.rules.tunnel_address_freed import tunnel_address_freed
from engine.rules.tunnel_address_missing import tunnel_address_missing
from engine.rules.tunnel_address_not_owned import tunnel_address_not_owned
from engine.rules.tunnel_address_used_by_pod import tunnel_address_used_by_pod
from engine.rules.vxlan_device_address_wrong import vxlan_device_address_wrong
from engine.rules.vxlan_device_down import vxlan_device_down
from engine.rules.vxlan_device_mac_wrong import vxlan_device_mac_wrong
from engine.rules.vxlan_device_missing import vxlan_device_missing
from engine.rules.vxlan_local_address_wrong import vxlan_local_address_wrong
from engine.rules.vxlan_port_wrong import vxlan_port_wrong
from engine.rules.vxlan_vni_wrong import vxlan_vni_wrong
from engine.rules.wireguard_device_missing import wireguard_device_missing
from facts import (
    Blind,
    CalicoNode,
    CalicoService,
    Endpoint,
    Fact,
    FelixHealth,
    Flow,
    Link,
    LinkAddresses,
    NodeAddress,
    NodeMachine,
    RouteTable,
    listed,
    say,
)

F = TypeVar("F", bound=Fact)
Object = Mapping[str, Any]

OF_ROUTES = ("route_missing", "route_wrong_next_hop")
MARKS = {WRONG: "cause", UNSEEN: "unknown"}  # of a node with such a finding; else it is healthy
DEVICE_RULES = {
    "vxlan": (vxlan_device_missing, vxlan_device_down, vxlan_vni_wrong, vxlan_port_wrong, vxlan_local_address_wrong,
              vxlan_device_mac_wrong),
    "ipip": (ipip_device_missing, ipip_device_down),
    "wireguard": (wireguard_device_missing,),
}  # fmt: skip

PROTOCOLS = {2: "kernel", 3: "boot", 4: "static", 12: "bird", 16: "dhcp", 80: "felix"}
AGENT_REMEDY = say("See why with kubectl describe pod: its readiness check asks Felix and, where it runs, BIRD.")
OBSTACLES = {
    "ebpf": say("Calico's eBPF programs carry the packets"),
    "windows": say("a node is a Windows node"),
    "driver": say("a dataplane of somebody else's carries the packets"),
    "settings": say("FelixConfiguration could not be read"),
    "pools": say("the pools could not be read"),
    "pool": say("no pool has the addresses of a block"),
    "pool_gone": say("a block's pool is gone"),
    "subnet": say("the address of a node, by which its subnet is told, is missing"),
}


def judge(node: Node, expected: Mapping[int, Wanted], seen: Sequence[Fact], common: Common) -> Status:
    """expected: by family. seen: what the node's probe told, or the Blind of why it did not."""
    silent = next((one for one in seen if isinstance(one, Blind) and one.look == "probe"), None)
    first = next(iter(node.families.values()))
    machine = _first(seen, NodeMachine)
    health, service = _first(seen, FelixHealth), _service(seen, "felix")
    findings = [*_of_kubernetes(node, first), *_of_felix(node, first, seen, silent)]
    if silent:
        findings.append(_silent(node, silent))
    sessions, tunnels, routes = [], [], []
    for family, calico in node.families.items():
        wanted = expected.get(family, Wanted())
        table = _table(seen, family)
        found = bgp(node, calico, wanted, seen, table, common)
        sessions.append(found[0])
        devices = _tunnels(calico, wanted, seen)
        tunnels += devices
        broken = _of_devices(calico, wanted, seen, common)
        told, missing = _routes(node, calico, wanted, table, silent)
        routes.append(told)
        echo = {one.rule for one in broken} & {*route_missing.after}
        findings += [*broken, *(one for one in (*missing, *found[1]) if not (echo and one.rule in OF_ROUTES))]
    findings += _blind(seen, silent)
    weights = {one.weight for one in findings}
    mark = next((MARKS[one] for one in (WRONG, UNSEEN) if one in weights), "healthy")
    return Status(
        node=node.name,
        mark=mark,
        answered=silent is None,
        probe=machine.probe if machine else "",
        kubelet=node.ready,
        addresses=tuple(one.address for one in node.families.values() if one.address),
        agent=node.agent.pod.name if node.agent else "",
        agent_ready=node.agent.ready if node.agent else None,
        restarts=node.agent.pod.restarts if node.agent else -1,
        calico=node.agent.version if node.agent else "",
        felix=_felix(health),
        felix_says=health.detail if health else "",
        felix_age_s=service.age_s if service else -1,
        bgp=tuple(sessions),
        tunnels=tuple(tunnels),
        routes=tuple(routes),
        kernel=machine.kernel if machine else node.kernel,
        uptime_s=machine.uptime_s if machine else -1,
        findings=tuple(sorted(findings, key=lambda one: (WRONG, UNSEEN, NOTE).index(one.weight))),
    )


def suspect(status: Status) -> bool:
    """Is it worth a second look? What was changing while it was looked at is no fault."""
    kernel = any(one.lacking or one.astray for one in status.routes) or any(
        one.needed and one.found is not None and not (one.found and one.up) for one in status.tunnels
    )
    return status.answered and (kernel or status.felix in ("not ready", "not live", "no answer"))


# -- Kubernetes and Felix


def _of_kubernetes(node: Node, calico: CalicoNode) -> list[Finding]:
    found = []
    nobody = Endpoint(name="", kind="pod", node=node.name)
    found += _judged(node_not_ready, endpoint=nobody, node=calico)
    if node.agent and not node.agent.pod.name and not any(one.address for one in node.families.values()):
        text = say("Calico does not run on {node}: it has neither a calico-node pod nor an address of Calico's.",
                   node=node.name)  # fmt: skip
        found.append(finding(UNSEEN, text))
    elif node.agent:
        found += _judged(calico_node_missing, agent=node.agent.pod, node=calico)
        if node.agent.pod.running and node.agent.ready is False and not node.agent.starting:
            text = say(
                "the kubelet says that {pod} on {node} is not ready, for {seconds} s now.",
                pod=node.agent.pod.name,
                node=node.name,
                seconds=node.agent.unready_s,
            )
            found.append(finding(WRONG, text, "", AGENT_REMEDY))
    return found


def _of_felix(node: Node, calico: CalicoNode, seen: Sequence[Fact], silent: Blind | None) -> list[Finding]:
    if silent:
        return []
    health = _first(seen, FelixHealth)
    found: list[Finding] = []
    if health is None and calico.settings_read:
        found.append(finding(UNSEEN, say("how Felix on {node} is was not seen.", node=node.name)))
    elif health is None:
        text = (
            say(
                "calico-node on {node} is told {settings} by what was not read, so Felix's health port is not known.",
                node=node.name,
                settings=listed(calico.settings_unread),
            )
            if calico.settings_unread
            else say(
                "FelixConfiguration could not be read, so Felix's health port on {node} is not known.", node=node.name
            )
        )
        found.append(finding(UNSEEN, text))
    elif not calico.felix_health and not health.reachable:
        text = say("Felix on {node} is told to answer no health checks (FELIX_HEALTHENABLED).", node=node.name)
        found.append(finding(NOTE, text))
    else:
        found += _judged(felix_not_ready, health=health, node=calico)
        if health.reachable and health.ready and not health.live and health.confirmed:
            text = say("Felix on {node} is ready and not live: {why}.", node=node.name, why=health.detail)
            found.append(finding(WRONG, text, "felix_not_ready", felix_not_ready.remedy))
    for rule, name in ((felix_stuck, "felix"), (node_services_crash_looping, "node-services")):
        if service := _service(seen, name):
            found += _judged(rule, service=service, node=calico)
    return found


def _felix(health: FelixHealth | None) -> str:
    if health is None:
        return ""
    if not health.reachable:
        return "no answer"
    return "ready" if health.ready and health.live else "not live" if health.ready else "not ready"


def _silent(node: Node, silent: Blind) -> Finding:
    if node.agent and node.agent.ready is not None:
        text = say(
            "{node} could not be looked at: {why}; the kubelet says that its calico-node pod is ready."
            if node.agent.ready
            else "{node} could not be looked at: {why}; the kubelet says that its calico-node pod is not ready.",
            node=node.name,
            why=_why(silent),
        )
        return finding(UNSEEN, text)
    return finding(UNSEEN, say("{node} could not be looked at: {why}.", node=node.name, why=_why(silent)))


def _blind(seen: Sequence[Fact], silent: Blind | None) -> list[Finding]:
    """What else its probe could not look at. A device that no address leads to is told by a rule."""
    told = {"felix", "probe", "link"} | ({"services"} if silent else set())
    return [
        finding(
            NOTE if one.minor else UNSEEN, say("{node}: {look}: {why}.", node=one.node, look=one.look, why=_why(one))
        )
        for one in seen
        if isinstance(one, Blind) and one.look not in told
    ]


# -- tunnels and routes


def _tunnels(calico: CalicoNode, wanted: Wanted, seen: Sequence[Fact]) -> list[Tunnel]:
    links = {one.device: one for one in seen if isinstance(one, Link) and not one.node_address}
    held = {one.device: one.addresses for one in seen if isinstance(one, LinkAddresses) and one.family == calico.family}
    found = []
    for device in dict.fromkeys([*wanted.tunnels, *(name for name in held if name in links)]):
        link = links.get(device)
        if device in wanted.tunnels or (link and link.found):
            found.append(
                Tunnel(
                    device=device,
                    family=calico.family,
                    needed=device in wanted.tunnels,
                    found=link.found if link else None,
                    up=bool(link and link.up),
                    mtu=link.mtu if link else -1,
                    addresses=held.get(device, ()),
                )
            )
    return found


def _of_devices(calico: CalicoNode, wanted: Wanted, seen: Sequence[Fact], common: Common) -> list[Finding]:
    links = {one.device: one for one in seen if isinstance(one, Link)}
    held = {one.device: one for one in seen if isinstance(one, LinkAddresses) and one.family == calico.family}
    found: dict[str, Finding] = {}
    afters: dict[str, tuple[str, ...]] = {}

    def add(rule: CauseRule, **about: Fact | None) -> None:
        for one in _judged(rule, **about):
            found.setdefault(rule.name, one)
            afters[rule.name] = rule.after

    address = next((one for one in seen if isinstance(one, NodeAddress) and one.address == calico.address), None)
    if address and (wanted.tunnels or wanted.routes):
        add(node_address_stale, leg=None, held=address)
    if wanted.partner and not calico.address:
        _, back = _both(calico, Target("", wanted.partner, None, ""), "", common)
        back = msgspec.structs.replace(back, obstacle="")  # no pod is meant, so no pool that would have its address
        add(node_address_missing, leg=back, node=calico)
    for device, place in wanted.tunnels.items():
        leg, back = _both(calico, place, device, common)
        if leg.encapsulation == "vxlan" or back.encapsulation == "vxlan":
            if place.pool:
                add(pool_disabled, leg=back, allocation=None, pool=place.pool, target=calico, source=calico)
            if pool_disabled.name not in found:
                add(tunnel_address_missing, leg=back, node=calico)
        allocation = common.allocations.get(calico.tunnel_address)
        if allocation and leg.encapsulation == "vxlan":
            for rule in (tunnel_address_not_owned, tunnel_address_used_by_pod, tunnel_address_borrowed):
                add(rule, leg=leg, allocation=allocation)
            add(tunnel_address_freed, leg=leg, allocation=allocation, node=calico)
        link = links.get(device)
        if link is None or not calico.settings_read:
            continue
        kind = leg.encapsulation if leg.encapsulation in DEVICE_RULES else back.encapsulation
        for rule in DEVICE_RULES.get(kind, ()):
            # What two nodes' settings disagree on is no device's fault: the node is held against itself.
            about: dict[str, Fact] = {"peer": calico} if rule in (vxlan_vni_wrong, vxlan_port_wrong) else {}
            if link.found or rule in (vxlan_device_missing, ipip_device_missing, wireguard_device_missing):
                add(rule, leg=leg, device=link, **about)
        if kind == "vxlan" and device in held:
            add(vxlan_device_address_wrong, leg=leg, device=held[device])
    return [one for name, one in found.items() if not set(afters[name]) & found.keys()]


def _both(calico: CalicoNode, place: Target, device: str, common: Common) -> Any:
    """The two legs between a pod of the node and one at a place its tunnel leads to."""
    peer = common.peer(calico.family, place.node)
    mine = side("source", calico, Target("", calico.name, place.pool, ""))
    theirs = side("target", peer, place)
    flow = Flow(name="", source="source", target="target", family=calico.family)
    both = legs(flow, mine, theirs, common.settings)
    return [msgspec.structs.replace(one, tunnel_device=device) for one in both]


def _routes(
    node: Node, calico: CalicoNode, wanted: Wanted, table: RouteTable | None, silent: Blind | None
) -> tuple[Routes, list[Finding]]:
    family = f"IPv{calico.family}"
    expected = len(wanted.routes) if node.unjudged is None else -1
    if table is None:
        findings = []
        if not silent and expected:
            text = say("the {family} routes of {node} are not told by this version of its probe.", family=family,
                       node=node.name)  # fmt: skip
            findings.append(finding(UNSEEN, text))
        return Routes(family=calico.family, expected=expected), findings
    return _counted(calico.family, expected, table), list(_of_routes(node, calico, wanted, table))


def _counted(family: int, expected: int, table: RouteTable) -> Routes:
    by_device: dict[str, int] = {}
    by_protocol: dict[str, int] = {}
    for group in table.groups:
        if group.device:
            by_device[group.device] = by_device.get(group.device, 0) + group.count
        name = PROTOCOLS.get(group.protocol, str(group.protocol))
        by_protocol[name] = by_protocol.get(name, 0) + group.count
    examples = (*table.missing, *table.astray)[:EXAMPLES]
    return Routes(
        family=family,
        expected=expected,
        met=table.met + table.covered + table.local,
        by_wider=table.covered,
        by_default=table.unled,
        lacking=table.lacking,
        astray=table.strayed,
        examples=examples,
        by_device=by_device,
        by_protocol=by_protocol,
    )


def _of_routes(node: Node, calico: CalicoNode, wanted: Wanted, table: RouteTable) -> Iterator[Finding]:
    family = f"IPv{calico.family}"
    if node.unjudged is not None:
        yield finding(UNSEEN, node.unjudged)
    for reason in wanted.obstacles:
        text = say("some routes of {node} are not judged: {why}.", node=node.name, why=OBSTACLES.get(reason, reason))
        elsewhere = reason == "windows" and calico.system != "windows"  # told of that node
        yield finding(NOTE if elsewhere else UNSEEN, text)
    if table.local:
        text = say(
            "{node} has own pods at {count} {family} addresses that IPAM holds for other nodes: see `ipam check`.",
            node=node.name,
            count=table.local,
            family=family,
        )
        yield finding(NOTE, text)
    if table.lacking:
        text = say(
            "{node} lacks {count} of {expected} {family} routes to blocks of other nodes: {examples}.",
            node=node.name,
            count=table.lacking,
            expected=table.asked,
            family=family,
            examples=shown(table.missing, table.lacking),
        )
        yield finding(WRONG, text, "route_missing", route_missing.remedy)
    if table.strayed:
        text = say(
            "{count} of {expected} {family} routes of {node} to blocks of other nodes lead elsewhere: {examples}.",
            node=node.name,
            count=table.strayed,
            expected=table.asked,
            family=family,
            examples=shown(table.astray, table.strayed),
        )
        yield finding(WRONG, text, "route_wrong_next_hop", route_missing.remedy)


# -- helpers


def _judged(rule: CauseRule, **about: Fact | None) -> list[Finding]:
    """What a rule says. One that only warns of a path is wrong all the same: of the node it is all there is to say."""
    found = rule.body(**about)
    text = found.text if isinstance(found, Judged) else found
    return [finding(WRONG, text, rule.name, rule.remedy)] if text else []


def _why(blind: Blind) -> Any:
    return blind.message or blind.reason.rstrip(".")


def _first(seen: Iterable[Fact], kind: type[F]) -> F | None:
    return next((one for one in seen if isinstance(one, kind)), None)


def _service(seen: Iterable[Fact], name: str) -> CalicoService | None:
    return next((one for one in seen if isinstance(one, CalicoService) and one.service == name and one.seen), None)


def _table(seen: Sequence[Fact], family: int) -> RouteTable | None:
    """Asked for in pieces where there are many routes."""
    pieces = [one for one in seen if isinstance(one, RouteTable) and one.family == family]
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    return msgspec.structs.replace(
        pieces[0],
        asked=sum(one.asked for one in pieces),
        met=sum(one.met for one in pieces),
        missing=tuple(prefix for one in pieces for prefix in one.missing),
        lacking=sum(one.lacking for one in pieces),
        astray=tuple(route for one in pieces for route in one.astray),
        strayed=sum(one.strayed for one in pieces),
        covered=sum(one.covered for one in pieces),
        unled=sum(one.unled for one in pieces),
        local=sum(one.local for one in pieces),
    )
