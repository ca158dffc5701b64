"""Objects of a real Calico, served by the lab's API server: what the Kubernetes source is tested against."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.settings import Settings
from bot.sources.kubernetes import Cluster
from lab.apiserver import ApiServer, Store, User
from lab.apiserver.access import Denial
from lab.apiserver.calico_definitions import install
from lab.apiserver.kubeconfig import kubeconfig
from tests.deployed import ASKER, BOT, person, user
from tests.recordings import changeable, load

Object = dict[str, Any]
GROUPS = {"crd.projectcalico.org": "crd.projectcalico.org/v1", "projectcalico.org": "projectcalico.org/v3"}


def objects(state: str) -> list[Object]:
    """All Kubernetes and Calico objects of a recording such as "v3.32.1/healthy", to be changed at will."""
    files = load(state)
    listed = sorted(name for name in files if name.startswith(("k8s/", "cr/")))
    return [changeable(one) for name in listed for one in files[name]["items"]]


def native(resource: Object) -> Object:
    """A Calico resource as the native store of group projectcalico.org/v3 keeps it."""
    if resource["apiVersion"] != GROUPS["crd.projectcalico.org"]:
        return resource
    made = changeable(resource)
    made["apiVersion"] = GROUPS["projectcalico.org"]
    made["kind"] = {"IPAMConfig": "IPAMConfiguration"}.get(made["kind"], made["kind"])
    kept = json.loads(made["metadata"].get("annotations", {}).pop("projectcalico.org/metadata", "{}"))
    made["metadata"]["labels"] = kept.get("labels") or {}
    if made["kind"] == "BlockAffinity":
        made["spec"]["deleted"] = made["spec"]["deleted"] == "true"
    return made


class World:
    """A served cluster. `asked` are the paths and queries of every request the bot sent, with the rights of deploy/."""

    def __init__(self, store: Store, server: ApiServer, url: str, directory: Path, bot: User) -> None:
        self.bot = bot
        self.store = store
        self.server = server
        self.url = url
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._directory = directory

    def settings(self, *, token: str = "bot", url: str = "", **fields: Any) -> Settings:
        path = self._directory / "kubeconfig"
        path.write_text(kubeconfig(url or self.url, token))
        return Settings(kubeconfig=str(path), **fields)

    def change(self, plural: str, name: str, namespace: str = "", **spec: Any) -> None:
        """Sets fields of the spec."""
        resource = self.store.get(plural, name, namespace) if namespace else self.store.get(plural, name)
        resource["spec"].update(spec)
        self.store.update(resource)

    @contextlib.asynccontextmanager
    async def cluster(self, **fields: Any) -> AsyncIterator[Cluster]:
        async with Cluster(self.settings(**fields)) as cluster:
            send = cluster.api._send

            async def recording(path: str, query: dict[str, Any]) -> tuple[int, bytes]:
                self.asked.append((path, dict(query)))
                return await send(path, query)

            cluster.api._send = recording  # type: ignore[method-assign]
            yield cluster


@contextlib.asynccontextmanager
async def served(
    resources: Iterable[Object],
    directory: Path,
    *,
    group: str = "crd.projectcalico.org",
    denied: Mapping[str, frozenset[Denial]] | None = None,
) -> AsyncIterator[World]:
    """The resources on a loopback port. group "" installs no Calico at all. denied: to the bot, where it comes with one
    of these tokens."""
    resources, store = list(resources), Store()
    if group:
        install(store, group)  # type: ignore[arg-type]
    for one in resources:
        if one["kind"] == "Namespace" and one["metadata"]["name"] in (
            "default",
            "kube-system",
            "kube-public",
            "kube-node-lease",
        ):
            continue
        store.create(native(one) if group == "projectcalico.org" else one)
    pods = (one["metadata"] for one in resources if one["kind"] == "Pod")
    where = (one["namespace"] for one in pods if one.get("labels", {}).get("k8s-app") == "calico-node")
    bot = user(BOT, place=next(where, "kube-system"))
    less = {token: replace(bot, denied=what) for token, what in (denied or {}).items()}
    server = ApiServer(store, {"bot": bot, "asker": person("asker", ASKER), **less})
    url = await server.start()
    try:
        yield World(store, server, url, directory, bot)
    finally:
        await server.stop()


__all__ = ["Object", "World", "native", "objects", "served"]
