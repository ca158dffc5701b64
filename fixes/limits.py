"""The switch that stops all fixes, and how many an hour may hold; without it one wrong rule would change every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import aiohttp
import msgspec
from kubernetes.aio.client.exceptions import ApiException

from certificates.trouble import unanswered
from fixes.request import CAPTURE, ENDS, FixRequest, Person, moment, stamp
from fixes.store import FixStore, StoreError, denial, reason_of

NAME = "calico-why-fixes"
PER_NODE, PER_KIND = 20, 60  # fixes an hour; an incident needs a handful
HOUR = timedelta(hours=1)
ATTEMPTS = 64  # each lost one is another fix that was begun
BEGUN = "begun"  # in the ConfigMap's data: a line for each fix that was begun within the last hour
NO_NODE = "-"
CHANGED_BY, CHANGED_AT, REASON = "changedBy", "changedAt", "reason"


class Begun(NamedTuple):
    """A fix that was begun. node: "" for the whole cluster; at: RFC 3339."""

    name: str
    kind: str
    node: str
    at: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the ConfigMap says; of what it does not say, this."""

    enabled: bool = True
    per_node_per_hour: int = PER_NODE
    per_kind_per_hour: int = PER_KIND
    changed_by: str = ""
    changed_at: str = ""
    reason: str = ""

    def refusal(self, request: FixRequest, begun: Sequence[Begun]) -> str:
        """Why this request may not be done now, "" when it may. begun: all others within the last hour."""
        if not self.enabled:
            return self.off()
        # Captures, which change nothing, must not use up what is allowed of fixes.
        alike = [one for one in begun if (one.kind == CAPTURE) == (request.spec.kind == CAPTURE)]
        on_node = sum(one.node == request.spec.node for one in alike)
        of_kind = sum(one.kind == request.spec.kind for one in alike)
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

    Every method raises StoreError where it is not there, cannot be read, or holds what nobody can mean: then nothing
    may be done. It comes with the manifests, and nobody here makes it: RBAC cannot limit the right to create to a name.
    """

    def __init__(self, store: FixStore) -> None:
        self._store = store

    async def read(self) -> Limits:
        return limits((await self._read()).get("data") or {})

    async def begin(self, request: FixRequest) -> str:
        """Count this request as begun and return ""; or why it may not be begun now.

        Written by compare-and-swap into the very object that has the switch and the limits: of all fixers that would
        begin the last one allowed, one does, and once fixes are switched off none begins any more.
        """
        for _ in range(ATTEMPTS):
            found = await self._read()
            data: Mapping[str, str] = found.get("data") or {}
            begun = _begun(data, await self._store.all(), self._store.now() - HOUR)
            begun.pop(request.name, None)  # counted, and not begun: whoever did that died in between
            if refusal := limits(data).refusal(request, list(begun.values())):
                return refusal
            own = Begun(request.name, request.spec.kind, request.spec.node, stamp(self._store.now()))
            lines = [" ".join(one._replace(node=one.node or NO_NODE)) for one in (*begun.values(), own)]
            if await self._write(found, {BEGUN: "\n".join(lines)}):
                return ""
        raise StoreError(f"The ConfigMap {NAME} is being changed by others all the time; nothing is begun.")

    async def turn(self, on: bool, by: Person, reason: str = "") -> Limits:
        """Switch all fixes on or off. Limits stay as they are."""
        said = {
            "enabled": "true" if on else "false",
            CHANGED_BY: by.name or by.id,
            CHANGED_AT: stamp(self._store.now()),
            REASON: reason,
        }
        for _ in range(ATTEMPTS):
            if await self._write(await self._read(), said):
                return await self.read()
        raise StoreError(
            f"The ConfigMap {NAME} is being changed by others all the time; it was not changed. Try again."
        )

    async def _write(self, found: dict[str, Any], data: Mapping[str, str]) -> bool:
        """These into the data of what was read; False when somebody else wrote meanwhile."""
        body = {**found, "data": {**(found.get("data") or {}), **data}}
        try:
            await self._store.core("PUT", "configmaps", NAME, body=body)
        except ApiException as error:
            if error.status == 409:
                return False
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        return True

    async def _read(self) -> dict[str, Any]:
        """As plain data."""
        try:
            return await self._store.core("GET", "configmaps", NAME)
        except ApiException as error:
            if error.status == 404:
                raise StoreError(
                    f"There is no ConfigMap {NAME} in namespace {self._store.namespace}, which says whether fixes are "
                    "on, so nothing is done. Apply the manifests of deploy/ again, or: "
                    f"kubectl --namespace {self._store.namespace} create configmap {NAME}"
                ) from None
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None


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


def _begun(data: Mapping[str, str], requests: Sequence[FixRequest], since: datetime) -> dict[str, Begun]:
    """What was begun since then, by name: what was counted, and what says so of itself. Raises StoreError."""
    never = {one.name for one in requests if one.status.phase in ENDS and not one.status.started_at}
    found = {}
    for line in data.get(BEGUN, "").splitlines():
        words = line.split()
        if len(words) != len(Begun._fields):
            raise StoreError(
                f"{BEGUN} in the ConfigMap {NAME} has the line {line!r}, which nobody can mean. Take it out; until "
                "then nothing is done."
            )
        one = Begun(*words)
        if one.name not in never and _after(one.at, since):
            found[one.name] = one._replace(node="" if one.node == NO_NODE else one.node)
    for request in requests:
        if request.status.started_at and _after(request.status.started_at, since):
            spec = request.spec
            found[request.name] = Begun(request.name, spec.kind, spec.node, request.status.started_at)
    return found


def _after(at: str, since: datetime) -> bool:
    try:
        return moment(at) > since
    except (ValueError, TypeError):
        return True  # of a time nobody can read


def _failed(error: ApiException) -> StoreError:
    if why := denial(reason_of(error)[1]):
        return StoreError(why, denied=True)
    return StoreError(
        f"The API server answered {error.status} ({error.reason}) about the ConfigMap {NAME}, which says whether fixes "
        "are on, so nothing is done. Grant get and update on it."
    )


def _unreachable(error: Exception) -> StoreError:
    return StoreError(
        f"The API server cannot be reached ({unanswered(error)}), so nobody knows whether fixes are on, "
        "and nothing is done. Check the kubeconfig and the network, then try again."
    )
