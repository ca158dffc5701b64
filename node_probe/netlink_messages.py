"""Netlink's messages, and a socket that asks with them; without it routes, WireGuard and
netfilter would each take them apart in a way of their own."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S", bound="NetlinkSocket")

# linux/netlink.h
SOL_NETLINK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 11, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS, NLM_F_DUMP = 0x1, 0x10, 0x100, 0x200, 0x300

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
U32, S32 = struct.Struct("=I"), struct.Struct("=i")


class NetlinkError(OSError):
    """The kernel refused. errno and strerror (the kernel's own words where it gives any) as in OSError."""

    @property
    def name(self) -> str:
        """ENOENT, ENODEV, ENETUNREACH, ..."""
        return errno.errorcode.get(self.errno or 0, str(self.errno))


class NetlinkSocket:
    """One netlink socket in the network namespace the calling thread is in now; afterwards any thread may use it."""

    def __init__(self, protocol: int) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._received = bytearray(1 << 16)  # for every answer: to allocate it costs more than to read one
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)  # the kernel filters dumps, not this
            self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
            # The kernel answers at once or never: nobody may wait for ever on a lost answer.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 2, 0))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: int, body: bytes) -> bytes:
        """One question, one answer: its payload."""
        with self._lock:
            sequence = self._send(kind, NLM_F_REQUEST, body)
            while True:
                data = self._receive()
                length, answer, flags, number, _ = HEADER.unpack_from(data)
                if number == sequence:  # else the late answer to a question that timed out
                    break
        if answer == NLMSG_ERROR:
            raise _error(data[:length], flags)
        return data[HEADER.size : length]

    def dump(self, kind: int, body: bytes, parse: Callable[[bytes], T | None]) -> list[T]:
        """Every answer `parse` makes something of. Asked again when the table changed meanwhile."""
        for _ in range(5):
            found, interrupted = self._dump_once(kind, body, parse)
            if not interrupted:
                return found
        raise NetlinkError(errno.EAGAIN, "the table changed each time it was read")

    def _dump_once(self, kind: int, body: bytes, parse: Callable[[bytes], T | None]) -> tuple[list[T], bool]:
        found: list[T] = []
        interrupted = False
        with self._lock:
            sequence = self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)
            while True:
                data = self._receive()
                offset = 0
                while offset < len(data):
                    length, answer, flags, number, _ = HEADER.unpack_from(data, offset)
                    message = data[offset : offset + length]
                    offset += length + 3 & ~3
                    if number != sequence:
                        continue
                    interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                    if answer == NLMSG_DONE:
                        return found, interrupted
                    if answer == NLMSG_ERROR:
                        raise _error(message, flags)
                    one = parse(message[HEADER.size :])
                    if one is not None:
                        found.append(one)

    def _send(self, kind: int, flags: int, body: bytes) -> int:
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        return self._sequence

    def _receive(self) -> bytes:
        try:
            size = self._socket.recv_into(self._received)
        except BlockingIOError:
            raise NetlinkError(errno.ETIMEDOUT, "the kernel did not answer") from None
        return bytes(memoryview(self._received)[:size])


def attribute(kind: int, value: bytes) -> bytes:
    """One, filled up to four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """By kind, without its flags, the last of each; of what is cut off in the middle those before."""
    found = {}
    size, header = ATTRIBUTE.size, ATTRIBUTE.unpack_from  # most of what is done to read devices is done here
    last = len(data) - size
    while offset <= last:
        length, kind = header(data, offset)
        if length < size:
            break
        found[kind & 0x3FFF] = data[offset + size : offset + length]
        offset += length + 3 & ~3
    return found


def text(attributes: dict[int, bytes], kind: int) -> str:
    """ "" where there is none."""
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _error(message: bytes, flags: int) -> NetlinkError:
    code = -S32.unpack_from(message, HEADER.size)[0]
    offset = HEADER.size + 4
    if flags & NLM_F_ACK_TLVS:
        # Behind the code: the question's header, the question itself unless capped, then the kernel's own words.
        offset += HEADER.size if flags & NLM_F_CAPPED else U32.unpack_from(message, offset)[0]
        words = text(attributes(message, offset), 1)
        if words:
            return NetlinkError(code, words)
    return NetlinkError(code, os.strerror(code))
