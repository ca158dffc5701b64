"""Whom something is told in Slack, and where; without it each of those who tell would carry four names about."""

from __future__ import annotations

import msgspec

from bot.journal import Click
from bot.slack import Slack


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell something, and where."""

    channel: str
    user: str
    thread: str = ""
    response_url: str = ""


def place_of(click: Click) -> Place:
    """Who clicked, and where that was."""
    return Place(channel=click.channel, user=click.user, thread=click.thread, response_url=click.response_url)


async def tell(slack: Slack, text: str, place: Place) -> None:
    """Markup that only they see."""
    await slack.whisper(
        text, channel=place.channel, user=place.user, thread=place.thread, response_url=place.response_url
    )
