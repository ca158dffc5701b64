"""The nodes' kernels: wounds them, and sees from outside what is written there; a fixer's own word proves nothing."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from benchmarks.trial.targets import NODES, OTHER_MAC, OTHER_PEER, WRONG_MAC, WRONG_PEER, Target
from node_probe.namespaces import inside
from node_probe.netlink import AF_BRIDGE, NDA_DST, NDA_LLADDR, NEIGHBOR
from tests.two_nodes import NODE, TUNNEL, TwoNodes

# linux/inotify.h. Two equal events in a row are told as one: that a file is opened stands between two writes.
IN_CLOSE_WRITE, IN_OPEN, IN_Q_OVERFLOW = 0x8, 0x20, 0x4000
INOTIFY_EVENT = struct.Struct("=iIII")
RTMGRP_NEIGH, RTM_NEWNEIGH = 0x4, 28
PERMANENT, SELF = 128, 2

Effect = Callable[[Target], None]

_libc = ctypes.CDLL(None, use_errno=True)


class Kernels:
    """Two nodes; the first is the namespace of this process. `effect(target)` is called for each write that mends.

    Neighbors and forwarding entries are told by the kernel's own events (none where nothing changed), switches by each
    single write to their file.
    """

    def __init__(self, effect: Effect) -> None:
        self._effect = effect
        self._nodes = TwoNodes()
        self._targets: dict[tuple[str, str], Target] = {}  # node, address or MAC
        self._files: dict[int, Target] = {}  # inotify's watch
        self._own: dict[int, int] = {}  # number of a target: writes of ours that are still to be told of
        self._device = {node: self._nodes.index(node[-1], TUNNEL) for node in NODES}
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._events = {node: self._in(node, _events) for node in NODES}
        self.blind = False  # something may have been written that was not seen

    @property
    def namespaces(self) -> dict[str, str]:
        """Where those are that are not this process' own."""
        return {"node-b": str(self._nodes.b.path)}

    def watch(self) -> None:
        """From now on, in this event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify, self._files_written)
        for node, events in self._events.items():
            loop.add_reader(events.fileno(), self._neighbors_written, node)

    def wound(self, targets: list[Target]) -> None:
        """All at once, before anybody watches."""
        for node in NODES:
            here = [target for target in targets if target.node == node]

            def work(ip: Any, here: list[Target] = here, node: str = node) -> None:
                for target in here:
                    self._wound(ip, node, target)

            self._nodes.at(node[-1], work)
            for target in here:
                if target.kind == "set_sysctl":
                    self._nodes.sysctl(node[-1], _path(target), "0")
                    self._files[self._in(node, lambda target=target: self._file(target))] = target

    def change(self, target: Target) -> None:
        """Another hand, so that the request's evidence no longer holds."""
        if target.kind == "set_sysctl":
            self._write(target, "1")
        else:
            self._set(target, OTHER_MAC, OTHER_PEER)

    def undo(self, target: Target) -> None:
        """Another hand, that makes it wrong again."""
        if target.kind == "set_sysctl":
            self._write(target, "0")
        else:
            self._set(target, WRONG_MAC, WRONG_PEER)

    def _wound(self, ip: Any, node: str, target: Target) -> None:
        if target.kind == "set_sysctl":
            ip.link("add", ifname=target.device, kind="veth", peer={"ifname": f"peer{target.number}"})
            return
        self._targets[node, target.address if target.kind == "replace_neighbor" else target.mac] = target
        _replace(ip, self._device[node], target, WRONG_MAC, WRONG_PEER)

    def _set(self, target: Target, mac: str, peer: str) -> None:
        self._nodes.at(target.node[-1], lambda ip: _replace(ip, self._device[target.node], target, mac, peer))

    def _write(self, target: Target, value: str) -> None:
        self._own[target.number] = self._own.get(target.number, 0) + 1
        self._nodes.sysctl(target.node[-1], _path(target), value)

    def _file(self, target: Target) -> int:
        path = f"/proc/sys/{_path(target)}".encode()
        watch: int = _libc.inotify_add_watch(self._inotify, path, IN_OPEN | IN_CLOSE_WRITE)
        if watch < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        return watch

    def _files_written(self) -> None:
        data, at = os.read(self._inotify, 1 << 16), 0
        while at < len(data):
            watch, mask, _, length = INOTIFY_EVENT.unpack_from(data, at)
            at += INOTIFY_EVENT.size + length
            self.blind |= bool(mask & IN_Q_OVERFLOW)
            target = self._files.get(watch)
            if not mask & IN_CLOSE_WRITE or target is None:
                continue
            if self._own.get(target.number):
                self._own[target.number] -= 1
            else:
                self._effect(target)

    def _neighbors_written(self, node: str) -> None:
        try:
            data, at = self._events[node].recv(1 << 16), 0
        except OSError:  # ENOBUFS: more than there was room for
            self.blind = True
            return
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind == RTM_NEWNEIGH:
                self._neighbor(node, data[at + 16 : at + length])
            at += (length + 3) & ~3

    def _neighbor(self, node: str, message: bytes) -> None:
        family, index, _, _, _ = NEIGHBOR.unpack_from(message)
        if index != self._device[node]:
            return
        said = _attributes(message[NEIGHBOR.size :])
        address = socket.inet_ntoa(said[NDA_DST]) if len(said.get(NDA_DST, b"")) == 4 else ""
        mac = said.get(NDA_LLADDR, b"").hex(":")
        target = self._targets.get((node, mac if family == AF_BRIDGE else address))
        if target is None:
            return
        mended = address == _peer(target) if family == AF_BRIDGE else mac == target.mac
        if mended:
            self._effect(target)

    def _in(self, node: str, work: Callable[[], Any]) -> Any:
        return inside(self._nodes.b.descriptor, work) if node == "node-b" else work()


def _events() -> socket.socket:
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    events.bind((0, RTMGRP_NEIGH))
    return events


def _replace(ip: Any, index: int, target: Target, mac: str, peer: str) -> None:
    if target.kind == "replace_neighbor":
        ip.neigh("replace", ifindex=index, dst=target.address, lladdr=mac, state=PERMANENT)
    else:
        ip.fdb("replace", ifindex=index, lladdr=target.mac, dst=peer, flags=SELF, state=PERMANENT)


def _peer(target: Target) -> str:
    return NODE["b" if target.node == "node-a" else "a"]


def _path(target: Target) -> str:
    return f"net/ipv4/conf/{target.device}/{target.switch}"


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind] = data[at + 4 : at + length]
        at += max((length + 3) & ~3, 4)
    return found
