"""Traffic control (tc) of a device takes packets where no firewall's rule, no route and no trace tells of them."""

from engine.dropped import told
from engine.path import stage_at
from engine.rule import NOT_FELIX, Finding, Text, cause, joined, say, some, the
from facts import Leg, TrafficControl

HIDING = ("outside", "host")  # natOutgoing gives packets another address on their way out


@cause(
    title="Traffic control (tc) of a device takes the packets",
    severity="breaks",
    remedy="Look at what hangs there (`tc -s qdisc show dev DEVICE`, `tc -s filter show dev DEVICE ingress` and "
    "`egress`, `bpftool net`), and whose it is: left over from another network plugin, a limit of bandwidth, a test "
    "of bad networks. Take it away with its own tool, or with `tc filter del` and `tc qdisc del`; of Calico without "
    "eBPF none is.",
    at=the.taken.node,
    heals_within_s=NOT_FELIX,
    taken=some(TrafficControl),
    leg=some(Leg, source_address=the.taken.source_address, target_address=the.taken.target_address),
)
def traffic_control_drops(taken: TrafficControl, leg: Leg) -> Finding | None:
    asked = (leg.protocol, leg.port) if leg.port_asked else ("icmp", 0)
    of_leg = taken.reply == (leg.direction == "reverse") and (taken.protocol, taken.port) == asked
    if not of_leg or leg.obstacle == "ebpf" or not _is_proved(taken, leg):
        return None
    every_kind = leg.port_asked or taken.outer or all(one.any_kind for one in taken.takers)
    beside = "" if every_kind else say("Only pings were sent, and it may be about them alone: ask again with the port.")
    if taken.later:
        beside = say("It takes only what follows in a connection: the handshake passes.")
    if taken.large:
        beside = say("Only full-size packets are taken: small ones pass.")
    stage = stage_at(leg, taken.node, taken.device, outer=taken.outer, pod=taken.pod)
    text = told(_said(taken, leg), _by(taken), beside)
    severity = "degrades" if taken.large else "" if every_kind else "warns"
    return Finding(text, stage=stage, severity=severity)


def _is_proved(taken: TrafficControl, leg: Leg) -> bool:
    """Between the two places that looked there is nothing else for what comes in. What goes out may also be lost in a
    driver, or carry another address."""
    counted = max([taken.drops, *(one.drops for one in taken.takers)]) >= max(taken.packets, 1)
    if taken.going == "in" and taken.packets:
        return True
    own = taken.device in (leg.source_interface, leg.target_interface)
    hidden = taken.going == "out" and not own and not taken.pod and not taken.outer and leg.encapsulation in HIDING
    return counted and not hidden


def _said(taken: TrafficControl, leg: Leg) -> Text:
    number = f"{taken.protocol} {taken.port}" if taken.port else taken.protocol
    words = {"packet": number, "source": leg.source, "target": leg.target, "node": taken.node, "device": taken.device}
    if taken.pod:
        return say(
            "{packet} from {source} to {target} is sent, and traffic control (tc) of {device} inside of the pod takes "
            "it before it leaves.",
            **words,
        )
    if taken.going == "in":
        return say(
            "{packet} from {source} to {target} comes in by {device} of {node}, and traffic control (tc) takes it "
            "there before any rule or route is asked.",
            **words,
        )
    return say(
        "{packet} from {source} to {target} passes all rules of {node}, and traffic control (tc) of {device} takes it "
        "before it leaves.",
        **words,
    )


def _by(taken: TrafficControl) -> Text:
    if len(taken.takers) > 1:
        return say("One of these does it: {takers}.", takers=joined([one.text for one in taken.takers]))
    (one,) = taken.takers
    if one.drops > 0:
        return say("It counted {count} drops meanwhile: {taker}.", count=one.drops, taker=one.text)
    if taken.drops > 0:
        return say(
            "It counted {count} drops meanwhile, and all that can drop there is: {taker}.",
            count=taken.drops,
            taker=one.text,
        )
    return say("All that can take packets there is: {taker}.", taker=one.text)
