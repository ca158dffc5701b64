"""A flow that is watched: an answer as soon as it breaks, and what was lost when, and what was otherwise then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bot import watch as watching
from bot.errors import UserError
from bot.investigate import Investigation, Means
from bot.reply import json as contract
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.watch import ask
from bot.words import watched
from lab.client import Lab
from tests.asking import worker
from tests.test_firewall_trace import needs
from tests.test_stages import SPOILED, ruleset

PAIR = "shop/cart shop/db 5432/tcp"
HERE = str(Path(__file__).parents[1])


async def look(lab: Lab, seconds: int, *, words: str = PAIR, on: dict[int, object] | None = None) -> Investigation:
    """Watch, and do `on[n]()` when n trains have been looked at."""
    settings = from_environment(lab.environment())
    told: list[str] = []

    async def progress(text: str) -> None:
        if text.startswith("watching"):
            told.append(text)
            if act := (on or {}).get(len(told)):
                await asyncio.to_thread(act)  # type: ignore[arg-type]

    question = [*words.split(), "watch", str(seconds)]
    async with Cluster(settings) as cluster, Probes(settings) as probes:
        return await ask(question, Means(cluster, probes, worker()), progress=progress)


def watched_in(answer: Investigation) -> Any:
    """`watch` of the JSON that is printed, which is what the schema promises."""
    document = json.loads(contract.render(answer))
    jsonschema.validate(document, json.loads((Path(HERE) / "bot/reply/schema.json").read_text()))
    return document["watch"]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 1.0)


async def test_a_healthy_flow_stays_healthy_and_says_how_many_packets_passed(lab: Lab) -> None:
    answer = await look(lab, 5)
    assert (answer.diagnosis.verdict, answer.diagnosis.causes, answer.diagnosis.warnings) == ("healthy", (), ())
    assert (
        "Watched for 5 s: 0 of " in answer.diagnosis.summary
        and "packets (tcp 5432) were lost." in answer.diagnosis.summary
    )
    assert answer.elapsed_ms >= 5000
    counted = watched_in(answer)
    assert counted["rounds"] >= 3 and counted["sent"] == 10 * counted["rounds"] and counted["lost"] == 0
    assert (counted["packets"], counted["first_lost"], counted["outages"]) == (["tcp 5432"], "", [])
    assert 0 < counted["rtt_us"] <= counted["rtt_most_us"] and counted["seconds"] >= 5


async def test_what_a_silent_probe_did_not_see_is_not_said_to_be_well(lab: Lab) -> None:
    (probe,) = lab.exec("node-a", "pgrep", "-x", "probe node-a").stdout.split()
    try:
        answer = await look(lab, 9, on={1: lambda: lab.exec("node-a", "kill", "-STOP", probe)})
    finally:
        lab.exec("node-a", "kill", "-CONT", probe)
    assert (answer.diagnosis.verdict, answer.diagnosis.causes) == ("unknown", ())
    assert " packets (tcp 5432) were lost. Of " in answer.diagnosis.summary
    assert "saw nothing, the first at " in answer.diagnosis.summary
    assert "node-a: its probe at" in answer.diagnosis.summary and "did not answer in" in answer.diagnosis.summary
    counted = watched_in(answer)
    assert 1 <= counted["unseen"] < counted["rounds"] and counted["sent"] == 10 * (
        counted["rounds"] - counted["unseen"]
    )


async def test_it_ends_when_the_flow_breaks_and_says_what_has_changed(lab: Lab) -> None:
    answer = await look(lab, 60, on={2: lambda: lab.inflict("neighbor_wrong_mac", "shop/cart", "shop/db", "source")})
    assert [cause.rule for cause in answer.diagnosis.causes] == ["neighbor_wrong_mac"]
    assert answer.elapsed_ms < 30_000
    assert "UTC to the end" in answer.diagnosis.summary
    assert "Changed on node-a: neighbor " in answer.diagnosis.summary


@needs("nft")
async def test_what_was_lost_for_a_while_is_told_though_nothing_explains_it(lab: Lab) -> None:
    """Within the pod, without any rule. It is over when somebody looks closely: all the same it is not called
    healthy."""
    rule = ruleset("ingress", "eth0", f"tcp dport 5432 {SPOILED}")

    def by_hand() -> None:
        done = lab.exec("shop/db", "nft", "-f", "-", input=rule)
        assert (done.returncode, done.stderr) == (0, "")

    answer = await look(lab, 14, on={2: by_hand, 4: lab.heal})
    assert answer.diagnosis.verdict == "unknown", answer.diagnosis
    assert " UTC on, for " in answer.diagnosis.summary
    counted = watched_in(answer)
    (outage,) = counted["outages"]
    assert 0 < outage["lost"] == counted["lost"] < counted["sent"]
    assert outage["began"] == counted["first_lost"] <= counted["last_lost"] < outage["ended"]


async def test_pings_that_a_policy_drops_do_not_make_a_good_flow_bad(lab: Lab) -> None:
    script = "from lab.wire import *\ndrop_protocol('vxlan.calico', 1)"
    done = lab.exec("node-b", "env", f"PYTHONPATH={HERE}", sys.executable, "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    answer = await look(lab, 5, words="shop/cart shop/db 8080/udp")
    assert answer.diagnosis.verdict == "healthy", answer.diagnosis
    assert "icmp 0 of 2 answered" in answer.diagnosis.summary
    assert "packets (udp 8080) were lost." in answer.diagnosis.summary and ": 0 of " in answer.diagnosis.summary


async def test_a_cause_that_is_there_at_once_needs_no_watching(lab: Lab) -> None:
    lab.inflict("route_missing", "shop/cart", "shop/db", "source")
    answer = await look(lab, 60)
    assert [cause.rule for cause in answer.diagnosis.causes] == ["route_missing"]
    assert "Watched" not in answer.diagnosis.summary
    assert watched_in(answer) is None


def test_ctrl_c_answers_with_what_was_seen(lab: Lab) -> None:
    terminal, screen = os.openpty()
    argv = [sys.executable, "-m", "bot.cli", "why", *PAIR.split(), "--watch", "300"]
    environment = {**os.environ, **lab.person()}
    with subprocess.Popen(argv, env=environment, cwd=HERE, stdout=subprocess.PIPE, stderr=screen) as asked:
        os.close(screen)
        shown = b""
        while b"watching, " not in shown:
            shown += os.read(terminal, 4096)
        asked.send_signal(signal.SIGINT)
        said = asked.communicate(timeout=30)[0].decode()
    os.close(terminal)
    assert asked.returncode == 0, shown
    assert "Watched for " in said and ": 0 of " in said


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("a b", (["a", "b"], 0)),
        ("a b 80 watch", (["a", "b", "80"], 60)),
        ("a b Watch 120", (["a", "b"], 120)),
        ("a b 80/tcp watch 30s", (["a", "b", "80/tcp"], 30)),
        ("watch b", (["watch", "b"], 0)),
        ("a watch", (["a", "watch"], 0)),
    ],
)
def test_the_words_of_a_question_to_be_watched(words: str, found: tuple[list[str], int]) -> None:
    assert watched(words.split()) == found


def test_times_nobody_can_mean() -> None:
    for words in ("a b watch 1", "a b watch 100000"):
        with pytest.raises(UserError, match="from 5 to 600"):
            watched(words.split())
