"""Calico lets pods speak under their own addresses. A rule of somebody else's NAT that does not leave them alone sends
packets elsewhere, or under an address that no policy and no way back is made for."""

from engine.attribution import owner
from engine.dropped import told
from engine.rule import NOT_FELIX, Finding, Text, cause, say, some, the
from facts import Leg, RuleRewrite

CALICO = "cali-"


@cause(
    title="A node's NAT changes packets between pods",
    severity="breaks",
    last_resort=True,
    remedy="Exempt the pools' networks in whatever program wrote the rule (the nonMasqueradeCIDRs of ip-masq-agent, a "
    "MASQUERADE or REDIRECT by hand, a VPN), for good: it writes its rules again. Connections that the node knows stay "
    "changed until they end (conntrack -D).",
    at=the.rewrite.node,
    stage="source node",
    heals_within_s=NOT_FELIX,
    rewrite=some(RuleRewrite),
    leg=some(
        Leg,
        direction="forward",
        source_address=the.rewrite.source_address,
        target_address=the.rewrite.target_address,
    ),
)
def nat_between_pods(rewrite: RuleRewrite, leg: Leg) -> Finding | None:
    """A last resort: what else keeps packets from the target does so under any address."""
    if CALICO in rewrite.chain:
        return None
    text = told(_changed(rewrite, leg), _rule(rewrite), _owner(rewrite))
    return Finding(text) if rewrite.node == leg.source_node else Finding(text, stage="target node")


def _changed(rewrite: RuleRewrite, leg: Leg) -> Text:
    packet = f"{rewrite.protocol} {rewrite.port}" if rewrite.port else rewrite.protocol
    names = {"node": rewrite.node, "packet": packet, "source": leg.source, "target": leg.target}
    if rewrite.target != rewrite.target_address:
        return say(
            "{node} sends {packet} from {source} to {other} instead of {target}.",
            other=f"{rewrite.target} {rewrite.target_port}" if rewrite.target_port else rewrite.target,
            **names,
        )
    if rewrite.target_port not in (0, rewrite.port):
        return say(
            "{node} sends {packet} from {source} on to port {other} of {target}.", other=rewrite.target_port, **names
        )
    return say(
        "{node} sends {packet} from {source} on to {target} under {other} instead of {address}: the policies about "
        "{target} and the ways back to {source} do not know that address.",
        other=rewrite.source,
        address=rewrite.source_address,
        **names,
    )


def _rule(rewrite: RuleRewrite) -> Text:
    if not rewrite.text:
        return say("Which rule does that was not seen: look at NAT rules, and at connections that the node knows.")
    return say(
        "That is rule {number} of chain {chain} (table {table}, {backend}): {text}.",
        number=rewrite.number,
        chain=rewrite.chain,
        table=rewrite.table,
        backend=rewrite.backend,
        text=rewrite.text,
    )


def _owner(rewrite: RuleRewrite) -> Text | str:
    found = owner((rewrite.chain, *reversed(rewrite.through), rewrite.table))
    return say("By its chains it is {owner}'s.", owner=found) if found else ""
