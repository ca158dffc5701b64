"""Fix requests as the tests need them: one right one, and its variations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from fixes.request import LIFETIME, Evidence, FixRequest, Person, Phase, Spec, Status, digest_of, stamp

NOW = datetime(2026, 11, 22, 22, 4, tzinfo=UTC)
ANA = Person(id="U0ANA", via="slack")
BO = Person(id="U0BO", via="slack", entry="U0BO")


def a_spec(now: datetime = NOW, **changes: Any) -> Spec:
    """`changes` are made before the digest is taken: the spec is a consistent one."""
    spec = Spec(
        kind="replace_neighbor",
        node="node-a",
        arguments={
            "device": "vxlan.calico",
            "vni": "4096",
            "address": "10.244.218.64",
            "mac": "66:89:3a:22:7a:ac",
            "seen": "66:00:00:00:00:99",
            "peer": "node-b",
        },
        evidence=(Evidence(id="neighbor-1", fact={"fact": "Neighbor", "mac": "66:00:00:00:00:99"}),),
        title="Replace the neighbor 10.244.218.64 on node-a",
        digest="",
        blast_radius="one entry",
        undo="not needed",
        requested_by=ANA,
        requested_at=stamp(now),
        expires_at=stamp(now + LIFETIME),
        question="shop/cart shop/db 5432/tcp",
        cluster="test",
    )
    spec = msgspec.structs.replace(spec, **changes)
    return msgspec.structs.replace(spec, digest=digest_of(spec))


def a_request(phase: Phase = Phase.PENDING, **tampered: Any) -> FixRequest:
    """`tampered` fields are changed behind the digest's back."""
    return FixRequest(
        name="fx-abcdefgh", spec=msgspec.structs.replace(a_spec(), **tampered), status=Status(phase=phase)
    )
