"""A program on a network card that drops what comes in; without it nobody would know that the probe sees less than all.

usage, inside a network namespace, the program on standard input: python -m tests.xdp DEVICE [off]
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

import pytest

BPF = {"x86_64": 321, "aarch64": 280}  # the system call's number
PROG_LOAD, PROG_TYPE_XDP = 5, 6
DROP, PASS = 1, 2
IPV4_LITTLE_ENDIAN, UDP = 0x0008, 17
RTM_SETLINK, NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 19, 1, 4, 2
IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, NESTED, ANY_DEVICE = 43, 1, 3, 0x8000, 2
HEADERS = 14 + 20 + 8


def dropping(port: int) -> int:
    """A descriptor of a program that drops IPv4 UDP packets to this port (0: whatever comes in), to be closed.

    Skips the test where the kernel lets this user load none.
    """
    word, half, byte = 0x61, 0x69, 0x71  # loads
    code = [
        (0xB7, 0, 0, 0, DROP if not port else PASS),
        (0x95, 0, 0, 0, 0),
    ]
    if port:
        code = [
            (0xB7, 0, 0, 0, PASS),
            (word, 2, 1, 0, 0),  # r2: the packet, r3: its end
            (word, 3, 1, 4, 0),
            (0xBF, 4, 2, 0, 0),
            (0x07, 4, 0, 0, HEADERS),
            (0x2D, 4, 3, 7, 0),  # too short: pass
            (half, 5, 2, 12, 0),
            (0x55, 5, 0, 5, IPV4_LITTLE_ENDIAN),
            (byte, 5, 2, 23, 0),
            (0x55, 5, 0, 3, UDP),
            (half, 5, 2, 36, 0),
            (0x55, 5, 0, 1, socket.htons(port)),
            (0xB7, 0, 0, 0, DROP),
            (0x95, 0, 0, 0, 0),
        ]
    program = b"".join(struct.pack("=BBhi", op, source << 4 | to, off, value) for op, to, source, off, value in code)
    held = ctypes.create_string_buffer(program)
    license_name = ctypes.create_string_buffer(b"GPL")
    asked = struct.pack(
        "=IIQQ", PROG_TYPE_XDP, len(code), ctypes.addressof(held), ctypes.addressof(license_name)
    ).ljust(128, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    number = BPF.get(platform.machine())
    if number is None or sys.byteorder != "little":
        pytest.skip(f"this test knows no bpf system call of {platform.machine()}")
    descriptor = int(libc.syscall(number, PROG_LOAD, asked, len(asked)))
    if descriptor < 0:
        error = ctypes.get_errno()
        if error in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            pytest.skip(f"loading an XDP program needs root: {os.strerror(error)}")
        raise OSError(error, os.strerror(error))
    return descriptor


def attach(device: str, descriptor: int) -> None:
    """To a device of this namespace; -1 takes it off. Raises OSError."""
    fields = b"".join(
        struct.pack("=HHi", 8, kind, value) for kind, value in ((IFLA_XDP_FD, descriptor), (IFLA_XDP_FLAGS, ANY_DEVICE))
    )
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(device), 0, 0)
    body += struct.pack("=HH", 4 + len(fields), IFLA_XDP | NESTED) + fields
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.send(struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
        answer = asking.recv(4096)
    (kind,), (error,) = struct.unpack_from("=H", answer, 4), struct.unpack_from("=i", answer, 16)
    if kind == NLMSG_ERROR and error:
        raise OSError(-error, os.strerror(-error))


if __name__ == "__main__":
    attach(sys.argv[1], -1 if sys.argv[2:] == ["off"] else sys.stdin.fileno())
