"""Who asks, approves, refuses, doubts and forges; without them nothing would be decided in the trial."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from kubernetes.aio import client

from benchmarks.trial.cluster import NAMESPACE, Cluster, of
from benchmarks.trial.kernel import Kernels
from benchmarks.trial.targets import Target, cause, investigation
from bot import fix_requests
from bot.approvals import Approvals
from fixes.approvers import Approvers
from fixes.kind import ClusterKind, kinds
from fixes.request import GROUP, PLURAL, VERSION, FixRequest, Person, Phase, stamp
from fixes.store import FixStore, StoreError
from lab.slack import LocalSlack
from lab.slack.workspace import Message

ROOM = "incident"
ASKER = "ana"  # of the group of approvers, too: four eyes
ALLOWED = ("bo", "dana")
OTHERS = ("cleo", "eve", ASKER)  # not on the list, of another workspace, who asked
APPROVERS = "S0NETOPS,kubernetes:kube-bo"
KNOWN = "U0MALLORY=mallory,U0THIEF=thief"  # persons of Slack, and nobody who approves
MAY = {("slack", "U0BO"), ("slack", "U0DANA"), ("kubectl", "kube-bo"), ("kubectl", "kube-rbac")}
ANSWERED_S = 20.0  # a click that has led to nothing by then was silent
GONE_S = 120.0  # a bot that has not come back by then is waited for no longer
CLICKS = 8
MORE = 1.1

# What becomes of a request, and how often. Those of the first table are meant to be approved.
APPROVING = {
    "approve": 40,
    "both": 14,  # two allowed persons at once
    "others first": 10,  # persons who may not
    "against": 8,  # one approves, one rejects, at once
    "words": 6,  # /calico approve
    "changed": 8,  # another hand changes what it rests on, right after the approval
    "undone": 8,  # another hand makes it wrong again, right after the fix
    "kube words": 2,  # made with kubectl, decided in Slack
    "kube list": 2,  # made with kubectl, approved by a Kubernetes user of the list
    "kube rbac": 2,  # made with kubectl, approved by a Kubernetes user whom RBAC lets
}
NOT_APPROVING = {
    "reject": 4,
    "cancel": 2,
    "others only": 4,
    "nobody": 2,
    "forged stranger": 2,
    "forged group": 1,
    "forged rbac": 1,
    "forged self": 1,
    "forged running": 1,
    "forged digest": 1,
}
UNDOABLE = ("replace_neighbor", "replace_fdb_entry", "set_sysctl", "enable_pool", "delete_block_affinity")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One request to come: what is wrong, and what people will do about it."""

    target: Target
    way: str


class People:
    """`play` has each of them do what the seed says. Everything they see they see in Slack."""

    def __init__(
        self,
        seed: int,
        slack: LocalSlack,
        cluster: Cluster,
        kernels: Kernels,
        directory: Path,
        stores: dict[str, FixStore],
        bots: int,
    ) -> None:
        """stores: of the Kubernetes users mallory, thief, kube-bo and kube-rbac. bots: as many as there should be."""
        self._bots = bots
        self._random = random.Random(f"{seed}/people")
        self._slack, self._cluster, self._kernels, self._directory, self._stores = (
            slack,
            cluster,
            kernels,
            directory,
            stores,
        )
        self.names: dict[tuple[str, int], str] = {}  # kind and number of a target: the request that was acted upon
        self.asked: Counter[str] = Counter()
        self.silent: list[str] = []
        self.lost: list[str] = []
        self.forgeries: Counter[str] = Counter()
        self._whispers: defaultdict[str, list[str]] = defaultdict(list)
        _hear(slack, self._whispers)

    async def play(self, parts: Sequence[Part], at_once: int, lifetime_s: float) -> None:
        """Everything in `parts`, some at a time."""
        self._lifetime_s = lifetime_s
        places = asyncio.Semaphore(at_once)
        numbers = itertools.count()

        async def one(group: Sequence[Part]) -> None:
            async with places:
                await self._group(f"q{next(numbers)}", group)

        slack_s = [part for part in parts if not part.way.startswith(("kube", "forged"))]
        groups = [[part] for part in parts if part.way.startswith(("kube", "forged"))]
        while slack_s:
            size = self._random.choice((1, 1, 2, 3, 4))
            groups.append(slack_s[:size])
            del slack_s[:size]
        self._random.shuffle(groups)
        await asyncio.gather(*(one(group) for group in groups))

    async def _group(self, name: str, group: Sequence[Part]) -> None:
        if group[0].way.startswith(("kube", "forged")):
            await self._by_hand(group[0])
            return
        targets = [part.target for part in group]
        (self._directory / f"trial-{name}").write_bytes(msgspec.json.encode(targets))
        question = f"trial/{name} trial/db"
        if not await self._ask(question, targets):
            self.lost.append(f"the question {question!r} was taken and never answered")
            return
        await asyncio.gather(*(self._decide(part, self._request(part.target)) for part in group))

    async def _ask(self, question: str, targets: Sequence[Target]) -> bool:
        """Until all its requests have a card. Who is told that it failed asks again, as people do."""

        def carded() -> bool:
            return all(self._request(target) for target in targets)

        until = time.monotonic() + 2 * self._lifetime_s
        while time.monotonic() < until:
            self.asked["questions"] += 1
            delivery = await self._slack.slash(ASKER, ROOM, f"/calico why {question}")
            if delivery.result == "ok":
                return await self._cluster.until(carded, 2 * self._lifetime_s)
            self.asked["questions that Slack could not deliver"] += 1
            await asyncio.sleep(0.5)
        return False

    def _request(self, target: Target) -> str:
        """The name of the request for it that has a card, "" while none has: who asks twice may have made two."""
        key = (target.kind, target.number)
        if key not in self.names:
            for name in self.requests_for(target):
                if self._cluster.requests[name].status.slack is not None:
                    self.names[key] = name
        return self.names.get(key, "")

    def requests_for(self, target: Target) -> list[str]:
        """Names of those that are for it, as `of` tells them apart."""
        return self._cluster.names[of(target.kind, target.node, self.arguments(target))]

    @functools.cache  # noqa: B019  # there are as many as there are targets
    def arguments(self, target: Target) -> dict[str, str]:
        """What a request for it says."""
        one, facts = cause(target, self._cluster.nodes)
        proposed = kinds()[target.kind].propose(one, facts)
        assert proposed is not None, target
        return proposed

    # ---- in Slack

    async def _decide(self, part: Part, name: str) -> None:
        way, target = part.way, part.target
        await asyncio.sleep(self._random.expovariate(2.0))
        first, second = self._random.sample(ALLOWED, 2)
        if way == "changed":
            self._cluster.changes[name] = lambda: self._other_hand(target)
        if way == "undone":
            self._cluster.undo.add((target.kind, target.number))
        if way in ("approve", "changed", "undone"):
            await self._click(first, name, "fix_approve")
        elif way == "both":
            await asyncio.gather(*(self._click(user, name, "fix_approve") for user in (first, second)))
        elif way == "against":
            await asyncio.gather(self._click(first, name, "fix_approve"), self._click(second, name, "fix_reject"))
        elif way in ("others first", "others only"):
            await asyncio.gather(*(self._click(user, name, "fix_approve", once=True) for user in OTHERS))
            if way == "others first":
                await self._click(first, name, "fix_approve")
        elif way == "words":
            await self._say(first, name, f"/calico approve {name}")
        elif way == "reject":
            await self._click(first, name, "fix_reject")
        elif way == "cancel":
            await self._say(ASKER, name, f"/calico cancel {name} wrong node")

    def _other_hand(self, target: Target) -> None:
        (self._cluster if target.of_cluster else self._kernels).change(target)

    async def _click(self, user: str, name: str, action: str, once: bool = False) -> None:
        """Until it has been decided, or this person was told why not."""
        person = self._slack.user_id(user)
        for _ in range(1 if once else CLICKS):
            request = self._cluster.requests[name]
            card = request.status.slack
            if card is None or request.status.phase is not Phase.PENDING:
                return
            told = len(self._whispers[person])
            try:
                delivery = await self._slack.click(user, card.channel, card.ts, action)
            except LookupError:
                return  # no button any more
            self.asked["clicks"] += 1
            if delivery.result != "ok":
                self.asked["clicks that Slack could not deliver"] += 1
                await asyncio.sleep(0.5)
                continue
            if action == "fix_reject":
                await self._give_reason(person, user, name)

            def answered(told: int = told) -> bool:
                decided = self._cluster.requests[name].status.phase is not Phase.PENDING
                return decided or any(name in text or _ABOUT in text for text in self._whispers[person][told:])

            if await self._slack_until(answered):
                return
            self.silent.append(f"{user} clicked {action} of {name}, and nothing came of it")

    async def _give_reason(self, person: str, user: str, name: str) -> None:
        """Where a form has opened: what it asks for, and again when the form says that it did not reach the bot."""

        def form() -> Any:
            return next((one for one in self._slack.workspace.open_views(person) if name in str(one.content)), None)

        def decided() -> bool:
            return self._cluster.requests[name].status.phase is not Phase.PENDING

        await self._slack_until(lambda: form() is not None or decided())
        for _ in range(CLICKS):
            if decided() or (found := form()) is None:
                return
            delivery = await self._slack.submit_view(user, found.id, {"fix_reason": "Not during the freeze."})
            self.asked["forms"] += 1
            if delivery.result != "ok":
                self.asked["forms that Slack could not deliver"] += 1
                await asyncio.sleep(0.5)

    async def _say(self, user: str, name: str, words: str) -> None:
        for _ in range(CLICKS):
            delivery = await self._slack.slash(user, ROOM, words)
            self.asked["words"] += 1
            decided = lambda: self._cluster.requests[name].status.phase is not Phase.PENDING  # noqa: E731
            if delivery.result == "ok" and await self._slack_until(decided):
                return
            await asyncio.sleep(0.5)

    async def _slack_until(self, true: Any) -> bool:
        """Within so long while all bots are there: one that was killed tells what it took once it is started again."""
        since = time.monotonic()
        until = since + GONE_S
        while not true():
            if self._slack.connections < self._bots and time.monotonic() < until:
                since = time.monotonic()
            if time.monotonic() - since > ANSWERED_S:
                return False
            with contextlib.suppress(TimeoutError):
                await self._slack.wait_for(true, 1.0)
        return True

    # ---- with kubectl

    async def _by_hand(self, part: Part) -> None:
        """A request that no bot made, and what claims to be its approval."""
        target, way = part.target, part.way
        user = self._random.choice(("mallory", "thief")) if way.startswith("forged") else "mallory"
        asker = Person(id="U0BO", via="slack") if way == "forged self" else Person(id=user, via="kubectl")
        answer = investigation(f"trial/{target.number} trial/db", user, [target], self._cluster.nodes)
        try:
            (request,) = await fix_requests.requested(answer, self._stores[user], asker)
        except StoreError as error:
            if not error.denied:
                raise
            self.forgeries["refused by the API server"] += 1
            return
        self.names[target.kind, target.number] = request.name
        if way == "kube words":
            await self._say(self._random.choice(ALLOWED), request.name, f"/calico approve {request.name}")
        elif way in ("kube list", "kube rbac"):
            store = self._stores["kube-bo" if way == "kube list" else "kube-rbac"]
            approvers = Approvers(frozenset(APPROVERS.split(",")), rbac=True, people=frozenset(KNOWN.split(",")))
            terminal = Approvals(store, approvers, right=store.right_to_approve, writer="terminal")
            await terminal.decide(request.name, Phase.APPROVED, await store.whoami())
        else:
            self.forgeries[await self._forge(way, request, self._stores[user])] += 1

    async def _forge(self, way: str, request: FixRequest, store: FixStore) -> str:
        """What became of it: who had to refuse it."""
        by = {
            "forged stranger": {"id": "U0CLEO", "via": "slack", "entry": "U0CLEO"},
            "forged group": {"id": "U0CLEO", "via": "slack", "entry": "S0OTHERS"},
            "forged rbac": {"id": "kube-eve", "via": "kubectl", "entry": "rbac", "groups": ["system:authenticated"]},
            "forged self": {"id": "U0BO", "via": "slack", "entry": "S0NETOPS"},
            "forged running": None,
            "forged digest": None,
        }[way]
        at = {"group": GROUP, "version": VERSION, "namespace": NAMESPACE, "plural": PLURAL}
        objects = client.CustomObjectsApi(store.api)
        if way == "forged digest":  # another change under the digest of a harmless one
            found = await objects.get_namespaced_custom_object(**at, name=request.name)
            spec = {**found["spec"], "arguments": {**found["spec"]["arguments"], "felix_s": "1"}}
            name = request.name[:-1] + ("a" if request.name[-1] != "a" else "b")
            body = {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": {"name": name}, "spec": spec}
            await objects.create_namespaced_custom_object(**at, body=body)
            await self._say("bo", name, f"/calico approve {name}")
            return "left to the product"
        now = stamp(store.now())
        phase = "Running" if by is None else "Approved"
        for _ in range(20):
            found = await objects.get_namespaced_custom_object(**at, name=request.name)
            events = [{"phase": phase, "at": now, **({"by": by} if by else {})}]
            status = {**(found.get("status") or {}), "phase": phase, "history": events}
            if by:
                status |= {"approvedBy": by, "approvedAt": now}
            try:
                await objects.replace_namespaced_custom_object_status(
                    **at, name=request.name, body={**found, "status": status}
                )
                return "left to the product"
            except client.ApiException as error:
                if error.status in (403, 422):
                    return "refused by the API server"
                if error.status != 409:
                    raise
        raise RuntimeError(f"{request.name} is being written all the time")


_ABOUT = "was changed"  # nothing was: so ends every refusal


def parts(seed: int, approvals: int, shares: dict[str, int]) -> list[Part]:
    """Enough requests for so many approvals, and a sixth more that are not meant to be approved.

    More than enough: of two that decide against each other one rejects, and what takes too long expires.
    """
    chance = random.Random(f"{seed}/parts")
    approvals = round(approvals * MORE)
    ways = [*_shared(chance, APPROVING, approvals), *_shared(chance, NOT_APPROVING, max(3, approvals // 6))]
    chosen = _shared(chance, shares, len(ways))
    found = []
    for number, (way, kind) in enumerate(zip(ways, chosen, strict=True)):
        of_cluster = isinstance(kinds()[kind], ClusterKind)
        node = "" if of_cluster else chance.choice(("node-a", "node-b"))
        if way == "undone" and kind not in UNDOABLE:
            way = "approve"
        found.append(Part(target=Target(kind=kind, number=number, node=node), way=way))
    chance.shuffle(found)
    return found


def _shared(chance: random.Random, shares: dict[str, int], count: int) -> list[str]:
    """So many of each as its share says, in any order."""
    total = sum(shares.values())
    found = [name for name, share in shares.items() for _ in range(share * count // total)]
    found += chance.choices(list(shares), list(shares.values()), k=count - len(found))
    chance.shuffle(found)
    return found


def _hear(slack: LocalSlack, whispers: dict[str, list[str]]) -> None:
    """What each person alone was told, as it comes: to look through all messages again and again would take the day."""
    post = slack.workspace.post

    def heard(message: Message) -> Message:
        if message.viewer:
            whispers[message.viewer].append(message.text)
        return post(message)

    slack.workspace.post = heard  # type: ignore[method-assign]
