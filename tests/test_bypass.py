"""What the policies deny and the kernel lets pass is told as a warning; where it passes by right, nothing is."""

from __future__ import annotations

import asyncio
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot import unenforced
from engine.bypass import STOOD_S, doubted
from engine.diagnosis import diagnose
from engine.plan import expected_legs, plan
from facts import (
    Allocation,
    Blind,
    CalicoFirewall,
    CalicoNode,
    CalicoService,
    Diagnosis,
    Endpoint,
    Fact,
    LabelledEndpoint,
    NetworkSet,
    PoliciesRead,
    Policy,
    ProbeResult,
    Question,
    StageSighting,
)
from tests.policy_world import calico_policy
from tests.recorded_answers import alive, cluster_of, known
from tests.recorded_states import recorded
from tests.scene import ADDRESS6, CART, DB, WEB, change, healthy
from tests.test_policy_in_answers import ends, into_db
from tests.test_recorded_policies import DROPPED, FLOWS, asked
from tests.test_recorded_states import STATES, is_shut, passing, pods_of

DENY = into_db({"action": "Deny", "protocol": "TCP"}, {"action": "Allow"})
NO_EGRESS = calico_policy("cart", "shop", selector="app == 'cart'", types=["Egress"], egress=[])
READ = PoliciesRead(stood_s=STOOD_S)
ARRIVED = StageSighting(
    node=DB[1], pod=DB[0], source_address=CART[2], target_address=DB[2], device="eth0", going="in", seen=2
)


def told(*facts: Fact, read: PoliciesRead = READ, of: list[Fact] | None = None) -> Diagnosis:
    return diagnose([*(of or healthy()), *ends(), read, *facts])


def warned(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    assert diagnosis.causes == ()
    return [(one.rule, one.node) for one in diagnosis.warnings]


@pytest.mark.parametrize(
    ("policy", "node", "said"),
    [
        (DENY, "node-b", "tcp 5432 into shop/db is denied by rule 1 of Calico NetworkPolicy shop/db in tier default."),
        (NO_EGRESS, "node-a", "tcp 5432 out of shop/cart is dropped at the end of tier default"),
    ],
)
def test_a_packet_that_a_policy_denies_and_that_arrives_is_a_warning_beside_a_healthy_path(
    policy: Policy, node: str, said: str
) -> None:
    diagnosis = told(policy, ARRIVED)
    assert (diagnosis.verdict, warned(diagnosis)) == ("healthy", [("policy_bypassed", node)])
    (warning,) = diagnosis.warnings
    assert said in warning.text
    assert f"And yet {node} lets it pass: a fresh packet from shop/cart came in by eth0 of shop/db." in warning.text
    assert "repairs this within 180 s" in warning.felix


def test_each_end_that_lets_it_pass_is_told() -> None:
    found = warned(told(DENY, NO_EGRESS, ARRIVED))
    assert sorted(found) == [("policy_bypassed", "node-a"), ("policy_bypassed", "node-b")]


OTHER_FAMILY = msgspec.structs.replace(ARRIVED, source_address=ADDRESS6[CART[0]], target_address=ADDRESS6[DB[0]])


@pytest.mark.parametrize(
    ("facts", "read"),
    [
        pytest.param((DENY, ARRIVED), PoliciesRead(), id="read only once"),
        pytest.param((DENY, ARRIVED), PoliciesRead(stood_s=STOOD_S, missing=("tiers",)), id="not all were read"),
        pytest.param((DENY, ARRIVED), PoliciesRead(stood_s=STOOD_S, told=9), id="some were lost on the way"),
        pytest.param((DENY,), READ, id="nobody looked into the target"),
        pytest.param((DENY, msgspec.structs.replace(ARRIVED, seen=0)), READ, id="a proxy in the source answered"),
        pytest.param((DENY, msgspec.structs.replace(ARRIVED, seen=-1)), READ, id="nobody could look"),
        pytest.param((DENY, msgspec.structs.replace(ARRIVED, pod="")), READ, id="seen outside of the target"),
        pytest.param((DENY, msgspec.structs.replace(ARRIVED, source_address="172.30.0.11")), READ, id="masqueraded"),
        pytest.param((DENY, msgspec.structs.replace(ARRIVED, reply=True)), READ, id="an answer"),
        pytest.param((DENY, OTHER_FAMILY), READ, id="the other family"),
        pytest.param((msgspec.structs.replace(DENY, staged=True), ARRIVED), READ, id="staged"),
        pytest.param((into_db({"action": "Allow", "protocol": "TCP"}), ARRIVED), READ, id="only pings are denied"),
        pytest.param(
            (into_db({"action": "Allow", "protocol": "TCP", "source": {"ports": [7]}}), ARRIVED), READ, id="in doubt"
        ),
        pytest.param(
            (msgspec.structs.replace(DENY, selector="app in"), ARRIVED), READ, id="a selector nobody can read"
        ),
    ],
)
def test_nothing_is_told_where_it_is_not_sure_that_the_kernel_let_pass_what_is_denied(
    facts: tuple[Fact, ...], read: PoliciesRead
) -> None:
    diagnosis = told(*facts, read=read)
    assert (diagnosis.verdict, warned(diagnosis)) == ("healthy", [])


@pytest.mark.parametrize("fields", [{"bpf": True}, {"foreign_dataplane": True}, {"settings_read": False}])
def test_nothing_is_told_where_the_kernels_rules_are_not_what_carries_policies(fields: dict[str, Any]) -> None:
    facts = change(healthy(), CalicoNode, {"name": "node-b"}, **fields)
    assert warned(told(DENY, ARRIVED, of=facts)) == []


def test_nothing_is_told_of_pods_whose_addresses_another_plugin_gave_out() -> None:
    """Their interfaces may have other names, and then Felix's rules are about nobody."""
    within = calico_policy("web", "shop", selector="app == 'web'", types=["Ingress"], ingress=[])
    web = LabelledEndpoint(name=WEB[0], node=WEB[1], addresses=(WEB[2],), namespace="shop", labels=(("app", "web"),))
    about = [*ends(), web, within, READ]
    facts = healthy(CART, WEB)
    assert [leg.encapsulation for leg in doubted([*facts, *about])] == ["local"]
    strange = change(facts, Allocation, {"address": WEB[2]}, found=False, block="", vxlan_mode="", pool="")
    assert doubted([*strange, *about]) == []


def test_a_node_that_is_asked_about_is_never_said_to_let_anything_pass() -> None:
    """It reaches its own pods by right, and what it sends to others goes under an address of its routes' choice."""
    for name, address in (("node-b", "172.30.0.12"), ("node-a", "172.30.0.11")):
        facts = [msgspec.structs.replace(one, source=name) if isinstance(one, Question) else one for one in healthy()]
        node = Endpoint(name=name, kind="node", node=name, address=address, addresses=(address,))
        arrived = msgspec.structs.replace(ARRIVED, source_address=address)
        diagnosis = told(node, into_db(), arrived, of=facts)
        assert "policy_bypassed" not in {one.rule for one in diagnosis.warnings}
        assert doubted([*facts, node, *ends(), into_db(), READ]) == []


@pytest.mark.parametrize(
    ("root", "rule"),
    [
        (CalicoFirewall(node="node-b", backends=("nftables",)), "policy_not_enforced"),
        (CalicoService(node="node-b", service="felix", seen=True, running=True, applies=7, still_s=900), "felix_stuck"),
    ],
)
def test_what_takes_all_policies_of_the_node_away_is_told_instead(root: Fact, rule: str) -> None:
    assert warned(told(DENY, ARRIVED, root)) == [(rule, "node-b")]


def test_packets_that_were_lost_or_not_of_the_asked_kind_raise_no_doubt() -> None:
    about = [*ends(), DENY, READ]
    assert [leg.target for leg in doubted([*healthy(), *about])] == ["shop/db"]
    some = change(healthy(), ProbeResult, {"pod": CART[0], "protocol": "tcp"}, answered=1)
    assert doubted([*some, *about]) == []
    assert doubted([*healthy(port=0), *about]) == []
    assert [leg.target for leg in doubted([*healthy(port=0), *ends(), into_db(), READ])] == ["shop/db"]


@pytest.mark.parametrize("flow", FLOWS, ids=[f"{one['set']}: {one['flow']}" for one in FLOWS])
async def test_of_all_flows_recorded_between_pods_only_those_that_were_dropped_would_raise_doubt(
    flow: dict[str, Any], tmp_path: Path
) -> None:
    """Each is said to have been answered; those that a running Calico let pass are never doubted."""
    facts = await asked(flow, tmp_path)
    (leg,) = [one for one in expected_legs(facts) if one.direction == "forward"]
    between_pods = (leg.source_kind, leg.target_kind) == ("pod", "pod")
    passed = ProbeResult(
        node=leg.source_node,
        pod=leg.source if leg.source_kind == "pod" else "",
        source_address=leg.source_address,
        target_address=leg.target_address,
        protocol="tcp",
        port=leg.port,
        sent=2,
        answered=2,
        outcome="answered",
    )
    by_host = flow["set"].startswith("16")
    dropped = flow["result"] == DROPPED and between_pods and not by_host
    assert bool(doubted([*facts, passed])) == dropped


@pytest.mark.parametrize("name", [name for name in STATES if "/policy-" in name])
async def test_of_the_pods_of_a_recorded_cluster_with_policies_only_those_that_were_shut_would_raise_doubt(
    name: str, tmp_path: Path
) -> None:
    """Pings between all of them are said to have been answered."""
    state, recording = STATES[name], recorded(name)
    wrong = []
    async with cluster_of(recording, tmp_path) as cluster:
        for source, target in permutations(pods_of(recording), 2):
            facts = await known(cluster, source.name, target.name)
            about = await unenforced.read(cluster, facts)
            seen = [fact for ask in plan(facts) for fact in recording.answer(ask, passing, alive(ask.node))]
            found = doubted([*facts, *seen, *about])
            if bool(found) != is_shut(state, source, target):
                wrong.append((source.name, target.name, found))
    assert wrong == []


async def test_no_healthy_answer_waits_long_for_the_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unenforced, "PATIENCE_S", 0.01)
    reading = asyncio.create_task(asyncio.sleep(60, [NetworkSet(name="late")]))
    nobody: Any = None
    seen = await unenforced.compared(
        healthy(), [ARRIVED], reading, cluster=nobody, probes=nobody, addresses={}
    )  # fmt: skip
    reading.cancel()
    assert seen[0] == ARRIVED
    (blind,) = seen[1:]
    assert isinstance(blind, Blind) and blind.minor and "in time" in blind.reason
