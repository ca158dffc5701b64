"""The bot as people start it, whose looks at the cluster fail in whatever way the question names, with a token in it.
Arguments: those of `calico-why bot`. PLANTED, in the environment, is the token."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from bot import cli, journal, watch
from bot.errors import UserError
from bot.investigate import Investigation
from engine.worker import Worker
from facts import Endpoint

TOKEN = os.environ["PLANTED"]


async def broken() -> NoReturn:
    raise RuntimeError(TOKEN)


def broken_thread() -> NoReturn:
    raise RuntimeError(f"Authorization: Bearer {TOKEN}")


class Unclean:
    def __del__(self) -> None:
        raise RuntimeError(TOKEN)


async def leaky(words: Sequence[str], **_: Any) -> Investigation:
    way = words[0].partition("/")[2]
    if way == "thread":
        thread = threading.Thread(target=broken_thread)
        thread.start()
        thread.join()
    elif way == "task":
        await asyncio.wait({asyncio.ensure_future(broken())})
    elif way == "callback":
        asyncio.get_running_loop().call_soon(broken_thread)
    elif way == "warning":
        warnings.warn(TOKEN, stacklevel=1)
    elif way == "log":
        logging.getLogger("slack_bolt").error("the request was %s", {"token": TOKEN, "headers": {"a": TOKEN}})
        logging.warning("%d", TOKEN)
    elif way == "finalizer":
        Unclean()
    elif way == "engine":
        with Worker(function="tests.leaky_engine:leaks") as worker:
            worker.diagnose([Endpoint(name=TOKEN, kind="pod")])
    elif way == "exception":
        try:
            await broken()
        except RuntimeError as error:
            raise KeyError("by its cause") from error
    raise UserError(f"This way, {way}, is at its end.")


if __name__ == "__main__":
    watch.ask = leaky
    if os.environ.get("CRASH"):
        journal.Journal.__init__ = lambda *_: broken_thread()  # type: ignore[method-assign]
    sys.exit(cli.main())
