"""The bot of the trial: the real one but for the looking, which would take a lab of its own for each wrong thing.

It has the environment of `calico-why bot`, and CALICO_WHY_TRIAL_LIFETIME_S: for how long a request may be decided.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import msgspec

from benchmarks.trial.targets import Target, investigation
from bot import fix_requests
from bot.app import App
from bot.commands.serve import slack_settings
from bot.errors import UserError
from bot.investigate import Investigation, Progress
from bot.journal import Journal
from bot.second_opinion import SecondOpinion
from bot.served import Served
from bot.settings import from_environment
from bot.words import Asked
from fixes.store import connect


def log() -> None:
    """Where it is started from nothing logs."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


async def main(directory: Path) -> None:
    """directory: a file for each question, with what is wrong, and `nodes`, all nodes there are."""
    fix_requests.LIFETIME = timedelta(seconds=float(os.environ["CALICO_WHY_TRIAL_LIFETIME_S"]))
    nodes = msgspec.json.decode((directory / "nodes").read_bytes(), type=list[str])

    async def investigate(
        words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
    ) -> Investigation:
        asked = " ".join(words)
        if asked_by == "second look":
            return investigation(asked, asked_by, [], nodes)
        name = words[0].replace("/", "-")
        targets = msgspec.json.decode((directory / name).read_bytes(), type=list[Target])
        return investigation(asked, asked_by, targets, nodes)

    async def judge(asked: Asked) -> SecondOpinion:
        raise UserError(f"The trial asks nothing about policies ({asked}).")

    def context(*_: object) -> NoReturn:
        raise UserError("The trial asks for nothing that calicoctl does.")

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with connect(os.environ["KUBECONFIG"], os.environ["CALICO_WHY_NAMESPACE"]) as store:
        app = App(
            slack_settings(os.environ),
            [
                Served(
                    name="trial",
                    investigate=investigate,
                    judge=judge,
                    context=context,
                    store=store,
                    approvers=from_environment().approvers,
                )
            ],
            journal=Journal(Path(os.environ["CALICO_WHY_STATE"])),
        )
        await app.run(stop)
