"""How the programs that keep certificates in a cluster begin and end; without it each would do so in its own way."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from certificates.cluster import Cluster, Trouble, connect
from facts import logs

Work = Callable[[Cluster], Awaitable[None]]


def add_arguments(parser: argparse.ArgumentParser, namespace: str) -> None:
    """namespace: what is there."""
    parser.add_argument("--kubeconfig", help="kubeconfig file ($KUBECONFIG; without one: in-cluster configuration)")
    parser.add_argument("--namespace", help=f"where {namespace} (calico-why, $CALICO_WHY_NAMESPACE)")
    logs.add_argument(parser)


def run(args: argparse.Namespace, work: Work, *, lasting: bool = True) -> int:
    """0 when it is over, or where it is lasting was ended; 3 where there is no cluster."""
    logs.start(args.log)
    kubeconfig = args.kubeconfig or os.environ.get("KUBECONFIG", "")
    namespace = args.namespace or os.environ.get("CALICO_WHY_NAMESPACE") or "calico-why"
    try:
        asyncio.run(_run(kubeconfig, namespace, work, lasting))
    except Trouble as error:
        logs.end(error.sentence)
        return 3
    return 0


async def _run(kubeconfig: str, namespace: str, work: Work, lasting: bool) -> None:
    async with connect(kubeconfig, namespace) as cluster:
        working = asyncio.ensure_future(work(cluster))
        if not lasting:
            await working
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await working
