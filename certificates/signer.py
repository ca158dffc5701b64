"""`calico-why signer`: the authority of bot and probes in a cluster; without it somebody would have to make
certificates by hand, hand each node its key, and remember when they run out.

It keeps the authority in the Secret calico-why-authority, publishes whom to trust in the ConfigMap of that name, gives
the bot its certificate in the Secret calico-why-bot-certs, and signs for each probe what its node asks for. It writes
by compare-and-swap, so that two of them do no harm.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from certificates import making, program
from certificates.cluster import (
    AUTHORITY,
    BOT_CERTS,
    NODE_ACCOUNT,
    NODE_NAME,
    REQUESTS,
    SIGNER,
    USAGES,
    Cluster,
    Object,
    Trouble,
    content,
    with_content,
)
from certificates.making import Pair
from certificates.names import server_name

HELP = "in a cluster: make and renew the certificates of bot and probes (one, or one pass with --once)"
LIFE = timedelta(days=30)
AUTHORITY_LIFE = timedelta(days=365)
# From when an authority was published until it signs. Nodes look every five minutes, kubelets every one or two.
TRUSTED_FIRST = timedelta(minutes=30)
PASS_S = 60
AGAIN_S = 5.0
OURS = "calico-why.io/made-by"  # on the Secret of an authority that was made here, and is renewed here
SINCE = "calico-why.io/trusted-since"  # on the ConfigMap: of each authority since when, in seconds since 1970

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="do what there is to do, and end")
    program.add_arguments(parser, "bot and probes are")


def run(args: argparse.Namespace) -> int:
    """0 when it was ended, or all was done once; else 3."""

    async def sign(cluster: Cluster) -> None:
        signer = Signer(cluster)
        if args.once:
            await signer.once()
            return
        log.info("Signs for the probes of namespace %s.", cluster.namespace)
        await signer.run()

    return program.run(args, sign, lasting=not args.once)


class Lives(NamedTuple):
    """How long certificates are valid, and how long an authority is published before it signs."""

    certificate: timedelta = LIFE
    authority: timedelta = AUTHORITY_LIFE
    trusted_first: timedelta = TRUSTED_FIRST


class Signer:
    """Keeps what bot and probes trust each other by. now: the time."""

    def __init__(
        self, cluster: Cluster, lives: Lives | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cluster = cluster
        self._lives = lives or Lives()
        self._now = now
        self._account = f"system:serviceaccount:{cluster.namespace}:{NODE_ACCOUNT}"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                signing, version = await self.once()
                async with contextlib.aclosing(self._cluster.further(version, PASS_S)) as further:
                    async for request in further:
                        await self._decide(request, signing)
            except Trouble as error:
                log.warning("%s", error.sentence)
                await asyncio.sleep(AGAIN_S)

    async def once(self) -> tuple[Pair | None, str]:
        """All there is to do now. What signs, and from where to watch for more requests. Raises Trouble."""
        signing = await self._keep()
        waiting, version = await self._cluster.requests()
        for request in waiting:
            await self._decide(request, signing)
        return signing, version

    # ---- the authority

    async def _keep(self) -> Pair | None:
        """Authority, what is trusted, and the bot's certificate, renewed. What may sign now, None: nothing yet."""
        secret = await self._cluster.secret(AUTHORITY)
        ours = OURS in (secret["metadata"].get("annotations") or {})
        current, following = _pair(secret, "tls"), _pair(secret, "next")
        if current is None and content(secret, "tls.crt"):
            raise Trouble(f"The Secret {AUTHORITY} has a tls.crt and no tls.key of it: nothing is signed.")
        if current and self._is_over(current):
            if not ours:
                raise Trouble(
                    f"The authority in Secret {AUTHORITY} expired on {_until(current)}, and who made it did not renew "
                    "it: nothing is signed."
                )
            current, following = None, None
        if current is None:
            current = making.authority(self._lives.authority)
            secret = await self._store(secret, current, None)
            log.info("made an authority, valid until %s", _until(current))
            ours = True
        if ours and following is None and self._now() >= making.renewed_from(making.load(current.public)):
            following = making.authority(self._lives.authority)
            secret = await self._store(secret, current, following)
            log.info(
                "made the next authority, valid until %s; it signs when it is trusted everywhere", _until(following)
            )
        trusted, since = await self._publish([one for one in (current, following) if one])
        if following and self._is_trusted(following, since):
            current, following = following, None
            await self._store(secret, current, None)
            log.info("the next authority signs from now on")
        signing = current if self._is_trusted(current, since) else None
        if signing is None:
            log.info(
                "there is another authority; it signs when it has been published for %s", self._lives.trusted_first
            )
        await self._certify_bot(signing, trusted)
        return signing

    async def _store(self, secret: Object, current: Pair, following: Pair | None) -> Object:
        files = {"tls.crt": current.public, "tls.key": current.key}
        files |= {"next.crt": following.public, "next.key": following.key} if following else {}
        annotations = {**(secret["metadata"].get("annotations") or {}), OURS: "calico-why-signer"}
        metadata = {**secret["metadata"], "annotations": annotations}
        return await self._cluster.replace(with_content({**secret, "metadata": metadata}, files))

    async def _publish(self, authorities: list[Pair]) -> tuple[list[x509.Certificate], dict[str, float]]:
        """Has these trusted beside those that are. All that are, and since when each is, in seconds since 1970."""
        config_map = await self._cluster.config_map(AUTHORITY)
        before = ((config_map.get("data") or {}).get("ca.crt") or "").encode()
        annotations = config_map["metadata"].get("annotations") or {}
        try:
            there = making.bundle(before)
            since = {str(key): float(value) for key, value in json.loads(annotations.get(SINCE) or "{}").items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise Trouble(f"The ConfigMap {AUTHORITY} cannot be read ({error}): nothing is signed.") from error
        trusted = [one for one in there if one.not_valid_after_utc > self._now()]
        # Where nothing is trusted nobody has to be told of something else first.
        begins = self._now().timestamp() if trusted else 0.0
        for certificate in (making.load(one.public) for one in authorities):
            if certificate not in trusted:
                trusted.append(certificate)
                since[_fingerprint(certificate)] = begins
        since = {_fingerprint(one): since.get(_fingerprint(one), 0.0) for one in trusted}
        text = making.text_of(trusted)
        if text != before:
            metadata = {**config_map["metadata"], "annotations": {**annotations, SINCE: json.dumps(since)}}
            await self._cluster.replace({**config_map, "metadata": metadata, "data": {"ca.crt": text.decode()}})
            log.info("%d authorities are trusted", len(trusted))
        return trusted, since

    def _is_over(self, authority: Pair) -> bool:
        return making.load(authority.public).not_valid_after_utc <= self._now()

    def _is_trusted(self, authority: Pair, since: dict[str, float]) -> bool:
        """Everywhere, for certain."""
        begun = since[_fingerprint(making.load(authority.public))]
        return self._now().timestamp() - begun >= self._lives.trusted_first.total_seconds()

    async def _certify_bot(self, signing: Pair | None, trusted: list[x509.Certificate]) -> None:
        secret = await self._cluster.secret(BOT_CERTS)
        pair = Pair(content(secret, "bot.crt"), content(secret, "bot.key"))
        if signing and not self._is_good(pair, trusted):
            pair = making.bot(signing, self._lives.certificate)
            log.info("made a certificate for the bot, valid until %s", _until(pair))
        made = {"bot.crt": pair.public, "bot.key": pair.key}
        files = {"ca.crt": making.text_of(trusted), **{name: told for name, told in made.items() if told}}
        if any(content(secret, name) != told for name, told in files.items()):
            await self._cluster.replace(with_content(secret, files))

    def _is_good(self, pair: Pair, trusted: list[x509.Certificate]) -> bool:
        if not making.belong_together(pair):
            return False
        certificate = making.load(pair.public)
        known = any(making.issued_by(certificate, one) for one in trusted)
        return known and self._now() < making.renewed_from(certificate)

    # ---- requests

    async def _decide(self, request: Object, signing: Pair | None) -> None:
        """Signs it, or says why not. One that somebody else decided meanwhile is left alone."""
        status = request.get("status") or {}
        kinds = {one["type"] for one in status.get("conditions") or []}
        if request["spec"]["signerName"] != SIGNER or status.get("certificate") or kinds & {"Denied", "Failed"}:
            return
        name = request["metadata"]["name"]
        try:
            wrong = refusal(request["spec"], self._account)
            if wrong:
                log.warning("%s of %s is refused: %s", name, request["spec"].get("username"), wrong)
                # What people have approved all the same cannot be denied any more.
                kind, endpoint = ("Failed", "status") if "Approved" in kinds else ("Denied", "approval")
                await self._write(request, endpoint, _condition(kind, "NotItsOwn", wrong))
            elif signing:
                if "Approved" not in kinds:
                    told = "asked for by the node that it names"
                    request = await self._write(request, "approval", _condition("Approved", "ItsOwn", told))
                await self._write(request, "status", {}, self._signed(request["spec"], signing))
                log.info("signed %s for %s", name, _node(request["spec"]))
        except Trouble as error:
            if error.status in (0, 401, 403) or error.status >= 500:
                raise
            if error.status not in (404, 409):
                log.warning("%s", error.sentence)

    async def _write(self, request: Object, endpoint: str, condition: Object, certificate: bytes = b"") -> Object:
        status = dict(request.get("status") or {})
        if condition:
            status["conditions"] = [*(status.get("conditions") or []), condition]
        if certificate:
            status["certificate"] = base64.b64encode(certificate).decode()
        path = f"{REQUESTS}/{request['metadata']['name']}/{endpoint}"
        return await self._cluster.send("PUT", path, {**request, "status": status})

    def _signed(self, spec: Object, signing: Pair) -> bytes:
        asked = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        key = asked.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("refusal() lets through keys of elliptic curves only")
        names = (server_name(_node(spec)),)
        return making.signed(signing, key, making.PROBE, making.SERVER, names, self._lives.certificate)


def refusal(spec: Object, account: str) -> str:
    """Why a request is not signed, "" where it is: who asked is that ServiceAccount, in a pod of the very node whose
    name is the only one in it. The API server wrote who that was, from a token that it made for a pod of that node."""
    if spec.get("username") != account:
        return f"only {account} may ask for the certificate of a probe"
    if not _node(spec):
        return (
            f"the token of who asked names no node ({NODE_NAME}): it is not of a pod, or Kubernetes is older than 1.30"
        )
    if sorted(spec.get("usages") or []) != sorted(USAGES):
        return f"a probe's certificate is for {' and '.join(USAGES)}"
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or ""))
        key = asked.public_key()
        if not asked.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
            return "it has to be signed by its own key, of an elliptic curve"
        (extension,) = asked.extensions
        names = list(extension.value) if isinstance(extension.value, x509.SubjectAlternativeName) else []
    except Exception:  # a stranger wrote it: what a library finds in there must not end the signer for all others
        names = []
    wanted = server_name(_node(spec))
    if names != [x509.DNSName(wanted)]:
        return f"who asked is on node {_node(spec)}, whose probe has the name {wanted} and no other"
    return ""


def _node(spec: Object) -> str:
    """Of the token by which it was asked for, "" where that names none."""
    names = (spec.get("extra") or {}).get(NODE_NAME) or []
    return str(names[0]) if len(names) == 1 else ""


def _condition(kind: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def _pair(secret: Object, name: str) -> Pair | None:
    pair = Pair(content(secret, f"{name}.crt"), content(secret, f"{name}.key"))
    return pair if making.belong_together(pair) else None


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def _until(pair: Pair) -> str:
    return f"{making.load(pair.public).not_valid_after_utc:%Y-%m-%d}"
