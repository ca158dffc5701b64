"""`node status` as people ask it, in a terminal and in Slack, of nodes whose kernels and probes are real."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bot import cli
from lab.client import Lab
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.runbook_words import context_of
from tests.test_bot_slack import Room, _all_text
from tests.test_capture_slack import files

WELL = "On all 3 nodes Felix, BGP, tunnels and routes are as they should be."


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A terminal of somebody who has this lab's kubeconfig."""
    for name, value in lab.person().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_all_nodes_at_a_glance_and_one_in_detail(lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.heal()
    assert cli.main(["node", "status", "--picture", "nodes.png"]) == 0
    said = capsys.readouterr()
    head, *rows = said.out.splitlines()
    assert head.split() == ["NODE", "FELIX", "BGP", "TUNNELS", "ROUTES", "CALICO", "UP"]
    assert rows.pop() == WELL
    assert [line.split()[:3] for line in rows] == [["ok", name, "ready"] for name in ("node-a", "node-b", "node-c")]
    assert all(" vxlan.calico " in line and " 2/2 " in line and " v3.32.1 " in line for line in rows)
    assert (here / "nodes.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["node", "status", "node-b"]) == 0
    detail = capsys.readouterr().out
    assert detail.startswith("Calico process is running.\n")
    assert f"Kernel       {os.uname().release}, up " in detail
    assert "Tunnel       vxlan.calico: up, MTU 1450, 10.244.218.64/32" in detail
    assert "Routes IPv4  2 of 2 to other nodes' blocks; by device: eth0 2, vxlan.calico 2; " in detail


def test_a_wounded_node_comes_first_and_is_told_for_programs_too(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = lab.inflict("vxlan_device_down", "shop/cart", "shop/db", "target")
    assert cli.main(["node", "status"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[:2] == ["x", done["node"]]
    assert f"vxlan.calico on {done['node']} is administratively down" in said.out
    assert "What to do: Set it up (ip link set vxlan.calico up)" in said.out
    assert "looking once more at 1 nodes" in said.err
    assert cli.main(["node", "status", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {"wrong": 1, "unknown": 0, "ok": 2}
    first = told["nodes"][0]
    assert (first["node"], first["state"], first["tunnels"][0]["up"]) == (done["node"], "wrong", False)
    assert [one["rule"] for one in first["findings"]] == ["vxlan_device_down"]
    assert cli.main(["node", "status", "-o", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (rows[0]["node"], rows[0]["state"]) == (done["node"], "wrong")
    assert len(rows) == 3
    lab.heal()


def test_felix_that_is_gone_is_looked_at_twice_and_named(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = lab.inflict("felix_not_ready")
    assert cli.main(["node", "status", done["node"]]) == 0
    said = capsys.readouterr().out
    assert f"Felix on {done['node']} " in said and "twice, 3 s apart" in said
    lab.heal()


def test_a_probe_that_does_not_answer_leaves_its_node_unknown(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALICO_WHY_PROBE_PORT", "9798")
    assert cli.main(["node", "status"]) == 3
    said = capsys.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()[1:4]] == [["?", f"node-{one}"] for one in "abc"]
    assert "node-a could not be looked at: " in said and " ok " not in said


def test_bad_words_are_answered_with_the_right_form(lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["node", "status", "nod-a"]) == 2
    assert "There is no node nod-a; did you mean node-a?" in capsys.readouterr().err
    assert cli.main(["node", "statsu"]) == 2
    assert "did you mean status?" in capsys.readouterr().err
    assert cli.main(["node", "status", "-o", "yaml"]) == 2
    assert "there is text, json, csv" in capsys.readouterr().err


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        yield Room(request.param, slack, cluster, store, tmp_path / "state")
        refused = [(call.method, call.error) for call in slack.calls if call.error]
        assert not refused, "the bot sent what Slack does not take"


async def test_in_slack_the_same_is_told_with_a_picture_in_the_thread(room: Room, lab: Lab) -> None:
    lab.heal()
    async with context_of(lab.environment()) as room.context, room.bot():
        await room.ask("/calico node status")
        message = await room.slack.wait_for(lambda: room.posted(WELL))
        assert "node-a  ready  not needed  vxlan.calico  2/2" in _all_text(message)
        await room.slack.wait_for(lambda: files(room.slack, message["ts"]))
        [(name, content)] = files(room.slack, message["ts"])
        assert name == "answer.png" and content.startswith(b"\x89PNG")
        await room.ask("/calico node status node-z")
        assert await room.slack.wait_for(lambda: room.posted("There is no node node-z"))
