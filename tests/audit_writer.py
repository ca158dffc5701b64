"""Writes what requests say happened into the audit trail, to be killed in the middle of it. Argument: kubeconfig."""

from __future__ import annotations

import asyncio
import os
import sys

from fixes.audit import Audit
from fixes.store import connect
from tests.fix_cluster import NAMESPACE


async def main(kubeconfig: str) -> None:
    async with connect(kubeconfig, NAMESPACE) as store:
        audit = Audit(store, f"writer {os.getpid()}")
        print("ready", flush=True)
        async for _, request in store.watch():
            await audit.follow(request)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
