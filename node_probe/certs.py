"""`calico-why certs`: the private authority by which bot and probes know each other; without it anybody could ask."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node_probe.errors import CannotStart

HELP = "make the certificates bot and probes need to trust each other"
SERVER_NAME = "probe.calico-why"
DAYS = 365
SKEW = datetime.timedelta(minutes=10)  # clocks of nodes differ: a fresh certificate must not come from the future
NAMES = ("ca.crt", "ca.key", "bot.crt", "bot.key", "probe.crt", "probe.key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        default=os.environ.get("CALICO_WHY_CERTS") or "certs",
        metavar="DIR",
        help="where to write ca, bot and probe (.crt and .key) (default: CALICO_WHY_CERTS, else certs)",
    )
    parser.add_argument(
        "--days", type=int, default=DAYS, metavar="N", help="how long they are valid (default %(default)s)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace what is there; running bots and probes need the new ones"
    )


def run(args: argparse.Namespace) -> int:
    """0; what is in the way is said in a sentence: 2 or 3."""
    directory = Path(args.directory)
    try:
        make(directory, days=args.days, force=args.force)
    except CannotStart as error:
        print(error.sentence, file=sys.stderr)
        return error.status
    print(
        f"{directory} holds what both sides need for {args.days} days: ca.crt, bot.crt and bot.key for the bot; "
        "ca.crt, probe.crt and probe.key for every probe. Keep ca.key away from both: whoever has it can be the bot."
    )
    return 0


def make(directory: Path, *, days: int = DAYS, force: bool = False) -> None:
    """Writes the authority, the bot's client and the probes' server certificate, keys with mode 0600.

    Raises CannotStart when one of the files exists (unless `force`), or none can be written.
    """
    if not 0 < days <= 36500:
        raise CannotStart(f"{days} days make no certificate; give a number from 1 to 36500.", status=2)
    there = [name for name in NAMES if (directory / name).exists()]
    if there and not force:
        raise CannotStart(
            f"{directory} holds {', '.join(there)} already, and bots and probes may be using them: "
            "nothing was written. Give another --directory, or --force to replace them.",
            status=2,
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in _contents(days).items():
            _write(directory / name, content, mode=0o600 if name.endswith(".key") else 0o644)
    except OSError as error:
        raise CannotStart(f"The certificates cannot be written to {directory}: {error.strerror}.") from error


def _contents(days: int) -> dict[str, bytes]:
    authority, root = _authority(days)
    files = {"ca.crt": _certificate(root), "ca.key": _key(authority)}
    for name, usage, names in (
        ("bot", ExtendedKeyUsageOID.CLIENT_AUTH, []),
        ("probe", ExtendedKeyUsageOID.SERVER_AUTH, [x509.DNSName(SERVER_NAME)]),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(name, root.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        files |= {f"{name}.crt": _certificate(builder.sign(authority, hashes.SHA256())), f"{name}.key": _key(key)}
    return files


def _authority(days: int) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("calico-why", _name("calico-why"), key, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return key, builder.sign(key, hashes.SHA256())


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """A new file in its place: nobody reads half of one, and a key is never readable by others, not even at first."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    fresh.replace(path)
