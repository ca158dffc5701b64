"""Runs the server by itself, for a look with kubectl: `python -m lab.apiserver`."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import socket
import tempfile
from pathlib import Path

from lab.apiserver import ApiServer, Store, User
from lab.apiserver.calico_definitions import GROUPS, Group, install
from lab.apiserver.certificate import make
from lab.apiserver.kubeconfig import kubeconfig


async def _serve(port: int, group: Group | None) -> None:
    store = Store()
    if group is not None:
        install(store, group)
    token = secrets.token_urlsafe(24)
    server = ApiServer(store, {token: User("admin", grants=None)})
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, ended.set)
    certificate = make()
    url = await server.start(socket.create_server(("127.0.0.1", port)), tls=certificate.context)
    with tempfile.TemporaryDirectory(prefix="calico-why-apiserver-") as directory:
        path = Path(directory) / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(kubeconfig(url, token, certificate.authority), encoding="utf-8")
        print(path, flush=True)
        await ended.wait()
        await server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.apiserver",
        description="Serves an empty cluster on 127.0.0.1 and prints the path of a kubeconfig; ends on Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument(
        "--calico",
        choices=(*GROUPS, "none"),
        default="crd.projectcalico.org",
        help="which group the Calico kinds are in (default: %(default)s)",
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.port, None if arguments.calico == "none" else arguments.calico))
    except OSError as error:
        parser.exit(3, f"Cannot listen on 127.0.0.1:{arguments.port}: {error.strerror}. Choose another --port.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
