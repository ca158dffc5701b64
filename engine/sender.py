"""Which interface a leg's sending pod has; without it each rule about one would spell that out anew."""

from engine.rule import some, the
from facts import PodInterface

# A condition: both of its ends were seen, since the probe could look into the pod.
INTERFACE = some(
    PodInterface,
    node=the.leg.source_node,
    pod=the.leg.source,
    family=the.leg.family,
    interface=the.leg.source_interface,
    found=True,
    entered=True,
)
