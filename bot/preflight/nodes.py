"""Whether each node's probe answers, is of this version, may look, and has the time; without it the first
question about a node would be the one to find its probe dead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import msgspec

from bot.node.places import address
from bot.preflight.cluster import SKEW_S, clock
from bot.preflight.model import NOT, OK, SHOWN, SKIPPED, UNSEEN, Line, several
from bot.sources import describe
from bot.sources.api import Missing, Refused
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Met, Probes
from facts import Blind, Fact, NodeAsk, NodeMachine, Text, joined, say
from facts.node_status import NEEDED

PART = "nodes"
AT_ONCE = 64
SOON = timedelta(days=7)  # by then who renews them would have done it three days before
# What deploy/base/node.yaml puts no probe on: no DaemonSet runs there, and no Calico.
NO_PROBE = describe.WITHOUT_DAEMONS
LESS = frozenset({"NET_ADMIN", "SYSLOG"})  # without these a probe sees less, and says so in each answer

Object = dict[str, Any]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of the probe of a node. ahead_s: its clock's seconds ahead of ours, None: not told. until: when its
    certificate runs out, None: not told."""

    node: str
    facts: tuple[Fact, ...] = ()
    ahead_s: float | None = None
    until: datetime | None = None

    @property
    def machine(self) -> NodeMachine | None:
        return next((one for one in self.facts if isinstance(one, NodeMachine)), None)

    @property
    def silent(self) -> str:
        """Why nothing is known of the node, "" where something is."""
        if self.machine:
            return ""
        blind = next((one for one in self.facts if isinstance(one, Blind)), None)
        if blind:
            return say("{why}", why=blind.message or blind.reason)
        return say("its probe is of a version that does not say what it is")


async def lines(cluster: Cluster, probes: Probes) -> tuple[list[Line], list[Probe]]:
    """Raises Unreachable, UserError."""
    try:
        nodes = await cluster.api.pages("/api/v1/nodes")
    except (Missing, Refused) as error:
        why = getattr(error, "reason", say("the API server has no {look}", look="nodes"))
        return [Line(part=PART, about=say("probes"), state=UNSEEN, found=why)], []
    looked_at = [one for one in nodes if has_probe(one)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def seen(node: Object) -> Probe:
        name, where = str(node["metadata"]["name"]), address(node)
        async with gate:
            facts = await probes.ask([NodeAsk(node=name, felix=False, tunnel_device="", status=True)], {name: where})
            known = any(isinstance(one, NodeMachine) for one in facts)
            met = await probes.met(name, where) if known else Met()
            return Probe(node=name, facts=tuple(facts), ahead_s=met.ahead_s, until=met.until)

    found = await asyncio.gather(*map(seen, looked_at))
    left = [str(one["metadata"]["name"]) for one in nodes if one not in looked_at]
    told = judge(found, left, version("calico-why"))
    return [*told, *certificates(probes.certified_until(), found, datetime.now(UTC))], list(found)


def has_probe(node: Object) -> bool:
    """Whether the manifests put one on it."""
    labels = node["metadata"].get("labels") or {}
    return labels.get("kubernetes.io/os", "linux") == "linux" and not NO_PROBE & labels.items()


def judge(found: Sequence[Probe], left: Sequence[str], own: str) -> list[Line]:
    """left: nodes without a probe, which no version has for them. own: version of the bot."""
    about = say("probes")
    if not found:
        return [Line(part=PART, about=about, state=UNSEEN, found=say("there is no Linux node"))]
    told = list(_silent([one for one in found if one.silent]))
    machines = {one.node: one.machine for one in found if one.machine}
    told += _versions(machines, own)
    told += _capabilities(machines)
    told += _clocks([one for one in found if one.machine])
    if machines:
        said = say("{count} of {all} answer", count=len(machines), all=len(found))
        told.append(Line(part=PART, about=about, state=OK, found=said))
    if left:
        said = say("not looked at: {nodes} run no probe, as Windows, Fargate and virtual nodes", nodes=several(left))
        told.append(Line(part=PART, about=about, state=SKIPPED, found=said))
    return told


def _silent(probes: Sequence[Probe]) -> Iterable[Line]:
    """The same trouble of many nodes is one line."""
    means = say("Nothing on it can be seen, so what happens there stays unknown.")
    remedy = say(
        "See whether it runs: kubectl get pods --all-namespaces --output wide --selector "
        "app.kubernetes.io/component=node. Where it does, let the nodes of the bot reach its port."
    )
    by = dict[str, list[str]]()
    for one in probes:
        by.setdefault(one.silent, []).append(one.node)
    for why, nodes in list(by.items())[:SHOWN]:
        about = say("probe of {nodes}", nodes=several(nodes))
        yield Line(part=PART, about=about, state=NOT, found=why, means=means, remedy=remedy)
    if more := [node for nodes in list(by.values())[SHOWN:] for node in nodes]:
        about = say("probe of {nodes}", nodes=several(more))
        yield Line(part=PART, about=about, state=NOT, found=say("they do not answer either"))


def _versions(machines: Mapping[str, NodeMachine], own: str) -> Iterable[Line]:
    by = dict[str, list[str]]()
    for node, one in machines.items():
        by.setdefault(one.probe, []).append(node)
    for other in [one for one in by if one != own]:
        yield Line(
            part=PART,
            about=say("probe of {nodes}", nodes=several(by[other])),
            state=NOT,
            found=say("it is of version {version}, and this is {own}", version=other or "?", own=own),
            means=say("What one of the two does not know is not looked at."),
            remedy=say("Bring both to one version."),
        )
    if own in by:
        said = say("{version} on {count} nodes, as here", version=own, count=len(by[own]))
        yield Line(part=PART, about=say("version of the probes"), state=OK, found=said)


def _capabilities(machines: Mapping[str, NodeMachine]) -> Iterable[Line]:
    by = dict[tuple[str, ...], list[str]]()
    for node, one in machines.items():
        if one.capabilities is not None:  # one too old to tell is told of by its version
            by.setdefault(tuple(name for name in NEEDED if name not in one.capabilities), []).append(node)
    for lacking, nodes in by.items():
        if not lacking:
            said = say("{capabilities} on {count} nodes", capabilities=joined(NEEDED), count=len(nodes))
            yield Line(part=PART, about=say("capabilities of the probes"), state=OK, found=said)
            continue
        less = set(lacking) <= LESS
        yield Line(
            part=PART,
            about=say("probe of {nodes}", nodes=several(nodes)),
            state=OK if less else NOT,
            found=_without(lacking),
            remedy="" if less else say("Give them to it, as deploy/base/node.yaml does."),
        )


def _without(lacking: Sequence[str]) -> Text:
    blind = {
        "NET_ADMIN": say("it sees no rules of firewalls, no WireGuard keys and not which rule drops a packet"),
        "NET_RAW": say("it sends and captures no packets"),
        "SYSLOG": say("it cannot read the kernel's log where that is restricted"),
        "SYS_ADMIN": say("it sees nothing inside pods"),
        "SYS_PTRACE": say("it finds no pod's network"),
    }
    return say("without {names}: {blind}", names=joined(lacking), blind=joined([blind[one] for one in lacking]))


def _clocks(probes: Sequence[Probe]) -> Iterable[Line]:
    wrong = sorted((one for one in probes if abs(one.ahead_s or 0) >= SKEW_S), key=lambda one: -abs(one.ahead_s or 0))
    for one in wrong[:SHOWN]:
        yield clock(PART, say("clock of {node}", node=one.node), one.ahead_s)
    if more := [one.node for one in wrong[SHOWN:]]:
        yield Line(part=PART, about=say("clock of {node}", node=several(more)), state=NOT, found=say("it is off, too"))
    if untold := [one.node for one in probes if one.ahead_s is None]:
        yield clock(PART, say("clock of {node}", node=several(untold)), None)
    agree = sum(one.ahead_s is not None and abs(one.ahead_s) < SKEW_S for one in probes)
    if agree:
        said = say("{count} agree with the one here", count=agree)
        yield Line(part=PART, about=say("clocks of the nodes"), state=OK, found=said)


def certificates(bots: datetime | None, probes: Sequence[Probe], now: datetime) -> Iterable[Line]:
    """What runs out soon. bots: when the bot's own does; where it has none, or it has, each probe's line says so."""
    if bots and now < bots <= now + SOON:
        yield Line(
            part=PART,
            about=say("certificate of the bot"),
            state=NOT,
            found=say("it runs out on {date}", date=_date(bots)),
            means=say("From then on no probe lets it in."),
            remedy=say(
                "See the log of Deployment calico-why-signer, which renews it; where it was made by hand, make it anew "
                "with `calico-why certs --force`."
            ),
        )
    known = [(one.until, one.node) for one in probes if one.until]
    soon = sorted(one for one in known if one[0] <= now + SOON)
    if soon:
        yield Line(
            part=PART,
            about=say("certificate of the probe of {nodes}", nodes=several([node for _, node in soon])),
            state=NOT,
            found=say("it runs out on {date}", date=_date(soon[0][0])),
            means=say("From then on its answers are not believed."),
            remedy=say(
                "See the log of the container `certificate` beside it, which renews it; where it was made by hand, "
                "make it anew with `calico-why certs`."
            ),
        )
    if later := [*(until for until, _ in known if until > now + SOON), *([bots] if bots and bots > now + SOON else [])]:
        said = say("{count} are valid until {date} or longer", count=len(later), date=_date(min(later)))
        yield Line(part=PART, about=say("certificates of bot and probes"), state=OK, found=said)


def _date(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
