"""How far another machine's clock is from ours; without it an approval that expires early would be a riddle."""

from __future__ import annotations

from email.utils import parsedate_to_datetime


def skew(date: str, sent: float, came: float) -> float | None:
    """Seconds by which the clock that wrote `date` (an HTTP header, whole seconds) is ahead of ours, surely; negative:
    behind; 0 where it may agree. sent, came: of request and answer, s since 1970. None for what is no date."""
    try:
        said = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    return max(said - came, 0.0) or min(said + 1 - sent, 0.0)
