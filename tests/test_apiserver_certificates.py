"""CertificateSigningRequests in the lab are what they are in Kubernetes: what a signer rests on is held to there."""

from __future__ import annotations

import base64
import datetime
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from certificates import making
from lab.apiserver import ApiServer, Store, User
from lab.apiserver.rbac import Grant

GROUP = "certificates.k8s.io"
PATH = f"/apis/{GROUP}/v1/certificatesigningrequests"
NODE = {"authentication.kubernetes.io/node-name": ("node-a",)}
ASKS = (Grant("create", GROUP, "certificatesigningrequests"), Grant("get", GROUP, "certificatesigningrequests"))
WRITES = tuple(
    Grant("update", GROUP, f"certificatesigningrequests/{subresource}") for subresource in ("approval", "status")
)
SIGNS = tuple(Grant(verb, GROUP, "signers", names=("calico-why.io/probe",)) for verb in ("approve", "sign"))
USERS = {
    "node": User("node", ("nodes",), uid="u-1", extra=NODE, grants=ASKS),
    "signer": User("signer", (), grants=(*WRITES, *SIGNS)),
    "all": User(
        "all", (), grants=(*WRITES, *(Grant(one.verb, GROUP, "signers", names=("calico-why.io/*",)) for one in SIGNS))
    ),
    "writer": User("writer", (), grants=WRITES),
    "admin": User("admin", grants=None),
}


class Api:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def __call__(self, user: str, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {user}"}
        async with self._session.request(method, self._url + PATH + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    server = ApiServer(Store(), USERS)
    url = await server.start()
    async with aiohttp.ClientSession() as session:
        yield Api(session, url)
    await server.stop()


def request(name: str = "one", **spec: Any) -> dict[str, Any]:
    asked = {
        "request": base64.b64encode(making.request("node-a").public).decode(),
        "signerName": "calico-why.io/probe",
        "usages": ["digital signature", "server auth"],
    }
    return {"metadata": {"name": name}, "spec": asked | spec}


def approved(it: dict[str, Any], kind: str = "Approved") -> dict[str, Any]:
    condition = {"type": kind, "status": "True", "reason": "r", "message": "m"}
    return {**it, "status": {"conditions": [condition]}}


def certified(it: dict[str, Any]) -> dict[str, Any]:
    day = datetime.timedelta(days=1)
    text = base64.b64encode(making.probe(making.authority(day), "node-a", day).public).decode()
    return {**it, "status": {**it.get("status", {}), "certificate": text}}


async def test_who_asked_is_said_by_the_server(api: Api) -> None:
    lie = {"username": "system:node:node-b", "uid": "0", "groups": ["system:masters"], "extra": {"a": ["b"]}}
    status, made = await api("node", "POST", body={**request(**lie), "status": approved({})["status"]})
    assert status == 201
    spec = made["spec"]
    assert (spec["username"], spec["uid"], spec["groups"]) == ("node", "u-1", ["nodes"])
    assert spec["extra"] == {key: list(value) for key, value in NODE.items()}
    assert not made.get("status"), "nobody is born approved"


async def test_what_was_asked_stays_as_it_was(api: Api) -> None:
    _, made = await api("node", "POST", body=request())
    changed = {**made, "spec": {**made["spec"], "username": "other"}, "status": approved({})["status"]}
    status, after = await api("admin", "PUT", "/one", changed)
    assert (status, after["spec"], after.get("status")) == (200, made["spec"], made.get("status"))
    for endpoint in ("approval", "status"):
        status, after = await api("admin", "PUT", f"/one/{endpoint}", {**after, "spec": changed["spec"]})
        assert (status, after["spec"]) == (200, made["spec"])


async def test_only_who_may_for_that_signer_approves_and_signs(api: Api) -> None:
    for number, user in enumerate(("signer", "all", "writer", "node")):
        name = f"of-{number}"
        _, made = await api("node", "POST", body=request(name))
        status, told = await api(user, "PUT", f"/{name}/approval", approved(made))
        if user in ("writer", "node"):
            assert status == 403
            assert user == "node" or 'not permitted to approve requests with signerName "calico-why' in told["message"]
            status, told = await api(user, "PUT", f"/{name}/status", certified(made))
            assert status == 403
            assert user == "node" or "not permitted to sign" in told["message"]
            continue
        assert status == 200
        assert [one["type"] for one in told["status"]["conditions"]] == ["Approved"]
        assert told["status"]["conditions"][0]["lastUpdateTime"]
        status, told = await api(user, "PUT", f"/{name}/status", certified(told))
        assert status == 200 and told["status"]["certificate"]
        foreign = request(f"{name}-foreign", signerName="kubernetes.io/kube-apiserver-client")
        _, made = await api("node", "POST", body=foreign)
        assert (await api(user, "PUT", f"/{name}-foreign/approval", approved(made)))[0] == 403


async def test_each_endpoint_writes_its_own_part_and_nothing_is_taken_back(api: Api) -> None:
    _, made = await api("node", "POST", body=request())
    status, told = await api("signer", "PUT", "/one/status", approved(made))
    assert status == 422 and 'may not add a condition of type "Approved"' in told["message"]
    _, found = await api("signer", "PUT", "/one/approval", certified(approved(made)))
    assert "certificate" not in found["status"]
    status, told = await api("signer", "PUT", "/one/approval", {**found, "status": {"conditions": []}})
    assert status == 422 and 'may not remove a condition of type "Approved"' in told["message"]
    both = [*found["status"]["conditions"], *approved({}, "Denied")["status"]["conditions"]]
    status, told = await api("signer", "PUT", "/one/approval", {**found, "status": {"conditions": both}})
    assert status == 422 and "mutually exclusive" in told["message"]
    nonsense = {**found, "status": {**found["status"], "certificate": base64.b64encode(b"no").decode()}}
    assert (await api("signer", "PUT", "/one/status", nonsense))[0] == 422
    _, found = await api("signer", "PUT", "/one/status", certified(found))
    status, told = await api("signer", "PUT", "/one/status", certified(found))
    assert status == 422 and "may not modify existing certificate" in told["message"]
    status, _ = await api(
        "signer", "PUT", "/one/status", {**found, "metadata": {**found["metadata"], "resourceVersion": "1"}}
    )
    assert status == 409


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"request": "bm8="}, "spec.request"),
        ({"usages": []}, "spec.usages"),
        ({"usages": ["flying"]}, "spec.usages[0]"),
        ({"signerName": "probe"}, "spec.signerName"),
        ({"expirationSeconds": 599}, "spec.expirationSeconds"),
    ],
)
async def test_what_is_no_request_is_refused(api: Api, spec: dict[str, Any], field: str) -> None:
    status, told = await api("node", "POST", body=request(**spec))
    assert (status, told["details"]["causes"][0]["field"]) == (422, field)


async def test_a_signer_lists_its_own(api: Api) -> None:
    await api("node", "POST", body=request("ours"))
    await api("node", "POST", body=request("theirs", signerName="example.com/other"))
    _, told = await api("admin", "GET", "?fieldSelector=spec.signerName%3Dcalico-why.io%2Fprobe")
    assert [one["metadata"]["name"] for one in told["items"]] == ["ours"]
