"""The probe's listening socket, open for certificates of now; without it a probe would have to be started anew, in the
middle of a question, each time they are renewed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from certificates import making
from certificates.files import Stamp, generation, stamp
from node_probe.certs import FILES
from node_probe.errors import CannotStart

LOOK_S = 2.0  # between two looks at the files
REST_S = 0.1
HANDSHAKE_S = 5  # for a stranger who connects and says nothing

log = logging.getLogger(__name__)


def place(directory: Path, node: str) -> Path:
    """Where a node's files are: DIRECTORY/NODE, where `calico-why certs` puts those of many, else the directory."""
    own = directory / node
    return own if (own / FILES[1]).exists() else directory


def tls(directory: Path, node: str) -> ssl.SSLContext:
    """Mutual TLS out of the ca.crt, probe.crt and probe.key of a node. Raises CannotStart."""
    directory = place(directory, node)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority of yours may be another one's
    there = generation(directory)
    files = [there / name for name in FILES]
    advice = (
        f"make them with `calico-why certs --nodes {node} --directory {directory}`, "
        "or name another directory with --certs"
    )
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CannotStart(f"{directory} holds no {', '.join(missing)}, so nobody could be let in: {advice}.")
    try:
        context.load_verify_locations(files[0])
        context.load_cert_chain(files[1], files[2])
    except PermissionError as error:
        raise CannotStart(f"{error.filename or directory} may not be read by this user: {error.strerror}.") from error
    except (ssl.SSLError, OSError) as error:
        why = getattr(error, "reason", "") or error.strerror or str(error)
        raise CannotStart(f"the certificates in {directory} cannot be used ({why}): {advice}.") from error
    return context


class Door:
    """Lets in over TLS whoever connects to a listening socket, by the files of then. It owns the socket.

    It is never closed for another to take its place: what waited there, or was being let in, would be lost.
    """

    def __init__(self, listening: socket.socket, directory: Path, node: str) -> None:
        """Raises CannotStart."""
        self._listening = listening
        self._directory = directory
        self._node = node
        self._stamp = self._seen()
        self._take_up()
        self._coming = set[asyncio.Task[None]]()

    async def open(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        """Never returns; to be cancelled."""
        self._listening.setblocking(False)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._accept(protocol))
            group.create_task(self._keep())

    async def _accept(self, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as error:  # who connected has gone, or too many files are open
                log.warning("a connection is not accepted: %s", error)
                await asyncio.sleep(REST_S)
                continue
            task = loop.create_task(self._let_in(connection, protocol))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _let_in(self, connection: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        with contextlib.suppress(OSError):  # a stranger, who is told so by TLS
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=self.context, ssl_handshake_timeout=HANDSHAKE_S
            )

    async def _keep(self) -> None:
        """Takes up new files as they come."""
        while True:
            await asyncio.sleep(LOOK_S)
            seen = self._seen()
            if seen == self._stamp or seen is None:  # renewed by hand, file by file, one may be missing for a moment
                continue
            self._stamp = seen
            try:
                self._take_up()
            except CannotStart as error:
                log.warning("new certificates are not taken up: %s", error.sentence)
            else:
                self.tell()

    @property
    def until(self) -> datetime:
        """When what it shows runs out, or did."""
        return self._until

    def tell(self) -> None:
        """Until when the bot will believe it, into the log."""
        if self.until <= datetime.now(UTC):
            log.warning("the certificate of this probe has expired (%s): the bot will not believe it", self.until)
        else:
            log.info("the certificate of this probe is valid until %s", self.until)

    def _take_up(self) -> None:
        """Raises CannotStart."""
        self.context = tls(self._directory, self._node)
        certificate = (generation(place(self._directory, self._node)) / FILES[1]).read_bytes()
        self._until = making.load(certificate).not_valid_after_utc

    def _seen(self) -> Stamp | None:
        try:
            return stamp(generation(place(self._directory, self._node)), FILES)
        except OSError:
            return None

    def close(self) -> None:
        """Nobody is let in any more."""
        self._listening.close()
        for task in self._coming:
            task.cancel()
