"""RBAC in the lab decides as in Kubernetes; else rights that do not suffice on a cluster would look as if they did."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixes.calico import Calico
from fixes.store import StoreError
from lab.apiserver import User, rbac
from lab.apiserver.calico_definitions import GROUPS, Group, install
from lab.apiserver.rbac import Grant
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster

BOT = rbac.account("bot", "here")


def role(kind: str, name: str, *rules: dict[str, object], namespace: str = "") -> dict[str, object]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": metadata, "rules": list(rules)}


def binding(kind: str, role_kind: str, name: str, subject: dict[str, str], namespace: str = "") -> dict[str, object]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": kind, "metadata": metadata, "roleRef": {"kind": role_kind, "name": name}, "subjects": [subject]}


PODS = {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get"]}
ONE_MAP = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "create"]}
ACCOUNT = {"kind": "ServiceAccount", "name": "bot", "namespace": "here"}


def test_a_cluster_role_counts_everywhere_or_where_it_is_bound() -> None:
    everywhere = rbac.grants(
        [role("ClusterRole", "r", PODS), binding("ClusterRoleBinding", "ClusterRole", "r", ACCOUNT)], BOT
    )
    here = rbac.grants(
        [role("ClusterRole", "r", PODS), binding("RoleBinding", "ClusterRole", "r", ACCOUNT, "here")], BOT
    )
    assert any(one.covers("get", "", "pods", "there", "x") for one in everywhere)
    assert not any(one.covers("get", "", "pods", "there", "x") for one in here)
    assert any(one.covers("get", "", "pods/log", "here", "x") for one in here)
    assert not any(one.covers("list", "", "pods", "here") for one in here)
    assert not any(one.covers("get", "", "pods/status", "here", "x") for one in here)


def test_a_name_that_is_granted_does_not_count_where_none_is_known_yet() -> None:
    found = rbac.grants(
        [role("Role", "r", ONE_MAP, namespace="here"), binding("RoleBinding", "Role", "r", ACCOUNT, "here")], BOT
    )
    assert any(one.covers("get", "", "configmaps", "here", "a") for one in found)
    assert not any(one.covers("get", "", "configmaps", "here", "b") for one in found)
    assert not any(one.covers("create", "", "configmaps", "here") for one in found)


def test_a_role_of_another_namespace_or_subject_gives_nothing() -> None:
    elsewhere = [role("Role", "r", PODS, namespace="there"), binding("RoleBinding", "Role", "r", ACCOUNT, "here")]
    with pytest.raises(KeyError):
        rbac.grants(elsewhere, BOT)
    for_a_group = binding("ClusterRoleBinding", "ClusterRole", "r", {"kind": "Group", "name": "oncall"})
    manifests = [role("ClusterRole", "r", PODS), for_a_group]
    assert Grant("get", "", "pods") not in rbac.grants(manifests, "ana")
    assert Grant("get", "", "pods") in rbac.grants(manifests, "ana", ["oncall"])
    assert {one.resource for one in rbac.grants(manifests, "ana")} == {resource for _, resource in rbac.BASIC}


async def test_the_server_refuses_what_is_not_granted_in_the_words_of_the_real_one(tmp_path: Path) -> None:
    granted = (Grant("list", "calico-why.io", "fixrequests", "calico-why"),)
    async with fix_cluster(tmp_path) as cluster, cluster.store("eve", grants=granted) as store:
        assert await store.all() == []
        with pytest.raises(Exception, match='User "eve" cannot get resource "fixrequests"') as error:
            await store.get("fx-abcdefgh")
        assert "at the cluster scope" not in str(error.value)


async def test_who_is_granted_nothing_may_nothing(tmp_path: Path) -> None:
    """Or whoever forgets to say what somebody may would have an administrator."""
    made = User("eve")
    async with fix_cluster(tmp_path) as cluster, cluster.store("eve", grants=made.grants) as store:
        with pytest.raises(StoreError, match='User "eve" cannot list resource "fixrequests"'):
            await store.all()


NATIVE = GROUPS[1]
POLICY = "networkpolicies"
WRITES = tuple(Grant(verb, group, POLICY, "shop") for verb in ("create", "update", "delete") for group in GROUPS)
SEEN = Grant("get", NATIVE, "tiers")
ALL_OF_A = tuple(Grant(one.verb, NATIVE, f"tier.{POLICY}", "shop", ("a.*",)) for one in WRITES)


@pytest.mark.parametrize(
    ("group", "grants", "tier", "status"),
    [
        (NATIVE, WRITES, "a", 403),
        (NATIVE, (*WRITES, *ALL_OF_A), "a", 403),  # without the right to get the tier
        (NATIVE, (*WRITES, SEEN, *ALL_OF_A), "a", 201),
        (NATIVE, (*WRITES, SEEN, *ALL_OF_A), "", 403),  # the tier default
        (NATIVE, (*WRITES, SEEN, Grant("create", NATIVE, f"tier.{POLICY}", "shop", ("web",))), "a", 201),
        (NATIVE, (SEEN, *ALL_OF_A), "a", 403),
        (GROUPS[0], WRITES, "a", 201),  # who keeps objects there asks nobody
    ],
)
async def test_who_writes_a_policy_needs_the_right_on_its_tier_where_calico_asks_for_it(
    tmp_path: Path, group: Group, grants: tuple[Grant, ...], tier: str, status: int
) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store("eve", grants=grants) as store:
        install(cluster.objects, group)
        calico = Calico(store.api, environment={})
        version = await calico.group()
        path = f"/apis/{version}/namespaces/shop/{POLICY}"
        cluster.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        policy = {"apiVersion": version, "kind": "NetworkPolicy", "metadata": {"name": "web"}, "spec": {"tier": tier}}
        found, answer = await calico._send("POST", path, body=policy)
        assert found == status, answer
        if status == 201:
            return
        assert cluster.objects.list(POLICY, "shop") == []
        if WRITES[0] in grants:
            named = f'"eve" cannot create {POLICY}.{NATIVE} in tier "{tier or "default"}" and namespace "shop"'
            assert named in answer["message"] and ("(user cannot get tier)" in answer["message"]) == (
                SEEN not in grants
            )


READS = tuple(Grant(verb, group, POLICY) for verb in ("get", "list") for group in GROUPS)
TIER_READS = tuple(Grant(verb, NATIVE, f"tier.{POLICY}") for verb in ("get", "list"))
IN_A = tuple(one._replace(names=("a.*",)) for one in TIER_READS)


@pytest.mark.parametrize(
    ("group", "grants", "listed", "got"),
    [
        (NATIVE, READS, 403, 403),
        (NATIVE, (*READS, *TIER_READS), 403, 403),  # without the right to get the tier
        (NATIVE, (*READS, SEEN), 403, 403),
        (NATIVE, (*READS, SEEN, *TIER_READS), 200, 200),
        (NATIVE, (*READS, SEEN, *IN_A), 403, 200),  # a list has what is in other tiers, too
        (GROUPS[0], READS, 200, 200),
    ],
)
async def test_who_reads_a_policy_needs_the_right_on_its_tier_where_calico_may_ask_for_it(
    tmp_path: Path, group: Group, grants: tuple[Grant, ...], listed: int, got: int
) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store("eve", grants=grants) as store:
        install(cluster.objects, group)
        cluster.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        calico = Calico(store.api, environment={})
        version = await calico.group()
        metadata = {"name": "web", "namespace": "shop"}
        cluster.objects.create(
            {"apiVersion": version, "kind": "NetworkPolicy", "metadata": metadata, "spec": {"tier": "a"}}
        )
        of_all, of_shop = f"/apis/{version}/{POLICY}", f"/apis/{version}/namespaces/shop/{POLICY}"
        assert [(await calico._send("GET", path))[0] for path in (of_all, of_shop)] == [listed, listed]
        assert (await calico._send("GET", f"{of_shop}/web"))[0] == got
        assert (await calico._send("GET", f"{of_shop}/other"))[0] == 404


async def test_a_policy_is_taken_out_of_a_tier_by_who_may_write_into_both(tmp_path: Path) -> None:
    async with (
        fix_cluster(tmp_path) as cluster,
        cluster.store("eve", grants=(*WRITES, SEEN, *ALL_OF_A)) as store,
        cluster.store(ADMINISTRATOR) as admin,
    ):
        install(cluster.objects, NATIVE)
        cluster.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        calico, everything = [Calico(one.api, environment={}) for one in (store, admin)]
        path = f"/apis/{await calico.group()}/namespaces/shop/{POLICY}"
        metadata = {"name": "web", "namespace": "shop"}
        kind = {"apiVersion": await calico.group(), "kind": "NetworkPolicy", "metadata": metadata}
        status, made = await everything._send("POST", path, body={**kind, "spec": {"tier": "b"}})
        assert status == 201
        taken = {**made, "spec": {"tier": "a"}}
        status, answer = await calico._send("PUT", f"{path}/web", body=taken)
        assert status == 403 and 'in tier "b"' in answer["message"]
        assert (await calico._send("DELETE", f"{path}/web"))[0] == 403
        status, made = await everything._send("PUT", f"{path}/web", body=taken)
        assert status == 200 and (await calico._send("DELETE", f"{path}/web"))[0] == 200
