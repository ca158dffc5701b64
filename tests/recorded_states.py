"""Every recorded state as a whole cluster: what was recorded in part is put together with the rest of its cluster.

States of one cluster share names, addresses and the times of their allocations; nothing is taken from another cluster,
except where a state says so.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

from tests.recorded_kernel import Object, Recording
from tests.recordings import changeable, load, states

TUNNEL, ADDRESS = "projectcalico.org/IPv4VXLANTunnelAddr", "projectcalico.org/IPv4Address"
SMALL_POOL = "v3.32.1/exhaustion/6-strict-off"  # the cluster with one pool of 128 addresses


def recorded(state: str) -> Recording:
    """A state by its name. Raises FileNotFoundError for one that was not recorded."""
    return TOGETHER[state]() if state in TOGETHER else Recording(state)


def whole_states() -> list[str]:
    """Names of all of them."""
    return sorted({state for state in states() if not state.endswith("/loose")} | TOGETHER.keys())


def resource(recording: Recording, kind: str, name: str) -> Object:
    """One object of it, to be changed."""
    (found,) = [one for one in recording.objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def annotate(recording: Recording, node: str, name: str, value: str) -> None:
    """Sets an annotation of a node; "" takes it away."""
    annotations = resource(recording, "Node", node)["metadata"]["annotations"]
    annotations.pop(name, None)
    if value:
        annotations[name] = value


def block_of(recording: Recording, address: str) -> Object:
    """The IPAMBlock that contains an address."""
    (found,) = [
        one
        for one in recording.objects
        if one["kind"] == "IPAMBlock" and ip_address(address) in ip_network(one["spec"]["cidr"])
    ]
    return found


def free(recording: Recording, address: str) -> Any:
    """Gives an address back to its block; what the block had under it is returned."""
    spec = block_of(recording, address)["spec"]
    ordinal = _ordinal(spec, address)
    held, spec["allocations"][ordinal] = spec["allocations"][ordinal], None
    spec["unallocated"].append(ordinal)
    return held


def move(recording: Recording, old: str, new: str) -> None:
    """The allocation of one address becomes that of another of its block."""
    held = free(recording, old)
    spec = block_of(recording, new)["spec"]
    ordinal = _ordinal(spec, new)
    assert spec["allocations"][ordinal] is None
    spec["allocations"][ordinal] = held
    spec["unallocated"].remove(ordinal)


def _ordinal(spec: Object, address: str) -> int:
    return int(ip_address(address)) - int(ip_network(spec["cidr"]).network_address)


def replace(recording: Recording, items: list[Object]) -> None:
    """These instead of all objects of their kind."""
    kinds = {one["kind"] for one in items}
    recording.objects[:] = [one for one in recording.objects if one["kind"] not in kinds] + changeable(items)


def _loose(name: str, version: str = "v3.32.1") -> list[Object]:
    found = load(f"{version}/loose")[name]
    items: list[Object] = found.get("items", [found])
    return items


def _nftables(state: str) -> Recording:
    """After node-c's tunnel address had been given back and taken anew once more."""
    found = Recording(state, rest_of=SMALL_POOL)
    annotate(found, "node-c", TUNNEL, "10.245.0.6")
    replace(found, _loose("leaks/3-from-report/after/ipamblocks.json"))
    return found


def _leaks() -> Recording:
    """With leaked addresses. Two pods that were there for a while were gone when the nodes were recorded."""
    found = _nftables("v3.32.1/nftables-mode/0-before-switch")
    replace(found, _loose("leaks/1-before/ipamblocks.json"))
    replace(found, _loose("leaks/1-before/ipamhandles.json"))
    replace(found, _loose("leaks/2-release/pods-after-del-before-api-delete.json"))
    for gone in ("released-b", "nohandle-b"):
        found.objects.remove(resource(found, "Pod", gone))
    return found


def _locked() -> Recording:
    found = _leaks()
    replace(found, _loose("leaks/3-from-report/clusterinformation-locked.json"))
    return found


def _cooldown(name: str) -> Recording:
    """pod-a2 is deleted in "after-del", and its address waits."""
    found = Recording("master-87c15906f20c/healthy")
    replace(found, _loose(f"ip-cooldown/ipamblocks-{name}.json", "master-87c15906f20c"))
    if name == "after-del":
        found.objects.remove(resource(found, "Pod", "pod-a2"))
    return found


POLICIES = ("0-before", "1-deny-idle", "2-deny-probed", "3-allow-idle", "4-allow-probed", "5-gnp-deny-idle",
            "6-gnp-deny-probed", "7-after")  # fmt: skip


def _policies(mode: str, step: str) -> Recording:
    """Only firewalls were recorded with these policies, and the policies themselves with every other step."""
    found = recorded("v3.32.1/healthy" if mode == "iptables" else "v3.32.1/nftables-mode/1-after-switch")
    if mode == "nftables":
        resource(found, "Pod", "p-c1")["metadata"]["labels"]["role"] = "db"  # it alone was meant
    shared = {"2-deny-probed": "1-deny-idle", "4-allow-probed": "3-allow-idle", "6-gnp-deny-probed": "5-gnp-deny-idle"}
    start = f"policy-{mode}/{shared.get(step, step)}/"
    for name, listed in load("v3.32.1/loose").items():
        if name.startswith(start):
            found.objects += changeable(listed["items"])
    return found


def _with_policies(mode: str, step: str) -> Callable[[], Recording]:
    return lambda: _policies(mode, step)


TOGETHER: dict[str, Callable[[], Recording]] = {
    "v3.32.1/nftables-mode/0-before-switch": lambda: _nftables("v3.32.1/nftables-mode/0-before-switch"),
    "v3.32.1/nftables-mode/1-after-switch": lambda: _nftables("v3.32.1/nftables-mode/1-after-switch"),
    "v3.32.1/nftables-mode-auto/after-kube-proxy-nftables": lambda: Recording(
        "v3.32.1/nftables-mode-auto/after-kube-proxy-nftables", rest_of="v3.32.1/scale/5-blocks-one-node"
    ),
    "v3.32.1/scale/after-delete": lambda: Recording("v3.32.1/scale/after-delete", rest_of="v3.32.1/scale/200-nodes"),
    "v3.32.1/leaks/1-before": _leaks,
    "v3.32.1/leaks/3-locked": _locked,
    "master-87c15906f20c/ip-cooldown/before": lambda: _cooldown("before"),
    "master-87c15906f20c/ip-cooldown/after-del": lambda: _cooldown("after-del"),
    **{
        f"v3.32.1/policy-{mode}/{step}": _with_policies(mode, step)
        for mode in ("iptables", "nftables")
        for step in POLICIES
    },
}
