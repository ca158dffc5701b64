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

from certificates.names import server_name
from node_probe import certs
from node_probe.errors import CannotStart


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path: Path) -> list[str]:
    found = load(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    certs.add_arguments(parser)
    return certs.run(parser.parse_args(words))


def test_each_certificate_says_what_it_is_for(tmp_path: Path) -> None:
    certs.make(tmp_path, ["node-a", "node-b"], days=30)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted((*certs.NAMES, "node-a", "node-b"))
    authority, bot, probe = (load(tmp_path / f"{name}.crt") for name in ("ca", "bot", "node-a/probe"))
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
    assert names(tmp_path / "node-a" / "probe.crt") == ["node-a.probe.calico-why"]
    assert names(tmp_path / "node-b" / "probe.crt") == ["node-b.probe.calico-why"]
    assert (tmp_path / "node-b" / "ca.crt").read_bytes() == (tmp_path / "ca.crt").read_bytes()
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    now = datetime.datetime.now(datetime.UTC)
    for certificate in (authority, bot, probe):
        assert certificate.not_valid_before_utc < now - datetime.timedelta(minutes=5), "clocks of nodes differ"
        assert abs(certificate.not_valid_after_utc - now - datetime.timedelta(days=30)) < datetime.timedelta(minutes=5)


def test_what_is_no_dns_name_is_told_by_its_hash_and_no_two_nodes_are_told_alike() -> None:
    fits = ["node-a", "ip-10-0-0-1.eu.compute.internal", "10.0.0.1", "a" * 63, ".".join(["a" * 58] * 4)]
    strange = ["a" * 64, ".".join(["a" * 62] * 4), "Node-A", "a..b", "a_b", "-a", ""]
    told = [server_name(one) for one in (*fits, *strange)]
    assert told[: len(fits)] == [f"{one}.probe.calico-why" for one in fits]
    assert len(set(told)) == len(told)
    for one in told:
        assert len(one) <= 253 and all(0 < len(label) <= 63 for label in one.split("."))
    hashed = server_name("a" * 64)
    assert server_name(hashed.removesuffix(".calico-why")) != hashed, "nor is a node called as the hash of another"


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "certs"
    certs.make(directory, ["node-a"])
    files = [one for one in directory.rglob("*") if one.is_file()]
    assert len(files) == len(certs.NAMES) + len(certs.FILES)
    for file in files:
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == 0o600 if file.suffix == ".key" else mode & 0o133 == 0, file
    for one in (directory, directory / "node-a"):
        assert stat.S_IMODE(one.stat().st_mode) & 0o077 == 0


def test_keys_belong_to_their_certificates_under_strict_verification(tmp_path: Path) -> None:
    certs.make(tmp_path, ["node-a"])
    for purpose, name in ((ssl.Purpose.SERVER_AUTH, "bot"), (ssl.Purpose.CLIENT_AUTH, "node-a/probe")):
        context = ssl.create_default_context(purpose, cafile=str(tmp_path / "ca.crt"))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")


def test_nothing_is_overwritten_without_being_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--directory", str(tmp_path), "--nodes", "node-a")
    (tmp_path / "bot.key").write_text("precious")
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "bot.key already" in said and "--force" in said and "Traceback" not in said
    assert [one.name for one in tmp_path.iterdir()] == ["bot.key"]
    assert (tmp_path / "bot.key").read_text() == "precious"
    assert run(*words, "--force") == 0
    assert "BEGIN PRIVATE KEY" in (tmp_path / "bot.key").read_text()
    assert stat.S_IMODE((tmp_path / "bot.key").stat().st_mode) == 0o600
    assert "ca.key" in capsys.readouterr().out


def test_a_node_that_came_later_gets_one_of_the_same_authority(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--directory", str(tmp_path), "--nodes", "node-a,node-b") == 0
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    assert run("--directory", str(tmp_path), "--nodes", "node-c", "--nodes", "node-b") == 2
    assert "node-b/probe.crt" in capsys.readouterr().err and not (tmp_path / "node-c").exists()
    assert run("--directory", str(tmp_path), "--nodes", "node-c", "--nodes", "node-d") == 0
    assert all(file.read_bytes() == content for file, content in before.items())
    for node in "cd":
        load(tmp_path / f"node-{node}" / "probe.crt").verify_directly_issued_by(load(tmp_path / "ca.crt"))
        assert names(tmp_path / f"node-{node}" / "probe.crt") == [f"node-{node}.probe.calico-why"]


def test_a_new_authority_each_time(tmp_path: Path) -> None:
    certs.make(tmp_path / "one", ["node-a"])
    certs.make(tmp_path / "two", ["node-a"])
    with pytest.raises(InvalidSignature):
        load(tmp_path / "one" / "bot.crt").verify_directly_issued_by(load(tmp_path / "two" / "ca.crt"))


def test_what_is_in_the_way_is_a_sentence(tmp_path: Path) -> None:
    for days in (0, -1, 10**6):
        with pytest.raises(CannotStart, match="make no certificate"):
            certs.make(tmp_path / "certs", ["node-a"], days=days)
    with pytest.raises(CannotStart, match="name their nodes with --nodes"):
        certs.make(tmp_path / "certs", [])
    for node in ("../node-a", "Node", "a/b", ""):
        with pytest.raises(CannotStart, match="no name that a node has"):
            certs.make(tmp_path / "certs", [node])
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="cannot be written to"):
        certs.make(tmp_path / "file" / "certs", ["node-a"])
    certs.make(tmp_path / "certs", ["node-a"])
    (tmp_path / "certs" / "ca.key").write_text("nonsense")
    with pytest.raises(CannotStart, match="no authority that could sign more"):
        certs.make(tmp_path / "certs", ["node-b"])
