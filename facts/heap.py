"""Keeps of memory what a program needs that runs for months; without it the C library keeps what was once free, some
megabytes in a thousand questions."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of malloc.h
LARGE = 32 << 10  # bytes
EVERY_S = 60.0  # takes milliseconds


def keep_small(every_s: float = EVERY_S) -> None:
    """From now on. Of the C libraries only glibc needs it, and offers it."""
    library = ctypes.CDLL(None)
    try:
        tune, trim = library.mallopt, library.malloc_trim
    except AttributeError:
        return
    tune(M_ARENA_MAX, 1)  # one heap for all threads to come: those of Python run one at a time anyway
    # What is read into (64 KiB of netlink, 256 of TLS) is not cut from it: in the hole it leaves something small stays.
    tune(M_MMAP_THRESHOLD, LARGE)
    threading.Thread(target=_give_back, args=(trim, every_s), name="heap", daemon=True).start()


def _give_back(trim: Callable[[int], int], every_s: float) -> None:
    """What is free between what is used, too: glibc by itself gives back the end of a heap alone. Never returns."""
    while True:
        time.sleep(every_s)
        trim(0)
