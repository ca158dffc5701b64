"""All a local Slack remembers: people, channels, messages, modals, files; without it no rule of Slack has a subject."""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.slack.config import Channel, Config, Group, Manifest, User

Json = dict[str, Any]

TRIGGER_SECONDS = 3.0
RESPONSE_URL_SECONDS = 30 * 60
RESPONSE_URL_USES = 5
SLACKBOT = "USLACKBOT"
DELETED = "This message was deleted."


class SlackError(Exception):
    """Slack's `{"ok": false, "error": ...}`; `more` is merged into that answer."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.error = error
        self.more = more


class Clock:
    """Slack's clock, which tests and the page may push forward; seconds since the epoch."""

    def __init__(self, read: Callable[[], float] = time.time) -> None:
        self._read = read
        self.ahead = 0.0
        self._pushed = asyncio.Event()

    def now(self) -> float:
        return self._read() + self.ahead

    def advance(self, seconds: float) -> None:
        self.ahead += seconds
        self._pushed.set()
        self._pushed = asyncio.Event()

    async def sleep_until(self, moment: float) -> None:
        """Returns once this clock reads `moment`, by waiting or by being pushed."""
        while (left := moment - self.now()) > 0:
            try:
                await asyncio.wait_for(self._pushed.wait(), left)
            except TimeoutError:
                continue


@dataclass(slots=True)
class Message:
    """One message. `viewer` is the only user who sees it, or empty for everybody in the channel."""

    channel: str
    ts: str
    user: str
    text: str = ""
    blocks: list[Json] = field(default_factory=list)
    thread_ts: str = ""
    viewer: str = ""
    by_bot: bool = False
    edited: Json | None = None
    metadata: Json | None = None
    files: list[Json] = field(default_factory=list)


@dataclass(slots=True)
class Trigger:
    user: str
    expires: float
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """Where a bot may answer one command or click: at most 5 times in 30 minutes."""

    user: str
    channel: str
    expires: float
    thread_ts: str = ""
    original: str = ""  # ts of the message with the button
    uses: int = 0


@dataclass(slots=True)
class View:
    """An open modal of one user; `stack` is the id of the first modal beneath it."""

    id: str
    user: str
    stack: str
    content: Json
    hash: str = ""
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Upload:
    id: str
    name: str
    length: int
    mimetype: str
    alt_text: str = ""
    data: bytes | None = None
    title: str = ""
    shared: bool = False


class Workspace:
    """In memory only. Every change of state must end in `changed()`, which wakes whoever waits or watches."""

    def __init__(self, config: Config, manifest: Manifest, clock: Clock) -> None:
        self.config, self.manifest, self.clock = config, manifest, clock
        self.users: Mapping[str, User] = {user.name: user for user in config.users}
        self.groups: dict[str, Group] = {group.handle: group for group in config.groups}
        self.channels: Mapping[str, Channel] = {channel.name: channel for channel in config.channels}
        self.messages: dict[tuple[str, str], Message] = {}
        self._replies: defaultdict[tuple[str, str], list[Message]] = defaultdict(list)  # by their parent
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.views: dict[str, View] = {}
        self.uploads: dict[str, Upload] = {}
        self.origin = ""  # http://127.0.0.1:PORT once it is known
        self.closing = asyncio.Event()  # lets go whoever waits, at the end
        self.revision = 0
        self._number = 0
        self._watchers: set[asyncio.Event] = set()

    # -- being watched

    def changed(self) -> None:
        self.revision += 1
        for event in self._watchers:
            event.set()

    def watch(self) -> asyncio.Event:
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        self._watchers.discard(event)

    # -- finding

    def user(self, who: str | User) -> User:
        """A user by id, name or @name. Raises LookupError."""
        word = who.id if isinstance(who, User) else who.removeprefix("@")
        for user in self.config.users:
            if word in (user.id, user.name):
                return user
        raise LookupError(f"no user {who!r} here; users: {', '.join(self.users)}")

    def channel(self, where: str | Channel) -> Channel:
        """A channel by id, name or #name. Raises LookupError."""
        word = where.id if isinstance(where, Channel) else where.removeprefix("#")
        for channel in self.config.channels:
            if word in (channel.id, channel.name):
                return channel
        raise LookupError(f"no channel {where!r} here; channels: {', '.join(self.channels)}")

    def group(self, handle: str) -> Group:
        """A user group by id, handle or @handle. Raises LookupError."""
        word = handle.removeprefix("@")
        for group in self.groups.values():
            if word in (group.id, group.handle):
                return group
        raise LookupError(f"no user group {handle!r} here; groups: {', '.join(self.groups)}")

    def team_of(self, user: User) -> str:
        return user.team_id or self.config.team.id

    def thread(self, channel: str, ts: str) -> list[Message]:
        """A parent and its replies, oldest first; empty when there is no such parent."""
        if (channel, ts) not in self.messages:
            return []
        return [m for m in self.in_channel(channel) if ts in (m.ts, m.thread_ts)]

    def in_channel(self, channel: str) -> list[Message]:
        """Every message of a channel, replies and ephemeral ones included, oldest first."""
        return sorted((m for m in self.messages.values() if m.channel == channel), key=lambda m: _order(m.ts))

    # -- making

    def next_ts(self) -> str:
        self._number += 1
        return f"{int(self.clock.now())}.{self._number:06d}"

    def post(self, message: Message) -> Message:
        message.blocks = with_ids(message.blocks)
        self.messages[message.channel, message.ts] = message
        if message.thread_ts:
            self._replies[message.channel, message.thread_ts].append(message)
        self.changed()
        return message

    def rewrite(self, message: Message, text: str, blocks: list[Json]) -> None:
        """Changes a message the bot wrote before."""
        message.text, message.blocks = text, with_ids(blocks)
        message.edited = {"user": self.config.bot.user_id, "ts": self.next_ts()}
        self.changed()

    def remove(self, message: Message) -> None:
        """Takes a message away; one with replies stays as the head of its thread."""
        if self._replies.get((message.channel, message.ts)):
            message.user, message.text, message.blocks, message.files = SLACKBOT, DELETED, [], []
            message.by_bot = False
        else:
            self.forget(message)
        self.changed()

    def forget(self, message: Message) -> None:
        """It and its thread, of which nobody is told: for who stays for thousands of questions."""
        for one in (message, *self._replies.pop((message.channel, message.ts), ())):
            self.messages.pop((one.channel, one.ts), None)
        if message in (siblings := self._replies.get((message.channel, message.thread_ts), [])):
            siblings.remove(message)

    def say_as_slackbot(self, channel: str, viewer: str, text: str, thread_ts: str = "") -> Message:
        """A line of Slack itself, seen by one user only."""
        ts = self.next_ts()
        return self.post(Message(channel, ts, SLACKBOT, text, thread_ts=thread_ts, viewer=viewer))

    def new_trigger(self, user: str) -> str:
        trigger = f"{self._number}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self.triggers[trigger] = Trigger(user, self.clock.now() + TRIGGER_SECONDS)
        return trigger

    def use_trigger(self, trigger: str) -> Trigger:
        """Spends a trigger. Raises SlackError: invalid, exchanged (spent before) or expired (older than 3 s)."""
        found = self.triggers.get(trigger)
        if found is None:
            raise SlackError("invalid_trigger_id")
        if found.used:
            raise SlackError("exchanged_trigger_id")
        if self.clock.now() > found.expires:
            raise SlackError("expired_trigger_id")
        found.used = True
        return found

    def new_response_url(self, user: str, channel: str, thread_ts: str = "", original: str = "") -> str:
        """The last part of a new response_url."""
        key = secrets.token_urlsafe(18)
        expires = self.clock.now() + RESPONSE_URL_SECONDS
        self.response_urls[key] = ResponseUrl(user, channel, expires, thread_ts, original)
        return key

    def open_views(self, user: str) -> list[View]:
        """The modals a user has open, the topmost last."""
        return [view for view in self.views.values() if view.user == user]

    def put_view(self, user: str, content: Json, below: View | None = None) -> View:
        """Opens a modal, or pushes it onto `below`."""
        view_id = "V" + secrets.token_hex(5).upper()
        view = View(view_id, user, below.stack if below else view_id, {})
        self.views[view_id] = view
        return self.fill_view(view, content)

    def fill_view(self, view: View, content: Json) -> View:
        view.content = {**content, "blocks": with_ids(content["blocks"])}
        view.hash = f"{int(self.clock.now())}.{secrets.token_hex(4)}"
        view.errors = {}
        self.changed()
        return view

    def close_views(self, views: list[View]) -> None:
        for view in views:
            self.views.pop(view.id, None)
        self.changed()

    # -- Slack's shapes

    def message_shape(self, message: Message) -> Json:
        """A message as Slack's API writes it."""
        shape: Json = {"type": "message", "user": message.user, "ts": message.ts, "text": message.text}
        if message.by_bot:
            bot = self.config.bot
            shape |= {"bot_id": bot.bot_id, "app_id": bot.app_id, "team": self.config.team.id}
        if message.blocks:
            shape["blocks"] = copy.deepcopy(message.blocks)
        replies = [one for one in self._replies.get((message.channel, message.ts), ()) if not one.viewer]
        if message.thread_ts:
            shape["thread_ts"] = message.thread_ts
        elif replies:
            users = list(dict.fromkeys(m.user for m in replies))
            latest = max((m.ts for m in replies), key=_order)
            shape |= {
                "thread_ts": message.ts,
                "reply_count": len(replies),
                "reply_users": users,
                "reply_users_count": len(users),
                "latest_reply": latest,
            }
        if message.edited:
            shape["edited"] = dict(message.edited)
        if message.metadata:
            shape["metadata"] = copy.deepcopy(message.metadata)
        if message.files:
            shape["files"] = copy.deepcopy(message.files)
        if message.viewer:
            shape["is_ephemeral"] = True
        return shape

    def view_shape(self, view: View) -> Json:
        """A modal as Slack's API writes it."""
        bot = self.config.bot
        return {
            "private_metadata": "",
            "callback_id": "",
            "submit": None,
            "close": None,
            "clear_on_close": False,
            "notify_on_close": False,
            "external_id": "",
            **copy.deepcopy(view.content),
            "id": view.id,
            "team_id": self.config.team.id,
            "app_id": bot.app_id,
            "bot_id": bot.bot_id,
            "hash": view.hash,
            "root_view_id": view.stack,
            "previous_view_id": self._beneath(view),
            "state": {"values": {}},
        }

    def _beneath(self, view: View) -> str | None:
        stack = [other.id for other in self.views.values() if other.stack == view.stack]
        place = stack.index(view.id) if view.id in stack else 0
        return stack[place - 1] if place else None


def with_ids(blocks: list[Json]) -> list[Json]:
    """A copy with the block_id and action_id Slack invents where the app gave none."""
    copied = copy.deepcopy(blocks)
    for block in copied:
        block.setdefault("block_id", secrets.token_urlsafe(4))
        owners = [*block.get("elements", []), block.get("accessory"), block.get("element")]
        for element in owners:
            if isinstance(element, dict) and element.get("type") in INTERACTIVE:
                element.setdefault("action_id", secrets.token_urlsafe(4))
    return copied


INTERACTIVE = frozenset({"button", "static_select", "overflow", "plain_text_input", "radio_buttons", "checkboxes"})


def _order(ts: str) -> tuple[int, int]:
    seconds, _, number = ts.partition(".")
    return int(seconds), int(number)
