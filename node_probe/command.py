"""`calico-why probe`: looks at one node for the bot and leaves it as it was; without it the bot sees the API only."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
from pathlib import Path

from facts import heap, logs
from node_probe.errors import CannotStart

HELP = "look at the node this runs on, for the bot (one per node, in the node's network)"
DEFAULT_PORT = "9797"
EVERYWHERE = "[::]"
GRACE_S = 3.0
WAIT_S = 0.5  # between two looks for certificates that are not there yet
TRACE_MODES = {  # what each does to the node, for its log
    "all": "where packets are lost, nftables and iptables-legacy tell what they do with them: "
    "while a question lasts the node has a table why_trace_*, and its packet log is read here (--trace all)",
    "nft": "where packets are lost, nftables tells what it does with them: "
    "while a question lasts the node has a table why_trace_* (--trace nft)",
    "off": "packets are not followed through the firewall; its counters are compared (--trace off)",
}
CAPTURE_MODES = {  # what each lets the bot have, for the log
    "all": "packets of one flow are captured for who holds the bot's certificate, with their payload where that is "
    "asked for (--capture all)",
    "headers": "headers of one flow's packets are captured for who holds the bot's certificate (--capture headers)",
    "off": "nothing is captured (--capture off)",
}

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    port = os.environ.get("CALICO_WHY_PROBE_PORT") or DEFAULT_PORT
    parser.add_argument("--node", required=True, help="name of this node in the Kubernetes API")
    parser.add_argument(
        "--listen",
        default=f"{EVERYWHERE}:{port}",
        metavar="ADDRESS:PORT",
        help="where the bot reaches it (default %(default)s, IPv4 too; port from CALICO_WHY_PROBE_PORT)",
    )
    parser.add_argument(
        "--certs",
        default=os.environ.get("CALICO_WHY_CERTS", ""),
        metavar="DIR",
        help="directory with ca.crt, probe.crt, probe.key, or with a directory NODE that has them "
        "(default: CALICO_WHY_CERTS)",
    )
    parser.add_argument(
        "--wait-for-certs",
        action="store_true",
        help="where there are none yet, wait until `calico-why certificate` beside it has fetched them",
    )
    parser.add_argument(
        "--trace",
        default=os.environ.get("CALICO_WHY_TRACE") or "all",
        metavar="|".join(TRACE_MODES),
        help="how fresh packets that are lost are followed through the node's firewall: all; nft, without switching "
        "the kernel's packet log for iptables-legacy; or off, by counters alone (default: CALICO_WHY_TRACE, else all)",
    )
    parser.add_argument(
        "--capture",
        default=os.environ.get("CALICO_WHY_CAPTURE") or "all",
        metavar="|".join(CAPTURE_MODES),
        help="what `calico-why capture` may have of this node's packets: all; headers, never a payload; or off "
        "(default: CALICO_WHY_CAPTURE, else all)",
    )
    logs.add_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT: 0. What keeps it from starting is said in a sentence: 2 or 3."""
    logs.start(args.log)
    try:
        host, port = _address(args.listen)
        if not args.certs:
            raise CannotStart(
                "No certificates were named, so nobody could be let in: "
                "give --certs DIR or set CALICO_WHY_CERTS; `calico-why certs` makes them.",
                status=2,
            )
        if args.trace not in TRACE_MODES:
            raise CannotStart(f"--trace {args.trace} is none of {', '.join(TRACE_MODES)}.", status=2)
        if args.capture not in CAPTURE_MODES:
            raise CannotStart(f"--capture {args.capture} is none of {', '.join(CAPTURE_MODES)}.", status=2)
        asyncio.run(_serve(args, host, port))
    except CannotStart as error:
        logs.end(error.sentence)
        return error.status
    return 0


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise CannotStart(f"--listen {text} is not ADDRESS:PORT, such as {EVERYWHERE}:{DEFAULT_PORT}.", status=2)
    return host, int(port)


async def _serve(args: argparse.Namespace, host: str, port: int) -> None:
    # Only now: what is wrong with the words can be said without loading a web server.
    from aiohttp import web

    from node_probe import drop_reasons
    from node_probe.answer import Prober
    from node_probe.door import Door
    from node_probe.firewall.trace import sweep
    from node_probe.server import application

    heap.keep_small()
    node, certs = str(args.node), Path(args.certs)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, ended.set)
    if not await _certified(certs, node, args.wait_for_certs, ended):
        return
    try:
        prober = Prober(node, trace=args.trace)
    except OSError as error:
        raise CannotStart(
            f"The kernel offers no netlink socket here, so nothing can be read: {error.strerror}."
        ) from error
    with contextlib.suppress(OSError):  # no NET_ADMIN: nothing of ours can have been left either
        sweep()
    drop_reasons.sweep()
    listening = _listening(host, port)
    door = Door(listening, certs, node)
    # No access log: at fifty questions a second it would be all there is to read.
    app = application(prober, capture=args.capture, door=door)
    # Whoever hangs up, or dies, is answered no further: what is open for a question is closed with it.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=GRACE_S, handler_cancellation=True)
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("aiohttp made no server")
        opened = asyncio.create_task(door.open(runner.server))
        where, number, *_ = listening.getsockname()
        log.info("probe of %s listens on %s:%s", node, f"[{where}]" if ":" in where else where, number)
        door.tell()
        log.info(TRACE_MODES[args.trace])
        log.info(CAPTURE_MODES[args.capture])
        await asyncio.wait({opened, asyncio.ensure_future(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if opened.done():
            opened.result()
        opened.cancel()
    finally:
        door.close()
        await runner.cleanup()


async def _certified(certs: Path, node: str, wait: bool, ended: asyncio.Event) -> bool:
    """Whether there are certificates before it is ended. wait: for those that somebody fetches. Raises CannotStart."""
    from node_probe.door import tls

    told = False
    while not ended.is_set():
        try:
            tls(certs, node)
            return True
        except CannotStart as error:
            if not wait:
                raise
            if not told:
                log.warning("%s Waiting for them (--wait-for-certs).", error.sentence)
            told = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), WAIT_S)
    return False


def _listening(host: str, port: int) -> socket.socket:
    try:
        return _bound(host, port)
    except OSError as error:
        why = {
            errno.EADDRINUSE: "another process listens there; stop it or give another port with --listen",
            errno.EADDRNOTAVAIL: "this node has no such address; give one of its own with --listen",
            errno.EACCES: "this user may not; give a port above 1023 with --listen",
        }.get(error.errno or 0, error.strerror or str(error))
        raise CannotStart(f"The probe cannot listen on {host}:{port}: {why}.") from error


def _bound(host: str, port: int) -> socket.socket:
    """:: takes IPv4 as well; a kernel without IPv6 takes IPv4 alone."""
    if host != "::":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("0.0.0.0", port))
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True)
