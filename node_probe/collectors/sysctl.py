"""The kernel's switches that stop a flow without leaving any other trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from facts import Fact, NodeAsk, Sysctl
from node_probe.view import View

SWITCHES = {4: Path("/proc/sys/net/ipv4"), 6: Path("/proc/sys/net/ipv6")}  # of the namespace of the thread that reads
# Per device. IPv6 forwards by the node's one switch, except where a device's force_forwarding is set (Linux 6.17); a
# device that is disabled neither sends nor takes any.
Switches = dict[int, tuple[str, ...]]
EVERY: Switches = {4: ("rp_filter", "proxy_arp"), 6: ("forwarding",)}
TUNNEL: Switches = {4: ("forwarding", "rp_filter"), 6: ("force_forwarding", "disable_ipv6")}
POD: Switches = {4: ("forwarding", "rp_filter", "proxy_arp"), 6: ("force_forwarding", "disable_ipv6")}
UPLINK: Switches = {4: (), 6: ("force_forwarding", "disable_ipv6")}


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """IPv4: ip_forward, then rp_filter, proxy_arp and forwarding where they count. IPv6: forwarding of all, then
    whether IPv6 is disabled on the tunnel device, the uplink and each local pod's interface, or forwarded anyway."""
    family = ask.family
    if family == 4:
        yield _forwarding(ask, view)
    devices = [("all", EVERY)]
    if ask.tunnel_device:
        devices.append((ask.tunnel_device, TUNNEL))
    # An uplink whose IPv6 is disabled has lost the address it is known by.
    uplink = view.home(ask) if family == 6 else None
    if uplink is not None:
        devices.append((uplink.name, UPLINK))
    devices += [(pod.interface, POD) for pod in ask.local_pods]
    for device, switches in devices:
        for switch in switches[family]:
            yield _sysctl(ask, "conf", device, switch)


def _forwarding(ask: NodeAsk, view: View) -> Sysctl:
    """The node's switch, which only sets the devices' own; with the uplink, where that one's is another."""
    node, uplink = _sysctl(ask, "ip_forward"), view.home(ask)
    if uplink is None or _sysctl(ask, "conf", uplink.name, "forwarding").value in (node.value, ""):
        return node
    return msgspec.structs.replace(node, unlike=(uplink.name,))


def _sysctl(ask: NodeAsk, *path: str) -> Sysctl:
    if any("/" in part or part in ("", ".", "..") for part in path):
        # It comes from outside and must not lead out of /proc/sys.
        raise ValueError(f"{path} does not name a network device")
    name = ".".join((f"net.ipv{ask.family}", *path))
    device, switch = path[1:] if len(path) == 3 else ("", "")
    try:
        value, found = SWITCHES[ask.family].joinpath(*path).read_text().strip(), True
    except FileNotFoundError:
        value, found = "", False
    return Sysctl(
        node=ask.node,
        name=name,
        found=found,
        value=value,
        device=device,
        family=ask.family,
        switch="forwarding" if switch == "force_forwarding" else switch,
    )
