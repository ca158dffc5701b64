"""A bad cable, a full queue or one of two paths that is broken loses some packets and lets others pass: two packets say
nothing then, two trains of them do. Told only where nothing else explains the loss."""

from engine.dropped import told
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from engine.trains import ON_THE_WAY, share
from facts import Leg, Train, TrainLoss


@cause(
    title="Some packets are lost and others pass",
    severity="degrades",
    remedy="Look for what counts errors or drops on both nodes and between them (ip -s link, ethtool -S on the "
    "uplinks, tc -s qdisc, /proc/net/softnet_stat, the switch's ports). If pings pass and connections do not, look at "
    "paths that are chosen by ports (ECMP, a bond: is one of its cables broken?) and at the server's queue of new "
    "connections (ss -lnt, nstat TcpExtListenOverflows).",
    after=["nat_between_pods"],  # packets of connections that were known before the rule pass
    after_peer=["nat_between_pods"],
    at=the.loss.node,
    last_resort=True,
    silent_where_explained=True,  # packets of connections that were known before may still pass what ends all others
    heals_within_s=NOT_FELIX,
    loss=some(TrainLoss),
    train=some(Train, id=the.loss.train),
    leg=some(Leg, flow=the.loss.flow, direction="forward"),
)
def packets_lost_now_and_then(loss: TrainLoss, train: Train, leg: Leg) -> Finding:
    if loss.why not in ON_THE_WAY:
        return Finding(_warning(loss, leg), severity="warns")
    text = told(_lost(loss, train, leg), _where(loss), _port(train))
    return Finding(text, stage=loss.stage, other_leg=loss.leg == "reverse")


def _lost(loss: TrainLoss, train: Train, leg: Leg) -> Text:
    names = {"source": leg.source, "target": leg.target, "share": share(train)}
    if not train.same_lost_again or loss.rule:
        return say("packets from {source} to {target} are lost now and then ({share}).", **names)
    return say(
        "packets from {source} to {target} are lost now and then ({share}), and it is always the same ones: those "
        "that were lost are lost again when they are sent again with the same ports, and others pass. One of several "
        "paths is broken.",
        **names,
    )


def _port(train: Train) -> str:
    if not train.same_lost_again or not train.lost_ports:
        return ""
    return say("Source port {port} is one of those to try it with.", port=train.lost_ports[0])


def _where(loss: TrainLoss) -> str:
    if loss.rule:
        return say("A rule of {node} ends some of them. {rule}", node=loss.node, rule=loss.rule)
    if loss.met < 0:
        return ""
    return say(
        "{met} of them were seen at {place}, and {next_met} at {next_place}."
        if not loss.answers
        else "{met} answers were seen at {place}, and {next_met} at {next_place}."
        if loss.answers == "both"
        else "{met} of them were seen at {place}, and {next_met} answers at {next_place}.",
        met=loss.met,
        place=_at(loss.device, loss.where),
        next_met=loss.next_met,
        next_place=_at(loss.next_device, loss.next_where),
    )


def _at(device: str, where: str) -> str:
    return say("{device} of {where}", device=device, where=where) if device else where


def _warning(loss: TrainLoss, leg: Leg) -> Text:
    names = {"lost": loss.lost, "sent": loss.sent, "source": leg.source, "target": leg.target, "node": loss.node}
    lost = say("of {sent} packets from {source} to {target} {lost} were lost.", **names)
    if loss.why == "target":
        return told(
            lost,
            say(
                "They came to {target}, which did not answer all of them: it may answer only so many pings in a "
                "second, or its queue of new connections is full (ss -lnt, nstat TcpExtListenOverflows).",
                **names,
            ),
        )
    if loss.why == "nobody" or not loss.rule:
        return told(lost, say("All of them, and all answers, were seen at every device: nothing on the way lost them."))
    rule = say(
        "A limit of {node} ends some of them, which a flow that sends less at once does not meet. {rule}"
        if loss.why == "limit"
        else "A rule of {node} ends some of them and not others: one before it may let only so many pass in a second. "
        "{rule}",
        **names,
        rule=loss.rule,
    )
    return told(lost, rule)
