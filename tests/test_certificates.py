"""The signer, and what asks it on each node, in front of an API server with the rights of deploy/ and no others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from bot.sources.identity import Identity
from certificates import files, keeper, making
from certificates.cluster import AUTHORITY, BOT_CERTS, NODE_NAME, REQUESTS, Cluster, Object, Trouble, connect, content
from certificates.files import generation
from certificates.keeper import Keeper
from certificates.making import Pair
from certificates.names import server_name
from certificates.signer import LIFE, OURS, TRUSTED_FIRST, Lives, Signer, refusal
from lab.apiserver import ApiServer, Store, User, rbac
from lab.apiserver.kubeconfig import kubeconfig
from node_probe.door import tls
from tests import calls, foreign, manifests
from tests.deployed import ADMINISTRATOR

NAMESPACE = "calico-why"
SIGNER, NODE, BOT = "calico-why-signer", "calico-why-node", "calico-why-bot"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NODE}"
MADE = (("Secret", AUTHORITY), ("ConfigMap", AUTHORITY), ("Secret", BOT_CERTS))


class World:
    """An API server with what deploy/ brings, and a clock that can be put forward."""

    def __init__(self, directory: Path, overlay: str) -> None:
        self.directory = directory
        self.store = Store()
        self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for kind, name in MADE:
            self.store.create(manifests.one(overlay, kind, name))
        self.ahead = timedelta()
        objects = manifests.objects(overlay)

        def user(account: str, **extra: tuple[str, ...]) -> User:
            name, groups = rbac.account(account, NAMESPACE), rbac.groups_of_account(NAMESPACE)
            return User(name, groups, extra=extra, grants=rbac.grants(objects, name, groups))

        users = {SIGNER: user(SIGNER), BOT: user(BOT), "nobody": user(NODE)}
        users |= {ADMINISTRATOR: User(ADMINISTRATOR, grants=None)}
        users |= {node: user(NODE, **{NODE_NAME: (node,)}) for node in ("node-a", "node-b", "a" * 70)}
        self.server = ApiServer(self.store, users)
        self.url = ""

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    @contextlib.asynccontextmanager
    async def cluster(self, user: str) -> AsyncIterator[Cluster]:
        path = self.directory / f"kubeconfig.{user[:20]}"
        path.write_text(kubeconfig(self.url, user))
        async with connect(str(path), NAMESPACE) as cluster:
            yield cluster

    async def sign(self, **lives: Any) -> Pair | None:
        """One pass of the signer. What signs now."""
        async with self.cluster(SIGNER) as cluster:
            return (await Signer(cluster, Lives(**lives), self.now).once())[0]

    async def keep(self, node: str, asks: str = "") -> Path:
        """One pass of what keeps a node's certificate, while somebody signs. asks: whose token it has."""
        directory = self.directory / node[:20]
        directory.mkdir(exist_ok=True)

        async def signing() -> None:
            while True:
                with contextlib.suppress(Trouble):  # another one writes, too
                    await self.sign()
                await asyncio.sleep(0.02)

        with contextlib.suppress(Trouble):
            await self.sign()
        async with self.cluster(asks or node) as cluster:
            working = asyncio.ensure_future(signing())
            try:
                await Keeper(cluster, node, directory, self.now).once()
            finally:
                working.cancel()
                await asyncio.wait({working})
        return directory

    def secret(self, name: str) -> Object:
        return self.store.get("secrets", name, NAMESPACE)

    def trusted(self) -> list[x509.Certificate]:
        text = self.store.get("configmaps", AUTHORITY, NAMESPACE)["data"]["ca.crt"]
        return making.bundle(text.encode())

    def bot(self) -> Pair:
        return Pair(*(content(self.secret(BOT_CERTS), name) for name in ("bot.crt", "bot.key")))

    def requests(self) -> list[Object]:
        return self.store.list("certificatesigningrequests")


@pytest.fixture(params=["socket-mode", "restricted"])
async def world(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(keeper, "ASK_S", 0.02)
    world = World(tmp_path, request.param)
    monkeypatch.setattr(making, "_now", world.now)
    world.url = await world.server.start()
    yield world
    await world.server.stop()


def own(directory: Path) -> x509.Certificate:
    return making.load((directory / "probe.crt").read_bytes())


async def test_of_empty_objects_all_that_bot_and_probes_need_is_made(world: World) -> None:
    directories = await asyncio.gather(world.keep("node-a"), world.keep("node-b"))
    (authority,) = world.trusted()
    assert making.issued_by(making.load(world.bot().public), authority) and making.belong_together(world.bot())
    assert content(world.secret(BOT_CERTS), "ca.crt") == making.text_of([authority])
    for node, directory in zip(("node-a", "node-b"), directories, strict=True):
        certificate = own(directory)
        assert making.issued_by(certificate, authority)
        assert making.names_of(certificate) == [f"{node}.probe.calico-why"]
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [making.SERVER], "it is no client's, least of all the bot's"
        key = (generation(directory) / "probe.key").read_bytes()
        assert making.belong_together(Pair((directory / "probe.crt").read_bytes(), key))
        assert (generation(directory) / "probe.key").stat().st_mode & 0o777 == 0o600
        assert not [it for it in world.requests() if key.decode() in str(it)], "it goes nowhere"
    before = [own(one) for one in directories]
    assert len(world.requests()) == 2
    await asyncio.gather(world.keep("node-a"), world.keep("node-b"))
    assert [own(one) for one in directories] == before and len(world.requests()) == 2, "what is good is left alone"


async def test_a_node_gets_no_certificate_but_its_own(world: World) -> None:
    with pytest.raises(Trouble, match="who asked is on node node-a, whose probe has the name node-a"):
        await world.keep("node-b", asks="node-a")
    with pytest.raises(Trouble, match="the token of who asked names no node"):
        await world.keep("node-b", asks="nobody")
    assert not (world.directory / "node-b" / "probe.crt").exists()
    assert [[one["type"] for one in it["status"]["conditions"]] for it in world.requests()] == [["Denied"]] * 2
    await world.keep("node-b")


async def test_who_may_not_ask_or_sign_is_told_so_by_the_api_server(world: World) -> None:
    with calls.on_purpose():
        with pytest.raises(Trouble, match="403"):
            await world.keep("node-a", asks=BOT)
        async with world.cluster("node-a") as cluster:
            for path in (f"secrets/{AUTHORITY}", f"secrets/{BOT_CERTS}"):
                with pytest.raises(Trouble, match="403"):
                    await cluster.send("GET", f"/api/v1/namespaces/{NAMESPACE}/{path}")
            with pytest.raises(Trouble, match="403"):
                await Signer(cluster).once()
        async with world.cluster(ADMINISTRATOR) as cluster:
            foreign = keeper._document(making.request("node-a").public)
            foreign["spec"]["signerName"] = "kubernetes.io/kube-apiserver-client"
            made = await cluster.send("POST", REQUESTS, foreign)
        async with world.cluster(SIGNER) as cluster:
            condition = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
            made["status"] = {"conditions": [condition]}
            with pytest.raises(Trouble, match="not permitted to approve requests with signerName"):
                await cluster.send("PUT", f"{REQUESTS}/{made['metadata']['name']}/approval", made)


async def test_a_name_that_fits_no_certificate_is_signed_as_its_hash(world: World) -> None:
    directory = await world.keep("a" * 70)
    assert making.names_of(own(directory)) == [server_name("a" * 70)]


def spec(request: bytes, **more: Any) -> dict[str, Any]:
    told = {"username": ACCOUNT, "extra": {NODE_NAME: ["node-a"]}, "usages": ["server auth", "digital signature"]}
    return {"request": base64.b64encode(request).decode(), **told, **more}


def asked(*names: x509.GeneralName, key: Any = None, more: x509.ExtensionType | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bot")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if more:
        builder = builder.add_extension(more, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


OWN = x509.DNSName("node-a.probe.calico-why")


def test_what_is_not_exactly_the_name_of_the_node_is_refused() -> None:
    assert refusal(spec(asked(OWN)), ACCOUNT) == ""
    tampered = bytearray(base64.b64decode(b"".join(asked(OWN).splitlines()[1:-1])))
    tampered[-1] ^= 1
    body = base64.encodebytes(bytes(tampered))
    broken = b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"
    for request in (
        asked(),
        asked(x509.DNSName("node-b.probe.calico-why")),
        asked(OWN, x509.DNSName("node-b.probe.calico-why")),
        asked(x509.DNSName("*.probe.calico-why")),
        asked(x509.RFC822Name("node-a.probe.calico-why")),
        asked(OWN, more=x509.BasicConstraints(ca=True, path_length=None)),
        asked(OWN, key=rsa.generate_private_key(65537, 2048)),
        broken,
        b"nonsense",
        b"",
    ):
        assert refusal(spec(request), ACCOUNT)
    good = asked(OWN)
    for other in (
        {"username": f"system:serviceaccount:{NAMESPACE}:default"},
        {"username": "system:serviceaccount:other:calico-why-node"},
        {"extra": {}},
        {"extra": {NODE_NAME: ["node-b"]}},
        {"extra": {NODE_NAME: ["node-a", "node-b"]}},
        {"usages": ["digital signature", "client auth"]},
        {"usages": ["digital signature", "server auth", "client auth"]},
    ):
        assert refusal(spec(good, **other), ACCOUNT)


async def test_what_is_in_a_certificate_is_what_the_signer_says_not_what_was_asked(world: World) -> None:
    async with world.cluster("node-a") as cluster:
        document = keeper._document(asked(OWN))  # of a subject that is called as the bot is
        made = await cluster.send("POST", REQUESTS, document)
        await world.sign()
        found = await cluster.send("GET", f"{REQUESTS}/{made['metadata']['name']}")
    certificate = making.load(base64.b64decode(found["status"]["certificate"]))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "probe"
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


async def test_a_bad_request_stops_nobody_and_is_not_signed_though_people_approved_it(world: World) -> None:
    async with world.cluster("node-a") as cluster, world.cluster(ADMINISTRATOR) as admin:
        made = await cluster.send("POST", REQUESTS, keeper._document(asked(x509.DNSName("node-b.probe.calico-why"))))
        condition = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
        approved = {**made, "status": {"conditions": [condition]}}
        await admin.send("PUT", f"{REQUESTS}/{made['metadata']['name']}/approval", approved)
        await world.keep("node-a")
        found = await cluster.send("GET", f"{REQUESTS}/{made['metadata']['name']}")
    assert [one["type"] for one in found["status"]["conditions"]] == ["Approved", "Failed"]
    assert "certificate" not in found["status"]


async def test_certificates_are_renewed_when_two_thirds_of_their_life_are_over(world: World) -> None:
    directory = await world.keep("node-a")
    probe, bot = own(directory), world.bot()
    world.ahead = timedelta(days=19)
    await world.keep("node-a")
    assert (own(directory), world.bot()) == (probe, bot)
    world.ahead = timedelta(days=21)
    await world.keep("node-a")
    assert own(directory) != probe and world.bot() != bot


async def test_an_authority_is_trusted_everywhere_before_it_signs(world: World) -> None:
    """Whoever took what was published half an hour ago believes all that is signed."""
    await world.sign()
    (first,) = world.trusted()
    published = [(world.now(), world.trusted())]
    signed = [world.bot()]
    for step in range(0, 624, 6):
        for minutes in (0, 10, 40):
            world.ahead = timedelta(days=step, minutes=minutes)
            signing = await world.sign(certificate=timedelta(days=12))
            assert signing
            known = [told for at, told in published if world.now() - at >= TRUSTED_FIRST]
            certificate = making.load(signing.public)
            assert all(certificate in told for told in known[-1:]), "one that looked half an hour ago"
            if world.bot() != signed[-1]:
                signed.append(world.bot())
                assert making.issued_by(making.load(signed[-1].public), certificate)
            if world.trusted() != published[-1][1]:
                published.append((world.now(), world.trusted()))
    assert first not in world.trusted() and len(published) >= 3
    assert len(world.trusted()) == 1, "what has run out is trusted no more"


async def test_the_authority_of_somebody_else_is_used_and_when_it_is_replaced_so_too(world: World) -> None:
    """cert-manager's, or yours."""
    life = timedelta(days=90)

    def put(pair: Pair) -> None:
        secret = world.secret(AUTHORITY)
        told = {"tls.crt": pair.public, "tls.key": pair.key}
        secret["data"] = {name: base64.b64encode(value).decode() for name, value in told.items()}
        world.store.update(secret)

    first = making.authority(life)
    put(first)
    directory = await world.keep("node-a")
    assert making.issued_by(own(directory), making.load(first.public))
    world.ahead = timedelta(days=70)
    assert await world.sign() == first
    assert OURS not in (world.secret(AUTHORITY)["metadata"].get("annotations") or {}), "nor is it renewed here"
    second = making.authority(life)
    put(second)
    assert await world.sign() is None, "not all know of it yet"
    assert set(world.trusted()) == {making.load(one.public) for one in (first, second)}
    assert content(world.secret(BOT_CERTS), "ca.crt") == making.text_of(world.trusted())
    world.ahead += TRUSTED_FIRST
    await world.keep("node-a")
    assert making.issued_by(own(directory), making.load(second.public))
    world.ahead = timedelta(days=91)
    await world.sign()
    assert making.issued_by(making.load(world.bot().public), making.load(second.public))
    assert world.trusted() == [making.load(second.public)]
    world.ahead = timedelta(days=170)
    with pytest.raises(Trouble, match=r"expired on .* who made it did not renew it"):
        await world.sign()


def sha256_of_key() -> Pair:
    """As Go names keys from 1.25 on (RFC 7093), and so cert-manager."""
    return foreign.authority(x509.SubjectKeyIdentifier(hashlib.sha256(b"key").digest()[:20]))[0]


def of_another() -> Pair:
    """What an Issuer of kind CA signs; the one above it nobody here knows."""
    _, name, key = foreign.authority()
    return foreign.authority(of=(name, key))[0]


def without_identifier() -> Pair:
    return foreign.authority()[0]


@pytest.mark.parametrize("made", [sha256_of_key, of_another, without_identifier])
def test_bot_and_probe_believe_each_other_by_an_authority_that_somebody_else_made(
    made: Callable[[], Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign.strict_as_from_python_3_13(monkeypatch)
    authority = made()
    bot, probe = making.bot(authority, LIFE), making.probe(authority, "node-a", LIFE)
    for place, name, pair in ((tmp_path / "bot", "bot", bot), (tmp_path / "probe", "probe", probe)):
        place.mkdir()
        files.replace(place, {"ca.crt": authority.public, f"{name}.crt": pair.public, f"{name}.key": pair.key})
    shaken(tls(tmp_path / "probe", "node-a"), Identity(tmp_path / "bot").tls(), server_name("node-a"))


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """Raises SSLError where one of them does not believe the other."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    both = [
        client.wrap_bio(back, there, server_hostname=name),
        server.wrap_bio(there, back, server_side=True),
    ]
    while both:
        for one in list(both):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
                both.remove(one)


async def test_an_authority_that_others_may_have_is_replaced_by_emptying_both_objects(world: World) -> None:
    directory = await world.keep("node-a")
    (lost,) = world.trusted()
    for kind, name in (("secrets", AUTHORITY), ("configmaps", AUTHORITY)):
        emptied = world.store.get(kind, name, NAMESPACE)
        emptied["data"] = {}
        world.store.update(emptied)
    await world.keep("node-a")
    assert lost not in world.trusted()
    for certificate in (own(directory), making.load(world.bot().public)):
        assert any(making.issued_by(certificate, one) for one in world.trusted())
    assert (directory / "ca.crt").read_bytes() == making.text_of(world.trusted())


async def test_a_signer_that_was_away_for_longer_than_its_authority_lasts_begins_anew(world: World) -> None:
    await world.sign()
    (old,) = world.trusted()
    world.ahead = timedelta(days=400)
    assert await world.sign()
    assert old not in world.trusted() and len(world.trusted()) == 1


async def test_two_signers_at_once_agree(world: World) -> None:
    done = await asyncio.gather(*(world.sign() for _ in range(4)), return_exceptions=True)
    assert all(isinstance(one, Pair | Trouble) for one in done) and any(isinstance(one, Pair) for one in done)
    assert {one.status for one in done if isinstance(one, Trouble)} <= {409}
    signing = await world.sign()
    assert signing and world.trusted() == [making.load(signing.public)]
    assert making.issued_by(making.load(world.bot().public), world.trusted()[0])


async def test_what_is_asked_while_it_watches_is_signed_at_once(world: World) -> None:
    async with world.cluster(SIGNER) as cluster, world.cluster("node-a") as asking:
        working = asyncio.ensure_future(Signer(cluster).run())
        try:
            async with asyncio.timeout(20):
                while not [call for call in world.server.calls if call.verb == "watch"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            directory = world.directory / "node-a"
            directory.mkdir()
            async with asyncio.timeout(20):  # less than until it looks at all of them again
                await Keeper(asking, "node-a", directory).once()
        finally:
            working.cancel()
            await asyncio.wait({working})
    assert making.names_of(own(directory)) == ["node-a.probe.calico-why"]


async def test_what_cannot_be_used_is_told_and_not_overwritten(world: World) -> None:
    await world.sign()
    secret = world.secret(AUTHORITY)
    spoilt = copy.deepcopy(secret)
    spoilt["data"]["tls.key"] = base64.b64encode(making.request("node-a").key).decode()
    world.store.update(spoilt)
    with pytest.raises(Trouble, match=r"has a tls\.crt and no tls\.key of it"):
        await world.sign()
    assert world.secret(AUTHORITY)["data"] == spoilt["data"]


async def test_before_there_is_an_authority_a_node_is_told_who_makes_it(world: World) -> None:
    async with world.cluster("node-a") as cluster:
        with pytest.raises(Trouble, match="`calico-why signer` has not made an authority yet"):
            await Keeper(cluster, "node-a", world.directory).once()
