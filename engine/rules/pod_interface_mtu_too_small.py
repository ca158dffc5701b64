"""The two ends of a pod's interface are one cable: where the node's end is narrower, what the pod sends larger is gone
without a word, and answers of a server vanish that are larger than all that was asked."""

from engine.passage import with_largest
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.sender import INTERFACE
from facts import Leg, PodInterface, ProbeResult


@cause(
    title="The node's end of the pod's interface is narrower than the pod's",
    severity="degrades",
    remedy="Give both ends the MTU that other pods of the node have: `ip link set INTERFACE mtu N` for the node's end; "
    "where it is the pod's that differs, recreate the pod. Nobody tells a pod that its packets are too large there. "
    "The CNI plugin makes both ends alike, and Felix leaves them as they are: look for a script, udev or "
    "NetworkManager that sets the MTU of every interface.",
    at=the.leg.source_node,
    stage="source veth",
    heals_within_s=NOT_FELIX,
    after=["pod_mtu_too_large"],  # then it is the pod's end that is wrong, and the node's would not help
    leg=some(Leg, source_kind="pod"),
    interface=INTERFACE,
    full=some(
        ProbeResult,
        pod=the.leg.source,
        target_address=the.leg.target_address,
        protocol="icmp",
        size=the.interface.pod_mtu,
    ),
    small=some(ProbeResult, pod=the.leg.source, target_address=the.leg.target_address, protocol="icmp", size=0),
)
def pod_interface_mtu_too_small(
    leg: Leg, interface: PodInterface, full: ProbeResult, small: ProbeResult
) -> Finding | None:
    """Several packets that are handed on as one (segmentation offload) pass: connections may be slow, not dead."""
    if not 0 < interface.mtu < interface.pod_mtu:
        return None
    narrow = say(
        "{device} of {pod} has MTU {mtu}, and its other end {interface} on {node} only {node_mtu}: what {pod} sends "
        "larger is dropped there, and nobody is told.",
        device=interface.pod_device,
        pod=leg.source,
        mtu=interface.pod_mtu,
        interface=interface.interface,
        node=leg.source_node,
        node_mtu=interface.mtu,
    )
    if not full.lost_for_its_size(small):
        return Finding(narrow, severity="warns")
    lost = say("{narrow} Packets of {size} bytes do not pass, small ones do.", narrow=narrow, size=full.size)
    return Finding(with_largest(lost, full))
