"""Does what was approved, at most once; without it an approval would change nothing, or change it twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Iterator
from datetime import timedelta

from certificates.trouble import unanswered
from facts.logs import about
from fixes.approvers import RBAC, Approvers
from fixes.audit import Audit, AuditError
from fixes.hands import Hands
from fixes.kind import EvidenceChanged, TooSoon
from fixes.limits import Switch
from fixes.request import NOTHING_NOW, FixRequest, Phase, Refused, Waits, expired, moment, stamp
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

STOP_S = 5.0
BUSY_S = 3.0  # a change takes milliseconds
HELD_S = 10.0  # after which a switch that held something back is read again
MOST, LONGEST = 200, 1000  # lines of a preview, and characters of each, or of why it waits: the schema's
RETRIES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
PATIENT_S = 15.0  # between two tries of what has to be said: who waits for it sees when the cluster is back


def _patience() -> Iterator[float]:
    """Seconds between tries, without an end."""
    return itertools.chain((delay for delay in RETRIES_S if delay < PATIENT_S), itertools.repeat(PATIENT_S))


class Executor:
    """One for each node and one for the cluster, one request at a time.

    The order that makes it at most once: Running is written by compare-and-swap first, then the change, then the
    result. Whoever finds Running does not act: another one is at it, or it died and nobody knows how far it came.
    """

    def __init__(
        self, hands: Hands, store: FixStore, approvers: Approvers, *, worker: str = "", busy_s: float = BUSY_S
    ) -> None:
        """worker: as it is told, the fixer of its hands by default. busy_s: so long after it was begun, something may
        still be done by another one."""
        self._hands = hands
        self._worker = worker or f"fixer of {hands.name}"
        self._busy_s = busy_s
        self._store = store
        self._approvers = approvers
        self._switch = Switch(store)
        self._audit = Audit(store, self._worker)
        self._turn = asyncio.Lock()
        self._works: set[asyncio.Task[None]] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._stopping = False

    async def run(self) -> None:
        """Until cancelled. A connection that breaks is made anew, and everything is read again then.

        So is after a restart whatever waited for its second look: it is Approved still.
        """
        try:
            async for seen, request in self._store.watch():
                if seen == "deleted" or not self._hands.mine(request):
                    continue
                waits_to_be_seen = request.status.phase is Phase.PENDING and not request.status.preview
                if waits_to_be_seen or request.status.phase in (Phase.APPROVED, Phase.RUNNING):
                    await asyncio.shield(self._begin(request.name))
        finally:
            # Told to stop in the middle of it: a change that was begun is ended and said, if that is quick.
            self._stopping = True
            for waiting in self._later.values():
                waiting.cancel()
            if self._works:
                await asyncio.wait(self._works, timeout=STOP_S)
            for work in self._works:
                work.cancel()
            if self._works:  # what cannot go on says so, if that is quick
                await asyncio.wait(self._works, timeout=STOP_S)

    def _begin(self, name: str) -> asyncio.Task[None]:
        work = asyncio.create_task(self._handle_patiently(name))
        self._works.add(work)
        work.add_done_callback(self._works.discard)
        return work

    async def _handle_patiently(self, name: str) -> None:
        """Nothing tells again of a missed approval until the watch is made anew, so a broken look is repeated."""
        with about(request=name):
            await self._handled(name)

    async def _handled(self, name: str) -> None:
        for delay in RETRIES_S:
            try:
                async with self._turn:
                    if not self._stopping:
                        await self.handle(name)
                return
            except TooSoon as soon:
                log.info("%s: %s", name, soon)
                self._come_back(name, soon.wait_s)
                return
            except Refused as refused:  # somebody else moved it meanwhile
                log.info("%s: %s", name, refused.sentence)
                return
            except StoreError as error:
                log.warning("%s: %s", name, error.sentence)
                if error.missing:
                    return
                await asyncio.sleep(max(delay, error.retry_after_s))

    def _come_back(self, name: str, wait_s: float) -> None:
        """Look at it again then; others have their turn meanwhile."""
        if name in self._later:  # a watch that was made anew tells of it once more
            self._later[name].cancel()
        self._later[name] = asyncio.get_running_loop().call_later(wait_s, self._begin, name)

    async def handle(self, name: str) -> FixRequest:
        """Bring one request as far as it goes. Raises StoreError, Refused, and TooSoon when nothing is due yet."""
        request = await self._store.get(name)
        if not self._hands.mine(request):
            return request
        if request.status.phase is Phase.RUNNING:
            return await self._settle(request)
        if request.status.phase is Phase.APPROVED:
            return await self._execute(request)
        if request.status.phase is Phase.PENDING and not request.status.preview:
            return await self._preview(request)
        return request

    async def _preview(self, request: FixRequest) -> FixRequest:
        """Show those who decide exactly what would be written. It changes nothing else, and nothing waits for it."""
        if expired(request.spec, self._store.now()):
            return request
        try:
            lines = await self._hands.preview(request.spec)
        except EvidenceChanged as changed:
            lines = [f"{NOTHING_NOW}{changed}"]
        except Exception as error:  # it is said again, and for good, when it is approved
            log.info("%s cannot be shown: %s", request.name, error)
            lines = [f"Nothing: {unanswered(error)}."]
        shown = [line[:LONGEST] for line in lines[:MOST]]
        return await self._store.note_preview(request.name, shown or ["Nothing."])

    async def _execute(self, request: FixRequest) -> FixRequest:
        if expired(request.spec, self._store.now()):
            return await self._end(request, Phase.EXPIRED, "")
        if refusal := self._approvers.refusal(request) or await self._withdrawn(request):
            return await self._end(request, Phase.FAILED, f"Nothing was done: {refusal}.")
        try:
            await self._hands.holds(request.spec)
        except EvidenceChanged as changed:
            return await self._end(request, Phase.STALE, f"Nothing was done: {changed} Ask again.")
        except TooSoon as soon:
            due = stamp(self._store.now() + timedelta(seconds=soon.wait_s))
            raise await self._waits(request, Waits(text=str(soon)[:LONGEST], until=due), soon.wait_s) from None
        except Exception as error:  # or the same request would end this process again after every restart
            log.exception("%s cannot be checked", request.name)
            return await self._end(request, Phase.FAILED, f"Nothing was done: {unanswered(error)}.")
        # As late as can be: whoever switches fixes off means the very next one.
        try:
            held = await self._switch.begin(request)
        except StoreError as error:
            held = error.sentence
        if held:
            raise await self._waits(request, Waits(text=held[:LONGEST]), HELD_S)
        running = await self._store.transition(
            request.name, Phase.RUNNING, message=f"by the {self._worker}", check=self._still_approved
        )
        if running.status.phase is not Phase.RUNNING:  # too late, or not what was approved
            await self._record(running)
            return running
        if unwritten := await self._record(running):  # what cannot be written down is not done
            return await self._end(request, Phase.FAILED, f"Nothing was done: {unwritten}")
        try:
            await self._hands.execute(request.spec)
        except EvidenceChanged as changed:  # Stale is for what never ran
            return await self._end(request, Phase.FAILED, f"Nothing was written: {changed} Ask again.")
        except Exception as error:  # whatever it is: it was tried once, and that has to be said
            log.exception("%s failed", request.name)
            return await self._broken(request, f"It failed on {self._hands.name}: {unanswered(error)}.")
        try:
            right, text = await self._read_back(request)
        except Exception as error:  # it was done, so it did not fail
            log.exception("%s cannot be verified", request.name)
            why = unanswered(error)
            return await self._end(request, Phase.UNKNOWN, f"It was done; what came of it cannot be read: {why}.")
        return await self._end(request, Phase.VERIFIED if right else Phase.NOT_FIXED, text)

    async def _waits(self, request: FixRequest, waits: Waits, wait_s: float) -> TooSoon:
        """Say in the request why it is not done yet, and when to come back: at its end at the latest."""
        known = request.status.waits
        if known is None or known.text != waits.text:
            await self._store.note_waits(request.name, waits)
        left = (moment(request.spec.expires_at) - self._store.now()).total_seconds()
        return TooSoon(waits.text, max(0.0, min(wait_s, left)))

    async def _broken(self, request: FixRequest, failure: str) -> FixRequest:
        """An error alone does not tell how far it came: the answer to a write may be lost, not the write."""
        try:
            right, text = await self._read_back(request)
        except Exception as error:
            log.exception("%s cannot be read", request.name)
            unread = f"What came of it cannot be read: {unanswered(error)}."
            return await self._end(request, Phase.UNKNOWN, f"{failure} {unread}")
        return await self._end(request, Phase.VERIFIED if right else Phase.FAILED, f"{failure} {text}")

    async def _read_back(self, request: FixRequest) -> tuple[bool, str]:
        """What is so after a write. A cluster that went away meanwhile is waited for: its objects are to be read, and
        nothing could be told before. Raises what the hands raise."""
        try:
            return await self._hands.verify(request.spec)
        except Exception:
            for delay in _patience():
                try:
                    await self._store.get(request.name)
                    break
                except StoreError as error:
                    if not error.gone:
                        raise
                    log.warning("%s is read back later: %s", request.name, error.sentence)
                    await asyncio.sleep(max(delay, error.retry_after_s))
        return await self._hands.verify(request.spec)

    def _still_approved(self, request: FixRequest) -> None:
        """Of what is about to be written over: what was read before may not be what is there."""
        if refusal := self._approvers.refusal(request):
            raise Refused(f"{request.name} is not begun: {refusal}.")

    async def _withdrawn(self, request: FixRequest) -> str:
        """Why an approval by RBAC counts no more, "" where it does and for every other. Raises StoreError."""
        by = request.status.approved_by
        if by is None or by.entry != RBAC or await self._store.may_approve(by):
            return ""
        return f"the cluster's RBAC does not let {by.id} approve (the verb approve on fixrequests.calico-why.io)"

    async def _settle(self, request: FixRequest) -> FixRequest:
        """Running, and not by this process: read the world and say what is so. Nothing is run again."""
        with contextlib.suppress(ValueError):  # of a time nobody can read
            begun = (self._store.now() - moment(request.status.started_at)).total_seconds()
            if 0 <= begun < self._busy_s:
                # An old fixer and a new one overlap during an upgrade: it may be at it right now.
                raise TooSoon(f"Another {self._worker} may be at it.", self._busy_s - begun)
        try:
            right, text = await self._read_back(request)
        except Exception as error:
            log.exception("%s cannot be read", request.name)
            right, text = False, f"It cannot be read: {unanswered(error)}."
        text = f"The {self._worker} was restarted, or lost the cluster, in between and did not run it again. {text}"
        return await self._end(request, Phase.VERIFIED if right else Phase.UNKNOWN, text)

    async def _end(self, request: FixRequest, phase: Phase, message: str) -> FixRequest:
        """Write how it ended, for as long as the API server is gone: nobody else knows, and what is not written will
        read as "unknown"."""
        patience = _patience()
        for tried in itertools.count(1):
            try:
                ended = await self._store.transition(request.name, phase, message=message)
                log.info("%s: %s. %s", request.name, ended.status.phase, ended.status.message)
                await self._record(ended)
                return ended
            except StoreError as error:
                if error.missing or (not error.gone and tried > len(RETRIES_S)):
                    raise
                log.warning("%s is %s, which cannot be written yet: %s", request.name, phase, error.sentence)
                await asyncio.sleep(max(next(patience), error.retry_after_s))
        raise AssertionError  # it counts without an end

    async def _record(self, request: FixRequest) -> str:
        """Why it is not in the audit trail, "" once it is. Of an end the bot writes later what is missing there."""
        why = ""
        for delay in RETRIES_S[:3]:
            try:
                await self._audit.follow(request)
                return ""
            except AuditError as error:
                log.warning("%s is not in the audit trail: %s", request.name, error.sentence)
                why = error.sentence
                await asyncio.sleep(delay)
        return why
