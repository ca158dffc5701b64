"""What an answer says of policies: why packets may be lost and what passes, and nothing where nothing is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from facts import (
    Diagnosis,
    Endpoint,
    Fact,
    LabelledEndpoint,
    NodeAddress,
    PoliciesRead,
    Policy,
    PolicyAllows,
    PolicyOpinion,
    ProbeResult,
    Question,
    RuleDrop,
)
from tests.policy_world import calico_policy
from tests.scene import ADDRESS6, CART, DB, healthy


def ends() -> list[Fact]:
    return [
        LabelledEndpoint(name=name, node=node, addresses=(address, ADDRESS6[name]), namespace="shop",
                         labels=(("app", name.removeprefix("shop/")), ("projectcalico.org/namespace", "shop")))
        for name, node, address, _ in (CART, DB)
    ]  # fmt: skip


def answer(*policies: Policy, port: int = 5432, lost: tuple[str, ...] = ("tcp", "icmp"), more: tuple[Fact, ...] = (),
           read: bool = True, missing: tuple[str, ...] = ()) -> Diagnosis:  # fmt: skip
    """Of shop/cart to shop/db, of whose packets those of these protocols are lost."""
    facts = [
        msgspec.structs.replace(one, answered=0, outcome="silence")
        if isinstance(one, ProbeResult) and one.pod == CART[0] and one.protocol in lost
        else one
        for one in healthy(port=port)
    ]
    about = [*ends(), *policies, PoliciesRead(missing=missing)] if read else []
    return diagnose([*facts, *about, *more])


def into_db(*rules: dict[str, Any], **spec: Any) -> Policy:
    return calico_policy("db", "shop", selector="app == 'db'", types=["Ingress"], ingress=list(rules), **spec)


def test_a_lost_ping_is_explained_by_the_policy_that_drops_it_and_by_what_passes() -> None:
    only = into_db({"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432]}})
    found = answer(only, port=0, lost=("icmp",))
    assert (found.verdict, found.causes) == ("unknown", ())
    assert (
        "By the policies in the API: icmp into shop/db is dropped at the end of tier default: none of its policies "
        "there allows it (Calico NetworkPolicy shop/db). What they let pass from shop/cart to shop/db: 5432/tcp."
    ) in found.summary


def test_the_asked_port_that_answers_is_healthy_though_ping_is_dropped() -> None:
    only = into_db({"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432]}})
    found = answer(only, lost=("icmp",))
    assert found.verdict == "healthy"
    assert "policies" not in found.summary


def test_a_denied_port_names_rule_and_policy() -> None:
    found = answer(into_db({"action": "Deny", "protocol": "TCP"}, {"action": "Allow"}))
    assert "tcp 5432 into shop/db is denied by rule 1 of Calico NetworkPolicy shop/db in tier default." in found.summary
    assert "What they let pass from shop/cart to shop/db: udp, sctp, icmp." in found.summary


def test_nothing_passes() -> None:
    assert "They let nothing pass from shop/cart to shop/db." in answer(into_db()).summary


def test_where_policies_allow_what_is_lost_they_are_said_to() -> None:
    assert "By the policies in the API these packets pass." in answer().summary


def test_nothing_is_said_of_policies_nobody_read() -> None:
    assert "policies" not in answer(read=False).summary
    hidden = answer(into_db(), missing=("globalnetworkpolicies",)).summary
    assert "not all of them could be read" in hidden and "They let" not in hidden


@pytest.mark.parametrize(("interface", "device", "stopped"), [("*", "", True), ("eth0", "eth0", False)])
def test_a_host_endpoint_is_asked_of_what_passes_its_interface(interface: str, device: str, stopped: bool) -> None:
    """Between nodes the pods' packets come by the tunnel: only a host endpoint of every interface is about them."""
    host = LabelledEndpoint(name="b", kind="host", node="node-b", interface=interface, labels=(("host", "yes"),))
    deny = calico_policy(
        "fwd", selector="has(host)", types=["Ingress"], applyOnForward=True, ingress=[{"action": "Deny"}]
    )
    found = answer(deny, more=(host,))
    said = [one for one in found.facts if isinstance(one, PolicyOpinion) and one.endpoint_kind == "host"]
    denied = {(one.node, one.leg, one.direction, one.forward) for one in said if one.verdict == "deny"}
    assert denied == (
        {("node-b", "forward", "ingress", True), ("node-b", "reverse", "ingress", True)} if stopped else set()
    )
    (passing,) = [one for one in found.facts if isinstance(one, PolicyAllows) and one.leg == "forward"]
    assert bool(passing.allowed) != stopped
    assert any(isinstance(one, NodeAddress) for one in found.facts)


def test_a_node_reaches_its_own_pods_whatever_policies_say() -> None:
    facts = [msgspec.structs.replace(one, source="node-b") if isinstance(one, Question) else one for one in healthy()]

    node = Endpoint(name="node-b", kind="node", node="node-b", address="172.30.0.12", addresses=("172.30.0.12",))
    found = diagnose([*facts, node, *ends(), into_db(), PoliciesRead()])
    said = [one for one in found.facts if isinstance(one, PolicyOpinion) and one.leg == "forward"]
    assert said == []
    (passing,) = [one for one in found.facts if isinstance(one, PolicyAllows) and one.leg == "forward"]
    assert passing.allowed == ("tcp", "udp", "sctp", "icmp")


END = "End of tier default. Drop if no policies passed packet"
OUT_OF_CART = calico_policy("cart", "shop", selector="app == 'cart'", types=["Egress"], egress=[])


def dropped(way: str, *, icmp: bool = False, **more: Any) -> RuleDrop:
    """At the end of tier default, of what shop/cart sends ("fw") or of what comes to shop/db ("tw")."""
    name, node, _, interface = CART if way == "fw" else DB
    direction = "egress" if way == "fw" else "ingress"
    return RuleDrop(
        node=node,
        source_address=CART[2],
        target_address=DB[2],
        protocol="icmp" if icmp else "tcp",
        port=0 if icmp else 5432,
        how="trace",
        backend="nft",
        family=4,
        table="calico",
        chain=f"filter-cali-{way}-{interface}",
        number=7,
        text=f'counter drop comment "cali:x; {END}"',
        comment=END,
        hook="forward",
        tier="default",
        consulted=(f"filter-cali-{'po' if way == 'fw' else 'pi'}-np/{name}",),
        consulted_titles=(f"NetworkPolicy {name} {direction}",),
        **more,
    )


def test_what_lies_behind_the_policy_that_drops_is_told_at_once() -> None:
    """Else somebody opens one gate and asks again to learn of the next."""
    found = answer(OUT_OF_CART, into_db(), more=(dropped("fw"),))
    assert [(one.rule, one.node) for one in found.causes] == [("policy_denies_egress", "node-a")]
    assert found.summary == (
        "Behind that, by the policies in the API: tcp 5432 into shop/db is dropped at the end of tier default: none of "
        "its policies there allows it (Calico NetworkPolicy shop/db)."
    )
    last = answer(OUT_OF_CART, into_db(), more=(dropped("tw"),))
    assert [one.rule for one in last.causes] == ["policy_denies_ingress"] and last.summary == ""


def test_a_dropped_ping_is_a_cause_only_where_policies_let_nothing_pass() -> None:
    only = into_db({"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432]}})
    for policies, read, verdict, sentence in (
        ((only,), True, "unknown", "They let 5432/tcp pass: ask again with such a port."),
        ((into_db(),), True, "cause", "The kernel names rule 7"),
        ((), False, "unknown", "Whether they let other packets pass is not known: ask again with the port."),
    ):
        found = answer(*policies, port=0, lost=("icmp",), more=(dropped("tw", icmp=True),), read=read)
        told = found.causes if verdict == "cause" else found.warnings
        assert (found.verdict, [one.rule for one in told]) == (verdict, ["policy_denies_ingress"])
        assert sentence in told[0].text
        assert found.causes == (told if verdict == "cause" else ())


def test_the_kernel_decides_and_the_api_says_only_whether_felix_has_followed() -> None:
    """A rule of a policy that is gone is Felix's; without the API it is still a policy's."""
    gone = answer(more=(dropped("tw"),))
    assert [one.rule for one in gone.causes] == ["policy_not_programmed"]
    unread = answer(read=False, more=(dropped("tw"),))
    refused = answer(missing=("networkpolicies",), more=(dropped("tw"),))
    for found in (unread, refused):
        assert [one.rule for one in found.causes] == ["policy_denies_ingress"]
        assert "(Calico NetworkPolicy shop/db)" in found.causes[0].text


def test_a_drop_of_another_kind_of_packet_is_no_cause() -> None:
    """Pings were followed and dropped, and what was asked is lost elsewhere."""
    found = answer(into_db(), more=(dropped("tw", icmp=True),))
    assert (found.verdict, found.causes, found.warnings) == ("unknown", (), ())
