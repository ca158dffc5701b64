"""Prefixes compared as numbers; without it each rule about routes would have its own idea of "the block's route"."""

from __future__ import annotations

from ipaddress import ip_address, ip_network


def host(address: str) -> str:
    """The prefix of this one address: /32, for IPv6 /128."""
    return f"{address}/{ip_address(address).max_prefixlen}"


def is_default(prefix: str) -> bool:
    """0.0.0.0/0 or ::/0"""
    return prefix.endswith("/0")


def covers_more(prefix: str, block: str) -> bool:
    """Is it shorter than the block (than a single address, where no block is known), so no route of Calico's for it?"""
    if not prefix:
        return False
    network = ip_network(prefix)
    return network.prefixlen < (ip_network(block).prefixlen if block else network.max_prefixlen)


def covers_less(prefix: str, block: str) -> bool:
    """Is it longer than the block, so that it wins over the block's route? False where no block is known."""
    return bool(prefix and block) and ip_network(prefix).prefixlen > ip_network(block).prefixlen
