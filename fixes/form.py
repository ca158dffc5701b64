"""The form each word of a request must have before it reaches a kernel; without it a request could carry a command."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
DEVICE = re.compile(r"[^\s/]{1,15}")
NUMBER = re.compile(r"[0-9]{1,9}")

Arguments = Mapping[str, str]


def device(arguments: Arguments, name: str = "device") -> str:
    """The name of a network device, as the kernel allows it. Each of these raises ValueError."""
    value = arguments.get(name, "")
    if not DEVICE.fullmatch(value) or value in (".", ".."):
        raise ValueError(f"{value!r} is not the name of a network device")
    return value


def mac(arguments: Arguments, name: str = "mac") -> str:
    """The MAC address of one device, in small letters."""
    value = arguments.get(name, "")
    if not MAC.fullmatch(value) or value == "00:00:00:00:00:00" or int(value[:2], 16) & 1:
        raise ValueError(f"{value!r} is not the MAC address of one device")
    return value


def address(arguments: Arguments, name: str = "address") -> str:
    """The IP address of one machine, as the kernel writes it."""
    value = arguments.get(name, "")
    found = ipaddress.ip_address(value)
    if found.is_multicast:
        raise ValueError(f"{value} is a multicast address")
    if found.is_unspecified or str(found) != value or getattr(found, "scope_id", None):
        raise ValueError(f"{value!r} is not the address of one machine")
    return value


def prefix(arguments: Arguments, name: str) -> str:
    """ADDRESS/LENGTH of a network, as the kernel writes it; never a default route."""
    value = arguments.get(name, "")
    found = ipaddress.ip_network(value)
    if str(found) != value or not found.prefixlen or found.is_multicast:
        raise ValueError(f"{value!r} is not the prefix of pods")
    return value


def number(arguments: Arguments, name: str) -> int:
    value = arguments.get(name, "")
    if not NUMBER.fullmatch(value):
        raise ValueError(f"{name} {value!r} is not a number")
    return int(value)


def complete(arguments: Arguments, *names: str) -> None:
    """Each of these is said, if only to be empty."""
    for name in names:
        if name not in arguments:
            raise ValueError(f"{name} is not said")
