"""A leaked address on a lab, from being found to being free, as people do it in a terminal and in Slack."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bot import asking, cli
from bot.commands import ipam
from bot.settings import from_environment
from fixes.kind import TooSoon
from fixes.request import Person, Phase
from lab.client import Lab
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import fix_cluster
from tests.fix_samples import ANA
from tests.fixing import ENVIRONMENT, approved_and_done, up
from tests.runbook_words import context_of, terminal
from tests.test_bot_slack import ROOM, Room, _all_text

ROOT = Path(__file__).parents[1]
APPROVERS = from_environment({**ENVIRONMENT, "CALICO_WHY_PEOPLE": f"{ANA.id}=kubernetes-admin"}).approvers


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from up()


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return terminal(lab, monkeypatch, tmp_path)


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["ipam", "check", "-o", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def leaked(found: dict[str, Any]) -> list[str]:
    return [one["address"] for one in found["problems"] if one["kind"] == "leaked"]


def test_a_leaked_address_is_found_asked_for_approved_and_released(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_of(capsys)["problems"] == []
    lab.inflict("ipam_gc_stuck", where="source")
    assert cli.main(["ipam", "check", "-o", "json", "--to", "first.json"]) == 0
    first = json.loads(Path("first.json").read_text())
    addresses = leaked(first)
    assert len(addresses) > 20 and len(first["problems"]) == len(addresses)
    # Somebody has kept the report for twenty minutes.
    early = datetime.fromisoformat(first["taken"]) - timedelta(minutes=20)
    Path("first.json").write_text(json.dumps(first | {"taken": early.isoformat()}))
    assert cli.main(["ipam", "check", "--since", "first.json"]) == 0
    said = capsys.readouterr().out
    assert f"{len(addresses)} of them were leaked 15 min ago as well" in said
    assert "ipam check --since first.json --release all" in said
    assert f"Stayed the same: {len(addresses)}\n" in said
    assert "No pod of calico-kube-controllers runs here, so nobody frees leaked addresses." in said
    address = addresses[0]
    assert cli.main(["ipam", "check", "--since", "first.json", "--release", address]) == 0
    said = capsys.readouterr().out
    (name,) = re.findall(r"a second person: calico-why approve (fx-\w+)", said)
    assert f"{address}: {name} waits for somebody who approves it. It was leaked at {early:%H:%M:%S} UTC, too" in said
    done = asyncio.run(approved_and_done(lab, name, APPROVERS))
    assert (done.status.phase, done.status.message) == (Phase.VERIFIED, f"{address} is free now.")
    assert leaked(report_of(capsys)) == addresses[1:]
    # All that the report lists is asked for a handful at a time, and what is free already is told.
    assert cli.main(["ipam", "check", "--since", "first.json", "--release", "all", "-o", "json"]) == 1
    releases = json.loads(capsys.readouterr().out)["releases"]
    assert [one["address"] for one in releases if one["request"]] == addresses[1:21]
    assert {one["refused"] for one in releases[20:]} == {"20 are asked for at a time; ask again for the others"}
    assert cli.main(["ipam", "check", "--release", address]) == 1
    assert f"{address} is not released: it is not assigned" in capsys.readouterr().out


def test_one_address_is_asked_for_or_is_told_why_not(lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = report_of(capsys)
    live = next(
        address
        for address, (one, *_) in now["allocations"].items()
        if (one.get("namespace"), one.get("pod")) == ("shop", "cart")
    )
    assert cli.main(["ipam", "release", "--ip", live]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{live} is not released: it is in use by Workload(shop/node--a-k8s-cart-eth0).\n")
    assert (
        "calicoctl would have released it without asking, and the next pod could have got the address of Workload"
        in said
    )
    assert cli.main(["ipam", "release", "--ip", "10.244.7.300"]) == 2
    assert "'10.244.7.300' is no IP address. Write the whole address" in capsys.readouterr().err
    lab.inflict("ipam_gc_stuck", where="source")
    address = leaked(report_of(capsys))[0]
    assert cli.main(["ipam", "release", "--ip", address]) == 0
    (name,) = re.findall(r"a second person: calico-why approve (fx-\w+)", said := capsys.readouterr().out)
    assert "It is looked at again at " in said and "calicoctl would have released it at once" in said
    assert cli.main(["ipam", "release", "--ip", address, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["request"] == name, "the same wish twice is one request"
    with pytest.raises(TooSoon, match=f"{address} is looked at again at"):
        asyncio.run(approved_and_done(lab, name, APPROVERS))
    assert address in leaked(report_of(capsys)), "approved, and waiting for its second look"


async def test_what_happens_while_it_watches_is_told_apart_from_what_stays(lab: Lab, here: Path) -> None:
    lab.inflict("ipam_gc_stuck", where="target")
    args = asking.understand("ipam", ipam, ["check", "--watch", "10", "--release", "10.244.1.1"])
    steps: list[str] = []

    async def progress(text: str) -> None:
        if str(text).startswith("watching") and not any(step.startswith("watching") for step in steps):
            await asyncio.to_thread(lab.heal)
        steps.append(str(text))

    async with context_of(lab.environment()) as opened:
        told = await ipam.answer(args, opened(_ana, progress, ""))
    assert told.status == 1 and "10.244.1.1 is not released: it is not assigned" in told.notes[0]
    assert not told.data["problems"]
    assert told.data["since"]["same"] == [] and len(told.data["since"]["gone"]) > 20
    assert "Gone meanwhile: " in told.text
    assert any("asking" not in step and " went, " in step for step in steps)


def test_who_does_not_want_to_wait_any_longer_is_told_what_was_seen_so_far(lab: Lab, here: Path) -> None:
    lab.inflict("ipam_gc_stuck", where="source")
    command = [sys.executable, "-m", "bot.cli", "ipam", "check", "--watch", "30", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        watching = (line for line in process.stderr if line.startswith("watching"))
        assert next(watching) != next(watching), "it has made a second report"
        process.send_signal(signal.SIGINT)
        found = json.loads(process.stdout.read())
    assert process.returncode == 0
    assert len(found["since"]["same"]) == len(leaked(found)) > 20


def test_a_node_with_a_route_to_its_pod_keeps_an_address(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.inflict("ipam_gc_stuck", where="source")
    address = leaked(report_of(capsys))[0]
    script = f"""
from pyroute2 import IPRoute
with IPRoute() as ip:
    (pod, *_) = [one["index"] for one in ip.get_links() if one.get_attr("IFLA_IFNAME").startswith("cali")]
    ip.route("add", dst="{address}/32", oif=pod, scope=253)
"""
    done = lab.exec("node-c", sys.executable, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    assert cli.main(["ipam", "release", "--ip", address]) == 1
    assert f"{address} is not released: node-c has a route to a pod that uses it." in capsys.readouterr().out


async def _ana() -> Person:
    return ANA


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clusterGUID": "another"}, "The report is of the cluster with GUID another"),
        ({"taken": f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"}, "which is not in the past"),
        ({"problems": 7}, "is no report of `ipam check`"),
        ({"taken": None}, "is no report of `ipam check` that tells when it was made"),
    ],
)
def test_a_report_that_proves_nothing_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    assert cli.main(["ipam", "check", "-o", "json", "--to", "first.json"]) == 0
    found = json.loads(Path("first.json").read_text())
    Path("first.json").write_text(
        json.dumps({key: value for key, value in (found | change).items() if value is not None})
    )
    assert cli.main(["ipam", "check", "--since", "first.json"]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["ipam", "check", "--since", "nowhere.json"]) == 2
    assert "nowhere.json cannot be read" in capsys.readouterr().err


@pytest.fixture
async def room(lab: Lab, tmp_path: Path) -> AsyncIterator[Room]:
    """A bot in Slack whose cluster is the lab; requests and cards are in a store of their own."""
    async with (
        LocalSlack() as slack,
        fix_cluster(tmp_path) as cluster,
        cluster.store(ADMINISTRATOR) as store,
        cluster.store(BOT) as own,
        context_of(lab.environment()) as opened,
    ):
        found = Room("socket", slack, cluster, store, tmp_path / "state")
        found.context = lambda *about: replace(opened(*about), store=own)
        yield found


async def test_in_slack_each_address_gets_its_card_in_the_thread(lab: Lab, room: Room) -> None:
    lab.heal()
    lab.inflict("ipam_gc_stuck", where="source")
    async with room.bot():
        await room.ask("/calico ipam check")
        first = await room.answered("IPAM has problems: addresses that look leaked (")
        assert "Which these are: ipam check --show-problem-ips" in _all_text(first)
        await room.ask("/calico ipam check --release all")
        listed = await room.answered("all stands for what a report lists that somebody has read")
        (named,) = re.findall(r"ipam check --release ([\d.,]+)", _all_text(listed))
        addresses = named.split(",")
        assert len(addresses) == 20 and await room.store.all() == [], "nothing is asked for that nobody has looked at"
        await room.ask(f"/calico ipam check --release {addresses[0]},{addresses[1]},10.244.1.1")
        answered = await room.answered("10.244.1.1 is not released: it is not assigned")

        def placed() -> list[dict[str, Any]]:
            found = [one for one in room.slack.messages(ROOM, answered["ts"]) if "Approve" in _all_text(one)]
            return found if len(found) == 2 else []

        cards = await room.slack.wait_for(placed)
        for address, card in zip(addresses[:2], cards, strict=True):
            assert f"Release {address}, which IPAM holds for" in _all_text(card)
        requests = await room.store.all()
        assert {one.spec.requested_by for one in requests} == {Person(id="U0ANA", via="slack")}
        assert {one.status.phase for one in requests} == {Phase.PENDING}
        await room.ask("/calico ipam check --since first.json")
        await room.whisper("ana", "--since reads a file, and there is none in Slack")
