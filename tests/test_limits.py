"""What stops a fix right before it is done: the switch, the limits, a trail that takes nothing, RBAC that says no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixes import configuration
from fixes.approvers import RBAC, Approvers, parse
from fixes.audit import Audit, Record, verify
from fixes.executor import Executor
from fixes.kind import TooSoon
from fixes.limits import NAME, Limits, Switch, limits
from fixes.request import LIFETIME, FixRequest, Person, Phase, Spec, Waits
from fixes.store import FixStore, StoreError
from tests.deployed import BOT, NODE
from tests.fix_cluster import NAMESPACE, FixCluster, fix_cluster
from tests.fix_samples import BO, NOW, a_spec

TRAIL = "auditrecords.calico-why.io"


class Doing:
    """Hands that only count."""

    name = "node-a"

    def __init__(self) -> None:
        self.done = 0

    def mine(self, request: FixRequest) -> bool:
        return True

    async def preview(self, spec: Spec) -> list[str]:
        return ["ip neigh replace"]

    async def holds(self, spec: Spec) -> None: ...

    async def execute(self, spec: Spec) -> None:
        self.done += 1

    async def verify(self, spec: Spec) -> tuple[bool, str]:
        return True, "It is right now."


class Scene:
    """The bot's store, by which people ask, decide and switch, and the fixer's."""

    def __init__(self, cluster: FixCluster, store: FixStore, fixing: FixStore) -> None:
        self.cluster, self.store, self.fixing, self.hands = cluster, store, fixing, Doing()
        self.now = NOW
        store.now = fixing.now = lambda: self.now
        self.switch = Switch(store)

    async def handled(self, by: Person = BO, approvers: Approvers | None = None, **spec: str) -> FixRequest:
        """A new request, approved by that person, and what the fixer made of it."""
        request = await self.store.create(a_spec(self.now, **spec))
        await self.store.transition(request.name, Phase.APPROVED, by=by)
        return await self.looked_at(request.name, approvers)

    async def looked_at(self, name: str, approvers: Approvers | None = None) -> FixRequest:
        """What the fixer makes of it now."""
        try:
            return await Executor(self.hands, self.fixing, approvers or Approvers(frozenset({"U0BO"}))).handle(name)
        except TooSoon:
            return await self.store.get(name)

    def configure(self, **data: str) -> None:
        found = self.cluster.objects.get("configmaps", NAME, NAMESPACE)
        self.cluster.objects.update({**found, "data": data})


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT) as store, cluster.store(NODE) as fixing:
        yield Scene(cluster, store, fixing)


async def test_switched_off_nothing_is_done_until_it_is_on_again(scene: Scene) -> None:
    assert await scene.switch.read() == Limits()
    off = await scene.switch.turn(False, BO, "change freeze")
    assert off.off() == "fixes are switched off by U0BO at 2026-11-22T22:04:00Z: change freeze"
    held = await scene.handled()
    assert (held.status.phase, held.status.waits, scene.hands.done) == (Phase.APPROVED, Waits(text=off.off()), 0)
    assert not held.status.started_at
    again = await scene.looked_at(held.name)
    assert again.resource_version == held.resource_version, "each look at the switch would be a write, for ever"
    assert (await scene.switch.turn(True, BO)).off() == ""
    done = await scene.looked_at(held.name)
    assert (done.status.phase, done.status.waits, scene.hands.done) == (Phase.VERIFIED, None, 1)


async def test_what_was_held_back_until_its_end_says_by_what(scene: Scene) -> None:
    await scene.switch.turn(False, BO, "change freeze")
    held = await scene.handled()
    scene.now += LIFETIME
    ended = await scene.looked_at(held.name)
    assert (ended.status.phase, scene.hands.done) == (Phase.EXPIRED, 0)
    assert ended.status.message == (
        "It was approved, and not done by 2026-11-22T22:19:00Z: fixes are switched off by U0BO at "
        "2026-11-22T22:04:00Z: change freeze."
    )
    alone = await scene.store.create(a_spec(scene.now))
    await scene.store.transition(alone.name, Phase.APPROVED, by=BO)
    scene.now += LIFETIME
    without_fixer = await scene.store.transition(alone.name, Phase.EXPIRED)
    assert "It was approved, and nobody began it by" in without_fixer.status.message


async def test_the_switch_keeps_the_limits_of_the_config_map(scene: Scene) -> None:
    scene.configure(perNodePerHour="3", perKindPerHour="0", note="ours")
    await scene.switch.turn(False, BO)
    found = await scene.switch.read()
    assert (found.enabled, found.per_node_per_hour, found.per_kind_per_hour) == (False, 3, 0)
    assert scene.cluster.objects.get("configmaps", NAME, NAMESPACE)["data"]["note"] == "ours"


@pytest.mark.parametrize("data", [{"enabled": "yes"}, {"perNodePerHour": "many"}, {"perKindPerHour": "-1"}])
async def test_a_switch_nobody_can_read_stops_everything(scene: Scene, data: dict[str, str]) -> None:
    with pytest.raises(StoreError, match="nothing is done"):
        limits(data)
    scene.configure(**data)
    held = await scene.handled()
    assert (held.status.phase, scene.hands.done) == (Phase.APPROVED, 0)
    assert held.status.waits is not None and "in the ConfigMap calico-why-fixes" in held.status.waits.text


@pytest.mark.parametrize("verb", ["get", "update"])
async def test_who_may_not_read_the_switch_or_count_does_nothing(scene: Scene, verb: str) -> None:
    denied = frozenset({(verb, "", "configmaps")})
    async with scene.cluster.store(NODE, now=lambda: NOW, denied=denied) as store:
        request = await scene.store.create(a_spec())
        await scene.store.transition(request.name, Phase.APPROVED, by=BO)
        with pytest.raises(TooSoon, match="Grant get and update"):
            await Executor(scene.hands, store, Approvers(frozenset({"U0BO"}))).handle(request.name)
    assert scene.hands.done == 0


async def test_who_deletes_the_switch_does_not_turn_it_on(scene: Scene) -> None:
    """No account has the right to make it again: the fixers would be let off with what it says by default."""
    await scene.switch.turn(False, BO)
    scene.cluster.objects.delete("configmaps", NAME, NAMESPACE)
    held = await scene.handled()
    assert (held.status.phase, scene.hands.done) == (Phase.APPROVED, 0)
    said = f"kubectl --namespace {NAMESPACE} create configmap {NAME}"
    with pytest.raises(StoreError, match=said):
        await scene.switch.read()
    with pytest.raises(StoreError, match=said):
        await scene.switch.turn(True, BO)
    assert scene.cluster.objects.list("configmaps", NAMESPACE) == []


async def test_no_more_than_so_many_an_hour_on_a_node_and_of_a_kind(scene: Scene) -> None:
    scene.configure(perNodePerHour="2", perKindPerHour="3")
    phases = [(await scene.handled()).status.phase for _ in range(2)]
    third = await scene.handled()
    assert [*phases, third.status.phase] == [Phase.VERIFIED, Phase.VERIFIED, Phase.APPROVED]
    assert third.status.waits is not None
    assert "2 fixes were begun on node-a within an hour, and 2 are allowed" in third.status.waits.text
    assert (await scene.handled(node="node-b")).status.phase is Phase.VERIFIED
    of_kind = await scene.handled(node="node-c")
    assert of_kind.status.waits is not None
    assert "3 fixes of the kind replace_neighbor were begun within an hour" in of_kind.status.waits.text
    assert (await scene.handled(node="node-c", kind="flush_neighbor")).status.phase is Phase.VERIFIED
    assert scene.hands.done == 4
    scene.now += timedelta(hours=1)
    assert (await scene.handled()).status.phase is Phase.VERIFIED
    counted = scene.cluster.objects.get("configmaps", NAME, NAMESPACE)["data"]["begun"]
    assert len(counted.splitlines()) == 1, "what was begun an hour ago is counted no more"


async def test_of_fixers_that_begin_at_once_no_more_than_allowed_do(scene: Scene) -> None:
    """Each node has its own fixer, and none sees what another one is about to begin."""
    scene.configure(perKindPerHour="3")
    requests = [await scene.store.create(a_spec(node=f"node-{number}")) for number in range(12)]
    for request in requests:
        await scene.store.transition(request.name, Phase.APPROVED, by=BO)
    after = await asyncio.gather(*(scene.looked_at(request.name) for request in requests))
    phases = [one.status.phase for one in after]
    assert (phases.count(Phase.VERIFIED), phases.count(Phase.APPROVED), scene.hands.done) == (3, 9, 3)


async def test_what_was_counted_and_cancelled_uses_up_nothing(scene: Scene) -> None:
    scene.configure(perNodePerHour="1", begun="fx-22222222 set_link_up - 2026-11-22T22:03:00Z")
    counted, counting = await scene.store.create(a_spec()), Switch(scene.fixing)
    await scene.store.transition(counted.name, Phase.APPROVED, by=BO)
    assert await counting.begin(counted) == ""
    assert (await scene.handled()).status.phase is Phase.APPROVED
    assert await counting.begin(counted) == "", "whoever died in between counts once"
    await scene.store.transition(counted.name, Phase.CANCELLED, by=BO)
    assert (await scene.handled()).status.phase is Phase.VERIFIED
    scene.configure(begun="by hand")
    with pytest.raises(StoreError, match="has the line 'by hand', which nobody can mean"):
        await counting.begin(counted)


async def test_who_switches_fixes_off_while_one_is_about_to_begin_stops_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = scene.fixing.all

    async def off_meanwhile() -> list[FixRequest]:
        monkeypatch.undo()
        await scene.switch.turn(False, BO)
        return await everything()

    monkeypatch.setattr(scene.fixing, "all", off_meanwhile)
    held = await scene.handled()
    assert (held.status.phase, scene.hands.done) == (Phase.APPROVED, 0)
    assert held.status.waits is not None and "switched off by U0BO" in held.status.waits.text


async def test_what_is_done_stands_in_the_trail_before_it_is_done(scene: Scene) -> None:
    done = await scene.handled()
    lines = await Audit(scene.store, "reader").read(done.name)
    assert [line.spec["event"] for line in lines] == ["Pending", "Approved", "Running", "Verified"]
    assert {line.spec["writer"] for line in lines} == {"fixer of node-a"}
    scene.cluster.objects.delete("customresourcedefinitions.apiextensions.k8s.io", TRAIL)
    after = await scene.handled()
    assert after.status.phase is Phase.FAILED
    assert "Nothing was done: This cluster has no audit trail" in after.status.message
    assert scene.hands.done == 1


async def test_nothing_is_done_of_which_the_trail_tells_something_else(scene: Scene) -> None:
    """Whoever may write records could take the place of the one that says who approved, before it is written."""
    request = await scene.store.create(a_spec())
    mallory = Person(id="mallory", via="kubectl")
    forged = Record(event="Approved", key=f"{request.name}/0", request=request.name, by=mallory)
    assert await Audit(scene.store, "terminal").append(forged)
    await scene.store.transition(request.name, Phase.APPROVED, by=BO)
    after = await scene.looked_at(request.name)
    assert (after.status.phase, scene.hands.done) == (Phase.FAILED, 0)
    assert "Nothing was done: The audit trail tells of" in after.status.message
    lines = await Audit(scene.store, "reader").read()
    assert [line.spec["event"] for line in lines] == ["Approved", "Pending", "Running", "Failed"]
    assert any("says something else than the request" in one for one in verify(lines, [after]))


async def test_an_approval_by_rbac_is_asked_about_again(scene: Scene) -> None:
    by_rbac = Person(id="bo", name="bo", via="kubectl", entry=RBAC, groups=("netops",))
    both = Approvers(rbac=True, people=frozenset({"U0BO=bo"}))
    scene.cluster.kubeconfig("bo")
    assert (await scene.handled(by_rbac, both)).status.phase is Phase.VERIFIED
    without = await scene.handled(by_rbac, Approvers(frozenset({"U0BO"}), people=both.people))
    assert "does not count here (CALICO_WHY_RBAC_APPROVAL)" in without.status.message
    posing = await scene.handled(Person(id="bo", via="slack", entry=RBAC), both)
    assert "not on the list of approvers" in posing.status.message
    denied = frozenset({("approve", "calico-why.io", "fixrequests")})
    scene.cluster.kubeconfig("bo", denied=denied)
    withdrawn = await scene.handled(by_rbac, both)
    assert "RBAC does not let bo approve" in withdrawn.status.message
    assert (withdrawn.status.phase, scene.hands.done) == (Phase.FAILED, 1)


@pytest.mark.parametrize(
    ("entry", "kind", "cluster", "counts"),
    [
        ("U0BO", "release_ip", "prod", True),
        ("release_ip:U0BO", "release_ip", "prod", True),
        ("release_ip:U0BO", "set_sysctl", "prod", False),
        ("@prod:U0BO", "set_sysctl", "prod", True),
        ("@prod:U0BO", "set_sysctl", "test", False),
        ("@prod:U0BO", "set_sysctl", "", False),
        ("release_ip@arn:aws:eks:eu-1:1:cluster/prod:U0BO", "release_ip", "arn:aws:eks:eu-1:1:cluster/prod", True),
        ("release_ip@prod:U0BO", "release_ip", "test", False),
        ("bo", "release_ip", "prod", False),
        ("release_ip:", "release_ip", "prod", False),
    ],
)
def test_an_entry_counts_for_its_kind_and_cluster(entry: str, kind: str, cluster: str, counts: bool) -> None:
    approvers = Approvers(frozenset({entry}), cluster=cluster)
    assert (approvers.own_entry(Person(id="U0BO", via="slack"), kind) == entry) is counts
    _, wrong = configuration.look({"CALICO_WHY_APPROVERS": entry})
    assert [repr(entry) in line for line in wrong] == ([] if parse(entry) else [True])


def test_a_kubernetes_user_is_no_kind() -> None:
    person = Person(id="system:serviceaccount:a:b", via="kubectl")
    for entry in ("kubernetes:system:serviceaccount:a:b", "set_sysctl@prod:kubernetes:system:serviceaccount:a:b"):
        assert Approvers(frozenset({entry}), cluster="prod").own_entry(person, "set_sysctl") == entry
    assert Approvers(frozenset({"kubernetes:U0BO"})).own_entry(Person(id="U0BO", via="slack"), "set_sysctl") == ""


ANA, BO_ALONE = Person(id="U0ANA", via="slack"), Person(id="bo", via="kubectl")


@pytest.mark.parametrize(
    ("people", "asked", "decides", "same"),
    [
        ((), ANA, Person(id="U0BO", via="slack"), False),
        ((), ANA, BO_ALONE, None),
        ((), BO_ALONE, ANA, None),
        ((), BO_ALONE, Person(id="ana", via="kubectl"), False),
        ((), BO_ALONE, BO_ALONE, True),
        (("U0BO=bo",), ANA, BO_ALONE, False),
        (("U0BO=bo",), BO_ALONE, ANA, False),
        (("U0ANA=bo",), ANA, BO_ALONE, True),
        (("U0ANA=kubernetes:bo",), BO_ALONE, ANA, True),
        (("U0ANA=ana",), ANA, BO_ALONE, None),  # she may have his account, too
        (("U0ANA=bo", "U0ANA=ana"), BO_ALONE, Person(id="ana", via="kubectl"), True),
        (("U0ANA=ana", "W0ANA=ana"), ANA, Person(id="W0ANA", via="slack"), True),
        (("bo=U0ANA",), ANA, BO_ALONE, None),
    ],
)
async def test_two_names_of_one_person_are_no_second_person(
    scene: Scene, people: tuple[str, ...], asked: Person, decides: Person, same: bool | None
) -> None:
    approvers = Approvers(
        frozenset({"U0ANA", "W0ANA", "U0BO", "kubernetes:bo", "kubernetes:ana"}), people=frozenset(people)
    )
    after = await scene.handled(decides, approvers, requested_by=asked)
    words = {True: "somebody else has to approve", None: "(CALICO_WHY_PEOPLE)", False: "It is right now."}
    assert words[same] in after.status.message
    assert (after.status.phase is Phase.VERIFIED) == (scene.hands.done == 1) == (same is False)
    _, wrong = configuration.look({"CALICO_WHY_PEOPLE": ",".join(people)})
    assert ["bo=U0ANA" in line for line in wrong] == [True] * ("bo=U0ANA" in people)


async def test_an_approval_that_the_history_does_not_tell_is_none(scene: Scene) -> None:
    """Or something would be done of which the audit trail does not say who approved it."""
    request = await scene.store.create(a_spec())
    written = scene.cluster.objects.get("fixrequests.calico-why.io", request.name, NAMESPACE)
    written["status"] = {"phase": "Approved", "approvedBy": {"id": "U0BO", "via": "slack", "entry": "U0BO"}}
    scene.cluster.objects.update_status(written)
    after = await scene.looked_at(request.name)
    assert (after.status.phase, scene.hands.done) == (Phase.FAILED, 0)
    assert "its history does not say that U0BO approved it" in after.status.message


async def test_a_group_for_one_kind_lets_no_other_be_done(scene: Scene) -> None:
    approvers = Approvers(frozenset({"release_ip:S0NETOPS"}))
    by = Person(id="U0BO", via="slack", entry="release_ip:S0NETOPS")
    refused = await scene.handled(by, approvers)
    words = "not on the list of approvers (CALICO_WHY_APPROVERS) of this fixer for replace_neighbor"
    assert words in refused.status.message
    assert (await scene.handled(by, approvers, kind="release_ip")).status.phase is Phase.VERIFIED
