"""A probe that is killed or hangs while the bot asks it: its node is not seen, nobody says healthy, and once it is back
the next question is answered. Real bot, probes and kernel."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from lab.client import Lab
from lab.slack import LocalSlack
from tests.own_faults import bot_environment, until
from tests.programs import Programs
from tests.test_bot_slack import ROOM, _all_text

WORDS = "why shop/cart shop/db 5432/tcp"
NODE = "node-b"  # where shop/db is
HEALTHY = ":white_check_mark:"


def probe(lab: Lab, number: str = "") -> str:
    """The pid of that node's probe in the lab, which is sent a signal; "" where there is none."""
    found = lab.exec(NODE, "pgrep", "-x", f"probe {NODE}").stdout.split()
    if found and number:
        assert lab.exec(NODE, "kill", f"-{number}", found[0]).returncode == 0
    return found[0] if found else ""


async def answer(slack: LocalSlack, since: int) -> tuple[str, str]:
    """The question's message, and its thread, once it is answered."""

    def found() -> tuple[str, str] | None:
        for one in slack.messages(ROOM)[since:]:
            replies = "\n".join(map(_all_text, slack.messages(ROOM, one["ts"])))
            if ":mag:" not in _all_text(one) and "things checked and well" in replies:
                return _all_text(one), replies
        return None

    told = await slack.wait_for(found, timeout=30)
    assert told is not None
    return told


async def test_a_probe_that_is_killed_or_hangs_in_the_middle_of_an_answer(lab: Lab, tmp_path: Path) -> None:
    programs = Programs()
    async with LocalSlack() as slack:
        environment = bot_environment(slack, tmp_path / "state") | lab.environment()
        bot = programs.start(["bot"], environment | {"CALICO_WHY_APPROVERS": "S0NETOPS"}, tmp_path / "bot.log")
        try:
            await slack.wait_for(lambda: slack.connections, timeout=30)

            async def asks() -> int:
                since = len(slack.messages(ROOM))
                assert (await slack.slash("ana", ROOM, f"/calico {WORDS}")).result == "ok"
                return since

            def asking() -> bool:
                return any("asking node-a" in _all_text(one) for one in slack.messages(ROOM))

            assert HEALTHY in (await answer(slack, await asks()))[0]
            # It hangs, and is killed when it has been asked; whoever runs it starts it again.
            first = await asyncio.to_thread(probe, lab, "STOP")
            since = await asks()
            await slack.wait_for(asking)
            await asyncio.to_thread(probe, lab, "KILL")
            told, replies = await answer(slack, since)
            assert HEALTHY not in told and "I cannot say" in told, told
            assert f"{NODE}: probe: " in replies and "make the probe of node-b answer" in replies, replies
            await until(lambda: probe(lab) not in ("", first))
            await until(lambda: lab.exec(NODE, "sh", "-c", "ss -ltn | grep -q :9797").returncode == 0)
            assert HEALTHY in (await answer(slack, await asks()))[0]
            # It hangs, and goes on later.
            await asyncio.to_thread(probe, lab, "STOP")
            told, replies = await answer(slack, await asks())
            assert HEALTHY not in told and "I cannot say" in told, told
            assert f"{NODE}: probe: its probe at" in replies and "did not answer in 4 s" in replies, replies
            await asyncio.to_thread(probe, lab, "CONT")
            assert HEALTHY in (await answer(slack, await asks()))[0]
        finally:
            bot.signal(signal.SIGTERM)
            assert await asyncio.wait_for(bot.ended(), 30) == 0
            programs.close()
    assert "Traceback" not in bot.text
