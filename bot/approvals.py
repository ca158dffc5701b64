"""Who may decide on a fix, asked anew at every click; without it any member of a channel could change a node."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from bot.reply.fix_words import words_of
from facts import say
from fixes.approvers import KUBERNETES, RBAC, SLACK_GROUP, Approvers, Entry
from fixes.audit import REFUSED, Audit, AuditError, Record
from fixes.limits import Switch
from fixes.request import IN_WORDS, NAME, FixRequest, Person, Phase, Refused, advance, last_event
from fixes.store import FixStore, StoreError

log = logging.getLogger(__name__)

CACHE_S = 60.0
SHOWN = 20  # requests listed in one answer
SHOWN_NAME = 40  # characters of what was taken for a name

SWITCH = "switch"  # as a kind in the list of approvers: who may switch all fixes off and on

T = TypeVar("T")
Members = Callable[[str], Awaitable[frozenset[str]]]
Outside = Callable[[str], Awaitable[str]]  # Slack user id -> why this one decides nothing here, "" for a member
Right = Callable[[], Awaitable[tuple[str, ...] | None]]  # FixStore.right_to_approve
Shown = tuple[str, str]  # channel and ts of the message that was clicked


class GroupsUnknown(Exception):
    """Slack did not say who is in a group, or whose account it is; its text says why."""


class Cached(Generic[T]):
    """What Slack says of a group or a person, at most a minute old; what cannot be read is not guessed from before."""

    def __init__(self, read: Callable[[str], Awaitable[T]], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[float, T]] = {}

    async def __call__(self, about: str) -> T:
        known = self._known.get(about)
        if known and self._clock() - known[0] < CACHE_S:
            return known[1]
        self._known.pop(about, None)
        told = await self._read(about)
        self._known[about] = (self._clock(), told)
        return told


async def no_groups(group: str) -> frozenset[str]:
    """For a terminal: nobody there is known to Slack."""
    return frozenset()


async def nobody_outside(user: str) -> str:
    """For a terminal."""
    return ""


@dataclass(frozen=True)
class Decision:
    """What became of a click or a word. `sentence` is for the one who decided and for nobody else."""

    changed: bool  # the request is what was asked for now, by this very call
    sentence: str
    request: FixRequest | None = None  # as it is now, where it was read


class Approvals:
    """Decides on requests in `store`. One `decide` is one click or one word, and is in the audit trail afterwards."""

    def __init__(
        self,
        store: FixStore,
        approvers: Approvers,
        members: Members = no_groups,
        right: Right | None = None,
        writer: str = "bot",
        outside: Outside = nobody_outside,
    ) -> None:
        """right: for a terminal, where the API server knows who asks. writer: as it stands in the audit trail."""
        self._store = store
        self._approvers = approvers
        self._members = members
        self._outside = outside
        self._right = right if approvers.rbac else None
        self._switch = Switch(store)
        self._audit = Audit(store, writer)

    @property
    def audit(self) -> Audit:
        """Where it writes. All that is there is read before the first record: once in a process is enough."""
        return self._audit

    async def decide(
        self,
        name: str,
        to: Phase,
        person: Person,
        *,
        reason: str = "",
        shown: Shown | None = None,
        again: bool = False,
        written: bool = True,
    ) -> Decision:
        """Approve, reject or cancel (`to`) the request. Never raises for a refusal, only StoreError when nothing can be
        read.

        shown: channel and ts of the message that was clicked; a request speaks through its own card only. Without it
        `name` is what somebody wrote. again: who died in the middle of the same decision may have made it. written:
        into the audit trail, which takes its time; else the caller has it written down (`write_down`).
        """
        name = name if shown else meant(name) or name
        try:
            made = await self._made_before(name, to, person) if again else None
            decision = made or await self._decide(name, to, person, reason, shown)
        except StoreError as error:
            if error.denied:  # by the cluster, where this list would have let them
                await self.note_refusal(name, f"{IN_WORDS[to]}: {error.sentence}", person, shown)
            raise
        if written:
            await self.write_down(name, to, person, decision, shown)
        return decision

    async def write_down(
        self, name: str, to: Phase, person: Person, decision: Decision, shown: Shown | None = None
    ) -> None:
        """What was decided, and a refusal as well, is in the audit trail afterwards."""
        if not decision.changed:
            name = name if shown else meant(name) or name
            await self.note_refusal(name, f"{IN_WORDS[to]}: {decision.sentence}", person, shown, decision.request)
        if decision.request is not None:
            try:
                await self._audit.follow(decision.request)
            except AuditError as error:  # the fixer insists on it before it does anything
                log.warning("%s is not in the audit trail yet: %s", name, error.sentence)

    async def refusal(self, name: str, to: Phase, person: Person, *, shown: Shown | None = None) -> Decision | None:
        """Why this person cannot decide so now, None when they can: for a click that is asked more before it decides.

        Raises StoreError.
        """
        judged = await self._judge(name, to, person, shown)
        if isinstance(judged, Decision):
            await self.note_refusal(name, f"{IN_WORDS[to]}: {judged.sentence}", person, shown, judged.request)
            return judged
        request, by = judged
        try:
            phase = advance(request, to, now=self._store.now(), by=by).phase
        except Refused as refused:
            await self.note_refusal(name, f"{IN_WORDS[to]}: {refused.sentence}", person, shown, request)
            return Decision(False, refused.sentence, request)
        return None if phase is to else await self.decide(name, to, person, shown=shown)

    async def withdrawn(self, request: FixRequest) -> str:
        """Why who approved it in Slack may not any more, "" while they may. Raises GroupsUnknown.

        Of an approval by RBAC the fixer asks the API server itself.
        """
        by = request.status.approved_by
        if by is None or by.via != "slack":
            return ""
        if await self._stranger(by) or await self._granted(by, request.spec.kind) is None:
            return f"{by.id}, who approved it, may not approve it any more. Nothing was changed."
        return ""

    async def turn(self, on: bool, person: Person, reason: str = "") -> Decision:
        """Switch all fixes on or off. Raises StoreError when that could not be done."""
        try:
            stranger = await self._stranger(person)
            by = await self._granted(person, SWITCH)
        except GroupsUnknown as unknown:
            return Decision(False, say("Slack did not say who may switch fixes off and on ({why}).", why=unknown))
        if stranger or by is None:
            refused = stranger or say(
                "You may not switch fixes off and on: {who_may} Nothing was changed.",
                who_may=self.who_may(person.via, SWITCH),
            )
            await self.note_refusal("", f"switch {'on' if on else 'off'}: {refused}", person)
            return Decision(False, refused)
        await self._switch.turn(on, by, reason)
        done = say(
            "Fixes are on. What is approved is done."
            if on
            else "Fixes are off. Nothing that is not being executed right now will be done."
        )
        try:
            await self._audit.append(Record(event=f"switched {'on' if on else 'off'}", by=by, text=reason))
        except AuditError as error:
            return Decision(True, say("{done} It is not in the audit trail: {why}", done=done, why=error.sentence))
        return Decision(True, done)

    async def note_refusal(
        self, name: str, text: str, person: Person, shown: Shown | None = None, request: FixRequest | None = None
    ) -> None:
        """Somebody tried what they may not, or what is none of ours. Never raises: it was refused in any case."""
        record = Record(
            event=REFUSED,
            request=name[:SHOWN_NAME],
            digest=request.spec.digest if request else "",
            by=person,
            place="/".join(shown) if shown else "",
            text=text,
        )
        try:
            await self._audit.append(record)
        except AuditError as error:
            log.warning("not in the audit trail: %s: %s: %s", person.id, text, error.sentence)

    async def _made_before(self, name: str, to: Phase, person: Person) -> Decision | None:
        """This very decision, where the request tells of it. Raises StoreError."""
        if not NAME.fullmatch(name):
            return None
        try:
            request = await self._store.get(name)
        except StoreError as error:
            if error.missing:
                return None
            raise
        event = last_event(request, to)
        if event is None or event.by is None or (event.by.via, event.by.id) != (person.via, person.id):
            return None
        return Decision(True, f"{name} is {IN_WORDS[request.status.phase]}.", request)

    async def _decide(self, name: str, to: Phase, person: Person, reason: str, shown: Shown | None) -> Decision:
        judged = await self._judge(name, to, person, shown)
        if isinstance(judged, Decision):
            return judged
        _, by = judged
        try:
            request = await self._store.transition(name, to, by=by, message=reason)
        except Refused as refused:
            return Decision(False, refused.sentence, await self._store.get(name))
        if request.status.phase is to:
            return Decision(True, f"{name} is {IN_WORDS[to]}.", request)
        return Decision(False, f"{name} is {IN_WORDS[request.status.phase]}. {request.status.message}", request)

    async def _judge(
        self, name: str, to: Phase, person: Person, shown: Shown | None
    ) -> Decision | tuple[FixRequest, Person]:
        """The request, and the person with what lets them decide on it; or why they may not."""
        if not NAME.fullmatch(name):
            wrong = say("{name} is not the name of a fix request; they look like fx-7k2pabcd.", name=_short(name))
            return Decision(False, await self._with_near(wrong, name))
        try:
            request = await self._store.get(name)
        except StoreError as error:
            if error.missing:
                unknown = say("I do not know a fix request {name}; nothing was changed.", name=name)
                return Decision(False, await self._with_near(unknown, name))
            raise
        card = request.status.slack  # no card has buttons before the cluster knows its place
        if shown and (card is None or shown != (card.channel, card.ts)):
            stale = say("This is not the card of {name}, so it decides nothing. Use its newest card.", name=name)
            return Decision(False, stale, request)
        own = self._approvers.same_person(request, person)
        try:
            if stranger := await self._stranger(person):
                return Decision(False, stranger, request)
            if own and to is Phase.CANCELLED:
                return request, person
            by = await self._granted(person, request.spec.kind)
        except GroupsUnknown as unknown:
            silent = say(
                "Slack did not say who may approve ({why}), so nobody may for now; nothing was changed. "
                "Try again, or in a terminal: {command}",
                why=unknown,
                command=f"calico-why {_WORDS[to]} {name}",
            )
            return Decision(False, silent, request)
        if by is None:
            refused = say(_MAY_NOT[to], who_may=self.who_may(person.via, request.spec.kind))
            return Decision(False, refused, request)
        if to is Phase.APPROVED and not self._approvers.allow_self and own is not False:
            alone = say("You asked for {name}, so somebody else has to approve it. Nothing was changed.", name=name)
            return Decision(False, alone if own else self._perhaps_one(request, person), request)
        return request, by

    async def _with_near(self, sentence: str, name: str) -> str:
        """With the request whose name looks like this, where there is one."""
        near = difflib.get_close_matches(name.lower(), [one.name for one in await self._store.all()], n=1, cutoff=0.75)
        return say("{sentence} Did you mean {near}?", sentence=sentence, near=near[0]) if near else sentence

    @staticmethod
    def _perhaps_one(request: FixRequest, person: Person) -> str:
        """Asked for in Slack and approved in a terminal, or the other way round, and nobody knows both names."""
        asked = request.spec.requested_by
        return say(
            "{asked} asked for {name}, and nobody says who {user} is in Slack (CALICO_WHY_PEOPLE), so that may be you. "
            "Nothing was changed.",
            name=request.name,
            asked=asked.id,
            user=(asked if asked.via != "slack" else person).id,
        )

    async def entry(self, person: Person, kind: str) -> str:
        """The entry of the list that lets this person decide on this kind, "" for none. Raises GroupsUnknown."""
        by = None if await self._stranger(person) else await self._granted(person, kind)
        return by.entry if by else ""

    async def _stranger(self, person: Person) -> str:
        """Why somebody in Slack decides nothing, whoever lists them; "" for a member. Raises GroupsUnknown."""
        return await self._outside(person.id) if person.via == "slack" else ""

    async def _granted(self, person: Person, kind: str) -> Person | None:
        if entry := self._approvers.own_entry(person, kind):
            return msgspec.structs.replace(person, entry=entry)
        if person.via == "slack":
            for group in self._approvers.groups(kind):
                if person.id in await self._members(group.who):
                    return msgspec.structs.replace(person, entry=group.text)
        elif self._right is not None and (groups := await self._right()) is not None:
            return msgspec.structs.replace(person, entry=RBAC, groups=groups)
        return None

    def anybody(self, kind: str) -> bool:
        """Whether there is anybody on the list for this kind, so that it makes sense to ask."""
        return bool(self._approvers.entries_for(kind))

    def who_may(self, via: str, kind: str) -> str:
        """A sentence for people: who is on the list."""
        names = sorted(
            {_mention(entry) if via == "slack" else entry.who for entry in self._approvers.entries_for(kind)}
        )
        if via != "slack" and self._right is not None:
            names.append(say("whom RBAC gives the verb approve on fixrequests.calico-why.io"))
        if names:
            return say("{names} may.", names=", ".join(names))
        if self._approvers.entries:
            return say("nobody may: no entry of the list of approvers (CALICO_WHY_APPROVERS) counts for this.")
        return say("nobody may, because the list of approvers (CALICO_WHY_APPROVERS) is empty.")


def meant(word: str) -> str:
    """The name of a request that somebody wrote, capitals, quotes and a missing fx- aside; "" for what is none."""
    bare = word.strip("`*_\"',;.:!").lower()
    return next((name for name in (bare, f"fx-{bare}") if NAME.fullmatch(name)), "")


def listing(requests: Sequence[FixRequest]) -> str:
    """The newest requests, one line each; the same text in Slack and in a terminal."""
    if not requests:
        return "There are no fix requests."
    lines = [f"{one.name}  {words_of(one.spec).title}: {outcome(one)}" for one in requests[:SHOWN]]
    if left := len(requests) - SHOWN:
        lines += [f"… and {left} older ones"] if left > 0 else []
    return "\n".join(lines)


def outcome(request: FixRequest) -> str:
    """One line about where a request is, for lists and for a terminal."""
    event = last_event(request, request.status.phase)
    by = f" by {event.by.name or event.by.id}" if event and event.by else ""
    at = f" at {event.at}" if event else ""
    message, waits = request.status.message, request.status.waits
    return f"{IN_WORDS[request.status.phase]}{by}{at}" + (
        f": {waits.text}" if waits else f": {message}" if message else ""
    )


_MAY_NOT = {
    Phase.APPROVED: "You may not approve this: {who_may} Nothing was changed.",
    Phase.REJECTED: "You may not reject this: {who_may} Nothing was changed.",
    Phase.CANCELLED: "You may not cancel this: who asked for it may, and {who_may} Nothing was changed.",
}
_WORDS = {Phase.APPROVED: "approve", Phase.REJECTED: "reject", Phase.CANCELLED: "cancel"}


def _mention(entry: Entry) -> str:
    if entry.kubernetes:
        return entry.who.removeprefix(KUBERNETES)
    return f"<!subteam^{entry.who}>" if SLACK_GROUP.fullmatch(entry.who) else f"<@{entry.who}>"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN_NAME else text[: SHOWN_NAME - 1] + "…")
