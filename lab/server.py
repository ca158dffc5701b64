"""The one process that is the lab: API server, Felixes, echoes, proxy, control; without it nothing is up."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from fixes import request
from lab import faults
from lab.apiserver import ApiServer, Store, User, rbac
from lab.apiserver.access import service_account
from lab.apiserver.calico_definitions import Group, install
from lab.apiserver.certificate import make as make_certificate
from lab.apiserver.kubeconfig import kubeconfig
from lab.cluster import Cluster
from lab.control import Control, Request
from lab.drawing import invented
from lab.forkserver import Forkserver
from lab.intent import Object
from lab.objects import recorded, stored
from lab.proxy import ConnectProxy
from lab.settings import BOT, CLUSTER_FIXER, LEASE, NODE, PERSON, SIGNER, SWITCH, Settings
from lab.sketch import Sketch
from lab.variants import chosen
from lab.workers import PROBE_PORT, Worker, available, wait_until_listening
from node_probe.certs import make as make_probe_certificates

API_PORT = 6443  # at the underlay's address in the first node's subnet
READY_S = 30.0
NAMESPACE = "calico-why"
NODE_NAME = "authentication.kubernetes.io/node-name"  # in what the API server knows of a pod's token
PATIENCE_MS = 400  # for answers that one machine gives itself, in less than a millisecond where it is not busy
# Who may approve in a lab where nobody says otherwise: the local Slack's operators, and whoever holds the kubeconfig.
APPROVERS = "S0NETOPS,kubernetes:kubernetes-admin"
PEOPLE = "U0CLEO=kubernetes-admin"  # who the latter is in the local Slack, so that what ana or bo ask for counts there
# What comes with the manifests of deploy/ so that nobody needs the right to create it, where there are none.
BROUGHT: tuple[rbac.Manifest, ...] = (
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SWITCH, "namespace": NAMESPACE}},
    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": LEASE, "namespace": NAMESPACE}},
)
Report = Callable[[dict[str, Any]], None]
log = logging.getLogger("lab")


def rbac_of(path: Path, entries: Iterable[Object]) -> Path:
    """The file of manifests: where `path` is a directory, that of the namespace in which Calico's own pods are."""
    if path.is_file():
        return path
    agents = (one["metadata"] for one in entries if one["kind"] == "Pod")
    where = (one["namespace"] for one in agents if one.get("labels", {}).get("k8s-app") == "calico-node")
    return path / f"{next(where, 'kube-system')}.yaml"


def serve(
    settings: Settings,
    directory: Path,
    api: socket.socket,
    proxy: socket.socket,
    control: socket.socket,
    report: Report,
) -> None:
    """Runs the lab until it is told to end. Raises LabError, OSError."""
    # Before there are threads, and before what is logged here would be taken for the settings of a probe.
    forkserver = Forkserver(fixers=settings.fixers) if settings.workers else None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(Server(settings, directory, report, forkserver).run(api, proxy, control))


class Server:
    """Inside the lab's namespaces: its own network namespace is the underlay."""

    def __init__(self, settings: Settings, directory: Path, report: Report, forkserver: Forkserver | None) -> None:
        """forkserver: None for nodes without probes and fixers."""
        self.settings = settings
        self.directory = directory
        self.report = report
        self.forkserver = forkserver
        self.token = secrets.token_hex(16)
        self.users = {self.token: User(PERSON, grants=None)}
        self.reached_as: Callable[..., str]  # the text of a kubeconfig for a token
        self._denied: dict[str, str] = {}  # tokens of who is refused something
        self.workers: list[Worker] = []
        self.ended = asyncio.Event()
        self.times: dict[str, float] = {}
        self.pid_namespace = Path("/proc/self/ns/pid").stat().st_ino
        self.manifests: list[rbac.Manifest] = []
        self.cluster: Cluster
        self.api: ApiServer

    async def run(self, api: socket.socket, proxy: socket.socket, control: socket.socket) -> None:
        began = time.perf_counter()
        settings = self.settings
        variants = chosen(settings.variant)
        sketch = Sketch(settings.nodes, settings.pods_per_node)
        for variant in variants:
            sketch = variant.sketch(sketch)
        entries = recorded(Path(settings.objects)) if settings.objects else invented(sketch, variants)
        if settings.rbac:
            self.manifests = rbac.read(rbac_of(Path(settings.rbac), entries))
        store = self._store(entries, sketch.group)
        self.cluster = cluster = Cluster(store, variants, sketch)
        await cluster.build()
        self.times["kernel_s"] = round(time.perf_counter() - began, 3)
        nodes = [node.address for node in cluster.topology.nodes.values()]
        known = {
            one["address"]
            for node in store.list("nodes")
            for one in node["status"]["addresses"]
            if one["type"] == "InternalIP"
        }
        await ConnectProxy({*nodes, *known}, PROBE_PORT).start(proxy)
        router = cluster.topology.router()
        certificate = make_certificate(("127.0.0.1", router))
        self.api = server = ApiServer(store, self.users, cluster.log)
        inside = socket.create_server((router, API_PORT), family=socket.AF_INET6 if ":" in router else socket.AF_INET)
        await server.start(api, inside, tls=certificate.context)
        self._write_files(api.getsockname()[1], proxy.getsockname()[1], certificate.authority, router)
        words = {
            "status": self._status,
            "inflict": self._inflict,
            "heal": self._heal,
            "mesh": self._mesh,
            "faults": self._faults,
            "user": self._user,
            "account": self._account,
            "calls": self._calls,
            "down": self._down,
        }
        controlling = asyncio.create_task(Control(cluster, words, log.error).serve(control))
        if self.settings.heal:
            cluster.start_healing()
        self.report(
            {"progress": f"{len(nodes)} nodes and {len(cluster.topology.pods)} pods in {self.times['kernel_s']} s"}
        )
        tasks = [asyncio.create_task(worker.run()) for worker in self._make_workers()]
        if any(worker.word == "probe" for worker in self.workers):
            late = await wait_until_listening(nodes, PROBE_PORT, READY_S)
            if late:
                self.report({"progress": f"the probes at {', '.join(late)} do not answer; see {self.directory}/logs"})
        mesh = await cluster.mesh()
        if mesh["unanswered"]:
            self.report({"progress": f"{len(mesh['unanswered'])} of {mesh['pairs']} pod pairs do not answer"})
        self.times["ready_s"] = round(time.perf_counter() - began, 3)
        self.report({"ready": await self._status({})})
        await self.ended.wait()
        for task in (controlling, *tasks):
            task.cancel()

    def _store(self, entries: list[Object], group: Group) -> Store:
        """With the API objects the lab starts from."""
        store = Store()
        install(store, group)
        for name in ("fixrequest.yaml", "auditrecord.yaml", "admission.yaml"):
            for definition in yaml.safe_load_all(Path(request.__file__).with_name(name).read_text()):
                store.create(definition)
        entries = [*entries, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
        present = {entry["metadata"]["name"] for entry in store.list("namespaces")}
        for entry in entries:
            if entry["kind"] != "Namespace" or entry["metadata"]["name"] not in present:
                store.create(stored(entry, group))
        for one in self.manifests or BROUGHT:
            if one["kind"] in ("ConfigMap", "Lease") and one.keys() <= {"apiVersion", "kind", "metadata"}:
                store.create(dict(one))
        return store

    # ---- files

    def _write_files(self, api_port: int, proxy_port: int, authority: str, router: str) -> None:
        cluster = self.directory.name
        inside = f"[{router}]" if ":" in router else router
        urls = {"kubeconfig": f"https://127.0.0.1:{api_port}", "kubeconfig.nodes": f"https://{inside}:{API_PORT}"}
        self.reached_as = lambda token, name="kubeconfig": kubeconfig(urls[name], token, authority, cluster=cluster)
        for name in urls:
            self._write_private(name, self.reached_as(self.token, name))
        if self.manifests:
            for account in (BOT, CLUSTER_FIXER, SIGNER):
                self._write_private(f"kubeconfig.{account}", self.reached_as(self._known(account)))
            self._write_private(f"kubeconfig.{PERSON}", self.reached_as(self._person()))
            for node in self.cluster.topology.nodes:  # as Kubernetes knows a pod of it by its token
                text = self.reached_as(self._known(NODE, {NODE_NAME: (node,)}), "kubeconfig.nodes")
                self._write_private(f"kubeconfig.nodes.{node}", text)
        make_probe_certificates(self.directory / "certs", list(self.cluster.topology.nodes))
        lines = {
            "KUBECONFIG": str(self.directory / "kubeconfig"),
            "CALICO_WHY_CERTS": str(self.directory / "certs"),
            "CALICO_WHY_PROBE_PROXY": f"http://127.0.0.1:{proxy_port}",
            "CALICO_WHY_PATIENCE_MS": str(PATIENCE_MS),
            "CALICO_WHY_CLUSTER": self.directory.name,
            "CALICO_WHY_APPROVERS": os.environ.get("CALICO_WHY_APPROVERS", APPROVERS),
            "CALICO_WHY_PEOPLE": os.environ.get("CALICO_WHY_PEOPLE", PEOPLE),
            **dict(self.settings.environment),
        }
        text = "".join(f"export {name}={value}\n" for name, value in lines.items())
        (self.directory / "env").write_text(text)

    def _write_private(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.touch(0o600)
        path.write_text(text)
        return path

    # ---- probes and fixers

    def _make_workers(self) -> list[Worker]:
        if self.forkserver is None:
            return []
        wanted = {"probe": True, "fixer": self.settings.fixers}
        words = [word for word, started in wanted.items() if started and available(word)]
        environment = {
            "CALICO_WHY_APPROVERS": APPROVERS,
            "CALICO_WHY_PEOPLE": PEOPLE,
            **os.environ,
            "CALICO_WHY_CERTS": str(self.directory / "certs"),
            "CALICO_WHY_PROBE_PORT": str(PROBE_PORT),
            "CALICO_WHY_CLUSTER": self.directory.name,
            "PYTHONUNBUFFERED": "1",
        }
        self.workers = [
            Worker(
                word,
                name,
                node.kernel.namespace,
                {**environment, "KUBECONFIG": str(self._kubeconfig_of(name))},
                self.directory / "logs" / f"{word}-{name}.log",
                self.forkserver,
                ("--listen", f"[{node.address}]:{PROBE_PORT}") if word == "probe" and ":" in node.address else (),
            )
            for name, node in self.cluster.topology.nodes.items()
            for word in words
        ]
        return self.workers

    def _kubeconfig_of(self, node: str) -> Path:
        """For what runs on a node: of its own account, where manifests tell rights."""
        return self.directory / (f"kubeconfig.nodes.{node}" if self.manifests else "kubeconfig.nodes")

    def _known(self, account: str, extra: Mapping[str, tuple[str, ...]] | None = None) -> str:
        """A token for a ServiceAccount, with the rights the manifests give it."""
        token = secrets.token_hex(16)
        self.users[token] = service_account(self.manifests, NAMESPACE, account, extra or {})
        return token

    def _person(self) -> str:
        """A token for who sits at the terminal, with the rights the manifests give to that name."""
        token, groups = secrets.token_hex(16), ("system:authenticated",)
        self.users[token] = User(PERSON, groups, grants=rbac.grants(self.manifests, PERSON, groups))
        return token

    # ---- words of the control socket

    async def _status(self, _: Request) -> dict[str, Any]:
        cluster = self.cluster
        workers: dict[str, dict[str, Any]] = {}
        for worker in self.workers:
            told = {"state": worker.state, "starts": worker.starts}
            workers.setdefault(worker.node, {})[worker.word] = told
        return {
            "name": self.directory.name,
            "directory": str(self.directory),
            "settings": {key: value for key, value in asdict(self.settings).items() if key != "environment"},
            "times": self.times,
            "nodes": [
                {
                    "name": name,
                    "address": node.address,
                    "tunnel_address": cluster.tunnel_address(name, min(node.interfaces)),
                    **workers.get(name, {}),
                }
                for name, node in cluster.topology.nodes.items()
            ],
            "pods": [
                {
                    "name": name,
                    "node": pod.record.node,
                    "address": pod.record.address,
                    "addresses": list(pod.addresses.values()),
                    "interface": pod.record.interface,
                }
                for name, pod in cluster.topology.pods.items()
            ],
            "inflicted": cluster.inflicted,
            "pid_namespace": self.pid_namespace,
        }

    async def _inflict(self, asked: Request) -> dict[str, str]:
        return await self.cluster.inflict(
            str(asked["fault"]),
            str(asked["source"]),
            str(asked["target"]),
            str(asked.get("where", "")),
            int(asked.get("family", 4)),
        )

    async def _heal(self, _: Request) -> dict[str, Any]:
        began = time.perf_counter()
        await self.cluster.heal()
        return {"seconds": round(time.perf_counter() - began, 3)}

    async def _mesh(self, _: Request) -> dict[str, Any]:
        return await self.cluster.mesh()

    async def _faults(self, _: Request) -> list[dict[str, Any]]:
        return [
            {"name": name, "where": list(faults.load(name).WHERE), "text": faults.describe(name)}
            for name in faults.names()
        ]

    async def _user(self, asked: Request) -> str:
        """The kubeconfig of an account, or of somebody who may do everything, to whom these resources are refused."""
        denied, account = sorted(map(str, asked["denied"])), str(asked.get("account", ""))
        name = "-".join(("without", *denied))
        if account and self.manifests:
            name = f"{account}.{name}"
            user = service_account(self.manifests, NAMESPACE, account)
        else:
            user = User(name, grants=None)
        token = self._denied.setdefault(name, secrets.token_hex(16))
        self.users[token] = replace(user, denied=frozenset(("*", "*", resource) for resource in denied))
        return str(self._write_private(f"kubeconfig.{name}", self.reached_as(token)))

    async def _account(self, asked: Request) -> str:
        """The kubeconfig of a ServiceAccount that has the rights the manifests give it."""
        name, node = str(asked["name"]), str(asked.get("node", ""))
        told = {NODE_NAME: (node,)} if node else {}
        path = f"kubeconfig.{name}-{node}" if node else f"kubeconfig.{name}"
        return str(self._write_private(path, self.reached_as(self._known(name, told))))

    async def _calls(self, _: Request) -> list[list[str]]:
        return [list(call) for call in self.api.calls]

    async def _down(self, _: Request) -> str:
        asyncio.get_running_loop().call_later(0.05, self.ended.set)
        return "going down"
