"""The API server as a cluster fix may use it; without it each kind would read and write in its own way, or by force."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
import yaml
from kubernetes.aio import client

from certificates.trouble import unanswered

Object = dict[str, Any]

CLASSIC = "crd.projectcalico.org/v1"
NATIVE = "projectcalico.org/v3"
CORE = frozenset({"pods", "nodes", "services"})
RENAMED = {"ipamconfigs": "ipamconfigurations"}  # the one resource that has another name in projectcalico.org/v3

CALL_TIMEOUT_S = 15.0
PAGE = 500


class ApiError(Exception):
    """It was not read, or not written. The text is a sentence for a person."""


class Conflict(ApiError):
    """Somebody else's write came first; nothing was written. Read again, and look whether it is still right."""


class Denied(ApiError):
    """The API server does not let this account do it."""


class Calico:
    """Calico's objects, and the pods, nodes and services beside them, each a plain dictionary with all its fields.

    Resources are named by their plural of crd.projectcalico.org/v1, wherever this cluster keeps them. Every read is
    answered by a majority of the cluster's store, not by a cache. Every method raises ApiError.
    """

    def __init__(
        self,
        api: client.ApiClient,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._api = api
        self._group = environment.get("CALICO_API_GROUP", "")
        self.now = now
        self.pause = pause

    async def group(self) -> str:
        """Where Calico keeps its objects, by Calico's own rule (calico.md 1.1)."""
        if not self._group:
            status, answer = await self._send("GET", "/apis")
            if status != 200:
                raise _refused(status, answer, "the list of API groups")
            served = {one.get("name") for one in answer.get("groups") or ()}
            for group in (CLASSIC, NATIVE):
                if group.split("/")[0] in served:
                    self._group = group
                    break
            else:
                raise ApiError(
                    f"This cluster serves neither {CLASSIC} nor {NATIVE}. A Calico with its own etcd is left alone."
                )
        if self._group not in (CLASSIC, NATIVE):
            raise ApiError(f"CALICO_API_GROUP is {self._group!r}; Calico knows {CLASSIC} and {NATIVE}.")
        return self._group

    async def get(self, resource: str, name: str, namespace: str = "") -> Object | None:
        """The object as it is now, None when there is none of this name."""
        status, answer = await self._send("GET", await self._path(resource, name, namespace))
        if status == 200:
            return answer
        if status == 404 and (answer.get("details") or {}).get("name"):
            return None
        raise _refused(status, answer, f"{resource} {name}")

    async def list(self, resource: str, **query: str) -> list[Object]:
        """All of them, of all namespaces; `query` as the API knows it (labelSelector, fieldSelector)."""
        items: list[Object] = []
        path = await self._path(resource)
        more: dict[str, str] = {}
        while True:
            status, answer = await self._send("GET", path, {"limit": str(PAGE), **query, **more})
            if status != 200:
                raise _refused(status, answer, resource)
            items += answer.get("items") or []
            token = str((answer.get("metadata") or {}).get("continue") or "")
            if not token:
                return items
            more = {"continue": token}

    async def replace(self, resource: str, changed: Object) -> Object:
        """Write the object if nobody wrote it since it was read, and return it as it is now. Raises Conflict.

        Where the answer is lost the object is read again: it may have been written all the same.
        """
        metadata = changed["metadata"]
        if not metadata.get("resourceVersion"):
            raise ValueError(f"{metadata['name']} has no resourceVersion: that would overwrite whatever is there")
        path = await self._path(resource, metadata["name"], metadata.get("namespace", ""))
        try:
            status, answer = await self._send("PUT", path, body=changed)
        except ApiError:
            found = await self.get(resource, metadata["name"], metadata.get("namespace", ""))
            if found is None or found.get("spec") != changed.get("spec"):
                raise
            return found
        if status == 409 or status == 404:
            raise Conflict(f"{resource} {metadata['name']} was changed by somebody else at the same moment.")
        if status not in (200, 201):
            raise _refused(status, answer, f"{resource} {metadata['name']}")
        return answer

    async def create(self, resource: str, wanted: Object) -> Object:
        """Make an object that is not there yet, and return it as it is now. Raises Conflict where there is one.

        Where the answer is lost it is looked for: it may have been made all the same.
        """
        metadata = wanted["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        try:
            status, answer = await self._send("POST", await self._path(resource, "", namespace), body=wanted)
        except ApiError:
            found = await self.get(resource, name, namespace)
            if found is None or found.get("spec") != wanted.get("spec"):
                raise
            return found
        if status == 409:
            raise Conflict(f"{resource} {name} was made by somebody else at the same moment.")
        if status not in (200, 201):
            raise _refused(status, answer, f"{resource} {name}")
        return answer

    async def try_out(self, resource: str, wanted: Object) -> Object:
        """What the API server would store of this object, all its rules applied, and nothing is written (a dry run).

        One without a resourceVersion would be made. Raises ApiError as the write would, and for unknown fields.
        """
        metadata = wanted["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        new = not metadata.get("resourceVersion")
        status, answer = await self._send(
            "POST" if new else "PUT",
            await self._path(resource, "" if new else name, namespace),
            {"dryRun": "All", "fieldValidation": "Strict"},
            body=wanted,
        )
        if status == 409:
            raise Conflict(f"{resource} {name} was {'made' if new else 'changed'} by somebody else meanwhile.")
        if status not in (200, 201):
            raise _refused(status, answer, f"{resource} {name}")
        return answer

    async def delete(self, resource: str, seen: Object) -> None:
        """Delete exactly what was read; that it is gone already is as good. Raises Conflict when it was changed."""
        metadata = seen["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        }
        path = await self._path(resource, metadata["name"], metadata.get("namespace", ""))
        status, answer = await self._send("DELETE", path, body=body)
        if status == 409:
            raise Conflict(f"{resource} {metadata['name']} was changed by somebody else at the same moment.")
        if status not in (200, 202, 404):
            raise _refused(status, answer, f"{resource} {metadata['name']}")

    async def _path(self, resource: str, name: str = "", namespace: str = "") -> str:
        if resource in CORE:
            base = "/api/v1"
        else:
            group = await self.group()
            base = f"/apis/{group}"
            resource = RENAMED.get(resource, resource) if group == NATIVE else resource
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        return f"{base}{within}/{resource}" + (f"/{quote(name, safe='')}" if name else "")

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> tuple[int, Object]:
        """HTTP status and the JSON object of the answer. Raises ApiError when there was no such answer."""
        try:
            verb, url, headers, sent, _ = await self._api.param_serialize(
                method,
                path + (f"?{urlencode(query)}" if query else ""),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(
                verb, url, headers, body=sent, _request_timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
            )
            raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(f"The API server cannot be reached ({unanswered(error)}).") from error
        try:
            # Sequence numbers have 61 bits: they stay whole here, and would not in a float.
            answer = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        if not isinstance(answer, dict):
            raise ApiError(
                f"The API server answered {response.status} to {path} with something that is no JSON object."
            )
        return response.status, answer


def difference(name: str, before: Object | None, after: Object | None) -> list[str]:
    """What would be written to one object: a unified diff of YAML, None for "there is none"."""

    def text(one: Object | None) -> list[str]:
        return yaml.safe_dump(one, sort_keys=False).splitlines() if one is not None else []

    return list(difflib.unified_diff(text(before), text(after), f"{name} (now)", f"{name} (then)", lineterm=""))


def _refused(status: int, answer: Object, what: str) -> ApiError:
    said = answer.get("message") or answer.get("reason") or "nothing more"
    if status in (401, 403):
        return Denied(f"The API server does not let this fixer at {what}: {said}")
    return ApiError(f"The API server answered {status} for {what}: {said}")
