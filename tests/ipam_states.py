"""Recorded clusters as the commands of `ipam` read them: what each resource was, of one moment."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from bot.ipam.state import READ, State
from bot.sources.kubernetes import CLASSIC
from fixes.resources.kinds import KINDS
from tests.recorded_states import recorded


def state_of(objects: Iterable[dict[str, Any]], taken: datetime = datetime(2026, 11, 22, 21, tzinfo=UTC)) -> State:
    """Of Kubernetes and Calico objects; a kind without any was read and is empty."""
    plurals = {one.kind: one.plural for one in KINDS.values()}
    found: dict[str, list[dict[str, Any]]] = {plural: [] for plural in READ}
    for one in objects:
        if plurals.get(one["kind"]) in found:
            found[plurals[one["kind"]]].append(one)
    return State(resources=dict(found), group=CLASSIC, taken=taken)


def recorded_state(name: str) -> State:
    """Such as "v3.32.1/healthy". Raises FileNotFoundError for one that was not recorded."""
    return state_of(recorded(name).objects)
