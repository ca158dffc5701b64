"""What a pod's own routes do with its packets, in words; without it the way to a pod and the way to a Service would be
told in two."""

from __future__ import annotations

from facts import PodInterface, PodRoute, Text, say

# What a lookup's error says of the entry or rule it ended in.
SWALLOWS = {"EINVAL": "blackhole", "EHOSTUNREACH": "unreachable", "EACCES": "prohibit"}


def astray(route: PodRoute, interface: PodInterface) -> Text | None:
    """Where they lead when it is not out of the pod's interface of Calico; None when it is, or when it has no default
    route at all."""
    words = {"pod": route.pod, "address": route.destination}
    if not route.found:
        return _refused(route, interface, words)
    if route.device == "lo":
        return say("{pod} takes {address} for an address of its own.", **words)
    if route.device == interface.pod_device:
        return None
    return say(
        "inside {pod} the route {prefix} via {next_hop} sends packets to {address} out by {device}; {interface} is the "
        "pod's interface of Calico."
        if route.next_hop
        else "inside {pod} the route {prefix} sends packets to {address} out by {device}; {interface} is the pod's "
        "interface of Calico.",
        **words,
        prefix=route.prefix,
        next_hop=route.next_hop,
        device=route.device,
        interface=interface.pod_device,
    )


def _refused(route: PodRoute, interface: PodInterface, words: dict[str, str]) -> Text | None:
    if route.error in SWALLOWS:
        return say(
            "inside {pod} a route or rule of type {type} swallows packets to {address}.",
            **words,
            type=SWALLOWS[route.error],
        )
    if route.error == "ENETUNREACH" and interface.pod_default_next_hop:
        return say(
            "inside {pod} no route leads to {address}, although there is a default route via {gateway}: a routing "
            "rule, or a route of type unreachable or throw, is in its way.",
            **words,
            gateway=interface.pod_default_next_hop,
        )
    return None
