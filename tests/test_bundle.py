"""The scene of a fault as one file: it holds what somebody would log in for, no secret, and the same answer again."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import tarfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bot import asking, bundle, cli
from bot.bundle import Bundle
from bot.commands import keep as keep_command
from bot.errors import COULD_NOT_JUDGE, UserError
from bot.node import diags
from bot.redaction import allowed
from bot.settings import Settings
from bot.sources.kubernetes import Cluster
from bot.sources.probes import CannotCapture, Probes
from facts.scene import SceneAsk, SceneEnd, ScenePart
from lab.client import Lab
from lab.slack import LocalSlack
from node_probe import certs, door, server
from node_probe import scene as probes_scene
from node_probe.answer import Prober
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import fix_cluster
from tests.runbook_words import context_of, terminal
from tests.test_bot_slack import Room, _all_text
from tests.test_capture_slack import files
from tests.test_write_resource import fill

TOKEN = "xoxb-123456789-abcdefghijkl"


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return terminal(lab, monkeypatch, tmp_path)


def content(path: Path) -> dict[str, bytes]:
    """The files of a bundle, by their path below its one directory."""
    with tarfile.open(path) as opened:
        members = [one for one in opened if one.isfile()]
        assert {one.name.split("/")[0] for one in members} == {path.name.removesuffix(".tar.gz")}
        found = {}
        for one in members:
            file = opened.extractfile(one)
            assert file is not None
            found[one.name.partition("/")[2]] = file.read()
    return found


def test_a_fault_is_kept_with_its_answer_and_judged_again(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.inflict("neighbor_wrong_mac", "shop/cart", "shop/db", "source")
    lab.exec("node-a", "ip", "route", "add", "198.51.100.0/24", "dev", "eth0", "table", "77")
    assert cli.main(["keep", "shop/cart", "shop/db", "5432/tcp"]) == 0
    said = capsys.readouterr()
    [path] = here.iterdir()
    assert path.name in said.out and "of 2 nodes" in said.out and "asking node-a and node-b" in said.err
    steps = [line.split(" of 2 nodes, ")[0] for line in said.err.splitlines() if " of 2 nodes, " in line]
    assert steps[0] == "0" and steps[-1] == "2", "while it lasts"
    assert path.stat().st_mode & 0o777 == 0o600, "it says where everything is"
    kept = content(path)
    neighbors = lab.exec("node-a", "ip", "-4", "-s", "neigh", "show").stdout.encode()
    wrong = next(line.split()[4] for line in neighbors.splitlines() if b"vxlan.calico" in line)
    assert wrong in kept["nodes/node-a/neighbor-4.txt"] and b"vxlan.calico" in kept["nodes/node-b/fdb.txt"]
    assert b"198.51.100.0/24 dev eth0 table 77" in kept["nodes/node-a/route-4.txt"]
    assert b"mtu 1450" in kept["nodes/node-a/link.txt"] and b"vxlan id 4096" in kept["nodes/node-a/link.txt"]
    assert b"net.ipv4.conf.vxlan/calico.rp_filter = " in kept["nodes/node-a/sysctl.txt"]
    assert b"net.ipv4.ip_forward = 1" in kept["nodes/node-a/sysctl.txt"]
    kinds = {line.split()[0] for line in kept["nodes/node-a/sockets.txt"].decode().splitlines()}
    assert {"tcp", "u_str"} <= kinds, "all that calicoctl's bundle has"
    offloads = kept["nodes/node-a/offloads.txt"].decode().split("Features for ")
    assert any(one.startswith("vxlan.calico:\n") and "\ntx-checksum-ip-generic: o" in one for one in offloads)
    assert any(one.startswith("eth0:\n") and "\nrx-gro: o" in one for one in offloads)
    assert {one["metadata"]["name"] for one in json.loads(kept["cluster/ippools.json"])} == {"default-ipv4-ippool"}
    assert {one["spec"]["nodeName"] for one in json.loads(kept["cluster/pods.json"])} == {"node-a", "node-b"}
    logs = [text for name, text in kept.items() if name.startswith("logs/calico-node")]
    assert len(logs) == 2 and all(b"put_route" in text for text in logs), "each node's Felix"
    assert b"wrong" in kept["answer.txt"].lower() or b"MAC" in kept["answer.txt"]
    monkeypatch.delenv("KUBECONFIG")
    assert cli.main(["replay", path.name, "-o", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    first = json.loads(kept["investigation.json"])["diagnosis"]
    rules = [[one["rule"] for one in causes["causes"]] for causes in (first, again)]
    assert rules == [["neighbor_wrong_mac"], ["neighbor_wrong_mac"]]


def test_what_is_no_bundle_of_an_answer_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "other.tar.gz"
    with tarfile.open(empty, "w:gz") as opened:
        opened.addfile(tarfile.TarInfo("README.txt"))
    assert cli.main(["replay", str(empty)]) == 2
    assert "only bundles of `calico-why keep` do" in capsys.readouterr().err
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(empty.read_bytes()[:-20])
    assert cli.main(["replay", str(broken)]) == 2


def test_of_nodes_that_say_nothing_it_is_told_and_the_rest_is_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["node", "diags", "node-a", "node-b", "--probe-port", "1", "-o", "json"]) == COULD_NOT_JUDGE
    told = json.loads(capsys.readouterr().out)
    assert [one["node"] for one in told["silent"]] == ["node-a", "node-b"]
    kept = content(here / told["file"])
    assert b"nodes/node-a: " in kept["missing.txt"] and b"its probe at 172.30.0.11:1" in kept["missing.txt"]
    assert "cluster/nodes.json" in kept and "investigation.json" not in kept


def test_a_node_that_is_misspelt_is_no_silent_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["node", "diags", "nod-a"]) == 2
    assert "Did you mean node-a?" in capsys.readouterr().err and not list(here.iterdir())


def test_no_secret_of_an_object_is_kept() -> None:
    pod: dict[str, Any] = {
        "metadata": {
            "name": "cart",
            "namespace": "shop",
            "annotations": {
                "cni.projectcalico.org/podIP": "10.244.0.5/32",
                "kubectl.kubernetes.io/last-applied-configuration": TOKEN,
                "vault": TOKEN,
            },
            "managedFields": [{"manager": TOKEN}],
        },
        "spec": {
            "nodeName": "node-a",
            "containers": [
                {"name": "app", "image": "app:1", "args": [TOKEN], "env": [{"name": "PASSWORD", "value": TOKEN}]},
                {"name": "side", "image": "side:1", "command": [TOKEN]},
            ],
            "volumes": [{"secret": {"secretName": TOKEN}}],
        },
        "status": {"podIP": "10.244.0.5", "message": TOKEN},
    }
    kept = allowed("pods", pod)
    assert TOKEN not in json.dumps(kept)
    assert kept["spec"]["containers"] == [{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}]
    assert kept["metadata"]["annotations"] == {"cni.projectcalico.org/podIP": "10.244.0.5/32"}
    assert allowed("any", {"metadata": {"name": "x"}, "data": {"a": TOKEN}}) == {"metadata": {"name": "x"}}
    assert TOKEN.encode() not in bundle._clean("logs/cni/cni.log", f"sent {TOKEN} to it\n".encode())


async def test_what_is_too_much_is_named_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LARGEST", 2000)
    growing = Bundle("calico-why-test", datetime.now(UTC))
    for number in range(4):
        await growing.add(f"nodes/node-a/{number}.txt", os.urandom(400_000))
    whole = await growing.close()
    with tarfile.open(fileobj=io.BytesIO(whole)) as opened:
        names = {one.name for one in opened}
        missing = opened.extractfile("calico-why-test/missing.txt")
        assert missing is not None
        said = missing.read().decode()
    assert said.count("the bundle has its") == len(growing.missing) == 5 - len(names) > 0


def test_what_installed_calicos_plugin_and_ended_is_read_as_well() -> None:
    """Where it fails, calico-node never starts, and its log alone says why."""
    pod = {
        "spec": {"initContainers": [{"name": "upgrade-ipam"}, {"name": "install-cni"}],
                 "containers": [{"name": "calico-node"}]},
        "status": {"initContainerStatuses": [{"name": "upgrade-ipam", "restartCount": 0},
                                             {"name": "install-cni", "restartCount": 4}]},
    }  # fmt: skip
    assert bundle._containers(pod) == [
        ("upgrade-ipam", False), ("install-cni", False), ("install-cni", True), ("calico-node", False),
    ]  # fmt: skip


def test_a_tool_that_is_not_there_or_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scripts = {"nft": "echo half; echo no right >&2; exit 1", "ss": f"head -c {9 << 20} /dev/zero"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(probes_scene, "ENVIRONMENT", {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setattr(probes_scene, "TOOLS", {
        "nft.txt": ("nft",), "sockets.txt": ("ss",), "none.txt": ("no-such-tool",),
    })  # fmt: skip

    async def all_of_it() -> list[Any]:
        return [line async for line in probes_scene.scene("node-a")]

    lines = asyncio.run(all_of_it())
    missing = {line.path: line.reason for line in lines if isinstance(line, probes_scene.SceneMissing)}
    assert missing["nft.txt"] == "nft ended with 1: no right"
    assert missing["sockets.txt"] == "cut after 8 MiB"
    assert missing["none.txt"].startswith("no-such-tool cannot be run beside the probe")
    halves = [line.content for line in lines if isinstance(line, probes_scene.ScenePart) and line.path == "nft.txt"]
    assert b"".join(halves) == b"half\n"


async def test_a_probe_sends_one_at_a_time_to_the_bot_and_is_free_when_it_hangs_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certs.make(tmp_path, ["node-a", "node-b"])
    monkeypatch.setattr(probes_scene, "TOOLS", {"slow.txt": ("sleep", "60")})
    runner = web.AppRunner(server.application(Prober("node-a", {})), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=door.tls(tmp_path, "node-a")).start()
    settings = Settings(certs=tmp_path, probe_port=runner.addresses[0][1])
    try:
        async with Probes(settings) as probes:
            first = probes.scene("node-a", "127.0.0.1")
            about = await anext(first)
            assert isinstance(about, ScenePart) and b"node: node-a" in about.content
            with pytest.raises(CannotCapture, match="busy with another bundle"):
                await anext(probes.scene("node-a", "127.0.0.1"))
            with pytest.raises(CannotCapture, match="the certificate there does not name node-b"):
                await anext(probes.scene("node-b", "127.0.0.1"))
            misnamed = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=door.tls(tmp_path, "node-b"))
            await misnamed.start()
            async with Probes(Settings(certs=tmp_path, probe_port=runner.addresses[1][1])) as others:
                with pytest.raises(CannotCapture, match="it cannot tell of node-b"):
                    await anext(others.scene("node-b", "127.0.0.1"))
            await first.aclose()
            monkeypatch.setattr(probes_scene, "TOOLS", {})
            async with asyncio.timeout(20):
                while True:
                    with contextlib.suppress(CannotCapture):
                        again = [line async for line in probes.scene("node-a", "127.0.0.1")]
                        break
                    await asyncio.sleep(0.02)
        assert isinstance(again[-1], SceneEnd)
    finally:
        await runner.cleanup()


async def test_of_the_only_node_something_is_told_before_it_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certs.make(tmp_path, ["node-a"])
    monkeypatch.setattr(probes_scene, "TOOLS", {"large.txt": ("head", "-c", str(3 << 20), "/dev/zero")})
    runner = web.AppRunner(server.application(Prober("node-a", {})), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=door.tls(tmp_path, "node-a")).start()
    told = list[str]()

    async def progress(text: str) -> None:
        told.append(text)

    try:
        async with (
            fix_cluster(tmp_path) as fixes,
            Cluster(Settings(kubeconfig=fixes.kubeconfig(BOT))) as cluster,
            Probes(Settings(certs=tmp_path, probe_port=runner.addresses[0][1])) as probes,
        ):
            fill(fixes, "crd.projectcalico.org")
            kept = await bundle.keep({"node-a": "127.0.0.1"}, cluster=cluster, probes=probes, progress=progress)
    finally:
        await runner.cleanup()
    assert not kept.silent
    begun = [one for one in told if one.startswith("0 of 1 nodes, ")]
    assert begun[0].endswith(" 0.0 MiB") and len(begun) >= 4 and told[-1].startswith("1 of 1 nodes, ")


def test_bad_words_are_answered_with_the_right_form() -> None:
    with pytest.raises(UserError, match="A question has two sides"):
        asking.understand("keep", keep_command, ["shop/cart"])
    with pytest.raises(UserError, match=r"I do not know '--output-file'.*Write: keep"):
        asking.understand("keep", keep_command, ["a", "b", "--output-file", "x"])
    with pytest.raises(asking.HelpAsked, match="usage: diags"):
        parser = asking.Parser(prog="diags", description=diags.HELP)
        diags.add_words(parser)
        parser.parse_args(["--help"])


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        yield Room(request.param, slack, cluster, store, tmp_path / "state")
        refused = [(call.method, call.error) for call in slack.calls if call.error]
        assert not refused, "the bot sent what Slack does not take"


async def test_in_slack_the_bundle_hangs_in_the_thread(room: Room, lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with context_of(lab.environment()) as room.context, room.bot():
        await room.ask("/calico keep shop/cart shop/db 5432/tcp")
        message = await room.slack.wait_for(lambda: room.posted("files of 2 nodes"))
        assert "shop/cart reaches shop/db" in _all_text(message)
        await room.slack.wait_for(lambda: files(room.slack, message["ts"]))
        [(name, whole)] = files(room.slack, message["ts"])
        assert name.startswith("calico-why-") and name.endswith(".tar.gz") and whole[:2] == b"\x1f\x8b"
        assert "audit: keep shop/cart shop/db 5432/tcp by" in caplog.text
        await room.ask("/calico keep shop/cart")
        told = await room.whisper("ana", "A question has two sides")
        assert "Write: keep POD" in told, "to who asked alone"


async def test_only_the_bot_may_ask_a_probe(lab: Lab) -> None:
    environment = lab.environment()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            async with session.post(
                "https://172.30.0.11:9797/v1/scene",
                json={"node": SceneAsk(node="node-a").node},
                ssl=False,
                proxy=environment["CALICO_WHY_PROBE_PROXY"],
            ) as response:
                await response.read()
