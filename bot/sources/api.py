"""One GET of the Kubernetes API, with answers as plain dictionaries and errors as sentences; every look passes here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from bot.errors import COULD_NOT_JUDGE, UserError
from bot.sources.clock import skew
from certificates import kubeconfig as kubeconfigs
from certificates.trouble import brief
from facts import say

PAGE = 500
CONNECTIONS = 16  # each has buffers of 256 KiB for TLS; one question asks for some ten things at once


class Missing(Exception):
    """The API server knows the resource and has no object of that name."""


class Refused(Exception):
    """The API server answered, with something else than the object. `reason` is a sentence for a person."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Unreachable(Exception):
    """No answer came. `reason` is a sentence for a person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Api:
    """The API server of one kubeconfig context. Close it when done. `calls` counts the requests that were sent."""

    def __init__(self, configuration: Configuration, *, context: str, namespace: str, timeout_s: float) -> None:
        self.context = context
        self.namespace = namespace
        self.server: str = configuration.host
        self.calls = 0
        self.asked: Callable[[int | None, float], None] = lambda *_: None  # is told each status (None: none came), in s
        self._timeout_s = timeout_s
        configuration.connection_pool_maxsize = CONNECTIONS
        self._client = ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: str, context: str = "", *, timeout_s: float) -> Api:
        """Reads the kubeconfig ("": ~/.kube/config where it exists, else in-cluster). context: of it, else its current
        one. Raises UserError without one."""
        try:
            known = await kubeconfigs.known(kubeconfig or kubeconfigs.own(), context)
        except kubeconfigs.NoCluster as error:
            raise UserError(error.sentence, status=COULD_NOT_JUDGE) from error
        return cls(known.configuration, context=known.context, namespace=known.namespace, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._client.close()

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """One object or one page of a list. Raises Missing, Refused, Unreachable; UserError when not let in (401)."""
        status, body = await self._send(path, query)
        if status == 401:
            raise UserError(
                f"The API server {self.server} does not accept these credentials (401), so nothing can be read. "
                "Log in again, or use another kubeconfig.",
                status=COULD_NOT_JUDGE,
            )
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        if not isinstance(answer, dict):
            if status == 404:
                raise Refused(status, say("the API server does not serve {path}", path=path))
            strange = say(
                "the API server answered {status} to {path} with something that is no JSON object",
                status=status,
                path=path,
            )
            raise Refused(status, strange)
        if status == 200:
            return answer
        if status == 404 and answer.get("reason") == "NotFound" and (answer.get("details") or {}).get("name"):
            raise Missing(path)
        said = answer.get("message") or answer.get("reason") or path
        raise Refused(status, say("the API server answered {status}: {said}", status=status, said=said))

    async def clock(self) -> float | None:
        """By how many seconds its clock surely is ahead of ours (negative: behind), None where it does not say. Raises
        Unreachable."""
        sent = time.time()
        response = await self._ask("/version", {}, "application/json")
        return skew(response.headers.get("Date", ""), sent, time.time())

    async def text(self, path: str, **query: str | int) -> bytes:
        """What is no JSON: the log of a container. Raises Missing, Refused, Unreachable."""
        status, body = await self._send(path, query, "application/json, */*")
        if status == 200:
            return body
        said = body[:200].decode("utf-8", "replace").strip()
        with contextlib.suppress(msgspec.DecodeError, AttributeError):
            said = msgspec.json.decode(body).get("message") or said
        if status == 404:
            raise Missing(path)
        raise Refused(status, say("the API server answered {status}: {said}", status=status, said=said))

    async def pages(self, path: str, **query: str | int) -> list[dict[str, Any]]:
        """All items of a list, in pages of PAGE. Raises as `get` does."""
        items: list[dict[str, Any]] = []
        more = ""
        while True:
            answer = await self.get(path, limit=PAGE, **query, **({"continue": more} if more else {}))
            items += answer.get("items") or []
            more = str((answer.get("metadata") or {}).get("continue") or "")
            if not more:
                return items

    async def _send(
        self, path: str, query: dict[str, str | int], accept: str = "application/json"
    ) -> tuple[int, bytes]:
        response = await self._ask(path, query, accept)
        return response.status, response.body

    async def _ask(self, path: str, query: dict[str, str | int], accept: str) -> _Response:
        began = time.monotonic()
        try:
            response = await self._sent(path, query, accept)
        except Unreachable:
            self.asked(None, time.monotonic() - began)
            raise
        self.asked(response.status, time.monotonic() - began)
        return response

    async def _sent(self, path: str, query: dict[str, str | int], accept: str) -> _Response:
        self.calls += 1
        try:
            method, url, headers, _, _ = await self._client.param_serialize(
                "GET",
                path,
                query_params=list(query.items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(
                method, url, headers, _request_timeout=aiohttp.ClientTimeout(total=self._timeout_s)
            )
            return _Response(response.status, response.headers, await response.read())
        except TimeoutError as error:
            late = say("{server} did not answer within {seconds} s", server=self.server, seconds=f"{self._timeout_s:g}")
            raise Unreachable(late) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{self.server}: {brief(error)}") from error

    def unreachable(self, error: Unreachable) -> UserError:
        """The sentence for a question that cannot be answered without this look."""
        return UserError(
            f"The API server cannot be reached ({error.reason}), so nothing can be looked at. "
            "Check that the cluster is up and that KUBECONFIG points to it.",
            status=COULD_NOT_JUDGE,
        )


def name(text: str) -> str:
    """A name made safe as one segment of a path."""
    return quote(text, safe="")
