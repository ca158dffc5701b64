"""Whom something is told in Slack, and where; without it each of those who tell would carry four names about."""

from __future__ import annotations

import msgspec

from bot.journal import Kept


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell something, and where."""

    channel: str
    user: str
    thread: str = ""
    response_url: str = ""


def place_of(kept: Kept) -> Place:
    """Who asked or clicked, and where that was."""
    return Place(channel=kept.channel, user=kept.user, thread=kept.thread, response_url=kept.response_url)
