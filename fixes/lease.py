"""One cluster fixer acts, the others wait; without it two would work on the same request and wait for each other.

A coordination.k8s.io Lease, taken and kept as Kubernetes' own controllers do. It only decides who works: that nothing
is done twice rests on the requests themselves, also when two believe for a moment that they hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

log = logging.getLogger(__name__)

NAME = "calico-why-fixer"
DURATION_S = 20  # what others wait for after they last saw it renewed
RENEW_S = 4.0
GIVE_UP_S = 12.0  # not renewed for so long: stop, while nobody else can have it yet
CALL_TIMEOUT_S = 5.0


class Lease:
    """Who of several replicas works. `holder` has to be another text in each of them."""

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        holder: str,
        *,
        duration_s: int = DURATION_S,
        renew_s: float = RENEW_S,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self._leases = client.CoordinationV1Api(api)
        self._namespace = namespace
        self._holder = holder
        self._duration_s, self._renew_s, self._give_up_s = duration_s, renew_s, give_up_s
        self._seen: tuple[str, str] = ("", "")  # holder and time of renewal, as last read
        self._seen_at = 0.0  # when that was read first; clocks of other machines are never compared

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: wait for the lease, work while it is held, stop when it is lost, wait again."""
        while True:
            if not await self._take():
                await asyncio.sleep(self._renew_s)
                continue
            log.info("%s acts now.", self._holder)
            working = asyncio.ensure_future(work())
            keeping = asyncio.ensure_future(self._keep())
            try:
                await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                keeping.cancel()
                working.cancel()
                await asyncio.gather(keeping, working, return_exceptions=True)
                await self._give_back()
            if not working.cancelled() and (error := working.exception()):
                raise error
            log.warning("%s has lost the lease and waits.", self._holder)

    async def _keep(self) -> None:
        """Renew until that has failed for too long or somebody else has it."""
        renewed = time.monotonic()
        while time.monotonic() - renewed < self._give_up_s:
            await asyncio.sleep(self._renew_s)
            begun = time.monotonic()
            if await self._take():
                renewed = begun
            elif self._seen[0] not in ("", self._holder):
                return

    async def _take(self) -> bool:
        """One try to get or renew it, by compare-and-swap. False when another has it, or it could not be written."""
        try:
            lease = await self._read()
            if lease is None:  # it comes with the manifests: RBAC cannot limit the right to create to a name
                log.warning("There is no Lease %s/%s. Apply the manifests of deploy/ again.", self._namespace, NAME)
                return False
            spec: dict[str, Any] = lease.get("spec") or {}
            holder = str(spec.get("holderIdentity") or "")
            seen = (holder, str(spec.get("renewTime")))
            if seen != self._seen:
                self._seen, self._seen_at = seen, time.monotonic()
            lasts_s = int(spec.get("leaseDurationSeconds") or self._duration_s)
            if holder not in ("", self._holder) and time.monotonic() - self._seen_at < lasts_s:
                return False
            changes = int(spec.get("leaseTransitions") or 0) + (holder != self._holder)
            body = {**lease, "spec": {**spec, **self._spec(changes)}}
            await self._call(self._leases.replace_namespaced_lease(NAME, self._namespace, body, **_limits()))
            return True
        except _Failed as failed:
            if failed.status != 409:
                log.warning("The lease %s/%s cannot be had: %s", self._namespace, NAME, failed)
            return False

    async def _give_back(self) -> None:
        """So that another can begin at once. If it cannot be written the lease runs out by itself."""
        with contextlib.suppress(_Failed):
            lease = await self._read()
            if lease and (lease.get("spec") or {}).get("holderIdentity") == self._holder:
                body = {**lease, "spec": {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}}
                await self._call(self._leases.replace_namespaced_lease(NAME, self._namespace, body, **_limits()))

    async def _read(self) -> dict[str, Any] | None:
        try:
            found = await self._call(self._leases.read_namespaced_lease(NAME, self._namespace, **_limits()))
        except _Failed as failed:
            if failed.status == 404:
                return None
            raise
        lease: dict[str, Any] = self._leases.api_client.sanitize_for_serialization(found)
        return lease

    def _spec(self, transitions: int) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._duration_s,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _call(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except ApiException as error:
            raise _Failed(f"{error.status} {error.reason}", error.status) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Failed(str(error) or type(error).__name__) from None


class _Failed(Exception):
    """The API server did not do it."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def _limits() -> dict[str, float]:
    return {"_request_timeout": CALL_TIMEOUT_S}
