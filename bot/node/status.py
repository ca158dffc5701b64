"""`node status`: what `calicoctl node status` says on each node, asked of the probes; without it somebody would have to
log in to all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.node.expected import Expectations, Target, Wanted, ranges, targets
from bot.node.health import judge, suspect
from bot.node.model import NOTE, UNSEEN, WRONG, Agent, Common, Finding, Node, Peers, Status, shown
from bot.reply import nodes as replies
from bot.reply import nodes_picture
from bot.sources import describe, ipam, upkeep
from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.sources.resources import everything
from bot.sources.upkeep import CALICO_NODE
from bot.told import Context, Told, output
from engine.rules.datastore_not_ready import datastore_not_ready
from engine.rules.typha_unreachable import typha_unreachable
from facts import (
    Allocation,
    Blind,
    CalicoNode,
    CalicoSettings,
    Endpoint,
    Fact,
    FelixHealth,
    NodeAsk,
    Pool,
    Text,
    Typha,
    say,
)
from facts.flow import TUNNEL_DEVICES
from facts.selector import SelectorError, matches

Object = dict[str, Any]

HELP = "how Calico does on each node: Felix, BGP, tunnels, routes; for example: node status node-a"
READ = (
    "nodes",
    "ippools",
    "ipamblocks",
    "felixconfigurations",
    "bgpconfigurations",
    "bgppeers",
    "clusterinformations",
    "caliconodestatuses",
)
AT_ONCE = 64  # nodes that are asked at the same time
CHUNK = 2000  # routes of one ask: a probe takes 256 KiB
AGAIN_S = 3.0  # then what looked wrong is looked at once more
LATE_S = 60  # beside two of its periods, for the clocks of others
REFLECTOR = "projectcalico.org/RouteReflectorClusterID"


class Scene(NamedTuple):
    """All of the cluster that nodes are held against."""

    nodes: Mapping[str, Node]
    common: Common
    expectations: Mapping[int, Expectations]  # by family; empty where nothing is judged
    findings: Sequence[Finding]  # of no one node
    blind: Sequence[Blind]

    def wanted(self, name: str) -> dict[int, Wanted]:
        """What a node should have, by family. Made when it is asked for: of thousands it would not be small."""
        families = self.nodes[name].families
        return {family: self.expectations[family].of(name) for family in families if family in self.expectations}


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="only these, each in detail (all of them, as a table)")
    output(parser, "text", "json", "csv")


async def answer(args: argparse.Namespace, context: Context) -> Told:
    await context.progress(say("reading nodes, pools and blocks"))
    scene = await read(context.cluster)
    chosen = _chosen(args.nodes, scene)
    seen = await _ask(chosen, scene, context)
    found = {name: judge(scene.nodes[name], scene.wanted(name), seen[name], scene.common) for name in chosen}
    doubtful = [name for name, one in found.items() if suspect(one)]
    if doubtful:
        await context.progress(say("looking once more at {count} nodes", count=len(doubtful)))
        await asyncio.sleep(AGAIN_S)
        scene = await read(context.cluster)
        still = [name for name in doubtful if name in scene.nodes]
        again = await _ask(still, scene, context)
        for name in still:
            facts = [_confirmed(one, seen[name]) for one in again[name]]
            found[name] = judge(scene.nodes[name], scene.wanted(name), facts, scene.common)
    return told(list(found.values()), scene, detailed=bool(args.nodes), cluster=context.cluster.name)


def told(found: Sequence[Status], scene: Scene, *, detailed: bool, cluster: str) -> Told:
    marks = [one.mark for one in found]
    common = [*scene.findings, *([] if detailed else _left_out(scene))]
    wrong = "cause" in marks or any(one.weight == WRONG for one in common)
    unseen = "unknown" in marks or any(one.weight == UNSEEN for one in common)
    return Told(
        headline=replies.headline(found, common),
        concludes=True,
        text=replies.text(found, detailed=detailed),
        notes=replies.notes(found, common, detailed=detailed),
        data=replies.data(found, common, cluster, scene.common.settings.version),
        rows=replies.rows(found),
        picture=nodes_picture.picture(found, cluster),
        shows=nodes_picture.in_words(found),
        mark="cause" if wrong else "unknown" if unseen else "healthy",
        status=COULD_NOT_JUDGE if unseen else 0,
    )


def _left_out(scene: Scene) -> list[Finding]:
    names = sorted(name for name, node in scene.nodes.items() if not node.machine)
    if not names:
        return []
    text = say(
        "Not looked at: {nodes}. They are no machines (Fargate, virtual nodes): neither Calico nor a probe runs there.",
        nodes=shown(names, len(names)),
    )
    return [Finding(weight=NOTE, text=text)]


def _confirmed(fact: Fact, before: Sequence[Fact]) -> Fact:
    """A Felix that answered badly twice."""
    if not isinstance(fact, FelixHealth):
        return fact
    twice = any(isinstance(one, FelixHealth) and not _well(one) for one in before) and not _well(fact)
    return msgspec.structs.replace(fact, confirmed=twice)


def _well(health: FelixHealth) -> bool:
    return health.reachable and health.live and health.ready


def _chosen(words: Sequence[str], scene: Scene) -> list[str]:
    for word in words:
        if word not in scene.nodes:
            near = difflib.get_close_matches(word, scene.nodes, n=1)
            hint = f"did you mean {near[0]}?" if near else "list them with: node status"
            raise UserError(f"There is no node {word}; {hint}", word=word)
    return list(dict.fromkeys(words)) or [name for name, node in scene.nodes.items() if node.machine]


# -- the probes


async def _ask(names: Sequence[str], scene: Scene, context: Context) -> dict[str, list[Fact]]:
    """What each node's probe told. Some at once: thousands of connections are more than a bot has."""
    turn = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def one(name: str) -> list[Fact]:
        nonlocal done
        async with turn:
            facts = await _of_node(scene.nodes[name], scene.wanted(name), context.probes)
        done += 1
        if len(names) > AT_ONCE and done % AT_ONCE == 0:
            await context.progress(say("asked {count} of {all} nodes", count=done, all=len(names)))
        return facts

    answers = await asyncio.gather(*map(one, names))
    return dict(zip(names, answers, strict=True))


async def _of_node(node: Node, expected: Mapping[int, Wanted], probes: Probes) -> list[Fact]:
    first = next(iter(node.families.values()))
    if first.system == "windows":
        return [Blind(node=node.name, look="probe", reason=say("a Windows node has no probe"))]
    asked = asks(node, expected)
    facts = await probes.ask(asked, {node.name: first.internal_address})
    silent = [one for one in facts if isinstance(one, Blind) and one.look == "probe"]
    return list(dict.fromkeys(silent if len(silent) == len(asked) else facts))


def asks(node: Node, expected: Mapping[int, Wanted]) -> list[NodeAsk]:
    """One for each family, and more of them where there are more routes than go into one."""
    found: list[NodeAsk] = []
    for family, calico in node.families.items():
        wanted = expected.get(family)
        routes = wanted.routes if wanted else ()
        usual = TUNNEL_DEVICES["vxlan", family]
        twin = node.families.get(10 - family)
        for start in range(0, max(len(routes), 1), CHUNK):
            found.append(
                NodeAsk(
                    node=node.name,
                    family=family,
                    status=True,
                    felix=not found and calico.settings_read,
                    felix_health_port=calico.felix_health_port,
                    felix_metrics_port=0 if found else calico.metrics_port,
                    tunnel_device=next(iter(wanted.tunnels), usual) if wanted else usual,
                    uplink_address=calico.address,
                    twin_address=twin.address if twin else "",
                    bird=start == 0,
                    routes=tuple(routes[start : start + CHUNK]),
                )
            )
    return found


# -- the cluster


async def read(cluster: Cluster) -> Scene:
    """Raises UserError where the nodes cannot be read."""
    blind: list[Blind] = []
    resources, agents = await asyncio.gather(everything(cluster, READ, blind), _agents(cluster, blind))
    if resources["nodes"] is None:
        why = next(one.reason for one in blind if one.look == "nodes")
        raise UserError(
            f"The nodes of {cluster.name} cannot be read ({why}), so there is none to look at. "
            "See whether this user may list them: kubectl auth can-i list nodes",
            status=COULD_NOT_JUDGE,
        )
    told_of = next((pod for pod in agents or () if upkeep.typha_setting(pod) != upkeep.TyphaSetting()), None)
    typha = await cluster.typha(told_of, blind) if told_of else []
    group = await cluster.group()
    return await asyncio.to_thread(scene, resources, agents, typha, blind, group)


async def _agents(cluster: Cluster, blind: list[Blind]) -> list[Object] | None:
    """All calico-node pods; None where they may not be read."""
    try:
        return await cluster.with_settings(await cluster.api.pages("/api/v1/pods", labelSelector=CALICO_NODE), blind)
    except (Missing, Refused, Unreachable) as error:
        blind.append(Blind(look="pods", reason=getattr(error, "reason", str(error))))
        return None


def scene(
    resources: Mapping[str, list[Object] | None],
    agents: list[Object] | None,
    typha: Sequence[Fact],
    blind: Sequence[Blind],
    group: str,
) -> Scene:
    """Pure. resources: as `everything` gives them for READ; agents: the calico-node pods, None where not read."""
    felix = {one["metadata"]["name"]: one.get("spec") or {} for one in resources["felixconfigurations"] or ()}
    pools = _pools(resources["ippools"])
    by_node: dict[str, list[Object]] = {}
    for pod in agents or ():
        by_node.setdefault(str((pod.get("spec") or {}).get("nodeName") or ""), []).append(pod)
    settings = _settings(resources, felix.get("default", {}), group)
    calico: dict[int, dict[str, CalicoNode]] = {4: {}, 6: {}}
    objects = {str(one["metadata"]["name"]): one for one in resources["nodes"] or ()}
    for name, one in objects.items():
        about = {**felix.get("default", {}), **felix.get(f"node.{name}", {})}
        read_all = resources["felixconfigurations"] is not None
        for node in describe.calico_nodes(one, pools, about):
            as_read = msgspec.structs.replace(node, settings_read=read_all)
            calico[node.family][name] = upkeep.as_told(as_read, by_node.get(name, ()))
    unjudged, expectations = _expectations(resources, pools, calico, settings, by_node)
    members = _members(objects, calico)
    spec = next(iter(one.get("spec") or {} for one in resources["bgpconfigurations"] or ()
                     if one["metadata"]["name"] == "default"), {})  # fmt: skip
    mesh_on = spec.get("nodeToNodeMeshEnabled") is not False
    known = resources["bgpconfigurations"] is not None and resources["bgppeers"] is not None
    statuses = {
        str((one.get("spec") or {}).get("node")): one for one in resources["caliconodestatuses"] or () if _is_fresh(one)
    }
    nodes = {}
    for name, one in objects.items():
        families = _families(name, calico, pools)
        nodes[name] = Node(
            name=name,
            families=families,
            unjudged=unjudged,
            peers={
                family: Peers(
                    mesh=members[family] if mesh_on and known else {},
                    configured=_configured(resources["bgppeers"] or (), one, family),
                    selected=_configured(resources["bgppeers"] or (), one, 0),
                    mesh_on=mesh_on,
                    known=known,
                )
                for family in families
            },
            agent=_agent(name, by_node) if by_node and agents is not None else None,
            ready=_ready(one),
            machine=not describe.without_daemons(one),
            kernel=str(((one.get("status") or {}).get("nodeInfo") or {}).get("kernelVersion") or ""),
            status=statuses.get(name),
        )  # fmt: skip
    owners = {node.address: name for family in calico.values() for name, node in family.items() if node.address}
    common = Common(
        settings=settings, calico=calico, owners=owners, allocations=_allocations(resources["ipamblocks"], calico)
    )
    return Scene(nodes, common, expectations, _of_cluster(settings, typha, blind), blind)


def _settings(resources: Mapping[str, list[Object] | None], felix: Object, group: str) -> CalicoSettings:
    information = next(iter(one.get("spec") or {} for one in resources["clusterinformations"] or ()), {})
    version = str(information.get("calicoVersion") or "")
    unread = resources["bgpconfigurations"] is None
    bgp = next((one.get("spec") or {} for one in resources["bgpconfigurations"] or ()
                if one["metadata"]["name"] == "default"), {})  # fmt: skip
    settings = CalicoSettings(
        version=version,
        group=group,
        datastore_ready=bool(information.get("datastoreReady", True)),
        dataplane=upkeep.dataplane(version, felix),
    )
    return msgspec.structs.replace(settings, **upkeep.routes(version, felix, None if unread else bgp))


def _pools(resources: list[Object] | None) -> list[tuple[Pool, Object]] | None:
    if resources is None:
        return None
    return [(pool, one) for one in resources if (pool := describe.pool(one))]


def _families(
    name: str, calico: Mapping[int, Mapping[str, CalicoNode]], pools: list[tuple[Pool, Object]] | None
) -> dict[int, CalicoNode]:
    """Those a node has an address of, or has pools of; one at least."""
    pooled = {ip_network(pool.cidr).version for pool, _ in pools or ()}
    own = {family: nodes[name] for family, nodes in calico.items() if name in nodes}
    return {family: node for family, node in own.items() if node.address or family in pooled} or {4: own[4]}


def _expectations(
    resources: Mapping[str, list[Object] | None],
    pools: list[tuple[Pool, Object]] | None,
    calico: Mapping[int, Mapping[str, CalicoNode]],
    settings: CalicoSettings,
    agents: Mapping[str, Sequence[Object]],
) -> tuple[Text | None, dict[int, Expectations]]:
    """What all nodes should have, or why that cannot be said."""
    lacking = [plural for plural in ("ippools", "ipamblocks", "felixconfigurations") if resources[plural] is None]
    if lacking or pools is None:
        return say("no routes are judged: {lacking} could not be read.", lacking=", ".join(lacking)), {}
    known = [pool for pool, _ in pools]
    by_range = any(upkeep.environment(pods).get(upkeep.POD_CIDRS, "").lower() in upkeep.YES for pods in agents.values())
    blocks = [one.get("spec") or {} for one in resources["ipamblocks"] or ()]
    found = {}
    for family, nodes in calico.items():
        places: list[Target] = targets(known, blocks, nodes, family)
        if by_range or (not blocks and not agents):
            places += ranges(known, nodes, family)
        found[family] = Expectations(nodes, places, settings)
    return None, found


def _allocations(blocks: list[Object] | None, calico: Mapping[int, Mapping[str, CalicoNode]]) -> dict[str, Allocation]:
    """What IPAM says of the nodes' tunnel addresses."""
    if blocks is None:
        return {}
    specs = {
        ip_network(one["spec"]["cidr"]): one["spec"]
        for one in blocks
        if one.get("spec") and not one["spec"].get("deleted")
    }
    lengths = {(network.version, network.prefixlen) for network in specs}
    found = {}
    for address in {node.tunnel_address for nodes in calico.values() for node in nodes.values()} - {""}:
        ip = ip_address(address)
        nets = (ip_network(f"{address}/{length}", strict=False) for version, length in lengths if version == ip.version)
        found[address] = ipam.allocation(ip, next((specs[one] for one in nets if one in specs), None), None)
    return found


def _members(
    objects: Mapping[str, Object], calico: Mapping[int, Mapping[str, CalicoNode]]
) -> dict[int, dict[str, str]]:
    """node -> address of those that all peer with each other: route reflectors do not."""
    return {
        family: {
            name: node.address
            for name, node in nodes.items()
            if node.address and not ((objects[name]["metadata"].get("annotations") or {}).get(REFLECTOR))
        }
        for family, nodes in calico.items()
    }


def _configured(peers: Sequence[Object], node: Object, family: int) -> int:
    """BGPPeers that are for this node: that name a peer of the family; of 0: that select nodes. Those for pods are not
    its own."""
    name, labels = str(node["metadata"]["name"]), describe.node_labels(node)
    count = 0
    for one in peers:
        spec = one.get("spec") or {}
        address = str(spec.get("peerIP") or "")
        kind = (6 if address.count(":") > 1 else 4) if address else 0
        if spec.get("localWorkloadSelector") or kind != family:
            continue
        if spec.get("node"):
            count += spec["node"] == name
        elif spec.get("nodeSelector"):
            try:
                count += matches(spec["nodeSelector"], labels)
            except SelectorError:
                continue
        else:
            count += 1
    return count


def _agent(name: str, by_node: Mapping[str, Sequence[Object]]) -> Agent:
    pods = by_node.get(name, ())
    told_so = describe.calico_pod(name, pods)
    if not pods:
        return Agent(pod=told_so)
    pod = max(pods, key=describe.runs)
    conditions = {one.get("type"): one for one in (pod.get("status") or {}).get("conditions") or ()}
    condition: Object = conditions.get("Ready") or {}
    ready = condition["status"] == "True" if "status" in condition else None
    return Agent(
        pod=told_so,
        ready=ready,
        unready_s=_seconds_since(str(condition.get("lastTransitionTime") or "")) if ready is False else -1,
        version=_version(pod),
        bird_checked=_checks_bird(pod),
    )


def _checks_bird(pod: Object) -> bool:
    checks = [one.get("readinessProbe") or {} for one in (pod.get("spec") or {}).get("containers") or ()]
    return any("bird-ready" in word for check in checks for word in (check.get("exec") or {}).get("command") or ())


def _is_fresh(resource: Object) -> bool:
    """Has calico-node written this CalicoNodeStatus of late? What a dead one wrote last would look well for ever."""
    age_s = _seconds_since(str((resource.get("status") or {}).get("lastUpdated") or ""))
    period_s = int((resource.get("spec") or {}).get("updatePeriodSeconds") or 10)
    return 0 <= age_s < LATE_S + 2 * period_s


def _seconds_since(time: str) -> int:
    """-1 for what is no time."""
    try:
        return max(round((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()), 0)
    except (ValueError, TypeError):
        return -1


def _version(pod: Object) -> str:
    """The tag of its calico-node image; "" where it has none but a digest."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    image = next((str(one.get("image") or "") for one in containers if one.get("name") == "calico-node"), "")
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2]


def _ready(node: Object) -> str:
    conditions = (node.get("status") or {}).get("conditions") or ()
    said = next((one.get("status") for one in conditions if one.get("type") == "Ready"), None)
    return {"True": "ready", "False": "not ready", "Unknown": "silent"}.get(str(said), "not known")


def _of_cluster(settings: CalicoSettings, typha: Sequence[Fact], blind: Sequence[Blind]) -> list[Finding]:
    found = []
    for one in typha:
        if not isinstance(one, Typha):
            continue
        if text := typha_unreachable.body(typha=one):
            found.append(Finding(weight=WRONG, text=text, rule=typha_unreachable.name, remedy=typha_unreachable.remedy))
        else:
            text = say("Typha {service}: {ready} of {all} are ready.", service=one.service, ready=one.ready,
                       all=one.addresses)  # fmt: skip
            found.append(Finding(weight=NOTE, text=text))
    nobody = Endpoint(name="", kind="pod")
    if text := datastore_not_ready.body(endpoint=nobody, settings=settings):
        found.append(Finding(weight=WRONG, text=text, rule=datastore_not_ready.name, remedy=datastore_not_ready.remedy))
    for unread in blind:
        # Whoever has no BGPPeers or CalicoNodeStatuses of this Calico lacks nothing.
        weight = NOTE if unread.look in ("caliconodestatuses", "pods") else UNSEEN
        text = say("{look} could not be read: {why}.", look=unread.look, why=unread.message or unread.reason)
        found.append(Finding(weight=weight, text=text))
    return found
