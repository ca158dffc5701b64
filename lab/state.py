"""Where a lab leaves its kubeconfig, certificates and socket; without it a second command could not find the first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.errors import LabError

SOCKET_PATH_LIMIT = 107
GATE = ".gate"


def base_directory() -> Path:
    """${XDG_RUNTIME_DIR:-/tmp}/calico-why-lab-<uid>, made when missing. Raises LabError when it is somebody else's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
    return _made(Path(runtime) / f"calico-why-lab-{os.getuid()}")


def _made(base: Path) -> Path:
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
    except OSError as error:
        raise LabError(
            f"The lab cannot keep its files in {base}: {error}. Set XDG_RUNTIME_DIR to a directory of yours."
        ) from error
    if found.st_uid != os.getuid() or base.is_symlink():
        raise LabError(
            f"{base} belongs to somebody else, so the lab does not use it. Set XDG_RUNTIME_DIR to a directory of yours."
        )
    return base


class StateDirectory:
    """One lab's directory. It is live as long as somebody holds the lock; the kernel lets go when they all died."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def create(cls, name: str) -> StateDirectory:
        """Sweeps what dead labs left, then makes one. Raises LabError when a lab of that name is up."""
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", name):
            raise LabError(f"{name} is no name for a lab: use lower-case letters, digits and dashes.", 2)
        base = base_directory()
        path = base / name
        if len(str(path / "control.sock")) > SOCKET_PATH_LIMIT:
            raise LabError(f"{path} is too long for a socket. Set XDG_RUNTIME_DIR to a shorter directory.")
        with _only_one(base):
            sweep(base)
            if path.exists():
                raise LabError(
                    f"A lab called {name} is up already. Use it, take it down (calico-why lab down --name {name}), "
                    "or start another one with --name.",
                    2,
                )
            path.mkdir(mode=0o700)
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (path / "logs").mkdir()
        return cls(path, lock)

    def remove(self) -> None:
        """The files are gone afterwards, whoever else is removing them too; with the last lab its base goes as well."""
        shutil.rmtree(self.path, ignore_errors=True)
        remove_base_when_empty(self.path.parent)


def live() -> list[Path]:
    """The directories of labs that are up, by name."""
    return sorted(path for path in base_directory().iterdir() if path.is_dir() and _held(path))


def find(name: str | None) -> Path:
    """The lab called NAME; without a name the only one there is. Raises LabError."""
    up = live()
    names = ", ".join(path.name for path in up)
    if name is not None:
        for path in up:
            if path.name == name:
                return path
        known = f" These are up: {names}." if up else " No lab is up."
        raise LabError(f"There is no lab called {name}.{known} Start one: calico-why lab up --name {name}", 2)
    if not up:
        raise LabError("No lab is up. Start one: calico-why lab up", 2)
    if len(up) > 1:
        raise LabError(f"Several labs are up ({names}); say which one with --name.", 2)
    return up[0]


def read_environment(file: Path) -> Mapping[str, str]:
    """The variables of a lab's env file."""
    pairs = (line.removeprefix("export ").partition("=") for line in file.read_text().splitlines())
    return {name: value for name, _, value in pairs}


def sweep(base: Path) -> None:
    """Removes the directories nobody holds."""
    for path in base.iterdir():
        if path.is_dir() and not _held(path):
            shutil.rmtree(path, ignore_errors=True)


def _held(path: Path) -> bool:
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def remove_base_when_empty(base: Path) -> None:
    """The last lab to go leaves nothing of them all."""
    with contextlib.suppress(OSError, LabError), _only_one(base):
        if {path.name for path in base.iterdir()} == {GATE}:
            (base / GATE).unlink()
            base.rmdir()


@contextlib.contextmanager
def _only_one(base: Path) -> Iterator[None]:
    """One process at a time looks for stale directories, makes new ones and removes the base."""
    gate = _locked_gate(base)
    try:
        yield
    finally:
        os.close(gate)


def _locked_gate(base: Path) -> int:
    while True:
        _made(base)
        with contextlib.suppress(FileNotFoundError):
            gate = os.open(base / GATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(gate, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(gate).st_ino == (base / GATE).stat().st_ino:
                    return gate
            os.close(gate)  # whoever held it before removed it with the base
