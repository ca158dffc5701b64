"""Whether Slack lets the bot in, as far as its manifest says; without it a missing scope shows when people click."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bot.approvals import GroupsUnknown
from bot.commands import slack_manifest
from bot.errors import UserError
from bot.preflight.model import NOT, OK, SHOWN, SKIPPED, UNSEEN, Line, several
from bot.slack import Identity, NotInChannel, Slack, web_client
from facts import say
from fixes.configuration import Configuration

if TYPE_CHECKING:
    from bot.delivery import SlackSettings

PART = "slack"
VARIABLES = ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET", "CALICO_WHY_SLACK_MODE")
TO_SEE = frozenset({"channels:read", "groups:read"})  # one of which conversations.info needs
PASTE = say(
    "Paste what `calico-why slack-manifest` prints into App Manifest on the pages of your app, and install it again."
)


def configured() -> bool:
    """Whether the environment says anything of Slack."""
    return any(os.environ.get(name) for name in VARIABLES)


async def lines(
    settings: SlackSettings | None,
    told: Configuration | None,
    channels: Sequence[str],
    groups: Sequence[str],
    *,
    named: bool,
) -> list[Line]:
    """settings: of the bot that is asked, else what is told here, with the environment's secrets. groups: of
    approvers. named: it was asked for."""
    about = say("Slack")
    if settings is None:
        if not configured() and not named and not channels:
            why = say("not looked at: SLACK_BOT_TOKEN is not set here")
            return [Line(part=PART, about=about, state=SKIPPED, found=why)]
        try:
            settings = of_here(told)
        except UserError as error:
            return [Line(part=PART, about=about, state=NOT, found=error.sentence)]
    slack = Slack(web_client(settings.bot_token, settings.api_url))
    found = list[Line]()
    try:
        me = await slack.who()
    except UserError as error:
        found.append(Line(part=PART, about=say("bot token"), state=NOT, found=error.sentence))
    else:
        said = say("Slack knows {name} in workspace {team}", name=me.name or me.user, team=me.team)
        found += [
            Line(part=PART, about=say("bot token"), state=OK, found=said),
            _scopes(me),
            *[await _channel(slack, me, one, settings.shared) for one in channels[:SHOWN]],
            *[await _group(slack, one) for one in groups[:SHOWN]],
        ]
    found.append(await _delivery(slack, settings))
    return found


def of_here(told: Configuration | None) -> SlackSettings:
    """Raises UserError."""
    from bot.commands.serve import slack_settings

    return slack_settings(os.environ, told)


async def _delivery(slack: Slack, settings: SlackSettings) -> Line:
    """How Slack's deliveries come."""
    if settings.mode == "http":
        said = say("not looked at: only a delivery of Slack shows whether it is right")
        return Line(part=PART, about=say("signing secret"), state=SKIPPED, found=said)
    about = say("app token")
    try:
        await slack.open_socket(settings.app_token)
    except UserError as error:
        return Line(part=PART, about=about, state=NOT, found=error.sentence)
    return Line(part=PART, about=about, state=OK, found=say("Slack says where Socket Mode connects to"))


def _scopes(me: Identity) -> Line:
    about = say("scopes")
    if me.scopes is None:
        return Line(part=PART, about=about, state=UNSEEN, found=say("Slack does not say what the app was granted"))
    wanted = slack_manifest.scopes()
    if lacking := sorted(wanted - me.scopes):
        return Line(
            part=PART,
            about=about,
            state=NOT,
            found=say("the app lacks {scopes}", scopes=several(lacking)),
            means=say("Slack refuses the calls that need them."),
            remedy=PASTE,
        )
    if more := sorted(me.scopes - wanted):
        said = say("all of the manifest, and beyond what is needed: {scopes}", scopes=several(more))
        return Line(part=PART, about=about, state=OK, found=said)
    return Line(part=PART, about=about, state=OK, found=say("those of the manifest, and no more"))


async def _channel(slack: Slack, me: Identity, channel: str, shared: str) -> Line:
    """shared: what the bot does in channels shared with another workspace."""
    about = say("channel {channel}", channel=channel)
    if me.scopes is not None and not me.scopes & TO_SEE:
        return Line(
            part=PART,
            about=about,
            state=UNSEEN,
            found=say("the app lacks {scopes}", scopes=several(sorted(TO_SEE))),
            means=say("Whether the bot is in it is not known."),
            remedy=PASTE,
        )
    try:
        seen = await slack.channel(channel)
    except NotInChannel:
        seen = None
    except UserError as error:
        return Line(part=PART, about=about, state=UNSEEN, found=error.sentence)
    if seen is not None:
        about = say("channel {channel}", channel=f"#{seen.name} ({channel})")
    if seen is None or not seen.member:
        return Line(
            part=PART,
            about=about,
            state=NOT,
            found=say("the bot is not in it") if seen else say("the bot is not in it, or there is no such channel"),
            means=say("Nobody there gets an answer."),
            remedy=say("Write `/invite @{name}` in it.", name=me.name),
        )
    if seen.archived:
        means = say("Nobody there gets an answer.")
        return Line(part=PART, about=about, state=NOT, found=say("it is archived"), means=means)
    if seen.shared and shared == "refuse":
        said = say("it is shared with another workspace, so the bot answers nothing there")
        return Line(part=PART, about=about, state=OK, found=said)
    if seen.shared and shared != "answer":
        return Line(
            part=PART,
            about=about,
            state=NOT,
            found=say("it is shared with another workspace"),
            means=say("People of the other one read there what the bot says of the cluster."),
            remedy=say(
                "Set CALICO_WHY_SLACK_SHARED=refuse, and it answers nothing there, or =answer where they may read it."
            ),
        )
    return Line(part=PART, about=about, state=OK, found=say("the bot is in it"))


async def _group(slack: Slack, group: str) -> Line:
    about = say("approvers' group {group}", group=group)
    try:
        members = await slack.members(group)
    except GroupsUnknown as error:
        return Line(part=PART, about=about, state=NOT, found=str(error), means=say("Nobody in it may approve."))
    if members:
        return Line(part=PART, about=about, state=OK, found=say("{count} people", count=len(members)))
    return Line(part=PART, about=about, state=NOT, found=say("nobody is in it"), means=say("Nobody in it may approve."))
