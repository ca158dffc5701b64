"""The trial counts what is written, sees every lie it was made to see, and finds none in a small run with kills."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.trial.judge import Seen, cards, judge
from benchmarks.trial.kernel import Kernels
from benchmarks.trial.people import APPROVING, NOT_APPROVING, UNDOABLE, parts
from benchmarks.trial.processes import Killer, Process
from benchmarks.trial.targets import OTHER_MAC, SHARES, Target, cause
from bot.reply.fix_card import fix_card
from fixes.kernel import Kernel
from fixes.kind import NodeKind, kinds
from fixes.request import Card, Event, FixRequest, Person, Phase, Status, document
from lab.slack.workspace import Message
from tests.fix_samples import ANA, NOW, a_spec
from tests.namespaces import in_namespaces, isolated
from tests.two_nodes import TUNNEL

ROOT = Path(__file__).parents[1]
BO, CLEO = Person(id="U0BO", via="slack", entry="S0NETOPS"), Person(id="U0CLEO", via="slack", entry="U0CLEO")
KEY = ("replace_neighbor", 1)
NAME = "fx-abcdefgh"


def a_request(*phases: Phase, by: Person = BO, **status: Any) -> FixRequest:
    """One that came through these phases."""
    history = tuple(Event(phase=phase, at="2026-11-22T22:04:00Z") for phase in phases)
    approved = {"approved_by": by} if Phase.APPROVED in phases else {}
    return FixRequest(
        name=NAME,
        spec=a_spec(),
        status=Status(phase=phases[-1], history=history, message="So it ended.", **approved, **status),
    )


def seen(request: FixRequest, **changes: Any) -> Seen:
    """Each phase a second after the one before, written while it was Running, and its fixer killed then."""
    times = {(NAME, str(event.phase)): float(at) for at, event in enumerate(request.status.history)}
    running = times.get((NAME, "Running"))
    fields: dict[str, Any] = {
        "requests": {NAME: request},
        "target_of": {NAME: KEY},
        "since": times,
        "effects": {} if running is None else {KEY: [running + 0.5]},
        "undone": frozenset(),
        "kills": {"node-a": [] if running is None else [running + 0.6], "node-b": [], "": []},
    }
    return Seen(**(fields | changes))


ENDED = (Phase.APPROVED, Phase.RUNNING)


def found(what: Seen) -> dict[str, int]:
    """How much is wrong, by what."""
    return {name: len(told) for name, told in msgspec.structs.asdict(judge(what)).items() if told}


@pytest.mark.parametrize(
    ("phases", "changes", "wrong"),
    [
        ((*ENDED, Phase.VERIFIED), {}, {}),
        ((*ENDED, Phase.VERIFIED), {"effects": {}}, {"untrue": 1}),
        ((*ENDED, Phase.VERIFIED), {"effects": {KEY: [1.4, 1.5]}}, {"twice": 1}),
        ((*ENDED, Phase.VERIFIED), {"effects": {KEY: [0.5]}}, {"not_allowed": 1}),
        ((*ENDED, Phase.RUNNING, Phase.VERIFIED), {"effects": {KEY: [2.5]}}, {"twice": 1}),
        ((*ENDED, Phase.NOT_FIXED), {"undone": frozenset({KEY})}, {}),
        ((*ENDED, Phase.NOT_FIXED), {}, {"untrue": 1}),
        ((*ENDED, Phase.FAILED), {"effects": {}}, {}),
        ((*ENDED, Phase.FAILED), {}, {"untrue": 1}),
        ((*ENDED, Phase.UNKNOWN), {"effects": {}}, {}),
        ((*ENDED, Phase.UNKNOWN), {}, {"untrue": 1}),
        ((*ENDED, Phase.UNKNOWN), {"effects": {}, "kills": {"node-a": [], "node-b": [1.5], "": [1.5]}}, {"untrue": 1}),
        ((Phase.APPROVED, Phase.STALE), {}, {}),
        ((Phase.APPROVED, Phase.STALE), {"effects": {KEY: [0.5]}}, {"not_allowed": 1}),
        ((Phase.REJECTED,), {"effects": {KEY: [0.5]}}, {"not_allowed": 1}),
        ((Phase.APPROVED,), {}, {"lost": 1}),
        (ENDED, {}, {"lost": 1}),
    ],
)
def test_an_end_is_compared_with_what_was_written(
    phases: tuple[Phase, ...], changes: dict[str, Any], wrong: dict[str, int]
) -> None:
    assert found(seen(a_request(*phases), **changes)) == wrong


@pytest.mark.parametrize(
    "by", [CLEO, Person(id=ANA.id, via="slack", entry="S0NETOPS"), Person(id="U0BO", via="kubectl")]
)
def test_who_may_not_approve_is_seen_whatever_the_request_says(by: Person) -> None:
    assert found(seen(a_request(*ENDED, Phase.VERIFIED, by=by))) == {"not_allowed": 1}
    assert found(seen(a_request(*ENDED, Phase.UNKNOWN, by=by), effects={})) == {}, "nothing was written"


class _Store:
    namespace = "calico-why"

    def now(self) -> Any:
        return NOW


def test_cards_that_lie_and_buttons_that_stay_are_seen() -> None:
    card = Card(channel="C1", thread="1.0", ts="1.1")
    request = a_request(*ENDED, Phase.VERIFIED, slack=card)
    waiting = msgspec.structs.replace(request, status=Status(slack=card))

    def shown(ts: str, as_it_is: FixRequest) -> tuple[tuple[str, str], Message]:
        message = fix_card(document(as_it_is, "calico-why"), NOW, approvers=["S0NETOPS"], cluster="trial")
        with_ids = [{**block, "block_id": "x"} for block in message.blocks]
        return ("C1", ts), Message("C1", ts, "U0CALICO", message.text, with_ids)

    def wrong(*messages: tuple[tuple[str, str], Message]) -> int:
        return len(cards({NAME: request}, dict(messages), ["S0NETOPS"], _Store()))

    assert wrong(shown("1.1", request)) == 0
    assert wrong(shown("1.1", waiting)) == 1
    assert wrong() == 1
    assert wrong(shown("1.1", request), shown("1.2", waiting)) == 1


@in_namespaces
async def test_each_write_to_a_kernel_is_counted_and_each_hand_known() -> None:
    counted: list[tuple[str, int]] = []
    wrong = [
        Target(kind="set_sysctl", number=1, node="node-a"),
        Target(kind="set_sysctl", number=2, node="node-b"),
        Target(kind="replace_neighbor", number=3, node="node-a"),
        Target(kind="replace_fdb_entry", number=4, node="node-a"),
    ]
    kernels = Kernels(lambda target: counted.append((target.kind, target.number)))
    kernels.wound(wrong)
    kernels.watch()

    async def told(count: int) -> list[tuple[str, int]]:
        async with asyncio.timeout(10):
            while len(counted) < count:  # noqa: ASYNC110  # of the kernel
                await asyncio.sleep(0.01)
        return counted

    for target in wrong:
        kernels.change(target)
        kernels.undo(target)

    def mend(target: Target) -> None:
        kind = kinds()[target.kind]
        assert isinstance(kind, NodeKind)
        one, facts = cause(target, ())
        arguments = kind.propose(one, facts)
        assert arguments is not None
        kind.holds(Kernel(), arguments)
        kind.execute(Kernel(), arguments)

    for target in (wrong[0], *wrong[2:]):
        await asyncio.to_thread(mend, target)
    assert await told(3) == [(target.kind, target.number) for target in (wrong[0], *wrong[2:])]
    # What changes nothing is told of a switch, not of a neighbor: so a fix that is undone at once would be seen again.
    await asyncio.to_thread(Kernel().set_sysctl, f"net/ipv4/conf/{wrong[0].device}/{wrong[0].switch}", "1")
    assert (await told(4))[3] == ("set_sysctl", 1)
    kernels.undo(wrong[2])
    await asyncio.to_thread(Kernel().replace_neighbor, TUNNEL, wrong[2].address, wrong[2].mac)
    assert (await told(5))[4] == ("replace_neighbor", 3)
    assert wrong[2].mac != OTHER_MAC and not kernels.blind


def test_a_trial_has_every_kind_and_every_way_and_the_same_seed_gives_the_same() -> None:
    many = parts(1, 1000, SHARES)
    assert parts(1, 1000, SHARES) == many and parts(2, 1000, SHARES) != many
    assert {part.way for part in many} == {*APPROVING, *NOT_APPROVING}
    assert {part.target.kind for part in many} == set(SHARES) >= set(UNDOABLE)
    assert len({part.target.number for part in many}) == len(many) > 1100


class _Alive(Process):
    """Takes every kill."""

    def __init__(self, name: str, role: str) -> None:
        self.name, self.role, self.kills = name, role, []

    def kill(self) -> bool:
        self.kills.append(float(len(self.kills)))
        return True


async def test_the_same_seed_kills_at_the_same_moments_and_everybody_is_killed() -> None:
    def kills(seed: int) -> list[tuple[int, str]]:
        killer = Killer(seed, 60, 5)
        killer.processes = [
            _Alive("bot-0", "bot"),
            _Alive("node-a", "node fixer"),
            _Alive("cluster-0", "cluster fixer"),
        ]
        struck = []
        for moment in range(600):
            for one in killer.processes:
                before = len(one.kills)
                killer.moment(one.name)
                struck += [(moment, one.name)] * (len(one.kills) - before)
        return struck

    assert kills(1) == kills(1) != kills(2)
    assert {name for _, name in kills(1)} == {"bot-0", "node-a", "cluster-0"}


def test_a_small_trial_finds_nothing_wrong() -> None:
    isolated(lambda: None)  # skips where this machine forbids namespaces
    command = (sys.executable, "-m", "benchmarks.trial", "-n", "6", "--kills", "3", "--seed", "8", "--lifetime", "30")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    for figure in ("executed twice", "lost", "executed without an allowed approver", "cards untrue at the end"):
        assert f"{figure + ':':<40}0\n" in run.stdout
    assert "killed with -9: none" not in run.stdout
