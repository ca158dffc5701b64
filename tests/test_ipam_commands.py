"""`ipam show`, `explain` and `plan` as people run them: in a terminal, on the lab, and in Slack."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.errors import COULD_NOT_JUDGE, WRONG_USAGE
from bot.told import Context
from lab.client import Lab
from lab.slack import LocalSlack
from tests import recorded_calicoctl
from tests.deployed import BOT
from tests.fix_cluster import fix_cluster
from tests.recorded import objects, served
from tests.test_bot_slack import ROOM, Room, _all_text
from tests.test_capture_slack import files

STRICT = "v3.32.1/exhaustion/3-strict-affinity"


@pytest.fixture
def on_lab(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    for name, value in lab.person().items():
        monkeypatch.setenv(name, value)
    return lab


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = cli.main(["ipam", *words])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_on_the_lab_a_full_pool_is_shown_and_explained(on_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "explain")
    assert status == 0 and "NO," not in out and "yes, own block" in out
    told = on_lab.inflict("pool_exhausted", where="source")
    node = told["node"]
    status, out, _ = said(capsys, "show", "--show-blocks", "-o", "csv")
    rows = {one["affinity"]: one for one in csv.DictReader(io.StringIO(out)) if one["grouping"] == "block"}
    assert (rows[f"host:{node}"]["free"], rows[f"host:{node}"]["in_use"]) == ("0", "64")
    status, out, _ = said(capsys, "explain")
    (line,) = [line for line in out.splitlines() if line.startswith(f"| {node} ")]
    assert status == 0 and "NO, all full" in line
    status, out, _ = said(capsys, "explain", "-o", "json", node)
    (outlook,) = json.loads(out)["nodes"]
    assert (outlook["node"], outlook["pod"]["why"], outlook["free"]) == (node, "full", 0)


def test_on_the_lab_strict_affinity_is_told_with_what_would_help(
    on_lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    node = on_lab.inflict("strict_affinity_without_block", where="target")["node"]
    _, out, _ = said(capsys, "explain", node)
    assert "NO, strict affinity" in out and "Set strictAffinity to false" in out
    _, out, _ = said(capsys, "explain", node, "--lang", "zh")
    assert "strictAffinity 设为 false" in out


def test_on_the_lab_whose_an_address_is(on_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    address = "10.244.218.65"  # of shop/db
    status, out, _ = said(capsys, "show", "--ip", address)
    assert status == 0 and out.startswith(f"IP {address} is in use\nHandle ID: k8s-pod-network.")
    assert "  namespace: shop\n" in out and "  pod: db\n" in out
    status, out, _ = said(capsys, "show", "--show-configuration", "-o", "json")
    assert json.loads(out)["AutoAllocateBlocks"] is True
    status, out, _ = said(capsys, "show", "--show-borrowed")
    assert status == 0 and "BORROWING-NODE" in out


def test_on_the_lab_its_own_pool_does_for_its_nodes(on_lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    name = "default-ipv4-ippool"
    status, out, _ = said(capsys, "plan", "--nodes", "3", "--pods-per-node", "110", "--pool", name)
    assert status == 0 and "10.244.0.0/16 with blocks of /26 does for 3 nodes with 110 pods each." in out
    status, out, _ = said(capsys, "plan", "--nodes", "3", "--pods-per-node", "110", "-o", "json")
    assert json.loads(out)["need"]["tunnels"] == 1 and json.loads(out)["best"]["prefix"] == 23


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["show", "--ip", "10.244.1.0/26"], "Did you mean --ip 10.244.1.0?"),
        (["show", "--ip", "10.244.1.7", "--show-blocks"], "not allowed with argument"),
        (["show", "--show-block"], "did you mean --show-blocks?"),
        (["explain", "node-aa"], "did you mean node-a?"),
        (["plan", "--nodes", "x", "--pods-per-node", "1"], "--nodes: 'x' is no whole number."),
    ],
)
def test_bad_words_get_the_nearest_form(
    on_lab: Lab, capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    status, out, err = said(capsys, *words)
    assert (status, out) == (WRONG_USAGE, "") and hint in err


async def test_in_slack(tmp_path: Path) -> None:
    """The recorded cluster where node-c may not borrow: table, bar and file in the channel."""
    (tmp_path / "world").mkdir()
    async with LocalSlack() as slack, fix_cluster(tmp_path) as fixes, fixes.store(BOT) as store:
        room = Room("http", slack, fixes, store, tmp_path / "state")
        async with served(objects(STRICT), tmp_path / "world") as world, world.cluster() as cluster:
            nothing: Any = None  # of what these commands do not use

            def context(whoami: Any, progress: Any, written: str) -> Context:
                return Context(
                    cluster=cluster, probes=nothing, store=store, settings=nothing, whoami=whoami,
                    investigate=nothing, progress=progress, written=written,
                )  # fmt: skip

            room.context = context
            async with room.bot():
                await room.ask("/calico ipam show --show-blocks")
                message = await room.answered("addresses of default-ipv4-ippool are in use")
                text = _all_text(message)
                wanted = recorded_calicoctl.runs("ipam-show-blocks.txt")[STRICT].text.splitlines()
                assert all(line in text for line in wanted if line)
                assert "▰▱▱▱▱▱▱▱▱▱ default-ipv4-ippool (10.245.0.0/25): 8 of 128 addresses in use" in text
                await room.ask("/calico ipam show --show-blocks -o csv")
                await slack.wait_for(lambda: files(slack, slack.messages(ROOM)[-1]["ts"]))
                [(name, content)] = files(slack, slack.messages(ROOM)[-1]["ts"])
                assert name == "answer.csv" and content.startswith(b"grouping,pool,cidr,affinity,addresses,in_use")
                await room.ask("/calico ipam explain")
                text = _all_text(await room.answered("The next pod would get no address on node-c."))
                assert "NO, strict affinity" in text and "could then borrow 120 addresses" in text
                await room.ask("/calico ipam plan --nodes 3 --pods-per-node 60 --pool default-ipv4-ippool")
                text = _all_text(await room.answered("10.245.0.0/25 with blocks of /26 does not do for 3 nodes"))
                assert "with 3 nodes for 0 pods each" in text
                await room.ask("/calico ipam explain nod-c")
                await room.answered("did you mean node-c?")


def test_who_may_not_read_the_pools_gets_a_sentence(
    on_lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", on_lab.environment(denied=["ippools"])["KUBECONFIG"])
    status, _, err = said(capsys, "show")
    assert status == COULD_NOT_JUDGE and "The ippools of" in err and "cannot be read" in err
    status, out, _ = said(capsys, "plan", "--nodes", "3", "--pods-per-node", "60")
    assert status == 0 and "Could not read ippools, so the defaults are taken" in out
