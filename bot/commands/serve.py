"""`calico-why bot`: the bot in Slack."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bot import language as languages
from bot import settings as connection
from bot.errors import UserError
from bot.language import Language
from facts import logs

if TYPE_CHECKING:
    from bot.app import SlackSettings
    from bot.investigate import Investigation, Progress
    from bot.words import Asked
    from fixes.request import Person

HELP = "serve in Slack: answer /calico why, show fixes for approval"

SWITCH_S = 0.0005  # after which a thread lets another one go on that wants to
NO_TOKEN = "The pages of your app at https://api.slack.com/apps have it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "Slack", "tokens are read from the environment only, so that no process list shows them"
    )
    group.add_argument("--mode", choices=("socket", "http"), help="how Slack delivers ($CALICO_WHY_SLACK_MODE, socket)")
    group.add_argument("--listen", help="host:port in http mode ($CALICO_WHY_SLACK_LISTEN, 127.0.0.1:3000)")
    group.add_argument("--deadline", type=float, default=4.0, metavar="S", help="seconds a probe may take (4)")
    group.add_argument(
        "--observe",
        metavar="HOST:PORT",
        default=os.environ.get("CALICO_WHY_OBSERVE", ""),
        help="answer GET /metrics, /healthz and /readyz there ($CALICO_WHY_OBSERVE, nowhere)",
    )
    logs.add_argument(parser)
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or Ctrl-C. Raises UserError when Slack or the cluster cannot be served."""
    from bot import observe, tracing

    environment = dict(os.environ)
    if args.mode:
        environment["CALICO_WHY_SLACK_MODE"] = args.mode
    if args.listen:
        environment["CALICO_WHY_SLACK_LISTEN"] = args.listen
    slack = slack_settings(environment)
    capturing = capture_setting(environment)
    language = languages.from_argument(args)
    settings, where = connection.from_arguments(args), observe.address(args.observe)
    logs.start(args.log, secrets=(slack.bot_token, slack.app_token, slack.signing_secret))
    traced = tracing.start()
    try:
        asyncio.run(_serve(slack, settings, args.deadline, language, capturing, where))
    finally:
        traced()
    return 0


def _be_prompt() -> None:
    """Shortens the moments in which nobody is heard: the modules are not looked through for garbage each time (60 ms),
    and what has waited for the disk goes on before the next piece of an answer is made."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def slack_settings(environment: Mapping[str, str]) -> SlackSettings:
    """Raises UserError, with what to set, for a setting that is missing or cannot be meant."""
    from bot.app import SlackSettings
    from bot.slack import api_url

    mode = environment.get("CALICO_WHY_SLACK_MODE") or "socket"
    if mode not in ("socket", "http"):
        raise UserError(f"CALICO_WHY_SLACK_MODE is {mode!r}; it is socket or http.")
    needed = {"SLACK_BOT_TOKEN": "the bot token (xoxb-...)"}
    if mode == "socket":
        needed["SLACK_APP_TOKEN"] = "the app-level token with connections:write (xapp-...)"
    else:
        needed["SLACK_SIGNING_SECRET"] = "the signing secret: without it anybody could pose as Slack"
    for variable, what in needed.items():
        if not environment.get(variable):
            raise UserError(f"{variable} is not set; it is {what}. {NO_TOKEN}")
    url = api_url(environment.get("SLACK_API_URL", ""))
    host, colon, port = (environment.get("CALICO_WHY_SLACK_LISTEN") or "127.0.0.1:3000").rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not int(port) < 65536:
        raise UserError("CALICO_WHY_SLACK_LISTEN is host:port, such as 127.0.0.1:3000.")
    return SlackSettings(
        bot_token=environment["SLACK_BOT_TOKEN"],
        app_token=environment.get("SLACK_APP_TOKEN", ""),
        signing_secret=environment.get("SLACK_SIGNING_SECRET", ""),
        mode=mode,
        listen=(host.strip("[]"), int(port)),
        api_url=url,
    )


def capture_setting(environment: Mapping[str, str]) -> str:
    """What may be captured from Slack. Raises UserError for a setting that cannot be meant."""
    setting = environment.get("CALICO_WHY_SLACK_CAPTURE") or "headers"
    if setting not in ("headers", "approval", "approvers", "off"):
        raise UserError(
            f"CALICO_WHY_SLACK_CAPTURE is {setting!r}; it is headers (everybody may capture headers, whole packets are "
            "for approvers or need their approval), approval (a second person has to approve each capture), approvers "
            "(nobody else may capture), or off."
        )
    return setting


async def _serve(
    slack: SlackSettings,
    settings: connection.Settings,
    deadline_s: float,
    language: Language,
    capturing: str,
    where: tuple[str, int] | None,
) -> None:
    from bot import watch
    from bot.app import App
    from bot.capture import Captured, Planned, Wanted, capture, plan
    from bot.captures import Capturing
    from bot.journal import Journal
    from bot.metrics import Metrics
    from bot.observe import observed
    from bot.second_opinion import SecondOpinion, second_opinion
    from bot.served import Served
    from bot.sources.kubernetes import Cluster
    from bot.sources.probes import Probes
    from bot.terminal import opened
    from bot.told import Context
    from engine.worker import Worker
    from fixes.approvers import Approvers

    log = logging.getLogger(__name__)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    approvers = Approvers.from_environment()
    if not approvers.entries:
        log.warning("CALICO_WHY_APPROVERS is empty: fixes are proposed, and nobody may approve them.")
    for wrong in approvers.unreadable:
        log.warning("%s.", wrong)
    if settings.state is None:
        log.warning(
            "CALICO_WHY_STATE is not set: a question or a click accepted just before a restart of the bot is lost."
        )
    try:
        journal = Journal(settings.state)
    except OSError as error:
        raise UserError(
            f"The journal of questions cannot be kept in {settings.state} ({error.strerror or error}). Set "
            "CALICO_WHY_STATE to a directory this user may write to."
        ) from error
    worker, metrics = Worker(), Metrics()
    worker.judged, worker.restarted = metrics.judged, metrics.engine_restarted
    try:
        async with (
            Cluster(settings) as cluster,
            Probes(settings, deadline_s=deadline_s) as probes,
            opened(settings) as store,
        ):
            cluster.api.asked, probes.asked = metrics.api(cluster.name), metrics.probe(cluster.name)

            async def ask(
                words: Sequence[str], *, asked_by: str = "", progress: Progress | None = None
            ) -> Investigation:
                return await watch.ask(
                    words,
                    cluster=cluster,
                    probes=probes,
                    worker=worker,
                    asked_by=asked_by,
                    progress=progress,
                    state=settings.state,
                )

            async def take(wanted: Wanted, *, progress: Progress | None = None) -> Captured:
                return await capture(wanted, cluster=cluster, probes=probes, progress=progress)

            async def planned(wanted: Wanted) -> Planned:
                return await plan(wanted, cluster=cluster)

            async def judge(asked: Asked) -> SecondOpinion:
                return await second_opinion(asked, cluster=cluster)

            def context(whoami: Callable[[], Awaitable[Person]], progress: Progress, written: str) -> Context:
                return Context(
                    cluster=cluster,
                    probes=probes,
                    store=store,
                    settings=settings,
                    whoami=whoami,
                    investigate=ask,
                    progress=progress,
                    written=written,
                    slack=slack,
                )

            if not approvers.cluster:
                approvers = dataclasses.replace(approvers, cluster=cluster.name)
            served = Served(
                name=cluster.name,
                investigate=ask,
                judge=judge,
                context=context,
                store=store,
                approvers=approvers,
                capturing=Capturing(take, planned, capturing),
            )
            app = App(slack, [served], journal=journal, language=language, metrics=metrics)
            async with observed(where, metrics, app.health):
                _be_prompt()
                await app.run(stop)
    finally:
        worker.close()
