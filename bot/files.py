"""Files that people asked for are there whole or not at all; half a capture would be taken for all of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """For its owner's eyes. Raises OSError; then nothing of it is left."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):
                if path.is_file():  # /dev/stdout is none
                    path.unlink()
            raise
