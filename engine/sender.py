"""What the sending end of a leg has and does; without it each rule about one would spell that out anew.

All of them are conditions. `the.interface` is INTERFACE, `the.full` FULL, under these names in the rule.
"""

from engine.rule import some, the
from facts import PodInterface, ProbeResult, Room, RouteLookup

# Of the sending pod. Both of its ends were seen, since the probe could look into the pod.
INTERFACE = some(
    PodInterface,
    node=the.leg.source_node,
    pod=the.leg.source,
    family=the.leg.family,
    interface=the.leg.source_interface,
    found=True,
    entered=True,
)
# What the node picks for packets of its own to the target; those of its pods come in by an interface: another look.
ROUTE = some(RouteLookup, node=the.leg.source_node, destination=the.leg.target_address, source="", incoming="")
ROOM = some(Room, flow=the.leg.flow, direction=the.leg.direction, node=the.leg.source_node)
# Packets as large as the pod's interface lets them be, and small ones of the same kind.
FULL = some(
    ProbeResult,
    pod=the.leg.source,
    target_address=the.leg.target_address,
    size=the.interface.pod_mtu,
    answers=False,
    beside=False,
)
SMALL = some(ProbeResult, pod=the.leg.source, target_address=the.leg.target_address, protocol=the.full.protocol, size=0)
