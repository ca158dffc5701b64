"""In which order a person works through failure modes: the same for an answer's causes and for the runbook's page."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from engine.rule import CauseRule
from facts import Cause
from facts.flow import STAGES, mirrored

if TYPE_CHECKING:
    from engine.sights import Track


def depths(rules: Iterable[CauseRule]) -> dict[str, int]:
    """Failure mode -> most steps from one that is nobody's echo. An edge that closes a circle does not count."""
    return dict(_depths(tuple(sorted((rule.name, (*rule.after, *rule.after_peer)) for rule in rules))))


@functools.cache  # of the same rules for every answer
def _depths(rules: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, int]:
    roots = dict(rules)
    found: dict[str, int] = {}

    def depth(name: str, on_the_way: tuple[str, ...]) -> int:
        if name not in found:
            way = (*on_the_way, name)
            found[name] = max(
                (1 + depth(root, way) for root in roots[name] if root in roots and root not in way), default=0
            )
        return found[name]

    for name in roots:
        depth(name, ())
    return found


def place(stage: str) -> int:
    """Where on its leg; what has no place on it (a pod, a pool) comes first."""
    return STAGES.index(stage) if stage else -1


def loses_at(track: Track, cause: Cause) -> bool:
    """Is it where the packets of this leg were seen to get lost, or one stage behind that? A policy of a pod ends them
    before they come to its veth."""
    direction = track.leg.direction
    if not track.missing or cause.flow not in (track.leg.flow, "") or cause.leg not in (direction, "both"):
        return False
    stage = mirrored(cause.stage) if cause.leg == "both" and direction == "reverse" else cause.stage
    return bool(stage) and place(track.last_good) < place(stage) <= place(track.missing) + 1
