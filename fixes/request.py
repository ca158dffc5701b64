"""The life of a FixRequest in one table; without it an expired or already decided request could still be executed."""

from __future__ import annotations

import enum
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

GROUP = "calico-why.io"
VERSION = "v1alpha1"
PLURAL = "fixrequests"
KIND = "FixRequest"
CAPTURE = "capture"  # the kind of request that changes nothing: a bot carries it out, and no fixer
WRITES = ("write_resource", "delete_resource")  # the kinds that people ask for by name: no question led to them
LIFETIME = timedelta(minutes=15)
NOTHING_NOW = "Nothing, as it is now: "  # so begins a preview where the evidence does not hold; the reason follows

NAME = re.compile(r"fx-[a-z2-7]{8}")


class Phase(enum.StrEnum):
    """Where a request is in its life."""

    PENDING = "Pending"
    REJECTED = "Rejected"
    EXPIRED = "Expired"
    STALE = "Stale"
    CANCELLED = "Cancelled"
    APPROVED = "Approved"
    RUNNING = "Running"
    VERIFIED = "Verified"
    NOT_FIXED = "NotFixed"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


# The whole life. What is not written here cannot happen; a phase that leads nowhere is an end.
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.APPROVED, Phase.REJECTED, Phase.EXPIRED, Phase.STALE, Phase.CANCELLED}),
    Phase.APPROVED: frozenset({Phase.RUNNING, Phase.EXPIRED, Phase.STALE, Phase.CANCELLED, Phase.FAILED}),
    Phase.RUNNING: frozenset({Phase.VERIFIED, Phase.NOT_FIXED, Phase.FAILED, Phase.UNKNOWN}),
    Phase.REJECTED: frozenset(),
    Phase.EXPIRED: frozenset(),
    Phase.STALE: frozenset(),
    Phase.CANCELLED: frozenset(),
    Phase.VERIFIED: frozenset(),
    Phase.NOT_FIXED: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.UNKNOWN: frozenset(),
}
ENDS = frozenset(phase for phase, after in TRANSITIONS.items() if not after)
WAITING = frozenset({Phase.PENDING, Phase.APPROVED})  # nothing was done yet: the deadline and the digest still count

# A phase as a person says it after "it is already ..." or on a card.
IN_WORDS: Mapping[Phase, str] = {
    Phase.PENDING: "waiting for approval",
    Phase.REJECTED: "rejected",
    Phase.EXPIRED: "expired",
    Phase.STALE: "stale: what it rests on has changed",
    Phase.CANCELLED: "cancelled",
    Phase.APPROVED: "approved",
    Phase.RUNNING: "being executed",
    Phase.VERIFIED: "done and verified",
    Phase.NOT_FIXED: "executed, but not fixed",
    Phase.FAILED: "failed",
    Phase.UNKNOWN: "interrupted: nobody knows whether it was done",
}


class Person(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody known to a system that authenticates: a Slack user id or a Kubernetes username, never a display name."""

    id: str
    name: str = ""
    via: str  # "slack" | "kubectl"
    entry: str = ""  # of an approver: the entry of the approver list that allowed it (an id, a group id), or "rbac"
    groups: tuple[str, ...] = ()  # of an approver by RBAC: the Kubernetes groups, to ask RBAC once more


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A fact the request rests on, as it was seen."""

    id: str
    fact: dict[str, Any]


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is asked for. Immutable: the API server refuses a change, and `digest` shows one."""

    kind: str
    node: str
    arguments: dict[str, str]
    title: str
    evidence: tuple[Evidence, ...]
    digest: str
    blast_radius: str
    undo: str
    requested_by: Person
    requested_at: str  # RFC 3339, UTC
    expires_at: str
    investigation: str = ""
    question: str = ""  # the words that were asked, to ask them again
    cluster: str = ""


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Where in Slack the request is shown."""

    channel: str
    thread: str
    ts: str


class SecondLook(msgspec.Struct, frozen=True, kw_only=True):
    """What the same question answered after the fix."""

    verdict: str
    text: str
    at: str


class Waits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an approved request is not done yet."""

    text: str
    until: str = ""  # when it goes on, RFC 3339; "" where somebody has to change something first


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the audit trail that every request carries."""

    phase: Phase
    at: str
    by: Person | None = None
    message: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where the request is. Only `advance` makes a new one with another phase."""

    phase: Phase = Phase.PENDING
    approved_by: Person | None = None
    approved_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    message: str = ""
    preview: tuple[str, ...] = ()  # exactly what would be written, by the fixer that would write it
    waits: Waits | None = None  # while it is approved, by the fixer that would begin it
    slack: Card | None = None
    second_look: SecondLook | None = None
    history: tuple[Event, ...] = ()


class FixRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as read from the cluster."""

    name: str
    spec: Spec
    status: Status = Status()
    resource_version: str = ""

    @property
    def open(self) -> bool:
        return self.status.phase not in ENDS


class Refused(Exception):
    """This transition does not exist. `sentence` tells a person why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def new_name() -> str:
    """A name nobody can guess: 40 random bits in base32."""
    return "fx-" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(8))


def digest(kind: str, node: str, arguments: Mapping[str, str], evidence: Sequence[Evidence]) -> str:
    """What an approval is bound to: exactly this change, there, on this evidence."""
    content = {"kind": kind, "node": node, "arguments": dict(arguments), "evidence": list(evidence)}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def digest_of(spec: Spec) -> str:
    return digest(spec.kind, spec.node, spec.arguments, spec.evidence)


def stamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """The reverse of `stamp`. Raises ValueError."""
    return datetime.fromisoformat(text)


def expired(spec: Spec, now: datetime) -> bool:
    """Past its deadline. A deadline nobody can read is over."""
    try:
        return now >= moment(spec.expires_at)
    except (ValueError, TypeError):
        return True


def advance(request: FixRequest, to: Phase, *, now: datetime, by: Person | None = None, message: str = "") -> Status:
    """The status after this transition; the only place where a phase changes.

    While nothing was done yet, two things go before what was asked for: past the deadline the result is Expired, and
    with a spec that is no longer what its digest says it is Stale. So compare the resulting phase with the asked one.
    Raises Refused for a transition the table does not have, and for an approval or rejection by nobody.
    """
    current = request.status
    if to not in TRANSITIONS[current.phase]:
        raise Refused(f"{request.name} is {_already(request)}; nothing was changed.")
    if current.phase in WAITING:
        if expired(request.spec, now):
            to, by, message = Phase.EXPIRED, None, _overdue(request)
        elif to is Phase.EXPIRED:
            raise Refused(f"{request.name} has not expired yet; it is valid until {request.spec.expires_at}.")
        elif digest_of(request.spec) != request.spec.digest:
            to, by, message = Phase.STALE, None, "The request is not what it was when it was made; ask again."
    if to in (Phase.APPROVED, Phase.REJECTED) and by is None:
        raise Refused(f"{request.name} can only be {IN_WORDS[to]} by a person.")
    at = stamp(now)
    changes: dict[str, Any] = {"phase": to, "message": message, "waits": None}
    if to is Phase.APPROVED:
        changes |= {"approved_by": by, "approved_at": at}
    if to is Phase.RUNNING:
        changes |= {"started_at": at}
    if to in ENDS:
        changes |= {"finished_at": at}
    changes["history"] = (*current.history, Event(phase=to, at=at, by=by, message=message))
    return msgspec.structs.replace(current, **changes)


def last_event(request: FixRequest, phase: Phase) -> Event | None:
    """When and by whom the request came to this phase."""
    return next((event for event in reversed(request.status.history) if event.phase is phase), None)


def _overdue(request: FixRequest) -> str:
    """Why its time went by."""
    deadline = request.spec.expires_at
    if request.status.phase is Phase.PENDING:
        return f"Nobody decided by {deadline}."
    if waits := request.status.waits:
        return f"It was approved, and not done by {deadline}: {waits.text.rstrip('.')}."
    return f"It was approved, and nobody began it by {deadline}."


def _already(request: FixRequest) -> str:
    phase = request.status.phase
    event = last_event(request, phase)
    words = IN_WORDS[phase] if phase is Phase.PENDING else f"already {IN_WORDS[phase]}"
    if event is None:
        return words
    return f"{words} ({f'by {event.by.name or event.by.id} ' if event.by else ''}at {event.at})"


def document(request: FixRequest, namespace: str) -> dict[str, Any]:
    """The custom resource of a request, plain and JSON-safe."""
    metadata = {"name": request.name, "namespace": namespace}
    if request.resource_version:
        metadata["resourceVersion"] = request.resource_version
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": metadata,
        "spec": msgspec.to_builtins(request.spec),
        "status": msgspec.to_builtins(request.status) | {"phase": str(request.status.phase)},
    }


def parse(document: Mapping[str, Any]) -> FixRequest:
    """A request from its custom resource; one without a status is Pending. Raises msgspec.ValidationError."""
    metadata = document.get("metadata", {})
    return FixRequest(
        name=str(metadata.get("name", "")),
        spec=msgspec.convert(document.get("spec", {}), Spec),
        status=msgspec.convert(document.get("status") or {}, Status),
        resource_version=str(metadata.get("resourceVersion", "")),
    )
