"""How fast questions are acknowledged while many are answered, whether any is lost, and whether memory stays flat;
without it the first big incident would be the first time that many people ask at once.

python -m benchmarks.load                         50 questions a second for a minute, over Socket Mode, then over HTTP
python -m benchmarks.load --memory 10000          so many questions through one bot, 32 at a time: does anything grow
python -m benchmarks.load --limited --seconds 2   all in one channel, in which Slack takes one message a second

A lab, a local Slack and the real bot. Every question is another one, and one in ten has wrong words. The sender keeps
its times: what is acknowledged late does not slow who asks. Exit status 1 when a question is lost or answered twice,
or was not acknowledged within 3 s.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.client import Lab
from lab.errors import LabError
from lab.slack import LocalSlack
from lab.slack.config import Channel, Config, User, load_config
from lab.slack.workspace import Message

PEOPLE, CHANNELS = 50, 10
AT_ONCE = 32  # unanswered ones when memory is measured
PROMISED_MS = 100.0  # to 99 of 100, until they are acknowledged
WARM = 1000  # questions, until all is made that is made once
SAMPLE_S = 2.0
LOOK_S = 0.5
QUIET_S = 180.0  # without any answer: nothing more comes
KEPT_S = 30.0  # of what is answered, where memory is measured: a Slack that remembers all is not what is measured
NICE = 7
OPEN, CLOSED = range(20_000, 20_400), range(30_000, 30_400)  # ports
FAULT = "neighbor_wrong_mac"
BESIDE = "engine and pictures"
MARKS = {":x:": "cause", ":white_check_mark:": "healthy", ":grey_question:": "unknown", ":warning:": "wrong words"}
ASKED = re.compile(r"why `([^`]*)`")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Question:
    """What one person asks. accepted: an answer has to come. Moments are of time.monotonic()."""

    asked: float
    late_s: float  # the sender
    ack_ms: float | None = None  # from its delivery
    result: str = "pending"
    accepted: bool = False
    waits: bool = False  # told so
    answered: float = 0.0
    verdict: str = ""


class Run:
    """One bot under load, and what became of its questions. room: so many may be unanswered at a time."""

    def __init__(self, slack: LocalSlack, room: int = 0) -> None:
        self.slack = slack
        self.questions: dict[str, Question] = {}
        self.answers: Counter[str] = Counter()
        self.room = asyncio.Semaphore(room)
        self._forgets = bool(room)
        self._ended: dict[tuple[str, str], float] = {}

    async def ask(self, number: int, words: str, late_s: float = 0.0) -> None:
        question = self.questions[words] = Question(time.monotonic(), late_s)
        channel = f"incident-{number % len(self.slack.workspace.channels)}"
        delivery = await self.slack.slash(f"person-{number % PEOPLE}", channel, f"/calico {words}")
        question.ack_ms, question.result = delivery.ack_ms, delivery.result
        question.accepted = delivery.result == "ok" and words.startswith("why ")
        question.waits = question.accepted and bool(delivery.body)
        if not question.accepted:
            self.room.release()

    @property
    def waiting(self) -> int:
        return sum(one.accepted and not one.answered for one in self.questions.values())

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Notes which messages of the bot have become answers."""
        now = time.monotonic()
        for key, message in list(self.slack.workspace.messages.items()):
            if key not in self._ended and (ended := _ended(message)):
                words, verdict = ended
                self._ended[key] = now
                self.answers[words] += 1
                question = self.questions[words]
                if not question.answered:
                    question.answered, question.verdict = now, verdict
                    self.room.release()
        if self._forgets:
            self._forget(now)

    def _forget(self, now: float) -> None:
        space = self.slack.workspace
        old = {key for key, at in self._ended.items() if now - at > KEPT_S}
        for key, message in list(space.messages.items()):
            if key in old or message.viewer:
                space.forget(message)
        for key in old:
            del self._ended[key]
        for kept in (space.uploads, space.triggers, space.response_urls):
            kept.clear()
        del self.slack.calls[:-100], self.slack.deliveries[:-100]


def _ended(message: Message) -> tuple[str, str] | None:
    """The question and how it ended, of a message that says so."""
    if not message.by_bot or message.thread_ts or message.viewer or len(message.blocks) < 2:
        return None
    asked, said = (str((block.get("text") or {}).get("text")) for block in message.blocks[:2])
    verdict = MARKS.get(said.partition(" ")[0])
    found = ASKED.search(asked)
    return (f"why {found[1]}", verdict) if verdict and found else None


def questions(pods: Sequence[str]) -> Iterator[str]:
    """Without end, no two alike before OPEN of each pair. Of three rounds of the pairs one asks for ports on which
    nobody listens; of twenty questions one names a pod that is not there, and one is no question at all."""
    pairs = list(itertools.permutations(pods, 2))
    for number, (source, target) in enumerate(itertools.cycle(pairs)):
        first = CLOSED if number // len(pairs) % 3 == 2 else OPEN
        port = f"{first[number // len(pairs) % len(first)]}/tcp"
        if number % 20 == 7:
            yield f"why shop/nobody-{number} {target} {port}"
        elif number % 20 == 17:
            yield f"wy {source} {target} {port}"
        else:
            yield f"why {source} {target} {port}"


def listen(lab: Lab, pods: Sequence[str]) -> None:
    """On all of OPEN in each pod, until the lab ends."""
    program = f"""
import os, selectors, socket
if not os.fork():
    ready = selectors.DefaultSelector()
    for port in range({OPEN.start}, {OPEN.stop}):
        ready.register(socket.create_server(("", port)), selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            key.fileobj.accept()[0].close()
"""
    for pod in pods:
        lab.exec(pod, sys.executable, "-c", program)


def workspace(channels: int) -> Config:
    config = load_config()
    config.users[:] = [User(id=f"U0P{number}", name=f"person-{number}") for number in range(PEOPLE)]
    members = [user.id for user in config.users]
    config.groups[0].members = members[:2]
    config.channels[:] = [
        Channel(id=f"C0I{number}", name=f"incident-{number}", members=members, has_bot=True)
        for number in range(channels)
    ]
    return config


# -- processes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Used:
    """CPU seconds and resident bytes of what runs, by what it is."""

    cpu: dict[str, float]
    memory: dict[str, int]
    open_files: int  # of the bot
    threads: int


def used(bot: int) -> Used:
    cpu: defaultdict[str, float] = defaultdict(float)
    memory: defaultdict[str, int] = defaultdict(int)
    for pid, parent in _family(os.getpid()):
        with contextlib.suppress(OSError):
            name, ran, of_children, size = _process(pid)
            kind = _kind(pid, parent, name, bot)
            cpu[kind] += ran
            memory[kind] += size
            if pid == bot:
                cpu[BESIDE] += of_children
    return Used(cpu, memory, *(sum(1 for _ in Path(f"/proc/{bot}/{what}").iterdir()) for what in ("fd", "task")))


def _kind(pid: int, parent: int, name: str, bot: int) -> str:
    if bot in (pid, parent):
        return "bot" if pid == bot else BESIDE
    return (
        "Slack" if pid == os.getpid() else next((kind for kind in ("probe", "fixer") if name.startswith(kind)), "lab")
    )


def _process(pid: int) -> tuple[str, float, float, int]:
    """Name, CPU seconds, those of its ended children, resident bytes."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    fields = [int(word) for word in rest.split()[1:22]]
    ran, of_children, pages = sum(fields[10:12]), sum(fields[12:14]), fields[20]
    return name, ran / TICKS, of_children / TICKS, pages * os.sysconf("SC_PAGE_SIZE")


def _family(root: int) -> list[tuple[int, int]]:
    """(pid, parent) of a process and all below it."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children[int((entry / "stat").read_text().rpartition(")")[2].split()[1])].append(int(entry.name))
    found = [(root, 0)]
    for pid, _ in found:
        found += [(child, pid) for child in children[pid]]
    return found


def yields(root: int) -> None:
    """A lab's nodes stand for other machines, so they take what bot and Slack leave of this one."""
    for pid, _ in _family(root)[1:]:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), NICE)
        if os.getsid(pid) != os.getsid(root):  # a session is a group, in which alone the other would count
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/autogroup").write_text(str(NICE))


@contextlib.asynccontextmanager
async def running(mode: str, lab: Lab, slack: LocalSlack, state: Path) -> AsyncIterator[int]:
    """The real program, which hears Slack; its pid."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        **lab.environment(),
        "SLACK_API_URL": slack.base_url,
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        "CALICO_WHY_APPROVERS": slack.group_id("netops"),
        "CALICO_WHY_STATE": str(state),
        "CALICO_WHY_SLACK_MODE": mode,
        "CALICO_WHY_SLACK_LISTEN": f"127.0.0.1:{port}",
        "CALICO_WHY_DEVELOPMENT": "1",
    }
    slack.request_url = f"http://127.0.0.1:{port}/slack/events" if mode == "http" else ""
    with (state / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot.cli", "bot", env=environment, stderr=log, stdin=asyncio.subprocess.DEVNULL
        )
        try:
            while (await slack.slash("person-0", "incident-0", "/calico help")).result != "ok":
                if process.returncode is not None:
                    raise RuntimeError((state / "log").read_text())
                await asyncio.sleep(0.1)
            yield process.pid
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


# -- what is measured -----------------------------------------------------------------------------------------------


async def load(mode: str, lab: Lab, rate: float, seconds: float, limited: bool) -> bool:
    """One bot, asked at even times. False when a question was lost or answered twice."""
    pods = [one["name"] for one in lab.status()["pods"]]
    with tempfile.TemporaryDirectory() as directory:
        async with (
            LocalSlack(config=workspace(1 if limited else CHANNELS)) as slack,
            running(mode, lab, slack, Path(directory)) as bot,
        ):
            slack.faults.rate_limit = limited
            run = Run(slack)
            watching = asyncio.ensure_future(run.watch())
            before, sending, began = used(bot), [], time.monotonic()
            for number, words in zip(range(round(rate * seconds)), questions(pods), strict=False):
                due = began + number / rate
                await asyncio.sleep(due - time.monotonic())
                sending.append(asyncio.ensure_future(run.ask(number, words, time.monotonic() - due)))
            await asyncio.gather(*sending)
            print(f"{mode}: {len(sending)} asked in {time.monotonic() - began:.1f} s, {busy()}")
            acknowledged(run)
            spent("while they asked", before, used(bot))
            await all_answered(run)
            watching.cancel()
            spent("until all were answered", before, used(bot))
            return answered(run, began)


def busy() -> str:
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def percentile(values: Sequence[float], hundredth: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * hundredth / 100))] if ordered else 0.0


def acknowledged(run: Run) -> None:
    asked = run.questions.values()
    times = [one.ack_ms for one in asked if one.ack_ms is not None]
    late_ms = percentile([one.late_s * 1000 for one in asked], 99)
    p99 = percentile(times, 99)
    print(
        f"  acknowledged {len(times)} of {len(asked)}: median {percentile(times, 50):.0f} ms, 99 of 100 within "
        f"{p99:.0f} ms, the slowest {max(times, default=0.0):.0f} ms; ratio to what is promised "
        f"{p99 / PROMISED_MS:.2f} (of the senders 99 of 100 were late by less than {late_ms:.0f} ms)"
    )
    print(
        f"  told to wait {sum(one.waits for one in asked)}, answered meanwhile {sum(map(bool, run.answers.values()))}"
    )


def spent(what: str, before: Used, after: Used) -> None:
    each = {kind: seconds - before.cpu.get(kind, 0.0) for kind, seconds in after.cpu.items()}
    said = ", ".join(f"{kind} {seconds:.1f}" for kind, seconds in sorted(each.items(), key=lambda one: -one[1]))
    print(f"  CPU seconds {what}: {said}")
    print(f"  resident: {resident(after)}", flush=True)


def resident(one: Used) -> str:
    sizes = ", ".join(f"{kind} {size / 1e6:.0f} MB" for kind, size in sorted(one.memory.items()))
    return f"{sizes}; the bot has {one.open_files} files open and {one.threads} threads"


async def all_answered(run: Run) -> None:
    """Returns when nothing is waited for, or nothing comes any more."""
    left, since = run.waiting, time.monotonic()
    while left and time.monotonic() - since < QUIET_S:
        await asyncio.sleep(LOOK_S)
        if run.waiting != left:
            left, since = run.waiting, time.monotonic()
    await asyncio.sleep(2 * LOOK_S)  # a second answer may be on its way
    run.look()


def answered(run: Run, began: float) -> bool:
    accepted = {words: one for words, one in run.questions.items() if one.accepted}
    lost = [words for words, one in accepted.items() if not one.answered]
    twice = [words for words, count in run.answers.items() if count > 1]
    waited = [one.answered - one.asked for one in accepted.values() if one.answered]
    last = max((one.answered for one in accepted.values()), default=began) - began
    verdicts = Counter(one.verdict for one in accepted.values() if one.answered)
    print(
        f"  accepted {len(accepted)}: answered once {len(accepted) - len(lost) - len(twice)}, lost {len(lost)}, twice "
        f"{len(twice)}; {', '.join(f'{verdict} {count}' for verdict, count in verdicts.most_common())}"
    )
    print(
        f"  the last answer {last:.0f} s after the first question ({len(waited) / max(last, 1.0):.1f} a second), "
        f"median wait {percentile(waited, 50):.1f} s, {busy()}"
    )
    if not_taken := Counter(one.result for one in run.questions.values() if one.result != "ok"):
        print(f"  not acknowledged: {dict(not_taken)}")
    for words in [*lost, *twice][:5]:
        print(f"    {words}")
    if refused := Counter(f"{one.method} {one.error or one.status}" for one in run.slack.calls if not one.ok):
        print(f"  refused by Slack: {', '.join(f'{what} {count}' for what, count in refused.most_common())}")
    return not lost and not twice and not not_taken


async def memory(lab: Lab, count: int) -> bool:
    """Many questions through one bot. False when one was lost or answered twice."""
    pods = [one["name"] for one in lab.status()["pods"]]
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory)
        async with LocalSlack(config=workspace(CHANNELS)) as slack, running("socket", lab, slack, state) as bot:
            run = Run(slack, AT_ONCE)
            watching = asyncio.ensure_future(run.watch())
            samples: list[tuple[int, Used]] = []
            before, began = used(bot), time.monotonic()
            for number, words in zip(range(count), questions(pods), strict=False):
                await run.room.acquire()
                await run.ask(number, words)
                if not samples or time.monotonic() > began + len(samples) * SAMPLE_S:
                    samples.append((number, used(bot)))
                if (number + 1) % WARM == 0:
                    took = time.monotonic() - began
                    print(f"  {number + 1} in {took:.0f} s, {busy()}: {resident(samples[-1][1])}", flush=True)
            await all_answered(run)
            watching.cancel()
            spent("in all", before, used(bot))
            kept = kept_in(state)
            print(f"  kept in the state directory: {len(kept)} files, {sum(kept) / 1e6:.1f} MB")
            for kind in sorted(samples[-1][1].memory):
                growth(kind, samples)
            return answered(run, began)


def kept_in(state: Path) -> list[int]:
    """Bytes on disk of each file."""
    return [one.stat().st_blocks * 512 for one in state.rglob("*") if one.is_file()]


def growth(kind: str, samples: Sequence[tuple[int, Used]]) -> None:
    """How memory follows the questions once all is made that is made once, beside how it changes anyway."""
    points = [(number, one.memory[kind] / 1e6) for number, one in samples if number >= WARM and kind in one.memory]
    if len(points) < 10:
        return
    line = statistics.linear_regression(*zip(*points, strict=True))
    noise = statistics.pstdev(size - line.slope * number - line.intercept for number, size in points)
    tenth = len(points) // 10
    first, last = (statistics.median(size for _, size in some) for some in (points[:tenth], points[-tenth:]))
    print(
        f"  {kind}: {first:.1f} MB at first, {last:.1f} MB at last, ratio {last / first:.3f}; "
        f"{line.slope * 1000:+.2f} MB in 1000 questions, noise {noise:.1f} MB"
    )


def of_its_own(mode: str) -> int:
    """The exit status of the same command over one transport. The local Slack is in the process that asks, and where it
    still held the answers of the minute before, the second transport was measured slower (118 ms, alone 90)."""
    return subprocess.run([sys.executable, "-m", "benchmarks.load", *sys.argv[1:], "--mode", mode]).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("socket", "http", "both"), default="both", help="how Slack delivers (both)")
    parser.add_argument("--rate", type=float, default=50.0, help="questions a second (50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they are asked (60)")
    parser.add_argument("--limited", action="store_true", help="one channel, in which Slack takes one message a second")
    parser.add_argument("--memory", type=int, metavar="N", help="N questions, as they are answered, instead")
    args = parser.parse_args()
    if args.mode == "both" and not args.memory:
        return max([of_its_own(mode) for mode in ("socket", "http")])
    try:
        with Lab.up(environment={"CALICO_WHY_APPROVERS": "S0NETOPS"}) as lab:
            lab.inflict(FAULT)
            listen(lab, [one["name"] for one in lab.status()["pods"]])
            yields(os.getpid())
            if args.memory:
                good = asyncio.run(memory(lab, args.memory))
            else:
                good = asyncio.run(load(args.mode, lab, args.rate, args.seconds, args.limited))
        return 0 if good else 1
    except LabError as error:
        print(f"no lab, so no answer about load: {error}")
        return 3


if __name__ == "__main__":
    raise SystemExit(main())
