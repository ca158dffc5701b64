"""What was approved is done at most once, only while it still holds, and its end is said; real kernel, real API."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixes.approvers import Approvers
from fixes.executor import Executor
from fixes.hands import NodeHands
from fixes.kernel import Kernel
from fixes.kind import Kind, NodeKind, TooSoon, kinds
from fixes.request import FixRequest, Person, Phase, Refused, Spec, moment, stamp
from fixes.store import FixStore
from node_probe.netlink import Entry
from tests.deployed import BOT, NODE
from tests.fix_cluster import FixCluster, fix_cluster
from tests.fix_samples import ANA, BO, a_spec
from tests.namespaces import in_namespaces
from tests.test_node_fixes import GOOD
from tests.test_replace_neighbor import ARGUMENTS, PEER, WRONG, wound
from tests.two_nodes import BLOCK, DB, MAC, TUNNEL, TwoNodes

ROOT = Path(__file__).parents[1]
APPROVERS = Approvers(frozenset({"U0BO", "S0NETOPS", "kubernetes:bo"}), people=frozenset({"U0BO=bo"}))
KINDS_OF_SOCKETS = ("tcp", "tcp6", "udp", "udp6", "raw")


class Counting(Kernel):
    """The real kernel, and how often it was changed."""

    def __init__(self) -> None:
        self.changes = 0

    def replace_neighbor(self, device: str, address: str, mac: str) -> None:
        self.changes += 1
        super().replace_neighbor(device, address, mac)


@contextlib.asynccontextmanager
async def scene(directory: Path) -> AsyncGenerator[tuple[TwoNodes, FixCluster, FixStore, FixStore]]:
    """Two nodes, one with a wrong MAC, and a cluster that knows fix requests. The stores: the bot's, a fixer's."""
    nodes = TwoNodes()
    wound(nodes, WRONG)
    async with fix_cluster(directory) as cluster, cluster.store(BOT) as store, cluster.store(NODE) as fixing:
        yield nodes, cluster, store, fixing


def spec(**changes: Any) -> Spec:
    return a_spec(datetime.now(UTC), **{"arguments": ARGUMENTS, **changes})


async def approved(store: FixStore, by: Person = BO, **changes: Any) -> FixRequest:
    request = await store.create(spec(**changes))
    return await store.transition(request.name, Phase.APPROVED, by=by)


def an_executor(fixing: FixStore, kernel: Kernel, approvers: Approvers = APPROVERS) -> Executor:
    """The one of node-a."""
    return Executor(NodeHands("node-a", kernel), fixing, approvers)


async def until(store: FixStore, name: str, *phases: Phase) -> FixRequest:
    async with asyncio.timeout(20):
        async for _, request in store.watch():
            if request.name == name and request.status.phase in phases:
                return request
    raise AssertionError


@in_namespaces
async def test_an_approved_request_is_executed_once_and_verified(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        request = await approved(store)
        running = asyncio.ensure_future(an_executor(fixing, kernel).run())
        done = await until(store, request.name, Phase.VERIFIED)
        assert done.status.message == f"{PEER} on {TUNNEL} is {MAC['b']} now."
        assert [event.phase for event in done.status.history] == [Phase.APPROVED, Phase.RUNNING, Phase.VERIFIED]
        assert done.status.started_at
        assert done.status.finished_at
        second = await store.create(spec())  # while it runs: it waits until somebody approves
        entry = kernel.neighbor(TUNNEL, PEER)
        assert entry is not None
        assert entry.mac == MAC["b"]
        await store.transition(second.name, Phase.APPROVED, by=BO)
        stale = await until(store, second.name, Phase.STALE)
        assert "already; there is nothing left to do" in stale.status.message
        assert kernel.changes == 1
        running.cancel()


@in_namespaces
async def test_of_many_executors_one_executes(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        request = await approved(store)
        executors = [an_executor(fixing, kernel) for _ in range(6)]
        await asyncio.gather(*(one.handle(request.name) for one in executors), return_exceptions=True)
        assert kernel.changes == 1
        assert (await store.get(request.name)).status.phase is Phase.VERIFIED


@in_namespaces
async def test_pending_requests_and_those_of_other_nodes_are_left_alone(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        executor = an_executor(fixing, kernel)
        pending = await store.create(spec())
        foreign = await approved(store, node="node-b")
        assert (await executor.handle(pending.name)).status.phase is Phase.PENDING
        assert (await executor.handle(foreign.name)).status.phase is Phase.APPROVED
        assert kernel.changes == 0


@in_namespaces
async def test_what_would_be_written_is_shown_before_anybody_decides(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        executor = an_executor(fixing, kernel)
        request = await store.create(spec())
        running = asyncio.ensure_future(executor.run())
        async with asyncio.timeout(20):
            async for _, seen in store.watch():
                if seen.status.preview:
                    break
        assert seen.status.preview == (f"ip neigh replace {PEER} lladdr {MAC['b']} dev {TUNNEL} nud permanent",)
        assert seen.status.phase is Phase.PENDING
        assert not seen.status.history
        assert kernel.changes == 0
        running.cancel()
        await asyncio.wait({running})
        strange = await store.create(spec(kind="reboot"))
        assert (await an_executor(fixing, kernel).handle(strange.name)).status.preview == (
            "Nothing: node-a does not know the fix 'reboot'.",
        )
        await store.transition(request.name, Phase.APPROVED, by=BO)
        with pytest.raises(Refused, match="decided already"):
            await store.note_preview(request.name, ["something else"])


@in_namespaces
async def test_evidence_that_changed_makes_it_stale(tmp_path: Path) -> None:
    async with scene(tmp_path) as (nodes, _, store, fixing):
        kernel = Counting()
        request = await approved(store)
        wound(nodes, "66:00:00:00:00:77")
        after = await an_executor(fixing, kernel).handle(request.name)
        assert after.status.phase is Phase.STALE
        assert "is 66:00:00:00:00:77 now" in after.status.message
        assert "Ask again" in after.status.message
        assert kernel.changes == 0


@in_namespaces
async def test_an_approval_that_does_not_count_here_is_not_executed(tmp_path: Path) -> None:
    stranger = Person(id="U0CLEO", via="slack", entry="U0CLEO")
    other_group = Person(id="U0CLEO", via="slack", entry="S0OTHER")
    posing = Person(id="U0CLEO", via="kubectl", entry="S0NETOPS")  # a Slack group says nothing about a Kubernetes user
    async with scene(tmp_path) as (nodes, _, store, fixing):
        kernel = Counting()
        executor = an_executor(fixing, kernel)
        for by in (stranger, other_group, posing):
            after = await executor.handle((await approved(store, by)).name)
            assert after.status.phase is Phase.FAILED
            assert "not on the list of approvers" in after.status.message
        own = await approved(
            store, Person(id=BO.id, via="slack", entry="U0BO"), requested_by=Person(id=BO.id, via="slack")
        )
        after = await executor.handle(own.name)
        assert after.status.phase is Phase.FAILED
        assert "somebody else has to approve" in after.status.message
        nobody = an_executor(fixing, kernel, Approvers())
        assert (await nobody.handle((await approved(store)).name)).status.phase is Phase.FAILED
        assert kernel.changes == 0
        for by in (Person(id="U0CLEO", via="slack", entry="S0NETOPS"), Person(id="bo", via="kubectl")):
            wound(nodes, WRONG)
            assert (await executor.handle((await approved(store, by)).name)).status.phase is Phase.VERIFIED


@in_namespaces
async def test_an_approval_that_comes_too_late_to_the_node_expires(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        request = await approved(store)
        fixing.now = lambda: datetime.now(UTC) + timedelta(minutes=16)
        after = await an_executor(fixing, kernel).handle(request.name)
        assert after.status.phase is Phase.EXPIRED
        assert kernel.changes == 0


@in_namespaces
async def test_a_change_that_does_not_stay_or_is_refused_is_said(tmp_path: Path) -> None:
    class Undone(Counting):
        def replace_neighbor(self, device: str, address: str, mac: str) -> None:
            super().replace_neighbor(device, address, mac)
            super().replace_neighbor(device, address, WRONG)

    class Refusing(Counting):
        def replace_neighbor(self, device: str, address: str, mac: str) -> None:
            raise PermissionError(1, "Operation not permitted")

    async with scene(tmp_path) as (_, _, store, fixing):
        after = await an_executor(fixing, Undone()).handle((await approved(store)).name)
        assert after.status.phase is Phase.NOT_FIXED
        assert f"is {WRONG}" in after.status.message
        after = await an_executor(fixing, Refusing()).handle((await approved(store)).name)
        assert after.status.phase is Phase.FAILED
        assert "operation not permitted" in after.status.message
        strange = await an_executor(fixing, Counting()).handle((await approved(store, kind="reboot")).name)
        assert strange.status.phase is Phase.FAILED
        assert "does not know the fix 'reboot'" in strange.status.message


@in_namespaces
async def test_what_changes_in_the_last_moment_ends_as_failed_with_nothing_written(tmp_path: Path) -> None:
    """Between the last look and the write: it runs already, so it is not Stale, and says that nothing was done."""
    once = kinds()["replace_neighbor"]
    assert isinstance(once, NodeKind)

    def execute(kernel: Kernel, arguments: Mapping[str, str]) -> None:
        Kernel().replace_neighbor(TUNNEL, PEER, "66:00:00:00:00:98")
        once.holds(kernel, arguments)
        once.execute(kernel, arguments)

    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        hands = NodeHands("node-a", kernel, {once.name: dataclasses.replace(once, execute=execute)})
        ended = await Executor(hands, fixing, APPROVERS).handle((await approved(store)).name)
        assert [event.phase for event in ended.status.history][-2:] == [Phase.RUNNING, Phase.FAILED]
        assert ended.status.message.startswith(f"Nothing was written: {PEER} on {TUNNEL} is 66:00:00:00:00:98 now;")
        assert kernel.changes == 0


@in_namespaces
async def test_an_error_after_the_write_is_not_taken_for_a_failure(tmp_path: Path) -> None:
    class Deaf(Counting):
        """The write is made, and its answer lost."""

        def replace_neighbor(self, device: str, address: str, mac: str) -> None:
            super().replace_neighbor(device, address, mac)
            raise TimeoutError("no answer")

    class Blind(Deaf):
        def neighbor(self, device: str, address: str) -> Entry | None:
            if self.changes:
                raise OSError("no netlink any more")
            return super().neighbor(device, address)

    async with scene(tmp_path) as (_, _, store, fixing):
        blind = await an_executor(fixing, Blind()).handle((await approved(store)).name)
        assert blind.status.phase is Phase.UNKNOWN
        assert blind.status.message.endswith("What came of it cannot be read: no netlink any more.")
        await asyncio.to_thread(Kernel().replace_neighbor, TUNNEL, PEER, WRONG)
        ended = await an_executor(fixing, Deaf()).handle((await approved(store)).name)
        assert ended.status.phase is Phase.VERIFIED
        assert ended.status.message == f"It failed on node-a: no answer. {PEER} on {TUNNEL} is {MAC['b']} now."


def of_two_looks(due: dict[str, datetime]) -> Mapping[str, Kind]:
    """The kinds there are, and one like replace_neighbor whose second look is due then."""
    once = kinds()["replace_neighbor"]
    assert isinstance(once, NodeKind)

    def holds(kernel: Kernel, arguments: Mapping[str, str]) -> None:
        once.holds(kernel, arguments)
        left = (due["second look"] - datetime.now(UTC)).total_seconds()
        if left > 0:
            raise TooSoon(f"The second look is due in {left:.0f} s.", left)

    return {**kinds(), "twice": dataclasses.replace(once, name="twice", holds=holds)}


@in_namespaces
async def test_a_second_look_is_waited_for_and_others_have_their_turn_meanwhile(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        due = {"second look": datetime.now(UTC) + timedelta(hours=1)}
        hands = NodeHands("node-a", kernel, of_two_looks(due))
        twice = await approved(store, kind="twice")
        running = asyncio.ensure_future(Executor(hands, fixing, APPROVERS).run())
        strange = await approved(store, kind="reboot")
        await until(store, strange.name, Phase.FAILED)
        assert (await store.get(twice.name)).status.phase is Phase.APPROVED
        assert kernel.changes == 0
        running.cancel()
        await asyncio.wait({running})
        due["second look"] = datetime.now(UTC) + timedelta(seconds=0.5)
        running = asyncio.ensure_future(Executor(hands, fixing, APPROVERS).run())  # restarted: it is not forgotten
        await until(store, twice.name, Phase.VERIFIED)
        assert datetime.now(UTC) >= due["second look"]
        assert kernel.changes == 1
        running.cancel()


@in_namespaces
async def test_a_second_look_never_comes_after_the_deadline(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, _, store, fixing):
        kernel = Counting()
        hands = NodeHands("node-a", kernel, of_two_looks({"second look": datetime.now(UTC) + timedelta(hours=1)}))
        request = await approved(store, kind="twice", expires_at=stamp(datetime.now(UTC) + timedelta(seconds=3)))
        running = asyncio.ensure_future(Executor(hands, fixing, APPROVERS).run())
        await until(store, request.name, Phase.EXPIRED)
        assert kernel.changes == 0
        running.cancel()


@in_namespaces
async def test_a_route_is_put_back_at_its_second_look_and_not_when_it_came_back_by_itself(tmp_path: Path) -> None:
    async with scene(tmp_path) as (nodes, _, store, fixing):
        kernel = Kernel()
        block = f"{BLOCK['b']}/26"
        before = kernel.way(DB).route
        assert before is not None
        nodes.at("a", lambda ip: ip.route("del", dst=block))
        arguments = {**GOOD["replace_route"], "seen": str(kernel.way(DB)), "version": "v3.29.0"}
        due = datetime.now(UTC) + timedelta(seconds=2)
        arguments["seen_at"] = stamp(due - timedelta(seconds=95))
        change = {"kind": "replace_route", "arguments": arguments}
        request = await approved(store, **change)
        running = asyncio.ensure_future(an_executor(fixing, kernel).run())
        done = await until(store, request.name, Phase.VERIFIED)
        assert moment(done.status.started_at) >= moment(stamp(due))
        assert kernel.way(DB).route == before
        again = await until(store, (await approved(store, **change)).name, Phase.STALE)
        assert "there is nothing left to do" in again.status.message
        running.cancel()


@pytest.mark.parametrize(("when", "end"), [("before", Phase.UNKNOWN), ("after", Phase.VERIFIED)])
def test_killed_between_running_and_done_it_is_not_run_again(tmp_path: Path, when: str, end: Phase) -> None:
    @in_namespaces
    async def work() -> None:
        record = tmp_path / "record"
        async with scene(tmp_path) as (_, cluster, store, fixing):
            request = await approved(store)
            command = [sys.executable, "-m", "tests.stuck_fixer", cluster.kubeconfig(NODE), str(record), when]
            fixer = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
            try:
                await until(store, request.name, Phase.RUNNING)
                assert fixer.stdout is not None
                assert await asyncio.wait_for(fixer.stdout.readline(), 20) == b"executed\n"
            finally:
                os.kill(fixer.pid, signal.SIGKILL)
                await fixer.wait()
            kernel = Counting()
            running = asyncio.ensure_future(an_executor(fixing, kernel).run())
            after = await until(store, request.name, Phase.UNKNOWN, Phase.VERIFIED)
            running.cancel()
            assert after.status.phase is end
            assert "did not run it again" in after.status.message
            assert kernel.changes == 0
            assert record.read_text() == "executed\n"

    work()


@in_namespaces
async def test_the_command_watches_without_a_listening_socket_and_ends_when_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, cluster, store, _):
        request = await store.create(spec(requested_by=ANA))
        before = listening()
        environment = {**os.environ, "KUBECONFIG": cluster.kubeconfig(NODE), "CALICO_WHY_APPROVERS": "S0NETOPS"}
        fixer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "fixer", "--node", "node-a"),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        assert fixer.stderr is not None
        while b"Watching" not in (await asyncio.wait_for(fixer.stderr.readline(), 20)):
            pass
        by = Person(id="U0BO", via="slack", entry="S0NETOPS")
        await store.transition(request.name, Phase.APPROVED, by=by)
        done = await until(store, request.name, Phase.VERIFIED)
        assert done.status.history[-2].message == "by the fixer of node-a"
        assert listening() == before
        fixer.terminate()
        assert await asyncio.wait_for(fixer.wait(), 10) == 0


def listening() -> set[str]:
    """Local addresses of all sockets somebody could send something to."""
    found = set()
    for kind in KINDS_OF_SOCKETS:
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if not kind.startswith("tcp") or words[3] == "0A":
                found.add(f"{kind} {words[1]}")
    return found
