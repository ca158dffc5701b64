"""What the certificates say, who may read the keys, and what is never overwritten."""

from __future__ import annotations

import argparse
import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from node_probe import certs
from node_probe.errors import CannotStart


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    certs.add_arguments(parser)
    return certs.run(parser.parse_args(words))


def test_each_certificate_says_what_it_is_for(tmp_path: Path) -> None:
    certs.make(tmp_path, days=30)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(certs.NAMES)
    authority, bot, probe = (load(tmp_path / f"{name}.crt") for name in ("ca", "bot", "probe"))
    for certificate, name, usage in (
        (bot, "bot", ExtendedKeyUsageOID.CLIENT_AUTH),
        (probe, "probe", ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        certificate.verify_directly_issued_by(authority)
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == name
        assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    names = probe.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["probe.calico-why"]
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    now = datetime.datetime.now(datetime.UTC)
    for certificate in (authority, bot, probe):
        assert certificate.not_valid_before_utc < now - datetime.timedelta(minutes=5), "clocks of nodes differ"
        assert abs(certificate.not_valid_after_utc - now - datetime.timedelta(days=30)) < datetime.timedelta(minutes=5)


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "certs"
    certs.make(directory)
    for file in directory.iterdir():
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == 0o600 if file.suffix == ".key" else mode & 0o133 == 0, file
    assert stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0


def test_keys_belong_to_their_certificates_under_strict_verification(tmp_path: Path) -> None:
    certs.make(tmp_path)
    for purpose, name in ((ssl.Purpose.SERVER_AUTH, "bot"), (ssl.Purpose.CLIENT_AUTH, "probe")):
        context = ssl.create_default_context(purpose, cafile=str(tmp_path / "ca.crt"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")


def test_nothing_is_overwritten_without_being_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bot.key").write_text("precious")
    assert run("--directory", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "bot.key already" in said and "--force" in said and "Traceback" not in said
    assert [one.name for one in tmp_path.iterdir()] == ["bot.key"]
    assert (tmp_path / "bot.key").read_text() == "precious"
    assert run("--directory", str(tmp_path), "--force") == 0
    assert "BEGIN PRIVATE KEY" in (tmp_path / "bot.key").read_text()
    assert stat.S_IMODE((tmp_path / "bot.key").stat().st_mode) == 0o600
    assert "ca.key" in capsys.readouterr().out


def test_a_new_authority_each_time(tmp_path: Path) -> None:
    certs.make(tmp_path / "one")
    certs.make(tmp_path / "two")
    with pytest.raises(InvalidSignature):
        load(tmp_path / "one" / "bot.crt").verify_directly_issued_by(load(tmp_path / "two" / "ca.crt"))


def test_what_is_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    for days in (0, -1, 10**6):
        with pytest.raises(CannotStart, match="make no certificate"):
            certs.make(tmp_path / "certs", days=days)
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="cannot be written to"):
        certs.make(tmp_path / "file" / "certs")
