"""Slack's messages: taken by Slack whatever the names, true about a fix's state, unable to ping a channel."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import UserError
from bot.reply import block_kit, blocks
from bot.reply.block_kit import Message, escape
from bot.reply.fix_card import PHASES, fix_card
from fixes.request import Phase, advance, document
from lab.slack.validation import validate_message
from tests import answers, fix_samples

NOW = datetime(2026, 11, 22, 22, 5, tzinfo=UTC)
LATER = "2026-11-22T22:19:00Z"


def accepted(*messages: Message) -> None:
    for message in messages:
        assert validate_message({"text": message.text, "blocks": message.blocks}) == []
        json.dumps(message.blocks)


def said(message: Message) -> str:
    return json.dumps(message.blocks, ensure_ascii=False)


def request(phase: str = "Pending", *, expires: str = LATER, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "fx-abcd2345"},
        "spec": {
            "kind": "replace_neighbor",
            "node": "node-a",
            "title": "Replace the neighbor 10.244.218.64 on node-a",
            "blastRadius": "node-a, one entry",
            "undo": "Not needed",
            "requestedBy": {"id": "U0ANA", "name": "ana", "via": "slack"},
            "requestedAt": "2026-11-22T22:04:00Z",
            "expiresAt": expires,
        },
        "status": {"phase": phase, **status},
    }


def event(phase: str, message: str = "", who: str = "") -> dict[str, Any]:
    by = {"by": {"id": who, "via": "slack"}} if who else {}
    return {"phase": phase, "at": "2026-11-22T22:05:10Z", "message": message, **by}


def buttons(message: Message) -> list[dict[str, Any]]:
    return [one for block in message.blocks if block["type"] == "actions" for one in block["elements"]]


def test_the_answer_and_its_thread_in_order() -> None:
    answer = answers.wrong_mac()
    parent, thread = blocks.answer(answer), blocks.thread(answer, [fix_card(request(), NOW)])
    accepted(parent, *thread)
    assert "<@U0ANA> asked: why `shop/cart shop/db 5432/tcp`   [prod-eu-1]" in said(parent)
    assert ":x: *node-a: Wrong MAC for the peer's tunnel address*" in said(parent)
    path, evidence, card, seen = thread
    assert "vxlan.calico x first bad hop" in said(path) and "Do now" in said(path)
    assert "node-a# ip neigh get 10.244.218.64 dev vxlan.calico" in said(path), "what a reader can see for himself"
    assert "node-a# ip neigh replace 10.244.218.64 lladdr 66:89:3a:22:7a:ac" in said(path), "and do"
    assert path.text.startswith("The path: forward: last good source node, first bad source tunnel")
    table = next(block for block in evidence.blocks if block["type"] == "table")
    first = [cell["text"] for cell in table["rows"][1]]
    assert first == [
        "node-a",
        "neighbor 10.244.218.64 on vxlan.calico",
        "66:89:3a:22:7a:ac",
        f"✗ {answers.WRONG_MAC}",
    ]
    assert card.request == "fx-abcd2345"
    assert "Could not see:* nothing" in said(seen) and "things checked and well" in said(seen)


@pytest.mark.parametrize("make", [answers.well, answers.unseen, answers.no_engine])
def test_every_verdict_is_a_message(make: Any) -> None:
    accepted(blocks.answer(make()), *blocks.thread(make()))


def test_what_could_not_be_seen_is_always_in_the_thread() -> None:
    assert answers.SILENT_PROBE.reason in said(blocks.thread(answers.unseen())[-1])
    assert ":grey_question: *I cannot say why" in said(blocks.answer(answers.unseen()))


def test_what_is_to_be_done_about_a_warning_is_in_the_thread() -> None:
    warning = msgspec.structs.replace(answers.wrong_mac().diagnosis.causes[0], severity="warns")
    answer = answers.well()
    diagnosis = msgspec.structs.replace(answer.diagnosis, warnings=(warning,))
    path = said(blocks.thread(msgspec.structs.replace(answer, diagnosis=diagnosis))[0])
    assert f"*Do later:* {warning.remedy}" in path and "Do now" not in path


def test_progress_is_the_same_message_while_looking() -> None:
    message = blocks.progress("shop/cart shop/db", "asking node-a and node-b", asked_by="U0ANA", cluster="prod-eu-1")
    accepted(message)
    assert "asking node-a and node-b" in said(message)


def test_a_pending_card_can_be_approved_and_says_by_whom_and_until_when() -> None:
    card = fix_card(request(), NOW, approvers=["S0NETOPS", "U0BO"])
    accepted(card)
    approve, reject = buttons(card)
    assert (approve["action_id"], approve["value"], approve["style"]) == ("fix_approve", "fx-abcd2345", "primary")
    assert (reject["action_id"], reject["value"]) == ("fix_reject", "fx-abcd2345")
    assert "confirm" in approve
    assert "May approve: <!subteam^S0NETOPS>, <@U0BO> (not <@U0ANA>)" in said(card)
    assert f"<!date^{int(datetime.fromisoformat(LATER).timestamp())}^" in said(card)
    assert "not <@U0ANA>" not in said(fix_card(request(), NOW, approvers=["U0BO"], four_eyes=False))
    assert "nobody: no approvers are configured" in said(fix_card(request(), NOW))


def test_a_card_says_what_it_rests_on_and_leads_there() -> None:
    card = request()
    card["spec"] |= {
        "investigation": "inv-1",
        "question": "shop/cart <!channel>",
        "evidence": [{"id": "a"}, {"id": "b"}],
    }
    above, linked = (fix_card(card, NOW, answer=link) for link in ("", "https://local.slack.com/archives/C1/p11"))
    accepted(above, linked)
    why = "*Why:* `why shop/cart &lt;!channel&gt;` found it, by 2 things seen: "
    assert f"{why}above in this thread" in said(above)
    assert f"{why}<https://local.slack.com/archives/C1/p11|the answer and its evidence>" in said(linked)
    assert "*Why:*" not in said(fix_card(request(), NOW)), "made with kubectl: no question found it"


def test_a_card_shows_exactly_what_would_be_written() -> None:
    command = "ip neigh replace 10.244.218.64 lladdr 66:89:3a:22:7a:ac dev vxlan.calico nud permanent"
    card = fix_card(request(preview=[command]), NOW)
    accepted(card)
    assert "*Writes:*" in said(card) and command in said(card)
    assert "more lines" not in said(card)
    assert "*Writes:*" not in said(fix_card(request(), NOW)), "nobody has looked yet"
    long = fix_card(request(preview=[f"+ line {number}" for number in range(100)]), NOW)
    accepted(long)
    assert "+ line 11" in said(long) and "+ line 12" not in said(long)
    assert "88 more lines: `fixes show fx-abcd2345`" in said(long)


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (request("Rejected", history=[event("Rejected", "not now", "U0BO")]), ["rejected by <@U0BO>", "not now"]),
        (request("Expired"), ["expired, nothing was changed"]),
        (request("Stale", history=[event("Stale", "the MAC is right now")]), ["stale", "the MAC is right now"]),
        (request("Cancelled"), ["cancelled"]),
        (request("Approved", history=[event("Approved", "", "U0BO")]), ["approved by <@U0BO> <!date^"]),
        (
            request("Approved", waits={"text": "It must be seen twice.", "until": "2026-11-22T22:06:35Z"}),
            ["approved; the second look is at <!date^1795385195^{time_secs}|22:06:35 UTC>", "It must be seen twice."],
        ),
        (
            request("Approved", waits={"text": "fixes are switched off by <!here>"}),
            ["approved, and held back", "fixes are switched off by &lt;!here&gt;"],
        ),
        (request("Running", history=[event("Approved", "", "U0BO"), event("Running")]), ["begun on node-a"]),
        (
            request(
                "Verified",
                history=[event("Approved", "", "U0BO"), event("Running"), event("Verified", "it is 66:89 now")],
                secondLook={"verdict": "healthy", "text": "4 of 4 answered", "at": "2026-11-22T22:05:14Z"},
            ),
            ["approved by <@U0BO>", "begun on node-a", "verified", "it is 66:89 now", "second look", "4 of 4 answered"],
        ),
        (request("NotFixed", history=[event("NotFixed", "still wrong")]), ["done, but not fixed", "still wrong"]),
        (request("Failed", history=[event("Failed", "EPERM")]), ["failed", "EPERM"]),
        (request("Unknown"), ["whether it was done is not known"]),
        (request("SomethingNew"), ["SomethingNew"]),
        (request(expires="2026-11-22T22:04:59Z"), ["expired, nothing was changed"]),
        (request(expires="whenever"), ["expired, nothing was changed"]),
    ],
)
def test_a_decided_card_shows_its_true_state_and_no_buttons(card: dict[str, Any], told: list[str]) -> None:
    message = fix_card(card, NOW, approvers=["U0BO"])
    accepted(message)
    assert buttons(message) == []
    for words in told:
        assert words in said(message)
    assert "waits for approval" not in said(message)


def test_the_card_of_a_real_request_tells_its_whole_life() -> None:
    fix, now = fix_samples.a_request(), fix_samples.NOW
    waiting = fix_card(document(fix, "calico-why"), now, approvers=["U0BO"])
    accepted(waiting)
    assert buttons(waiting)[0]["value"] == fix.name and "one entry" in said(waiting) and "<@U0ANA>" in said(waiting)
    for phase, by in ((Phase.APPROVED, fix_samples.BO), (Phase.RUNNING, None), (Phase.VERIFIED, None)):
        now += timedelta(seconds=1)
        fix = msgspec.structs.replace(fix, status=advance(fix, phase, now=now, by=by, message="it is so"))
        card = fix_card(document(fix, "calico-why"), now)
        accepted(card)
        assert buttons(card) == [] and PHASES[phase] in said(card)
    for words in ("approved by <@U0BO>", "begun on node-a", "verified", "it is so"):
        assert words in said(card)


def test_a_card_loses_its_buttons_at_its_deadline() -> None:
    deadline = datetime.fromisoformat(LATER)
    assert buttons(fix_card(request(), deadline - timedelta(seconds=1)))
    assert not buttons(fix_card(request(), deadline))


def test_a_question_that_fits_nothing_offers_what_would() -> None:
    error = UserError("shop/cart does not exist", word="shop/cart", choices=["shop/cart-0", "shop/cart-1"])
    message = blocks.trouble(error, ["shop/cart", "shop/db", "5432/tcp"])
    accepted(message)
    assert [(one["action_id"], one["value"]) for one in buttons(message)] == [
        ("why_choose:0", "shop/cart-0 shop/db 5432/tcp"),
        ("why_choose:1", "shop/cart-1 shop/db 5432/tcp"),
    ]
    plain = blocks.trouble(UserError("no"), [])
    accepted(plain)
    assert buttons(plain) == []


HOSTILE = [
    "<!channel>",
    "<@U0BO>",
    "<https://evil.example|fine>",
    "`",
    "*_~`",
    "&&&&<<<<>>>>" * 900,
    "é" * 20_000,
    "",
    "\x00",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("count", [0, 1, 120])
def test_no_name_breaks_a_message_or_mentions_anybody(name: str, count: int) -> None:
    answer = answers.hostile(name, count)
    card = request(history=[event("Approved", name, name), event(name, name)] * 20)
    for part in ("title", "blastRadius", "undo", "requestedAt", "node"):
        card["spec"][part] = name
    card["status"]["preview"] = [name] * count
    card["status"]["secondLook"] = {"verdict": name, "text": name, "at": name}
    error = UserError(name or "-", word=name, choices=[name] * count)
    messages = [
        blocks.answer(answer),
        *blocks.thread(answer),
        fix_card(card, NOW, approvers=[name] * count),
        blocks.progress(name, name, asked_by=name, cluster=name),
        blocks.trouble(error, [name, name]),
    ]
    accepted(*messages)
    for message in messages:
        for text in texts(message.blocks):
            assert "<!channel>" not in text and "<https:" not in text


def texts(value: Any) -> list[str]:
    """Texts in which Slack looks for markup."""
    if isinstance(value, dict):
        own = [value["text"]] if value.get("type") == "mrkdwn" else []
        return own + [text for item in value.values() for text in texts(item)]
    return [text for item in value for text in texts(item)] if isinstance(value, list) else []


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=2000), st.integers(0, 60))
def test_any_name_is_taken(name: str, count: int) -> None:
    answer = answers.hostile(name, count)
    accepted(blocks.answer(answer), *blocks.thread(answer))


@given(st.text(alphabet="<>&`ab;|", max_size=200), st.integers(10, 60))
def test_cutting_leaves_no_markup_open(text: str, most: int) -> None:
    cut = block_kit._cut_markup(escape(text), most)
    assert len(cut) <= most
    tail = cut.rpartition("&")
    assert not tail[1] or ";" in tail[2] or "&" not in cut
    assert cut.count("<") == cut.count(">") == 0


def test_a_message_is_plain_data() -> None:
    message = blocks.answer(answers.wrong_mac())
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
