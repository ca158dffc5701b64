"""The one change there is to a node, on a real kernel: it mends a wrong or missing entry and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from engine.rules.neighbor_missing import neighbor_missing
from engine.rules.neighbor_wrong_mac import neighbor_wrong_mac
from facts import Cause, Fact, Leg, Neighbor
from fixes.kernel import Kernel
from fixes.kind import EvidenceChanged, NodeKind, kinds
from tests.namespaces import in_namespaces
from tests.two_nodes import BLOCK, MAC, TUNNEL, TwoNodes

KIND = kinds()["replace_neighbor"]
assert isinstance(KIND, NodeKind)
WRONG = "66:00:00:00:00:99"
PEER = BLOCK["b"]  # the tunnel address of node b is the first of its block
ARGUMENTS = {
    "device": TUNNEL,
    "vni": "4096",
    "address": PEER,
    "mac": MAC["b"],
    "seen": WRONG,
    "peer": "node-b",
    "felix_s": "95",
}

LEG = Leg(
    direction="forward",
    encapsulation="vxlan",
    source="shop/cart",
    target="shop/db",
    source_address="10.244.1.2",
    target_address="10.244.2.2",
    source_interface="cali1",
    target_interface="cali2",
    source_node="node-a",
    target_node="node-b",
    source_node_address="172.30.0.11",
    target_node_address="172.30.0.12",
    source_tunnel_address=BLOCK["a"],
    target_tunnel_address=PEER,
    source_tunnel_mac=MAC["a"],
    target_tunnel_mac=MAC["b"],
    target_block="10.244.2.0/26",
)


def wound(nodes: TwoNodes, mac: str) -> None:
    index = nodes.index("a", TUNNEL)
    if mac:
        nodes.at("a", lambda ip: ip.neigh("replace", ifindex=index, dst=PEER, lladdr=mac, state=128))
    else:
        nodes.at("a", lambda ip: ip.neigh("del", ifindex=index, dst=PEER))


def seen(kernel: Kernel) -> Neighbor:
    entry = kernel.neighbor(TUNNEL, PEER)
    if entry is None:
        return Neighbor(node="node-a", device=TUNNEL, address=PEER, found=False)
    return Neighbor(node="node-a", device=TUNNEL, address=PEER, found=True, mac=entry.mac, state=entry.state)


@in_namespaces
def test_a_wrong_mac_is_replaced() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    wound(nodes, WRONG)
    KIND.holds(kernel, ARGUMENTS)
    assert KIND.verify(kernel, ARGUMENTS) == (
        False,
        f"{PEER} on {TUNNEL} is {WRONG} (PERMANENT); it should be {MAC['b']}, PERMANENT.",
    )
    KIND.execute(kernel, ARGUMENTS)
    assert KIND.verify(kernel, ARGUMENTS) == (True, f"{PEER} on {TUNNEL} is {MAC['b']} now.")


@in_namespaces
def test_a_missing_entry_is_put_back_also_when_traffic_made_it_fail() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    missing = {**ARGUMENTS, "seen": ""}
    wound(nodes, "")
    assert kernel.neighbor(TUNNEL, PEER) is None
    KIND.holds(kernel, missing)
    index = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.neigh("add", ifindex=index, dst=PEER, state=1))  # INCOMPLETE, as a packet leaves it
    KIND.holds(kernel, missing)
    KIND.execute(kernel, missing)
    assert KIND.verify(kernel, missing)[0]


@in_namespaces
def test_it_touches_one_entry_only() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    wound(nodes, WRONG)

    def others() -> Any:
        entries = nodes.at(
            "a", lambda ip: [(e.get_attr("NDA_DST"), e.get_attr("NDA_LLADDR")) for e in ip.get_neighbours()]
        )
        return sorted(str(entry) for entry in entries if entry[0] != PEER), kernel.device(TUNNEL)

    before = others()
    KIND.execute(kernel, ARGUMENTS)
    assert others() == before


@in_namespaces
def test_evidence_that_changed_is_refused() -> None:
    nodes, kernel = TwoNodes(), Kernel()

    def refusal(arguments: dict[str, str] = ARGUMENTS) -> str:
        with pytest.raises(EvidenceChanged) as changed:
            KIND.holds(kernel, arguments)
        return str(changed.value)

    assert "is 66:00:00:00:00:0b already; there is nothing left to do" in refusal()
    wound(nodes, "66:00:00:00:00:77")
    assert refusal() == f"{PEER} on {TUNNEL} is 66:00:00:00:00:77 now; it was {WRONG}."
    wound(nodes, "")
    assert refusal() == f"{PEER} on {TUNNEL} is unresolved now; it was {WRONG}."
    wound(nodes, WRONG)
    assert "not the VXLAN device with VNI 7 any more" in refusal({**ARGUMENTS, "vni": "7"})
    assert "not the VXLAN device" in refusal({**ARGUMENTS, "device": "eth0"})
    index = nodes.index("a", TUNNEL)
    nodes.at("a", lambda ip: ip.link("del", index=index))
    assert refusal() == f"There is no device {TUNNEL} any more."
    with pytest.raises(OSError, match="device"):
        KIND.execute(kernel, ARGUMENTS)


@in_namespaces
def test_the_rules_propose_exactly_this() -> None:
    nodes, kernel = TwoNodes(), Kernel()
    for mac, rule in ((WRONG, neighbor_wrong_mac), ("", neighbor_missing)):
        wound(nodes, mac)
        facts: list[Fact] = [LEG, seen(kernel)]
        cause = rule.judge({"leg": LEG, "seen": facts[1]}, tuple(fact.id for fact in facts))
        assert cause is not None
        assert cause.fix == KIND.name
        proposed = KIND.propose(cause, facts)
        assert proposed == {**ARGUMENTS, "seen": mac}
        assert proposed is not None
        KIND.holds(kernel, proposed)
        assert KIND.title(proposed, cause.node) == f"Replace the neighbor {PEER} on node-a"
        assert "node-a -> node-b" in KIND.blast_radius(proposed, cause.node)
        assert "A living Felix does the same within 95 s" in KIND.undo(proposed, cause.node)


def a_cause(*evidence: Fact, node: str = "node-a") -> Cause:
    ids = tuple(fact.id for fact in evidence)
    return Cause(rule="r", title="t", text="t", node=node, evidence=ids, fix=KIND.name)


def test_nothing_is_proposed_that_the_evidence_does_not_carry() -> None:
    wrong = Neighbor(node="node-a", device=TUNNEL, address=PEER, found=True, mac=WRONG, state="PERMANENT")
    elsewhere = Neighbor(node="node-b", device=TUNNEL, address=PEER, found=True, mac=WRONG, state="PERMANENT")
    right = Neighbor(node="node-a", device=TUNNEL, address=PEER, found=True, mac=MAC["b"], state="PERMANENT")
    assert KIND.propose(a_cause(LEG, wrong), [LEG, wrong]) is not None
    assert KIND.propose(a_cause(wrong), [LEG, wrong]) is None, "the leg is not in evidence"
    assert KIND.propose(a_cause(LEG), [LEG, wrong]) is None, "the entry is not in evidence"
    assert KIND.propose(a_cause(LEG, elsewhere), [LEG, elsewhere]) is None
    assert KIND.propose(a_cause(LEG, right), [LEG, right]) is None
    assert KIND.propose(a_cause(LEG, wrong, node="node-b"), [LEG, wrong]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mac": "ff:ff:ff:ff:ff:ff"},
        {"mac": "00:00:00:00:00:00"},
        {"mac": "66:00:00:00:00:0B"},
        {"mac": "66:00:00:00:00:0b; reboot"},
        {"mac": ""},
        {"device": "../../etc"},
        {"device": "a b"},
        {"device": ""},
        {"device": "x" * 16},
        {"address": "224.0.0.1"},
        {"address": "db"},
        {"address": ""},
    ],
)
def test_words_that_are_not_of_their_form_reach_no_kernel(changes: dict[str, str]) -> None:
    class NoKernel(Kernel):
        def replace_neighbor(self, device: str, address: str, mac: str) -> None:
            raise AssertionError("reached the kernel")

        device = neighbor = replace_neighbor  # type: ignore[assignment]  # whatever is called, it must not be

    for step in (KIND.holds, KIND.execute, KIND.verify):
        with pytest.raises(ValueError, match=r"is (not|a multicast)|does not appear to be"):
            step(NoKernel(), {**ARGUMENTS, **changes})
