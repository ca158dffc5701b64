"""The audit trail: whole under many writers, and no change to it goes unnoticed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from fixes.audit import REFUSED, START, Audit, AuditError, Line, Record, exported, hash_of, name_of, told, verify
from fixes.request import FixRequest, Person, Phase, advance
from fixes.store import FixStore
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import NAMESPACE, FixCluster, fix_cluster
from tests.fix_samples import ANA, BO, NOW, a_request, a_spec

ROOT = Path(__file__).parents[1]
TRAIL = "auditrecords.calico-why.io"


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FixCluster]:
    async with fix_cluster(tmp_path) as cluster:
        yield cluster


async def lived(store: FixStore) -> FixRequest:
    """A request that was approved and done."""
    store.now = lambda: NOW
    request = await store.create(a_spec())
    await store.transition(request.name, Phase.APPROVED, by=BO)
    await store.transition(request.name, Phase.RUNNING, message="by the fixer of node-a")
    return await store.transition(request.name, Phase.VERIFIED, message="It is right now.")


async def test_many_writers_make_one_whole_chain(cluster: FixCluster) -> None:
    async with cluster.store(BOT) as store:
        writers = [Audit(store, f"writer {number}") for number in range(6)]
        await asyncio.gather(
            *(writer.append(Record(event=REFUSED, by=ANA, text=str(n))) for writer in writers for n in range(5))
        )
        lines = await Audit(store, "reader").read()
    assert [line.name for line in lines] == [name_of(number) for number in range(1, 31)]
    assert verify(lines) == []
    assert sorted(str(line.spec["writer"]) for line in lines) == sorted(
        f"writer {n}" for n in range(6) for _ in "12345"
    )


async def test_what_happened_is_written_once_by_however_many_saw_it(cluster: FixCluster) -> None:
    async with cluster.store(BOT) as store:
        request = await lived(store)
        await asyncio.gather(*(Audit(store, f"writer {number}").follow(request) for number in range(5)))
        await Audit(store, "late").follow(request)
        lines = await Audit(store, "reader").read(request.name)
        assert [line.spec["event"] for line in lines] == ["Pending", "Approved", "Running", "Verified"]
        assert verify(lines, await store.all()) == []
        assert lines[1].spec["by"] == {"id": "U0BO", "via": "slack", "entry": "U0BO"}
        assert lines[3].spec["digest"] == request.spec.digest
        assert "Approved by U0BO" in told(lines[1])
        assert json.loads(exported(lines[3]))["text"] == "It is right now."


async def test_writers_killed_anywhere_leave_no_gap_and_nothing_twice(cluster: FixCluster) -> None:
    kubeconfig = cluster.kubeconfig(BOT)

    async def writer() -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "tests.audit_writer", kubeconfig)
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async with cluster.store(BOT) as store:
        last = Audit(store, "last")
        writers = [await writer() for _ in range(3)]
        for killed in range(3):
            before = len(await last.read())
            await asyncio.gather(*(lived(store) for _ in range(8)))
            async with asyncio.timeout(20):
                while len(await last.read()) == before:
                    pass
            writers[killed].kill()  # while they write, wherever they are
            await writers[killed].wait()
            if killed == 0:
                writers.append(await writer())
        requests = await store.all()
        for request in requests:
            await last.follow(request)
        writers[3].kill()
        await writers[3].wait()
        lines = await last.read()
    assert verify(lines, requests) == []
    assert len(lines) == 4 * len(requests) == 96
    assert len({line.spec["writer"] for line in lines}) > 1, "they took turns"


async def test_a_new_writer_finds_the_end_of_a_long_trail(cluster: FixCluster) -> None:
    async with cluster.store(BOT) as store:
        first = Audit(store, "first")
        for number in range(37):
            await first.append(Record(event=REFUSED, text=str(number)))
        written = await Audit(store, "second").append(Record(event=REFUSED, text="more"))
        assert written is not None
        assert written.name == name_of(38)
        assert verify(await first.read()) == []


async def test_a_number_far_away_does_not_end_the_trail(cluster: FixCluster) -> None:
    """Nobody can delete a record: by one with the last number, who may write records could end all fixes."""
    async with cluster.store(BOT) as store:
        assert await Audit(store, "bot").append(Record(event=REFUSED))
        spec: dict[str, Any] = {
            "number": 9_999_999_999,
            "previous": START,
            "at": "now",
            "event": REFUSED,
            "writer": "x",
        }
        body = {
            "apiVersion": "calico-why.io/v1alpha1",
            "kind": "AuditRecord",
            "metadata": {"name": name_of(spec["number"]), "namespace": NAMESPACE},
            "spec": spec | {"hash": hash_of(spec)},
        }
        cluster.objects.create(body)
        after = [await Audit(store, writer).append(Record(event=REFUSED)) for writer in ("bot", "fixer of node-a")]
        assert [line.name for line in after if line] == [name_of(2), name_of(3)]
        assert any("a-9999999999" in one for one in verify(await Audit(store, "reader").read()))


async def test_nobody_changes_a_record_through_the_api_server(cluster: FixCluster) -> None:
    async with cluster.store(BOT) as store:
        line = await Audit(store, "bot").append(Record(event=REFUSED, by=ANA, text="no"))
        assert line is not None
        kept = cluster.objects.get(TRAIL, line.name, NAMESPACE)
        body = {**kept, "spec": {**kept["spec"], "text": "yes"}}
    async with cluster.store(ADMINISTRATOR) as store:
        with pytest.raises(ApiException, match="stays as it is"):
            await client.CustomObjectsApi(store.api).replace_namespaced_custom_object(
                "calico-why.io", "v1alpha1", NAMESPACE, "auditrecords", line.name, body
            )


def changed(lines: list[Line]) -> list[Line]:
    lines[2] = Line(lines[2].name, {**lines[2].spec, "text": "nothing to see"})
    return lines


def changed_with_its_hash(lines: list[Line]) -> list[Line]:
    spec = {**lines[2].spec, "text": "nothing to see"}
    lines[2] = Line(lines[2].name, spec | {"hash": hash_of(spec)})
    return lines


def taken_out(lines: list[Line]) -> list[Line]:
    return lines[:2] + lines[3:]


def cut_off(lines: list[Line]) -> list[Line]:
    return lines[:-1]


def renumbered(lines: list[Line]) -> list[Line]:
    return [Line(name_of(number), line.spec) for number, line in enumerate(taken_out(lines), 1)]


@pytest.mark.parametrize(
    ("tamper", "sentences"),
    [
        (changed, ["a-0000000003 is not what its hash says"]),
        (changed_with_its_hash, ["breaks at a-0000000004: it does not follow a-0000000003"]),
        (taken_out, ["breaks at a-0000000004", "Missing: a-0000000003", "being executed: there is no record"]),
        (cut_off, ["published head sha256:", "done and verified: there is no record"]),
        (renumbered, ["breaks at a-0000000003: it does not follow a-0000000002", "there is no record of it"]),
    ],
)
async def test_what_was_tampered_with_is_told(
    cluster: FixCluster, tamper: Callable[[list[Line]], list[Line]], sentences: list[str]
) -> None:
    async with cluster.store(BOT) as store:
        request = await lived(store)
        audit = Audit(store, "bot")
        await audit.follow(request)
        lines = await audit.read()
        head = str(lines[-1].spec["hash"])
        assert verify(lines, [request], head) == []
        said = verify(tamper(lines), [request], head)
    for sentence in sentences:
        assert any(sentence in one for one in said), said


def test_a_request_that_says_something_else_than_the_trail_is_told() -> None:
    request = a_request()
    rewritten = msgspec.structs.replace(request, status=advance(request, Phase.APPROVED, now=NOW, by=BO))
    by_somebody = msgspec.to_builtins(Person(id="U0EVE", via="slack"))
    spec: dict[str, Any] = {"event": "Approved", "key": f"{request.name}/0", "request": request.name, "by": by_somebody}
    said = verify([Line(name_of(1), spec)], [rewritten])
    assert any("approved: a-0000000001 says something else than the request now does" in one for one in said), said


async def test_without_a_trail_or_the_right_to_it_the_sentence_says_what_to_do(
    cluster: FixCluster, tmp_path: Path
) -> None:
    denied = frozenset({("create", "calico-why.io", "auditrecords")})
    async with cluster.store("cleo", denied=denied) as store:
        with pytest.raises(AuditError, match="Grant create, get and list on auditrecords"):
            await Audit(store, "bot").append(Record(event=REFUSED))
    cluster.objects.delete("customresourcedefinitions.apiextensions.k8s.io", TRAIL)
    async with cluster.store(BOT) as store:
        with pytest.raises(AuditError, match=r"kubectl apply -f auditrecord\.yaml"):
            await Audit(store, "bot").append(Record(event=REFUSED))


def a_trail(texts: list[str]) -> list[Line]:
    """A whole one, made without a cluster."""
    lines: list[Line] = []
    for number, text in enumerate(texts, 1):
        previous = str(lines[-1].spec["hash"]) if lines else START
        spec = {"number": number, "previous": previous, "at": "now", "event": REFUSED, "writer": "bot", "text": text}
        lines.append(Line(name_of(number), spec | {"hash": hash_of(spec)}))
    return lines


@given(st.lists(st.text(), min_size=2, max_size=8), st.data())
def test_whatever_is_done_to_a_trail_is_noticed_but_a_shorter_end_needs_its_head(
    texts: list[str], data: st.DataObject
) -> None:
    lines = a_trail(texts)
    head = str(lines[-1].spec["hash"])
    assert verify(lines, head=head) == []
    at = data.draw(st.integers(0, len(lines) - 1))
    field = data.draw(st.sampled_from(sorted(lines[at].spec)))
    edited = {**lines[at].spec, field: data.draw(st.one_of(st.text(), st.integers()))}
    if edited != lines[at].spec:
        assert verify([*lines[:at], Line(lines[at].name, edited), *lines[at + 1 :]])
        again = edited | {"hash": hash_of(edited)}
        if again != lines[at].spec:  # a hash that was edited and made right again
            assert verify([*lines[:at], Line(lines[at].name, again), *lines[at + 1 :]], head=head)
    assert verify([*lines[:at], *lines[at + 1 :]], head=head)
    cut = verify(lines[:-1], head=head)
    assert len(cut) == 1
    assert "its end was cut off" in cut[0]
    other = data.draw(st.integers(0, len(lines) - 1).filter(lambda number: number != at))
    swapped = list(lines)
    swapped[at], swapped[other] = Line(lines[at].name, lines[other].spec), Line(lines[other].name, lines[at].spec)
    assert verify(swapped)
