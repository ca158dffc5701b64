"""What listens in the node's own network; a node, or a pod that shares its network, can be the target too."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, NodeAsk
from node_probe.collectors import pod
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Listener for each of the node's own ports that is asked for."""
    for port in ask.own_ports:
        sockets = pod.listening(port.protocol, port.port)
        yield pod.listener(ask, port.name, port.protocol, port.port, sockets)
