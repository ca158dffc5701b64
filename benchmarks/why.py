"""How long `why` takes beside its slowest single look-up, and whether the size of a cluster matters. Prints ratios.

python -m benchmarks.why            a lab, its probes, and an API server with 3 and with 5,000 nodes
python -m benchmarks.why --no-lab   the API server alone
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from bot.investigate import Means, investigate
from bot.settings import Settings, from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.words import parse
from engine.worker import Worker
from lab.apiserver import ApiServer, Store
from lab.apiserver.calico_definitions import install
from lab.apiserver.kubeconfig import kubeconfig
from lab.client import Lab
from lab.errors import LabError
from tests import deployed

QUESTION = ["shop/cart", "shop/db", "5432/tcp"]
FAR_S = 0.03  # one way to an API server on another continent and back
CALICO = "crd.projectcalico.org/v1"


class Stopwatch:
    """How long each look-up of one question took."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def around(self, look: Callable[..., Awaitable[Any]], delay_s: float = 0.0) -> Callable[..., Awaitable[Any]]:
        async def measured(*args: Any) -> Any:
            began = time.perf_counter()
            if delay_s:
                await asyncio.sleep(delay_s)
            try:
                return await look(*args)
            finally:
                self.taken.append(time.perf_counter() - began)

        return measured


async def against_its_slowest_look(settings: Settings, repeat: int, *, warm: bool) -> None:
    """One question after another against a real probe on every node. warm: over kept connections, as the bot's."""
    worker, watch = Worker(), Stopwatch()
    totals, slowest = [], []
    async with contextlib.AsyncExitStack() as kept:
        kept.callback(worker.close)
        for number in range(repeat + 1):
            if number == 0 or not warm:
                cluster = await kept.enter_async_context(Cluster(settings))
                probes = await kept.enter_async_context(Probes(settings))
                cluster.api._send = watch.around(cluster.api._send)  # type: ignore[method-assign,assignment]
                probes._one = watch.around(probes._one)  # type: ignore[method-assign,assignment]
            watch.taken.clear()
            began = time.perf_counter()
            answer = await investigate(QUESTION, Means(cluster, probes, worker))
            if number:  # the first one pays for what is made once
                totals.append(time.perf_counter() - began)
                slowest.append(max(watch.taken))
    ratios = [total / one for total, one in zip(totals, slowest, strict=True)]
    print(
        f"why in the lab, {'connections kept' if warm else 'connections new'} ({answer.diagnosis.verdict}): "
        f"{statistics.median(totals) * 1000:.0f} ms, slowest of {len(watch.taken)} look-ups "
        f"{statistics.median(slowest) * 1000:.0f} ms: ratio {statistics.median(ratios):.2f} (best {min(ratios):.2f}, "
        f"worst {max(ratios):.2f} of {repeat})"
    )


@contextlib.asynccontextmanager
async def api_server(nodes: int) -> AsyncIterator[Settings]:
    """A cluster of so many nodes, each with a block and a pod, but for two named in the question."""
    store = Store()
    install(store)
    for one in objects(nodes):
        store.create(one)
    server = ApiServer(store, {"t": deployed.user(deployed.BOT)})
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kubeconfig"
        path.write_text(kubeconfig(await server.start(), "t"))
        try:
            yield Settings(kubeconfig=str(path))
        finally:
            await server.stop()


def objects(nodes: int) -> Iterator[dict[str, Any]]:
    def calico(kind: str, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": CALICO, "kind": kind, "metadata": {"name": name}, "spec": spec}

    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    yield calico("IPPool", "pool", cidr="10.0.0.0/8", blockSize=26, vxlanMode="Always", nodeSelector="all()")
    yield calico("ClusterInformation", "default", calicoVersion="v3.32.1", datastoreReady=True)
    for number in range(nodes):
        node, base = f"node-{number}", f"10.{number // 1024}.{number % 1024 // 4}"
        first = number % 4 * 64
        tunnel, address = f"{base}.{first}", f"{base}.{first + 1}"
        annotations = {
            "projectcalico.org/IPv4Address": f"172.16.{number // 250}.{number % 250 + 1}/16",
            "projectcalico.org/IPv4VXLANTunnelAddr": tunnel,
        }
        pod = {0: "cart", nodes - 1: "db"}.get(number, f"pod-{number}")
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "annotations": annotations}, "status": {}}
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": "shop"},
            "spec": {"nodeName": node, "containers": [{"name": "app", "image": "x"}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
        secondary = {"namespace": "shop", "pod": pod, "node": node}
        yield calico(
            "IPAMBlock",
            f"{tunnel}-26".replace(".", "-"),
            cidr=f"{tunnel}/26",
            affinity=f"host:{node}",
            allocations=[0, 1, *[None] * 62],
            unallocated=list(range(2, 64)),
            attributes=[
                {"handle_id": node, "secondary": {"node": node, "type": "vxlanTunnelAddress"}},
                {"handle_id": pod, "secondary": secondary},
            ],
        )


async def looking(settings: Settings, repeat: int, delay_s: float) -> tuple[float, float, int]:
    """Median seconds of a whole look and of its slowest look-up, and how many there were."""
    totals, slowest, count = [], [], 0
    for number in range(repeat + 1):
        watch = Stopwatch()
        async with Cluster(settings) as cluster:
            cluster.api._send = watch.around(cluster.api._send, delay_s)  # type: ignore[method-assign,assignment]
            began = time.perf_counter()
            await cluster.look(parse(QUESTION))
            if number:
                totals.append(time.perf_counter() - began)
                slowest.append(max(watch.taken))
                count = len(watch.taken)
    return statistics.median(totals), statistics.median(slowest), count


async def with_size(small: int, large: int, repeat: int) -> None:
    taken = {}
    for nodes in (small, large):
        async with api_server(nodes) as settings:
            taken[nodes], _, count = await looking(settings, repeat, 0.0)
            print(f"looking with {nodes} nodes: {taken[nodes] * 1000:.1f} ms, {count} look-ups")
            if nodes == large:
                total, one, _ = await looking(settings, repeat, FAR_S)
                print(
                    f"looking when every look-up takes {FAR_S * 1000:.0f} ms more: {total / one:.2f} x the slowest one"
                )
    print(f"ratio of {large} to {small} nodes: {taken[large] / taken[small]:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--no-lab", action="store_true", help="without a lab: where namespaces are forbidden")
    args = parser.parse_args()
    asyncio.run(with_size(3, args.nodes, args.repeat))
    if args.no_lab:
        return 0
    try:
        with Lab.up() as lab:
            settings = from_environment({**os.environ, **lab.environment()})
            for warm in (False, True):
                asyncio.run(against_its_slowest_look(settings, args.repeat, warm=warm))
    except LabError as error:
        print(f"no lab, so no answer about `why` as a whole: {error}")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
