"""Is the tunnel device there, up, and configured as the cluster expects? A tunnel that is down is visible nowhere
else."""

from __future__ import annotations

from collections.abc import Iterator

from facts import Blind, Fact, Link, NodeAsk
from node_probe.ethtool import sums
from node_probe.netlink import Device
from node_probe.view import View


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """Link of the tunnel device and of the uplink."""
    if ask.tunnel_device:
        below = view.below(ask)
        parent = below.name if below else ""
        tunnel = view.device(ask.tunnel_device)
        programs = view.programs(tunnel) if tunnel else ()
        yield told(ask.node, ask.tunnel_device, tunnel, parent=parent, programs=programs)
    if ask.uplink_address:
        uplink = view.uplink(ask)
        if uplink is not None:
            programs = view.programs(uplink)
            yield told(ask.node, uplink.name, uplink, node_address=ask.uplink_address, programs=programs)
        else:
            reason = f"no device of {ask.node} holds {ask.uplink_address}, the node address Calico uses"
            yield Blind(node=ask.node, look="link", reason=reason)


def told(
    node: str,
    name: str,
    device: Device | None,
    *,
    parent: str = "",
    node_address: str = "",
    programs: tuple[str, ...] = (),
) -> Link:
    if device is None:
        return Link(node=node, device=name, found=False)
    return Link(
        node=node,
        device=name,
        found=True,
        up=device.up,
        lower_up=device.lower_up,
        operstate=device.operstate,
        mac=device.mac,
        mtu=device.mtu,
        link_kind=device.kind,
        vni=device.vni,
        vxlan_port=device.vxlan_port,
        vxlan_local=device.vxlan_local,
        parent=parent,
        programs=programs,
        sums=sums(name),
        node_address=node_address,
    )
