"""Certificates in a directory, all of one generation; without it a key would be read beside the certificate of another,
since whoever renews them does so at any moment.

Kubernetes puts the files of a Secret behind one link, `..data`, and swaps that; so does `replace` here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import mkdtemp

DATA = "..data"

Stamp = tuple[tuple[int, int, int], ...]


def generation(directory: Path) -> Path:
    """Where all files of now are. What is read there belongs together, also when the link is swapped meanwhile."""
    data = directory / DATA
    return data.resolve() if data.is_symlink() else directory


def stamp(generation: Path, names: Collection[str]) -> Stamp:
    """Another value when one of the files was replaced. Raises OSError."""
    found = [(generation / name).stat() for name in names]
    return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


def replace(directory: Path, files: Mapping[str, bytes]) -> None:
    """All files at once, keys (`*.key`) readable by their owner only. Raises OSError."""
    before = generation(directory)
    fresh = Path(mkdtemp(prefix="..", dir=directory))
    for name, content in files.items():
        descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode_of(name))
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    _link(directory / DATA, fresh.name)
    for name in files:
        if not (directory / name).is_symlink():
            _link(directory / name, f"{DATA}/{name}")
    if before != directory:
        shutil.rmtree(before)


def mode_of(name: str) -> int:
    return 0o600 if name.endswith(".key") else 0o644


def _link(path: Path, target: str) -> None:
    fresh = path.with_name(f"..{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(target)
    fresh.replace(path)
