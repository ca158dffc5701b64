"""Who may decide: asked at every click, closed when it cannot be known, always told; against the real API server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from bot import cli
from bot.approvals import CACHE_S, Approvals, Cached, GroupsUnknown, listing
from bot.settings import from_environment
from fixes.approvers import Approvers
from fixes.audit import Audit, told, verify
from fixes.request import LIFETIME, Card, Person, Phase
from fixes.store import FixStore
from tests.deployed import BOT
from tests.fix_cluster import NAMESPACE, FixCluster, fix_cluster
from tests.fix_samples import ANA, NOW, a_spec

BO = Person(id="U0BO", via="slack")
CLEO = Person(id="U0CLEO", via="slack")
NO_APPROVING = frozenset({("approve", "calico-why.io", "fixrequests")})
MEMBERS = {"S0NETOPS": frozenset({"U0ANA", "U0BO"})}


async def members(group: str) -> frozenset[str]:
    return MEMBERS[group]


class Scene:
    """A store with a clock, and approvals over a group of ana and bo."""

    def __init__(self, cluster: FixCluster, store: FixStore) -> None:
        self.cluster = cluster
        self.store = store
        self.now = NOW
        store.now = lambda: self.now

    def approvals(self, *entries: str, allow_self: bool = False) -> Approvals:
        return Approvals(self.store, Approvers(frozenset(entries or ["S0NETOPS"]), allow_self), members)

    async def trail(self) -> list[str]:
        """The records, as they are told, and the trail is whole."""
        lines = await Audit(self.store, "reader").read()
        assert verify(lines, await self.store.all()) == []
        return [told(line) for line in lines]

    def written(self, name: str) -> object:
        return self.cluster.objects.get("fixrequests.calico-why.io", name, NAMESPACE)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with fix_cluster(tmp_path) as cluster, cluster.store(BOT) as store:
        yield Scene(cluster, store)


async def test_a_member_of_the_group_approves(scene: Scene) -> None:
    request = await scene.store.create(a_spec())
    decision = await scene.approvals().decide(request.name, Phase.APPROVED, BO)
    assert decision.changed
    now = await scene.store.get(request.name)
    assert now.status.phase is Phase.APPROVED
    assert now.status.approved_by == Person(id="U0BO", via="slack", entry="S0NETOPS")


@pytest.mark.parametrize("to", [Phase.APPROVED, Phase.REJECTED])
async def test_who_is_not_on_the_list_changes_nothing_and_is_told(scene: Scene, to: Phase) -> None:
    request = await scene.store.create(a_spec())
    before = scene.written(request.name)
    kubernetes_user = Person(id="U0BO", via="kubectl")  # the name of a Slack user is no Kubernetes user of that name
    for entries in (("S0NETOPS",), ("U0BO", "kubernetes:bo")):
        decision = await scene.approvals(*entries).decide(request.name, to, CLEO)
        assert not decision.changed
        assert "You may not" in decision.sentence
        assert "Nothing was changed" in decision.sentence
        assert not (await scene.approvals(*entries).decide(request.name, to, kubernetes_user)).changed
    nobody = Approvals(scene.store, Approvers(), members)
    decision = await nobody.decide(request.name, to, BO)
    assert "nobody may, because the list of approvers (CALICO_WHY_APPROVERS) is empty" in decision.sentence
    assert scene.written(request.name) == before


async def test_the_requester_approves_not_unless_allowed_but_may_take_it_back(scene: Scene) -> None:
    request = await scene.store.create(a_spec())
    before = scene.written(request.name)
    decision = await scene.approvals().decide(request.name, Phase.APPROVED, ANA)
    assert not decision.changed
    assert "somebody else has to approve" in decision.sentence
    assert scene.written(request.name) == before
    assert (await scene.approvals().decide(request.name, Phase.REJECTED, ANA)).changed
    request = await scene.store.create(a_spec())
    assert (await scene.approvals(allow_self=True).decide(request.name, Phase.APPROVED, ANA)).changed


async def test_expired_decided_and_unknown_requests_say_so(scene: Scene) -> None:
    approvals = scene.approvals()
    first = await scene.store.create(a_spec())
    await approvals.decide(first.name, Phase.APPROVED, BO)
    again = await approvals.decide(first.name, Phase.REJECTED, BO)
    assert not again.changed
    assert "already approved (by U0BO at 2026-11-22T22:04:00Z)" in again.sentence
    late = await scene.store.create(a_spec())
    scene.now = NOW + LIFETIME
    decision = await approvals.decide(late.name, Phase.APPROVED, BO)
    assert not decision.changed
    assert "is expired" in decision.sentence
    assert (await scene.store.get(late.name)).status.phase is Phase.EXPIRED
    unknown = await approvals.decide("fx-aaaaaaaa", Phase.APPROVED, BO)
    assert "I do not know a fix request fx-aaaaaaaa" in unknown.sentence
    forged = await approvals.decide("fx-../../secrets", Phase.APPROVED, BO)
    assert "is not the name of a fix request" in forged.sentence


async def test_eight_members_at_once(scene: Scene) -> None:
    everybody = frozenset(f"U{number}" for number in range(8))

    async def all_of_them(_: str) -> frozenset[str]:
        return everybody

    approvals = Approvals(scene.store, Approvers(frozenset({"S0NETOPS"})), all_of_them)
    request = await scene.store.create(a_spec())
    people = [Person(id=one, via="slack") for one in everybody]
    decisions = await asyncio.gather(*(approvals.decide(request.name, Phase.APPROVED, one) for one in people))
    assert sum(one.changed for one in decisions) == 1
    assert all("already approved" in one.sentence for one in decisions if not one.changed)


async def test_a_button_speaks_for_the_card_it_is_on(scene: Scene) -> None:
    request = await scene.store.create(a_spec())
    await scene.store.place(request.name, Card(channel="C1", thread="1.0", ts="1.1"))
    approvals = scene.approvals()
    copied = await approvals.decide(request.name, Phase.APPROVED, BO, shown=("C1", "9.9"))
    assert not copied.changed
    assert "not the card" in copied.sentence
    assert (await approvals.decide(request.name, Phase.APPROVED, BO, shown=("C1", "1.1"))).changed


async def test_a_request_without_a_card_is_decided_by_no_button(scene: Scene) -> None:
    """Who has the bot's token could post a card that lies for whatever was asked for in a terminal."""
    request = await scene.store.create(a_spec())
    forged = await scene.approvals().decide(request.name, Phase.APPROVED, BO, shown=("C1", "9.9"))
    assert not forged.changed and "not the card" in forged.sentence
    assert (await scene.approvals().decide(request.name, Phase.APPROVED, BO)).changed, "in words it is"


async def test_every_try_is_in_the_trail(scene: Scene) -> None:
    """Denials, forged names, copied cards, a list that does not name them, a content that is not what was digested."""
    request = await scene.store.create(a_spec())
    await scene.store.place(request.name, Card(channel="C1", thread="1.0", ts="1.1"))
    approvals = scene.approvals()
    await approvals.decide("fx-../../secrets", Phase.APPROVED, BO)
    await approvals.decide("fx-aaaaaaaa", Phase.APPROVED, BO, shown=("C1", "1.1"))
    await approvals.decide(request.name, Phase.APPROVED, BO, shown=("C1", "9.9"))
    await approvals.decide(request.name, Phase.APPROVED, CLEO)
    await approvals.decide(request.name, Phase.APPROVED, ANA)
    assert await approvals.refusal(request.name, Phase.REJECTED, BO) is None
    assert await approvals.refusal(request.name, Phase.REJECTED, CLEO) is not None
    forged = await scene.store.create(msgspec.structs.replace(a_spec(), arguments={"device": "eth0"}))
    await approvals.decide(forged.name, Phase.APPROVED, BO)
    await approvals.decide(request.name, Phase.APPROVED, BO)
    said = await scene.trail()
    for line, (who, what) in zip(
        said,
        [
            ("refused by U0BO", "'fx-../../secrets' is not the name"),
            ("refused by U0BO", "I do not know a fix request fx-aaaaaaaa"),
            ("refused by U0BO", "This is not the card of"),
            ("Pending by U0ANA", "Replace the neighbor"),
            ("refused by U0CLEO", "approved: You may not approve this"),
            ("refused by U0ANA", "somebody else has to approve"),
            ("refused by U0CLEO", "rejected: You may not reject this"),
            ("refused by U0BO", "stale: what it rests on has changed"),
            ("Pending by U0ANA", "Replace the neighbor"),
            ("Stale", "not what it was when it was made"),
            ("Approved by U0BO (S0NETOPS)", ""),
        ],
        strict=True,
    ):
        assert who in line and what in line, line
    lines = await Audit(scene.store, "reader").read()
    assert lines[2].spec["place"] == "C1/9.9"
    assert lines[4].spec["digest"] == request.spec.digest


async def test_groups_are_a_minute_old_at_most_and_never_guessed() -> None:
    now, reads = 0.0, 0
    known: frozenset[str] | None = frozenset({"U0BO"})

    async def read(_: str) -> frozenset[str]:
        nonlocal reads
        reads += 1
        if known is None:
            raise GroupsUnknown("no_such_subteam")
        return known

    cache: Cached[frozenset[str]] = Cached(read, clock=lambda: now)
    assert await cache("S1") == await cache("S1") == {"U0BO"}
    assert reads == 1
    now, known = CACHE_S, frozenset()
    assert await cache("S1") == frozenset(), "somebody who left the group a minute ago still counts"
    now, known = 2 * CACHE_S, None
    for _ in range(2):
        with pytest.raises(GroupsUnknown):
            await cache("S1")


async def test_where_slack_does_not_say_who_is_in_the_group_nobody_may(scene: Scene) -> None:
    async def broken(_: str) -> frozenset[str]:
        raise GroupsUnknown("Slack answered no_such_subteam.")

    request = await scene.store.create(a_spec())
    approvals = Approvals(scene.store, Approvers(frozenset({"S0NETOPS", "U0CLEO"})), broken)
    decision = await approvals.decide(request.name, Phase.APPROVED, BO)
    assert not decision.changed
    assert "nobody may for now" in decision.sentence
    assert (await approvals.decide(request.name, Phase.APPROVED, CLEO)).changed, "named itself, no group is needed"


def test_the_environment_names_the_approvers() -> None:
    found = from_environment({"CALICO_WHY_APPROVERS": " U1, S0NETOPS,,kubernetes:system:serviceaccount:a:b "}).approvers
    assert found.entries == {"U1", "S0NETOPS", "kubernetes:system:serviceaccount:a:b"}
    assert [group.who for group in found.groups("replace_neighbor")] == ["S0NETOPS"]
    assert not found.allow_self
    assert from_environment({}).approvers.entries == frozenset()
    assert from_environment({"CALICO_WHY_ALLOW_SELF_APPROVAL": "1"}).approvers.allow_self
    posing = Person(id="S0NETOPS", via="slack")  # nobody's user id; an entry for a group lets no single person in
    assert Approvers(frozenset({"S0NETOPS"})).own_entry(posing, "replace_neighbor") == ""


async def test_the_list_tells_where_each_request_is(scene: Scene) -> None:
    assert listing([]) == "There are no fix requests."
    first = await scene.store.create(a_spec())
    scene.now += timedelta(seconds=5)
    second = await scene.store.create(a_spec(scene.now))
    await scene.approvals().decide(first.name, Phase.REJECTED, BO, reason="in a change freeze")
    assert listing(await scene.store.all()).splitlines() == [
        f"{second.name}  Replace the neighbor 10.244.218.64 on node-a: waiting for approval",
        f"{first.name}  Replace the neighbor 10.244.218.64 on node-a: rejected by U0BO at 2026-11-22T22:04:05Z: "
        "in a change freeze",
    ]
    many = [msgspec.structs.replace(first, name=f"fx-{number}") for number in range(25)]
    assert listing(many).endswith("… and 5 older ones")


# -- the same in a terminal -------------------------------------------------------------------------------------------


async def terminal(*words: str) -> tuple[int, str]:
    """`calico-why WORDS`: exit status, and what it printed. In a thread: the server of the test runs in this one."""
    printed = io.StringIO()

    def run() -> int:
        with redirect_stdout(printed), redirect_stderr(printed):
            return cli.main(words)

    return await asyncio.to_thread(run), printed.getvalue()


async def test_a_kubernetes_user_approves_in_a_terminal(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "kubernetes:bo,kubernetes:ana")
    monkeypatch.delenv("CALICO_WHY_ALLOW_SELF_APPROVAL", raising=False)
    scene.store.now = type(scene.store)(scene.store._api, NAMESPACE).now  # the terminal has the real clock
    ana = Person(id="ana", via="kubectl")
    request = await scene.store.create(a_spec(scene.store.now(), requested_by=ana))
    for user, sentence in (("ana", "somebody else has to approve"), ("cleo", "You may not approve this")):
        config = scene.cluster.kubeconfig(user, denied=NO_APPROVING)
        status, said = await terminal("approve", request.name, "--kubeconfig", config)
        assert (status, sentence in said) == (3, True), said
    status, said = await terminal("fixes", "--kubeconfig", scene.cluster.kubeconfig("cleo"))
    assert (status, "waiting for approval" in said) == (0, True), said
    status, said = await terminal("approve", request.name, "--kubeconfig", scene.cluster.kubeconfig("bo"))
    assert (status, f"{request.name} is approved" in said) == (0, True), said
    now = await scene.store.get(request.name)
    assert now.status.approved_by == Person(id="bo", name="bo", via="kubectl", entry="kubernetes:bo")
    status, said = await terminal("reject", request.name, "too", "late", "--kubeconfig", scene.cluster.kubeconfig("bo"))
    assert (status, "already approved (by bo" in said) == (3, True), said


async def test_in_a_terminal_rbac_says_who_may_and_is_asked_by_the_fixer_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALICO_WHY_APPROVERS", raising=False)
    monkeypatch.setenv("CALICO_WHY_PEOPLE", "U0BO=bo")
    scene.store.now = type(scene.store)(scene.store.api, NAMESPACE).now
    request = await scene.store.create(a_spec(scene.store.now()))
    config = scene.cluster.kubeconfig("bo", groups=("netops", "system:authenticated"))
    monkeypatch.setenv("CALICO_WHY_RBAC_APPROVAL", "0")
    status, said = await terminal("approve", request.name, "--kubeconfig", config)
    assert (status, "nobody may, because the list" in said) == (3, True), said
    monkeypatch.delenv("CALICO_WHY_RBAC_APPROVAL")
    denied = scene.cluster.kubeconfig("cleo", denied=NO_APPROVING)
    status, said = await terminal("approve", request.name, "--kubeconfig", denied)
    assert (status, "whom RBAC gives the verb approve on fixrequests.calico-why.io may" in said) == (3, True), said
    status, said = await terminal("approve", request.name, "--kubeconfig", config)
    assert status == 0, said
    by = (await scene.store.get(request.name)).status.approved_by
    assert by == Person(id="bo", name="bo", via="kubectl", entry="rbac", groups=("netops", "system:authenticated"))


async def test_whoever_asked_takes_it_back_and_nobody_else_who_may_not_approve(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "kubernetes:bo")
    scene.store.now = type(scene.store)(scene.store.api, NAMESPACE).now
    ana = Person(id="ana", via="kubectl")
    first, second = [await scene.store.create(a_spec(scene.store.now(), requested_by=ana)) for _ in range(2)]
    by = {user: scene.cluster.kubeconfig(user, denied=NO_APPROVING) for user in ("ana", "bo", "cleo")}
    status, said = await terminal("cancel", first.name, "--kubeconfig", by["cleo"])
    assert (status, "You may not cancel this: who asked for it may, and" in said) == (3, True), said
    status, said = await terminal("cancel", first.name, "wrong", "node", "--kubeconfig", by["ana"])
    assert (status, f"{first.name} is cancelled" in said) == (0, True), said
    assert (await terminal("approve", second.name, "--kubeconfig", by["bo"]))[0] == 0
    assert (await terminal("cancel", second.name, "--kubeconfig", by["bo"]))[0] == 0, "approved, and not begun"
    status, said = await terminal("approve", first.name, "--kubeconfig", by["bo"])
    assert (status, "already cancelled (by ana" in said) == (3, True), said
    status, said = await terminal("fixes", "show", first.name, "--kubeconfig", by["cleo"])
    for sentence in (
        "Replace the neighbor 10.244.218.64 on node-a",
        "cancelled by ana (kubectl): wrong node",
        "mac=66:89:3a:22:7a:ac",
        "shop/cart shop/db 5432/tcp",
        'neighbor-1  {"fact":"Neighbor","mac":"66:00:00:00:00:99"}',
        first.spec.digest,
        first.spec.expires_at,
    ):
        assert sentence in said


async def test_the_switch_and_the_trail_in_a_terminal(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "switch:kubernetes:bo")
    scene.store.now = type(scene.store)(scene.store.api, NAMESPACE).now
    bo, cleo = [scene.cluster.kubeconfig(user, denied=NO_APPROVING) for user in ("bo", "cleo")]
    status, said = await terminal("fixes", "off", "--kubeconfig", cleo)
    assert (status, "You may not switch fixes off and on" in said) == (3, True), said
    status, said = await terminal("fixes", "off", "--reason", "freeze", "--kubeconfig", bo)
    assert (status, "Fixes are off" in said) == (0, True), said
    status, said = await terminal("fixes", "--kubeconfig", cleo)
    assert said.startswith("Now fixes are switched off by bo at ")
    blind = scene.cluster.kubeconfig("blind", denied=frozenset({("get", "", "configmaps")}))
    status, said = await terminal("fixes", "--kubeconfig", blind)
    assert (status, "Grant get and update on it." in said, "There are no fix requests" in said) == (
        0,
        True,
        True,
    )
    assert (await terminal("fixes", "on", "--kubeconfig", bo))[0] == 0
    status, said = await terminal("audit", "--kubeconfig", cleo)
    assert [line.split("  ")[3].split(" [")[0] for line in said.splitlines()][1:] == [
        "switched off by bo (switch:kubernetes:bo): freeze",
        "switched on by bo (switch:kubernetes:bo)",
    ]
    assert "refused by cleo: switch off: You may not" in said.splitlines()[0]
    status, said = await terminal("audit", "verify", "--kubeconfig", cleo)
    head = (await Audit(scene.store, "reader").read())[-1].spec["hash"]
    assert (status, said) == (0, f"The audit trail is whole: 3 records, its head is a-0000000003 {head}.\n")
    status, said = await terminal("audit", "--jsonl", "--kubeconfig", cleo)
    assert [json.loads(line)["number"] for line in said.splitlines()] == [1, 2, 3]
    scene.cluster.objects.delete("auditrecords.calico-why.io", "a-0000000003", NAMESPACE)
    status, said = await terminal("audit", "verify", head, "--kubeconfig", cleo)
    assert (status, f"The published head {head} is not in the trail" in said) == (3, True), said


async def test_what_was_meant_is_told_or_understood_in_a_terminal(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "kubernetes:bo")
    monkeypatch.setenv("CALICO_WHY_PEOPLE", "U0BO=bo")
    scene.store.now = type(scene.store)(scene.store.api, NAMESPACE).now
    config = scene.cluster.kubeconfig("bo", denied=NO_APPROVING)
    request = await scene.store.create(a_spec(scene.store.now()))
    other = request.name[:-1] + ("a" if request.name[-1] != "a" else "b")
    for words, status, sentence in (
        (("fixes", "of", "change", "freeze"), 2, "Did you mean `fixes off change freeze`?"),
        (("fixes", request.name), 2, f"Did you mean `fixes show {request.name}`?"),
        (("fixes", "show"), 2, "The words are: fixes | fixes show fx-NAME"),
        (("fixes", "show", request.name.upper()), 0, request.spec.digest),
        (("fixes", "show", other), 3, f"There is no fix request {other}"),
        (
            ("approve", other),
            3,
            f"I do not know a fix request {other}; nothing was changed. Did you mean {request.name}?",
        ),
        (
            ("approve", request.name[:-1]),
            3,
            f"is not the name of a fix request; they look like fx-7k2pabcd. Did you mean {request.name}?",
        ),
        (("approve", f"`{request.name.upper()}`"), 0, f"{request.name} is approved"),
        (("cancel", request.name.removeprefix("fx-"), "wrong", "node"), 0, f"{request.name} is cancelled"),
        (("audit", "verfy"), 2, "Did you mean `audit verify`?"),
        (("audit", "verify", "all"), 2, "'all' is no head of the trail"),
        (("audit", "everything"), 2, "There is no record of 'everything'"),
        (("audit", "fx-zzzzzzzz"), 0, "There is no record of fx-zzzzzzzz."),
        (("audit", request.name.upper()), 0, "Cancelled by bo (kubernetes:bo): wrong node [terminal]"),
        (("audit", "verify"), 0, "The audit trail is whole"),
        (("audit", "verify", "sha256:" + "0" * 64), 3, "is not in the trail"),
    ):
        ended, said = await terminal(*words, "--kubeconfig", config)
        assert (ended, sentence in said, "Traceback" in said) == (status, True, False), (words, said)
    for words in (("audit", "export", request.name), ("audit", request.name, "--jsonl")):
        ended, said = await terminal(*words, "--kubeconfig", config)
        assert [json.loads(line)["event"] for line in said.splitlines()][:2] == ["Pending", "Approved"], said
    assert (await scene.store.get(request.name)).status.phase is Phase.CANCELLED


async def test_who_asked_in_slack_and_decides_in_a_terminal(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word on who is who it may be one person with two names; with it, it is known."""
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "kubernetes:bo,kubernetes:ana@example.com")
    scene.store.now = type(scene.store)(scene.store.api, NAMESPACE).now
    request = await scene.store.create(a_spec(scene.store.now()))
    bo, ana = [scene.cluster.kubeconfig(user, denied=NO_APPROVING) for user in ("bo", "ana@example.com")]
    for people, config, status, sentence in (
        ("", bo, 3, f"U0ANA asked for {request.name}, and nobody says who bo is in Slack (CALICO_WHY_PEOPLE)"),
        ("U0ANA=ana@example.com", bo, 3, "so that may be you"),
        ("U0ANA=ana@example.com", ana, 3, f"You asked for {request.name}, so somebody else has to approve it"),
        ("U0ANA=ana@example.com, U0BO=bo", bo, 0, f"{request.name} is approved"),
    ):
        monkeypatch.setenv("CALICO_WHY_PEOPLE", people)
        ended, said = await terminal("approve", request.name, "--kubeconfig", config)
        assert (ended, sentence in said) == (status, True), said
    status, said = await terminal("cancel", request.name, "--kubeconfig", ana)
    assert (status, f"{request.name} is cancelled" in said) == (0, True), said
    assert "refused by ana@example.com" in "\n".join(await scene.trail())


async def test_terminal_errors_are_sentences(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "kubernetes:bo")
    config = scene.cluster.kubeconfig("bo")
    for words, status, sentence in (
        (("approve", "fx-aaaaaaaa"), 3, "I do not know a fix request"),
        (("approve", "everything"), 2, "is no name of a fix request"),
        (("reject", "fx-aaaaaaaa", "no"), 3, "I do not know a fix request"),
    ):
        ended, said = await terminal(*words, "--kubeconfig", config)
        assert (ended, sentence in said, "Traceback" in said) == (status, True, False), said
    status, said = await terminal("fixes", "--kubeconfig", "/nowhere/config")
    assert (status, "KUBECONFIG" in said) == (3, True), said
