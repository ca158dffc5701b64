"""`calico-why slack-manifest`: the Slack app, to be pasted where Slack makes apps."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from bot.errors import UserError

HELP = "print the manifest of the Slack app, to paste at https://api.slack.com/apps"
MANIFEST = Path(__file__).parents[1] / "slack-manifest.yaml"
EVENTS = "/slack/events"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--http", metavar="URL", help="https://HOST that leads to the bot: signed HTTP instead of Socket Mode"
    )


def run(args: argparse.Namespace) -> int:
    """0. Raises UserError for a URL that Slack does not take."""
    sys.stdout.write(manifest() if args.http is None else over_http(args.http))
    return 0


def manifest() -> str:
    """For Socket Mode, with its comments."""
    return MANIFEST.read_text()


def scopes() -> frozenset[str]:
    """What the bot token has to be granted."""
    return frozenset(yaml.safe_load(manifest())["oauth_config"]["scopes"]["bot"])


def over_http(url: str) -> str:
    """The same for signed HTTP. Raises UserError."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.path.rstrip("/") not in ("", EVENTS):
        raise UserError(
            f"{url!r} is not where Slack can send to: give --http https://HOST, to which {EVENTS} is added."
        )
    events = f"https://{parts.netloc}{EVENTS}"
    app: dict[str, Any] = yaml.safe_load(manifest())
    for command in app["features"]["slash_commands"]:
        command["url"] = events
    settings = app["settings"]
    settings["socket_mode_enabled"] = False
    settings["event_subscriptions"]["request_url"] = events
    settings["interactivity"]["request_url"] = events
    return yaml.safe_dump(app, sort_keys=False, allow_unicode=True)
