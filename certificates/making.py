"""Keys, requests and certificates; without it nobody could tell bot and probes from strangers.

Everything is PEM. Times are of this machine; whoever signs does it for clocks that may be ten minutes behind.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from certificates.names import BOT, server_name

AUTHORITY = "calico-why"
PROBE = "probe"
SKEW = datetime.timedelta(minutes=10)  # clocks of nodes differ: a fresh certificate must not come from the future
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


class Pair(NamedTuple):
    """What everybody may see, a certificate or the request for one, and the key that belongs to it."""

    public: bytes
    key: bytes


def authority(life: datetime.timedelta) -> Pair:
    """A new one, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(AUTHORITY, _name(AUTHORITY), key.public_key(), _now() + life)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key(key))


def bot(authority: Pair, life: datetime.timedelta) -> Pair:
    """A client certificate for the bot, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(signed(authority, key.public_key(), BOT, CLIENT, (), life), _key(key))


def probe(authority: Pair, node: str, life: datetime.timedelta) -> Pair:
    """A server certificate for the probe of a node, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(signed(authority, key.public_key(), PROBE, SERVER, (server_name(node),), life), _key(key))


def request(node: str) -> Pair:
    """A PKCS#10 request for the certificate of a node's probe, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(server_name(node))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(PROBE)).add_extension(names, critical=False)
    return Pair(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _key(key))


def signed(
    authority: Pair,
    key: ec.EllipticCurvePublicKey,
    common: str,
    usage: ObjectIdentifier,
    names: Sequence[str],
    life: datetime.timedelta,
) -> bytes:
    """A certificate for a key. common: of its subject; names: DNS. It does not outlive the authority's own."""
    issuer, signer = load(authority.public), _issuing(authority.key)
    builder = _builder(common, issuer.subject, key, min(_now() + life, issuer.not_valid_after_utc))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    builder = builder.add_extension(_identifier(issuer, signer), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
    return _pem(builder.sign(signer, hashes.SHA256()))


def load(certificate: bytes) -> x509.Certificate:
    """The first certificate of a text. Raises ValueError."""
    return x509.load_pem_x509_certificate(certificate)


def bundle(text: bytes) -> list[x509.Certificate]:
    """All certificates of a text, in its order. Raises ValueError where it is no such text."""
    return x509.load_pem_x509_certificates(text) if text.strip() else []


def text_of(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(map(_pem, certificates))


def names_of(certificate: x509.Certificate) -> list[str]:
    """DNS names it is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return found.get_values_for_type(x509.DNSName)


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def belong_together(pair: Pair) -> bool:
    """Whether it is a certificate and its own key."""
    try:
        return load(pair.public).public_key() == _issuing(pair.key).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def renewed_from(certificate: x509.Certificate) -> datetime.datetime:
    """When two thirds of its life are over: what is left is for those who renew it to be down."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * 2 / 3


def _issuing(key: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    found = serialization.load_pem_private_key(key, None)
    if not isinstance(found, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError("an authority's key is an ECDSA or an RSA one here")
    return found


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _identifier(
    authority: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> x509.AuthorityKeyIdentifier:
    """As the authority calls its key itself: there are several ways (of Go's from 1.25 on is another than ours), and
    OpenSSL takes one that differs for another authority."""
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
