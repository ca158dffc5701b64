"""Which Calico this is, as numbers: what is right on one release is a fault on another."""

from __future__ import annotations

import re

_RELEASE = re.compile(r"v?(\d+)\.(\d+)")


def release(version: str) -> tuple[int, int] | None:
    """`v3.32.1` and `v3.32.0-0.dev-12-gabc` are (3, 32); None for what does not begin with a release."""
    found = _RELEASE.match(version)
    return (int(found[1]), int(found[2])) if found else None


def since(version: str, first: tuple[int, int], *, unknown: bool) -> bool:
    """Is it that release or a later one? `unknown` is the answer for a version nobody knows."""
    number = release(version)
    return unknown if number is None else number >= first
