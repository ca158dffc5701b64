"""Who listens on the port of a leg's target, and what became of packets to it; without it each rule about a server
would spell that out anew."""

from engine.rule import some, the
from facts import Listener, ProbeResult

# Conditions.
LISTENER = some(
    Listener,
    node=the.leg.target_node,
    pod=the.leg.target,
    family=the.leg.family,
    protocol=the.leg.protocol,
    port=the.leg.port,
)
TRIED = some(
    ProbeResult,
    node=the.leg.source_node,
    target_address=the.leg.target_address,
    protocol=the.leg.protocol,
    port=the.leg.port,
)
