"""`calico-why bot`: the bot in Slack, begun once all that it was told can be meant; without it five typos would be five
starts."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from bot import language as languages
from bot import settings as connection
from bot.errors import UserError
from facts import heap, logs
from fixes.configuration import Configuration

if TYPE_CHECKING:
    from bot.delivery import SlackSettings
    from bot.investigate import Progress
    from bot.metrics import Metrics
    from bot.served import Served
    from engine.worker import Worker
    from fixes.request import Person

HELP = "serve in Slack: answer /calico why, show fixes for approval"

SWITCH_S = 0.0005  # after which a thread lets another one go on that wants to
NO_TOKEN = "The pages of your app at https://api.slack.com/apps have it."
STAND_IN = "local-stand-in"  # in all that the local Slack takes for a secret
BEGINS = {
    "SLACK_BOT_TOKEN": re.compile(r"(?:xoxe\.)?xoxb-"),
    "SLACK_APP_TOKEN": re.compile(r"xapp-"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "Slack", "tokens are read from the environment only, so that no process list shows them"
    )
    group.add_argument("--mode", choices=("socket", "http"), help="how Slack delivers ($CALICO_WHY_SLACK_MODE, socket)")
    group.add_argument("--listen", help="host:port in http mode ($CALICO_WHY_SLACK_LISTEN, 127.0.0.1:3000)")
    group.add_argument("--deadline", metavar="S", help="seconds a probe may take (4)")
    group.add_argument(
        "--observe",
        metavar="HOST:PORT",
        help="answer GET /metrics, /healthz and /readyz there ($CALICO_WHY_OBSERVE, nowhere)",
    )
    logs.add_argument(parser, of_file=True)
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 after SIGTERM or Ctrl-C. Raises UserError when Slack or the cluster cannot be served."""
    from bot import observe, tracing

    configured, wrong = connection.look(args)
    slack, more = of_slack(configured, os.environ)
    if wrong := [*wrong, *more, *connection.of_kubeconfigs(configured)]:
        raise connection.refused(wrong)
    logs.start(configured.log, secrets=(slack.bot_token, slack.app_token, slack.signing_secret))
    heap.keep_small()
    traced = tracing.start()
    try:
        asyncio.run(_serve(slack, configured, observe.address(configured.observe)))
    finally:
        traced()
    return 0


def _be_prompt() -> None:
    """Shortens the moments in which nobody is heard: the modules are not looked through for garbage each time (60 ms),
    and what has waited for the disk goes on before the next piece of an answer is made."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def slack_settings(environment: Mapping[str, str], configured: Configuration | None = None) -> SlackSettings:
    """configured: what was told besides, which is else read from the environment. Raises UserError, with what to set,
    for all that is missing or cannot be meant."""
    wrong = list[str]()
    if configured is None:
        configured, wrong = connection.look(argparse.Namespace(), environment)
    slack, more = of_slack(configured, environment)
    if wrong := [*wrong, *more]:
        raise connection.refused(wrong)
    return slack


def of_slack(configured: Configuration, environment: Mapping[str, str]) -> tuple[SlackSettings, list[str]]:
    """What is needed of Slack, and what is wrong with it, a line each."""
    from bot.delivery import SlackSettings
    from bot.slack import SLACK_API, api_url

    needed = {"SLACK_BOT_TOKEN": "the bot token (xoxb-...)"}
    if configured.slack_mode == "socket":
        needed["SLACK_APP_TOKEN"] = "the app-level token with connections:write (xapp-...)"
    else:
        needed["SLACK_SIGNING_SECRET"] = "the signing secret: without it anybody could pose as Slack"
    wrong = []
    for variable, what in needed.items():
        said = environment.get(variable, "")
        if not said:
            wrong.append(f"{variable} is not set; it is {what}. {NO_TOKEN}")
        elif STAND_IN in said and not configured.development:
            wrong.append(
                f"{variable}: this is the local Slack's, which everybody knows; it is {what}. {NO_TOKEN} Where it is "
                "meant, say that this is development (CALICO_WHY_DEVELOPMENT=1)."
            )
        elif variable in BEGINS and not BEGINS[variable].match(said) and not configured.development:
            wrong.append(f"{variable}: this does not look like {what}. {NO_TOKEN}")
    url = SLACK_API
    try:
        url = api_url(environment.get("SLACK_API_URL", ""), development=configured.development)
    except UserError as error:
        wrong.append(error.sentence)
    if configured.slack_mode == "http" and configured.observe == configured.slack_listen:
        wrong.append(f"observe: {configured.observe} is where Slack is heard (slack.listen). Give each its own port.")
    host, _, port = configured.slack_listen.rpartition(":")
    settings = SlackSettings(
        bot_token=environment.get("SLACK_BOT_TOKEN", ""),
        app_token=environment.get("SLACK_APP_TOKEN", ""),
        signing_secret=environment.get("SLACK_SIGNING_SECRET", ""),
        mode=configured.slack_mode,
        listen=(host.strip("[]"), int(port)),
        api_url=url,
        shared=configured.slack_shared,
    )
    return settings, wrong


async def _serve(slack: SlackSettings, configured: Configuration, where: tuple[str, int] | None) -> None:
    from bot.app import App
    from bot.journal import Journal
    from bot.metrics import Metrics
    from bot.observe import observed
    from engine.worker import Worker

    log = logging.getLogger(__name__)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if configured.development:
        log.warning("This is development: a local stand-in for Slack is let in.")
    for one in configured.clusters:
        if not one.approvers.entries:
            log.warning("No approvers%s: fixes are proposed, and nobody may approve them.", _of(one.cluster))
    if configured.state is None:
        log.warning(
            "CALICO_WHY_STATE is not set: a question or a click accepted just before a restart of the bot is lost."
        )
    try:
        journal = Journal(configured.state)
    except OSError as error:
        raise UserError(
            f"The journal of questions cannot be kept in {configured.state} ({error.strerror or error}). Set "
            "CALICO_WHY_STATE to a directory this user may write to."
        ) from error
    worker, metrics = Worker(), Metrics()
    worker.judged, worker.restarted = metrics.judged, metrics.engine_restarted
    try:
        async with contextlib.AsyncExitStack() as opened:
            served = [
                await opened.enter_async_context(_served(one, configured, slack, worker, metrics))
                for one in configured.clusters
            ]
            app = App(
                slack,
                served,
                journal=journal,
                channels=configured.channels,
                language=languages.language(configured.language),
                metrics=metrics,
            )
            async with observed(where, metrics, app.health):
                _be_prompt()
                await app.run(stop)
    finally:
        worker.close()


@contextlib.asynccontextmanager
async def _served(
    settings: connection.Settings,
    configured: Configuration,
    slack: SlackSettings,
    worker: Worker,
    metrics: Metrics,
) -> AsyncGenerator[Served]:
    """One cluster, of which nothing is asked yet: its API server need not be there. Raises UserError for a kubeconfig
    that cannot be used."""
    from bot import watch
    from bot.capture import capture, plan
    from bot.captures import Capturing
    from bot.investigate import Means
    from bot.second_opinion import second_opinion
    from bot.served import Served
    from bot.sources.kubernetes import Cluster
    from bot.sources.probes import Probes
    from bot.terminal import opened
    from bot.told import Context

    async with (
        Cluster(settings) as cluster,
        Probes(settings, deadline_s=settings.deadline_s) as probes,
        opened(settings) as store,
    ):
        cluster.api.asked, probes.asked = metrics.api(cluster.name), metrics.probe(cluster.name)
        metrics.certified(cluster.name, probes.certified_until)

        means = Means(cluster, probes, worker, settings.state, settings.state_mib)
        ask = partial(watch.ask, means=means)

        def context(whoami: Callable[[], Awaitable[Person]], progress: Progress, written: str) -> Context:
            return Context(
                cluster=cluster,
                probes=probes,
                store=store,
                settings=settings,
                configuration=configured,
                whoami=whoami,
                investigate=ask,
                progress=progress,
                written=written,
                slack=slack,
            )

        yield Served(
            name=cluster.name,
            investigate=ask,
            judge=partial(second_opinion, cluster=cluster),
            context=context,
            store=store,
            approvers=dataclasses.replace(settings.approvers, cluster=cluster.name),
            capturing=Capturing(
                partial(capture, cluster=cluster, probes=probes),
                partial(plan, cluster=cluster),
                configured.slack_capture,
            ),
        )


def _of(cluster: str) -> str:
    return f" of {cluster}" if cluster else ""
