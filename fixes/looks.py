"""When a second look is due: without it a fix would overtake Felix, or act on what was there for a moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from facts import CalicoNode
from fixes import form
from fixes.kind import TooSoon
from fixes.request import moment

REFRESH_S = 95  # one refresh of Felix (90 s), and what it takes; observed (calico_truth.md 2)


def again_after(node: CalicoNode | None) -> str:
    """Seconds between the two looks at what this node's Felix refreshes, as an argument."""
    return str(max(REFRESH_S, (node.route_refresh_s if node else 0) + 5))


def second_look(arguments: Mapping[str, str]) -> bool:
    """Is this the second look? False: none is wanted (`now`). Raises TooSoon until it is due, and ValueError.

    seen_at: when the first was made, RFC 3339. again_after_s: seconds between them, one refresh of Felix at least.
    now: "yes" where a person asked for it at once.
    """
    if arguments.get("now") == "yes":
        return False
    between = max(form.number(arguments, "again_after_s"), REFRESH_S)
    due = moment(arguments.get("seen_at", "")) + timedelta(seconds=between)
    if due.tzinfo is None:
        raise ValueError(f"seen_at {arguments['seen_at']!r} has no time zone")
    left = (due - datetime.now(UTC)).total_seconds()
    if left > 0:
        raise TooSoon(f"The second look is at {due:%H:%M:%S} UTC, {between} s after the first.", left)
    return True
