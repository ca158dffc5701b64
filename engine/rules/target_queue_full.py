"""A server that hangs takes no connection any more; once its queue is full its kernel drops each further one without a
word, as a firewall would."""

from engine.rule import NOT_FELIX, Finding, cause, say, some, the
from engine.target import LISTENER, TRIED
from facts import Leg, Listener, ProbeResult


@cause(
    title="The server's queue of new connections is full",
    severity="breaks",
    remedy="The path is good: look at the application. It hangs, is stopped, or does not keep up: its log, its "
    "threads, its CPU limit; `ss -lnt` in the pod shows the queue (Recv-Q above Send-Q), `nstat TcpExtListenOverflows` "
    "what was dropped. A restart empties it; a longer one (its backlog, net.core.somaxconn in the pod) helps a server "
    "that only now and then has too much to do.",
    after=["pod_not_running"],
    at=the.leg.target_node,
    stage="target pod",
    heals_within_s=NOT_FELIX,
    leg=some(Leg, direction="forward", port_asked=True, target_inside=True),
    listener=LISTENER,
    tried=TRIED,
)
def target_queue_full(leg: Leg, listener: Listener, tried: ProbeResult) -> Finding | None:
    if not 0 <= listener.backlog < listener.waiting or tried.answered or tried.outcome != "silence":
        return None
    return Finding(
        say(
            "{waiting} connections to {port}/{protocol} of {target} wait for its program to take them, and its queue "
            "holds no more than that: every further one is dropped without an answer.",
            waiting=listener.waiting,
            port=leg.port,
            protocol=leg.protocol,
            target=leg.target,
        ),
        stage="" if leg.target_kind == "pod" else "target node",
    )
