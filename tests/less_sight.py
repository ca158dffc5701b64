"""The same question asked by somebody who sees less: what an answer may lose, it may only lose to "unknown"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from bot.errors import UserError
from bot.investigate import investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import NOT_A_PROBES, Probes
from facts import (
    BgpPeer,
    Bird,
    Blind,
    Diagnosis,
    Fact,
    FdbEntry,
    FelixHealth,
    ForeignVxlans,
    Link,
    LinkAddresses,
    Listener,
    MacSharers,
    Neighbor,
    NeighborTable,
    NodeAddress,
    NodeAsk,
    PodInterface,
    PodRoute,
    ProbeResult,
    Question,
    RouteLookup,
    RoutingRules,
    Sighting,
    Sysctl,
    WireguardDevice,
    WireguardPeer,
)
from lab.client import Lab
from tests.asking import worker

# Which look of a node's probe yields which kinds; any other kind is the only one of its look.
COLLECTORS: Mapping[type[Fact], str] = {
    LinkAddresses: "address",
    FdbEntry: "fdb",
    FelixHealth: "felix",
    Link: "link",
    Neighbor: "neighbor",
    PodInterface: "pod",
    PodRoute: "pod",
    Listener: "pod",
    RouteLookup: "route",
    Sysctl: "sysctl",
    ProbeResult: "packets",
    Sighting: "packets",
    NodeAddress: "machine",
    NeighborTable: "machine",
    RoutingRules: "machine",
    MacSharers: "machine",
    ForeignVxlans: "machine",
    Bird: "bird",
    BgpPeer: "bird",
    WireguardDevice: "wireguard",
    WireguardPeer: "wireguard",
}
# The resource in a path: the last plural before a name, such as pods in /api/v1/namespaces/shop/pods/cart.
RESOURCE = re.compile(r"^/(?:api/v1|apis/[^/]+/[^/]+)/(?:namespaces/[^/]+/(?=[^/]))?([^/]+)")


def without_each_look(facts: Sequence[Fact]) -> Iterator[tuple[Blind, list[Fact]]]:
    """What is left, and what says so, when one look of a probe breaks, a whole probe is silent, or one kind of thing
    cannot be read from the API."""

    def look(fact: Fact) -> tuple[str, str]:
        if isinstance(fact, NOT_A_PROBES):
            return "", type(fact).__name__
        return str(getattr(fact, "node", "")), COLLECTORS.get(type(fact), type(fact).__name__)

    looks = sorted({look(fact) for fact in facts if not isinstance(fact, Question | Blind)})
    nodes = sorted({node for node, _ in looks if node})
    for node, name in [*looks, *((node, "probe") for node in nodes)]:
        blind = Blind(node=node, look=name, reason="it was taken away")
        yield blind, [*(f for f in facts if look(f) != (node, name) and (name != "probe" or look(f)[0] != node)), blind]


# Read only where packets are lost. Nothing depends on staged policies, which Felix does not program.
OF_POLICIES = {
    "networkpolicies",
    "globalnetworkpolicies",
    "clusternetworkpolicies",
    "tiers",
    "networksets",
    "globalnetworksets",
    "hostendpoints",
}
STAGED = {"stagednetworkpolicies", "stagedkubernetesnetworkpolicies", "stagedglobalnetworkpolicies"}


async def without_each_resource(
    lab: Lab, words: str, *, policies: bool = False
) -> tuple[Diagnosis, dict[str, Diagnosis | UserError]]:
    """The answer to `why WORDS`, and those of users to whom the API server refuses one of the resources it reads each.

    The probes are asked the same thing once: what they see does not depend on who asks.
    policies: those that hold policies too; without, only what every question reads.
    """
    remembered: dict[NodeAsk, list[Fact]] = {}
    whole, resources = await _answer(lab.environment(), words, remembered)
    assert isinstance(whole, Diagnosis), whole
    answers = {
        resource: (await _answer(lab.environment(denied=[resource]), words, remembered))[0]
        for resource in resources
        if resource not in STAGED and (policies or resource not in OF_POLICIES)
    }
    return whole, answers


async def _answer(
    environment: Mapping[str, str], words: str, remembered: dict[NodeAsk, list[Fact]]
) -> tuple[Diagnosis | UserError, list[str]]:
    """With the plurals of the resources that were read for it."""
    settings = from_environment(environment)
    async with Cluster(settings) as cluster, _Remembering(settings, remembered) as probes:
        send, paths = cluster.api._send, list[str]()

        async def telling(path: str, query: dict[str, str | int]) -> tuple[int, bytes]:
            paths.append(path)
            return await send(path, query)

        cluster.api._send = telling  # type: ignore[method-assign]
        try:
            answer = await investigate(words.split(), cluster=cluster, probes=probes, worker=worker())
        except UserError as error:
            return error, []
    return answer.diagnosis, sorted({found[1] for path in paths if (found := RESOURCE.match(path))})


class _Remembering(Probes):
    def __init__(self, settings: object, remembered: dict[NodeAsk, list[Fact]]) -> None:
        super().__init__(settings)  # type: ignore[arg-type]
        self._remembered = remembered

    async def _one(self, ask: NodeAsk, address: str) -> list[Fact]:
        if ask not in self._remembered:
            self._remembered[ask] = await super()._one(ask, address)
        return self._remembered[ask]
