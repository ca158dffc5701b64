"""Before an address is released every node is asked for a route to it: the API server may have forgotten its pod."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from facts import Cause, Diagnosis, LeakedAddresses, PoolUsage
from fixes.calico import Calico
from fixes.kind import TooSoon
from fixes.kinds.release_ip import KIND, nodes_asked
from fixes.request import stamp
from fixes.store import connect
from lab.client import Lab
from tests.asking import ask, words_for
from tests.deployed import CLUSTER_FIXER

NODES = ("node-a", "node-b", "node-c")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.up() as lab:
        yield lab


def leak(diagnosis: Diagnosis) -> tuple[LeakedAddresses, Cause]:
    (found,) = (fact for fact in diagnosis.facts if isinstance(fact, LeakedAddresses))
    (cause,) = (one for one in (*diagnosis.causes, *diagnosis.warnings) if one.rule == "ip_leaked")
    return found, cause


async def test_a_route_on_any_node_keeps_an_address_from_being_released(lab: Lab) -> None:
    lab.heal()
    words = words_for(lab.inflict("ip_leaked", where="source"))
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    found, cause = leak(diagnosis)
    assert found.no_route_on == NODES
    arguments = KIND.propose(cause, diagnosis.facts)
    assert arguments is not None
    assert (arguments["address"], arguments["no_route_on"]) == (found.address, nodes_asked(NODES))
    # The pod runs on, on a node that lost the API server, which was told to forget it.
    script = f"""
from pyroute2 import IPRoute
with IPRoute() as ip:
    (pod, *_) = [one["index"] for one in ip.get_links() if one.get_attr("IFLA_IFNAME").startswith("cali")]
    ip.route("add", dst="{found.address}/32", oif=pod, scope=253)
"""
    done = lab.exec("node-c", sys.executable, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    found, cause = leak(diagnosis)
    assert found.address == arguments["address"] and found.no_route_on == ()
    others = [KIND.propose(cause, diagnosis.facts), *KIND.more(cause, diagnosis.facts)]
    assert [one["address"] for one in others if one] == [one.address for one in found.others] != []
    assert all(one and one["no_route_on"] == nodes_asked(NODES) for one in others)


async def test_what_was_proposed_is_released_and_the_question_sees_it(lab: Lab) -> None:
    lab.heal()
    words = words_for(lab.inflict("ip_leaked", where="target"))
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    found, cause = leak(diagnosis)
    arguments = KIND.propose(cause, diagnosis.facts)
    assert arguments is not None
    arguments |= {"seen_at": stamp(datetime.now(UTC))}
    async with connect(lab.environment(account=CLUSTER_FIXER)["KUBECONFIG"], "default") as store:
        with pytest.raises(TooSoon):
            await KIND.holds(Calico(store.api), arguments)
        later = Calico(store.api, now=lambda: datetime.now(UTC) + timedelta(minutes=15, seconds=5))
        await KIND.holds(later, arguments)
        await KIND.execute(later, arguments)
        assert await KIND.verify(later, arguments) == (True, f"{found.address} is free now.")
    facts = (await ask(lab.environment(), words)).diagnosis.facts
    assert all(one.address != found.address for one in facts if isinstance(one, LeakedAddresses))
    assert all(not one.exhausted for one in facts if isinstance(one, PoolUsage) and one.pool == found.pool)


async def test_a_node_that_does_not_answer_keeps_it_too(lab: Lab) -> None:
    """The last test here: the lab keeps the node, which has no probe."""
    lab.heal()
    words = words_for(lab.inflict("ip_leaked", where="source"))
    async with connect(lab.administrator()["KUBECONFIG"], "default") as store:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-lost"}}
        status, _ = await Calico(store.api)._send("POST", "/api/v1/nodes", body=body)
    assert status == 201
    diagnosis = (await ask(lab.environment(), words)).diagnosis
    found, cause = leak(diagnosis)
    assert found.address and found.no_route_on == ()
    assert KIND.propose(cause, diagnosis.facts) is None and KIND.more(cause, diagnosis.facts) == []
