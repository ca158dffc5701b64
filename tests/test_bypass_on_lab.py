"""Real packets through rules that somebody took away: what the policies deny and the kernel lets pass is told, and by
what is put right meanwhile nobody is accused."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.names import veth_name
from bot.sources.probes import Probes
from facts import Blind, Diagnosis, StageSighting
from lab.client import Lab
from tests.asking import worker
from tests.test_policies_on_lab import kubectl, of_kubernetes, policy

TABLE = ("ip", "calico")
CART, DB, WEB = (veth_name("shop", name) for name in ("cart", "db", "web"))
CROSSING, WITHIN = "shop/cart shop/db 5432/tcp", "shop/cart shop/web 8080/tcp"
Object = dict[str, Any]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None or shutil.which("nft") is None, reason="kubectl or nft is not installed"
)


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    with Lab.up(fixers=False) as lab:
        yield lab


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    yield running
    for group in ("networking.k8s.io", "crd.projectcalico.org"):
        kubectl(running, "delete", f"networkpolicies.{group}", "--all", "-n", "shop")
    running.heal()


async def asked(
    lab: Lab, words: str, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> tuple[Diagnosis, list[str]]:
    """The answer with what was told on the way to it. meanwhile: done before the second look is taken."""
    told: list[str] = []

    async def progress(text: str) -> None:
        told.append(str(text))
        if "looking again" in text and meanwhile is not None:
            await meanwhile()

    settings = from_environment(lab.environment())
    async with Cluster(settings) as cluster, Probes(settings) as probes:
        answer = await investigate(words.split(), Means(cluster, probes, worker()), progress=progress)
    return answer.diagnosis, told


def denying(name: str, direction: str) -> Object:
    """All that comes to a pod or leaves it."""
    return of_kubernetes(podSelector={"matchLabels": {"app": name}}, policyTypes=[direction])


async def enforced(lab: Lab, applied: Object, words: str) -> None:
    """Applied, and seen to keep the packets back."""
    await asyncio.to_thread(kubectl, lab, "apply", "--validate=false", "-f", "-", given=json.dumps(applied))
    async with asyncio.timeout(20):
        while True:
            found, _ = await asked(lab, words)
            assert "policy_bypassed" not in {one.rule for one in found.warnings}, "Felix was only on its way"
            if found.verdict == "cause":
                return


async def nft(lab: Lab, node: str, *words: str) -> str:
    done = await asyncio.to_thread(lab.exec, node, "nft", *words)
    assert done.returncode == 0, (words, done.stderr)
    return str(done.stdout)


def warned(found: Diagnosis) -> list[tuple[str, str]]:
    return [(one.rule, one.node) for one in found.warnings]


# What is applied, what is asked, on which node what is done to Calico's table.
WAYS: dict[str, tuple[Object, str, str, tuple[str, ...]]] = {
    "the target's chain flushed": (
        denying("db", "Ingress"), CROSSING, "node-b", ("flush", "chain", *TABLE, f"filter-cali-tw-{DB}")),
    "the source's chain flushed": (
        denying("cart", "Egress"), CROSSING, "node-a", ("flush", "chain", *TABLE, f"filter-cali-fw-{CART}")),
    "the chain of a pod on the same node flushed": (
        denying("web", "Ingress"), WITHIN, "node-a", ("flush", "chain", *TABLE, f"filter-cali-tw-{WEB}")),
    "nothing leads to the chains of any pod": (
        denying("db", "Ingress"), CROSSING, "node-b", ("flush", "chain", *TABLE, "filter-cali-to-wl-dispatch")),
    "somebody accepts before Calico is asked": (
        denying("db", "Ingress"), CROSSING, "node-b",
        ("insert", "rule", *TABLE, "filter-FORWARD", "oifname", DB, "accept")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_what_lets_pass_what_a_policy_denies_is_found_at_its_node(lab: Lab, way: str) -> None:
    applied, words, node, done = WAYS[way]
    await enforced(lab, applied, words)
    await nft(lab, node, *done)
    found, told = await asked(lab, words)
    assert (found.verdict, warned(found), found.blind) == ("healthy", [("policy_bypassed", node)], ()), found.summary
    assert [one for one in told if "looking again in 5 s" in one]
    assert "by the policies in the API" in found.warnings[0].text and "shop/p" in found.warnings[0].text


async def test_a_set_that_somebody_emptied_lets_pass_whom_a_rule_denies(lab: Lab) -> None:
    rules = [{"action": "Deny", "source": {"selector": "app == 'cart'"}}, {"action": "Allow"}]
    applied = policy("NetworkPolicy", "default.p", types=["Ingress"], selector="app == 'db'", ingress=rules)
    await enforced(lab, applied, CROSSING)
    listed = await nft(lab, "node-b", "list", "sets", *TABLE[:1])
    of_selectors = re.findall(r"set (cali40s\S+)", listed)
    assert of_selectors
    for name in of_selectors:
        await nft(lab, "node-b", "flush", "set", *TABLE, name)
    found, _ = await asked(lab, CROSSING)
    assert (found.verdict, warned(found)) == ("healthy", [("policy_bypassed", "node-b")])
    assert "is denied by rule 1 of Calico NetworkPolicy shop/" in found.warnings[0].text


async def test_a_chain_that_is_back_in_the_second_look_leaves_the_answer_of_any_loss(lab: Lab) -> None:
    applied, words, node, done = WAYS["the target's chain flushed"]
    await enforced(lab, applied, words)
    chain = (*TABLE, f"filter-cali-tw-{DB}")
    before = await nft(lab, node, "list", "chain", *chain)
    await nft(lab, node, *done)

    async def restored() -> None:
        put_back = await asyncio.to_thread(lab.exec, node, "nft", "-f", "-", input=before)
        assert put_back.returncode == 0, put_back.stderr

    found, _ = await asked(lab, words, restored)
    assert [(one.rule, one.node) for one in found.causes] == [("policy_denies_ingress", node)], found
    assert warned(found) == []


async def test_a_policy_that_is_gone_in_the_second_look_accuses_nobody(lab: Lab) -> None:
    applied, words, node, done = WAYS["the target's chain flushed"]
    await enforced(lab, applied, words)
    await nft(lab, node, *done)

    async def deleted() -> None:
        await asyncio.to_thread(kubectl, lab, "delete", "-f", "-", given=json.dumps(applied))

    found, told = await asked(lab, words, deleted)
    assert [one for one in told if "looking again" in one]
    assert (found.verdict, warned(found)) == ("healthy", [])


async def test_where_policies_let_it_pass_nobody_looks_again_and_the_answer_is_what_it_was(lab: Lab) -> None:
    allowed = of_kubernetes(
        podSelector={"matchLabels": {"app": "db"}}, policyTypes=["Ingress"], ingress=[{"ports": [{"port": 5432}]}]
    )
    await enforced(lab, allowed, "shop/cart shop/db 8080/tcp")
    found, told = await asked(lab, CROSSING)
    assert (found.verdict, warned(found), found.blind) == ("healthy", [], ())
    assert not [one for one in told if "again" in one]
    assert not [one for one in found.facts if isinstance(one, StageSighting | Blind)]
