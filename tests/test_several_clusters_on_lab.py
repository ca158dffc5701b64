"""One bot, as it is started, and two labs: questions to both, a fix approved in each, and an API server that is not
there at the start, comes, goes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot import cli, speech
from bot.asking import with_text
from lab.client import Lab
from lab.slack import LocalSlack
from tests.own_faults import Wire
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text

ROOT = Path(__file__).parents[1]
NAMES = ("prod", "staging")
WOUNDS = {"prod": "neighbor_wrong_mac", "staging": "ip_forwarding_off"}
QUESTION = "/calico why shop/cart shop/db 5432/tcp"
LOOKED_S = 60.0  # busy machines take that long
GONE = "cannot be reached"


@pytest.fixture(scope="module")
def labs() -> Iterator[dict[str, Lab]]:
    with contextlib.ExitStack() as stack:
        made = {name: stack.enter_context(Lab.up(2, environment={"CALICO_WHY_APPROVERS": "U0BO"})) for name in NAMES}
        yield made


class Room:
    """A local Slack, and what is said in it."""

    def __init__(self, slack: LocalSlack) -> None:
        self.slack = slack

    async def asked(self, name: str, flag: str = "") -> dict[str, Any]:
        """The message of this question once it is no longer about looking, of the cluster `name`."""
        before = {one["ts"] for one in self.slack.messages(ROOM)}
        await self.slack.slash("ana", ROOM, f"{QUESTION}{flag}")

        def answer() -> dict[str, Any] | None:
            new = [one for one in self.slack.messages(ROOM) if one["ts"] not in before]
            return next((one for one in new if not one["text"].startswith("Looking") and one.get("blocks")), None)

        found = await self.slack.wait_for(answer, timeout=LOOKED_S)
        assert found is not None
        assert f"[{name}]" in _all_text(found)
        return found

    async def in_thread(self, thread: str, text: str) -> dict[str, Any]:
        def said() -> dict[str, Any] | None:
            return next((one for one in self.slack.messages(ROOM, thread) if text in _all_text(one)), None)

        found = await self.slack.wait_for(said, timeout=LOOKED_S)
        assert found is not None
        return found


def port_of(lab: Lab) -> int:
    """Of its API server."""
    text = Path(lab.environment()["KUBECONFIG"]).read_text()
    return int(re.findall(r"server: https?://127\.0\.0\.1:(\d+)", text)[0])


def configuration(labs: dict[str, Lab], ports: dict[str, int], directory: Path) -> Path:
    """ports: where the API server of each is reached."""
    clusters = []
    for name, lab in labs.items():
        told = lab.environment()
        text = Path(told["KUBECONFIG"]).read_text()
        cut = text.replace(f"127.0.0.1:{port_of(lab)}", f"127.0.0.1:{ports[name]}")
        (directory / f"{name}.kubeconfig").write_text(cut)
        clusters.append(
            {
                "name": name,
                "kubeconfig": f"{name}.kubeconfig",
                "certs": told["CALICO_WHY_CERTS"],
                "probe_proxy": told["CALICO_WHY_PROBE_PROXY"],
                "patience_ms": told["CALICO_WHY_PATIENCE_MS"],
            }
        )
    file = directory / "calico-why.yaml"
    file.write_text(
        yaml.safe_dump({"development": "true", "approvers": ["U0BO"], "state": "state", "clusters": clusters})
    )
    return file


def environment_of(slack: LocalSlack, file: Path) -> dict[str, str]:
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("CALICO_", "KUBECONFIG"))},
        "CALICO_WHY_CONFIG": str(file),
        "SLACK_API_URL": slack.base_url,
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
    }


async def terminal(environment: dict[str, str], directory: Path, *words: str) -> tuple[int, str]:
    """`calico-why WORDS`: its exit status, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot.cli", *words),
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def ports_of(wires: dict[str, Wire]) -> dict[str, int]:
    return {name: wire.port for name, wire in wires.items()}


@contextlib.asynccontextmanager
async def wired(labs: dict[str, Lab]) -> AsyncGenerator[dict[str, Wire]]:
    """Each lab's API server behind a wire that can be cut."""
    wires = {name: Wire(port_of(lab)) for name, lab in labs.items()}
    for wire in wires.values():
        await wire.start()
    try:
        yield wires
    finally:
        for wire in wires.values():
            await wire.close()


DENY = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: deny-web}, spec: {order: 7}}"
NOBODY = "fx-abcdefgh"
# Every word, what it answers and what it refuses.
SAID = (
    "why shop/cart shop/db 5432/tcp",
    "why shop/cart shop/nobody",
    "policy shop/cart shop/db 5432/tcp",
    "policy shop/cart shop/nobody",
    "capture shop/cart shop/db --seconds 0.2",
    "capture shop/cart shop/nobody",
    "keep shop/cart shop/db",
    "keep shop/cart shop/nobody",
    "ipam show",
    "ipam show --ip 10.9.9.9",
    "ipam explain",
    "ipam explain nowhere",
    "ipam plan --nodes 3 --pods-per-node 9",
    "ipam check",
    "ipam release --ip 10.9.9.9",
    "node status",
    "node status nowhere",
    "node diags node-a",
    "get ippools",
    "get ippools nothing",
    "get nothing",
    f"create {DENY}",
    "create",
    f"apply {DENY}",
    f"replace {DENY}",
    'patch ippool nothing -p {"spec": {"natOutgoing": false}}',
    "delete ippool nothing",
    "delete block nothing",
    "fixes",
    "fixes off because",
    "fixes on",
    f"fixes show {NOBODY}",
    f"fixes now {NOBODY}",
    f"approve {NOBODY}",
    f"reject {NOBODY}",
    f"cancel {NOBODY}",
    "audit",
    "audit verify",
    "audit export",
    "preflight",
    "preflight nodes",
)


async def test_every_answer_names_its_cluster(labs: dict[str, Lab], tmp_path: Path) -> None:
    assert {one.split()[0] for one in SAID} == ({*speech.HELP, *speech.ALIKE} - {"help"})
    async with wired(labs) as wires, LocalSlack() as slack:
        environment = environment_of(slack, configuration(labs, ports_of(wires), tmp_path))
        programs = Programs()
        bot = programs.start(["bot"], environment, tmp_path / "bot.log")

        def shown() -> dict[str, str]:
            """What bo sees in the channel, once it is looked at. What is in a thread is below its answer."""
            found = slack.messages(ROOM, viewer="bo")
            files = {one["ts"]: one.get("files") or [] for one in found}
            said = {one["ts"]: _all_text(one) for one in found if not one["text"].startswith("Looking")}
            return {ts: text + "".join(one["title"] for one in files[ts]) for ts, text in said.items()}

        try:
            await slack.wait_for(lambda: slack.connections > 0, timeout=LOOKED_S)
            for there in (True, False):
                if not there:
                    await wires["staging"].refuse()
                for said in SAID:
                    before = shown()
                    assert (await slack.slash("bo", ROOM, f"/calico {said} --cluster staging")).result == "ok"
                    await slack.wait_for(lambda before=before: shown().keys() - before.keys(), timeout=LOOKED_S)
                    unnamed = [text for ts, text in shown().items() if ts not in before and "[staging]" not in text]
                    assert not unnamed, f"{said}: {unnamed}"
        finally:
            bot.signal(signal.SIGKILL)
            await bot.ended()


def test_every_answer_in_a_terminal_names_its_cluster(
    labs: dict[str, Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = configuration(labs, {name: port_of(lab) for name, lab in labs.items()}, tmp_path)
    monkeypatch.setenv("CALICO_WHY_CONFIG", str(file))
    (tmp_path / "deny.yaml").write_text(DENY)
    for said in SAID:
        words, text = with_text(said)
        if words[-1] == "-p":
            words.append(text)
        elif text:
            words += ["-f", "deny.yaml"]
        cli.main([*words, "--cluster", "staging"])
        out, err = capsys.readouterr()
        cannot_be_meant = said in ("create", "get nothing", "delete block nothing")
        assert ("[staging]" in out + err) != cannot_be_meant, f"{said}: {out}{err}"


async def test_two_clusters_are_asked_and_mended_each_for_itself(labs: dict[str, Lab], tmp_path: Path) -> None:
    async with wired(labs) as wires, LocalSlack() as slack:
        room = Room(slack)
        await wires["staging"].refuse()
        environment = environment_of(slack, configuration(labs, ports_of(wires), tmp_path))
        programs = Programs()
        bot = programs.start(["bot"], environment, tmp_path / "bot.log")
        try:
            await slack.wait_for(lambda: slack.connections > 0, timeout=LOOKED_S)

            # One API server is not there at the start: it is told, and the other cluster is served.
            assert GONE in _all_text(await room.asked("staging", " --cluster staging"))
            assert ":white_check_mark:" in _all_text(await room.asked("prod"))
            await wires["staging"].mend()

            # A fix in each, by a click on the card in its thread.
            for name, fault in WOUNDS.items():
                labs[name].inflict(fault)
            answers = {name: await room.asked(name, f" --cluster {name}") for name in NAMES}
            titles = {name: _all_text(answers[name]) for name in NAMES}
            assert "Wrong MAC" in titles["prod"] and "Wrong MAC" not in titles["staging"]
            for name in reversed(NAMES):
                thread = answers[name]["ts"]
                card = await room.in_thread(thread, "waits for approval")
                assert f"[{name}]" in _all_text(card)
                await slack.click("bo", ROOM, card["ts"], "fix_approve")
                note = await room.in_thread(thread, ":white_check_mark: verified")
                assert note["text"].endswith(f"[{name}]")

            # One goes in the middle, and comes back.
            await wires["staging"].refuse()
            assert GONE in _all_text(await room.asked("staging", " --cluster staging"))
            assert ":white_check_mark:" in _all_text(await room.asked("prod", " --cluster prod"))
            status, said = await terminal(environment, tmp_path, "preflight", "configuration")
            assert status == 3 and "not  API server of staging: The API server cannot be reached" in said
            await wires["staging"].mend()
            assert ":white_check_mark:" in _all_text(await room.asked("staging", " --cluster staging"))

            # The same file, in a terminal.
            status, said = await terminal(environment, tmp_path, "preflight", "configuration")
            assert status == 0 and "prod and staging are served, and this is about prod" in said
            assert "preflight --cluster staging" in said
            for name in NAMES:
                status, said = await terminal(environment, tmp_path, *QUESTION.split()[1:], "--cluster", name)
                assert status == 0 and f"[{name}]" in said.splitlines()[0]
                for words in (["fixes"], ["audit"], ["ipam", "show"]):
                    status, said = await terminal(environment, tmp_path, *words, "--cluster", name)
                    assert status == 0 and said.splitlines()[-1] == f"[{name}]", words
            bot.signal(signal.SIGTERM)
            assert await asyncio.wait_for(bot.ended(), LOOKED_S) == 0, bot.text
        finally:
            bot.signal(signal.SIGKILL)
