"""The tunnel devices Calico has on a node beside the one that is asked for; without it a node with two shows one."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, NodeAsk
from facts.flow import TUNNEL_DEVICES
from node_probe.collectors.address import held
from node_probe.collectors.link import told
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Link and LinkAddresses of each that is there, of the asked family; nothing where one path is asked about."""
    if not ask.status:
        return
    for (_, family), name in TUNNEL_DEVICES.items():
        if family == ask.family and name != ask.tunnel_device and (device := view.device(name)):
            yield told(ask.node, name, device)
            yield held(ask, name, view)
