"""Of any number of writers one wins, and nobody wins too late; over HTTP against the lab's API server."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from fixes.request import (
    GROUP,
    LIFETIME,
    PLURAL,
    TRANSITIONS,
    VERSION,
    Card,
    FixRequest,
    Person,
    Phase,
    Refused,
    SecondLook,
    document,
)
from fixes.store import FixStore, StoreError, connect
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import NAMESPACE, FixCluster, fix_cluster
from tests.fix_samples import ANA, BO, NOW, a_request, a_spec
from tests.own_faults import until

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FixCluster]:
    async with fix_cluster(tmp_path) as cluster:
        yield cluster


async def approve_at_once(stores: list[FixStore], name: str) -> list[FixRequest | Refused]:
    """One approval of each store, all at the same time, by as many people."""

    async def one(number: int, store: FixStore) -> FixRequest | Refused:
        by = Person(id=f"U{number}", via="slack", entry="S0NETOPS")
        try:
            return await store.transition(name, Phase.APPROVED, by=by)
        except Refused as refused:
            return refused

    return list(await asyncio.gather(*(one(number, store) for number, store in enumerate(stores))))


async def test_of_twelve_approvals_at_once_one_wins(cluster: FixCluster) -> None:
    async with cluster.store("a", now=lambda: NOW) as first, cluster.store("b", now=lambda: NOW) as second:
        for _ in range(5):
            request = await first.create(a_spec())
            results = await approve_at_once([first, second] * 6, request.name)
            winners = [one for one in results if isinstance(one, FixRequest)]
            assert len(winners) == 1
            now = await first.get(request.name)
            assert now.status.approved_by == winners[0].status.approved_by
            assert [event.phase for event in now.status.history] == [Phase.APPROVED]
            losers = [one for one in results if isinstance(one, Refused)]
            assert all("already approved (by U" in loser.sentence for loser in losers)


async def test_the_api_server_itself_takes_no_step_outside_the_table(cluster: FixCluster) -> None:
    """Whoever writes past this product, with kubectl and all rights, is held to the same table."""
    way = {
        phase: steps
        for steps in (
            (Phase.PENDING,),
            *((Phase.PENDING, end) for end in TRANSITIONS[Phase.PENDING]),
            (Phase.PENDING, Phase.APPROVED, Phase.RUNNING),
            *((Phase.PENDING, Phase.APPROVED, Phase.RUNNING, end) for end in TRANSITIONS[Phase.RUNNING]),
        )
        for phase in steps[-1:]
    }
    assert set(way) == set(Phase)
    async with cluster.store(BOT, now=lambda: NOW) as store:
        objects = client.CustomObjectsApi(store.api)

        async def write(name: str, status: dict[str, object]) -> bool:
            at = (GROUP, VERSION, NAMESPACE, PLURAL, name)
            body = {**await objects.get_namespaced_custom_object(*at), "status": status}
            try:
                await objects.replace_namespaced_custom_object_status(*at, body=body)
            except ApiException as error:
                assert error.status == 422, error
                return False
            return True

        by = {"id": "U0BO", "via": "slack", "entry": "U0BO"}
        for before, after in itertools.product(Phase, Phase):
            name = (await store.create(a_spec())).name
            for step in way[before][1:]:
                assert await write(name, {"phase": str(step), "approvedBy": by})
            allowed = after in TRANSITIONS[before] or after is before
            assert await write(name, {"phase": str(after), "approvedBy": by}) == allowed, (before, after)
        name = (await store.create(a_spec())).name
        assert not await write(name, {"phase": "Approved"}), "approved by nobody"
        assert await write(name, {"phase": "Approved", "approvedBy": by})
        assert not await write(name, {"phase": "Approved", "approvedBy": {**by, "id": "U0EVE"}})
        assert not await write(name, {}), "an approval that was never given would wait for one again"


async def test_approve_and_reject_at_once_end_in_one_of_them(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        for _ in range(5):
            name = (await store.create(a_spec())).name
            moves = [Phase.APPROVED, Phase.REJECTED] * 4
            calls = (store.transition(name, to, by=BO) for to in moves)
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(one, FixRequest) for one in results) == 1
            assert len((await store.get(name)).status.history) == 1


async def test_created_requests_are_pending_and_show_it(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        request = await store.create(a_spec())
        assert request.status.phase is Phase.PENDING
        written = cluster.objects.get("fixrequests.calico-why.io", request.name, NAMESPACE)
        assert written["status"] == {"phase": "Pending"}
        assert written["spec"]["requestedBy"] == {"id": "U0ANA", "via": "slack"}
        assert await store.get(request.name) == request
        assert await store.all() == [request]


async def test_an_approval_at_the_deadline_expires_the_request(cluster: FixCluster) -> None:
    now = NOW
    async with cluster.store(BOT, now=lambda: now) as store:
        late = await store.create(a_spec())
        now = NOW + LIFETIME
        results = await approve_at_once([store] * 8, late.name)
        assert {one.status.phase for one in results if isinstance(one, FixRequest)} == {Phase.EXPIRED}
        assert sum(isinstance(one, FixRequest) for one in results) == 1
        assert (await store.get(late.name)).status.approved_by is None


async def test_the_deadline_counts_on_every_fresh_read(cluster: FixCluster) -> None:
    """A writer that lost a race looks at the clock again: it may be over by then."""
    now = NOW
    async with cluster.store(BOT, now=lambda: now) as store:
        request = await store.create(a_spec())
        reads = 0

        def meanwhile(_: FixRequest) -> None:
            nonlocal reads, now
            reads += 1
            if reads == 1:  # somebody else writes between this read and the write, and time goes by
                changed = cluster.objects.get("fixrequests.calico-why.io", request.name, NAMESPACE)
                changed["metadata"]["labels"] = {"seen": "yes"}
                cluster.objects.update(changed)
                now = NOW + LIFETIME + timedelta(seconds=1)

        after = await store.transition(request.name, Phase.APPROVED, by=BO, check=meanwhile)
        assert reads == 2
        assert after.status.phase is Phase.EXPIRED


async def test_a_request_that_is_not_what_its_digest_says_goes_stale(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        forged = a_request(node="node-b")  # its digest is that of node-a
        cluster.objects.create({**document(forged, NAMESPACE), "status": {}})
        after = await store.transition(forged.name, Phase.APPROVED, by=BO)
        assert after.status.phase is Phase.STALE
        assert after.status.approved_by is None


async def test_the_spec_cannot_be_changed_and_the_status_not_through_it(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        request = await store.create(a_spec())
    async with cluster.store(ADMINISTRATOR) as store:
        objects = client.CustomObjectsApi(store.api)
        at = {"group": GROUP, "version": VERSION, "namespace": NAMESPACE, "plural": PLURAL, "name": request.name}
        body = document(request, NAMESPACE)
        body["spec"]["node"] = "node-b"
        with pytest.raises(ApiException) as refused:
            await objects.replace_namespaced_custom_object(**at, body=body)
        assert refused.value.status == 422
        assert "cannot be changed" in str(refused.value.body)
        body = document(request, NAMESPACE)
        body["status"] = {"phase": "Approved"}
        await objects.replace_namespaced_custom_object(**at, body=body)
        assert (await store.get(request.name)).status.phase is Phase.PENDING


async def test_what_a_newer_version_keeps_in_the_status_stays(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        crd = cluster.objects.get("customresourcedefinitions", "fixrequests.calico-why.io")
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        schema["properties"]["ticket"] = {"type": "string"}
        cluster.objects.update(crd)
        request = await store.create(a_spec())
        written = cluster.objects.get("fixrequests.calico-why.io", request.name, NAMESPACE)
        written["status"]["ticket"] = "NET-7"
        cluster.objects.update_status(written)
        await store.transition(request.name, Phase.REJECTED, by=BO, message="not now")
        after = cluster.objects.get("fixrequests.calico-why.io", request.name, NAMESPACE)
        assert after["status"]["ticket"] == "NET-7"
        assert after["status"]["message"] == "not now"


async def test_card_and_second_look_change_nothing_else(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        request = await store.create(a_spec())
        card = Card(channel="C1", thread="1.0", ts="1.1")
        look = SecondLook(verdict="healthy", text="4 of 4", at="2026-11-22T22:05:00Z")
        await asyncio.gather(store.place(request.name, card), store.transition(request.name, Phase.APPROVED, by=BO))
        after = await store.note_second_look(request.name, look)
        assert (after.status.phase, after.status.slack, after.status.second_look) == (Phase.APPROVED, card, look)
        with pytest.raises(Refused):
            await store.note_second_look(request.name, msgspec.structs.replace(look, verdict="cause"))


async def test_a_watch_tells_all_there_is_and_what_happens(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        first = await store.create(a_spec())
        watch = store.watch()
        assert await anext(watch) == ("listed", first)
        second = await store.create(a_spec(node="node-b"))
        seen = [await asyncio.wait_for(anext(watch), 5) for _ in range(2)]  # created, then Pending written
        assert [(kind, one.name) for kind, one in seen] == [("changed", second.name)] * 2
        approved = await store.transition(first.name, Phase.APPROVED, by=BO)
        assert await asyncio.wait_for(anext(watch), 5) == ("changed", approved)
        cluster.objects.delete("fixrequests.calico-why.io", first.name, NAMESPACE)
        kind, gone = await asyncio.wait_for(anext(watch), 5)
        assert (kind, gone.name) == ("deleted", first.name)
        await watch.aclose()


async def test_a_watch_survives_the_api_server(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        request = await store.create(a_spec())
        seen: asyncio.Queue[FixRequest] = asyncio.Queue()

        async def follow() -> None:
            async for _, one in store.watch():
                seen.put_nowait(one)

        following = asyncio.ensure_future(follow())
        assert await asyncio.wait_for(seen.get(), 5) == request
        port = int(cluster.url.rsplit(":", 1)[1])
        await cluster.server.stop()
        await cluster.server.start(socket.create_server(("127.0.0.1", port)))
        await store.transition(request.name, Phase.APPROVED, by=BO)
        async with asyncio.timeout(20):
            while (await seen.get()).status.phase is not Phase.APPROVED:
                pass
        following.cancel()


async def test_what_is_deleted_while_a_watch_is_broken_is_told_and_what_nobody_can_read_is_not(
    cluster: FixCluster,
) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        gone, stays, strange = [await store.create(a_spec(node=node)) for node in ("node-a", "node-b", "node-c")]
        crd = cluster.objects.get("customresourcedefinitions", "fixrequests.calico-why.io")
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
        }
        cluster.objects.update(crd)
        watch = store.watch()
        assert {(await anext(watch))[1].name for _ in range(3)} == {gone.name, stays.name, strange.name}
        waiting = asyncio.ensure_future(anext(watch))
        await until(lambda: any(one.verb == "watch" for one in cluster.server.calls))
        port = int(cluster.url.rsplit(":", 1)[1])
        await cluster.server.stop()
        cluster.objects.delete("fixrequests.calico-why.io", gone.name, NAMESPACE)
        unreadable = cluster.objects.get("fixrequests.calico-why.io", strange.name, NAMESPACE)
        cluster.objects.update({**unreadable, "spec": {"kind": 7}})
        await cluster.server.start(socket.create_server(("127.0.0.1", port)))
        async with asyncio.timeout(20):
            assert await waiting == ("deleted", gone)
            assert await anext(watch) == ("listed", stays)
            cluster.objects.delete("fixrequests.calico-why.io", stays.name, NAMESPACE)
            kind, last = await anext(watch)
        assert (kind, last.name) == ("deleted", stays.name)
        await watch.aclose()


async def test_whoami_is_what_the_api_server_says(cluster: FixCluster) -> None:
    async with cluster.store("ana@example.org") as store:
        assert await store.whoami() == Person(id="ana@example.org", name="ana@example.org", via="kubectl")


async def test_errors_are_sentences(cluster: FixCluster, tmp_path: Path) -> None:
    async with cluster.store(BOT) as store:
        with pytest.raises(StoreError, match="no fix request fx-aaaaaaaa") as missing:
            await store.get("fx-aaaaaaaa")
        assert missing.value.missing
    denied = frozenset({("list", GROUP, PLURAL)})
    async with cluster.store("nobody", denied=denied) as store:
        with pytest.raises(StoreError, match=r"does not allow it.*nobody"):
            await store.all()
    with pytest.raises(StoreError, match="KUBECONFIG"):
        async with connect(str(tmp_path / "missing"), NAMESPACE):
            pass
    (tmp_path / "bare").mkdir()
    async with fix_cluster(tmp_path / "bare", with_crd=False) as bare, bare.store(BOT) as store:
        with pytest.raises(StoreError, match="kubectl apply -f"):
            await store.create(a_spec())
        await bare.server.stop()
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.all()


async def test_a_request_nobody_can_read_hides_no_other(cluster: FixCluster) -> None:
    async with cluster.store(BOT, now=lambda: NOW) as store:
        request = await store.create(a_spec(requested_by=ANA))
        crd = cluster.objects.get("customresourcedefinitions", "fixrequests.calico-why.io")
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
        }
        cluster.objects.update(crd)
        strange = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "FixRequest", "spec": {"kind": 7}}
        cluster.objects.create({**strange, "metadata": {"name": "fx-strange0", "namespace": NAMESPACE}})
        assert await store.all() == [request]
