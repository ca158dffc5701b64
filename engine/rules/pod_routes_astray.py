"""A pod has routes, rules and maybe networks of its own: what they send elsewhere never comes to Calico."""

from __future__ import annotations

from engine.own_routes import astray
from engine.rule import HEALS_NEVER, Text, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, PodRoute


@cause(
    title="The pod's own routes lead packets to the target astray",
    severity="breaks",
    last_resort=True,
    silent_while_well=True,  # a second network may lead there as well
    remedy="Read `ip route get` of that address, `ip route` and `ip rule` inside the pod, and find what wrote them: a "
    "second network with a route of its own (Multus), a VPN client, an init container with NET_ADMIN. A pod made anew "
    "has none of what was added by hand.",
    after=[
        "pod_interface_missing",
        "pod_interface_down",
        "pod_eth0_down",
        "pod_ipv6_disabled",
        "pod_address_disagrees",
        "pod_default_route_missing",
    ],
    at=the.leg.source_node,
    stage="source pod",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod"),
    route=some(PodRoute, node=the.leg.source_node, pod=the.leg.source, destination=the.leg.target_address),
    interface=INTERFACE,
)
def pod_routes_astray(leg: Leg, route: PodRoute, interface: PodInterface) -> Text | None:
    if leg.source == leg.target:  # a pod reaches itself by its loopback device
        return None
    if told := astray(route, interface):
        return told
    if not route.found or route.source in ("", leg.source_address):
        return None
    return say(
        "{pod} sends packets to {address} under {source}, as its route {prefix} has it, and not under its own address "
        "{own}: its node takes them for forged.",
        pod=leg.source,
        address=leg.target_address,
        source=route.source,
        prefix=route.prefix,
        own=leg.source_address,
    )
