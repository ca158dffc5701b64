"""Somebody on the way lets small packets of the asked port pass and pings of any size, and eats its large ones:
connections open, and stand still as soon as they carry something."""

from engine.dropped import told
from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from facts import LargeLoss, Leg, ProbeResult, Text


@cause(
    title="Large packets of the asked port alone are lost",
    severity="degrades",
    remedy="Look at what stands where they are lost and knows TCP or UDP: a firewall or an intrusion detection between "
    "the nodes, a security group, a program of a card (XDP) or of traffic control (tc -s filter), a filter inside the "
    "pod. Capture at both ends of that place (calico-why capture).",
    after=["traffic_control_drops", "route_mtu_too_small"],
    after_peer=["traffic_control_drops", "route_mtu_too_small"],
    at=the.loss.node,
    heals_within_s=NOT_FELIX,
    loss=some(LargeLoss),
    tried=some(ProbeResult, id=the.loss.tried),
    leg=some(Leg, flow=the.loss.flow, direction="forward"),
)
def large_packets_filtered(loss: LargeLoss, tried: ProbeResult, leg: Leg) -> Finding:
    answers = loss.leg == "reverse"
    words = {
        "packet": f"{tried.protocol} {tried.port}",
        "size": tried.size,
        "source": leg.source,
        "target": leg.target,
        "passes": tried.passes,
        "stops": tried.stops,
    }
    lost = say(
        "answers of {target} to {packet} from {source} are lost when they have {size} bytes: those of up to {passes} "
        "come, those of {stops} do not."
        if answers
        else "{packet} from {source} to {target} is lost when it has {size} bytes: up to {passes} pass, and {stops} do "
        "not.",
        **words,
    )
    too = say("Answers of that size are lost as well.") if loss.answers_too else ""
    return Finding(told(lost, too, _others(loss, answers=answers), *_seen(loss)), stage=loss.stage, other_leg=answers)


def _others(loss: LargeLoss, *, answers: bool) -> Text:
    if loss.pings:
        return say("Pings of {size} bytes pass both ways, so it is no MTU.", size=loss.pings)
    if answers:
        return say(
            "As large packets pass the other way, from who asks to who answers. No ping is answered: a place that is "
            "too narrow for answers alone would look the same."
        )
    return say(
        "As large answers pass the other way. No ping is answered: a place that is too narrow for this way alone would "
        "look the same."
    )


def _seen(loss: LargeLoss) -> list[Text]:
    return [say("Followed on their way: {seen}", seen=loss.seen)] if loss.seen else []
