"""`calico-why certificate`: has the certificate of one node's probe signed and renewed; without it the key of each node
would be made elsewhere, and lie where others could take it.

The key is made here and goes nowhere. Who asks is told to the signer by the API server, from the token of this pod.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from certificates import files, making, program
from certificates.cluster import AUTHORITY, REQUESTS, SIGNER, USAGES, Cluster, Object, Trouble
from certificates.making import Pair
from certificates.names import server_name
from facts import logs

HELP = "in a cluster: keep the certificate of this node's probe in a directory (beside the probe, which has no token)"
LOOK_S = 300.0  # between two looks at who is to be trusted
AGAIN_S, LONGEST_AGAIN_S = 2.0, 60.0
SIGNED_S = 600.0  # for a request to be signed
ASK_S, LONGEST_ASK_S = 0.5, 5.0  # between two looks whether it was

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", required=True, help="name of this node in the Kubernetes API")
    parser.add_argument(
        "--certs",
        default=os.environ.get("CALICO_WHY_CERTS") or "/etc/calico-why/certs",
        metavar="DIR",
        help="where ca.crt, probe.crt and probe.key are kept (default: CALICO_WHY_CERTS, else /etc/calico-why/certs)",
    )
    program.add_arguments(parser, "the signer is")


def run(args: argparse.Namespace) -> int:
    """0 when it was ended; 3 where there is no cluster, or no directory to write to."""
    try:
        return program.run(args, lambda cluster: Keeper(cluster, args.node, Path(args.certs)).run())
    except OSError as error:
        logs.end(f"The certificates cannot be kept in {args.certs}: {error.strerror}.")
        return 3


class Keeper:
    """Keeps ca.crt, probe.crt and probe.key of a node in a directory, all of one generation. now: the time."""

    def __init__(
        self, cluster: Cluster, node: str, directory: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._directory = directory
        self._now = now

    async def run(self) -> None:
        """Until cancelled. Raises OSError."""
        again = AGAIN_S
        while True:
            try:
                await self.once()
            except Trouble as error:
                log.warning("%s", error.sentence)
                await asyncio.sleep(again)
                again = min(again * 2, LONGEST_AGAIN_S)
            else:
                again = AGAIN_S
                await asyncio.sleep(LOOK_S * random.uniform(0.8, 1.2))  # lest all nodes ask at one moment

    async def once(self) -> None:
        """Has what is there renewed where it has to be. Raises Trouble, OSError."""
        trusted = await self._trusted()
        pair = self._own()
        if self._is_known(pair, trusted) and self._now() < making.renewed_from(making.load(pair.public)):
            if self._read("ca.crt") != making.text_of(trusted):
                self._write(trusted, pair)
            return
        pair = await self._signed()
        trusted = await self._trusted()
        if not self._is_known(pair, trusted):
            raise Trouble(f"What was signed for {self._node} is of an authority that is not in ConfigMap {AUTHORITY}.")
        self._write(trusted, pair)
        log.info("the probe of %s has a certificate until %s", self._node, making.load(pair.public).not_valid_after_utc)

    async def _trusted(self) -> list[x509.Certificate]:
        config_map = await self._cluster.config_map(AUTHORITY)
        try:
            found = making.bundle(((config_map.get("data") or {}).get("ca.crt") or "").encode())
        except ValueError as error:
            raise Trouble(f"The ConfigMap {AUTHORITY} has no certificates in its ca.crt ({error}).") from error
        if not found:
            raise Trouble(f"The ConfigMap {AUTHORITY} is empty: `calico-why signer` has not made an authority yet.")
        return found

    def _own(self) -> Pair:
        return Pair(self._read("probe.crt"), self._read("probe.key"))

    def _read(self, name: str) -> bytes:
        try:
            return (files.generation(self._directory) / name).read_bytes()
        except FileNotFoundError:
            return b""

    def _is_known(self, pair: Pair, trusted: list[x509.Certificate]) -> bool:
        """To the bot, as the probe of this node."""
        if not making.belong_together(pair):
            return False
        certificate = making.load(pair.public)
        named = making.names_of(certificate) == [server_name(self._node)]
        return named and any(making.issued_by(certificate, one) for one in trusted)

    def _write(self, trusted: list[x509.Certificate], pair: Pair) -> None:
        told = {"ca.crt": making.text_of(trusted), "probe.crt": pair.public, "probe.key": pair.key}
        files.replace(self._directory, told)

    async def _signed(self) -> Pair:
        """A new key, and what was signed for it."""
        asked = making.request(self._node)
        made = await self._cluster.send("POST", REQUESTS, _document(asked.public))
        path, pause = f"{REQUESTS}/{made['metadata']['name']}", ASK_S
        try:
            async with asyncio.timeout(SIGNED_S):
                while not (certificate := _certificate(made)):
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, LONGEST_ASK_S)
                    made = await self._cluster.send("GET", path)
        except TimeoutError:
            raise Trouble(
                f"Nobody has signed {made['metadata']['name']} in {SIGNED_S:.0f} s; see Deployment calico-why-signer."
            ) from None
        return Pair(certificate, asked.key)


def _document(request: bytes) -> Object:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "calico-why-probe-"},
        "spec": {"request": base64.b64encode(request).decode(), "signerName": SIGNER, "usages": USAGES},
    }


def _certificate(request: Object) -> bytes:
    """b"" where it was not signed yet. Raises Trouble where it will not be."""
    status = request.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] in ("Denied", "Failed"):
            raise Trouble(
                f"{request['metadata']['name']} is not signed: {condition.get('message') or condition['type']}."
            )
    return base64.b64decode(status.get("certificate") or "")
