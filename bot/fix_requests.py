"""Turns the causes of an answer into requests somebody can approve; without it the bot would only ever advise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from bot.errors import UserError
from bot.investigate import Investigation
from facts import Cause, Diagnosis
from fixes.kind import ClusterKind, Kind, kinds
from fixes.request import (
    IN_WORDS,
    LIFETIME,
    Evidence,
    FixRequest,
    Person,
    Phase,
    Spec,
    digest,
    document,
    expired,
    moment,
    stamp,
)
from fixes.store import FixStore


async def request_fixes(investigation: Investigation, store: FixStore, requested_by: Person) -> list[dict[str, object]]:
    """Custom resources of the requests for this answer: one for each cause that a kind of fix can mend, and of leaked
    addresses one for each of the first few; [] for none.

    A request for exactly the same change that waits or is being done is given instead of a second one.
    Raises fixes.store.StoreError (it has a `sentence`).
    """
    return [document(one, store.namespace) for one in await requested(investigation, store, requested_by)]


async def requested(investigation: Investigation, store: FixStore, requested_by: Person) -> list[FixRequest]:
    """The same as FixRequests."""
    proposals = [
        proposal
        for cause in (*investigation.diagnosis.causes, *_warnings(investigation.diagnosis))
        for proposal in _proposals(cause, investigation, store, requested_by)
    ]
    return await made(proposals, store)


async def made(specs: Sequence[Spec], store: FixStore) -> list[FixRequest]:
    """The requests for these changes: for each the one that is open already, or a new one. Raises StoreError."""
    if not specs:
        return []
    # The newest first: of two the older one is kept, whose card hangs longer.
    open_ones = {_change(one.spec): one for one in await store.all() if _lives(one, store.now())}
    found: dict[str, FixRequest] = {}
    for spec in specs:
        change = _change(spec)
        found[change] = open_ones.get(change) or found.get(change) or await store.create(spec)
    return list(found.values())


async def at_once(name: str, store: FixStore, requested_by: Person) -> FixRequest:
    """The change of a request that waits for its second look, asked for without that: a request of its own, which
    a second person approves. Raises UserError, and StoreError."""
    waiting = await store.get(name)
    kind = kinds().get(waiting.spec.kind)
    if not _lives(waiting, store.now()):
        raise UserError(f"{name} is {IN_WORDS[waiting.status.phase]}; ask the question again for a new request.")
    if kind is None or "again_after_s" not in waiting.spec.arguments:
        raise UserError(f"{name} waits for no second look: approve {name} has it done.")
    if not kind.may_hurry:
        raise UserError(f"{name} rests on two looks, and {kind.name} is never done on one alone.")
    arguments = {**waiting.spec.arguments, "now": "yes"}
    now = store.now()
    return await store.create(
        msgspec.structs.replace(
            waiting.spec,
            arguments=arguments,
            digest=digest(kind.name, waiting.spec.node, arguments, waiting.spec.evidence),
            requested_by=requested_by,
            requested_at=stamp(now),
            expires_at=stamp(now + LIFETIME),
        )
    )


def _warnings(diagnosis: Diagnosis) -> list[Cause]:
    """What only warns is mended in the cluster's objects alone: a node's fix would change a path that works."""
    return [cause for cause in diagnosis.warnings if isinstance(kinds().get(cause.fix), ClusterKind)]


def _lives(request: FixRequest, now: datetime) -> bool:
    """Somebody may still decide on it, or it is being done."""
    return request.open and (request.status.phase is Phase.RUNNING or not expired(request.spec, now))


def _change(spec: Spec) -> str:
    """The same for the same change. What its evidence must still show stands in the arguments; how old a leak is or how
    many packets were lost may be another a minute later."""
    arguments = {name: value for name, value in spec.arguments.items() if name != "seen_at"}
    return digest(spec.kind, spec.node, arguments, ())


def _proposals(cause: Cause, investigation: Investigation, store: FixStore, requested_by: Person) -> list[Spec]:
    facts = investigation.diagnosis.facts
    for kind in filter(None, map(kinds().get, (cause.fix, *cause.other_fixes))):
        if (first := kind.propose(cause, facts)) is not None:
            found = (first, *kind.more(cause, facts))
            return [_spec(kind, arguments, cause, investigation, store, requested_by) for arguments in found]
    return []


def _spec(
    kind: Kind,
    arguments: dict[str, str],
    cause: Cause,
    investigation: Investigation,
    store: FixStore,
    requested_by: Person,
) -> Spec:
    return specified(
        kind,
        arguments,
        node=cause.node,
        evidence=_evidence(cause, investigation.diagnosis),
        investigation=investigation.id,
        question=investigation.asked,
        cluster=investigation.cluster,
        requested_by=requested_by,
        now=store.now(),
    )


def specified(
    kind: Kind,
    arguments: dict[str, str],
    *,
    node: str = "",
    evidence: tuple[Evidence, ...],
    investigation: str = "",
    question: str,
    cluster: str,
    requested_by: Person,
    now: datetime,
) -> Spec:
    """What is asked for. A kind that looks twice (again_after_s) has its first look now, unless `seen_at` is given."""
    due = now
    if "again_after_s" in arguments:  # it must be seen twice (fixes.looks), and the second look be approved in time
        arguments = {"seen_at": stamp(now), **arguments}
        due = max(now, moment(arguments["seen_at"]) + timedelta(seconds=int(arguments["again_after_s"])))
    return Spec(
        kind=kind.name,
        node=node,
        arguments=arguments,
        title=str(kind.title(arguments, node)),  # English: it is a record
        evidence=evidence,
        digest=digest(kind.name, node, arguments, evidence),
        blast_radius=str(kind.blast_radius(arguments, node)),
        undo=str(kind.undo(arguments, node)),
        requested_by=requested_by,
        requested_at=stamp(now),
        expires_at=stamp(due + LIFETIME),
        investigation=investigation,
        question=question,
        cluster=cluster,
    )


def _evidence(cause: Cause, diagnosis: Diagnosis) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(id=fact.id, fact=msgspec.to_builtins(fact)) for fact in diagnosis.facts if fact.id in cause.evidence
    )
