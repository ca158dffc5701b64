"""The little of a node's kernel that a fix may touch; without it every kind of fix would reach for netlink itself."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator

from node_probe.netlink import Device, Entry, Netlink, NetlinkError, replace_neighbor


class Kernel:
    """The kernel of this process's network namespace. Every method blocks for a millisecond and raises OSError."""

    def device(self, name: str) -> Device | None:
        """The device of this name, None when there is none."""
        with Netlink() as netlink, _absent(errno.ENODEV):
            return netlink.link(name)
        return None

    def neighbor(self, device: str, address: str) -> Entry | None:
        """The entry for this address on this device, None when the device or the entry is not there."""
        with Netlink() as netlink, _absent(errno.ENODEV, errno.ENOENT):
            return netlink.neighbor(netlink.link(device).index, address)
        return None

    def replace_neighbor(self, device: str, address: str, mac: str) -> None:
        """Write a PERMANENT entry, whatever is there now."""
        replace_neighbor(device, address, mac)


@contextlib.contextmanager
def _absent(*errors: int) -> Generator[None]:
    """The kernel's "there is no such thing" is an answer; any other refusal is an error."""
    try:
        yield
    except NetlinkError as error:
        if error.errno not in errors:
            raise
