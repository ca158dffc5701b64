"""Which BGP sessions a node has, and which it should have; without it a cluster that needs no BIRD looks broken.

Pure. A session that is down is always told; that there is none only where BIRD is to bring routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bot.node.expected import Wanted
from bot.node.model import (
    ESTABLISHED,
    NOTE,
    UNSEEN,
    WORKLOAD,
    WRONG,
    Bgp,
    Common,
    Finding,
    Node,
    Peers,
    Session,
    finding,
    shown,
)
from facts import BgpPeer, Bird, CalicoNode, Fact, RouteTable, Text, say

Object = Mapping[str, Any]

NO_BIRD = ("vxlan", "none")  # CALICO_NETWORKING_BACKEND
KINDS = {"NodeMesh": "mesh", "NodePeer": "node", "GlobalPeer": "global"}  # of CalicoNodeStatus
SESSION_REMEDY = say("See that TCP 179 is open between the two both ways, and that BIRD runs on the other one.")
LEFT_OUT_REMEDY = say("Read the log of confd in the node's calico-node pod: it writes BIRD's configuration.")
BIRD_REMEDY = say("Read the log of this node's calico-node pod, and see what CALICO_NETWORKING_BACKEND says there.")


def bgp(
    node: Node, calico: CalicoNode, wanted: Wanted, seen: Sequence[Fact], table: RouteTable | None, common: Common
) -> tuple[Bgp, list[Finding]]:
    family = calico.family
    peers = node.peers.get(family, Peers())
    bird = next((one for one in seen if isinstance(one, Bird) and one.family == family and one.seen), None)
    needed = wanted.by_bgp > 0
    own, source, running, version = [], "probe", None, ""
    if bird:
        running, version = bird.running, bird.detail
        own = [one for one in seen if isinstance(one, BgpPeer) and one.family == family]
        sessions = [
            Session(
                family=family, kind=one.kind, address=one.address, node=common.owners.get(one.address, ""),
                state=one.state, session=one.session, since=one.since, info=one.info,
            )
            for one in own
        ]  # fmt: skip
    elif node.status:
        running, version, sessions, source = _by_api(node.status, family, common)
    else:
        sessions, source = [], ""
    about = Bgp(family=family, running=running, version=version, needed=needed, sessions=tuple(sessions), source=source)
    told, findings = _judge_bgp(node, calico, about, peers, table)
    return msgspec.structs.replace(about, told=told), findings


def _by_api(resource: Object, family: int, common: Common) -> tuple[bool | None, str, list[Session], str]:
    """(running, version, sessions, "CalicoNodeStatus of when") of its CalicoNodeStatus."""
    status: Object = resource.get("status") or {}
    daemon: Object = (status.get("agent") or {}).get(f"birdV{family}") or {}
    sessions = [
        Session(
            family=family,
            kind=KINDS.get(str(one.get("type")), str(one.get("type") or "")),
            address=str(one.get("peerIP") or ""),
            node=common.owners.get(str(one.get("peerIP") or ""), ""),
            state="up" if one.get("state") == ESTABLISHED else "",
            session=str(one.get("state") or ""),
            since=str(one.get("since") or ""),
        )
        for one in (status.get("bgp") or {}).get(f"peersV{family}") or ()
    ]
    running = daemon.get("state") == "Ready" if daemon.get("state") else (True if sessions else None)
    return running, str(daemon.get("version") or ""), sessions, f"CalicoNodeStatus, {status.get('lastUpdated') or '?'}"


def _judge_bgp(
    node: Node, calico: CalicoNode, about: Bgp, peers: Peers, table: RouteTable | None
) -> tuple[Text | None, list[Finding]]:
    names = {"node": node.name, "family": f"IPv{about.family}"}
    if about.running is None:
        return _bgp_not_seen(node, calico, about, peers, table, names)
    if not about.running:
        return _no_bird(calico, about, table, names)
    if about.version.startswith("its control socket"):
        return None, [finding(UNSEEN, say("BIRD on {node}: {why}.", why=about.version, **names))]
    findings = []
    for one in about.sessions:
        if one.session != ESTABLISHED and one.state != "up":
            text = say(
                "the BGP session of {node} with {peer} is {state}.",
                peer=f"{one.address} ({one.node})" if one.node else one.address,
                state=" ".join(filter(None, (one.session or one.state, one.info))),
                **names,
            )
            weight = NOTE if one.kind == WORKLOAD else WRONG
            findings.append(finding(weight, text, "bgp_peer_down", SESSION_REMEDY))
    if about.needed and table and table.unled:
        text = say("{node} has no {family} route of its own to {count} blocks of others: a router is to know them.",
                   count=table.unled, **names)  # fmt: skip
        findings.append(finding(NOTE, text))
    known = {one.address for one in about.sessions}
    mesh = peers.mesh if node.name in peers.mesh else {}
    absent = [one for peer, one in mesh.items() if peer != node.name and one not in known]
    if absent and peers.mesh_on:
        text = say(
            "BIRD on {node} has no {family} session with {peers}, although all nodes are to peer with each other.",
            peers=shown(absent, len(absent)),
            **names,
        )
        findings.append(finding(WRONG if about.needed else NOTE, text, "bgp_peer_down", LEFT_OUT_REMEDY))
    if about.sessions or absent:
        return None, findings
    if peers.configured:
        text = say("BIRD on {node} has no {family} peer, although there are BGPPeers for it.", **names)
        findings.append(finding(WRONG if about.needed else NOTE, text, "bgp_peer_down", LEFT_OUT_REMEDY))
        return None, findings
    return _no_peer(peers, names), findings


def _no_peer(peers: Peers, names: Mapping[str, str]) -> Text:
    if not peers.known:
        return say("BIRD on {node} has no {family} peer; whether it should have any could not be read.", **names)
    if peers.selected:
        return say("BIRD on {node} has no {family} peer; whom BGPPeers select is not counted here.", **names)
    if not peers.mesh_on:
        return say("no {family} peer, as it should be: the mesh is off, and no BGPPeer is for {node}.", **names)
    return say("no {family} peer, as it should be: there is no other node to peer with.", **names)


def _no_bird(
    calico: CalicoNode, about: Bgp, table: RouteTable | None, names: Mapping[str, str]
) -> tuple[Text | None, list[Finding]]:
    if not about.needed:
        if calico.backend == "bird":
            text = say("BIRD does not run on {node}, although calico-node is told to run it.", **names)
            return None, [finding(WRONG, text, "bgp_not_running", BIRD_REMEDY)]
        return _by_design(calico, names), []
    lacking = table.unled + table.strayed if table else 0
    if calico.backend in NO_BIRD and not lacking:
        return _by_design(calico, names), []
    if calico.backend == "none":
        return say("calico-node on {node} leaves networking to somebody else.", **names), []
    text = say("BIRD does not run on {node}, and it should write routes of pools.", **names)
    if not lacking and table:
        return None, [finding(NOTE, say("{problem} All of them are there.", problem=text))]
    return None, [finding(WRONG, text, "bgp_not_running", BIRD_REMEDY)]


def _by_design(calico: CalicoNode, names: Mapping[str, str]) -> Text:
    if calico.backend == "vxlan":
        return say("BIRD does not run, as it should be: calico-node on {node} is told to do VXLAN only.", **names)
    if calico.backend == "none":
        return say("BIRD does not run, as it should be: calico-node on {node} leaves networking to others.", **names)
    return say("BIRD does not run, and {node} needs none: no pool's {family} routes are BIRD's to write.", **names)


def _bgp_not_seen(
    node: Node, calico: CalicoNode, about: Bgp, peers: Peers, table: RouteTable | None, names: Mapping[str, str]
) -> tuple[Text | None, list[Finding]]:
    if calico.backend in NO_BIRD:
        return _by_design(calico, names), []
    if not about.needed:
        return say(
            "no pool's {family} routes on {node} are BIRD's to write; whether it runs was not seen.", **names
        ), []
    if peers.known and not (peers.mesh_on or peers.configured or peers.selected):
        return _no_peer(peers, names), []
    if table and not (table.unled or table.strayed):
        return say(
            "whether BIRD runs on {node} was not seen; all {family} routes it should bring are there.", **names
        ), []
    if node.agent and node.agent.ready and node.agent.bird_checked:
        return say("BIRD on {node} was not seen; the kubelet's check of it passes, so it has a session.", **names), []
    if table is None:  # told already: nothing of the node was seen, or nothing of its routes
        return say("whether BIRD runs on {node} was not seen.", **names), []
    text = say(
        "{node} has no {family} route to {count} blocks of other nodes, which BIRD should bring, and whether that runs "
        "was not seen.",
        count=table.unled,
        **names,
    )
    return None, [finding(UNSEEN, text, "route_missing")]
