"""`calico-why fixer --node NAME`: the only program here that changes a node; it watches, and listens on no socket."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys

from fixes.approvers import Approvers
from fixes.executor import Executor
from fixes.hands import NodeHands
from fixes.kernel import Kernel
from fixes.store import StoreError, connect

HELP = "carry out approved fixes on this node (NET_ADMIN; no listening socket)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", required=True, help="name of the node this runs on, as Kubernetes knows it")
    parser.add_argument("--kubeconfig", help="kubeconfig file ($KUBECONFIG; without one: in-cluster configuration)")
    parser.add_argument("--namespace", help="namespace of the fix requests (calico-why, $CALICO_WHY_NAMESPACE)")


def run(args: argparse.Namespace) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    kubeconfig = args.kubeconfig or os.environ.get("KUBECONFIG", "")
    namespace = args.namespace or os.environ.get("CALICO_WHY_NAMESPACE") or "calico-why"
    try:
        asyncio.run(_serve(args.node, kubeconfig, namespace, Approvers.from_environment()))
    except StoreError as error:
        print(error.sentence, file=sys.stderr)
        return 3
    return 0


async def _serve(node: str, kubeconfig: str, namespace: str, approvers: Approvers) -> None:
    log = logging.getLogger(__name__)
    if not approvers.entries:
        log.warning("CALICO_WHY_APPROVERS is empty: nobody may approve, so nothing will ever be done on %s.", node)
    async with connect(kubeconfig, namespace) as store:
        work = asyncio.ensure_future(Executor(NodeHands(node, Kernel()), store, approvers).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        log.info("Watching for approved fixes of %s in namespace %s.", node, namespace)
        with contextlib.suppress(asyncio.CancelledError):
            await work
