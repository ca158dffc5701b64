"""Who may decide on a fix, asked anew at every click; without it any member of a channel could change a node."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from facts import say
from fixes.approvers import KUBERNETES, SLACK_GROUP, Approvers
from fixes.request import IN_WORDS, NAME, FixRequest, Person, Phase, Refused, last_event
from fixes.store import FixStore, StoreError

GROUP_CACHE_S = 60.0
SHOWN = 20  # requests listed in one answer

Members = Callable[[str], Awaitable[frozenset[str]]]


class GroupsUnknown(Exception):
    """Slack did not say who is in a group; its text says why."""


class GroupCache:
    """Members of Slack user groups, at most a minute old; what cannot be read is not guessed from an older one."""

    def __init__(self, read: Members, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[float, frozenset[str]]] = {}

    async def __call__(self, group: str) -> frozenset[str]:
        known = self._known.get(group)
        if known and self._clock() - known[0] < GROUP_CACHE_S:
            return known[1]
        self._known.pop(group, None)
        members = await self._read(group)
        self._known[group] = (self._clock(), members)
        return members


async def no_groups(group: str) -> frozenset[str]:
    """For a terminal: nobody there is known to Slack."""
    return frozenset()


@dataclass(frozen=True)
class Decision:
    """What became of a click or a word. `sentence` is for the one who decided and for nobody else."""

    changed: bool  # the request is what was asked for now, by this very call
    sentence: str
    request: FixRequest | None = None  # as it is now, where it was read


class Approvals:
    """Decides on requests in `store`. One `decide` is one click or one word."""

    def __init__(self, store: FixStore, approvers: Approvers, members: Members = no_groups) -> None:
        self._store = store
        self._approvers = approvers
        self._members = members

    async def decide(
        self, name: str, to: Phase, person: Person, *, reason: str = "", shown: tuple[str, str] | None = None
    ) -> Decision:
        """Approve or reject (`to`) the request. Never raises for a refusal, only StoreError when nothing can be read.

        shown: channel and ts of the message that was clicked; a request speaks through its own card only.
        """
        if not NAME.fullmatch(name):
            wrong = say("{name} is not the name of a fix request; they look like fx-7k2pabcd.", name=_short(name))
            return Decision(False, wrong)
        try:
            request = await self._store.get(name)
        except StoreError as error:
            if error.missing:
                return Decision(False, say("I do not know a fix request {name}; nothing was changed.", name=name))
            raise
        if shown and request.status.slack and shown != (request.status.slack.channel, request.status.slack.ts):
            stale = say("This is not the card of {name}, so it decides nothing. Use its newest card.", name=name)
            return Decision(False, stale, request)
        try:
            entry = await self.entry(person)
        except GroupsUnknown as unknown:
            silent = say(
                "Slack did not say who may approve ({why}), so nobody may for now; nothing was changed. "
                "Try again, or in a terminal: {command}",
                why=unknown,
                command=f"calico-why approve {name}",
            )
            return Decision(False, silent, request)
        if not entry:
            refused = say(
                "You may not approve this: {who_may} Nothing was changed."
                if to is Phase.APPROVED
                else "You may not reject this: {who_may} Nothing was changed.",
                who_may=self.who_may(person.via),
            )
            return Decision(False, refused, request)
        if to is Phase.APPROVED and self._approvers.same_person(request, person) and not self._approvers.allow_self:
            own = say("You asked for {name}, so somebody else has to approve it. Nothing was changed.", name=name)
            return Decision(False, own, request)
        by = msgspec.structs.replace(person, entry=entry)
        try:
            request = await self._store.transition(name, to, by=by, message=reason)
        except Refused as refused:
            return Decision(False, refused.sentence, await self._store.get(name))
        if request.status.phase is to:
            return Decision(True, f"{name} is {IN_WORDS[to]}.", request)
        return Decision(False, f"{name} is {IN_WORDS[request.status.phase]}. {request.status.message}", request)

    async def entry(self, person: Person) -> str:
        """The entry of the list that lets this person decide, "" for none. Raises GroupsUnknown."""
        if entry := self._approvers.own_entry(person):
            return entry
        if person.via == "slack":
            for group in self._approvers.groups:
                if person.id in await self._members(group):
                    return group
        return ""

    def who_may(self, via: str) -> str:
        """A sentence for people: who is on the list."""
        if not self._approvers.entries:
            return say("nobody may, because the list of approvers (CALICO_WHY_APPROVERS) is empty.")
        names = sorted(_mention(entry) if via == "slack" else entry for entry in self._approvers.entries)
        return say("{names} may.", names=", ".join(names))


def listing(requests: Sequence[FixRequest]) -> str:
    """The newest requests, one line each; the same text in Slack and in a terminal."""
    if not requests:
        return "There are no fix requests."
    lines = [f"{one.name}  {one.spec.title}: {outcome(one)}" for one in requests[:SHOWN]]
    if left := len(requests) - SHOWN:
        lines += [f"… and {left} older ones"] if left > 0 else []
    return "\n".join(lines)


def outcome(request: FixRequest) -> str:
    """One line about where a request is, for lists and for a terminal."""
    event = last_event(request, request.status.phase)
    by = f" by {event.by.name or event.by.id}" if event and event.by else ""
    at = f" at {event.at}" if event else ""
    return f"{IN_WORDS[request.status.phase]}{by}{at}" + (
        f": {request.status.message}" if request.status.message else ""
    )


def _mention(entry: str) -> str:
    if entry.startswith(KUBERNETES):
        return entry.removeprefix(KUBERNETES)
    return f"<!subteam^{entry}>" if SLACK_GROUP.fullmatch(entry) else f"<@{entry}>"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
