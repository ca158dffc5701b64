"""Who may approve; bot and fixer both ask here, so a click let through by mistake is still refused on the node."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from fixes.request import FixRequest, Person, Phase, last_event

SLACK_GROUP = re.compile(r"S[A-Z0-9]{2,}")
KUBERNETES = "kubernetes:"
RBAC = "rbac"  # the entry of who may by the verb `approve` on fixrequests.calico-why.io

# [KIND][@CLUSTER]:WHO, such as release_ip:S0123, @prod:U0BO, set_link_up@prod:kubernetes:bo
_ENTRY = re.compile(
    r"(?:(?!kubernetes:)(?P<kind>[a-z][a-z0-9_]*)?(?:@(?P<cluster>.+?))?:)?(?P<who>kubernetes:.+|[USW][A-Z0-9]+)"
)

# SLACK_ID=KUBERNETES_NAME: one person
PERSON = re.compile(r"(?P<slack>[UW][A-Z0-9]+)=(?:kubernetes:)?(?P<name>.+)")


class Entry(NamedTuple):
    """One entry of the list. text: as it was written; kind, cluster: "" for all."""

    text: str
    who: str
    kind: str = ""
    cluster: str = ""

    @property
    def kubernetes(self) -> bool:
        return self.who.startswith(KUBERNETES)


def parse(text: str) -> Entry | None:
    """None for what can be nobody."""
    found = _ENTRY.fullmatch(text)
    return Entry(text, found["who"], found["kind"] or "", found["cluster"] or "") if found else None


@dataclass(frozen=True)
class Approvers:
    """Slack user ids, Slack user group ids and `kubernetes:<username>`, each for one kind or cluster where it says so.

    No entry means nobody. cluster: this one's name, as entries write it. rbac: RBAC's verb `approve` counts, too.
    people: SLACK_ID=KUBERNETES_NAME, who is one person under both names.
    """

    entries: frozenset[str] = frozenset()
    allow_self: bool = False
    cluster: str = ""
    rbac: bool = False
    people: frozenset[str] = frozenset()

    def entries_for(self, kind: str) -> tuple[Entry, ...]:
        """Those that count here for this kind, the wider ones first."""
        found = (entry for text in self.entries if (entry := parse(text)))
        here = (entry for entry in found if entry.kind in ("", kind) and entry.cluster in ("", self.cluster))
        return tuple(sorted(here, key=lambda entry: (entry.kind, entry.cluster, entry.who)))

    def groups(self, kind: str) -> tuple[Entry, ...]:
        """Those of them that name a Slack user group."""
        return tuple(entry for entry in self.entries_for(kind) if SLACK_GROUP.fullmatch(entry.who))

    def own_entry(self, person: Person, kind: str) -> str:
        """The entry that names this person itself, "" when none does."""
        who = person.id if person.via == "slack" else KUBERNETES + person.id
        return _text(
            entry for entry in self.entries_for(kind) if entry.who == who and not SLACK_GROUP.fullmatch(entry.who)
        )

    def same_person(self, request: FixRequest, person: Person) -> bool | None:
        """Whether this person asked for it; None where nobody can tell.

        A Slack id is a person. A Kubernetes name is the one that `people` says, so without an entry there it may be
        anybody in Slack; of two Kubernetes names, two.
        """
        asked = request.spec.requested_by
        if (asked.via, asked.id) == (person.via, person.id) or self._names(asked) & self._names(person):
            return True
        in_kubernetes = person if asked.via == "slack" else asked
        return None if asked.via != person.via and not self._names(in_kubernetes) else False

    def _names(self, person: Person) -> frozenset[str]:
        """The Slack ids of a person: who shares a Kubernetes name is one."""
        known = [(found["slack"], found["name"]) for text in self.people if (found := PERSON.fullmatch(text))]
        own = {person.id} if person.via == "slack" else {slack for slack, name in known if name == person.id}
        shared = {name for slack, name in known if slack in own}
        return frozenset(own | {slack for slack, name in known if name in shared})

    def refusal(self, request: FixRequest) -> str:
        """Why the recorded approval does not count here, "" when it does.

        A fixer cannot ask Slack who is in a group, but it can insist that the group is on its own list. Of an approval
        by RBAC it asks the API server besides (`FixStore.may_approve`).
        """
        by = request.status.approved_by
        if by is None:
            return "nobody approved it"
        said = last_event(request, Phase.APPROVED)
        if said is None or said.by != by:  # or the audit trail would never name who approved
            return f"its history does not say that {by.id} approved it"
        if by.entry == RBAC and by.via == "kubectl":
            if not self.rbac:
                return "an approval by RBAC does not count here (CALICO_WHY_RBAC_APPROVAL)"
            return self._alone(request, by)
        kind = request.spec.kind
        through_group = by.via == "slack" and by.entry in {entry.text for entry in self.groups(kind)}
        if not through_group and not self.own_entry(by, kind):
            return f"{by.id} is not on the list of approvers (CALICO_WHY_APPROVERS) of this fixer for {kind}"
        return self._alone(request, by)

    def _alone(self, request: FixRequest, by: Person) -> str:
        """Why this is no second person's approval, "" where it is or need not be."""
        same = False if self.allow_self else self.same_person(request, by)
        if same is None:
            asked = request.spec.requested_by.id
            return (
                f"nobody says whether {asked}, who asked for it, and {by.id}, who approved it, are one person "
                "(CALICO_WHY_PEOPLE)"
            )
        return f"{by.id} asked for it, and somebody else has to approve" if same else ""


def _text(entries: Iterable[Entry]) -> str:
    return next((entry.text for entry in entries), "")
