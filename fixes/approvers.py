"""Who may approve; bot and fixer both ask here, so a click let through by mistake is still refused on the node."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fixes.request import FixRequest, Person

SLACK_GROUP = re.compile(r"S[A-Z0-9]{2,}")
KUBERNETES = "kubernetes:"


@dataclass(frozen=True)
class Approvers:
    """Slack user ids, Slack user group ids and `kubernetes:<username>`; none means nobody."""

    entries: frozenset[str] = frozenset()
    allow_self: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Approvers:
        words = environment.get("CALICO_WHY_APPROVERS", "").split(",")
        return cls(
            entries=frozenset(word.strip() for word in words if word.strip()),
            allow_self=environment.get("CALICO_WHY_ALLOW_SELF_APPROVAL", "") == "1",
        )

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(sorted(entry for entry in self.entries if SLACK_GROUP.fullmatch(entry)))

    def own_entry(self, person: Person) -> str:
        """The entry that names this person itself, "" when none does."""
        entry = person.id if person.via == "slack" else KUBERNETES + person.id
        return entry if entry in self.entries and not SLACK_GROUP.fullmatch(entry) else ""

    def same_person(self, request: FixRequest, person: Person) -> bool:
        asked = request.spec.requested_by
        return (asked.via, asked.id) == (person.via, person.id)

    def refusal(self, request: FixRequest) -> str:
        """Why the recorded approval does not count here, "" when it does.

        A fixer cannot ask Slack who is in a group, but it can insist that the group is on its own list.
        """
        by = request.status.approved_by
        if by is None:
            return "nobody approved it"
        if self.same_person(request, by) and not self.allow_self:
            return f"{by.id} asked for it, and somebody else has to approve"
        through_group = by.via == "slack" and by.entry in self.groups
        if not through_group and not self.own_entry(by):
            return f"{by.id} is not on the list of approvers (CALICO_WHY_APPROVERS) of this node's fixer"
        return ""
