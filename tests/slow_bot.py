"""A bot that looks for ever while a file says so, to be killed in the middle. Arguments: kubeconfig, state, file."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bot.app import App
from bot.capture import Captured, Wanted
from bot.commands.serve import slack_settings
from bot.investigate import Investigation, Progress
from bot.journal import Journal
from bot.served import Served
from bot.settings import from_environment
from fixes.store import connect
from tests.answers import wrong_mac
from tests.fix_cluster import NAMESPACE
from tests.test_bot_slack import no_answers, no_cluster
from tests.test_capture_slack import Takes


def main(words: Sequence[str]) -> int:
    asyncio.run(_run(*words))
    return 0


async def _run(kubeconfig: str, state: str, hold: str) -> None:
    async def investigate(
        words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
    ) -> Investigation:
        print("looking", flush=True)
        if await asyncio.to_thread(Path(hold).exists):
            await asyncio.Event().wait()
        return msgspec.structs.replace(wrong_mac(), asked=" ".join(words), asked_by=asked_by)

    class Stuck(Takes):
        async def __call__(self, wanted: Wanted, *, progress: Progress | None = None) -> Captured:
            print("capturing", flush=True)
            await asyncio.Event().wait()
            return await super().__call__(wanted, progress=progress)

    async with connect(kubeconfig, NAMESPACE) as store:
        app = App(
            slack_settings(os.environ),
            [
                Served(
                    name="test",
                    investigate=investigate,
                    judge=no_cluster,
                    context=no_answers,
                    capturing=Stuck().capturing("approval"),
                    store=store,
                    approvers=from_environment().approvers,
                )
            ],
            journal=Journal(Path(state)),
        )
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        serving = asyncio.ensure_future(app.run(stop))
        await app.ready.wait()
        print("ready", app.address[1] if app.address else 0, flush=True)
        await serving
