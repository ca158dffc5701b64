"""The switch that stops all fixes, and how many an hour may hold; without it one wrong rule would change every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from fixes.request import FixRequest, Person, moment, stamp
from fixes.store import CALL_TIMEOUT_S, FixStore, StoreError

NAME = "calico-why-fixes"
PER_NODE, PER_KIND = 20, 60  # fixes an hour; an incident needs a handful
HOUR = timedelta(hours=1)
ATTEMPTS = 16
CHANGED_BY, CHANGED_AT, REASON = "changedBy", "changedAt", "reason"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the ConfigMap says; without one, this."""

    enabled: bool = True
    per_node_per_hour: int = PER_NODE
    per_kind_per_hour: int = PER_KIND
    changed_by: str = ""
    changed_at: str = ""
    reason: str = ""

    def refusal(self, request: FixRequest, others: Sequence[FixRequest], now: datetime) -> str:
        """Why this request may not be done now, "" when it may. others: all requests there are."""
        if not self.enabled:
            return self.off()
        recent = [one for one in others if one.name != request.name and _begun_since(one, now - HOUR)]
        on_node = sum(one.spec.node == request.spec.node for one in recent)
        of_kind = sum(one.spec.kind == request.spec.kind for one in recent)
        if on_node >= self.per_node_per_hour:
            where = request.spec.node or "the whole cluster"
            return (
                f"{on_node} fixes were begun on {where} within an hour, and {self.per_node_per_hour} are "
                f"allowed (perNodePerHour in the ConfigMap {NAME})"
            )
        if of_kind >= self.per_kind_per_hour:
            return (
                f"{of_kind} fixes of the kind {request.spec.kind} were begun within an hour, and "
                f"{self.per_kind_per_hour} are allowed (perKindPerHour in the ConfigMap {NAME})"
            )
        return ""

    def off(self) -> str:
        """Who switched fixes off, when and why, without a full stop; "" while they are on."""
        if self.enabled:
            return ""
        by = f" by {self.changed_by}" if self.changed_by else ""
        at = f" at {self.changed_at}" if self.changed_at else ""
        return f"fixes are switched off{by}{at}" + (f": {self.reason}" if self.reason else "")


class Switch:
    """The ConfigMap with the switch and the limits, read anew each time.

    Every method raises StoreError where it cannot be read, or holds what nobody can mean: then nothing may be done.
    """

    def __init__(self, store: FixStore) -> None:
        self._store = store
        self._core = client.CoreV1Api(store.api)

    async def read(self) -> Limits:
        found = await self._read()
        return Limits() if found is None else limits(found.get("data") or {})

    async def refusal(self, request: FixRequest) -> str:
        """Why this request may not be done now, "" when it may.

        A node's fixer does one after another, so its own count is exact; of one kind on several nodes at once, one more
        than allowed may begin on each.
        """
        return (await self.read()).refusal(request, await self._store.all(), self._store.now())

    async def turn(self, on: bool, by: Person, reason: str = "") -> Limits:
        """Switch all fixes on or off. Limits stay as they are."""
        said = {
            "enabled": "true" if on else "false",
            CHANGED_BY: by.name or by.id,
            CHANGED_AT: stamp(self._store.now()),
            REASON: reason,
        }
        for _ in range(ATTEMPTS):
            found = await self._read()
            if found is None:
                body: dict[str, Any] = {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": NAME},
                    "data": said,
                }
                call = self._core.create_namespaced_config_map(self._store.namespace, body, **_patience())
            else:
                body = {**found, "data": {**(found.get("data") or {}), **said}}
                call = self._core.replace_namespaced_config_map(NAME, self._store.namespace, body, **_patience())
            try:
                await call
                return await self.read()
            except ApiException as error:
                if error.status != 409:
                    raise _failed(error) from None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _unreachable(error) from None
        raise StoreError(
            f"The ConfigMap {NAME} is being changed by others all the time; it was not changed. Try again."
        )

    async def _read(self) -> dict[str, Any] | None:
        """As plain data; None where there is none."""
        try:
            found = await self._core.read_namespaced_config_map(NAME, self._store.namespace, **_patience())
        except ApiException as error:
            if error.status == 404:
                return None
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        plain: dict[str, Any] = self._store.api.sanitize_for_serialization(found)
        return plain


def limits(data: Mapping[str, str]) -> Limits:
    """What the data of the ConfigMap says. Raises StoreError for what nobody can mean."""
    enabled = data.get("enabled", "true").strip()
    if enabled not in ("true", "false"):
        raise StoreError(
            f"enabled in the ConfigMap {NAME} is {enabled!r}; it is true or false. Until then nothing is done."
        )
    return Limits(
        enabled=enabled == "true",
        per_node_per_hour=_number(data, "perNodePerHour", PER_NODE),
        per_kind_per_hour=_number(data, "perKindPerHour", PER_KIND),
        changed_by=data.get(CHANGED_BY, ""),
        changed_at=data.get(CHANGED_AT, ""),
        reason=data.get(REASON, ""),
    )


def _number(data: Mapping[str, str], key: str, default: int) -> int:
    text = data.get(key, str(default)).strip()
    if not text.isascii() or not text.isdigit():
        raise StoreError(f"{key} in the ConfigMap {NAME} is {text!r}; it is a number. Until then nothing is done.")
    return int(text)


def _begun_since(request: FixRequest, since: datetime) -> bool:
    if not request.status.started_at:
        return False
    try:
        return moment(request.status.started_at) > since
    except (ValueError, TypeError):
        return True  # of a time nobody can read


def _failed(error: ApiException) -> StoreError:
    return StoreError(
        f"The API server answered {error.status} ({error.reason}) about the ConfigMap {NAME}, which says whether fixes "
        "are on, so nothing is done. Grant get, create and update on it."
    )


def _unreachable(error: Exception) -> StoreError:
    return StoreError(
        f"The API server cannot be reached ({error or type(error).__name__}), so nobody knows whether fixes are on, "
        "and nothing is done. Check the kubeconfig and the network, then try again."
    )


def _patience() -> dict[str, float]:
    return {"_request_timeout": CALL_TIMEOUT_S}
