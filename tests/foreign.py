"""Authorities as other programs make them; without it nothing here would be signed by any but our own."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certificates.making import Pair


def authority(
    *extensions: x509.ExtensionType, of: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[Pair, x509.Name, ec.EllipticCurvePrivateKey]:
    """Not one of ours. of: the one above it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "yours" if of else "kubernetes")])
    issuer, signer = of or (name, key)
    builder = _valid(x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key()))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    for one in extensions:
        builder = builder.add_extension(one, critical=False)
    return _pair(builder, signer, key), name, key


def server(name: x509.Name, signer: ec.EllipticCurvePrivateKey, address: str) -> Pair:
    """What an authority of that name and key signs for a server at that address, without any identifier, as in many
    older clusters."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    builder = _valid(x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key.public_key()))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    return _pair(builder.add_extension(names, critical=False), signer, key)


def _valid(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=90))


def _pair(
    builder: x509.CertificateBuilder, signer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> Pair:
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    public = builder.sign(signer, hashes.SHA256()).public_bytes(pem)
    return Pair(public, key.private_bytes(pem, private, serialization.NoEncryption()))


def strict_as_from_python_3_13(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the image is, and perhaps not this one."""
    made = ssl.create_default_context

    def strict(*args: Any, **named: Any) -> ssl.SSLContext:
        context = made(*args, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
