"""Prefixes compared as numbers; without it each rule about routes would have its own idea of "the block's route"."""

from __future__ import annotations

import functools
from ipaddress import ip_address, ip_network


def host(address: str) -> str:
    """The prefix of this one address: /32, for IPv6 /128."""
    return f"{address}/{ip_address(address).max_prefixlen}"


def is_default(prefix: str) -> bool:
    """0.0.0.0/0 or ::/0"""
    return prefix.endswith("/0")


def holds(prefix: str, address: str) -> bool:
    """Is the address in it?"""
    return ip_address(address) in ip_network(prefix, strict=False)


def covers_more(prefix: str, block: str) -> bool:
    """Is it shorter than the block (than a single address, where no block is known), so no route of Calico's for it?"""
    if not prefix:
        return False
    length, longest = _length(prefix)
    return length < (_length(block)[0] if block else longest)


def covers_less(prefix: str, block: str) -> bool:
    """Is it longer than the block, so that it wins over the block's route? False where no block is known."""
    return bool(prefix and block) and _length(prefix)[0] > _length(block)[0]


@functools.lru_cache(maxsize=1024)
def _length(prefix: str) -> tuple[int, int]:
    """Its own, and that of a single address of its family. A few blocks are in nearly every rule about routes."""
    network = ip_network(prefix)
    return network.prefixlen, network.max_prefixlen
