"""The whole product on one machine in a minute: a newcomer sees a real answer before reading anything.

A three-node lab, one wound, the local Slack with its page, the real bot; the question is asked in the incident channel.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lab import faults
from lab.client import Lab
from lab.errors import LabError
from lab.namespaces import die_with_parent
from lab.slack import LocalSlack

HELP = "a broken three-node cluster and an incident channel in the browser"

CHANNEL, ASKER, APPROVER = "incident", "ana", "bo"
ANSWER_TIMEOUT_S = 60.0
FIX_TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fault", default="neighbor_wrong_mac", help="what to break (calico-why lab faults lists it)")
    parser.add_argument("--where", default="", choices=("source", "target"), help="whose node to wound")
    parser.add_argument("--once", action="store_true", help="approve as a second person, print both answers and end")
    parser.add_argument("--port", type=int, default=0, help="of the page (any free one)")


def run(args: argparse.Namespace) -> int:
    """0 when the first answer named the fault and the second found the path healthy (--once), 3 when not."""
    try:
        faults.load(args.fault)
        return asyncio.run(_until_signal(_demo(args)))
    except LabError as error:
        print(f"calico-why: {error.sentence}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130


async def _until_signal(work: Any) -> int:
    """A signal ends the demo the orderly way, so that nothing of it is left behind."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return int(await task)
    except asyncio.CancelledError:
        return 130


async def _demo(args: argparse.Namespace) -> int:
    _say("starting three nodes and six pods in namespaces of this machine's kernel")
    lab = await asyncio.to_thread(Lab.up, name=f"demo-{os.getpid()}")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, lab.down)
        _say("opening the incident channel")
        slack = await stack.enter_async_context(LocalSlack(port=args.port))
        state = lab.directory / "bot"
        await stack.enter_async_context(_bot(lab, slack, state))
        told = await asyncio.to_thread(lab.inflict, args.fault, where=args.where)
        question = _question(told)
        _say(f"broke it: {args.fault} on {told['node']}")
        _say(f"@{ASKER} asks in #{CHANNEL}: /calico {question}")
        await slack.slash(ASKER, CHANNEL, f"/calico {question}")
        first = await _answer(slack, state, seen=set())
        await _print(first)
        if args.once:
            return await _alone(args, lab, slack, state, question, first)
        print(f"\n  {slack.page_url}\n", flush=True)
        _say("sit in the channel there: act as @bo and approve the fix. Ctrl-C ends everything")
        await asyncio.Event().wait()
    return 0


async def _alone(args: argparse.Namespace, lab: Lab, slack: LocalSlack, state: Path, question: str, first: Path) -> int:
    """What a second person would do, then the same question again."""
    named = [cause["rule"] for cause in _saved(first)["causes"]]
    card = await _fix_card(slack) if any(cause["fix"] for cause in _saved(first)["causes"]) else None
    seen = {first}
    if card:
        _say(f"@{APPROVER} approves")
        await slack.click(APPROVER, CHANNEL, card["ts"], "fix_approve")
        verified = await slack.wait_for(lambda: _verified(slack), timeout=FIX_TIMEOUT_S)
        _say(f"the thread says: {verified}")
        seen |= set(_investigations(state))
    else:
        _say("this version has no fix to approve for that: the lab repairs it")
        await asyncio.to_thread(lab.heal)
    _say(f"@{ASKER} asks again")
    await slack.slash(ASKER, CHANNEL, f"/calico {question}")
    second = await _answer(slack, state, seen=seen)
    await _print(second)
    right = named[:1] == [args.fault] and _saved(second)["verdict"] == "healthy"
    _say("named and repaired" if right else f"expected {args.fault} first and healthy after the fix: this is a failure")
    return 0 if right else 3


def _question(told: dict[str, str]) -> str:
    port = 5432 if told["target"] == "shop/db" else 8080
    return f"why {told['source']} {told['target']} {port}/tcp"


@contextlib.asynccontextmanager
async def _bot(lab: Lab, slack: LocalSlack, state: Path) -> AsyncIterator[None]:
    """The real bot, as a process of its own; it ends with this one however that ends."""
    environment = {
        **os.environ,
        **lab.environment(),
        "CALICO_WHY_CLUSTER": "demo",
        "CALICO_WHY_STATE": str(state),
        "CALICO_WHY_APPROVERS": slack.group_id("netops"),
        "SLACK_API_URL": slack.base_url,
        "CALICO_WHY_DEVELOPMENT": "1",
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
    }
    parent = os.getpid()
    log = lab.directory / "logs" / "bot.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "bot"),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the demo, which ends the bot in its turn
            preexec_fn=lambda: die_with_parent(parent, signal.SIGKILL),
        )
    try:
        ended = asyncio.ensure_future(process.wait())
        connected = asyncio.ensure_future(slack.wait_for(lambda: slack.connections > 0, timeout=30))
        await asyncio.wait({ended, connected}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            connected.cancel()
            raise LabError(f"The bot did not start:\n{log.read_text(errors='replace')[-2000:]}")
        connected.result()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _answer(slack: LocalSlack, state: Path, seen: set[Path]) -> Path:
    """The file of the next investigation; the bot saves one before it tells it in the channel."""
    new = await slack.wait_for(lambda: set(_investigations(state)) - seen, timeout=ANSWER_TIMEOUT_S)
    return max(new)


def _investigations(state: Path) -> list[Path]:
    return sorted((state / "investigations").glob("inv-*.json"))


def _saved(path: Path) -> dict[str, Any]:
    diagnosis: dict[str, Any] = json.loads(path.read_bytes())["diagnosis"]
    return diagnosis


async def _print(path: Path) -> None:
    """The same answer as the terminal would give it."""
    print(flush=True)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bot.cli", "replay", str(path))
    await process.wait()
    print(flush=True)


async def _fix_card(slack: LocalSlack) -> dict[str, Any]:
    card = await slack.wait_for(lambda: _with_button(slack), timeout=ANSWER_TIMEOUT_S)
    assert isinstance(card, dict)
    return card


def _with_button(slack: LocalSlack) -> dict[str, Any] | None:
    return next((m for m in _thread(slack) if '"fix_approve"' in json.dumps(m.get("blocks", []))), None)


def _verified(slack: LocalSlack) -> str | None:
    """What the card says once the question was asked again after the fix."""
    lines = [line for message in _thread(slack) for text in _texts(message) for line in text.splitlines()]
    return next((line[line.index("verified:") :] for line in lines if "verified:" in line), None)


def _texts(part: Any) -> list[str]:
    """Every text in a message's blocks."""
    if isinstance(part, str):
        return [part]
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [text for one in inner for text in _texts(one)]


def _thread(slack: LocalSlack) -> list[dict[str, Any]]:
    """Everything said in the channel, threads included."""
    parents = slack.messages(CHANNEL)
    replies = [reply for parent in parents for reply in slack.messages(CHANNEL, thread_ts=parent["ts"])]
    return [*parents, *replies]


def _say(text: str) -> None:
    print(f"calico-why: {text}", flush=True)
