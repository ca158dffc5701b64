"""Does on its node what was approved, at most once; without it an approval would change nothing, or change it twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from fixes.approvers import Approvers
from fixes.kind import EvidenceChanged, Kind, Netlink, kinds
from fixes.request import FixRequest, Phase, Refused
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

RETRY_MAX_S = 15.0


class Executor:
    """One per node, one request at a time.

    The order that makes it at most once: Running is written by compare-and-swap first, then the kernel, then the
    result. Whoever finds Running does not act: either another one is at it, or it died and nobody knows how far it came.
    """

    def __init__(
        self,
        node: str,
        store: FixStore,
        netlink: Netlink,
        approvers: Approvers,
        known: Mapping[str, Kind] | None = None,
    ) -> None:
        self.node = node
        self._store = store
        self._netlink = netlink
        self._approvers = approvers
        self._kinds = kinds() if known is None else known

    async def run(self) -> None:
        """Until cancelled. A connection that breaks is made anew, and everything is read again then."""
        async for seen, request in self._store.watch():
            if seen == "deleted" or request.spec.node != self.node:
                continue
            if request.status.phase not in (Phase.APPROVED, Phase.RUNNING):
                continue
            try:
                await self.handle(request.name)
            except (StoreError, Refused) as error:
                # Listed again after the next reconnection at the latest; until then nothing was done or is known.
                log.warning("%s: %s", request.name, error.sentence)

    async def handle(self, name: str) -> FixRequest:
        """Bring one request as far as it goes. Raises StoreError and request.Refused."""
        request = await self._store.get(name)
        if request.spec.node != self.node:
            return request
        if request.status.phase is Phase.RUNNING:
            return await self._settle(request)
        if request.status.phase is Phase.APPROVED:
            return await self._execute(request)
        return request

    async def _execute(self, request: FixRequest) -> FixRequest:
        kind = self._kinds.get(request.spec.kind)
        if kind is None or kind.executes_on != "node":
            return await self._end(request, Phase.FAILED, f"{self.node} does not know the fix {request.spec.kind!r}.")
        if refusal := self._approvers.refusal(request):
            return await self._end(request, Phase.FAILED, f"Nothing was done: {refusal}.")
        try:
            await asyncio.to_thread(kind.holds, self._netlink, request.spec.arguments)
        except EvidenceChanged as changed:
            return await self._end(request, Phase.STALE, f"Nothing was done: {changed} Ask again.")
        except (OSError, ValueError) as error:
            return await self._end(request, Phase.FAILED, f"Nothing was done: {error}.")
        running = await self._store.transition(request.name, Phase.RUNNING, message=f"by the fixer of {self.node}")
        if running.status.phase is not Phase.RUNNING:  # too late, or not what was approved
            return running
        try:
            await asyncio.to_thread(kind.execute, self._netlink, request.spec.arguments)
            right, text = await asyncio.to_thread(kind.verify, self._netlink, request.spec.arguments)
        except (OSError, ValueError) as error:
            return await self._end(request, Phase.FAILED, f"{self.node}'s kernel refused: {error}.")
        return await self._end(request, Phase.VERIFIED if right else Phase.NOT_FIXED, text)

    async def _settle(self, request: FixRequest) -> FixRequest:
        """Running, and not by this process: read the world and say what is so. Nothing is run again."""
        kind = self._kinds.get(request.spec.kind)
        try:
            if kind is None:
                right, text = False, f"{self.node} does not know the fix {request.spec.kind!r}."
            else:
                right, text = await asyncio.to_thread(kind.verify, self._netlink, request.spec.arguments)
        except (OSError, ValueError) as error:
            right, text = False, f"It cannot be read: {error}."
        text = f"The fixer was restarted in between and did not run it again. {text}"
        return await self._end(request, Phase.VERIFIED if right else Phase.UNKNOWN, text)

    async def _end(self, request: FixRequest, phase: Phase, message: str) -> FixRequest:
        """Write how it ended, for as long as it takes: a result that is not written reads as "unknown" later."""
        delay = 0.25
        while True:
            try:
                ended = await self._store.transition(request.name, phase, message=message)
            except StoreError as error:
                if error.missing:
                    raise
                log.warning("%s is %s, which cannot be written yet: %s", request.name, phase, error.sentence)
                await asyncio.sleep(delay)
                delay = min(RETRY_MAX_S, delay * 2)
                continue
            log.info("%s: %s. %s", request.name, ended.status.phase, ended.status.message)
            return ended
