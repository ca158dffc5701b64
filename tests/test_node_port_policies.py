"""A nodePort and the policies of the pod that asks: kube-proxy of its own node comes before they are asked, that of
another node behind them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.diagnosis import diagnose
from engine.opinions import opinions, told
from facts import Backend, Endpoint, Fact, PoliciesRead, PolicyAllows, PolicyOpinion, ProbeResult, Question, RuleDrop
from tests.policy_world import calico_policy
from tests.scene import CART, DB, healthy
from tests.test_policy_in_answers import dropped, ends
from tests.test_services import SERVICE, TARGET_PORT, backend, service

NODE_PORT = 30080
OWN, OTHER = ("node-a", "172.30.0.11"), ("node-b", "172.30.0.12")


def asked(node: tuple[str, str], *facts: Fact, to: dict[str, Any] | None = None) -> list[Fact]:
    """From cart to the nodePort of that node, and what policies say: `to` is all that may leave cart."""
    name, address = node
    question = Question(source=CART[0], target=name, protocol="tcp", port=NODE_PORT, family=4, service=SERVICE)
    entry = Endpoint(name=name, kind="node", node=name, address=address, addresses=(address,))
    egress = [{"action": "Allow", "protocol": "TCP", "destination": to}] if to is not None else []
    policy = calico_policy("cart", "shop", selector="app == 'cart'", types=["Egress"], egress=egress)
    rest = [one for one in healthy(port=TARGET_PORT) if not isinstance(one, Question)]
    own = service(address=address, port=NODE_PORT, node_port=NODE_PORT, by_node_port=True, node=name)
    behind = facts or (backend(sender=name),)
    return [question, entry, *rest, own, *behind, *ends(), policy, PoliciesRead()]


def leaving(facts: list[Fact]) -> PolicyOpinion:
    """What is said of the asked packets as they leave cart."""
    (one,) = [
        one
        for one in opinions(facts)
        if isinstance(one, PolicyOpinion) and (one.endpoint, one.direction, one.port) == (CART[0], "egress", NODE_PORT)
    ]
    return one


@pytest.mark.parametrize(
    ("to", "own", "other"),
    [
        pytest.param({"selector": "app == 'db'"}, "allow", "deny", id="the endpoint"),
        pytest.param({"selector": "app == 'db'", "ports": [TARGET_PORT]}, "allow", "deny", id="and its port"),
        pytest.param({"nets": ["172.30.0.0/24"]}, "deny", "allow", id="the nodes"),
        pytest.param({"ports": [NODE_PORT]}, "deny", "allow", id="the nodePort"),
        pytest.param({}, "allow", "allow", id="everything"),
        pytest.param(None, "deny", "deny", id="nothing"),
    ],
)
def test_egress_policies_see_an_endpoint_on_the_pods_own_node_and_the_node_elsewhere(
    to: dict[str, Any] | None, own: str, other: str
) -> None:
    assert leaving(asked(OWN, to=to)).verdict == own
    assert leaving(asked(OTHER, to=to)).verdict == other


def test_what_differs_between_endpoints_or_is_not_known_of_one_is_not_said() -> None:
    two = (backend(sender="node-a"), backend(sender="node-a", address="10.244.9.9", endpoint="", pod=""))
    for to in ({"nets": [f"{DB[2]}/32"]}, {"selector": "app == 'db'"}):
        one = leaving(asked(OWN, *two, to=to))
        assert (one.verdict, one.doubt) == ("unknown", "target")
        assert "depends on the endpoint of the Service" in told(one)
    unused = Backend(service=SERVICE, address="10.244.9.9", protocol="tcp", port=1, used=False, sender="node-a")
    assert leaving(asked(OWN, backend(sender="node-a"), unused, to={"selector": "app == 'db'"})).verdict == "allow"
    nowhere = leaving(asked(OWN, unused, to={"nets": ["172.30.0.0/24"]}))
    assert nowhere.verdict == "allow", "without an endpoint it stays what it was"


def test_nothing_is_said_of_what_else_passes_to_that_node() -> None:
    facts = [one for one in opinions(asked(OWN, to={})) if isinstance(one, PolicyAllows) and one.leg == "forward"]
    assert [one.flow for one in facts] == [f"node-a to {DB[0]} over IPv4"]


def met(node: tuple[str, str], *, answered: int) -> list[Fact]:
    """Fresh packets of cart to the nodePort; pings to the node are lost to a policy."""
    kinds = (("tcp", NODE_PORT, 4, answered), ("icmp", 0, 2, 0))
    return [
        ProbeResult(
            node=CART[1], pod=CART[0], source_address=CART[2], target_address=node[1], protocol=protocol, port=port,
            sent=sent, answered=back, outcome="answered" if back else "silence",
        )
        for protocol, port, sent, back in kinds
    ]  # fmt: skip


def drop(protocol: str, port: int) -> RuleDrop:
    return msgspec.structs.replace(dropped("fw"), target_address=OWN[1], protocol=protocol, port=port)


def test_a_ping_that_a_policy_drops_is_no_reason_where_the_asked_port_answers() -> None:
    facts = [*asked(OWN, to={"selector": "app == 'db'"}), *met(OWN, answered=4), drop("icmp", 0)]
    diagnosis = diagnose(facts)
    assert (diagnosis.causes, diagnosis.warnings) == ((), ())
    assert "yet shop/cart does not reach" not in diagnosis.summary


def test_a_dropped_packet_to_the_node_port_names_the_policy_and_is_no_old_rule() -> None:
    """By the node's own address it would be allowed, and the rule taken for one that Felix forgot."""
    facts = [*asked(OWN, to={"nets": ["172.30.0.0/24"]}), *met(OWN, answered=0), drop("tcp", NODE_PORT)]
    diagnosis = diagnose(facts)
    assert [(one.rule, one.node) for one in diagnosis.causes] == [("policy_denies_egress", "node-a")]
    assert "tcp 30080 from shop/cart to node-a" in diagnosis.causes[0].text
