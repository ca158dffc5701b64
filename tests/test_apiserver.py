"""The server over real sockets, and as the official client uses it; without these only its parts would be known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import yaml
from kubernetes.aio import client as kube
from kubernetes.aio import config, watch

from lab.apiserver import ApiServer, Call, Object, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.certificate import make
from lab.apiserver.kubeconfig import kubeconfig
from lab.apiserver.requests import Target, parse_path

READER = User(
    "reader",
    groups=("system:authenticated",),
    denied=frozenset({("list", "", "pods"), ("*", "calico-why.io", "*"), ("patch", "", "nodes/status")}),
    grants=None,
)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
WIDGET = "/apis/example.org/v1/namespaces/default/widgets"
CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.node"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"node": {"type": "string"}}},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def widget(name: str, node: str = "a", **labels: str) -> Object:
    return {
        "apiVersion": "example.org/v1",
        "kind": "Widget",
        "metadata": {"name": name, "labels": labels},
        "spec": {"node": node},
    }


def event(about: str, **more: str) -> Object:
    """about: the namespace of what it is about."""
    return {"metadata": {"name": "e"}, "involvedObject": {"kind": "ConfigMap", "name": "c", "namespace": about}, **more}


# What an event has where it says `eventTime`.
NEW = {
    "eventTime": "2026-01-02T03:04:05.000000Z",
    "reportingComponent": "example.org/it",
    "reportingInstance": "one",
    "action": "Tell",
    "reason": "Told",
}


class Client:
    """Asks the server and remembers nothing."""

    def __init__(self, server: ApiServer, url: str, session: aiohttp.ClientSession) -> None:
        self.server, self.url, self.session = server, url, session

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str = "admin", **headers: str
    ) -> tuple[int, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            text = await response.text()
            return response.status, json.loads(text) if text and response.content_type == "application/json" else text

    async def events(self, path: str, count: int) -> list[tuple[str, Object]]:
        """The first `count` events of a watch."""
        found: list[tuple[str, Object]] = []
        headers = {"Authorization": "Bearer admin"}
        async with asyncio.timeout(10), self.session.get(self.url + path, headers=headers) as response:
            async for line in response.content:
                event = json.loads(line)
                found.append((event["type"], event["object"]))
                if len(found) == count:
                    break
        return found


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    store = Store()
    install(store)
    store.create(CRD)
    server = ApiServer(store, {"admin": User("admin", grants=None), "reader": READER})
    url = await server.start()
    async with aiohttp.ClientSession() as session:
        yield Client(server, url, session)
    await server.stop()


# ---- paths


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/namespaces/shop/pods/cart/status", Target("", "v1", "pods", "shop", "cart", "status")),
        ("/api/v1/namespaces/shop", Target("", "v1", "namespaces", "shop", "shop")),
        ("/api/v1/namespaces/shop/status", Target("", "v1", "namespaces", "shop", "shop", "status")),
        ("/api/v1/namespaces", Target("", "v1", "namespaces")),
        ("/apis/g.io/v1/ippools/a", Target("g.io", "v1", "ippools", "", "a")),
        ("/apis/g.io/v1/namespaces/n/widgets", Target("g.io", "v1", "widgets", "n")),
        ("/apis/g.io/v1", None),
        ("/version", None),
    ],
)
def test_paths(path: str, target: Target | None) -> None:
    assert parse_path(path) == target


# ---- who may what


async def test_denials_are_worded_like_rbac(client: Client) -> None:
    status, body = await client.ask("GET", "/api/v1/namespaces/shop/pods", token="reader")
    assert (status, body["reason"]) == (403, "Forbidden")
    assert body["message"] == (
        'pods is forbidden: User "reader" cannot list resource "pods" in API group "" in the namespace "shop"'
    )
    status, body = await client.ask("PATCH", "/api/v1/nodes/a/status", {}, token="reader")
    assert body["message"] == (
        'nodes "a" is forbidden: User "reader" cannot patch resource "nodes/status" in API group "" '
        "at the cluster scope"
    )
    assert (await client.ask("GET", "/apis/calico-why.io/v1alpha1/fixrequests", token="reader"))[0] == 403
    assert (await client.ask("GET", "/api/v1/nodes", token="reader"))[0] == 200
    assert (await client.ask("GET", "/apis", token=""))[0] == 403
    assert (await client.ask("GET", "/version", token=""))[0] == 200


async def test_calls_are_remembered(client: Client) -> None:
    await client.ask("GET", "/api/v1/namespaces/shop/pods", token="reader")
    await client.ask("PATCH", f"{WIDGET}/w/status", {}, Content_Type="application/merge-patch+json")
    await client.ask("GET", "/api/v1/nodes?watch=true&timeoutSeconds=1&resourceVersion=1")
    await client.ask("DELETE", WIDGET)
    assert list(client.server.calls) == [
        Call("list", "", "pods", "", "reader", "shop", ""),
        Call("patch", "example.org", "widgets", "status", "admin", "default", "w"),
        Call("watch", "", "nodes", "", "admin", "", ""),
        Call("deletecollection", "example.org", "widgets", "", "admin", "default", ""),
    ]


async def test_reviews_know_the_denials(client: Client) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for verb, allowed in (("list", False), ("get", True)):
        asked = {"spec": {"resourceAttributes": {"verb": verb, "resource": "pods"}}}
        status, body = await client.ask("POST", path, asked, token="reader")
        assert (status, body["status"]) == (201, {"allowed": allowed})
    status, body = await client.ask(
        "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "reader"}}
    )
    assert body["status"]["user"]["username"] == "reader"
    assert (await client.ask("GET", path))[0] == 405


# ---- lists


async def test_pages_show_one_moment(client: Client) -> None:
    for number in range(5):
        assert (await client.ask("POST", WIDGET, widget(f"w{number}")))[0] == 201
    _, first = await client.ask("GET", f"{WIDGET}?limit=2")
    await client.ask("DELETE", f"{WIDGET}/w3")
    await client.ask("POST", WIDGET, widget("w9"))
    names = [item["metadata"]["name"] for item in first["items"]]
    page = first
    while page["metadata"]["continue"]:
        _, page = await client.ask("GET", f"{WIDGET}?limit=2&continue={page['metadata']['continue']}")
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == ["w0", "w1", "w2", "w3", "w4"]
    status, body = await client.ask("GET", f"{WIDGET}?limit=2&continue=nonsense")
    assert (status, body["reason"]) == (400, "BadRequest")


async def test_selectable_fields_and_metadata_only(client: Client) -> None:
    await client.ask("POST", WIDGET, widget("w0", node="a"))
    await client.ask("POST", WIDGET, widget("w1", node="b"))
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    _, body = await client.ask("GET", f"{WIDGET}?fieldSelector=spec.node%3Db", Accept=accept)
    assert body["kind"] == "PartialObjectMetadataList"
    assert [item["metadata"]["name"] for item in body["items"]] == ["w1"]
    assert "spec" not in body["items"][0]
    status, body = await client.ask("GET", WIDGET, Accept="application/cbor")
    assert (status, body["reason"]) == (406, "NotAcceptable")


async def test_every_kind_has_a_table(client: Client) -> None:
    samples: dict[str, Object] = {
        "services": {"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80}]}},
        "endpointslices": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.1.1"]}], "ports": [{"port": 80}]},
        "networkpolicies": {"spec": {"podSelector": {"matchLabels": {"app": "db"}}}},
        "daemonsets": {"spec": {"template": {"spec": {"nodeSelector": {"os": "linux"}}}}},
        "events": {"involvedObject": {"kind": "Pod", "name": "p"}, "reason": "Killed", "message": "m "},
        "validatingadmissionpolicies": {"spec": {"matchConstraints": {}, "validations": [{"expression": "true"}]}},
        "validatingadmissionpolicybindings": {"spec": {"policyName": "sample", "validationActions": ["Deny"]}},
        "certificatesigningrequests": {"spec": {"signerName": "example.com/sample"}},
    }
    store = client.server.store
    for resource in store.registry:
        obj = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": "sample"},
            **samples.get(resource.plural, {}),
        }
        if resource.plural != "customresourcedefinitions":
            store.create(obj)
        base = f"/apis/{resource.api_version}" if resource.group else "/api/v1"
        status, body = await client.ask("GET", f"{base}/{resource.plural}?includeObject=Object", Accept=TABLE)
        assert (status, body["kind"]) == (200, "Table")
        for row in body["rows"]:
            assert len(row["cells"]) == len(body["columnDefinitions"]), resource.plural
            assert row["object"]["metadata"]["name"] == row["cells"][0]


# ---- writes


async def test_unknown_fields_of_metadata_and_dry_runs(client: Client) -> None:
    odd = widget("w0")
    odd["metadata"]["colour"] = "red"
    status, body = await client.ask("POST", f"{WIDGET}?fieldValidation=Strict", odd)
    assert (status, body["message"]) == (
        400,
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "metadata.colour"',
    )
    assert (await client.ask("POST", f"{WIDGET}?dryRun=All", widget("w0")))[0] == 201
    assert (await client.ask("GET", f"{WIDGET}/w0"))[0] == 404
    await client.ask("POST", WIDGET, widget("w0"))
    assert (await client.ask("DELETE", f"{WIDGET}/w0?dryRun=All"))[0] == 200
    assert (await client.ask("GET", f"{WIDGET}/w0"))[0] == 200
    assert (await client.ask("POST", f"{WIDGET}?dryRun=Some", widget("w1")))[0] == 422


async def test_status_in_a_create_is_not_taken(client: Client) -> None:
    _, created = await client.ask("POST", WIDGET, {**widget("w0"), "status": {"phase": "Approved"}})
    assert "status" not in created
    _, pod = await client.ask(
        "POST",
        "/api/v1/namespaces/default/pods",
        {
            "metadata": {"name": "p", "uid": "mine", "resourceVersion": ""},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running"},
        },
    )
    assert pod["status"]["phase"] == "Pending"
    assert pod["metadata"]["uid"] != "mine"


async def test_of_many_writers_with_one_version_one_wins(client: Client) -> None:
    _, created = await client.ask("POST", WIDGET, widget("w0"))
    answers = await asyncio.gather(
        *(
            client.ask("PUT", f"{WIDGET}/w0/status", {**created, "status": {"approvedBy": str(number)}})
            for number in range(20)
        )
    )
    assert sorted(status for status, _ in answers) == [200] + [409] * 19
    winner = next(body["status"] for status, body in answers if status == 200)
    assert (await client.ask("GET", f"{WIDGET}/w0"))[1]["status"] == winner


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", WIDGET, {"metadata": {"name": "x", "namespace": "other"}}, 400),
        ("POST", WIDGET, {"apiVersion": "example.org/v2", "metadata": {"name": "x"}}, 400),
        ("POST", WIDGET, {"kind": "Gadget", "metadata": {"name": "x"}}, 400),
        ("POST", WIDGET, {"metadata": {}}, 422),
        ("POST", WIDGET, {"metadata": {"name": "x", "resourceVersion": "5"}}, 400),
        ("POST", WIDGET, {"metadata": {"name": "x", "labels": {"a": "b c"}}}, 422),
        ("POST", WIDGET, {"metadata": {"name": "x" * 254}}, 422),
        ("POST", WIDGET, [], 400),
        ("POST", WIDGET, b"{]", 400),
        ("POST", "/apis/example.org/v1/widgets", {"metadata": {"name": "x"}}, 400),
        ("POST", "/api/v1/namespaces", {"metadata": {"name": "a.b"}}, 422),
        ("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}}, 422),
        ("POST", "/api/v1/namespaces/default/events", event("other"), 422),
        ("POST", "/api/v1/namespaces/default/events", event("other", **NEW), 201),
        ("POST", "/api/v1/namespaces/kube-node-lease/events", event(""), 422),
        ("POST", "/api/v1/namespaces/kube-node-lease/events", event("", **NEW), 422),
        ("POST", "/api/v1/namespaces/default/events", event("default", **NEW | {"action": ""}), 422),
        ("POST", "/api/v1/namespaces/default/events", event("default", **NEW | {"reportingInstance": ""}), 422),
        ("POST", "/api/v1/namespaces/default/events", event("default"), 201),
        ("POST", "/api/v1/namespaces/default/events", event(""), 201),
        ("PUT", WIDGET, {}, 405),
        ("GET", f"{WIDGET}?limit=x", None, 400),
        ("GET", f"{WIDGET}?resourceVersion=x", None, 400),
        ("GET", f"{WIDGET}/w/scale", None, 404),
        ("GET", "/api/v1/namespaces/default/nodes", None, 404),
        ("GET", "/openapi/v2", None, 404),
        ("GET", "/apis/nothing.io", None, 404),
        ("POST", "/apis", {}, 404),
        ("OPTIONS", f"{WIDGET}/w", None, 405),
    ],
)
async def test_bad_requests(client: Client, method: str, path: str, body: Any, status: int) -> None:
    found, answer = await client.ask(method, path, body)
    assert found == status, answer
    assert "Internal error" not in str(answer)


async def test_a_crd_that_cannot_be_kept_is_refused(client: Client) -> None:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    wrong = json.loads(json.dumps(CRD).replace("widgets", "gadgets"))
    wrong["metadata"]["name"] = "other.example.org"
    status, body = await client.ask("POST", path, wrong)
    assert status == 422
    assert "metadata.name" in body["message"]
    wrong["metadata"]["name"] = "gadgets.example.org"
    wrong["spec"]["versions"].append({**wrong["spec"]["versions"][0], "name": "v2"})
    assert (await client.ask("POST", path, wrong))[0] == 500
    status, body = await client.ask("POST", path, {"metadata": {"name": "x.y"}, "spec": {}})
    assert (status, len(body["details"]["causes"])) == (422, 5)
    assert client.server.store.registry.by_kind("example.org/v1", "Gadget") is None


async def test_yaml_and_apply(client: Client) -> None:
    text = yaml.safe_dump(widget("w0")).encode()
    assert (await client.ask("POST", WIDGET, text, Content_Type="application/yaml"))[0] == 201
    path = f"{WIDGET}/w1?fieldManager=me"
    kind = "application/apply-patch+yaml"
    status, body = await client.ask("PATCH", path, yaml.safe_dump(widget("w1")).encode(), Content_Type=kind)
    assert status == 201
    status, again = await client.ask("PATCH", path, yaml.safe_dump(widget("w1")).encode(), Content_Type=kind)
    assert (status, again) == (200, body)
    assert (await client.ask("PATCH", f"{WIDGET}/w1", b"{}", Content_Type=kind))[0] == 422


# ---- watches


async def test_a_watch_follows_a_selection(client: Client) -> None:
    await client.ask("POST", WIDGET, widget("w0", app="x"))
    version = client.server.store.version
    merge = {"Content_Type": "application/merge-patch+json"}
    await client.ask("PATCH", f"{WIDGET}/w0", {"metadata": {"labels": {"app": "y"}}}, **merge)
    await client.ask("PATCH", f"{WIDGET}/w0", {"metadata": {"labels": {"app": "x", "z": "1"}}}, **merge)
    await client.ask("PATCH", f"{WIDGET}/w0", {"metadata": {"labels": {"z": "2"}}}, **merge)
    await client.ask("POST", WIDGET, widget("w1", app="other"))
    await client.ask("DELETE", f"{WIDGET}/w1")
    await client.ask("DELETE", f"{WIDGET}/w0")
    events = await client.events(f"{WIDGET}?watch=1&labelSelector=app%3Dx&resourceVersion={version}", 4)
    assert [kind for kind, _ in events] == ["DELETED", "ADDED", "MODIFIED", "DELETED"]


async def test_a_watch_of_one_object(client: Client) -> None:
    await client.ask("POST", WIDGET, widget("w0"))
    await client.ask("POST", WIDGET, widget("w1"))
    events = await client.events(f"{WIDGET}/w1?watch=1", 1)
    assert [(kind, obj["metadata"]["name"]) for kind, obj in events] == [("ADDED", "w1")]


async def test_initial_events_and_bookmarks(client: Client) -> None:
    await client.ask("POST", WIDGET, widget("w0"))
    query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    events = await client.events(f"{WIDGET}?{query}", 2)
    assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK"]
    metadata = events[1][1]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert metadata["resourceVersion"] == str(client.server.store.version)


async def test_a_watch_ends_in_time_and_with_the_server(client: Client) -> None:
    events = await client.events(f"{WIDGET}?watch=1&timeoutSeconds=1", 1)
    assert events == []
    await client.ask("POST", WIDGET, widget("w0"))
    headers = {"Authorization": "Bearer admin"}
    async with asyncio.timeout(10), client.session.get(f"{client.url}{WIDGET}?watch=1", headers=headers) as response:
        assert json.loads(await response.content.readline())["type"] == "ADDED"
        await client.server.stop()
        assert await response.content.readline() == b""


# ---- the official client


@pytest.fixture
async def official(client: Client) -> AsyncIterator[kube.ApiClient]:
    configuration = kube.Configuration()
    loader = yaml.safe_load(kubeconfig(client.url, "admin"))
    await config.load_kube_config_from_dict(loader, client_configuration=configuration)
    async with kube.ApiClient(configuration) as api:
        yield api


async def test_the_official_client_lives_with_it(client: Client, official: kube.ApiClient) -> None:
    core = kube.CoreV1Api(official)
    await core.create_namespace(kube.V1Namespace(metadata=kube.V1ObjectMeta(name="shop")))
    container = kube.V1Container(name="c", image="i:1", ports=[kube.V1ContainerPort(container_port=80)])
    wanted = kube.V1Pod(
        metadata=kube.V1ObjectMeta(name="cart", labels={"app": "cart"}),
        spec=kube.V1PodSpec(containers=[container], node_name="node-a"),
    )
    created = await core.create_namespaced_pod("shop", wanted)
    assert created.spec.containers[0].image_pull_policy == "IfNotPresent"
    await core.patch_namespaced_pod_status("cart", "shop", {"status": {"podIP": "10.244.0.9", "phase": "Running"}})
    found = await core.list_pod_for_all_namespaces(field_selector="status.podIP=10.244.0.9")
    assert [pod.metadata.name for pod in found.items] == ["cart"]
    with pytest.raises(kube.ApiException) as caught:
        await core.read_namespaced_pod("absent", "shop")
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (404, "NotFound")
    await core.delete_namespaced_pod("cart", "shop")
    assert (await core.list_namespaced_pod("shop")).items == []


async def test_the_official_client_uses_custom_resources(official: kube.ApiClient) -> None:
    custom = kube.CustomObjectsApi(official)
    place = ("example.org", "v1", "default", "widgets")
    created = await custom.create_namespaced_custom_object(*place, widget("w0"))
    created["status"] = {"phase": "Pending"}
    stored = await custom.replace_namespaced_custom_object_status(*place, "w0", created)
    assert stored["status"] == {"phase": "Pending"}
    with pytest.raises(kube.ApiException) as caught:
        await custom.replace_namespaced_custom_object_status(*place, "w0", {**created, "status": {"phase": "x"}})
    assert caught.value.status == 409
    options = kube.V1DeleteOptions(preconditions=kube.V1Preconditions(uid="other"))
    with pytest.raises(kube.ApiException) as caught:
        await custom.delete_namespaced_custom_object(*place, "w0", body=options)
    assert caught.value.status == 409


async def test_the_official_client_watches(client: Client, official: kube.ApiClient) -> None:
    custom = kube.CustomObjectsApi(official)
    store = client.server.store
    store.create(widget("w0"))
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(10), watch.Watch() as stream:
        async for event in stream.stream(
            custom.list_namespaced_custom_object, "example.org", "v1", "default", "widgets"
        ):
            seen.append((event["type"], event["object"]["metadata"]["name"]))
            if len(seen) == 1:
                store.create(widget("w1"))
            if len(seen) == 2:
                store.delete("widgets", "w0")
            if len(seen) == 3:
                break
    assert seen == [("ADDED", "w0"), ("ADDED", "w1"), ("DELETED", "w0")]


async def test_tls_with_its_own_authority() -> None:
    certificate = make()
    server = ApiServer(Store(), {"admin": User("admin", grants=None)})
    url = await server.start(tls=certificate.context)
    assert url.startswith("https://")
    configuration = kube.Configuration()
    loader = yaml.safe_load(kubeconfig(url, "admin", certificate.authority))
    await config.load_kube_config_from_dict(loader, client_configuration=configuration)
    async with kube.ApiClient(configuration) as api:
        names = [entry.metadata.name for entry in (await kube.CoreV1Api(api).list_namespace()).items]
    assert "default" in names
    await server.stop()
