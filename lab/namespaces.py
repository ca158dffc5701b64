"""Gives the lab a machine of its own without root: user, mount, process and network namespaces; without it a lab would
touch the network of the machine it runs on.

    launcher            the host's namespaces; owns the listening sockets on the host's loopback
      └─ keeper         own user namespace (unless root); waits, and cleans up should the launcher be killed
           └─ init      pid 1 of its own process, mount and network namespaces: all in them ends with it
                └─ server, probes, fixers, commands
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pyroute2 import IPRoute

from lab.dumps import Reader
from lab.errors import LabError, NamespacesForbidden

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
NETNS_DIRECTORY = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int = CLONE_NEWNET) -> None:
    """Moves the calling thread. Raises OSError."""
    _checked(_libc.setns(descriptor, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Raises OSError."""
    _checked(
        _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode() or None),
        f"mount {kind or source} on {target}",
    )


def unmount(target: str) -> None:
    """Detaches; raises OSError."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def die_with_parent(parent: int, how: signal.Signals) -> None:
    """The kernel sends `how` to this process when its parent is gone; a parent gone already ends it here and now."""
    _checked(_libc.prctl(PR_SET_PDEATHSIG, int(how), 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(3)


def new_user_namespace() -> None:
    """Becomes root of a user namespace of its own. Raises LabError with the one sentence a person needs."""
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise NamespacesForbidden(user_namespaces_refused(error)) from error


def user_namespaces_refused(error: OSError) -> str:
    """Which switch of this machine is in the way, as far as it can be read."""

    def switch(name: str) -> str:
        try:
            return Path("/proc/sys", *name.split(".")).read_text().strip()
        except OSError:
            return ""

    said = (
        f"This machine does not let an ordinary user make namespaces ({error.strerror or error}), so no lab can start"
    )
    if switch("user.max_user_namespaces") == "0":
        return f"{said}: raise user.max_user_namespaces (sudo sysctl user.max_user_namespaces=10000), or use sudo."
    if switch("kernel.unprivileged_userns_clone") == "0":
        return f"{said}: allow them (sudo sysctl kernel.unprivileged_userns_clone=1), or use sudo."
    if switch("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return f"{said}: AppArmor forbids it (sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0), or use sudo."
    return f"{said}: a container's seccomp profile or a security module forbids it; use sudo outside a container."


def become_init(visible: Path) -> None:
    """In a child of a process that unshared its pid namespace: takes a mount and a network namespace of its own.

    `visible`, a directory of the host, keeps its path although /run becomes private. Raises LabError.
    """
    kept = -1
    try:
        unshare(CLONE_NEWNS | CLONE_NEWNET)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        # Opened only now: a directory opened before belongs to the old mount namespace and could not be bound here.
        kept = os.open(visible, os.O_RDONLY | os.O_DIRECTORY)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
        if not visible.exists():
            visible.mkdir(parents=True)
            mount(f"/proc/self/fd/{kept}", str(visible), "", MS_BIND)
        NETNS_DIRECTORY.mkdir(parents=True)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise NamespacesForbidden(user_namespaces_refused(error)) from error
        raise LabError(f"The lab could not set up its namespaces: {error}.") from error
    finally:
        if kept >= 0:
            os.close(kept)


class Namespace:
    """A network namespace, known by its name under /run/netns as a container runtime would have it.

    The netlink socket belongs to the thread that used it first: use one thread for all of them.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.descriptor = descriptor
        self._route: Any = None
        self._reader: Reader | None = None

    @classmethod
    def here(cls, name: str) -> Namespace:
        """The namespace the calling thread is in."""
        return cls(name, os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def create(cls, name: str) -> Namespace:
        """A new one, named NAME. Raises OSError."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            unshare(CLONE_NEWNET)
            path = NETNS_DIRECTORY / name
            path.touch(0o444, exist_ok=False)
            mount("/proc/thread-self/ns/net", str(path), "", MS_BIND)
            made = cls.here(name)
        finally:
            setns(home)
            os.close(home)
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace, then back where it was; children started meanwhile stay in it."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.descriptor)
            yield
        finally:
            setns(home)
            os.close(home)

    @property
    def route(self) -> Any:
        """pyroute2's IPRoute inside this namespace."""
        if self._route is None:
            with self.entered():
                self._route = IPRoute()
        return self._route

    @property
    def reader(self) -> Reader:
        """Of what this namespace holds. Raises OSError."""
        if self._reader is None:
            with self.entered():
                self._reader = Reader()
        return self._reader

    def sysctl(self, name: str) -> str:
        """`ipv4/ip_forward` of this namespace. Raises OSError."""
        with self.entered():
            return Path("/proc/sys/net", name).read_text().strip()

    def set_sysctl(self, name: str, value: str) -> None:
        """Raises OSError."""
        with self.entered():
            Path("/proc/sys/net", name).write_text(value)

    def socket(self, kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
        """A non-blocking socket of this namespace, bound; a stream socket listens already. Raises OSError.

        One bound to :: serves IPv4, too.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with self.entered():
            made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setblocking(False)
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen(128)
        return made

    def spawn(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: str = "/",
        stdin: int | IO[bytes],
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        """A process inside this namespace, leader of its own session. Raises OSError."""
        with self.entered():
            return subprocess.Popen(
                argv,
                env=dict(environment),
                cwd=directory,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def close(self) -> None:
        """Gives it up: the kernel ends it when nothing uses it any more."""
        if self._route is not None:
            self._route.close()
            self._route = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        with contextlib.suppress(OSError):
            unmount(str(NETNS_DIRECTORY / self.name))
            (NETNS_DIRECTORY / self.name).unlink()
        os.close(self.descriptor)
