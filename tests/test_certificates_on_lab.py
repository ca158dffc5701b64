"""From nothing to an answered question, and on through an authority that is replaced: signer, what keeps each node's
certificate, probes and bot, as in a cluster, with the rights of deploy/ in front of the lab's API server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from bot.investigate import Investigation
from certificates import making
from certificates.cluster import AUTHORITY, BOT_CERTS, Cluster, Trouble, connect, content
from certificates.files import replace
from certificates.keeper import Keeper
from certificates.signer import TRUSTED_FIRST, Signer
from lab.client import Lab
from lab.workers import PROBE_PORT
from tests import manifests
from tests.asking import ask

NODES = ("node-a", "node-b", "node-c")
NAMESPACE, SIGNER, NODE = "calico-why", "calico-why-signer", "calico-why-node"
OVERLAY = "restricted"  # what is in all of them
# As in their containers. Who is not root has none anyway.
WITHOUT_POWERS = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
QUESTION = "shop/cart shop/db 5432/tcp"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Without probes and fixers of its own, and with what manifests bring for the signer to fill."""
    rbac = tmp_path_factory.mktemp("rbac") / "rbac.yaml"
    rbac.write_text(yaml.safe_dump_all(manifests.objects(OVERLAY)))
    with Lab.up(workers=False, rbac=rbac) as lab:
        asyncio.run(installed(lab, OVERLAY))
        yield lab


async def installed(lab: Lab, overlay: str) -> None:
    """What the signer fills."""
    async with connect(lab.administrator()["KUBECONFIG"], NAMESPACE) as cluster:
        for name in (AUTHORITY, BOT_CERTS):
            secret = manifests.one(overlay, "Secret", name)
            await cluster.send("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)


class Installed:
    """Programs of a cluster, each with its own account and directory, and logs that tell why where something fails."""

    def __init__(self, lab: Lab, directory: Path, stack: contextlib.ExitStack) -> None:
        self.lab, self.directory, self._stack = lab, directory, stack
        self.accounts = {node: lab.account(NODE, node) for node in NODES} | {SIGNER: lab.account(SIGNER)}
        for name in (*NODES, "bot"):
            (directory / name).mkdir()

    def starts(self, name: str, argv: list[str], kubeconfig: str = "") -> subprocess.Popen[bytes]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("CALICO_WHY_")}
        log = self._stack.enter_context((self.directory / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            argv,
            cwd=manifests.DEPLOY.parent,
            env=kept | {"KUBECONFIG": kubeconfig},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process

    def signer(self) -> subprocess.Popen[bytes]:
        argv = [*WITHOUT_POWERS, sys.executable, "-m", "bot.cli", "signer"]
        return self.starts("signer", argv, self.accounts[SIGNER])

    def certificate(self, node: str) -> subprocess.Popen[bytes]:
        words = ["certificate", "--node", node, "--certs", str(self.directory / node)]
        argv = [*WITHOUT_POWERS, sys.executable, "-m", "bot.cli", *words]
        return self.starts(f"certificate-{node}", argv, self.accounts[node])

    def probe(self, node: str) -> subprocess.Popen[bytes]:
        words = ["probe", "--node", node, "--certs", str(self.directory / node), "--wait-for-certs"]
        inside = ["lab", "exec", "--name", self.lab.name, node, "--", sys.executable, "-m", "bot.cli", *words]
        return self.starts(f"probe-{node}", [sys.executable, "-m", "bot.cli", *inside])

    async def mount(self) -> None:
        """The bot's Secret, as a kubelet has it in a directory."""
        async with connect(self.lab.administrator()["KUBECONFIG"], NAMESPACE) as cluster:
            secret = await cluster.secret(BOT_CERTS)
        replace(self.directory / "bot", {name: content(secret, name) for name in ("ca.crt", "bot.crt", "bot.key")})

    def answered(self) -> Investigation:
        return asyncio.run(ask({**self.lab.environment(), "CALICO_WHY_CERTS": str(self.directory / "bot")}, QUESTION))

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(self.directory.glob("*.log")))

    def shown(self, node: str) -> str:
        """What the probe of a node has written of the certificates it took up."""
        return (self.directory / f"probe-{node}.log").read_text()


def test_a_cluster_certifies_itself_and_goes_on_when_all_of_it_is_replaced(lab: Lab, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        there = Installed(lab, tmp_path, stack)
        # In no order: each waits for what it needs.
        probes = [there.probe(node) for node in NODES]
        programs = [*(there.certificate(node) for node in NODES), there.signer()]
        there.until(lambda: all(f":{PROBE_PORT}" in there.shown(node) for node in NODES))
        asyncio.run(there.mount())
        diagnosis = there.answered().diagnosis
        assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ()), there.logs()
        for program in programs:
            program.terminate()
            assert program.wait(20) == 0, there.logs()
        before = {node: (tmp_path / node / "probe.crt").read_bytes() for node in NODES}
        trusted = (tmp_path / "bot" / "ca.crt").read_bytes()

        def taken_up(times: int) -> None:
            there.until(lambda: all(there.shown(node).count("is valid until") >= times for node in NODES))

        asyncio.run(months_later(there, timedelta(days=250)))
        taken_up(2)  # before the next ones come: a probe looks every two seconds and takes the newest
        after = making.bundle((tmp_path / "bot" / "ca.crt").read_bytes())
        assert making.load(trusted) in after and len(after) == 2
        asyncio.run(months_later(there, timedelta(days=250) + TRUSTED_FIRST))
        (second,) = [one for one in after if one != making.load(trusted)]
        for node in NODES:
            certificate = making.load((tmp_path / node / "probe.crt").read_bytes())
            assert certificate != making.load(before[node]) and making.issued_by(certificate, second)
        assert making.issued_by(making.load((tmp_path / "bot" / "bot.crt").read_bytes()), second)
        taken_up(3)
        diagnosis = there.answered().diagnosis
        assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ()), there.logs()
        assert [one.poll() for one in probes] == [None] * 3, "and no probe was started anew"


async def months_later(there: Installed, ahead: timedelta) -> None:
    """What each of them does then."""

    def now() -> datetime:
        return datetime.now(UTC) + ahead

    async with contextlib.AsyncExitStack() as stack:

        async def cluster(name: str) -> Cluster:
            return await stack.enter_async_context(connect(there.accounts[name], NAMESPACE))

        signer = Signer(await cluster(SIGNER), now=now)
        await signer.once()
        for node in NODES:
            keeping = asyncio.ensure_future(Keeper(await cluster(node), node, there.directory / node, now).once())
            while not keeping.done():
                await signer.once()
                await asyncio.wait({keeping}, timeout=0.2)
            keeping.result()
    await there.mount()


def test_what_runs_on_a_node_gets_no_other_nodes_certificate(lab: Lab, tmp_path: Path) -> None:
    async def tried() -> str:
        async with (
            connect(lab.account(SIGNER), NAMESPACE) as signing,
            connect(lab.account(NODE, "node-a"), NAMESPACE) as stolen,
        ):
            working = asyncio.ensure_future(Signer(signing).run())
            try:
                async with asyncio.timeout(60):
                    while True:
                        try:
                            await Keeper(stolen, "node-b", tmp_path).once()
                        except Trouble as error:
                            if "is empty" not in error.sentence:
                                return error.sentence
            finally:
                working.cancel()
                await asyncio.wait({working})

    assert "who asked is on node node-a, whose probe has the name node-a.probe.calico-why and no other" in asyncio.run(
        tried()
    )
    assert not list(tmp_path.iterdir())
