"""A healthy cluster is never accused, whatever its shape: every variant of the lab is asked about, through the product.

Variants are put together in packs of a few that can be true of one cluster, since a lab takes a second to start. Pairs
of all with all are the business of `make score`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import combinations, permutations

import pytest

from bot.asking import understand
from bot.commands import node as of_node
from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.told import Told
from facts import Diagnosis
from fixes.request import Person
from lab.client import Lab
from lab.errors import LabError
from lab.variants import VARIANTS, Variant, chosen
from tests.asking import worker
from tests.exhaustive import Cells
from tests.runbook_words import context_of

TOGETHER = 8
MEANT_FOR_EACH_OTHER = (
    "kube-proxy-ipvs",
    "service-on-every-node",
)  # without a Service nobody would ask for its address
# A machine may give no TUN devices...
WITH_TUN = (
    "ipip",
    "ipip+dualstack+two-subnets+calico-3.33+uplink-bond0",
    "ipip+host-local+calico-3.33+host-network-pods",
)
# ...and have no programs for iptables and IP sets.
WITH_TOOLS = (
    "iptables-legacy+dualstack+policies-in-force+host-endpoints+docker",
    "iptables-nft+dualstack+policies-in-force+host-endpoints+firewalld+calico-3.29",
)
AT_ONCE = 4
PORT = "8080/tcp"
ASKED = Cells(every=10)  # questions about each cluster; all pairs of the usual one are tests/test_answers_on_lab.py's


def packs(variants: Iterable[Variant]) -> list[str]:
    """Each variant in the first pack that has room and combines with it."""
    found = [[VARIANTS[name] for name in MEANT_FOR_EACH_OTHER]]
    for variant in variants:
        if variant in found[0] or variant.name in ("ipip", "iptables-legacy", "iptables-nft"):
            continue
        for pack in found:
            if len(pack) < TOGETHER and all(variant.combines_with(one) for one in pack):
                pack.append(variant)
                break
        else:
            found.append([variant])
    return [*WITH_TUN, *WITH_TOOLS, *("+".join(one.name for one in pack) for pack in found)]


def questions(lab: Lab) -> list[str]:
    """Every pair of pods, both ways. Then nodes and pods on the nodes' own network."""
    status = lab.status()
    names = [pod["name"] for pod in status["pods"]]
    first = {pod["node"]: pod["name"] for pod in reversed(status["pods"])}
    found = [f"{source} {target} {PORT}" for source, target in permutations(names, 2)]
    for source, target in combinations([node["name"] for node in status["nodes"]], 2):
        found += [f"{source} {target}", f"{source} {first[target]} {PORT}", f"{first[source]} {target}"]
    if "service-on-every-node" in status["settings"]["variant"].split("+"):
        clients = [*names, *(node["name"] for node in status["nodes"])]
        found += [f"{client} shop/db-service {PORT}" for client in clients]
    if "host-network-pods" in status["settings"]["variant"].split("+"):
        found += [f"shop/agent-1 {names[-1]} {PORT}", f"{names[0]} shop/agent-2", "shop/agent-1 shop/agent-3"]
    return found


async def answers(lab: Lab, words: list[str]) -> list[Diagnosis]:
    """Some asked at once, all by one bot."""
    settings = from_environment(lab.environment())
    turn = asyncio.Semaphore(AT_ONCE)
    async with Cluster(settings) as cluster, Probes(settings) as probes:

        async def told(question: str) -> Diagnosis:
            async with turn:
                found = await investigate(question.split(), Means(cluster, probes, worker()))
                return found.diagnosis

        return await asyncio.gather(*map(told, words))


async def of_nodes(lab: Lab) -> Told:
    """How its nodes are, as `node status` tells it."""

    async def nobody() -> Person:
        raise AssertionError("nobody asks for a fix here")

    async def quiet(text: str) -> None:
        pass

    async with context_of(lab.environment()) as context:
        return await of_node.answer(understand("node", of_node, ["status"]), context(nobody, quiet, ""))


@pytest.mark.parametrize("pack", ["", *packs(VARIANTS.values())], ids=lambda pack: pack or "as it is")
async def test_a_healthy_cluster_of_any_shape_is_called_healthy(pack: str) -> None:
    lab = await asyncio.to_thread(Lab.up, variant=pack, fixers=False)
    with lab:
        asked = ASKED.of(pack, questions(lab), lambda words: (pack, *("/" in end for end in words.split()[:2])))
        told = await answers(lab, asked)
        nodes = await of_nodes(lab)
    odd = [
        (words, one.verdict, one.causes, one.warnings, one.blind, one.summary)
        for words, one in zip(asked, told, strict=True)
        if one.verdict != "healthy" or one.warnings
    ]
    assert odd == []
    assert (nodes.mark, [one for one in nodes.data["nodes"] if one["state"] != "ok"]) == ("healthy", [])


def test_every_variant_is_in_a_pack_and_says_what_it_is() -> None:
    together = packs(VARIANTS.values())
    assert {name for pack in together for name in pack.split("+")} == VARIANTS.keys()
    assert all(variant.text.endswith(".") and "\n" not in variant.text for variant in VARIANTS.values())
    for variant in VARIANTS.values():
        assert variant.conflicts <= VARIANTS.keys(), variant.name


@pytest.mark.parametrize("words", ["dualstack+ipv6", "bgp+two-subnets", "no-such-shape", "bgp+bgp"])
def test_what_no_cluster_can_be_is_refused_in_a_sentence(words: str) -> None:
    with pytest.raises(LabError, match=r"No cluster is both|There is no variant"):
        chosen(words)
