"""The same question asked by somebody who sees less: what an answer may lose, it may only lose to "unknown"."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bot.errors import UserError
from bot.investigate import Means, investigate
from bot.settings import Settings, from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import NOT_A_PROBES, Probes
from facts import (
    BgpPeer,
    Bird,
    Blind,
    CalicoSettings,
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
    PeerGateway,
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
from tests.recorded import served
from tests.recorded_kernel import Recording
from tests.recorded_wounds import RecordedProbes

# Which look of a node's probe yields which kinds; any other kind is the only one of its look.
COLLECTORS: Mapping[type[Fact], str] = {
    LinkAddresses: "address",
    FdbEntry: "fdb",
    FelixHealth: "felix",
    Link: "link",
    Neighbor: "neighbor",
    PeerGateway: "neighbor",
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


def missed(fact: Fact, diagnosis: Diagnosis, whole: Diagnosis) -> bool:
    """Does an answer name what it lacks beside the whole one: the node whose look it was, or of whom the API would have
    told?"""
    told = [blind for blind in diagnosis.blind if blind not in whole.blind]
    if not isinstance(fact, NOT_A_PROBES):
        return any(blind.node == getattr(fact, "node", "") for blind in told)
    names = [str(getattr(fact, name, "")) for name in ("name", "address", "service")]
    if isinstance(fact, CalicoSettings):
        names.append("settings of Calico")
    return bool(told) or any(name in diagnosis.summary for name in names if name)


AT_ONCE = 4  # users: most answers wait for a kernel to settle, or to see whether what passes goes on passing
# Nothing depends on them: Felix does not program staged policies.
STAGED = {"stagednetworkpolicies", "stagedkubernetesnetworkpolicies", "stagedglobalnetworkpolicies"}

Told = dict[tuple[str, tuple[tuple[str, str | int], ...]], tuple[int, bytes]]  # what was asked for -> status, body


Some = Callable[[list[str]], list[str]]  # of the resources that an answer rests on those to refuse


async def without_each_resource(
    lab: Lab, words: str, some: Some = list
) -> tuple[Diagnosis, dict[str, Diagnosis | UserError]]:
    """The answer to `why WORDS`, and those of users to whom the API server refuses one of the resources it reads each;
    where packets are lost policies are among them.

    What the probes told the first of them last they tell the others too: what they see does not depend on who asks. So
    does the API server, what it refuses nobody. What only the others ask is asked indeed.
    """
    seen: dict[NodeAsk, list[Fact]] = {}
    alone = asyncio.Lock()

    def user(denied: str) -> tuple[Settings, Probes]:
        settings = from_environment(lab.environment(denied=[denied] if denied else ()))
        return settings, _Remembering(settings, seen, alone, anew=not denied)

    return await _each_refused(user, words, some)


async def without_each_resource_of(
    recording: Recording,
    answer: Callable[[NodeAsk], list[Fact]],
    words: str,
    directory: Path,
    some: Some = list,
) -> tuple[Diagnosis, dict[str, Diagnosis | UserError]]:
    """The same of a recorded cluster, whose objects the lab's API server serves. answer: what probes tell there."""
    async with served(recording.objects, directory) as world:

        def user(denied: str) -> tuple[Settings, Probes]:
            refused = dataclasses.replace(world.bot, denied=frozenset({("*", "*", denied)}))
            world.server.tokens = {**world.server.tokens, f"without-{denied}": refused}
            settings = world.settings(token=f"without-{denied}")
            return settings, RecordedProbes(settings, answer)

        return await _each_refused(user, words, some)


async def _each_refused(
    user: Callable[[str], tuple[Settings, Probes]], words: str, some: Some
) -> tuple[Diagnosis, dict[str, Diagnosis | UserError]]:
    """user: of whom this resource is refused; of whom nothing is for ""."""
    told: Told = {}
    whole = await _answer(*user(""), words, told)
    assert isinstance(whole, Diagnosis), whole
    resources = some(sorted({_resource(path) for path, _ in told} - STAGED))
    turn = asyncio.Semaphore(AT_ONCE)

    async def answer(denied: str) -> Diagnosis | UserError:
        async with turn:
            return await _answer(*user(denied), words, told, denied)

    return whole, dict(zip(resources, await asyncio.gather(*map(answer, resources)), strict=True))


async def _answer(
    settings: Settings, probes: Probes, words: str, told: Told, denied: str = ""
) -> Diagnosis | UserError:
    """denied: the resource that this user may not read. told: what the API server answers whoever may read all."""
    async with Cluster(settings) as cluster, probes:
        send = cluster.api._send

        async def remembering(path: str, query: dict[str, str | int]) -> tuple[int, bytes]:
            if _resource(path) == denied:
                return await send(path, query)
            asked = path, tuple(query.items())
            if asked not in told:
                told[asked] = await send(path, query)
            return told[asked]

        cluster.api._send = remembering  # type: ignore[method-assign]
        try:
            answer = await investigate(words.split(), Means(cluster, probes, worker()))
        except UserError as error:
            return error
    return answer.diagnosis


def _resource(path: str) -> str:
    """Its plural; "" where the path is no resource's."""
    found = RESOURCE.match(path)
    return found[1] if found else ""


class _Remembering(Probes):
    def __init__(
        self, settings: Settings, remembered: dict[NodeAsk, list[Fact]], alone: asyncio.Lock, *, anew: bool
    ) -> None:
        """alone: one at a time sends packets. anew: ask all the same, as one must who waited for a kernel to settle."""
        super().__init__(settings)
        self._remembered = remembered
        self._alone = alone
        self._anew = anew

    async def ask(self, asks: Sequence[NodeAsk], addresses: Mapping[str, str]) -> list[Fact]:
        if not self._anew and all(ask in self._remembered for ask in asks):
            return await super().ask(asks, addresses)
        async with self._alone:
            return await super().ask(asks, addresses)

    async def _one(self, ask: NodeAsk, *how: str) -> list[Fact]:
        if self._anew or ask not in self._remembered:
            self._remembered[ask] = await super()._one(ask, *how)
        return self._remembered[ask]
