"""The kernel's switches that stop a flow without leaving any other trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from facts import Fact, NodeAsk, Sysctl
from node_probe.view import View

SWITCHES = Path("/proc/sys/net/ipv4")  # shows the namespace of the thread that reads it


def collect(ask: NodeAsk, view: View) -> Iterator[Fact]:
    """ip_forward, rp_filter and proxy_arp of all, forwarding and rp_filter of the tunnel device and of each local pod's
    interface, which also needs proxy_arp."""
    yield _sysctl(ask.node, "ip_forward")
    for switch in ("rp_filter", "proxy_arp"):
        yield _sysctl(ask.node, "conf", "all", switch)
    for switch in ("forwarding", "rp_filter"):
        yield _sysctl(ask.node, "conf", ask.tunnel_device, switch)
    for pod in ask.local_pods:
        for switch in ("forwarding", "rp_filter", "proxy_arp"):
            yield _sysctl(ask.node, "conf", pod.interface, switch)


def _sysctl(node: str, *path: str) -> Sysctl:
    if any("/" in part or part in ("", ".", "..") for part in path):
        raise ValueError(
            f"{path} does not name a network device"
        )  # it comes from outside and must not lead out of /proc/sys
    name = ".".join(("net.ipv4", *path))
    device, switch = path[1:] if len(path) == 3 else ("", "")
    try:
        value, found = SWITCHES.joinpath(*path).read_text().strip(), True
    except FileNotFoundError:
        value, found = "", False
    return Sysctl(node=node, name=name, found=found, value=value, device=device, switch=switch)
