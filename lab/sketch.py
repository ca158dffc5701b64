"""What a lab is to be like before any object of it is written; without it each variant would be a whole cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab.apiserver.calico_definitions import Group
from lab.intent import UPLINK, UPLINK_MTU


def node_name(number: int) -> str:
    """node-a ... node-z, node-aa, node-ab ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"node-{letters}"


@dataclass(frozen=True)
class Sketch:
    """Variants replace fields of it."""

    nodes: int = 3
    pods_per_node: int = 2
    families: tuple[int, ...] = (4,)
    two_subnets: bool = False  # the last node is in a subnet of its own
    wide_subnet: bool = False  # the nodes' addresses have the prefix length 16
    vxlan_mode: str = "Always"  # of the first pool of each family
    block_size: tuple[tuple[int, int], ...] = ((4, 26), (6, 122))  # by family
    version: str = "v3.32.1"
    group: Group = "crd.projectcalico.org"
    uplink: str = UPLINK
    uplink_slaves: tuple[str, ...] = ()  # as lab.topology.NodeMachine.slaves
    uplink_mtu: int = UPLINK_MTU
    node_name: Callable[[int], str] = node_name

    @property
    def numbers(self) -> tuple[int, int]:
        """The version's first two."""
        major, minor, *_ = self.version.lstrip("v").split(".")
        return int(major), int(minor)
