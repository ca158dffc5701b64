"""Prefixes compared as numbers; without it each rule about routes would have its own idea of "the block's route"."""

from __future__ import annotations

from ipaddress import ip_network


def covers_more(prefix: str, block: str) -> bool:
    """Is it shorter than the block (than a single address, where no block is known), so no route of Calico's for it?"""
    return bool(prefix) and ip_network(prefix).prefixlen < (ip_network(block).prefixlen if block else 32)


def covers_less(prefix: str, block: str) -> bool:
    """Is it longer than the block, so that it wins over the block's route? False where no block is known."""
    return bool(prefix and block) and ip_network(prefix).prefixlen > ip_network(block).prefixlen
