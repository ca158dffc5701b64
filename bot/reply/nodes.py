"""How all nodes are, as a table, in detail and as a picture; without it whoever joins an incident would ask node after
node.

What is wrong comes first, what could not be seen next, and the healthy are counted where they are many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bot.node.model import ESTABLISHED, UNSEEN, WRONG, Bgp, Finding, Routes, Session, Status, Tunnel
from bot.reply.wording import padded, printable, width
from facts import Text, say

HEALTHY_ROWS = 25  # healthy nodes that a table names one by one
ROWS = 200  # nodes that a table names at all
SENTENCES_ALIKE = 3
REMEDIES = 3
ORDER = ("cause", "unknown", "healthy")
SIGNS = {"cause": "x", "unknown": "?", "healthy": "ok"}
STATES = {"cause": "wrong", "unknown": "unknown", "healthy": "ok"}
HEAD = ("", "NODE", "FELIX", "BGP", "TUNNELS", "ROUTES", "CALICO", "UP")
COLUMNS = (
    "node", "state", "kubelet", "probe_answered", "probe", "felix", "felix_says", "calico", "calico_node", "restarts",
    "bgp", "sessions_up", "sessions", "tunnels", "routes_met", "routes_expected", "kernel", "uptime_s", "findings",
)  # fmt: skip
# calicoctl's own words and columns.
PEER_TYPES = {
    "mesh": "node-to-node mesh",
    "node": "node specific",
    "global": "global",
    "local_workload": "local workload",
}
PEER_HEAD = ("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO")


def headline(found: Sequence[Status], common: Sequence[Finding]) -> Text:
    """Never "healthy": of a node's firewall, neighbors and pods nothing is said here."""
    counted = Counter(one.mark for one in found)
    wrong, unseen, count = counted["cause"], counted["unknown"], len(found)
    if not found:
        return say("There is no node.")
    if wrong:
        text = say("{wrong} of {count} nodes are not as they should be", wrong=wrong, count=count)
        if unseen:
            return say("{first}, {unseen} could not be judged.", first=text, unseen=unseen)
        return say("{first}.", first=text)
    if unseen:
        return say("{unseen} of {count} nodes could not be judged.", unseen=unseen, count=count)
    if any(one.weight in (WRONG, UNSEEN) for one in common):
        return say("All {count} nodes are as they should be, and something of the cluster is not.", count=count)
    if count == 1:
        return say("{node}: Felix, BGP, tunnels and routes are as they should be.", node=found[0].node)
    return say("On all {count} nodes Felix, BGP, tunnels and routes are as they should be.", count=count)


def text(found: Sequence[Status], *, detailed: bool) -> str:
    """The table of all nodes, or all about each."""
    if detailed:
        return "\n\n".join("\n".join(_detail(one)) for one in found)
    in_order = ordered(found)
    odd = [one for one in in_order if one.mark != "healthy"]
    well = [one for one in in_order if one.mark == "healthy"]
    shown = [*odd[:ROWS], *(well if len(well) <= HEALTHY_ROWS else [])]
    lines = _table([HEAD, *map(_cells, shown)]) if shown else []
    if len(odd) > ROWS:
        lines.append(f"and {len(odd) - ROWS} more nodes that are not ok (all of them: -o json|csv)")
    if len(well) > HEALTHY_ROWS:
        lines.append(f"{'and ' if shown else ''}{len(well)} nodes that are ok (all of them: -o json|csv)")
    return "\n".join(lines)


def notes(found: Sequence[Status], common: Sequence[Finding], *, detailed: bool) -> tuple[Text, ...]:
    """What is wrong, in sentences, and what to do about it."""
    in_order = ordered(found)
    known = [*common, *(one for status in in_order for one in status.findings)]
    said = [one for one in known if one.weight == WRONG] + [one for one in known if one.weight == UNSEEN]
    sentences: list[Text] = []
    for alike in _alike(said):
        sentences += [one.text for one in alike[:SENTENCES_ALIKE]]
        if len(alike) > SENTENCES_ALIKE:
            sentences.append(say("And {count} more like this one.", count=len(alike) - SENTENCES_ALIKE))
    remedies = list(dict.fromkeys(one.remedy for one in said if one.remedy))
    sentences += [say("What to do: {remedy}", remedy=one) for one in remedies[:REMEDIES]]
    quiet = [one.text for one in (known if detailed else common) if one.weight not in (WRONG, UNSEEN)]
    designed = [bgp.told for status in found for bgp in status.bgp if bgp.told] if detailed else []
    return tuple(dict.fromkeys([*sentences, *quiet, *designed]))


def _alike(said: Iterable[Finding]) -> list[list[Finding]]:
    """Those of one failure mode, or said in the same words of different nodes."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for one in said:
        found.setdefault((one.weight, one.rule or one.text.message.template), []).append(one)
    return list(found.values())


def ordered(found: Iterable[Status]) -> list[Status]:
    return sorted(found, key=lambda one: (ORDER.index(one.mark), one.node))


# -- the table


def _cells(one: Status) -> tuple[str, ...]:
    return (
        SIGNS[one.mark],
        one.node,
        one.felix or ("no answer of its probe" if not one.answered else "not seen"),
        bgp_cell(one.bgp),
        tunnel_cell(one.tunnels),
        route_cell(one.routes),
        one.calico or "-",
        _age(one.uptime_s),
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[printable(cell) for cell in row] for row in rows]
    wide = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(padded(cell, size) for cell, size in zip(row, wide, strict=True)).rstrip() for row in rows]


def bgp_cell(bgps: Sequence[Bgp]) -> str:
    words = []
    for one in bgps:
        if one.sessions:
            words.append(f"{_up(one.sessions)}/{len(one.sessions)}")
        elif one.running is None:
            words.append("not seen" if one.needed else "not needed")
        elif one.running:
            words.append("no peers")
        else:
            words.append("not running" if one.told is None else "not needed")
    return _by_family(words, [one.family for one in bgps])


def _up(sessions: Iterable[Session]) -> int:
    return sum(one.session == ESTABLISHED for one in sessions)


def tunnel_cell(tunnels: Sequence[Tunnel]) -> str:
    words = [f"{one.device}{_flaw(one)}" for one in tunnels if one.needed]
    return ", ".join(words) or "none needed"


def _flaw(one: Tunnel) -> str:
    if one.found is None:
        return " (not seen)"
    return "" if one.found and one.up else " (down)" if one.found else " (missing)"


def route_cell(routes: Sequence[Routes]) -> str:
    words = []
    for one in routes:
        if one.met < 0:
            words.append("not seen")
        elif one.expected < 0:
            words.append("not judged")
        else:
            words.append(f"{one.met}/{one.expected}" + (f" ({one.by_default} by default)" if one.by_default else ""))
    return _by_family(words, [one.family for one in routes])


def _by_family(words: Sequence[str], families: Sequence[int]) -> str:
    if len(set(words)) == 1 and not words[0][0].isdigit():
        return words[0]
    return ", ".join(f"{word} v6" if family == 6 and len(words) > 1 else word
                     for word, family in zip(words, families, strict=True)) or "-"  # fmt: skip


def _age(seconds: int) -> str:
    if seconds < 0:
        return "-"
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{days}d" * bool(days), f"{hours}h" * bool(hours), f"{minutes}m" * bool(minutes), f"{rest}s"]
    return "".join([one for one in parts if one][:2])


# -- one node


def calicoctl(one: Status) -> list[str]:
    """What `calicoctl node status` prints there, without the empty line at its end; sessions with pods besides."""
    if one.felix in ("", "no answer") and one.felix_age_s < 0:
        return ["Calico process is not running."] if one.felix else []
    lines = ["Calico process is running."]
    if not any(bgp.running for bgp in one.bgp):
        seen = any(bgp.running is False for bgp in one.bgp)
        return [*lines, "", f"The BGP backend process (BIRD) {'is not running' if seen else 'was not seen'}."]
    for bgp in one.bgp:
        lines += ["", f"IPv{bgp.family} BGP status"]
        lines += _boxed(bgp.sessions) if bgp.sessions else [f"No IPv{bgp.family} peers found."]
    return lines


def _boxed(sessions: Sequence[Session]) -> list[str]:
    rows = [
        [one.address, PEER_TYPES.get(one.kind, one.kind), one.state, one.since, f"{one.session} {one.info}".strip()]
        for one in sessions
    ]
    rows = [[printable(cell) for cell in row] for row in rows]
    wide = [max(len(row[column]) for row in [list(PEER_HEAD), *rows]) for column in range(len(PEER_HEAD))]
    rule = "+" + "+".join("-" * (size + 2) for size in wide) + "+"
    # calicoctl centres a heading, and gives what is left over to its right.
    head = [" " * ((size - len(word)) // 2) + word for word, size in zip(PEER_HEAD, wide, strict=True)]
    return [rule, _row(head, wide), rule, *(_row(row, wide) for row in rows), rule]


def _row(cells: Sequence[str], wide: Sequence[int]) -> str:
    return "|" + "|".join(f" {cell.ljust(size)} " for cell, size in zip(cells, wide, strict=True)) + "|"


def _detail(one: Status) -> list[str]:
    about: list[tuple[str, str]] = [
        ("Node", f"{one.node}  {', '.join(one.addresses)}  (kubelet: {one.kubelet})"),
        ("Kernel", f"{one.kernel or 'not told'}, up {_age(one.uptime_s)}"),
        ("Probe", one.probe or ("answers, and does not tell its version" if one.answered else "did not answer")),
        ("Calico", _agent(one)),
        ("Felix", _felix(one)),
    ]
    for bgp in one.bgp:
        about.append((f"BIRD IPv{bgp.family}", _bird(bgp)))
    for tunnel in one.tunnels:
        about.append(("Tunnel", _tunnel(tunnel)))
    for route in one.routes:
        about.append((f"Routes IPv{route.family}", _routes(route)))
    own = calicoctl(one)
    return [*own, *([""] if own else []), *(f"{name:<12} {words}" for name, words in about)]


def _agent(one: Status) -> str:
    if not one.agent:
        return "no calico-node pod is known"
    words = [one.calico or "version not told", f"pod {one.agent}"]
    if one.agent_ready is not None:
        words.append("ready" if one.agent_ready else "not ready")
    words += [f"restarted {one.restarts} times"] if one.restarts > 0 else []
    return ", ".join(words)


def _felix(one: Status) -> str:
    words = one.felix or "not seen"
    words += f" ({one.felix_says})" if one.felix_says else ""
    return words + (f", runs for {_age(one.felix_age_s)}" if one.felix_age_s >= 0 else "")


def _bird(bgp: Bgp) -> str:
    state = {None: "not seen", True: "runs", False: "does not run"}[bgp.running]
    words = [state, *([bgp.version] if bgp.version else [])]
    if bgp.sessions:
        words.append(f"{_up(bgp.sessions)} of {len(bgp.sessions)} sessions established")
    words.append("writes routes of pools" if bgp.needed else "no pool needs it")
    return ", ".join(words) + (f" ({bgp.source})" if bgp.source not in ("", "probe") else "")


def _tunnel(one: Tunnel) -> str:
    if one.found is None:
        state = "not seen"
    elif not one.found:
        state = "missing"
    else:
        state = f"{'up' if one.up else 'down'}, MTU {one.mtu}, {', '.join(one.addresses) or 'no address'}"
    return f"{one.device}: {state}{'' if one.needed else ' (no packets of pods need it)'}"


def _routes(one: Routes) -> str:
    if one.met < 0:
        return "not seen" + (f", {one.expected} expected to other nodes" if one.expected >= 0 else "")
    words = ["not judged" if one.expected < 0 else f"{one.met} of {one.expected} to other nodes' blocks"]
    words += [f"{one.by_wider} of them by a wider route"] if one.by_wider else []
    words += [f"{one.by_default} by the default route at most"] if one.by_default else []
    for name, counted in (("by device", one.by_device), ("by protocol", one.by_protocol)):
        if counted:
            words.append(f"{name}: {', '.join(f'{key} {count}' for key, count in sorted(counted.items()))}")
    return "; ".join(words)


# -- for programs


def data(found: Sequence[Status], common: Sequence[Finding], cluster: str, calico: str) -> dict[str, Any]:
    """calico: its version as ClusterInformation has it."""
    counted = Counter(one.mark for one in found)
    return {
        "version": 1,
        "cluster": cluster,
        "calico_version": calico,
        "summary": str(headline(found, common)),
        "counts": {STATES[mark]: counted[mark] for mark in ORDER},
        "cluster_findings": [_finding(one) for one in common],
        "nodes": [_node(one) for one in ordered(found)],
    }


def _node(one: Status) -> dict[str, Any]:
    return {
        "node": one.node,
        "state": STATES[one.mark],
        "kubelet": one.kubelet,
        "addresses": list(one.addresses),
        "probe": {"answered": one.answered, "version": one.probe},
        "calico_node": {
            "pod": one.agent, "ready": one.agent_ready, "restarts": one.restarts, "version": one.calico,
        },
        "felix": {"state": one.felix, "says": one.felix_says, "age_s": one.felix_age_s},
        "kernel": one.kernel,
        "uptime_s": one.uptime_s,
        "bgp": [
            {
                "family": bgp.family, "running": bgp.running, "version": bgp.version, "needed": bgp.needed,
                "source": bgp.source, "text": str(bgp.told or ""),
                "sessions": [
                    {
                        "address": peer.address, "node": peer.node, "type": peer.kind, "state": peer.state,
                        "session": peer.session, "since": peer.since, "info": peer.info,
                    }
                    for peer in bgp.sessions
                ],
            }
            for bgp in one.bgp
        ],
        "tunnels": [
            {
                "device": tunnel.device, "family": tunnel.family, "needed": tunnel.needed, "found": tunnel.found,
                "up": tunnel.up, "mtu": tunnel.mtu, "addresses": list(tunnel.addresses),
            }
            for tunnel in one.tunnels
        ],
        "routes": [
            {
                "family": route.family, "expected": route.expected, "met": route.met, "by_wider": route.by_wider,
                "by_default": route.by_default, "lacking": route.lacking, "astray": route.astray,
                "examples": list(route.examples), "by_device": dict(route.by_device),
                "by_protocol": dict(route.by_protocol),
            }
            for route in one.routes
        ],
        "findings": [_finding(finding) for finding in one.findings],
    }  # fmt: skip


def _finding(one: Finding) -> dict[str, str]:
    return {"weight": one.weight, "rule": one.rule, "text": str(one.text), "remedy": str(one.remedy)}


def rows(found: Sequence[Status]) -> tuple[tuple[str, ...], ...]:
    return (COLUMNS, *map(_csv, ordered(found)))


def _csv(one: Status) -> tuple[str, ...]:
    sessions = [peer for bgp in one.bgp for peer in bgp.sessions]
    met = [route.met for route in one.routes if route.met >= 0]
    expected = [route.expected for route in one.routes if route.expected >= 0]
    return (
        one.node, STATES[one.mark], one.kubelet, str(one.answered).lower(), one.probe, one.felix, one.felix_says,
        one.calico, one.agent, _number(one.restarts), bgp_cell(one.bgp), str(_up(sessions)), str(len(sessions)),
        tunnel_cell(one.tunnels), str(sum(met)) if met else "", str(sum(expected)) if expected else "", one.kernel,
        _number(one.uptime_s), " ".join(str(finding.text) for finding in one.findings),
    )  # fmt: skip


def _number(value: int) -> str:
    return "" if value < 0 else str(value)
