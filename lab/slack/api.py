"""The Web API over HTTP: arguments, tokens, scopes, planned failures; without it no client could talk to the lab."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from aiohttp import web

from lab.slack.faults import ApiFault, Faults
from lab.slack.methods import Methods, refusal
from lab.slack.records import Call
from lab.slack.validation import Problem, validate_message
from lab.slack.workspace import RESPONSE_URL_USES, Json, Message, ResponseUrl, SlackError, Workspace

log = logging.getLogger(__name__)

JSON_IN_STRING = ("blocks", "view", "files", "metadata")
SECRETS = frozenset({"token"})


class Api:
    """Routes /api/<method>, /upload/<file id> and /hooks/<key>. `calls` is every call in order, also refused ones."""

    def __init__(self, workspace: Workspace, faults: Faults, methods: Methods) -> None:
        self._space, self._faults, self._methods = workspace, faults, methods
        self.calls: list[Call] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/{method}", self._handle),
            web.post("/api/{method}", self._handle),
            web.post("/upload/{file}", self._upload),
            web.post("/hooks/{key}", self._hook),
        ]

    # -- methods

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        call = Call(self._space.clock.now(), name, {})
        self.calls.append(call)
        try:
            arguments = await _arguments(request)
            call.arguments = {key: value for key, value in arguments.items() if key not in SECRETS}
            fault = self._faults.take(name, str(arguments.get("channel", "")))
            await asyncio.sleep(self._faults.latency)
            if not self._faults.audible.is_set():
                await self._faults.audible.wait()
                if request.transport is None or request.transport.is_closing():
                    call.status = 0
                    return web.Response()
            if fault is not None and fault.failure == "error":
                raise SlackError(fault.error)
            if fault is not None and fault.failure not in ("lost", "timeout"):
                return self._fail(request, call, fault)
            token = _token(request, arguments)
            answer = self._run(name, token, arguments)
            if fault is not None:
                call.status = 0
                if fault.failure == "timeout":
                    await self._space.closing.wait()
                return self._cut(request)
            return web.json_response({"ok": True, **answer}, headers={"x-oauth-scopes": self._scopes(token)})
        except SlackError as error:
            call.error = error.error
            return web.json_response({"ok": False, "error": error.error, **error.more})
        finally:
            self._space.changed()

    def _run(self, name: str, token: str, arguments: Json) -> Json:
        method = self._methods.by_name.get(name)
        if method is None:
            log.error("%s is a method this local Slack does not have; a bot that needs it cannot be tested here", name)
            raise SlackError("unknown_method", req_method=name)
        config, granted = self._space.config, self._space.manifest.scopes
        if not token:
            raise SlackError("not_authed")
        if token not in (config.bot_token, config.app_token):
            raise SlackError("invalid_auth")
        if (token == config.app_token) != method.app_token and name not in ("auth.test", "api.test"):
            raise SlackError("not_allowed_token_type")
        if method.scope and method.scope not in granted:
            raise SlackError("missing_scope", needed=method.scope, provided=",".join(sorted(granted)))
        return method.run(arguments)

    def _scopes(self, token: str) -> str:
        if token == self._space.config.app_token:
            return "connections:write"
        return ",".join(sorted(self._space.manifest.scopes))

    def _fail(self, request: web.Request, call: Call, fault: ApiFault) -> web.Response:
        if fault.failure == "429":
            call.status, call.error = 429, "ratelimited"
            headers = {"Retry-After": str(fault.retry_after)}
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
        if fault.failure == "500":
            call.status, call.error = 500, "internal_error"
            return web.json_response({"ok": False, "error": "internal_error"}, status=500)
        call.status = 0
        return self._cut(request)

    def _cut(self, request: web.Request) -> web.Response:
        """Breaks the connection: what is returned reaches nobody."""
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    # -- bytes of a file

    async def _upload(self, request: web.Request) -> web.Response:
        upload = self._space.uploads.get(request.match_info["file"])
        if upload is None or upload.data is not None:
            return web.Response(status=404, text="no such upload")
        data = await _uploaded(request)
        if len(data) != upload.length:
            return web.Response(status=400, text=f"announced {upload.length} bytes, got {len(data)}")
        upload.data = data
        self._space.changed()
        return web.Response(text=f"OK - {len(data)}")

    # -- response_url

    async def _hook(self, request: web.Request) -> web.Response:
        call = Call(self._space.clock.now(), "response_url", {})
        self.calls.append(call)
        try:
            hook = self._space.response_urls.get(request.match_info["key"])
            if hook is None or hook.uses >= RESPONSE_URL_USES:
                raise SlackError("used_url")
            if self._space.clock.now() > hook.expires:
                raise SlackError("expired_url")
            hook.uses += 1
            call.arguments = await _arguments(request)
            self._respond(hook, call.arguments)
            return web.Response(text="ok")
        except SlackError as error:
            call.error = error.error
            call.status = 404 if error.error in ("used_url", "expired_url") else 400
            return web.json_response({"ok": False, "error": error.error, **error.more}, status=call.status)
        finally:
            self._space.changed()

    def _respond(self, hook: ResponseUrl, body: Json) -> None:
        original = self._space.messages.get((hook.channel, hook.original))
        if body.get("delete_original"):
            if original is not None:
                self._space.remove(original)
            return
        if body.get("replace_original") and original is not None:
            _accept(body)
            self._space.rewrite(original, str(body["text"]), body.get("blocks") or [])
            return
        self.answer(hook.user, hook.channel, body, str(body.get("thread_ts") or hook.thread_ts))

    def answer(self, user: str, channel: str, body: Json, thread_ts: str = "") -> Message:
        """Shows what a bot answered to a command or click: to that user only, unless it says `in_channel`.

        Raises SlackError for a payload Slack would not take.
        """
        _accept(body)
        message = Message(
            channel,
            self._space.next_ts(),
            self._space.config.bot.user_id,
            str(body["text"]),
            body.get("blocks") or [],
            thread_ts=thread_ts,
            viewer="" if body.get("response_type") == "in_channel" else user,
            by_bot=True,
        )
        return self._space.post(message)


def _accept(body: Json) -> None:
    problems = validate_message(body)
    if problems:
        raise refusal(problems)


def _token(request: web.Request, arguments: Json) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else str(arguments.get("token") or "")


async def _arguments(request: web.Request) -> Json:
    """From the query and a JSON, form or multipart body; some values are JSON written into a string."""
    found: Json = dict(request.query)
    if request.content_type == "application/json":
        found |= _object(await request.text())
    elif request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        found |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    if set(found) == {"payload"}:  # how a form carries a whole response_url message
        found = _object(str(found["payload"]))
    for name in JSON_IN_STRING:
        if isinstance(found.get(name), str):
            found[name] = _decode(name, found[name])
    return found


def _object(text: str) -> Json:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(value, dict):
        raise SlackError("json_not_object")
    return value


def _decode(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if name == "blocks":
            raise SlackError("invalid_blocks_format") from None
        raise refusal([Problem("must be valid JSON", f"/{name}", "invalid_arguments")]) from None


async def _uploaded(request: web.Request) -> bytes:
    """The bytes of one file, sent raw or as the first file of a form."""
    if request.content_type != "multipart/form-data":
        return await request.read()
    files = (value for value in (await request.post()).values() if isinstance(value, web.FileField))
    return next((file.file.read() for file in files), b"")
