"""A program on the node's side of a pod's interface (XDP) decides on what the pod sends before the kernel sees it."""

from engine.rule import NOT_FELIX, Text, cause, say, some, the
from facts import Leg, PodInterface


@cause(
    title="A program on the pod's interface may drop what it sends",
    severity="warns",
    remedy="Find whose program it is (`bpftool net`, `ip link`): Calico without eBPF attaches none there. Ask its "
    "statistics, or take it off for a moment (`ip link set dev INTERFACE xdp off`) and ask again.",
    after=["pod_interface_missing", "pod_interface_down"],
    at=the.leg.source_node,
    stage="source veth",
    silent_while_well=True,
    both_ways=True,
    heals_within_s=NOT_FELIX,
    leg=some(Leg, source_kind="pod"),
    interface=some(
        PodInterface,
        node=the.leg.source_node,
        pod=the.leg.source,
        family=the.leg.family,
        interface=the.leg.source_interface,
        found=True,
    ),
)
def xdp_program_on_pod_interface(leg: Leg, interface: PodInterface) -> Text | None:
    if not interface.program or leg.obstacle == "ebpf":
        return None
    return say(
        "an XDP program is attached to {interface} of {pod} on {node}: it may drop what the pod sends.",
        interface=interface.interface,
        pod=leg.source,
        node=interface.node,
    )
