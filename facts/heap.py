"""One heap for all threads of a program that runs for months; without it each keeps what it once had, megabytes in a
thousand questions."""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8  # of malloc.h


def share_one() -> None:
    """For threads to come: those of Python run one at a time anyway."""
    with contextlib.suppress(AttributeError):  # of the C libraries only glibc has several
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
