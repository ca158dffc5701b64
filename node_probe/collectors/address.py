"""Which addresses the node's devices really carry; without it only the annotations would be known."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Fact, LinkAddresses, NodeAsk
from node_probe.view import FAMILIES, View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """LinkAddresses of the tunnel device, of the uplink where a device holds the node address, and for IPv6 of each
    local pod's interface: its link-local address is the pod's gateway."""
    names = [ask.tunnel_device] if ask.tunnel_device else []
    uplink = view.uplink(ask)
    if uplink is not None:
        names.append(uplink.name)
    if ask.family == 6:
        names += [pod.interface for pod in ask.local_pods]
    for name in dict.fromkeys(names):
        yield held(ask, name, view)


def held(ask: NodeAsk, name: str, view: View) -> LinkAddresses:
    device = view.device(name)
    if device is None:
        return LinkAddresses(node=ask.node, device=name, family=ask.family, found=False)
    held = view.netlink.addresses(device.index, FAMILIES[ask.family])
    return LinkAddresses(
        node=ask.node,
        device=name,
        family=ask.family,
        found=True,
        addresses=tuple(f"{one.address}/{one.length}" for one in held),
        duplicates=tuple(f"{one.address}/{one.length}" for one in held if one.duplicate),
    )
