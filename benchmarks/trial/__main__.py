"""Prints what became of N approvals while bots and fixers were killed; exit status 1 when a figure is wrong.

usage: python -m benchmarks.trial [-n N] [--seed S] [--kills K] [--bots B] [--keep DIRECTORY]

Nothing outside of its own namespaces is touched. `docs/decisions/034-trial.md` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.trial.cluster import CALICO_PODS, NAMESPACE, Cluster
from benchmarks.trial.judge import Seen, audit, cards, denied, judge
from benchmarks.trial.kernel import Kernels
from benchmarks.trial.nursery import BOT as BOT_PROGRAM
from benchmarks.trial.nursery import Nursery
from benchmarks.trial.people import APPROVERS, KNOWN, People, parts
from benchmarks.trial.processes import Killer, Process
from benchmarks.trial.targets import NODES, SHARES, Target
from bot import fix_requests
from fixes.audit import Audit
from fixes.request import ENDS, Phase
from fixes.store import connect
from lab.apiserver import User as Rights
from lab.apiserver.kubeconfig import kubeconfig
from lab.errors import LabError
from lab.namespaces import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    mount,
    new_user_namespace,
    unshare,
)
from lab.slack import LocalSlack
from lab.slack.config import User, load_config
from tests.deployed import APPROVER, ASKER, BOT, CLUSTER_FIXER, person, user
from tests.deployed import NODE as FIXER_OF_NODE
from tests.two_nodes import NODE

# Kubernetes users, and as who of deploy/ they may what: who forges asks only, or has stolen the bot's token.
USERS = {"mallory": ASKER, "thief": BOT, "kube-bo": APPROVER, "kube-rbac": APPROVER, "kube-eve": ASKER, "judge": ASKER}
ACCOUNTS = {"bot": BOT, "node fixer": FIXER_OF_NODE, "cluster fixer": CLUSTER_FIXER}
AT_ONCE = 12  # questions
SETTLED_S = 90.0
TOLD_S = 10.0
MOMENTS = 22  # about so many to one request
# Of Slack, as many failures in a row as are survived by trying again, and of a card's drawing one more.
FAILING = {"chat.update": 4, "chat.postMessage": 2, "views.open": 1}
FAILS_EVERY_S = 8.0


class Trial:
    """One run. `run` gives the lines of the table and whether all figures are right."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, nursery: Nursery) -> None:
        self._arguments, self._directory, self._nursery = arguments, directory, nursery
        fix_requests.LIFETIME = timedelta(seconds=arguments.lifetime)  # of those that are made by hand here
        self._parts = parts(arguments.seed, arguments.n, SHARES)
        self._effects: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self._undone: set[tuple[str, int]] = set()
        every = MOMENTS * len(self._parts) / max(1, arguments.kills)
        self._killer = Killer(arguments.seed, arguments.kills, every)
        targets = [part.target for part in self._parts]
        self._kernels = Kernels(self._kernel_written)
        self._kernels.wound([target for target in targets if target.node])
        self._cluster = Cluster(targets, self._effect, self._killer.moment)
        self._began = time.monotonic()

    async def run(self) -> tuple[list[str], bool]:
        self._kernels.watch()
        config = load_config()
        config.users.append(User(id="U0DANA", name="dana", real_name="Dana Ruiz"))
        config.groups[0].members.append("U0DANA")
        config.channels[0].members.append("U0DANA")
        (self._directory / "nodes").write_bytes(msgspec.json.encode(self._cluster.nodes))
        async with contextlib.AsyncExitStack() as stack:
            slack = await stack.enter_async_context(LocalSlack(config=config))
            slack._api.calls = _Calls(lambda: self._killer.moment("bot"))
            await stack.enter_async_context(self._cluster.served(NODE["a"]))
            stores = {}
            for name, rights in USERS.items():
                path = self._kubeconfig(name, user(BOT) if rights == BOT else person(name, ASKER, rights))
                stores[name] = await stack.enter_async_context(connect(path, NAMESPACE))
            self._killer.processes = self._programs(slack)
            running = [asyncio.ensure_future(one.run()) for one in self._killer.processes]
            people = People(
                self._arguments.seed, slack, self._cluster, self._kernels, self._directory, stores, self._arguments.bots
            )
            others = [asyncio.ensure_future(work) for work in (self._tell(), self._fail(slack))]
            try:
                await slack.wait_for(lambda: slack.connections >= self._arguments.bots, 60)
                await people.play(self._parts, AT_ONCE, self._arguments.lifetime)
                await self._cluster.until(self._all_ended, self._arguments.lifetime + SETTLED_S)
                self._killer.end()
                others.pop().cancel()
                slack.faults.clear()
                return await self._judged(slack, people, stores["judge"])
            finally:
                for task in others:
                    task.cancel()
                for one in self._killer.processes:
                    one.stop()
                await asyncio.gather(*running, return_exceptions=True)

    # ---- what is killed

    def _programs(self, slack: LocalSlack) -> list[Process]:
        bots = {
            "SLACK_API_URL": slack.base_url,
            "CALICO_WHY_DEVELOPMENT": "1",
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": slack.app_token,
            "CALICO_WHY_TRIAL_LIFETIME_S": str(self._arguments.lifetime),
        }
        found = [
            self._process(
                f"bot-{number}",
                "bot",
                (BOT_PROGRAM, str(self._directory)),
                bots | {"CALICO_WHY_STATE": str(self._directory / f"state-{number}")},
            )
            for number in range(self._arguments.bots)
        ]
        for node in NODES:
            namespace = self._kernels.namespaces.get(node, "")
            found.append(self._process(node, "node fixer", ("fixer", "--node", node), {}, namespace))
        for number in range(2):
            found.append(self._process(f"cluster-{number}", "cluster fixer", ("fixer", "--cluster"), {}))
        return found

    def _process(
        self, name: str, role: str, words: tuple[str, ...], more: Mapping[str, str], namespace: str = ""
    ) -> Process:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        rights = user(ACCOUNTS[role], node=name if role == "node fixer" else "", place=CALICO_PODS)
        environment = {
            **kept,
            "KUBECONFIG": self._kubeconfig(name, rights),
            "CALICO_WHY_NAMESPACE": NAMESPACE,
            "CALICO_WHY_APPROVERS": APPROVERS,
            "CALICO_WHY_PEOPLE": KNOWN,
            "CALICO_WHY_CLUSTER": "trial",
            **more,
        }
        log = self._directory / f"{name}.log"
        return Process(name, role, words, environment, log, self._nursery, namespace)

    def _kubeconfig(self, name: str, rights: Rights) -> str:
        path = self._directory / f"kubeconfig-{name}"
        path.write_text(kubeconfig(self._cluster.url, self._cluster.user(name, rights), cluster="trial"))
        return str(path)

    # ---- what is seen

    def _kernel_written(self, target: Target) -> None:
        self._effect(target)
        self._killer.moment(target.node)
        if (target.kind, target.number) in self._cluster.undo:
            self._cluster.undo.discard((target.kind, target.number))
            self._kernels.undo(target)

    def _effect(self, target: Target) -> None:
        key = (target.kind, target.number)
        self._effects[key].append(time.monotonic())
        if key in self._cluster.undo:
            self._undone.add(key)

    def _all_ended(self) -> bool:
        return all(not request.open for request in self._cluster.requests.values())

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TOLD_S)
            requests = self._cluster.requests.values()
            ended = sum(not one.open for one in requests)
            kills = ", ".join(f"{role} {count}" for role, count in self._killer.counts.items())
            took = time.strftime("%M:%S", time.gmtime(time.monotonic() - self._began))
            print(
                f"{took}  {ended} of {len(self._parts)} requests have ended; killed: {kills or 'none'}",
                file=sys.stderr,
                flush=True,
            )

    async def _fail(self, slack: LocalSlack) -> None:
        """Slack, too, fails now and then."""
        chance = random.Random(f"{self._arguments.seed}/slack")
        while True:
            await asyncio.sleep(chance.expovariate(1 / FAILS_EVERY_S))
            method, most = chance.choice(list(FAILING.items()))
            slack.faults.fail(method, chance.choice(("500", "429", "reset")), times=chance.randint(1, most))

    # ---- the end

    async def _judged(self, slack: LocalSlack, people: People, store: Any) -> tuple[list[str], bool]:
        requests = self._cluster.requests
        messages = slack.workspace.messages
        approvers = [slack.group_id("netops")]
        trail = Audit(store, "judge")

        async def settled() -> bool:
            """All cards drawn, all looked at again, all in the trail: what was killed before it could, others do."""
            if cards(requests, messages, approvers, store, slack.workspace.origin) or not self._all_ended():
                return False
            if any(
                one.status.phase is Phase.VERIFIED and one.status.slack and not one.status.second_look
                for one in requests.values()
            ):
                return False
            return not audit(await trail.read(), list(requests.values()), list(messages.values()))

        until = time.monotonic() + SETTLED_S
        while not await settled() and time.monotonic() < until:
            await self._cluster.until(lambda: False, 1.0)
        targets = [part.target for part in self._parts]
        target_of = {name: _key(target) for target in targets for name in people.requests_for(target)}
        seen = Seen(
            requests=requests,
            target_of=target_of,
            since=self._cluster.since,
            effects=self._effects,
            undone=frozenset(self._undone),
            kills={
                **{node: self._kills(node) for node in NODES},
                "": sorted(at for number in range(2) for at in self._kills(f"cluster-{number}")),
            },
        )
        wrong = judge(seen)
        wrong.lost += people.lost
        lines = await trail.read()
        wrong.cards += cards(requests, messages, approvers, store, slack.workspace.origin)
        wrong.audit += audit(lines, list(requests.values()), list(messages.values()))
        broken = [f"{one.name} ended by itself {one.died} times" for one in self._killer.processes if one.died]
        if self._kernels.blind:
            broken.append("the kernel's events were more than could be read: not all writes were seen")
        refused = sorted({f"{one.method}: {one.error}" for one in slack.calls if one.error not in _TAKEN})
        broken += [f"Slack refused {one}" for one in refused]
        return self._table(wrong, people, broken, denied(lines), len(lines))

    def _kills(self, name: str) -> list[float]:
        return next(one.kills for one in self._killer.processes if one.name == name)

    def _table(
        self, wrong: Any, people: People, broken: list[str], refusals: int, records: int
    ) -> tuple[list[str], bool]:
        requests = self._cluster.requests.values()
        ends = Counter(str(one.status.phase) for one in requests)
        approved = sum((one.name, "Approved") in self._cluster.since for one in requests)
        took = time.strftime("%M:%S", time.gmtime(time.monotonic() - self._began))
        kills = ", ".join(f"{role} {count}" for role, count in self._killer.counts.items())
        figures = {
            "executed twice": wrong.twice,
            "lost": wrong.lost,
            "executed without an allowed approver": wrong.not_allowed,
            "ended untruly": wrong.untrue,
            "cards untrue at the end": wrong.cards,
            "audit trail broken": wrong.audit,
            "silent clicks": people.silent,
            "programs broken": broken,
        }
        lines = [
            f"seed {self._arguments.seed}: {approved} approvals in {len(requests)} requests, {took}",
            f"killed with -9: {kills or 'none'}",
            "ended: " + ", ".join(f"{phase} {ends[str(phase)]}" for phase in sorted(ENDS) if ends[str(phase)]),
            f"written: {sum(map(len, self._effects.values()))}; audit records: {records}, of refusals: {refusals}",
            "forgeries: " + (", ".join(f"{count} {who}" for who, count in people.forgeries.items()) or "none"),
            "people: " + ", ".join(f"{word} {count}" for word, count in people.asked.items()),
            *(f"{name + ':':<40}{len(found)}" for name, found in figures.items()),
            *(f"  {name}: {one}" for name, found in figures.items() for one in found[:10]),
        ]
        return lines, not any(figures.values())


_TAKEN = {"", "ratelimited", "internal_error", "used_url", "expired_trigger_id"}


class _Calls(list[Any]):
    """The calls of Slack, of which only refused ones are kept; each is a moment in which something may die."""

    def __init__(self, moment: Any) -> None:
        super().__init__()
        self._moment = moment

    def append(self, call: Any) -> None:
        self[:] = [one for one in self if one.error or one.at > call.at - 30]
        super().append(call)
        self._moment()


def _key(target: Target) -> tuple[str, int]:
    return target.kind, target.number


def isolate() -> None:
    """This process becomes root of namespaces of its own: nothing it writes reaches the machine's."""
    if os.geteuid() != 0:
        new_user_namespace()
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trial", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("-n", type=int, default=100, help="approvals (100)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of kills and people (the time)")
    parser.add_argument("--kills", type=int, default=-1, help="how many (one to ten approvals)")
    parser.add_argument("--bots", type=int, default=2, help="replicas of the bot (2)")
    parser.add_argument("--lifetime", type=float, default=120, help="seconds in which a request may be decided (120)")
    parser.add_argument("--keep", type=Path, help="directory for the logs of all programs")
    arguments = parser.parse_args()
    if arguments.kills < 0:
        arguments.kills = max(1, arguments.n // 10)
    try:
        isolate()
    except LabError as error:
        print(error.sentence, file=sys.stderr)
        return error.status
    nursery = Nursery()
    with tempfile.TemporaryDirectory(prefix="calico-why-trial-") as directory:
        where = arguments.keep or Path(directory)
        where.mkdir(parents=True, exist_ok=True)
        lines, well = asyncio.run(Trial(arguments, where, nursery).run())
    print("\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
