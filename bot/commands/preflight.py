"""`calico-why preflight`: whether all that the bot needs is there, before somebody needs it. It changes nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

import msgspec

from bot import told
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.preflight import cluster, here, nodes, rights, slack
from bot.preflight.model import NOT, OK, ORDER, SKIPPED, UNSEEN, Line
from bot.settings import Settings
from bot.sources.api import Refused, Unreachable
from bot.sources.kubernetes import CLASSIC, Cluster
from bot.told import Context, Told
from facts import Text, say
from fixes.approvers import SLACK_GROUP, Approvers, parse

HELP = "preflight [PART...]: is all there that the bot needs, and what to do; for example: preflight slack rights"
PARTS = ("configuration", "slack", "cluster", "rights", "fixes", "calico", "nodes", "approvers", "state")
CHANNEL = re.compile(r"[CG][A-Z0-9]{2,}")
DATA = ("part", "about", "state", "found", "means", "remedy")


def add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"only: {', '.join(PARTS)}")
    parser.add_argument(
        "--channel",
        metavar="ID",
        action="append",
        default=[],
        help="is the bot in this channel (C0123ABC)? again for more",
    )
    told.output(parser, "text", "json")


def check_words(args: argparse.Namespace, _written: str) -> None:
    """Raises UserError."""
    for one in args.channel:
        if not CHANNEL.fullmatch(one):
            raise UserError(
                f"{one!r} is no id of a channel: it is at the end of the channel's details in Slack. Write: "
                "preflight --channel C0123ABC"
            )


async def answer(args: argparse.Namespace, context: Context) -> Told:
    parts = set(args.parts or PARTS) | ({"slack"} if args.channel else set())
    who = context.settings.approvers
    of_a_bot = context.slack is not None or slack.configured()
    found, probes = list[Line](), list[nodes.Probe]()
    if "configuration" in parts and context.configuration:
        found.append(here.configuration(context.configuration, context.settings.cluster))
        for other in context.configuration.clusters:
            if other.cluster != context.settings.cluster:
                found += await _other(other)
    if "slack" in parts:
        await context.progress(say("asking Slack"))
        asked_in = [context.channel] if CHANNEL.fullmatch(context.channel) else []
        told_of = context.configuration.channels if context.configuration else ()
        channels = list(dict.fromkeys([*args.channel, *asked_in, *told_of]))
        told_here = context.configuration
        found += await slack.lines(context.slack, told_here, channels, _groups(who), named="slack" in args.parts)
    if "approvers" in parts:
        found += here.approvers(who, of_a_bot=of_a_bot or "approvers" in args.parts)
    if "state" in parts:
        found += here.state(context.settings.state, of_a_bot=of_a_bot or "state" in args.parts)
    try:
        if parts & {"cluster", "rights", "fixes", "calico", "nodes"}:
            await context.progress(say("asking the API server"))
            found += await _cluster(parts, context)
        if "nodes" in parts:
            await context.progress(say("asking the probes"))
            lines, probes = await nodes.lines(context.cluster, context.probes)
            found += lines
    except (Unreachable, UserError) as error:
        sentence = error.sentence if isinstance(error, UserError) else context.cluster.api.unreachable(error).sentence
        found.append(Line(part="cluster", about=say("API server"), state=NOT, found=sentence))
    return report(found, probes)


async def _cluster(parts: set[str], context: Context) -> list[Line]:
    """Raises Unreachable, UserError."""
    found = await cluster.server(context.cluster)
    if "cluster" not in parts:
        found = [one for one in found if one.state != OK]
    try:
        groups = await cluster.served(context.cluster)
    except Refused as error:
        return [*found, Line(part="cluster", about=say("API groups"), state=UNSEEN, found=error.reason)]
    if "rights" in parts:
        try:
            group = await context.cluster.group()
        except UserError:  # no Calico, which its own part tells
            group = CLASSIC
        where = await cluster.calico_namespace(context.cluster)
        wanted = rights.needed(groups, group, context.settings.namespace, where)
        found += await rights.lines(context.store, wanted)
    if "fixes" in parts:
        found += await cluster.fixes(context.cluster, groups)
    if "calico" in parts:
        found += await cluster.calico(context.cluster)
    return found


async def _other(settings: Settings) -> list[Line]:
    """Whether another cluster that is served answers: it has a preflight of its own."""
    about = say("API server of {cluster}", cluster=settings.cluster)
    try:
        async with Cluster(settings) as one:
            try:
                lines = await cluster.server(one)
            except Unreachable as error:
                raise one.api.unreachable(error) from error
    except UserError as error:
        return [Line(part="configuration", about=about, state=NOT, found=error.sentence)]
    more = say("All of it: preflight --cluster {cluster}", cluster=settings.cluster)
    return [msgspec.structs.replace(one, part="configuration", about=about, remedy=more) for one in lines[:1]]


def _groups(who: Approvers) -> list[str]:
    entries = [entry.who for text in sorted(who.entries) if (entry := parse(text))]
    return list(dict.fromkeys(one for one in entries if SLACK_GROUP.fullmatch(one)))


def report(found: Sequence[Line], probes: Sequence[nodes.Probe] = ()) -> Told:
    """What is wrong first."""
    lines = sorted(found, key=lambda one: ORDER.index(one.state))
    count = {state: sum(one.state == state for one in lines) for state in ORDER}
    left = list(dict.fromkeys(str(one.part) for one in lines if one.state == SKIPPED))
    if count[NOT]:
        headline = say("{count} of {all} things are not in order.", count=count[NOT], all=len(lines))
    elif count[UNSEEN]:
        headline = say("{count} of {all} things could not be seen.", count=count[UNSEEN], all=len(lines))
    elif left:
        headline = say("All that was looked at is in order; not looked at: {parts}.", parts=", ".join(left))
    else:
        headline = say("All is in order.")
    return Told(
        headline=headline,
        notes=tuple(_told(one) for one in lines),
        data={
            "version": 1,
            "counts": {"ok": count[OK], "not": count[NOT], "unseen": count[UNSEEN], "skipped": count[SKIPPED]},
            "lines": [{name: str(getattr(one, name)) for name in DATA} for one in lines],
            "nodes": [_node(one) for one in probes],
        },
        mark="cause" if count[NOT] else "unknown" if count[UNSEEN] else "healthy",
        status=COULD_NOT_JUDGE if count[NOT] or count[UNSEEN] else 0,
    )


def _told(line: Line) -> Text:
    said = say("{mark}  {about}: {found}", mark=f"{line.state:3}", about=line.about, found=line.found)
    for more in (line.means, line.remedy):
        if more:
            end = "" if str(said).endswith((".", "!")) else "."
            said = say("{first}{end} {next}", first=said, end=end, next=more)
    return said


def _node(probe: nodes.Probe) -> dict[str, object]:
    machine = probe.machine
    return {
        "node": probe.node,
        "answered": machine is not None,
        "why": str(probe.silent),
        "version": machine.probe if machine else "",
        "capabilities": list(machine.capabilities or ()) if machine else [],
        "clock_ahead_s": probe.ahead_s,
    }
