"""What is to be encrypted must be led into the WireGuard device; else it leaves in the clear, or for nowhere."""

from engine.prefix import covers_more, is_default
from engine.rule import HEALS_ENTRY, Finding, Text, cause, say, some, the
from engine.sender import ROUTE
from facts import Leg, RouteLookup


@cause(
    title="No route leads into the WireGuard device",
    severity="breaks",
    remedy="Look whether the routing rule of WireGuard is there (`ip rule`: by default 99, not from all fwmark "
    "0x200000/0x200000) and what its table holds. Felix writes both; if it does not within two minutes, restart the "
    "calico-node pod of this node.",
    after=["wireguard_device_missing", "wireguard_key_mismatch", "routing_rule_diverts"],
    after_peer=["allocation_missing", "node_address_missing"],
    at=the.leg.source_node,
    stage="source node",
    last_resort=True,
    heals_within_s=HEALS_ENTRY,
    leg=some(Leg, encapsulation="wireguard"),
    route=ROUTE,
)
def wireguard_route_missing(leg: Leg, route: RouteLookup) -> Text | Finding | None:
    """By the pool's own route the packets may well get there: then they are only not encrypted."""
    names = {"node": route.node, "address": leg.target_address, "device": leg.tunnel_device, "peer": leg.target_node}
    if not route.found:
        if route.error != "ENETUNREACH":
            return None
        return say(
            "{node} and {peer} announce WireGuard keys, and {node} has no route to {address}, by {device} or "
            "any other device.",
            **names,
        )
    if route.device in (leg.tunnel_device, ""):
        return None
    if covers_more(route.prefix, leg.target_block) if leg.target_block else is_default(route.prefix):
        return say(
            "{node} and {peer} announce WireGuard keys, but no route of {node} leads to {address} by {device}: packets "
            "take {taken} by {other}.",
            **names,
            taken=say("its default route")
            if is_default(route.prefix)
            else say("the route {prefix}", prefix=route.prefix),
            other=route.device,
        )
    return Finding(
        say(
            "{node} and {peer} announce WireGuard keys, but {node} sends packets to {address} by {other} ({prefix}), "
            "not by {device}: nobody encrypts them.",
            **names,
            other=route.device,
            prefix=route.prefix,
        ),
        severity="warns",
    )
