"""The way into a pod's namespace without asking a container runtime; without it a pod is only seen from outside."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node_probe.netlink import Device, Netlink
from node_probe.netlink_messages import NetlinkError

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
# Where container runtimes bind-mount the namespaces they make; /proc holds those of running processes.
DIRECTORIES = ("/run/netns", "/var/run/netns", "/run/docker/netns")

_libc = ctypes.CDLL(None, use_errno=True)


class CannotEnter(Exception):
    """The pod's namespace could not be entered. Its text says why and what is missing."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A pod's namespace, proven to hold the other end of the pod's host interface."""

    descriptor: int  # of the namespace
    netlink: Netlink  # reads inside it, from any thread
    device: Device  # the pod's end of the veth, as it was when entered

    def run(self, work: Callable[[], T]) -> T:
        """`work()` inside the namespace; sockets it makes stay there when used from outside."""
        return inside(self.descriptor, work)

    def close(self) -> None:
        self.netlink.close()
        os.close(self.descriptor)


def inside(descriptor: int, work: Callable[[], T]) -> T:
    """Runs `work()` in a network namespace and gives what it gives or raises. Blocks.

    The thread that enters does nothing else and ends there: no thread that serves others can ever be left in a pod.
    """
    result: Future[T] = Future()

    def enter() -> None:
        try:
            if _libc.setns(descriptor, CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=enter, name="inside-pod", daemon=True)
    thread.start()
    thread.join()
    return result.result()


def enter(netlink: Netlink, host: Device) -> Inside:
    """The namespace behind `host`, the host side of a pod's veth. To be closed. Raises CannotEnter."""
    if host.link_namespace < 0:
        raise CannotEnter(
            f"the other end of {host.name} is in no other namespace; a pod's interface would have it in the pod"
        )
    descriptor = _find(netlink, host)
    try:
        reader = inside(descriptor, Netlink)
        try:
            device = reader.link(index=host.link)
            # Ids are per pair of namespaces and indexes small numbers: only both ends naming each other is proof.
            if device.link != host.index:
                raise CannotEnter(f"{device.name} in the namespace found for {host.name} is not its other end")
        except BaseException:
            reader.close()
            raise
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise CannotEnter(
                f"the namespace behind {host.name} cannot be entered ({error.strerror}); {_NEEDED}"
            ) from error
        raise
    return Inside(descriptor, reader, device)


_NEEDED = "the probe needs SYS_ADMIN, and the host's /run/netns or hostPID with SYS_PTRACE"


def _find(netlink: Netlink, host: Device) -> int:
    """An open descriptor of the namespace this one calls `host.link_namespace`. Raises CannotEnter."""
    seen: set[int] = set()
    closed = 0
    for path in _candidates():
        try:
            inode = path.stat().st_ino
            if inode in seen:
                continue
            seen.add(inode)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            closed += 1
            continue
        except OSError:  # a process that ended since the listing
            continue
        try:
            if netlink.namespace_id(descriptor) == host.link_namespace:
                return descriptor
        except NetlinkError:  # a file that is no network namespace
            pass
        os.close(descriptor)
    hidden = f", {closed} more may not be opened" if closed else ""
    raise CannotEnter(f"the namespace behind {host.name} is none of the {len(seen)} this probe sees{hidden}; {_NEEDED}")


def _candidates() -> Iterator[Path]:
    for directory in map(Path, DIRECTORIES):
        if directory.is_dir():
            yield from directory.iterdir()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            yield process / "ns" / "net"
