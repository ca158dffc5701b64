"""What the bot says to Slack: without it every sender would have to know the ways in which a message can fail."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import itertools
import logging
import re
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.http_retry.request import HttpRequest
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.approvals import GroupsUnknown
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.place import Place
from bot.reply.block_kit import Message, escape
from bot.tracing import span
from certificates.trouble import brief
from facts import say

log = logging.getLogger(__name__)
sdk = log.getChild("sdk")
sdk.setLevel(logging.WARNING)  # without one of its own it would put together each request and answer, to log nothing

SLACK_API = "https://slack.com/api/"
API_HOSTS = frozenset({"slack.com", "slack-gov.com"})
RESPONSE_HOSTS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
UPLOAD_HOSTS = frozenset({"files.slack.com", "files.slack-gov.com"})
ARCHIVED = frozenset({"is_archived", "is_inactive"})
NOT_A_MEMBER = frozenset({"not_in_channel", "channel_not_found", *ARCHIVED})
BAD_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long"})
MESSAGE_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
PASSING = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
BAD_TOKEN = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "not_allowed_token_type"}
)
TEXT_MAX = 12_000
TIMEOUT_S = 15
UPLOAD_S = 60  # of a file
HINT_S = 3  # what is true for a second only is not worth more
AGAIN_S = (1.0, 2.0, 5.0, 10.0, 30.0)  # after the client's own retries
PATIENCE_S = 3600.0
MESSAGE_EVERY_S = 1.1  # in one channel, once Slack has refused one there, and until that is
LIMITED_S = 60.0  # seconds ago
UNREACHABLE = "unreachable"  # beside the errors that are Slack's own
SOCKET, RESPONSE_URL, UPLOAD = "socket", "response_url", "upload"  # beside the methods of its Web API

T = TypeVar("T")

_MENTION = re.compile(r"&lt;(@[UW][A-Z0-9]+|!subteam\^S[A-Z0-9]+)&gt;")


class NotInChannel(UserError):
    """The bot was not invited, or nobody can write there any more, so nobody there can see what it says."""

    archived = False


class SlackFailed(UserError):
    """Slack did not take it, after all retries."""


class SlackGone(SlackFailed):
    """Slack is not there, or cannot for now: later it may take the very same. retry_after_s: what it asks for."""

    retry_after_s = 0.0


class MessageGone(SlackFailed):
    """Somebody took the message away, so it cannot be changed."""


class Identity(NamedTuple):
    """Who the bot is in which workspace, as auth.test says. answer: all of it. scopes: what the app was granted; None
    where Slack does not say."""

    team: str
    user: str
    name: str
    answer: Mapping[str, Any]
    scopes: frozenset[str] | None = None


class Channel(NamedTuple):
    """As conversations.info says. shared: with another workspace, or about to be."""

    name: str
    member: bool
    archived: bool
    shared: bool


def others() -> str:
    """What a stranger is told who decides."""
    return say("People of another workspace decide nothing here. Nothing was changed.")


def cannot_be_heard(error: NotInChannel, bot_name: str) -> str:
    """What who asked there is told, and can do."""
    if error.archived:
        return say("This channel is archived, so I cannot answer here. Ask again in another one.")
    return say(
        "I am not in this channel, so I cannot answer here. Write `/invite @{name}` and ask again.", name=bot_name
    )


def escape_but_mentions(text: str) -> str:
    """The same for our own sentences to one person, where the people and groups named may stay names."""
    return _MENTION.sub(r"<\1>", escape(text))


def api_url(override: str, *, development: bool = False) -> str:
    """Where the Web API is. Raises UserError for an override that is not Slack: the token would go there. development:
    a local stand-in on this machine may be it."""
    if not override:
        return SLACK_API
    parts = urlsplit(override)
    host = parts.hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    of_slack = parts.scheme == "https" and parts.netloc in API_HOSTS
    if of_slack or (development and loopback and parts.scheme in ("http", "https")):
        return override.rstrip("/") + "/"
    if loopback and not development:
        raise UserError(
            f"SLACK_API_URL: {override!r} is a stand-in on this machine, which is for development only. Unset it to "
            "talk to Slack, or say that this is development (CALICO_WHY_DEVELOPMENT=1)."
        )
    raise UserError(
        f"SLACK_API_URL: {override!r} is neither Slack nor a stand-in on this machine, and your token would go there. "
        "Unset it to talk to Slack."
    )


@functools.cache
def tls() -> ssl.SSLContext:
    """Believes whom Python believes, SSL_CERT_FILE too, and is no stricter than a browser: what a company's proxy shows
    often lacks what Python looks for from 3.13 on."""
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def web_client(token: str, url: str, told_to_wait: Callable[[str], None] = lambda _: None) -> AsyncWebClient:
    """A client that tries again: broken connections, server errors, and rate limits as long as Slack says, of which
    `told_to_wait` is told the method."""
    client = AsyncWebClient(token=token, base_url=url, timeout=TIMEOUT_S, ssl=tls(), logger=sdk)
    client.retry_handlers = [
        AsyncConnectionErrorRetryHandler(max_retry_count=2),
        AsyncServerErrorRetryHandler(max_retry_count=2),
        _Limited(told_to_wait),
    ]
    return client


class _Limited(AsyncRateLimitErrorRetryHandler):
    def __init__(self, told_to_wait: Callable[[str], None]) -> None:
        super().__init__(max_retry_count=3)
        self._told = told_to_wait

    async def prepare_for_next_attempt_async(self, *, request: HttpRequest, **rest: Any) -> None:
        self._told(urlsplit(request.url).path.rpartition("/")[2])
        if channel := _posting.get():
            channel.limited()
        await super().prepare_for_next_attempt_async(request=request, **rest)


class _Channel:
    """What is posted in one channel, in turn. Slack takes a message a second there, some more after a pause; what is
    beyond that it refuses, and of who goes on all the same it shows no more."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next = self._slow_until = 0.0

    def limited(self) -> None:
        """Slack refused a message."""
        self._slow_until = asyncio.get_running_loop().time() + LIMITED_S

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        now = asyncio.get_running_loop().time
        async with self._lock:
            if (left := self._next - now()) > 0:
                await asyncio.sleep(left)
            token = _posting.set(self)
            try:
                yield
            finally:
                _posting.reset(token)
                self._next = now() + MESSAGE_EVERY_S if now() < self._slow_until else 0.0


_posting: ContextVar[_Channel | None] = ContextVar("_posting", default=None)


class Slack:
    """One workspace through one bot token. Texts are mrkdwn: escape what is not ours."""

    def __init__(self, client: AsyncWebClient, called: Callable[[str, str, float], None] = lambda *_: None) -> None:
        """called: is told of each call its method, Slack's error ("" where there is none), and seconds."""
        self.client = client
        self._once = AsyncWebClient(
            client.token, base_url=client.base_url, timeout=HINT_S, ssl=client.ssl, retry_handlers=[], logger=sdk
        )
        self._called = called
        self._channels: defaultdict[str, _Channel] = defaultdict(_Channel)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncGenerator[None]:
        """Keeps its connections: else each call makes one of its own, and agrees on TLS anew."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as self.client.session,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HINT_S)) as self._once.session,
        ):
            yield

    async def who(self) -> Identity:
        """Raises UserError with what to do when Slack does not know the token or is not there."""
        answer = await self.call(self.client.auth_test)
        said = str(answer.headers.get("x-oauth-scopes") or "")
        scopes = frozenset(one.strip() for one in said.split(",") if one.strip()) or None
        return Identity(answer["team_id"], answer["user_id"], answer.get("user", ""), answer, scopes)

    async def open_socket(self, app_token: str) -> None:
        """Asks where Socket Mode connects to, and connects nowhere. Raises UserError when Slack does not say."""
        await self.call(self.client.apps_connections_open, app_token=app_token)

    async def channel(self, channel: str) -> Channel:
        """Raises NotInChannel for one that the bot cannot see, SlackFailed also where the app may look at none."""
        found: Mapping[str, Any] = (await self.call(self.client.conversations_info, channel=channel))["channel"]
        return Channel(
            name=str(found.get("name") or ""),
            # a conversation of two has no members of which one could be missing
            member=bool(found.get("is_member") or found.get("is_im")),
            archived=bool(found.get("is_archived")),
            shared=bool(found.get("is_ext_shared") or found.get("is_pending_ext_shared")),
        )

    async def post(self, channel: str, message: Message, thread: str = "") -> str:
        """ts of the new message, after all that was posted there before. Raises NotInChannel, SlackFailed."""
        async with self._channels[channel].turn():
            answer = await self._show(
                self.client.chat_postMessage,
                message,
                channel=channel,
                thread_ts=thread or None,
                unfurl_links=False,
                unfurl_media=False,
            )
        return str(answer["ts"])

    async def update(self, channel: str, ts: str, message: Message) -> None:
        """Raises NotInChannel, SlackFailed."""
        await self._show(self.client.chat_update, message, channel=channel, ts=ts)

    async def hint(self, channel: str, ts: str, message: Message) -> None:
        """Show what will be over soon: tried once, and never in the way of what comes after it. Raises NotInChannel,
        SlackFailed."""
        await self._show(self._once.chat_update, message, channel=channel, ts=ts)

    async def insist(self, show: Callable[[], Awaitable[T]]) -> T:
        """What `show` gives, which is tried again while Slack is gone, for an hour: somebody waits for it. Where Slack
        took it and did not say so, it takes it twice. Raises what `show` raises otherwise."""
        until = asyncio.get_running_loop().time() + PATIENCE_S
        for delay in itertools.chain(AGAIN_S, itertools.repeat(AGAIN_S[-1])):
            try:
                return await show()
            except SlackGone as gone:
                if asyncio.get_running_loop().time() > until:
                    raise
                log.warning("what is to be said is tried again: %s", gone.sentence)
                await asyncio.sleep(max(delay, gone.retry_after_s))
        raise AssertionError  # it repeats without an end

    async def whisper(self, text: str, place: Place) -> None:
        """Tell one person, once Slack is there. Never raises: where nothing works, the log has it."""
        try:
            await self.insist(lambda: self.whisper_once(text, place))
        except UserError as error:
            log.warning("could not tell %s in %s %r: %s", place.user, place.channel, text, error.sentence)

    async def whisper_once(self, text: str, place: Place) -> None:
        """Tell one person, or raise UserError."""
        if place.response_url and await self._respond(place.response_url, text):
            return
        await self.call(
            self.client.chat_postEphemeral,
            channel=place.channel,
            user=place.user,
            text=text,
            thread_ts=place.thread or None,
        )

    async def members(self, group: str) -> frozenset[str]:
        """User ids of a user group. Raises GroupsUnknown."""
        try:
            answer = await self.call(self.client.usergroups_users_list, usergroup=group)
        except UserError as error:
            raise GroupsUnknown(error.sentence) from error
        return frozenset(answer["users"])

    async def outside(self, user: str, team: str) -> str:
        """Why this user is no full member of the workspace `team`, "" for one who is. Raises GroupsUnknown.

        In a shared channel `is_stranger` is false of another workspace's member, whose team tells.
        """
        try:
            found: Mapping[str, Any] = (await self.call(self.client.users_info, user=user))["user"]
        except UserError as error:
            raise GroupsUnknown(error.sentence) from error
        teams = {found.get("team_id"), *((found.get("enterprise_user") or {}).get("teams") or ())}
        if team not in teams or found.get("is_stranger"):
            return others()
        if found.get("is_restricted") or found.get("is_ultra_restricted"):
            return say("Guests of this workspace decide nothing here. Nothing was changed.")
        if found.get("deleted") or found.get("is_bot"):
            return say("A deactivated account or an app's decides nothing here. Nothing was changed.")
        return ""

    async def permalink(self, channel: str, ts: str) -> str:
        """ "" when Slack does not give one."""
        try:
            return str((await self.call(self.client.chat_getPermalink, channel=channel, message_ts=ts))["permalink"])
        except UserError:
            return ""

    async def upload(
        self, content: bytes, *, name: str, title: str, channel: str, thread: str = "", alt_text: str = ""
    ) -> None:
        """A file in a channel or thread. alt_text: of a picture, for who cannot see it. Raises NotInChannel,
        SlackFailed."""
        described = {"alt_txt": alt_text} if alt_text else {}
        place = await self.call(self.client.files_getUploadURLExternal, filename=name, length=len(content), **described)
        await self._send(str(place["upload_url"]), content)
        await self.call(
            self.client.files_completeUploadExternal,
            files=[{"id": place["file_id"], "title": title}],
            channel_id=channel,
            thread_ts=thread or None,
        )

    async def _send(self, url: str, content: bytes) -> None:
        """The bytes, to where Slack said. Raises SlackFailed."""
        parts, api = urlsplit(url), urlsplit(self.client.base_url)
        if parts.netloc != api.netloc and (parts.scheme != "https" or parts.hostname not in UPLOAD_HOSTS):
            raise SlackFailed(
                f"Slack wants the file at {parts.hostname}; it is not sent there.", status=COULD_NOT_JUDGE
            )
        timeout = aiohttp.ClientTimeout(total=UPLOAD_S)
        with self._counted(UPLOAD) as failed:
            try:
                async with (
                    aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                    session.post(url, data=content, allow_redirects=False, ssl=tls()) as response,
                ):
                    if response.status == 200:
                        return
                    status, said = response.status, (await response.text())[:200]
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failed(UNREACHABLE)
                raise SlackGone(f"Slack did not take the file ({brief(error)}).", status=COULD_NOT_JUDGE) from error
            failed(f"http_{status}")
            kind = SlackGone if _passes(status) else SlackFailed
            raise kind(f"Slack did not take the file: {status} {said}", status=COULD_NOT_JUDGE)

    async def _show(self, method: Callable[..., Awaitable[Any]], message: Message, **arguments: Any) -> Any:
        """Blocks where Slack takes them, else the same as text: a strange name must not cost the whole answer."""
        try:
            return await self.call(method, text=message.text, blocks=message.blocks, **arguments)
        except _BlocksRefused as refused:
            log.error("Slack refused the blocks of a message, sent as text: %s", "; ".join(refused.pointers))
            return await self.call(method, text=message.text[:TEXT_MAX], blocks=[], **arguments)

    async def call(self, method: Callable[..., Awaitable[Any]], **arguments: Any) -> Any:
        """Any call of the SDK, its failures as UserError."""
        with self._counted(_name(method)) as failed:
            try:
                return await method(**arguments)
            except SlackApiError as error:
                failed(_code(error) or f"http_{_status(error)}")
                raise _failure(error) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failed(UNREACHABLE)
                raise SlackGone(
                    f"Slack cannot be reached ({brief(error)}). Check the network; the same words work in "
                    "a terminal: calico-why --help",
                    status=COULD_NOT_JUDGE,
                ) from error

    @contextlib.contextmanager
    def _counted(self, method: str) -> Iterator[Callable[[str], None]]:
        """A call that is told of; what is given is told Slack's error, if there is one."""
        began, error = time.monotonic(), ""

        def failed(why: str) -> None:
            nonlocal error
            error = why

        try:
            with span(f"slack {method}"):
                yield failed
        finally:
            self._called(method, error, time.monotonic() - began)

    async def _respond(self, url: str, text: str) -> bool:
        """False when this response_url takes no more, or leads where no secret text may go."""
        parts, api = urlsplit(url), urlsplit(self.client.base_url)
        if parts.netloc != api.netloc and (parts.scheme != "https" or parts.hostname not in RESPONSE_HOSTS):
            log.warning("a response_url leads to %s; not used", parts.hostname)
            return False
        with self._counted(RESPONSE_URL) as failed:
            try:
                client = AsyncWebhookClient(
                    url, timeout=TIMEOUT_S, session=self.client.session, ssl=self.client.ssl, logger=sdk
                )
                answer = await client.send(text=text, response_type="ephemeral", replace_original=False)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failed(UNREACHABLE)
                log.warning("a response_url does not answer: %s", error)
                return False
            if answer.status_code != 200:
                failed(f"http_{answer.status_code}")
            return bool(answer.status_code == 200)


class _BlocksRefused(SlackFailed):
    pointers: tuple[str, ...] = ()


def _name(method: Callable[..., Awaitable[Any]]) -> str:
    """Of a call as Slack's documentation has it, such as chat.postMessage; others are about the socket."""
    if not isinstance(getattr(method, "__self__", None), AsyncWebClient):
        return SOCKET
    return method.__name__.replace("_", ".")


def _code(error: SlackApiError) -> str:
    """ "" where Slack answered with something else than what its documentation says, such as a proxy's page."""
    said = getattr(error.response, "data", error.response)
    return str(said.get("error") or "") if isinstance(said, Mapping) else ""


def _status(error: SlackApiError) -> str:
    return str(getattr(error.response, "status_code", "") or getattr(error.response, "status", ""))


def _failure(error: SlackApiError) -> UserError:
    answer, code = error.response, _code(error)
    if code in BAD_BLOCKS:
        refused = _BlocksRefused(f"Slack refused a message: {code}.", status=COULD_NOT_JUDGE)
        refused.pointers = tuple((answer.get("response_metadata") or {}).get("messages") or (code,))
        return refused
    if code in NOT_A_MEMBER:
        unheard = NotInChannel("I am not in this channel.", status=COULD_NOT_JUDGE)
        unheard.archived = code in ARCHIVED
        return unheard
    if code in BAD_TOKEN:
        return UserError(
            f"Slack does not accept the token ({code}). SLACK_BOT_TOKEN begins with xoxb-, SLACK_APP_TOKEN with xapp-; "
            "both are on the pages of your app at https://api.slack.com/apps.",
            status=COULD_NOT_JUDGE,
        )
    if code == "missing_scope":
        return SlackFailed(
            f"The app lacks the scope {answer.get('needed')}. Use this version's manifest and install the app again.",
            status=COULD_NOT_JUDGE,
        )
    sentence = f"Slack answered {code or _status(error) or 'with an error'}."
    if code in PASSING or _passes(int(_status(error) or 0)):
        gone = SlackGone(sentence, status=COULD_NOT_JUDGE)
        asked = str((getattr(answer, "headers", None) or {}).get("Retry-After", ""))
        gone.retry_after_s = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        return gone
    return (MessageGone if code in MESSAGE_GONE else SlackFailed)(sentence, status=COULD_NOT_JUDGE)


def _passes(status: int) -> bool:
    """Whether what was refused with this HTTP status may be taken later."""
    return status == 429 or status >= 500
