"""Runs the local Slack by itself, to sit in or to try any Slack app on: `python -m lab.slack`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from pathlib import Path

from lab.slack import LocalSlack
from lab.slack.config import SEED, Config, load_config


async def _serve(port: int, config: Config, request_url: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, ended.set)
    async with LocalSlack(port, config, request_url) as slack:
        told = {
            "page_url": slack.page_url,
            "base_url": slack.base_url,
            "bot_token": slack.bot_token,
            "app_token": slack.app_token,
            "signing_secret": slack.signing_secret,
        }
        print(json.dumps(told), flush=True)
        await ended.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lab.slack",
        description="Serves a local stand-in for Slack on 127.0.0.1 and prints one JSON line about it; ends on Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--config", type=Path, default=SEED, help="the workspace (default: %(default)s)")
    parser.add_argument("--request-url", default="", help="deliver by signed HTTP there instead of Socket Mode")
    arguments = parser.parse_args()
    try:
        asyncio.run(_serve(arguments.port, load_config(arguments.config), arguments.request_url))
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(3, f"Cannot listen on 127.0.0.1:{arguments.port}: {error.strerror}. Choose another --port.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
