"""`calico-why fixer`: the only program here that changes anything; it watches, and listens on no socket.

`--node NAME` changes that node's kernel, `--cluster` changes objects of the cluster. Of several replicas of the latter
one works at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys

from facts import heap, logs
from fixes import configuration
from fixes.calico import Calico
from fixes.configuration import Settings
from fixes.executor import Executor
from fixes.hands import ClusterHands, NodeHands
from fixes.kernel import Kernel
from fixes.lease import Lease
from fixes.store import FixStore, StoreError, connect

HELP = "carry out approved fixes, of one node (NET_ADMIN) or of the cluster (no listening socket)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--node", help="name of the node this runs on, as Kubernetes knows it")
    which.add_argument("--cluster", action="store_true", help="Calico's objects instead; of several replicas one works")
    parser.add_argument("--config", metavar="FILE", help=f"{configuration.NAME} (${configuration.VARIABLE}, none)")
    parser.add_argument("--kubeconfig", help="kubeconfig file ($KUBECONFIG; without one: in-cluster configuration)")
    parser.add_argument("--namespace", help="namespace of the fix requests (calico-why, $CALICO_WHY_NAMESPACE)")
    logs.add_argument(parser, of_file=True)


def run(args: argparse.Namespace) -> int:
    said = {"kubeconfig": args.kubeconfig, "namespace": args.namespace, "log": args.log}
    flags = {key: value for key, value in said.items() if value}
    try:
        configured = configuration.read(flags=flags, file=args.config or "")
        settings = configured.here
    except configuration.Misconfigured as wrong:
        print(wrong, file=sys.stderr)
        return 2
    logs.start(configured.log)
    heap.keep_small()
    try:
        asyncio.run(_serve(args.node or "", settings))
    except StoreError as error:
        logs.end(error.sentence)
        return 3
    return 0


async def _serve(node: str, settings: Settings) -> None:
    """node: "" for the cluster's fixer."""
    log = logging.getLogger(__name__)
    approvers = settings.approvers
    if not approvers.entries and not approvers.rbac:
        log.warning("No approvers are configured: nobody may approve, so nothing will ever be done.")
    async with connect(settings.kubeconfig, settings.namespace, settings.context) as store:
        work = asyncio.ensure_future(_work(node, store, settings))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        log.info("Watching for approved fixes of %s in namespace %s.", node or "the cluster", settings.namespace)
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def _work(node: str, store: FixStore, settings: Settings) -> None:
    approvers = settings.approvers
    if node:
        await Executor(NodeHands(node, Kernel()), store, approvers).run()
        return
    # A container that is started again keeps its host name: it is another holder all the same.
    holder = f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
    hands = ClusterHands(Calico(store.api, environment={"CALICO_API_GROUP": settings.api_group}))
    await Lease(store.api, store.namespace, holder).run(lambda: Executor(hands, store, approvers).run())
