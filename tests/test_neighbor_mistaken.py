"""A learned MAC is accused only where nothing sent to it arrives, and where the network does not answer for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import Fact, Neighbor, Sighting, from_builtins

CASE = Path(__file__).parent / "cases" / "underlay_neighbor_mistaken.json"
MISTAKEN = "underlay_neighbor_mistaken"
NODE_A, NODE_B = "172.30.0.11", "172.30.0.12"
CLOUD = "12:34:56:78:9a:bc"


def recorded() -> list[Fact]:
    """Node-a has learned a wrong MAC for node-b."""
    return [from_builtins(one) for one in json.loads(CASE.read_text())["recordings"][0]["facts"]]


def changed(kind: type[Fact], which: dict[str, Any], **fields: Any) -> list[Fact]:
    def meant(one: Fact) -> bool:
        return isinstance(one, kind) and all(getattr(one, name) == value for name, value in which.items())

    facts = recorded()
    assert any(map(meant, facts))
    return [msgspec.structs.replace(one, **fields) if meant(one) else one for one in facts]


def rules(facts: list[Fact]) -> set[str]:
    diagnosis = diagnose(facts)
    return {cause.rule for cause in (*diagnosis.causes, *diagnosis.warnings)}


def test_another_machines_mac_is_named_and_not_the_network() -> None:
    assert rules(recorded()) == {MISTAKEN}


@pytest.mark.parametrize(
    ("kind", "which", "fields"),
    [
        (Neighbor, {"node": "node-b", "address": NODE_A}, {"mac": CLOUD}),  # a network that answers for its machines
        (Neighbor, {"node": "node-b", "address": NODE_A}, {"mac": "", "state": "FAILED"}),
        (Neighbor, {"node": "node-a", "address": NODE_B}, {"mac": "02:00:ac:1e:00:0c"}),  # the peer's own
        (Neighbor, {"node": "node-a", "address": NODE_B}, {"state": "PERMANENT"}),  # somebody wrote it
        (Sighting, {"node": "node-b", "way": "in"}, {"seen": 3}),  # what was sent there did come in
        (Sighting, {"node": "node-a", "way": "out"}, {"seen": 0}),  # nothing was sent
    ],
)
def test_without_its_whole_proof_it_is_not_named(
    kind: type[Fact], which: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert MISTAKEN not in rules(changed(kind, which, **fields))
