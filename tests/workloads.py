"""A cluster to install onto: an API server that has all kinds of the manifests, what its controllers would make of
them, and kubectl and helm in front of it. Without it nobody would follow the pages before somebody's cluster does."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from lab.apiserver import ApiServer, Object, Store, User
from lab.apiserver.calico_definitions import install
from lab.apiserver.certificate import make
from lab.apiserver.errors import ApiError
from lab.apiserver.kubeconfig import kubeconfig
from lab.apiserver.registry import Resource
from lab.objects import calico_node_pod

PATIENCE_S = 60  # of a program that waits for what will not come
NODES = ("node-a", "node-b")
RBAC = "rbac.authorization.k8s.io"
KINDS = (
    Resource("apps", "v1", "deployments", "Deployment", True, ("deploy",), has_status=True, has_generation=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), has_status=True, has_generation=True),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision", True),
    Resource("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), has_status=True),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), has_status=True),
    Resource(RBAC, "v1", "roles", "Role", True),
    Resource(RBAC, "v1", "rolebindings", "RoleBinding", True),
    Resource(RBAC, "v1", "clusterroles", "ClusterRole", False),
    Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
)
REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
SCALE = re.compile(r"/apis/apps/v1/namespaces/([^/]+)/deployments/([^/]+)/scale")
OF_A_POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/(log|exec)")
# The kubelet's side of `kubectl exec`: the first byte of a message says which stream it is of.
EXEC_PROTOCOL, STDOUT, STATUS = "v5.channel.k8s.io", b"\x01", b"\x03"


class Done(NamedTuple):
    """A program that ended. said: both streams."""

    status: int
    said: str


class Cluster:
    """Two nodes with Calico of the operator, and nobody's pods. executed: what was run inside of containers, each as
    POD/CONTAINER and the words."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.executed: list[tuple[str, list[str]]] = []
        self.store = Store(beside=KINDS)
        install(self.store)
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "calico-system"}})
        for number, node in enumerate(NODES, 11):
            self.store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
            pod = calico_node_pod(node, f"172.30.0.{number}", "2026-01-01T00:00:00Z")
            pod["metadata"]["namespace"] = "calico-system"
            self.store.create(pod)

    async def run(self, *words: str, text: str = "") -> Done:
        """Runs a program as this cluster's administrator, in its directory; then the controllers have their turn."""
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=self.directory,
            env={**os.environ, "KUBECONFIG": str(self.directory / "kubeconfig"), "HOME": str(self.directory)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(text.encode()), PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            return Done(124, f"still waiting after {PATIENCE_S} s")
        self.settle()
        assert process.returncode is not None
        return Done(process.returncode, said.decode())

    def has(self, word: str) -> bool:
        """Whether there is such an object, in any namespace: KIND/NAME."""
        kind, _, name = word.partition("/")
        found = [one for one in self.store.registry if one.kind.lower() == kind.lower()]
        return any(it["metadata"]["name"] == name for one in found for it in self.store.list(one))

    # ---- controllers, scheduler and kubelet

    def settle(self) -> None:
        """Each namespace has the API server's authority, each Deployment and DaemonSet its pods."""
        for namespace in self.store.list("namespaces"):
            if self._lacks(namespace["metadata"]["name"], "configmaps", "kube-root-ca.crt"):
                place = {"name": "kube-root-ca.crt", "namespace": namespace["metadata"]["name"]}
                self.store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": place})
        for plural in ("deployments", "daemonsets"):
            for workload in self.store.list(plural):
                if not workload["spec"].get("paused"):
                    self._roll_out(workload)

    def _roll_out(self, workload: Object) -> None:
        metadata, spec = workload["metadata"], workload["spec"]
        name, namespace = metadata["name"], metadata["namespace"]
        template = spec["template"]
        revision = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        each_node = workload["kind"] == "DaemonSet"
        (self._controller_revision if each_node else self._replica_set)(workload, revision)
        wanted = {f"{name}-{revision}-{one}" for one in (NODES if each_node else range(spec.get("replicas", 1)))}
        for pod in self.store.list("pods", namespace):
            called = pod["metadata"]["name"]
            if _owner(pod) != metadata["uid"]:
                continue
            if called in wanted:
                wanted.remove(called)
            else:
                self.store.delete("pods", called, namespace)
        lacking = [one for one in _needed(template["spec"]) if self._lacks(namespace, *one)]
        for number, called in enumerate(sorted(wanted)):
            self.store.create(_pod(workload, called, NODES[number % len(NODES)], waits=bool(lacking)))
        pods = [pod for pod in self.store.list("pods", namespace) if _owner(pod) == metadata["uid"]]
        for pod in pods:
            pod["status"] = _pod(workload, "", "", waits=bool(lacking))["status"]
            self.store.update_status(pod)
        ready = 0 if lacking else len(pods)
        generation = self.store.get(workload["kind"].lower() + "s", name, namespace)["metadata"]["generation"]
        status: Object = {"observedGeneration": generation}
        if each_node:
            counts = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled")
            status |= dict.fromkeys(counts, len(pods)) | {"numberMisscheduled": 0}
            status |= {"numberReady": ready, "numberAvailable": ready}
        else:
            status |= {"replicas": len(pods), "updatedReplicas": len(pods)}
            status |= {"readyReplicas": ready, "availableReplicas": ready}
        self.store.update_status({**self.store.get(workload["kind"].lower() + "s", name, namespace), "status": status})

    def _replica_set(self, workload: Object, revision: str) -> None:
        """The newest one has the highest number, also one that was there before."""
        metadata, template = workload["metadata"], workload["spec"]["template"]
        namespace, called = metadata["namespace"], f"{metadata['name']}-{revision}"
        owned = [one for one in self.store.list("replicasets", namespace) if _owner(one) == metadata["uid"]]
        numbers = {one["metadata"]["name"]: int(one["metadata"]["annotations"][REVISION]) for one in owned}
        newest = max(numbers.values(), default=0)
        if numbers.get(called) == newest:
            return
        labels = {**template["metadata"]["labels"], HASH: revision}
        made = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": called,
                "namespace": namespace,
                "labels": labels,
                "annotations": {REVISION: str(newest + 1)},
                "ownerReferences": _owned_by(workload),
            },
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        (self.store.update if called in numbers else self.store.create)(made)
        current = self.store.get("deployments", metadata["name"], namespace)
        current["metadata"].setdefault("annotations", {})[REVISION] = str(newest + 1)
        self.store.update(current)

    def _controller_revision(self, workload: Object, revision: str) -> None:
        metadata, template = workload["metadata"], workload["spec"]["template"]
        namespace, called = metadata["namespace"], f"{metadata['name']}-{revision}"
        owned = [one for one in self.store.list("controllerrevisions", namespace) if _owner(one) == metadata["uid"]]
        numbers = {one["metadata"]["name"]: one["revision"] for one in owned}
        newest = max(numbers.values(), default=0)
        if numbers.get(called) == newest:
            return
        made = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": called,
                "namespace": namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": _owned_by(workload),
            },
            "revision": newest + 1,
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        }
        (self.store.update if called in numbers else self.store.create)(made)

    def _lacks(self, namespace: str, plural: str, name: str) -> bool:
        return all(one["metadata"]["name"] != name for one in self.store.list(plural, namespace))

    # ---- what an API server asks kubelets and controllers

    @web.middleware
    async def beside_objects(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """`scale` of a Deployment; `log` and `exec` of a pod."""
        if found := SCALE.fullmatch(request.path):
            return await self._scale(request, *found.groups())
        if not (found := OF_A_POD.fullmatch(request.path)):
            return await handler(request)
        namespace, name, wish = found.groups()
        spec = self.store.get("pods", name, namespace)["spec"]
        wanted = request.query.get("container", spec["containers"][0]["name"])
        if wanted not in [one["name"] for part in ("initContainers", "containers") for one in spec.get(part) or ()]:
            error = ApiError(400, "BadRequest", f"container {wanted} is not valid for pod {name}")
            return web.json_response(error.body(), status=400)
        if wish == "log":
            return web.Response(text=f"what {wanted} of {name} says\n")
        self.executed.append((f"{name}/{wanted}", request.query.getall("command")))
        answer = web.WebSocketResponse(protocols=(EXEC_PROTOCOL,))
        await answer.prepare(request)
        await answer.send_bytes(STDOUT + b"done\n")
        await answer.send_bytes(STATUS + json.dumps({"metadata": {}, "status": "Success"}).encode())
        await answer.close()
        return answer

    async def _scale(self, request: web.Request, namespace: str, name: str) -> web.Response:
        deployment = self.store.get("deployments", name, namespace)
        if request.method == "PATCH":
            deployment["spec"]["replicas"] = (await request.json())["spec"]["replicas"]
            deployment = self.store.update(deployment)
        metadata = {key: deployment["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata}
        return web.json_response({**scale, "spec": {"replicas": deployment["spec"].get("replicas", 1)}})


def _needed(spec: Any) -> Iterator[tuple[str, str]]:
    """Each Secret and ConfigMap without which a pod of this spec does not start: its plural and its name."""
    if isinstance(spec, list):
        for one in spec:
            yield from _needed(one)
    elif isinstance(spec, dict):
        for key, told in spec.items():
            plural = {"secret": "secrets", "configMap": "configmaps"}.get(re.sub(r"(Key)?Ref$", "", key))
            if plural and isinstance(told, dict) and not told.get("optional"):
                yield plural, told.get("secretName") or told["name"]
            yield from _needed(told)


def _owned_by(workload: Object) -> list[Object]:
    told = {key: workload["metadata"][key] for key in ("name", "uid")}
    return [{"apiVersion": workload["apiVersion"], "kind": workload["kind"], **told, "controller": True}]


def _owner(obj: Object) -> str:
    return next((str(one["uid"]) for one in obj["metadata"].get("ownerReferences") or ()), "")


def _pod(workload: Object, name: str, node: str, *, waits: bool) -> Object:
    template = workload["spec"]["template"]
    state = {"waiting": {"reason": "CreateContainerConfigError"}} if waits else {"running": {}}
    said = [
        {"name": one["name"], "image": one["image"], "ready": not waits, "restartCount": 0, "state": state}
        for one in template["spec"]["containers"]
    ]
    ready = [{"type": "Ready", "status": "False" if waits else "True"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": workload["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": _owned_by(workload),
        },
        "spec": {**template["spec"], "nodeName": node},
        "status": {"phase": "Pending" if waits else "Running", "conditions": ready, "containerStatuses": said},
    }


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[Cluster]:
    """One that kubectl of this directory reaches."""
    made = Cluster(directory)
    server = ApiServer(made.store, {"admin": User("admin", grants=None)})
    application = server.application()
    application.middlewares.append(made.beside_objects)
    certificate = make()
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate.context)
    await site.start()
    host, port = runner.addresses[0][:2]
    (directory / "kubeconfig").write_text(kubeconfig(f"https://{host}:{port}", "admin", certificate.authority))
    try:
        yield made
    finally:
        await runner.cleanup()
