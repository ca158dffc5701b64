"""A fix on a lab from the question to its end, as people meet it: asked for, approved by another one, done, seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from kubernetes.aio import client

from bot.approvals import Approvals
from bot.fix_requests import requested
from bot.investigate import Investigation
from bot.settings import from_environment
from facts import Cause, Diagnosis
from fixes.approvers import Approvers
from fixes.calico import Calico
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.kind import ClusterKind, kinds
from fixes.limits import NAME as SWITCH
from fixes.request import ENDS, FixRequest, Phase, digest_of
from fixes.store import FixStore, connect
from lab.client import Lab
from tests.asking import ask
from tests.deployed import BOT, CLUSTER_FIXER
from tests.fix_samples import ANA, BO

APPROVERS = from_environment({"CALICO_WHY_APPROVERS": BO.id}).approvers
ENVIRONMENT = {"CALICO_WHY_APPROVERS": BO.id}  # of the lab's own fixers
LONGEST_S = 30.0


def up(variant: str = "") -> Iterator[Lab]:
    """A lab of a module's own, with fixers that know who may approve. Skips where no namespaces can be made."""
    with Lab.up(variant=variant, environment=ENVIRONMENT) as lab:
        asyncio.run(without_limits(lab))
        yield lab


async def without_limits(lab: Lab) -> None:
    """A test asks for more fixes of one node than a cluster has in an hour."""
    settings = from_environment(lab.administrator())
    limits = {"enabled": "true", "perNodePerHour": "10000", "perKindPerHour": "10000"}
    async with connect(settings.kubeconfig, settings.namespace) as store:
        await client.CoreV1Api(store.api).patch_namespaced_config_map(SWITCH, store.namespace, {"data": limits})


async def ended(lab: Lab, answer: Investigation, mode: str, calico: Calico | None = None) -> list[FixRequest]:
    """The requests for this cause, each approved and at its end. What wants two looks is wanted at once.

    A node's are done by the fixer that runs there, the cluster's here, by `calico` where it is given.
    """
    fixes = {name for cause in found(answer.diagnosis, mode) for name in (cause.fix, *cause.other_fixes)}
    namespace = from_environment(lab.environment()).namespace
    bots, fixers = [lab.environment(account=one)["KUBECONFIG"] for one in (BOT, CLUSTER_FIXER)]
    async with connect(bots, namespace) as store, connect(fixers, namespace) as fixing:
        ends = []
        for request in await requested(answer, store, ANA):
            if request.spec.kind not in fixes:
                continue
            if "again_after_s" in request.spec.arguments and calico is None:
                request = await at_once(store, request)
            decision = await Approvals(store, APPROVERS).decide(request.name, Phase.APPROVED, BO)
            assert decision.changed, decision.sentence
            if isinstance(kinds()[request.spec.kind], ClusterKind):
                hands = ClusterHands(calico or Calico(fixing.api))
                ends.append(await Executor(hands, fixing, APPROVERS).handle(request.name))
            else:
                ends.append(await end_of(store, request.name))
        return ends


async def approved_and_done(lab: Lab, name: str, approvers: Approvers) -> FixRequest:
    """By a second person, and by the cluster's fixer."""
    namespace = from_environment(lab.environment()).namespace
    bots, fixers = [lab.environment(account=one)["KUBECONFIG"] for one in (BOT, CLUSTER_FIXER)]
    async with connect(bots, namespace) as store, connect(fixers, namespace) as fixing:
        decision = await Approvals(store, approvers).decide(name, Phase.APPROVED, BO)
        assert decision.changed, decision.sentence
        return await Executor(ClusterHands(Calico(fixing.api)), fixing, approvers).handle(name)


def found(diagnosis: Diagnosis, mode: str) -> list[Cause]:
    return [one for one in (*diagnosis.causes, *diagnosis.warnings) if one.rule == mode]


async def at_once(store: FixStore, request: FixRequest) -> FixRequest:
    """The same request, made by somebody who does not want to wait for a second look."""
    spec = msgspec.structs.replace(request.spec, arguments={**request.spec.arguments, "now": "yes"})
    return await store.create(msgspec.structs.replace(spec, digest=digest_of(spec)))


async def end_of(store: FixStore, name: str) -> FixRequest:
    try:
        async with asyncio.timeout(LONGEST_S):
            async for _, request in store.watch():
                if request.name == name and request.status.phase in ENDS:
                    return request
    except TimeoutError:
        status = (await store.get(name)).status
        raise AssertionError(f"{name} is {status.phase} after {LONGEST_S:.0f} s: {status.waits}") from None
    raise AssertionError


async def asked(lab: Lab, words: str) -> Diagnosis:
    return (await ask(lab.environment(), words)).diagnosis
