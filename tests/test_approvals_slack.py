"""Deciding in a local Slack, over both transports: judged again at every step, and all of it in the audit trail."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from kubernetes.aio import client
from kubernetes.aio.watch import Watch

from fixes.approvers import Approvers
from fixes.audit import Audit, Line, told, verify
from fixes.executor import Executor
from fixes.kind import TooSoon
from fixes.request import Evidence, FixRequest, Person, Phase, Spec
from fixes.store import FixStore
from lab.slack.workspace import View
from tests.answers import investigation
from tests.deployed import NODE
from tests.fix_samples import a_spec
from tests.test_bot_slack import ROOM, Room, room
from tests.test_fix_requests import recorded
from tests.test_limits import Doing

__all__ = ["room"]


async def trail(room: Room) -> list[str]:
    """The records, as they are told."""
    lines = await Audit(room.store, "reader").read()
    assert verify(lines) == []
    return [told(line) for line in lines]


async def until_in_trail(room: Room, *words: str) -> str:
    """The first record with all these words in it, once it is there."""
    at = ("calico-why.io", "v1alpha1", room.store.namespace, "auditrecords")
    listing = client.CustomObjectsApi(room.store.api).list_namespaced_custom_object
    async with asyncio.timeout(10), Watch() as watch:
        async for event in watch.stream(listing, *at):
            line = told(Line(event["object"]["metadata"]["name"], event["object"]["spec"]))
            if all(word in line for word in words):
                return line
    raise AssertionError


async def asked_why(room: Room, user: str = "bo") -> tuple[str, str, str, View]:
    """A card whose Reject this user clicked: the request, thread and ts of the card, and the form that opened."""
    await room.ask()
    request, thread, ts = await room.card()
    await room.slack.click(user, ROOM, ts, "fix_reject")
    return request.name, thread, ts, await room.form(user)


async def test_who_was_asked_why_is_judged_again_when_the_answer_comes(room: Room) -> None:
    async with room.bot():
        name, thread, ts, form = await asked_why(room)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        await room.slack.submit_view("bo", form.id, {"fix_reason": "too risky"})
        await room.whisper("bo", "already approved", thread)
        assert (await room.store.get(name)).status.phase is Phase.APPROVED
        assert await until_in_trail(room, "refused by U0BO", "rejected: ", "already approved")


async def test_an_answer_that_comes_too_late_decides_nothing(room: Room) -> None:
    async with room.bot():
        name, thread, _, form = await asked_why(room)
        room.store.now = lambda: datetime.now(UTC) + timedelta(minutes=16)
        await room.slack.submit_view("bo", form.id, {"fix_reason": "too risky"})
        await room.whisper("bo", "expired", thread)
        assert (await room.store.get(name)).status.phase is Phase.EXPIRED


async def test_a_rejection_without_an_answer_decides_nothing(room: Room) -> None:
    async with room.bot():
        name, thread, ts, _ = await asked_why(room)
        assert (await room.store.get(name)).status.phase is Phase.PENDING
        assert room.buttons(thread, ts) == ["fix_approve", "fix_reject"]


async def test_strangers_are_refused_by_word_and_click_and_that_is_written_down(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        for action, word in (("fix_approve", "approved: "), ("fix_reject", "rejected: ")):
            await room.slack.click("eve", ROOM, ts, action)
            await room.whisper("eve", "another workspace", thread)
            assert await until_in_trail(room, request.name, "refused by U0EVE", word, "another workspace")
        await room.slack.slash("eve", ROOM, f"/calico approve {request.name}")
        await room.whisper("eve", "my own workspace")
        assert await until_in_trail(room, "refused by U0EVE", f"/calico approve {request.name}")
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING


async def test_a_stranger_who_mentions_the_bot_is_told_and_that_is_written_down(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, _, _ = await room.card()
        await room.slack.mention("eve", ROOM, f"@calico approve `{request.name}`")
        await room.whisper("eve", "I answer people of my own workspace only.")
        assert await until_in_trail(room, request.name, "refused by U0EVE", "approve `fx-", "my own workspace")
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING


async def test_a_stranger_whose_team_the_payload_leaves_out_is_known_by_slack(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.approvers = Approvers(frozenset({"U0EVE", "S0NETOPS"}))
    monkeypatch.setattr(room.slack.workspace, "team_of", lambda user: "T0LOCAL")
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("eve", ROOM, ts, "fix_approve")
        await room.whisper("eve", "People of another workspace decide nothing here", thread)
        await room.ask("/calico fixes off", "eve")
        await room.whisper("eve", "People of another workspace decide nothing here")
        assert await until_in_trail(room, request.name, "refused by U0EVE", "approved: People of another workspace")
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING


async def test_a_guest_decides_nothing_and_nobody_does_while_slack_does_not_say_who_it_is(room: Room) -> None:
    room.approvers = Approvers(frozenset({"U0CLEO", "U0BO"}))
    users = room.slack.workspace.config.users
    (cleo,) = [user for user in users if user.name == "cleo"]
    users[users.index(cleo)] = msgspec.structs.replace(cleo, guest=True)
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("cleo", ROOM, ts, "fix_approve")
        await room.whisper("cleo", "Guests of this workspace decide nothing here", thread)
        room.slack.faults.fail("users.info", "500", times=3)
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.whisper("bo", "Slack did not say who may approve", thread)
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        assert (await room.store.get(request.name)).status.phase is Phase.APPROVED


@pytest.mark.parametrize(
    ("people", "told"),
    [((), "nobody says who ana@example.com is in Slack"), (("U0ANA=ana@example.com",), "You asked for")],
)
async def test_who_asked_with_kubectl_does_not_approve_in_slack(room: Room, people: tuple[str, ...], told: str) -> None:
    room.approvers = Approvers(frozenset({"S0NETOPS"}), people=frozenset(people))
    asked = Person(id="ana@example.com", via="kubectl")
    request = await room.store.create(a_spec(datetime.now(UTC), requested_by=asked))
    async with room.bot():
        await room.ask(f"/calico approve {request.name}", "ana")
        await room.whisper("ana", told)
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING
        await room.ask(f"/calico approve {request.name}", "bo")
        await room.whisper("bo", f"{request.name} is approved" if people else told)


async def test_a_card_says_what_holds_an_approved_request_back_and_why_its_time_went_by(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixes.executor.HELD_S", 0.2)
    async with room.bot(), room.cluster.store(NODE, now=lambda: room.store.now()) as fixing:
        await room.ask()
        request, thread, ts = await room.card()
        await room.ask("/calico fixes off change freeze", "bo")
        await room.whisper("bo", "Fixes are off.")
        fixer = asyncio.ensure_future(Executor(Doing(), fixing, room.approvers).run())
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, and held back", thread))
        assert room.posted("fixes are switched off by U0BO at", thread)
        assert room.posted("change freeze", thread)
        await room.ask("/calico fixes", "cleo")
        await room.whisper("cleo", f"{request.name}  {request.spec.title}: approved by U0BO")
        assert "Z: fixes are switched off by U0BO" in room.told("cleo")[-1]
        room.store.now = lambda: datetime.now(UTC) + timedelta(minutes=16)
        await room.slack.wait_for(lambda: room.posted("expired, nothing was changed", thread))
        assert room.posted("It was approved, and not done by", thread)
        assert (await room.store.get(request.name)).status.message.endswith("change freeze.")
        fixer.cancel()


@pytest.mark.parametrize("silent", [False, True])
async def test_what_waits_to_be_done_is_cancelled_once_who_approved_it_may_not_any_more(
    room: Room, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """silent: Slack does not say any more who is in the group."""
    monkeypatch.setattr("bot.approvals.CACHE_S", 0.0)
    monkeypatch.setattr("bot.cards.ASKED_AGAIN_S", 0.1)
    async with room.bot() as _, room.bot():  # of two replicas one writes it
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        asked = len([call for call in room.slack.calls if call.method == "usergroups.users.list"])
        await room.slack.wait_for(
            lambda: len([call for call in room.slack.calls if call.method == "usergroups.users.list"]) > asked
        )
        assert (await room.store.get(request.name)).status.phase is Phase.APPROVED, "while bo is in the group"
        if silent:
            room.slack.faults.fail("usergroups.users.list", "500", times=99)
        else:
            room.slack.workspace.config.groups[0].members.remove("U0BO")
        why = "Slack does not say whether who approved it still may" if silent else "may not approve it any more"
        await room.slack.wait_for(lambda: room.posted(why, thread), 20)
        assert room.posted("cancelled, nothing was changed", thread)
        now = await room.store.get(request.name)
        assert [event.phase for event in now.status.history] == [Phase.APPROVED, Phase.CANCELLED]
        room.slack.faults.clear()


async def test_a_card_says_when_the_second_look_is(room: Room) -> None:
    class Later(Doing):
        async def holds(self, spec: Spec) -> None:
            raise TooSoon("It must be so 95 s later still.", 60)

    async with room.bot(), room.cluster.store(NODE) as fixing:
        await room.ask()
        _, thread, ts = await room.card()
        fixer = asyncio.ensure_future(Executor(Later(), fixing, room.approvers).run())
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved; the second look is at <!date^", thread))
        assert room.posted("It must be so 95 s later still.", thread)
        assert room.posted("approved by <@U0BO>", thread)
        fixer.cancel()


async def test_the_end_of_a_request_puts_the_head_of_the_trail_in_its_thread_once(room: Room) -> None:
    async with room.bot() as _, room.bot():  # two replicas see it end
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("bo", ROOM, ts, "fix_approve")
        await room.slack.wait_for(lambda: room.posted("approved, about to be done", thread))
        await room.store.transition(request.name, Phase.RUNNING)
        await room.store.transition(request.name, Phase.NOT_FIXED, message="It is still wrong.")
        said = await room.slack.wait_for(lambda: room.posted("Audit trail: ", thread))
        assert said is not None
        lines = await Audit(room.store, "reader").read()
        events = [line.spec["event"] for line in lines]
        assert events == ["Pending", "Approved", "Running", "NotFixed", "published"]
        assert said["text"] == f"Audit trail: {lines[-1].name} {lines[-1].spec['hash']}   [test]"
        assert verify(lines, await room.store.all(), str(lines[-1].spec["hash"])) == []
    async with room.bot():  # and so does the one after a restart
        await room.ask("/calico audit verify", "cleo")
        await room.whisper("cleo", "The audit trail is whole: 5 records")
    posted = [one for one in room.slack.messages(ROOM, thread) if "Audit trail: " in one["text"]]
    assert len(posted) == 1


async def test_words_switch_cancel_show_and_audit(room: Room) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.ask("/calico fixes off a <!channel> freeze", "cleo")
        await room.whisper("cleo", "You may not switch fixes off and on: <!subteam^S0NETOPS> may.")
        await room.ask("/calico fixes off change freeze", "bo")
        await room.whisper("bo", "Fixes are off.")
        await room.ask("/calico fixes", "cleo")
        await room.whisper("cleo", "Now fixes are switched off by U0BO at")
        await room.ask("/calico fixes on", "bo")
        await room.whisper("bo", "Fixes are on.")
        await room.ask(f"/calico fixes show {request.name}", "cleo")
        await room.whisper("cleo", request.spec.digest)
        for words, told in (
            ("fixes burn", "The words are: fixes"),
            ("fixes of change freeze", "Did you mean `fixes off change freeze`?"),
            (f"fixes {request.name}", f"Did you mean `fixes show {request.name}`?"),
            ("fixs", "Did you mean `fixes`?"),
            ("approve", "Which one? approve fx-NAME"),
            (f"approve {request.name} fx-aaaaaaaa", "One at a time: approve fx-NAME"),
            (f"approve {request.name[:-1]}", f"Did you mean {request.name}?"),
            ("reject everything", "is not the name of a fix request"),
            ("cancel fx-aaaaaaaa", "I do not know a fix request fx-aaaaaaaa"),
            ("audit verfy", "Did you mean `audit verify`?"),
            ("audit verify sha256:abc", "is no head of the trail"),
            ("audit <!channel>", "There is no record of &#x27;&lt;!channel&gt;&#x27;"),
        ):
            await room.ask(f"/calico {words}", "cleo")
            await room.whisper("cleo", told.replace("&#x27;", "'"))
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING
        await room.ask(f"/calico cancel {request.name}", "cleo")
        await room.whisper("cleo", "You may not cancel this: who asked for it may")
        await room.ask(f"/calico cancel {request.name} wrong node", "ana")  # who asked; nobody else may but an approver
        await room.whisper("ana", f"{request.name} is cancelled")
        await room.slack.wait_for(lambda: room.buttons(thread, ts) == [])
        await until_in_trail(room, "Cancelled by U0ANA: wrong node")
        await room.ask(f"/calico audit {request.name}", "cleo")
        await room.whisper("cleo", "Cancelled by U0ANA: wrong node")
        assert "switched off by U0BO (S0NETOPS): change freeze [bot]" in "\n".join(await trail(room))


async def test_the_trail_as_a_file_and_never_more_than_a_message_holds(room: Room) -> None:
    evidence = tuple(Evidence(id=f"neighbor-{number}", fact={"seen": "x" * 900}) for number in range(60))
    async with room.bot():
        await room.ask("/calico audit export", "cleo")
        await room.whisper("cleo", "There is no record to export.")
        request = await room.store.create(a_spec(datetime.now(UTC), evidence=evidence))
        for words in (f"approve {request.name}", "fixes off"):
            await room.ask(f"/calico {words}", "cleo")
            await room.whisper("cleo", "You may not")
        await room.ask(f"/calico audit export {request.name}", "cleo")
        await room.whisper("cleo", "The records are in the file audit.jsonl")
        (file,) = [file for one in room.slack.messages(ROOM) for file in one.get("files", ())]
        lines = [json.loads(line) for line in room.slack.workspace.uploads[file["id"]].data.splitlines()]  # type: ignore[union-attr]
        assert [(line["event"], line["by"]["id"]) for line in lines] == [("refused", "U0CLEO"), ("Pending", "U0ANA")]
        assert all(line["request"] == request.name for line in lines)
        await room.ask(f"/calico fixes show {request.name.upper()}", "cleo")
        whole = await room.whisper("cleo", f"… all of it in a terminal: calico-why fixes show {request.name.upper()}")
        assert request.spec.digest in whole and len(whole) < 12_000


async def test_a_trail_that_takes_nothing_stops_no_answer_and_is_logged(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.cluster.objects.delete("customresourcedefinitions.apiextensions.k8s.io", "auditrecords.calico-why.io")
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        await room.slack.click("cleo", ROOM, ts, "fix_approve")
        await room.whisper("cleo", "You may not approve", thread)
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING
        await room.ask("/calico audit", "bo")
        await room.whisper("bo", "kubectl apply -f auditrecord.yaml")
        await room.ask("/calico fixes off", "bo")
        await room.whisper(
            "bo", "Fixes are off. Nothing that is not being executed right now will be done. It is not in"
        )
    assert "This cluster has no audit trail" in caplog.text


async def test_where_judging_takes_too_long_the_form_opens_and_the_answer_is_judged(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with room.bot():
        await room.ask()
        request, thread, ts = await room.card()
        answering = asyncio.Event()
        get = FixStore.get

        async def slow(store: FixStore, name: str) -> FixRequest:
            await answering.wait()
            return await get(store, name)

        monkeypatch.setattr(FixStore, "get", slow)
        await room.slack.click("cleo", ROOM, ts, "fix_reject")
        form = await room.form("cleo")  # Slack would refuse it after 3 s
        answering.set()
        await room.slack.submit_view("cleo", form.id, {"fix_reason": "I do not like it"})
        await room.whisper("cleo", "You may not reject this", thread)
        assert (await room.store.get(request.name)).status.phase is Phase.PENDING


async def placed_request(room: Room) -> FixRequest:
    """The only one, once its card hangs."""
    async with asyncio.timeout(10):
        async for _, request in room.store.watch():
            if request.status.slack:
                return request
    raise AssertionError


async def test_the_second_look_is_left_out_by_a_request_of_its_own_in_the_same_thread(room: Room) -> None:
    room.answers.answer = investigation(recorded("route_missing"))
    async with room.bot():
        await room.ask()
        request = await placed_request(room)
        await room.ask(f"/calico fixes now {request.name}", "bo")
        told = await room.whisper("bo", "asks for the same without the second look")
        assert f"{request.name} still waits" in told
        hurried = next(one for one in await room.store.all() if one.name != request.name)
        assert hurried.spec.arguments["now"] == "yes" and hurried.spec.requested_by.id == room.slack.user_id("bo")
        placed = (await room.store.get(request.name)).status.slack
        assert placed is not None
        await room.slack.wait_for(lambda: room.posted(hurried.name, placed.thread))
        await room.ask("/calico fixes now fx-aaaaaaaa", "bo")
        assert await room.whisper("bo", "fx-aaaaaaaa")
