"""What the admission policies keep people, bot and fixers from writing of a fix: a forged approval above all."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from bot.approvals import Approvals
from fixes.approvers import RBAC, Approvers
from fixes.audit import Audit, AuditError, Record, told, verify
from fixes.executor import Executor
from fixes.limits import NAME, Switch
from fixes.request import (
    CAPTURE,
    GROUP,
    PLURAL,
    TRANSITIONS,
    Card,
    FixRequest,
    Person,
    Phase,
    SecondLook,
    Waits,
    document,
)
from fixes.store import FixStore, StoreError
from tests.deployed import ADMINISTRATOR, ASKER, BOT, CLUSTER_FIXER, NODE, named, person
from tests.fix_cluster import NAMESPACE, POLICIES, FixCluster, fix_cluster
from tests.fix_samples import ANA, BO, a_spec
from tests.test_limits import Doing

VERBS = frozenset({"relay", "execute", "execute-on-own-node", "approve"})
FIXREQUESTS = f"{PLURAL}.{GROUP}"
ON_NODE_A = {"authentication.kubernetes.io/node-name": ("node-a",)}
KUBE_BO = Person(id="bo", via="kubectl", entry=RBAC, groups=("netops",))


class Guarded:
    """A cluster with the policies, and a store for each account with the rights of deploy/."""

    def __init__(self, cluster: FixCluster) -> None:
        self.cluster = cluster
        self._stack = contextlib.AsyncExitStack()

    async def store(self, user: str, **rights: Any) -> FixStore:
        return await self._stack.enter_async_context(self.cluster.store(user, **rights))

    async def stray(self, user: str, *verbs: str, **more: Any) -> FixStore:
        """Of somebody to whom an administrator gave more than deploy/ does: all rights, and of the verbs by which it is
        known who is who, these."""
        denied = frozenset((verb, GROUP, PLURAL) for verb in VERBS - set(verbs))
        return await self.store(user, grants=None, denied=denied, **more)

    async def bot(self) -> FixStore:
        return await self.store(BOT)

    async def fixer(self) -> FixStore:
        return await self.store(CLUSTER_FIXER)

    async def fixer_of_node_a(self) -> FixStore:
        return await self.store(NODE, extra=ON_NODE_A)

    async def bo(self) -> FixStore:
        return await self.store("bo", groups=("netops", "system:authenticated"))

    async def cleo(self) -> FixStore:
        """Who may ask, and not decide."""
        return await self.store("cleo", grants=person("cleo", ASKER).grants)

    async def request(self, phase: Phase = Phase.PENDING, **changes: Any) -> FixRequest:
        """One in this phase, as the bot and the fixer brought it there."""
        bot = await self.bot()
        request = await bot.create(a_spec(datetime.now(UTC), **changes))
        if phase is not Phase.PENDING:
            request = await bot.transition(request.name, Phase.APPROVED, by=BO)
        if phase is Phase.RUNNING:
            request = await (await self.fixer()).transition(request.name, phase)
        return request

    def status(self, name: str) -> Any:
        return self.cluster.objects.get(FIXREQUESTS, name, NAMESPACE)["status"]

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with fix_cluster(tmp_path, with_policies=True) as cluster:
        scene = Guarded(cluster)
        yield scene
        await scene.close()


async def forge(store: FixStore, request: FixRequest, **status: Any) -> None:
    """Write these into the status past the product, as kubectl would."""
    body = document(request, NAMESPACE)
    body["status"] |= status
    at = {"group": GROUP, "version": "v1alpha1", "namespace": NAMESPACE, "plural": PLURAL}
    objects = store._objects
    await store._call(objects.replace_namespaced_custom_object_status(**at, name=request.name, body=body))


async def test_bot_fixer_and_terminal_do_all_they_have_to_under_the_policies(guarded: Guarded) -> None:
    bot, fixer, bo = await guarded.bot(), await guarded.fixer(), await guarded.bo()
    hands = Doing()
    approvers = Approvers(frozenset({"U0BO"}), rbac=True, people=frozenset({"U0BO=bo"}))
    executor = Executor(hands, fixer, approvers)
    asked = await bot.create(a_spec(datetime.now(UTC)))
    await bot.place(asked.name, Card(channel="C1", thread="1.0", ts="1.1"))
    assert (await executor.handle(asked.name)).status.preview
    in_terminal = Approvals(bo, approvers, right=bo.right_to_approve, writer="terminal")
    decision = await in_terminal.decide(asked.name, Phase.APPROVED, await bo.whoami())
    assert decision.changed, decision.sentence
    assert (await executor.handle(asked.name)).status.phase is Phase.VERIFIED
    await bot.note_second_look(asked.name, SecondLook(verdict="healthy", text="4 of 4", at="now"))
    by_slack = await bot.create(a_spec(datetime.now(UTC)))
    relayed = await Approvals(bot, approvers).decide(by_slack.name, Phase.APPROVED, Person(id="U0BO", via="slack"))
    assert relayed.changed, relayed.sentence
    assert (await executor.handle(by_slack.name)).status.phase is Phase.VERIFIED
    waiting = await guarded.request(Phase.APPROVED)
    await fixer.note_waits(waiting.name, Waits(text="until it is due"))
    assert (await bot.transition(waiting.name, Phase.CANCELLED, by=BO)).status.waits is None
    cleo = await guarded.cleo()
    own = await cleo.create(a_spec(datetime.now(UTC), requested_by=await cleo.whoami()))
    nobody = Approvals(cleo, approvers, right=cleo.right_to_approve, writer="terminal")
    assert not (await nobody.decide(own.name, Phase.APPROVED, await cleo.whoami())).changed
    assert (await nobody.decide(own.name, Phase.CANCELLED, await cleo.whoami())).changed
    capture = await guarded.request(Phase.APPROVED, kind=CAPTURE)
    assert (await bot.transition(capture.name, Phase.RUNNING)).status.phase is Phase.RUNNING
    for one in await bot.all():
        await Audit(bot, "bot").follow(one)
    lines = await Audit(bot, "reader").read()
    assert verify(lines, await bot.all()) == []
    assert any(line.spec["event"] == "refused" and line.spec["by"]["id"] == "cleo" for line in lines)
    assert hands.done == 2


SLACK_BO = {"id": "U0BO", "via": "slack", "entry": "U0BO"}
RBAC_BO = {"id": "bo", "via": "kubectl", "entry": "rbac"}


@pytest.mark.parametrize(
    ("verbs", "approved_by"),
    [
        ((), SLACK_BO),
        (("approve",), SLACK_BO),
        (("execute",), SLACK_BO),
        ((), RBAC_BO),
        (("approve",), RBAC_BO),
        (("relay",), RBAC_BO),
        (("relay", "execute"), RBAC_BO),
        ((), {**RBAC_BO, "id": "mallory"}),
        (("execute", "relay"), {**RBAC_BO, "id": "mallory"}),
        (("approve",), {**RBAC_BO, "id": "mallory", "groups": ["netops"]}),
    ],
)
async def test_nobody_forges_an_approval(guarded: Guarded, verbs: tuple[str, ...], approved_by: dict[str, Any]) -> None:
    """Whoever may write the status, and be it the fixer: in one's own name with the right to, or not at all."""
    request = await guarded.request()
    mallory = await guarded.stray("mallory", *verbs)
    before = guarded.status(request.name)
    event = {"phase": "Approved", "at": "2026-11-22T22:04:00Z", "by": approved_by}
    with pytest.raises(StoreError, match="one's own name"):
        await forge(mallory, request, phase="Approved", approvedBy=approved_by, history=[event])
    with pytest.raises(StoreError, match="one's own name"):
        await forge(mallory, request, approvedBy=approved_by)
    assert guarded.status(request.name) == before


async def test_an_approver_approves_in_their_own_name_with_their_own_groups(guarded: Guarded) -> None:
    bo = await guarded.bo()
    request = await guarded.request()
    with pytest.raises(StoreError, match="one's own name"):
        await bo.transition(request.name, Phase.APPROVED, by=Person(id="bo", via="kubectl", groups=("system:masters",)))
    event = {"phase": "Approved", "at": "2026-11-22T22:04:00Z", "by": SLACK_BO}
    with pytest.raises(StoreError, match="said in one's own name"):
        await forge(bo, request, phase="Approved", approvedBy=RBAC_BO, history=[event])
    assert (await bo.transition(request.name, Phase.APPROVED, by=KUBE_BO)).status.phase is Phase.APPROVED


async def test_who_is_on_the_list_and_has_no_right_in_the_cluster_is_denied_and_that_is_written_down(
    guarded: Guarded,
) -> None:
    cleo, request = await guarded.cleo(), await guarded.request()
    listed = Approvers(frozenset({"kubernetes:cleo"}), people=frozenset({"U0CLEO=cleo"}))
    terminal = Approvals(cleo, listed, right=cleo.right_to_approve, writer="terminal")
    with pytest.raises(StoreError, match=r"one's own name \(the verb approve\)"):
        await terminal.decide(request.name, Phase.APPROVED, await cleo.whoami())
    (line,) = [told(one) for one in await Audit(cleo, "reader").read() if one.spec["event"] == "refused"]
    assert f"{request.name}  refused by cleo: approved: The API server does not allow it" in line


async def test_who_asked_is_told_truly(guarded: Guarded) -> None:
    """Or an approver would ask in another one's name, and be the second person alone."""
    bo, bot = await guarded.bo(), await guarded.bot()
    for asked in (ANA, Person(id="ana", via="kubectl")):
        with pytest.raises(StoreError, match="asked for in one's own name"):
            await bo.create(a_spec(datetime.now(UTC), requested_by=asked))
    with pytest.raises(StoreError, match="asked for in one's own name"):
        await bot.create(a_spec(datetime.now(UTC), requested_by=Person(id="ana", via="kubectl")))
    own = await bo.create(a_spec(datetime.now(UTC), requested_by=Person(id="bo", via="kubectl")))
    assert guarded.status(own.name) == {"phase": "Pending"}


WRITERS = {
    "nobody": (),
    "relay": ("relay",),
    "approve": ("approve",),
    "execute": ("execute",),
}
MAY = {
    Phase.REJECTED: {"relay", "approve"},
    Phase.CANCELLED: {"relay", "approve"},
    Phase.EXPIRED: {"relay", "approve", "execute"},
    Phase.STALE: {"relay", "approve", "execute"},
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.APPROVED, Phase.RUNNING])
async def test_each_step_is_taken_by_whom_it_is_for(guarded: Guarded, phase: Phase, writer: str) -> None:
    store = await guarded.stray("cleo", *WRITERS[writer])
    by = {"id": "U0BO", "via": "slack"} if writer == "relay" else {"id": "cleo", "via": "kubectl"}
    for to in TRANSITIONS[phase] - {Phase.APPROVED}:
        request = await guarded.request(phase)
        history = guarded.status(request.name).get("history", [])
        event = {"phase": str(to), "at": "2026-11-22T22:05:00Z", "by": by}
        allowed = writer in MAY.get(to, {"execute"})
        try:
            await forge(store, request, phase=str(to), history=[*history, event])
        except StoreError as error:
            assert not allowed, (to, error.sentence)
            assert "people decide on a fix (the verbs approve and relay), and its fixer does it" in error.sentence
        else:
            assert allowed, to
            assert guarded.status(request.name)["phase"] == to


async def test_a_nodes_fixer_does_what_is_asked_for_its_own_node(guarded: Guarded) -> None:
    node_a = await guarded.fixer_of_node_a()
    nowhere = await guarded.store(NODE, token="of no pod")
    own, other, cluster = [await guarded.request(Phase.APPROVED, node=node) for node in ("node-a", "node-b", "")]
    assert (await node_a.transition(own.name, Phase.RUNNING)).status.phase is Phase.RUNNING
    for request in (other, cluster):
        with pytest.raises(StoreError, match="its fixer does it"):
            await node_a.transition(request.name, Phase.RUNNING)
    with pytest.raises(StoreError, match="its fixer does it"):
        await nowhere.transition(own.name, Phase.VERIFIED)
    await Audit(node_a, "fixer of node-a").follow(await node_a.get(own.name))


@pytest.mark.parametrize(
    ("verb", "status", "words"),
    [
        ("execute", {"preview": ["rm -rf /"]}, "said by the fixer"),
        ("execute", {"waits": {"text": "nothing to see"}}, "said by the fixer"),
        ("relay", {"slack": {"channel": "C9", "thread": "9.0", "ts": "9.9"}}, "said by the bot"),
        ("relay", {"secondLook": {"verdict": "healthy", "text": "all well", "at": "now"}}, "said by the bot"),
    ],
)
async def test_what_a_card_shows_is_said_by_who_knows_it(
    guarded: Guarded, verb: str, status: dict[str, Any], words: str
) -> None:
    request = await guarded.request()
    for other in VERBS - {verb, "execute-on-own-node"}:
        with pytest.raises(StoreError, match=words):
            await forge(await guarded.stray("mallory", other), request, **status)
    await forge(await guarded.stray("rightly", verb), request, **status)
    assert guarded.status(request.name).items() >= status.items()


@pytest.mark.parametrize(
    "status",
    [
        {"message": "all well"},
        {"approvedAt": "2026-11-22T22:04:00Z"},
        {"startedAt": "2026-11-22T22:04:00Z"},
        {"finishedAt": "2026-11-22T22:04:00Z"},
        {"phase": "Cancelled", "startedAt": "2026-11-22T22:04:00Z"},
    ],
)
async def test_when_and_why_is_said_with_its_step(guarded: Guarded, status: dict[str, Any]) -> None:
    """Or somebody without any right would tell another story, or use up what is allowed within an hour."""
    request = await guarded.request()
    for store in (await guarded.bot(), await guarded.bo()):
        with pytest.raises(StoreError, match="said with that step"):
            await forge(store, request, **status)


async def test_a_request_begins_its_life_as_pending_whatever_it_comes_with(guarded: Guarded) -> None:
    mallory = await guarded.stray("mallory")
    request = FixRequest(name="fx-22222222", spec=a_spec(datetime.now(UTC), requested_by=await mallory.whoami()))
    body = document(request, NAMESPACE)
    body["status"] = {"phase": "Approved", "approvedBy": SLACK_BO}
    at = {"group": GROUP, "version": "v1alpha1", "namespace": NAMESPACE, "plural": PLURAL}
    await mallory._call(mallory._objects.create_namespaced_custom_object(**at, body=body))
    made = await mallory.get(request.name)
    assert (made.status.phase, made.status.approved_by) == (Phase.PENDING, None)


async def test_a_fixer_counts_and_turns_no_switch(guarded: Guarded) -> None:
    """It must write where the switch is, or limits could not be kept; a node that somebody took over has its token."""
    fixer = await guarded.fixer_of_node_a()
    first, second = [await guarded.request(Phase.APPROVED) for _ in range(2)]
    assert await Switch(fixer).begin(first) == "", "also while nobody has written into it"
    await Switch(await guarded.bot()).turn(False, BO, "freeze")
    assert "switched off" in await Switch(fixer).begin(second)
    with pytest.raises(StoreError, match=r"nor sets their limits \(ValidatingAdmissionPolicy calico-why-switch\)\.$"):
        await Switch(fixer).turn(True, BO)
    assert not (await Switch(fixer).read()).enabled
    await Switch(await guarded.bo()).turn(True, BO)  # who has the right to the ConfigMap, and is no fixer
    assert await Switch(fixer).begin(second) == ""
    found = guarded.cluster.objects.get("configmaps", NAME, NAMESPACE)
    core = client.CoreV1Api(fixer.api)
    for data in ({}, {**found["data"], "perNodePerHour": "1000"}, {"begun": ""}):
        with pytest.raises(ApiException, match="nor sets their limits"):
            await core.replace_namespaced_config_map(NAME, NAMESPACE, {**found, "data": data})
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"a": "b"}}
    stray = await guarded.stray("fixer", "execute-on-own-node", extra=ON_NODE_A)
    await client.CoreV1Api(stray.api).create_namespaced_config_map(NAMESPACE, other)


async def test_what_happened_is_not_taken_out_nor_told_twice(guarded: Guarded) -> None:
    running = await guarded.request(Phase.RUNNING)
    fixer = await guarded.fixer()
    history = guarded.status(running.name)["history"]
    event = {"phase": "Verified", "at": "2026-11-22T22:05:00Z"}
    another = {"phase": "Rejected", "at": "2026-11-22T22:05:00Z", "by": {"id": named(CLUSTER_FIXER), "via": "kubectl"}}
    for history_told in (history[1:], [event], [*history, event, another]):
        with pytest.raises(StoreError, match="what happened to a fix stays written"):
            await forge(fixer, running, phase="Verified", history=history_told)
    await forge(fixer, running, phase="Verified", history=[*history, event])


async def test_nothing_is_told_but_the_step_that_is_taken(guarded: Guarded) -> None:
    """Who may write the status, as every asker may, tells nothing beside it: a fixer that reads "approved" by nobody as
    the last word would not do what somebody approved."""
    approved = await guarded.request(Phase.APPROVED)
    history = guarded.status(approved.name)["history"]
    cleo, bo = await guarded.cleo(), await guarded.bo()
    for writer, phase in ((cleo, "Approved"), (cleo, "Cancelled"), (bo, "Rejected"), (await guarded.bot(), "Running")):
        told = [*history, {"phase": phase, "at": "2026-11-22T22:05:00Z"}]
        with pytest.raises(StoreError, match="is the step that is taken"):
            await forge(writer, approved, history=told)
    told = [*history, {"phase": "Approved", "at": "2026-11-22T22:05:00Z"}]
    with pytest.raises(StoreError, match="is the step that is taken"):
        await forge(bo, approved, phase="Cancelled", history=told)
    assert guarded.status(approved.name)["history"] == history


async def test_the_trail_is_written_by_who_serves_it_and_by_others_of_themselves(guarded: Guarded) -> None:
    cleo = await guarded.cleo()
    of_cleo, of_bo = [Record(event="refused", by=Person(id=user, via="kubectl")) for user in ("cleo", "bo")]
    assert await Audit(cleo, "terminal").append(of_cleo)
    for writer, record in (("terminal", of_bo), ("bot", of_cleo), ("terminal", Record(event="published"))):
        with pytest.raises(AuditError, match="by others of themselves"):
            await Audit(cleo, writer).append(record)
    assert await Audit(await guarded.bo(), "terminal").append(Record(event="Approved", by=BO))


async def test_neither_the_trail_nor_a_request_that_is_open_is_deleted(guarded: Guarded) -> None:
    request = await guarded.request()
    bot = await guarded.bot()
    await Audit(bot, "bot").follow(request)
    at = {"group": GROUP, "version": "v1alpha1", "namespace": NAMESPACE}
    masters = await guarded.store(ADMINISTRATOR)
    delete = masters._objects.delete_namespaced_custom_object
    with pytest.raises(StoreError, match="the audit trail is kept"):
        await masters._call(delete(**at, plural="auditrecords", name="a-0000000001"))
    with pytest.raises(StoreError, match="cancel it instead"):
        await masters._call(delete(**at, plural=PLURAL, name=request.name))
    await bot.transition(request.name, Phase.CANCELLED, by=ANA)
    await masters._call(delete(**at, plural=PLURAL, name=request.name))
    namespace = guarded.cluster.objects.get("namespaces", NAMESPACE)
    guarded.cluster.objects.update_status({**namespace, "status": {"phase": "Terminating"}})
    await masters._call(delete(**at, plural="auditrecords", name="a-0000000001"))


async def test_a_denial_is_told_in_the_policys_own_words(guarded: Guarded) -> None:
    request = await guarded.request()
    mallory = await guarded.stray("mallory")
    with pytest.raises(StoreError) as denied:
        await forge(mallory, request, phase="Rejected")
    assert denied.value.sentence == (
        "The API server does not allow it: people decide on a fix (the verbs approve and relay), and its fixer does it "
        "(the verb execute) (ValidatingAdmissionPolicy calico-why-fixrequests)."
    )


def test_each_policy_is_bound_and_fails_closed() -> None:
    found = list(yaml.safe_load_all(POLICIES.read_text()))
    policies = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [one["spec"] for one in found if one["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert sorted(one["policyName"] for one in bindings) == sorted(policies)
    assert all(one["validationActions"] == ["Deny"] for one in bindings)
    assert all(one["failurePolicy"] == "Fail" for one in policies.values())
