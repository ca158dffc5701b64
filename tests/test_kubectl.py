"""kubectl against the lab's API server; without these a person's own tool might not work on the lab."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.apiserver import ApiServer, Object, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.certificate import make
from lab.apiserver.kubeconfig import kubeconfig

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")

CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Count", "type": "integer", "jsonPath": ".spec.count"},
                    {"name": "Node", "type": "string", "jsonPath": ".spec.node", "priority": 1},
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "description": "What the widget is to be.",
                                "properties": {
                                    "node": {
                                        "type": "string",
                                        "x-kubernetes-validations": [
                                            {"rule": "self == oldSelf", "message": "a widget stays on its node"}
                                        ],
                                    },
                                    "count": {"type": "integer", "minimum": 0},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
WIDGET = """
apiVersion: example.org/v1
kind: Widget
metadata: {name: one, namespace: shop, labels: {app: one}}
spec: {node: node-a, count: 1}
"""
NODE: Object = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-a", "annotations": {"projectcalico.org/IPv4VXLANTunnelAddr": "10.244.174.128"}},
    "status": {
        "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "nodeInfo": {"kubeletVersion": "v1.34.2"},
    },
}
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "cart", "namespace": "shop", "labels": {"app": "cart"}},
    "spec": {"nodeName": "node-a", "containers": [{"name": "c", "image": "i:1"}]},
    "status": {
        "phase": "Running",
        "podIP": "10.244.174.130",
        "podIPs": [{"ip": "10.244.174.130"}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": True, "restartCount": 0, "state": {"running": {}}}],
    },
}


@dataclass
class Kubectl:
    """Runs kubectl as `user`; `store` is what it talks to."""

    store: Store
    directory: Path

    def environment(self, user: str = "admin", editor: str = "") -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.directory),
            "KUBECONFIG": str(self.directory / user),
            "KUBE_EDITOR": editor,
        }

    async def run(
        self, *arguments: str, text: str = "", user: str = "admin", editor: str = "", fails: bool = False
    ) -> str:
        """What it prints, both streams. Fails the test where it succeeds or fails against expectation."""
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *arguments,
            env=self.environment(user, editor),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(text.encode()), 30)
        assert (process.returncode != 0) is fails, printed.decode()
        return printed.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    store = Store()
    install(store)
    store.create(CRD)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    store.create(NODE)
    store.create(POD)
    users = {
        "admin": User("admin", grants=None),
        "reader": User("reader", denied=frozenset({("delete", "*", "*")}), grants=None),
    }
    server = ApiServer(store, users)
    certificate = make()
    url = await server.start(tls=certificate.context)
    for name in users:
        (tmp_path / name).write_text(kubeconfig(url, name, certificate.authority))
    yield Kubectl(store, tmp_path)
    await server.stop()


def lines(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines()]


async def test_get(kubectl: Kubectl) -> None:
    wide = lines(await kubectl.run("get", "pods", "-A", "-o", "wide"))
    assert wide[0][:6] == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert wide[1][:5] == ["shop", "cart", "1/1", "Running", "0"]
    assert wide[1][6:8] == ["10.244.174.130", "node-a"]
    assert lines(await kubectl.run("get", "no"))[1][:2] == ["node-a", "Ready"]
    assert "podIP: 10.244.174.130" in await kubectl.run("get", "pod", "cart", "-n", "shop", "-o", "yaml")
    path = "jsonpath={.items[*].status.podIP}"
    assert await kubectl.run("get", "pods", "-A", "-l", "app=cart", "-o", path) == "10.244.174.130"
    assert lines(await kubectl.run("get", "ippools")) == [["No", "resources", "found"]]
    assert "pod/cart" in await kubectl.run("get", "all", "-n", "shop")


async def test_selectors(kubectl: Kubectl) -> None:
    found = await kubectl.run("get", "pods", "-A", "--field-selector", "spec.nodeName=node-a,status.phase=Running")
    assert "cart" in found
    assert "No resources found" in await kubectl.run("get", "pods", "-A", "--field-selector", "spec.nodeName=node-b")
    refused = await kubectl.run("get", "pods", "--field-selector", "spec.colour=red", fails=True)
    assert "field label not supported: spec.colour" in refused
    assert 'pods "absent" not found' in await kubectl.run("get", "pod", "absent", fails=True)


async def test_describe(kubectl: Kubectl) -> None:
    kubectl.store.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "cart.1", "namespace": "shop"},
            "involvedObject": {
                "kind": "Pod",
                "name": "cart",
                "namespace": "shop",
                "uid": kubectl.store.get("pods", "cart", "shop")["metadata"]["uid"],
            },
            "reason": "FailedCreatePodSandBox",
            "message": "no more addresses",
            "type": "Warning",
        }
    )
    pod = await kubectl.run("describe", "pod", "cart", "-n", "shop")
    assert ["IP:", "10.244.174.130"] in lines(pod)
    assert "no more addresses" in pod
    node = await kubectl.run("describe", "node", "node-a")
    assert "projectcalico.org/IPv4VXLANTunnelAddr: 10.244.174.128" in node
    assert "cart" in node
    await kubectl.run("apply", "-f", "-", text=WIDGET)
    assert ["Count:", "1"] in lines(await kubectl.run("describe", "widget", "one", "-n", "shop"))


async def test_a_custom_resource_from_birth_to_death(kubectl: Kubectl) -> None:
    assert "created" in await kubectl.run("apply", "-f", "-", text=WIDGET)
    assert "unchanged" in await kubectl.run("apply", "-f", "-", text=WIDGET)
    assert "configured" in await kubectl.run("apply", "-f", "-", text=WIDGET.replace("count: 1", "count: 2"))
    assert lines(await kubectl.run("get", "wd", "-n", "shop", "-o", "wide")) == [
        ["NAME", "COUNT", "NODE"],
        ["one", "2", "node-a"],
    ]
    refused = await kubectl.run("apply", "-f", "-", text=WIDGET.replace("node-a", "node-b"), fails=True)
    assert "a widget stays on its node" in refused
    refused = await kubectl.run("apply", "-f", "-", text=WIDGET.replace("count", "colour"), fails=True)
    assert 'unknown field "spec.colour"' in refused
    edited = await kubectl.run("edit", "widget", "one", "-n", "shop", editor="sed -i 's/count: 2/count: 3/'")
    assert "edited" in edited
    stored = kubectl.store.get("widgets", "one", "shop")
    assert (stored["spec"]["count"], stored["metadata"]["generation"]) == (3, 3)
    await kubectl.run(
        "patch", "wd", "one", "-n", "shop", "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "x"}}'
    )
    assert "deleted" in await kubectl.run("delete", "wd", "one", "-n", "shop")
    assert kubectl.store.list("widgets") == []


async def test_server_side_apply(kubectl: Kubectl) -> None:
    arguments = ("apply", "--server-side", "-f", "-")
    assert "serverside-applied" in await kubectl.run(*arguments, text=WIDGET)
    await kubectl.run("label", "wd", "one", "-n", "shop", "by=hand")
    other = ("--field-manager", "other")
    changed = WIDGET.replace("count: 1", "count: 5")
    assert 'conflict with "kubectl": .spec.count' in await kubectl.run(*arguments, *other, text=changed, fails=True)
    await kubectl.run(*arguments, *other, "--force-conflicts", text=changed)
    stored = kubectl.store.get("widgets", "one", "shop")
    assert stored["spec"]["count"] == 5
    assert stored["metadata"]["labels"] == {"app": "one", "by": "hand"}


async def test_built_in_kinds(kubectl: Kubectl) -> None:
    await kubectl.run("create", "namespace", "new")
    await kubectl.run("run", "extra", "-n", "new", "--image=i:1", "--labels=a=b")
    edited = await kubectl.run("edit", "pod", "extra", "-n", "new", editor="sed -i 's/image: i:1/image: i:2/'")
    assert "edited" in edited
    assert kubectl.store.get("pods", "extra", "new")["spec"]["containers"][0]["image"] == "i:2"
    told = await kubectl.run("patch", "pod", "extra", "-n", "new", "-p", '{"spec": {"nodeName": "node-b"}}', fails=True)
    assert "pod updates may not change fields other than" in told
    await kubectl.run("annotate", "node", "node-a", "projectcalico.org/IPv4VXLANTunnelAddr-", "x=y")
    assert kubectl.store.get("nodes", "node-a")["metadata"]["annotations"] == {"x": "y"}
    await kubectl.run("cordon", "node-a")
    assert kubectl.store.get("nodes", "node-a")["spec"]["unschedulable"] is True
    await kubectl.run("create", "configmap", "c", "--from-literal=a=b")
    assert kubectl.store.get("configmaps", "c")["data"] == {"a": "b"}
    await kubectl.run("create", "secret", "generic", "s", "--from-literal=a=b")
    assert kubectl.store.get("secrets", "s")["data"] == {"a": "Yg=="}
    await kubectl.run("delete", "namespace", "new")
    assert [pod["metadata"]["name"] for pod in kubectl.store.list("pods")] == ["cart"]


async def test_watch(kubectl: Kubectl) -> None:
    assert KUBECTL is not None
    process = await asyncio.create_subprocess_exec(
        KUBECTL, "get", "pods", "-n", "shop", "-w", env=kubectl.environment(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[:3] == [b"cart", b"1/1", b"Running"]
            pod = kubectl.store.get("pods", "cart", "shop")
            pod["status"]["containerStatuses"][0]["ready"] = False
            kubectl.store.update_status(pod)
            assert (await process.stdout.readline()).split()[:3] == [b"cart", b"0/1", b"Running"]
            kubectl.store.delete("pods", "cart", "shop")
            assert (await process.stdout.readline()).split()[2] == b"Terminating"
    finally:
        process.terminate()
        await process.wait()


async def test_permissions(kubectl: Kubectl) -> None:
    assert (await kubectl.run("auth", "can-i", "delete", "pods")).strip() == "yes"
    assert (await kubectl.run("auth", "can-i", "delete", "pods", user="reader", fails=True)).strip() == "no"
    assert ["Username", "reader"] in lines(await kubectl.run("auth", "whoami", user="reader"))
    told = await kubectl.run("delete", "pod", "cart", "-n", "shop", user="reader", fails=True)
    assert 'pods "cart" is forbidden: User "reader" cannot delete resource "pods"' in told
    assert "*.*" in await kubectl.run("auth", "can-i", "--list")


async def test_explain_and_api_resources(kubectl: Kubectl) -> None:
    assert "What the widget is to be." in await kubectl.run("explain", "widgets.spec")
    found = {line[0] for line in lines(await kubectl.run("api-resources", "--api-group=crd.projectcalico.org"))}
    assert {"ippools", "ipamblocks", "ipamhandles", "blockaffinities"} <= found
    assert "v1.34" in await kubectl.run("version")


async def test_the_server_alone(tmp_path: Path) -> None:
    """`python -m lab.apiserver`: prints a kubeconfig that works, and leaves nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lab.apiserver", "--calico", "projectcalico.org", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        printed = await asyncio.wait_for(process.stdout.readline(), 30)
        path = Path(printed.decode().strip())
        (tmp_path / "admin").symlink_to(path)
        told = await Kubectl(Store(), tmp_path).run("api-resources", "--api-group=projectcalico.org")
        assert "ipamconfigurations" in told
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
        assert not path.parent.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
