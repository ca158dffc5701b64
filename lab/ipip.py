"""A tunnel device that wraps packets into IPIP for kernels that have no such device; without it no lab would show one.

tunl0 is a TUN device here. What the node's routes send into it goes on, inside a second IP header, to the next hop of
the very route (as the kernel's own ipip device does it), and what comes wrapped for this node comes out of it.
Each has a process of its own, before all others where that is allowed, as the kernel's own work is: a thread of the
lab's carried packets half a second late on a busy machine, and what came was called lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
from pathlib import Path
from typing import NoReturn

from lab.errors import NamespacesForbidden
from lab.forkserver import close_all_but
from lab.intent import IPIP_DEVICE
from lab.kernel import Kernel
from node_probe.netlink import Netlink

IPIP = 4  # an IP protocol
LARGEST = 1 << 16
TUN = Path("/dev/net/tun")
# linux/if_tun.h, linux/in.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def add_device(kernel: Kernel) -> None:
    """The node has tunl0, down, until somebody deletes it. Raises NamespacesForbidden without any TUN device."""
    with kernel.namespace.entered():
        try:
            tun = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", IPIP_DEVICE.encode(), IFF_TUN | IFF_NO_PI))
        except OSError as error:
            raise NamespacesForbidden(
                f"A lab with IPIP needs {TUN}, and this machine does not give it ({error.strerror})."
            ) from error
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, IPIP) as wire:
            wire.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            child = os.fork()
            if child == 0:
                _become_carrier(tun, wire)
    os.close(tun)
    os.waitpid(child, 0)


def _become_carrier(tun: int, wire: socket.socket) -> NoReturn:
    """In a child: its own child carries, and is left to the lab's init."""
    try:
        if os.fork() == 0:
            close_all_but(tun, wire.fileno())
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            _carry(tun, wire, Netlink())
    finally:
        os._exit(0)


def _carry(tun: int, wire: socket.socket, routes: Netlink) -> None:
    """Until the device is gone."""
    both = select.poll()
    both.register(tun, select.POLLIN)
    both.register(wire, select.POLLIN)
    with wire, contextlib.closing(routes):
        while True:
            for ready, _ in both.poll():
                if ready == tun:
                    try:
                        packet = os.read(tun, LARGEST)
                    except OSError:
                        os.close(tun)
                        return
                    _wrap(packet, wire, routes)
                else:
                    outer = wire.recv(LARGEST)
                    with contextlib.suppress(OSError):  # the device is down: what arrives is lost
                        os.write(tun, outer[(outer[0] & 0xF) * 4 :])


def _wrap(packet: bytes, wire: socket.socket, routes: Netlink) -> None:
    """What cannot be sent on is lost without a word, and so is IPv6, which the kernel's own device does not take."""
    if packet[0] >> 4 == 4:
        with contextlib.suppress(OSError):
            next_hop = routes.route(socket.inet_ntoa(packet[16:20])).next_hop
            if next_hop:
                wire.sendto(packet, (next_hop, 0))
