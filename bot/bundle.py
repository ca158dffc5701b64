"""The scene of a fault as one file: all nodes' and the cluster's own words, what could not be read, and the answer that
can be judged again; without it the evidence is gone when the incident is over."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from bot.errors import COULD_NOT_JUDGE
from bot.redaction import allowed
from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.kubernetes import Cluster
from bot.sources.probes import CannotCapture, Probes
from bot.sources.resources import path
from bot.sources.upkeep import CALICO_NODE
from bot.told import File, Told
from facts import Blind, say
from facts.redaction import redact
from facts.scene import SceneEnd, SceneMissing, ScenePart
from fixes.resources.kinds import KINDS, Object

if TYPE_CHECKING:
    from bot.investigate import Investigation, Progress

LARGEST = 64 << 20  # of the file, bytes
AT_ONCE = 8  # nodes
NODES = 50  # in one bundle
SHOWN = 5
LOG_LINES = 5000
LOG_BYTES = 4 << 20
LOGS_OF = (CALICO_NODE, "k8s-app=calico-typha", "k8s-app=calico-kube-controllers")
INVESTIGATION = "investigation.json"
KUBERNETES_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"

_UNSAFE = re.compile(r"[^\w.+-]")

README = """\
calico-why kept this on {when} of cluster {cluster}.

nodes/NODE/    what the node's tools and kernel say, read by its probe: links and their offloads, addresses, neighbors,
               forwarding entries, routes and rules of all tables, rules of every packet filter, sysctls, sockets,
               counters, and Calico's own logs there
cluster/       Calico's resources, and of Kubernetes' objects what is listed in docs/decisions/035-bundles.md, no more
logs/          ends of the logs of calico-node, Typha and calico-kube-controllers; tokens are cut out
missing.txt    what is not here, and why
{answer}"""
ANSWER = """answer.txt     what `why {asked}` answered
investigation.json   the same with all facts it rests on: `calico-why replay` on this very bundle judges it again
"""


class Bundle:
    """A growing tar.gz below one directory. What no longer fits is in `missing`, never cut silently."""

    def __init__(self, directory: str, now: datetime) -> None:
        self.directory = directory
        self.missing: list[tuple[str, str]] = []
        self.files = 0
        self._file = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz", compresslevel=6)  # noqa: SIM115  # until `close`
        self._mtime = int(now.timestamp())

    @property
    def size(self) -> int:
        return self._file.tell()

    async def add(self, path: str, content: bytes) -> None:
        if self.size > LARGEST:
            self.missing.append((path, f"the bundle has its {LARGEST >> 20} MiB"))
            return
        self.files += 1
        await asyncio.to_thread(self._put, "/".join(_UNSAFE.sub("_", part) for part in path.split("/")), content)

    async def close(self) -> bytes:
        """The file, `missing.txt` last."""
        lines = [f"{path}: {why}\n" for path, why in self.missing] or ["Nothing is missing.\n"]
        await asyncio.to_thread(self._put, "missing.txt", "".join(lines).encode())
        await asyncio.to_thread(self._tar.close)
        return self._file.getvalue()

    def _put(self, path: str, content: bytes) -> None:
        about = tarfile.TarInfo(f"{self.directory}/{path}")
        about.size, about.mtime, about.mode = len(content), self._mtime, 0o600
        self._tar.addfile(about, io.BytesIO(content))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, and what is told of it."""

    file: File
    nodes: tuple[str, ...]
    silent: tuple[Blind, ...]  # nodes whose probe sent nothing
    missing: tuple[tuple[str, str], ...]  # all that is not in it, and why
    files: int


async def keep(
    nodes: Mapping[str, str],
    *,
    cluster: Cluster,
    probes: Probes,
    progress: Progress,
    investigation: Investigation | None = None,
) -> Kept:
    """nodes: those to be looked at, and the address of each one's probe. Raises UserError where nothing can be read."""
    now = datetime.now(UTC)
    bundle = Bundle(f"calico-why-{_UNSAFE.sub('_', cluster.name)}-{now:%Y%m%d-%H%M%S}", now)
    lock, silent, done = asyncio.Lock(), list[Blind](), list[str]()
    places = asyncio.Semaphore(AT_ONCE)
    received = 0
    await _put_answer(bundle, cluster.name, investigation, now)

    async def tell() -> None:
        size = f"{received / (1 << 20):.1f}"
        await progress(say("{done} of {all} nodes, {size} MiB", done=len(done), all=len(nodes), size=size))

    async def arrived(size: int) -> None:
        nonlocal received
        before, received = received, received + size
        if before >> 20 < received >> 20:  # each MiB, or somebody waits a minute for the only node without a word
            await tell()

    async def node(called: str, address: str) -> None:
        async with places:
            files, missing = await _node(called, address, probes, arrived)
        async with lock:
            for file, content in files.items():
                await bundle.add(f"nodes/{called}/{file}", content)
            bundle.missing += [(f"nodes/{called}/{file}" if file else f"nodes/{called}", why) for file, why in missing]
            silent.extend(Blind(node=called, look="scene", reason=why) for file, why in missing if not file)
            done.append(called)
            await tell()

    async def objects() -> None:
        resources, logs, missing = await _cluster(cluster, list(nodes))
        async with lock:
            for file, content in {**resources, **logs}.items():
                await bundle.add(file, content)
            bundle.missing += missing

    await tell()
    await asyncio.gather(objects(), *(node(*one) for one in nodes.items()))
    content = await bundle.close()
    return Kept(
        file=File(name=f"{bundle.directory}.tar.gz", content=content, title=f"{', '.join(nodes)}"[:200]),
        nodes=tuple(nodes),
        silent=tuple(sorted(silent, key=lambda one: one.node)),
        missing=tuple(bundle.missing),
        files=bundle.files,
    )


async def _put_answer(bundle: Bundle, cluster: str, investigation: Investigation | None, now: datetime) -> None:
    answer = ANSWER.format(asked=investigation.asked) if investigation else ""
    readme = README.format(when=f"{now:%Y-%m-%d %H:%M:%S} UTC", cluster=cluster, answer=answer)
    await bundle.add("README.txt", readme.encode())
    if investigation:
        from bot.reply import text

        await bundle.add(INVESTIGATION, msgspec.json.encode(investigation))
        await bundle.add("answer.txt", text.render(investigation, verbose=True).encode())


async def _node(
    node: str, address: str, probes: Probes, arrived: Callable[[int], Awaitable[None]]
) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """Its files, and what is missing: of "" everything that would have come after. arrived: told of bytes."""
    files: dict[str, list[bytes]] = {}
    missing: list[tuple[str, str]] = []
    ended = False
    try:
        async with aclosing(probes.scene(node, address)) as lines:
            async for line in lines:
                if isinstance(line, ScenePart):
                    files.setdefault(line.path, []).append(line.content)
                    await arrived(len(line.content))
                elif isinstance(line, SceneMissing):
                    missing.append((line.path, line.reason))
                elif isinstance(line, SceneEnd):
                    ended = True
        if not ended:
            missing.append(("", str(say("its probe hung up in the middle"))))
    except CannotCapture as error:
        missing.append(("", error.reason))
    return {path: _clean(path, b"".join(parts)) for path, parts in files.items()}, missing


def _clean(path: str, content: bytes) -> bytes:
    """Tokens cut out of what people and programs wrote; what the kernel prints holds none."""
    if path.startswith("logs/") or path == "kernel-log.txt":
        return redact(content.decode("utf-8", "replace")).encode()
    return content


Files = dict[str, bytes]


async def _cluster(cluster: Cluster, nodes: Sequence[str]) -> tuple[Files, Files, list[tuple[str, str]]]:
    """Resources, logs, and what of both is missing. Pods are those of the nodes alone."""
    missing: list[tuple[str, str]] = []
    group = await cluster.group()
    lists = {plural: path(group, plural) for plural in KINDS if plural != "pods"}
    lists["networkpolicies.networking.k8s.io"] = KUBERNETES_POLICIES

    async def read(plural: str, where: str, **query: str | int) -> list[Object]:
        try:
            return await cluster.api.pages(where, **query)
        except (Missing, Refused, Unreachable) as error:
            absent = say("the API server has no {look}", look=plural)
            missing.append((f"cluster/{plural}.json", str(getattr(error, "reason", absent))))
            return []

    async def pods_of(node: str) -> list[Object]:
        return await read("pods", path(group, "pods"), fieldSelector=f"spec.nodeName={node}")

    found = dict(zip(lists, await asyncio.gather(*(read(*one) for one in lists.items())), strict=True))
    found["pods"] = [pod for pods in await asyncio.gather(*map(pods_of, nodes)) for pod in pods]
    files = {
        f"cluster/{plural}.json": msgspec.json.format(
            msgspec.json.encode([allowed(plural, one) for one in objects]), indent=1
        )
        for plural, objects in found.items()
        if objects
    }
    return files, await _logs(cluster, nodes, group, missing), missing


async def _logs(cluster: Cluster, nodes: Sequence[str], group: str, missing: list[tuple[str, str]]) -> Files:
    """Of calico-node on these nodes, and of what serves them all; of a container that was started again the log of the
    one before, too."""
    chosen: list[Object] = []
    for label in LOGS_OF:
        try:
            pods = await cluster.api.pages(path(group, "pods"), labelSelector=label)
        except (Missing, Refused, Unreachable) as error:
            missing.append(("logs", str(getattr(error, "reason", "the API server has no pods"))))
            continue
        chosen += [one for one in pods if label != CALICO_NODE or (one.get("spec") or {}).get("nodeName") in nodes]
    files: Files = {}
    places = asyncio.Semaphore(AT_ONCE)

    async def log(pod: Object, container: str, previous: bool) -> None:
        metadata = pod["metadata"]
        file = f"logs/{metadata['name']}.{container}{'.previous' if previous else ''}.log"
        where = f"{path('', 'pods', metadata['namespace'], metadata['name'])}/log"
        query: dict[str, str | int] = {"container": container, "tailLines": LOG_LINES, "limitBytes": LOG_BYTES}
        try:
            async with places:
                text = await cluster.api.text(where, **query, **({"previous": "true"} if previous else {}))
            files[file] = redact(text.decode("utf-8", "replace")).encode()
        except (Missing, Refused, Unreachable) as error:
            missing.append((file, str(getattr(error, "reason", say("the API server gives no log of it")))))

    await asyncio.gather(*(log(pod, *one) for pod in chosen for one in _containers(pod)))
    return dict(sorted(files.items()))


def _containers(pod: Object) -> list[tuple[str, bool]]:
    """Its containers, those that install Calico's plugin and end included; of one that was started again also (name,
    True), the one before."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    states = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    restarted = {str(one.get("name")) for one in states if one.get("restartCount")}
    names = [str(one["name"]) for one in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))]
    return [(name, before) for name in names for before in (False, True) if not before or name in restarted]


def _size(octets: int) -> str:
    return f"{octets / (1 << 20):.1f} MiB" if octets >= 1 << 20 else f"{octets / (1 << 10):.0f} KiB"


def told(kept: Kept) -> Told:
    """What is said of it wherever it was asked for."""
    whole = len(kept.nodes) - len(kept.silent)
    headline = say(
        "{files} files of {nodes}, {size}: {name}",
        files=kept.files,
        nodes=say("{count} nodes", count=whole) if whole != 1 else say("one node"),
        size=_size(len(kept.file.content)),
        name=kept.file.name,
    )
    notes = [
        say("Of {node} nothing more is in it: {why}.", node=one.node, why=one.reason) for one in kept.silent[:SHOWN]
    ]
    if len(kept.silent) > SHOWN:
        notes.append(say("So it is with {count} more nodes.", count=len(kept.silent) - SHOWN))
    if others := [one for one in kept.missing if one[1] not in {blind.reason for blind in kept.silent}]:
        notes.append(say("{count} things are not in it; its missing.txt says which, and why.", count=len(others)))
    document = {
        "file": kept.file.name,
        "size": len(kept.file.content),
        "files": kept.files,
        "nodes": list(kept.nodes),
        "silent": [{"node": one.node, "reason": one.reason} for one in kept.silent],
        "missing": [{"path": file, "reason": why} for file, why in kept.missing],
    }
    return Told(
        headline=headline,
        notes=tuple(notes),
        data=document,
        files=(kept.file,),
        mark="unknown" if kept.silent else "healthy",
        status=COULD_NOT_JUDGE if kept.silent else 0,
    )
