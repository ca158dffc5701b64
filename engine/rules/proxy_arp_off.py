"""Nobody owns a pod's gateway: the pod's interface answers for it, unless its proxy ARP is off."""

from engine.rule import HEALS_NEVER, Finding, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, Sysctl


@cause(
    title="The node does not answer for the pod's gateway",
    severity="breaks",
    remedy="Set proxy_arp of the pod's interface to 1 and find what set it to 0 (a sysctl.d file, a hardening tool).",
    fix="set_sysctl",
    at=the.leg.source_node,
    stage="source veth",
    both_ways=True,
    heals_within_s=HEALS_NEVER,
    leg=some(Leg, source_kind="pod", family=4),
    own=some(
        Sysctl,
        node=the.leg.source_node,
        family=the.leg.family,
        device=the.leg.source_interface,
        switch="proxy_arp",
        found=True,
    ),
    every=some(Sysctl, node=the.leg.source_node, family=the.leg.family, device="all", switch="proxy_arp"),
    interface=INTERFACE,
)
def proxy_arp_off(leg: Leg, own: Sysctl, every: Sysctl, interface: PodInterface) -> Finding | None:
    if own.value != "0" or every.value == "1" or interface.pod_gateway_state == "PERMANENT":
        return None
    # eBPF may answer instead of the kernel, and another plugin's gateway has its address itself.
    if leg.encapsulation == "unknown" or not leg.source_block:
        return None
    if interface.pod_gateway_mac:
        return Finding(
            say(
                "{switch} is 0 on {node}: {pod} still remembers the MAC of its gateway, "
                "and is cut off once it asks again.",
                switch=own.name,
                node=own.node,
                pod=leg.source,
            ),
            severity="warns",
        )
    return Finding(
        say(
            "{switch} is 0 on {node}: {pod} asks for the MAC of {gateway} and nobody answers.",
            switch=own.name,
            node=own.node,
            pod=leg.source,
            gateway=interface.pod_default_next_hop or say("its gateway"),
        )
    )
