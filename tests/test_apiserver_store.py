"""The store itself; without these a lost write or a missed event would look like a fault of the network."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.apiserver import ApiError, Object, Store
from lab.apiserver.calico_definitions import GROUPS, Group, definitions, install


def node(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def pod(name: str, namespace: str = "default") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
        "status": {"phase": "Running", "podIP": "10.244.0.7"},
    }


def refused(call: Any, *arguments: Any, **named: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        call(*arguments, **named)
    return caught.value


def test_a_write_needs_the_version_it_read() -> None:
    store = Store()
    store.create(node("a"))
    mine, theirs = store.get("nodes", "a"), store.get("nodes", "a")
    theirs["metadata"]["labels"] = {"by": "them"}
    store.update(theirs)
    mine["metadata"]["labels"] = {"by": "me"}
    error = refused(store.update, mine)
    assert (error.status, error.reason) == (409, "Conflict")
    del mine["metadata"]["resourceVersion"]
    assert store.update(mine)["metadata"]["labels"] == {"by": "me"}


def test_nobodys_later_edit_reaches_the_store() -> None:
    store = Store()
    given_object = node("a", zone="1")
    returned = store.create(given_object)
    given_object["metadata"]["labels"]["zone"] = returned["metadata"]["labels"]["zone"] = "2"
    store.get("nodes", "a")["metadata"]["labels"]["zone"] = "3"
    assert store.get("nodes", "a")["metadata"]["labels"] == {"zone": "1"}


def test_status_has_its_own_door() -> None:
    store = Store()
    store.create(pod("p"))
    changed = store.get("pods", "p")
    changed["status"]["podIP"] = "10.244.0.8"
    changed["metadata"]["labels"] = {"x": "y"}
    assert store.update(changed)["status"]["podIP"] == "10.244.0.7"
    changed = store.get("pods", "p")
    changed["status"]["podIP"] = "10.244.0.8"
    changed["spec"]["nodeName"] = "elsewhere"
    stored = store.update_status(changed)
    assert stored["status"]["podIP"] == "10.244.0.8"
    assert "nodeName" not in stored["spec"]
    assert stored["metadata"]["generation"] == 1


def test_a_write_that_changes_nothing_is_none() -> None:
    store = Store()
    store.create(node("a"))
    before = store.version
    heard: list[object] = []
    store.subscribe(heard.append)
    store.update(store.get("nodes", "a"))
    assert store.version == before
    assert heard == []


def test_refusals() -> None:
    store = Store()
    store.create(node("a"))
    assert refused(store.create, node("a")).reason == "AlreadyExists"
    assert refused(store.get, "nodes", "b").message == 'nodes "b" not found'
    assert refused(store.get, "gadgets", "b").status == 404
    assert refused(store.create, pod("p", "nowhere")).message == 'namespaces "nowhere" not found'
    assert refused(store.create, {"apiVersion": "v9", "kind": "Pod", "metadata": {"name": "p"}}).status == 404
    assert "UID in the precondition" in refused(store.delete, "nodes", "a", uid="x").message
    assert "might have been modified" in refused(store.delete, "nodes", "a", resource_version="1").message
    assert store.get("nodes", "a")


def test_finalizers_hold_an_object() -> None:
    store = Store()
    held = node("a")
    held["metadata"]["finalizers"] = ["example.org/hold"]
    store.create(held)
    marked = store.delete("nodes", "a")
    assert marked["metadata"]["deletionTimestamp"]
    assert store.delete("nodes", "a")["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
    marked["metadata"]["finalizers"] = []
    store.update(marked)
    assert refused(store.get, "nodes", "a").status == 404


def test_a_namespace_takes_its_objects_with_it() -> None:
    store = Store()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    store.create(pod("p", "shop"))
    store.create(pod("p"))
    seen: list[tuple[str, str]] = []
    store.subscribe(lambda event: seen.append((event.type, event.object["kind"])))
    store.delete("namespaces", "shop")
    assert seen == [("MODIFIED", "Namespace"), ("DELETED", "Pod"), ("DELETED", "Namespace")]
    assert [entry["metadata"]["namespace"] for entry in store.list("pods")] == ["default"]


def test_a_pod_goes_in_two_steps() -> None:
    store = Store()
    store.create(pod("p"))
    seen: list[tuple[str, bool]] = []
    store.subscribe(lambda event: seen.append((event.type, "deletionTimestamp" in event.object["metadata"])), "pods")
    store.delete("pods", "p")
    assert seen == [("MODIFIED", True), ("DELETED", True)]


@pytest.mark.parametrize("group", GROUPS)
def test_calico_kinds_come_and_go(group: Group) -> None:
    store = Store()
    assert refused(store.list, "ippools").status == 404
    install(store, group)
    assert len(definitions(group)) == 23
    version = {"crd.projectcalico.org": "v1", "projectcalico.org": "v3"}[group]
    store.create({"apiVersion": f"{group}/{version}", "kind": "IPPool", "metadata": {"name": "p"}, "spec": {}})
    assert store.list("ippools")[0]["apiVersion"] == f"{group}/{version}"
    # A bare plural means the built-in kind where there is one.
    assert store.resource("networkpolicies").group == "networking.k8s.io"
    assert store.resource(f"networkpolicies.{group}").group == group
    store.delete("customresourcedefinitions", f"ippools.{group}")
    assert refused(store.list, "ippools").status == 404


async def test_a_watch_has_what_was_and_what_comes() -> None:
    store = Store()
    store.create(node("a"))
    with store.watch("nodes") as watch:
        store.create(node("b"))
        store.delete("nodes", "a")
        assert [(kind, obj["metadata"]["name"]) for kind, obj in [await anext(watch) for _ in range(3)]] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
            ("DELETED", "a"),
        ]
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    since = store.get("nodes", "b")["metadata"]["resourceVersion"]
    with store.watch("nodes", since=since) as later:
        assert (await anext(later))[0] == "DELETED"


def test_forgotten_history_is_said_to_be_forgotten() -> None:
    store = Store(history=5)
    for number in range(10):
        store.create(node(f"n{number}"))
    error = refused(store.watch, "nodes", since=store.version - 6)
    assert (error.status, error.reason) == (410, "Expired")
    assert len(store.history(store.resource("nodes"), store.version - 5)) == 5


Step = tuple[str, int, str]
STEPS = st.lists(st.tuples(st.sampled_from(["create", "update", "delete"]), st.integers(0, 4), st.text(max_size=2)))


@settings(deadline=None)
@given(STEPS)
def test_events_tell_the_whole_story(steps: list[Step]) -> None:
    """Whoever follows the events from any version on has what a list shows, and a snapshot shows what was."""
    store = Store()
    resource = store.resource("configmaps")
    lists: dict[int, list[Object]] = {store.version: []}
    for action, number, text in steps:
        name = f"c{number}"
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}
        exists = store.find(resource, name) is not None
        if action == "create" and not exists:
            store.create(obj)
        elif action == "update" and exists:
            store.update(obj)
        elif action == "delete" and exists:
            store.delete("configmaps", name)
        lists[store.version] = store.list("configmaps")
    for version, objects in lists.items():
        assert store.snapshot(resource, version) == objects
        followed = {entry["metadata"]["name"]: entry for entry in objects}
        for event in store.history(resource, version):
            if event.type == "DELETED":
                del followed[event.object["metadata"]["name"]]
            else:
                followed[event.object["metadata"]["name"]] = event.object
        assert [followed[name] for name in sorted(followed)] == store.list("configmaps")
