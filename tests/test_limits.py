"""What stops a fix right before it is done: the switch, the limits, a trail that takes nothing, RBAC that says no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixes.approvers import RBAC, Approvers, parse
from fixes.audit import Audit
from fixes.executor import Executor
from fixes.limits import NAME, Limits, Switch, limits
from fixes.request import FixRequest, Person, Phase, Spec
from fixes.store import FixStore, StoreError
from lab.apiserver import User
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

    async def holds(self, spec: Spec) -> None: ...

    async def execute(self, spec: Spec) -> None:
        self.done += 1

    async def verify(self, spec: Spec) -> tuple[bool, str]:
        return True, "It is right now."


class Scene:
    def __init__(self, cluster: FixCluster, store: FixStore) -> None:
        self.cluster, self.store, self.hands = cluster, store, Doing()
        self.now = NOW
        store.now = lambda: self.now
        self.switch = Switch(store)

    async def handled(self, by: Person = BO, approvers: Approvers | None = None, **spec: str) -> FixRequest:
        """A new request, approved by that person, and what the fixer made of it."""
        request = await self.store.create(a_spec(self.now, **spec))
        await self.store.transition(request.name, Phase.APPROVED, by=by)
        return await Executor(self.hands, self.store, approvers or Approvers(frozenset({"U0BO"}))).handle(request.name)

    def configure(self, **data: str) -> None:
        metadata = {"name": NAME, "namespace": NAMESPACE}
        self.cluster.objects.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with fix_cluster(tmp_path) as cluster, cluster.store() as store:
        yield Scene(cluster, store)


async def test_switched_off_nothing_is_done_until_it_is_on_again(scene: Scene) -> None:
    assert await scene.switch.read() == Limits()
    off = await scene.switch.turn(False, BO, "change freeze")
    assert off.off() == "fixes are switched off by U0BO at 2026-11-22T22:04:00Z: change freeze"
    after = await scene.handled()
    assert (after.status.phase, scene.hands.done) == (Phase.FAILED, 0)
    assert "Nothing was done: fixes are switched off by U0BO" in after.status.message
    assert not after.status.started_at
    assert (await scene.switch.turn(True, BO)).off() == ""
    assert (await scene.handled()).status.phase is Phase.VERIFIED
    assert scene.hands.done == 1


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
    with pytest.raises(StoreError):
        await scene.handled()
    assert scene.hands.done == 0
    assert (await scene.store.all())[0].status.phase is Phase.APPROVED, "it is tried again, and expires"


async def test_who_may_not_read_the_switch_does_nothing(scene: Scene) -> None:
    denied = frozenset({("get", "", "configmaps")})
    async with scene.cluster.store("fixer", now=lambda: NOW, denied=denied) as store:
        request = await scene.store.create(a_spec())
        await scene.store.transition(request.name, Phase.APPROVED, by=BO)
        with pytest.raises(StoreError, match="Grant get, create and update"):
            await Executor(scene.hands, store, Approvers(frozenset({"U0BO"}))).handle(request.name)
    assert scene.hands.done == 0


async def test_no_more_than_so_many_an_hour_on_a_node_and_of_a_kind(scene: Scene) -> None:
    scene.configure(perNodePerHour="2", perKindPerHour="3")
    phases = [(await scene.handled()).status.phase for _ in range(2)]
    third = await scene.handled()
    assert [*phases, third.status.phase] == [Phase.VERIFIED, Phase.VERIFIED, Phase.FAILED]
    assert "2 fixes were begun on node-a within an hour, and 2 are allowed" in third.status.message
    assert (await scene.handled(node="node-b")).status.phase is Phase.VERIFIED
    of_kind = await scene.handled(node="node-c")
    assert "3 fixes of the kind replace_neighbor were begun within an hour" in of_kind.status.message
    assert (await scene.handled(node="node-c", kind="flush_neighbor")).status.phase is Phase.VERIFIED
    assert scene.hands.done == 4
    scene.now += timedelta(hours=1)
    assert (await scene.handled()).status.phase is Phase.VERIFIED


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


async def test_an_approval_by_rbac_is_asked_about_again(scene: Scene) -> None:
    by_rbac = Person(id="bo", name="bo", via="kubectl", entry=RBAC, groups=("netops",))
    both = Approvers(rbac=True)
    scene.cluster.kubeconfig("bo")
    assert (await scene.handled(by_rbac, both)).status.phase is Phase.VERIFIED
    without = await scene.handled(by_rbac, Approvers(frozenset({"U0BO"})))
    assert "does not count here (CALICO_WHY_RBAC_APPROVAL)" in without.status.message
    posing = await scene.handled(Person(id="bo", via="slack", entry=RBAC), both)
    assert "not on the list of approvers" in posing.status.message
    denied = frozenset({("approve", "calico-why.io", "fixrequests")})
    scene.cluster.server.tokens["token-bo"] = User("bo", denied=denied)  # type: ignore[index]  # a dict, as it was given
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
    assert approvers.unreadable == (() if parse(entry) else (entry,))


def test_a_kubernetes_user_is_no_kind() -> None:
    person = Person(id="system:serviceaccount:a:b", via="kubectl")
    for entry in ("kubernetes:system:serviceaccount:a:b", "set_sysctl@prod:kubernetes:system:serviceaccount:a:b"):
        assert Approvers(frozenset({entry}), cluster="prod").own_entry(person, "set_sysctl") == entry
    assert Approvers(frozenset({"kubernetes:U0BO"})).own_entry(Person(id="U0BO", via="slack"), "set_sysctl") == ""


async def test_a_group_for_one_kind_lets_no_other_be_done(scene: Scene) -> None:
    approvers = Approvers(frozenset({"release_ip:S0NETOPS"}))
    by = Person(id="U0BO", via="slack", entry="release_ip:S0NETOPS")
    refused = await scene.handled(by, approvers)
    words = "not on the list of approvers (CALICO_WHY_APPROVERS) of this fixer for replace_neighbor"
    assert words in refused.status.message
    assert (await scene.handled(by, approvers, kind="release_ip")).status.phase is Phase.VERIFIED
