"""Investigations the reply tests render: real diagnoses of the hand-written scene, and hostile ones."""

from __future__ import annotations

import functools

import msgspec

from bot.investigate import Investigation
from engine.diagnosis import diagnose
from engine.worker import could_not_judge
from facts import (
    Allocation,
    Blind,
    Cause,
    Checked,
    Diagnosis,
    Endpoint,
    Fact,
    FdbEntry,
    FelixHealth,
    Hop,
    LegPath,
    Link,
    LinkAddresses,
    Listener,
    Neighbor,
    PodInterface,
    ProbeResult,
    Question,
    RouteLookup,
    Sysctl,
    say,
)
from tests.scene import change, healthy, without

WRONG_MAC = "66:00:00:00:00:99"
KERNEL = (
    RouteLookup,
    Neighbor,
    FdbEntry,
    Link,
    LinkAddresses,
    PodInterface,
    ProbeResult,
    Sysctl,
    FelixHealth,
    Listener,
)
SILENT_PROBE = Blind(
    node="node-b",
    look="probe",
    reason=say("its probe at {address} did not answer in {seconds} s", address="172.30.0.12", seconds="4"),
)


def investigation(diagnosis: Diagnosis, **fields: object) -> Investigation:
    about = {
        "id": "inv-20261122-220400-k3",
        "cluster": "prod-eu-1",
        "asked": "shop/cart shop/db 5432/tcp",
        "asked_by": "U0ANA",
        "started": "2026-11-22T22:04:00+00:00",
        "elapsed_ms": 210,
        "diagnosis": diagnosis,
    }
    return Investigation(**{**about, **fields})  # type: ignore[arg-type]


@functools.cache
def wrong_mac() -> Investigation:
    facts = change(healthy(), Neighbor, {"node": "node-a"}, mac=WRONG_MAC)
    facts = change(facts, ProbeResult, {}, answered=0, outcome="silence", rtt_us=-1)
    return investigation(diagnose(facts))


@functools.cache
def well() -> Investigation:
    return investigation(diagnose(healthy()))


@functools.cache
def unseen() -> Investigation:
    """The probe of node-b did not answer and no packet passed."""
    facts: list[Fact] = [*without(healthy(), *KERNEL, node="node-b"), SILENT_PROBE]
    return investigation(diagnose(change(facts, ProbeResult, {}, answered=0, outcome="silence", rtt_us=-1)))


@functools.cache
def no_engine() -> Investigation:
    """What the worker answers when the engine died: hardly anything is known."""
    return investigation(could_not_judge([], "the engine ended by signal 9"))


def hostile(name: str, count: int = 3) -> Investigation:
    """Every text is `name`, and there is much of everything."""
    facts: list[Fact] = [
        Endpoint(name=name, kind="pod", node=name, address="10.0.0.1", phase="Pending", reason=name),
        Allocation(address=name, found=True, owner_kind=name, owner=name, node=name),
        *(Neighbor(node=name, device=name, address=f"{name}{i}", found=True, mac=name) for i in range(count)),
        *(RouteLookup(node=name, destination=f"{name}{i}", found=False, error=name) for i in range(count)),
    ]
    cause = Cause(
        rule=name,
        title=name,
        text=name,
        node=name,
        evidence=tuple(f.id for f in facts),
        remedy=name,
        fix=name,
        felix=name,
    )
    hops = tuple(Hop(stage="source pod", node=name, name=name, state="ok") for _ in range(count))
    path = tuple(LegPath(direction=d, source=name, target=name, hops=hops) for d in ("forward", "reverse"))
    diagnosis = Diagnosis(
        verdict="cause",
        question=Question(source=name, target=name, protocol="tcp", port=1),
        summary=name,
        causes=tuple(msgspec.structs.replace(cause, rule=f"{name}{i}") for i in range(count)),
        warnings=(cause,) * count,
        checked=tuple(Checked(rule=f"{name}{i}", node=name, leg="forward") for i in range(count)),
        blind=tuple(Blind(node=name, look=f"{name}{i}", reason=f"{name}{i}") for i in range(count)),
        path=path,
        facts=tuple(facts),
    )
    texts = {"asked": name, "asked_by": name, "cluster": name, "saved": name, "not_saved": name, "id": name}
    return investigation(diagnosis, **texts)
