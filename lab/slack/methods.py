"""What each method of the Web API does to the workspace; without it nothing the bot says would arrive anywhere."""

from __future__ import annotations

import mimetypes
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.slack.config import Channel, Group, User
from lab.slack.validation import Problem, validate_message, validate_view
from lab.slack.workspace import Json, Message, SlackError, Upload, View, Workspace

FILE_BYTES = 16 * 2**20
MODALS_DEEP = 3
PAGE = 100


@dataclass(frozen=True, slots=True)
class Method:
    """`scope`: what the manifest must grant, empty for none. `app_token`: only an xapp token may call it."""

    run: Callable[[Json], Json]
    scope: str = ""
    app_token: bool = False


class Methods:
    """Methods by name. Each takes the arguments and returns the answer without `ok`, or raises SlackError.

    new_ticket: makes a one-use Socket Mode ticket.
    """

    def __init__(self, workspace: Workspace, new_ticket: Callable[[], str]) -> None:
        self._space = workspace
        self._new_ticket = new_ticket
        self.by_name = {
            "api.test": Method(lambda arguments: {"args": arguments}),
            "auth.test": Method(self._auth_test),
            "apps.connections.open": Method(self._connections_open, app_token=True),
            "bots.info": Method(self._bots_info, "users:read"),
            "chat.delete": Method(self._delete, "chat:write"),
            "chat.getPermalink": Method(self._permalink),
            "chat.postEphemeral": Method(self._post_ephemeral, "chat:write"),
            "chat.postMessage": Method(self._post, "chat:write"),
            "chat.update": Method(self._update, "chat:write"),
            "conversations.history": Method(self._history, "channels:history"),
            "conversations.info": Method(self._conversation),  # which scope it needs the channel tells
            "conversations.members": Method(self._members),
            "conversations.replies": Method(self._replies, "channels:history"),
            "files.completeUploadExternal": Method(self._complete_upload, "files:write"),
            "files.getUploadURLExternal": Method(self._upload_url, "files:write"),
            "files.info": Method(self._file_info, "files:read"),
            "team.info": Method(self._team_info, "team:read"),
            "usergroups.list": Method(self._groups, "usergroups:read"),
            "usergroups.users.list": Method(self._group_users, "usergroups:read"),
            "users.info": Method(self._user_info, "users:read"),
            "views.open": Method(self._open_view),
            "views.push": Method(self._push_view),
            "views.update": Method(self._update_view),
        }

    # -- who

    def _auth_test(self, arguments: Json) -> Json:
        team, bot = self._space.config.team, self._space.config.bot
        return {
            "url": f"{self._space.origin}/",
            "team": team.name,
            "user": bot.name,
            "team_id": team.id,
            "user_id": bot.user_id,
            "bot_id": bot.bot_id,
            "is_enterprise_install": False,
        }

    def _team_info(self, arguments: Json) -> Json:
        team = self._space.config.team
        return {"team": {"id": team.id, "name": team.name, "domain": team.domain}}

    def _bots_info(self, arguments: Json) -> Json:
        bot = self._space.config.bot
        if arguments.get("bot", bot.bot_id) != bot.bot_id:
            raise SlackError("bot_not_found")
        shape = {"id": bot.bot_id, "app_id": bot.app_id, "user_id": bot.user_id, "name": bot.name, "deleted": False}
        return {"bot": shape}

    def _connections_open(self, arguments: Json) -> Json:
        return {"url": f"{self._space.origin.replace('http', 'ws', 1)}/link/{self._new_ticket()}"}

    # -- messages

    def _post(self, arguments: Json) -> Json:
        channel = self._joined(arguments)
        _refuse(validate_message(arguments))
        message = Message(
            channel.id,
            self._space.next_ts(),
            self._space.config.bot.user_id,
            arguments["text"],
            arguments.get("blocks") or [],
            thread_ts=self._parent(channel, arguments),
            by_bot=True,
            metadata=arguments.get("metadata"),
        )
        self._space.post(message)
        return {"channel": channel.id, "ts": message.ts, "message": self._space.message_shape(message)}

    def _update(self, arguments: Json) -> Json:
        channel, message = self._own_message(arguments, "cant_update_message")
        if channel.archived:
            raise SlackError("is_inactive")
        if not channel.has_bot:
            raise SlackError("not_in_channel")
        # without `blocks` a message keeps those it had; an empty list takes them away
        blocks = message.blocks if arguments.get("blocks") is None else arguments["blocks"]
        _refuse(validate_message({"text": arguments.get("text"), "blocks": blocks}))
        self._space.rewrite(message, arguments["text"], blocks)
        if "metadata" in arguments:
            message.metadata = arguments["metadata"]
        shape = self._space.message_shape(message)
        return {"channel": channel.id, "ts": message.ts, "text": message.text, "message": shape}

    def _delete(self, arguments: Json) -> Json:
        channel, message = self._own_message(arguments, "cant_delete_message")
        self._space.remove(message)
        return {"channel": channel.id, "ts": message.ts}

    def _post_ephemeral(self, arguments: Json) -> Json:
        channel = self._joined(arguments)
        user = self._user(arguments)
        if user.id not in channel.members:
            raise SlackError("user_not_in_channel")
        _refuse(validate_message(arguments))
        message = Message(
            channel.id,
            self._space.next_ts(),
            self._space.config.bot.user_id,
            arguments["text"],
            arguments.get("blocks") or [],
            thread_ts=self._parent(channel, arguments),
            viewer=user.id,
            by_bot=True,
        )
        self._space.post(message)
        return {"message_ts": message.ts}

    def _permalink(self, arguments: Json) -> Json:
        channel = self._channel(arguments)
        message = self._message(channel, _needed(arguments, "message_ts"))
        link = f"{self._space.origin}/archives/{channel.id}/p{message.ts.replace('.', '')}"
        if message.thread_ts:
            link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
        return {"channel": channel.id, "permalink": link}

    # -- channels

    def _conversation(self, arguments: Json) -> Json:
        channel = self._readable(arguments)
        strangers = any(self._space.user(member).team_id for member in channel.members)
        return {
            "channel": {
                "id": channel.id,
                "name": channel.name,
                "is_channel": not channel.private,
                "is_group": channel.private,
                "is_private": channel.private,
                "is_member": channel.has_bot,
                "is_archived": False,
                "is_shared": strangers,
                "is_ext_shared": strangers,
                "is_org_shared": False,
                "is_pending_ext_shared": False,
                "topic": {"value": channel.topic},
                "num_members": len(channel.members) + channel.has_bot,
            }
        }

    def _members(self, arguments: Json) -> Json:
        channel = self._readable(arguments)
        bot = [self._space.config.bot.user_id] if channel.has_bot else []
        return {"members": [*channel.members, *bot], "response_metadata": {"next_cursor": ""}}

    def _history(self, arguments: Json) -> Json:
        channel = self._joined(arguments)
        everything = [m for m in self._space.in_channel(channel.id) if not m.thread_ts and not m.viewer]
        limit = _whole(arguments, "limit", PAGE)
        newest = [self._space.message_shape(message) for message in reversed(everything)]
        return {"messages": newest[:limit], "has_more": len(newest) > limit}

    def _replies(self, arguments: Json) -> Json:
        channel = self._joined(arguments)
        messages = [m for m in self._space.thread(channel.id, _needed(arguments, "ts")) if not m.viewer]
        if not messages:
            raise SlackError("thread_not_found")
        return {"messages": [self._space.message_shape(message) for message in messages], "has_more": False}

    # -- people

    def _user_info(self, arguments: Json) -> Json:
        user = self._user(arguments)
        shared = any(user.id in channel.members and channel.has_bot for channel in self._space.config.channels)
        return {
            "user": {
                "id": user.id,
                "team_id": user.team_id or self._space.config.team.id,
                "name": user.name,
                "real_name": user.real_name,
                "deleted": False,
                "is_bot": False,
                "is_restricted": user.guest,
                "is_ultra_restricted": False,
                # of another team's member only where no channel is shared with the app
                "is_stranger": bool(user.team_id) and not shared,
            }
        }

    def _groups(self, arguments: Json) -> Json:
        with_users = _true(arguments.get("include_users"))
        return {"usergroups": [self._group_shape(group, with_users) for group in self._space.groups.values()]}

    def _group_users(self, arguments: Json) -> Json:
        asked = _needed(arguments, "usergroup")
        for group in self._space.groups.values():
            if group.id == asked:
                return {"users": list(group.members)}
        raise SlackError("no_such_subteam")

    def _group_shape(self, group: Group, with_users: bool) -> Json:
        shape: Json = {
            "id": group.id,
            "team_id": self._space.config.team.id,
            "is_usergroup": True,
            "handle": group.handle,
            "name": group.name,
            "user_count": len(group.members),
        }
        return shape | ({"users": list(group.members)} if with_users else {})

    # -- modals

    def _open_view(self, arguments: Json) -> Json:
        content = self._view_argument(arguments)
        trigger = self._space.use_trigger(_needed(arguments, "trigger_id"))
        return {"view": self._space.view_shape(self._space.put_view(trigger.user, content))}

    def _push_view(self, arguments: Json) -> Json:
        content = self._view_argument(arguments)
        trigger = self._space.use_trigger(_needed(arguments, "trigger_id"))
        stack = self._space.open_views(trigger.user)
        if not stack:
            raise SlackError("not_found")
        if len(stack) >= MODALS_DEEP:
            raise SlackError("push_limit_reached")
        return {"view": self._space.view_shape(self._space.put_view(trigger.user, content, below=stack[-1]))}

    def _update_view(self, arguments: Json) -> Json:
        content = self._view_argument(arguments)
        view = self._find_view(arguments)
        if arguments.get("hash") not in (None, "", view.hash):
            raise SlackError("hash_conflict")
        return {"view": self._space.view_shape(self._space.fill_view(view, content))}

    def _find_view(self, arguments: Json) -> View:
        external = arguments.get("external_id")
        if external:
            found = next((v for v in self._space.views.values() if v.content.get("external_id") == external), None)
        else:
            found = self._space.views.get(_needed(arguments, "view_id"))
        if found is None:
            raise SlackError("not_found")
        return found

    def _view_argument(self, arguments: Json) -> Json:
        if "view" not in arguments:
            raise _missing("view")
        _refuse(validate_view(arguments["view"]))
        content: Json = arguments["view"]
        return content

    # -- files

    def _upload_url(self, arguments: Json) -> Json:
        length = _whole(arguments, "length", 0)
        if not 0 < length <= FILE_BYTES:
            raise _bad(f"must be a whole number from 1 to {FILE_BYTES}", "/length")
        name = str(_needed(arguments, "filename"))
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        upload = Upload("F" + secrets.token_hex(5).upper(), name, length, kind, str(arguments.get("alt_txt") or ""))
        self._space.uploads[upload.id] = upload
        return {"upload_url": f"{self._space.origin}/upload/{upload.id}", "file_id": upload.id}

    def _complete_upload(self, arguments: Json) -> Json:
        wanted = arguments.get("files")
        if not isinstance(wanted, list) or not wanted or not all(isinstance(file, dict) for file in wanted):
            raise _missing("files")
        uploads = [self._space.uploads.get(file.get("id", "")) for file in wanted]
        done = [upload for upload in uploads if upload is not None and upload.data is not None and not upload.shared]
        if len(done) != len(wanted):
            raise SlackError("file_not_found")
        channel = self._joined({"channel": arguments["channel_id"]}) if arguments.get("channel_id") else None
        thread_ts = self._parent(channel, arguments) if channel else ""
        for upload, file in zip(done, wanted, strict=True):
            upload.title, upload.shared = file.get("title") or upload.name, True
        shapes = [self._file_shape(upload) for upload in done]
        if channel:
            bot, text = self._space.config.bot.user_id, arguments.get("initial_comment") or ""
            message = Message(channel.id, self._space.next_ts(), bot, text, thread_ts=thread_ts, by_bot=True)
            message.files = shapes
            self._space.post(message)
        return {"files": shapes}

    def _file_info(self, arguments: Json) -> Json:
        upload = self._space.uploads.get(_needed(arguments, "file"))
        if upload is None or not upload.shared:
            raise SlackError("file_not_found")
        return {"file": self._file_shape(upload), "comments": []}

    def _file_shape(self, upload: Upload) -> Json:
        shape: Json = {
            "id": upload.id,
            "name": upload.name,
            "title": upload.title,
            "mimetype": upload.mimetype,
            "filetype": upload.name.rpartition(".")[2] or "text",
            "size": upload.length,
            "url_private": f"{self._space.origin}/page/file/{upload.id}",
        }
        return shape | ({"alt_txt": upload.alt_text} if upload.alt_text else {})

    # -- what several need

    def _channel(self, arguments: Json) -> Channel:
        """A channel by id. A private one without the bot does not exist for it."""
        asked = _needed(arguments, "channel")
        for channel in self._space.config.channels:
            if asked == channel.id and (channel.has_bot or not channel.private):
                return channel
        raise SlackError("channel_not_found")

    def _readable(self, arguments: Json) -> Channel:
        """A channel of a kind that the app's scopes let it look at."""
        granted = self._space.manifest.scopes
        provided = ",".join(sorted(granted))
        if not granted & {"channels:read", "groups:read"}:
            needed = "channels:read,groups:read,mpim:read,im:read"
            raise SlackError("missing_scope", needed=needed, provided=provided)
        channel = self._channel(arguments)
        needed = "groups:read" if channel.private else "channels:read"
        if needed not in granted:
            raise SlackError("missing_scope", needed=needed, provided=provided)
        return channel

    def _joined(self, arguments: Json) -> Channel:
        channel = self._channel(arguments)
        if channel.archived:
            raise SlackError("is_archived")
        if not channel.has_bot:
            raise SlackError("not_in_channel")
        return channel

    def _user(self, arguments: Json) -> User:
        asked = _needed(arguments, "user")
        for user in self._space.config.users:
            if user.id == asked:
                return user
        raise SlackError("user_not_found")

    def _message(self, channel: Channel, ts: str) -> Message:
        message = self._space.messages.get((channel.id, ts))
        if message is None or message.viewer:  # a message only one user sees cannot be reached by its ts
            raise SlackError("message_not_found")
        return message

    def _own_message(self, arguments: Json, otherwise: str) -> tuple[Channel, Message]:
        channel = self._channel(arguments)
        message = self._message(channel, _needed(arguments, "ts"))
        if not message.by_bot:
            raise SlackError(otherwise)
        return channel, message

    def _parent(self, channel: Channel, arguments: Json) -> str:
        """ts of the thread to write into; that of a reply leads to the reply's own thread."""
        asked = arguments.get("thread_ts")
        if not asked:
            return ""
        message = self._space.messages.get((channel.id, str(asked)))
        if message is None or message.viewer:
            raise SlackError("thread_not_found")
        return message.thread_ts or message.ts


def _needed(arguments: Json, name: str) -> Any:
    value = arguments.get(name)
    if value in (None, ""):
        raise _missing(name)
    return value


def _whole(arguments: Json, name: str, otherwise: int) -> int:
    try:
        return int(arguments.get(name) or otherwise)
    except (TypeError, ValueError):
        raise _bad("must be a whole number", f"/{name}") from None


def _true(value: Any) -> bool:
    return str(value).lower() in ("true", "1")


def _missing(name: str) -> SlackError:
    return _bad(f"missing required field: {name}", "")


def _bad(message: str, pointer: str) -> SlackError:
    return refusal([Problem(message, pointer, "invalid_arguments")])


def refusal(problems: list[Problem]) -> SlackError:
    """Slack's answer to a payload it does not take; the first problem gives the error word."""
    return SlackError(problems[0].code, response_metadata={"messages": [f"[ERROR] {problem}" for problem in problems]})


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise refusal(problems)
