"""The bot's own certificate, as the files of now have it; without it a bot would have to be started anew whenever it is
renewed, and would learn from every probe in its turn that it has expired."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from certificates.files import Stamp, generation, stamp
from certificates.trouble import brief
from facts import say

FILES = ("ca.crt", "bot.crt", "bot.key")


class NoIdentity(Exception):
    """Nothing to show to a probe. reason: why, as `say` puts it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Held(NamedTuple):
    stamp: Stamp
    context: ssl.SSLContext
    expires: datetime
    trusts_until: datetime  # the last of its authorities


class Identity:
    """What a directory holds: ca.crt, bot.crt and bot.key. None: nobody named one."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._held: _Held | None = None

    def tls(self) -> ssl.SSLContext:
        """Another one when the files are others: what is connected by one of before stays so. Raises NoIdentity."""
        held = self._now()
        if held.trusts_until <= datetime.now(UTC):  # else each probe's certificate would be said to have expired
            raise NoIdentity(
                say(
                    "the authority in {file} expired on {date}, so no probe is believed, nor believes the bot: in a "
                    "cluster calico-why-signer replaces it (see its log), by hand all certificates are made anew by "
                    "`calico-why certs --force`",
                    file=f"{self._directory}/ca.crt",
                    date=f"{held.trusts_until:%Y-%m-%d %H:%M} UTC",
                )
            )
        if held.expires <= datetime.now(UTC):
            raise NoIdentity(
                say(
                    "the bot's certificate in {directory} expired on {date}, so no probe lets it in: in a cluster "
                    "calico-why-signer renews it (see its log), by hand it is made anew by `calico-why certs --force`",
                    directory=self._directory,
                    date=f"{held.expires:%Y-%m-%d %H:%M} UTC",
                )
            )
        return held.context

    def expires(self) -> datetime:
        """When it runs out, or did. Raises NoIdentity."""
        return self._now().expires

    def _now(self) -> _Held:
        if self._directory is None:
            raise NoIdentity(
                say("no certificates to ask its probe with: set CALICO_WHY_CERTS to what `calico-why certs` made")
            )
        try:
            files = generation(self._directory)
            seen = stamp(files, FILES)
            if self._held is None or seen != self._held.stamp:
                self._held = _Held(seen, *_loaded(files))
        except (OSError, ValueError) as error:  # of ssl, too
            if self._held is None:
                raise NoIdentity(
                    say(
                        "the certificates in {directory} (ca.crt, bot.crt, bot.key) cannot be used: {why}",
                        directory=self._directory,
                        why=brief(error),
                    )
                ) from error
            # Written by hand one after the other they do not fit each other for a moment: those of before still do.
        return self._held


def _loaded(files: Path) -> tuple[ssl.SSLContext, datetime, datetime]:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files / "ca.crt"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # An authority of yours may be another one's, and lack what Python looks for from 3.13 on.
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(files / "bot.crt", files / "bot.key")
    own = x509.load_pem_x509_certificate((files / "bot.crt").read_bytes())
    authorities = x509.load_pem_x509_certificates((files / "ca.crt").read_bytes())
    return context, own.not_valid_after_utc, max(one.not_valid_after_utc for one in authorities)
