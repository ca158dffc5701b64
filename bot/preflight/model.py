"""One thing that was looked at, as a value; without it each part would tell its findings in a form of its own."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from facts import Text, joined, say

OK, NOT, UNSEEN, SKIPPED = "ok", "not", "?", "-"
ORDER = (NOT, UNSEEN, SKIPPED, OK)
SHOWN = 10  # names of a sentence, lines of one kind


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """part: as `preflight PART` names it. about: what was looked at."""

    part: str
    about: Text
    state: str  # OK | NOT | UNSEEN (it could not be seen) | SKIPPED (nobody asked for it to be looked at)
    found: Text | str
    means: Text | str = ""
    remedy: Text | str = ""


def several(names: Sequence[str]) -> str:
    """The first of them, and how many more there are: a value for `say`."""
    shown = joined(names[:SHOWN])
    more = len(names) - SHOWN
    return say("{names} and {count} more", names=shown, count=more) if more > 0 else shown
