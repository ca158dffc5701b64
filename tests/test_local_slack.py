"""Holds the local Slack to Slack's own rules; without it the bot would be proved on a kinder Slack."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient
from yarl import URL

from lab.slack import LocalSlack
from lab.slack.config import SEED, load_config, load_manifest
from lab.slack.workspace import Clock
from tests.slack_app import TRANSPORTS, SlackApp, button, connected, form

Json = dict[str, Any]
INCIDENT = "incident"


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with LocalSlack() as running:
        yield running


@pytest.fixture(params=TRANSPORTS)
async def app(request: pytest.FixtureRequest, slack: LocalSlack) -> AsyncIterator[SlackApp]:
    async with connected(slack, request.param) as running:
        yield running


@pytest.fixture
async def client(slack: LocalSlack) -> AsyncWebClient:
    return AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])


async def refused(call: Any) -> Json:
    """What Slack said when it did not do it."""
    with pytest.raises(SlackApiError) as caught:
        await call
    answer: Json = caught.value.response.data
    return answer


def texts(slack: LocalSlack, *, thread_ts: str = "", viewer: str = "") -> list[str]:
    return [message["text"] for message in slack.messages(INCIDENT, thread_ts=thread_ts, viewer=viewer)]


# -- commands


async def test_a_command_reaches_the_app(app: SlackApp) -> None:
    slack = app.slack
    delivery = await slack.slash("ana", INCIDENT, "/calico why shop/cart shop/db")
    assert (delivery.kind, delivery.result) == ("slash_commands", "ok")
    assert delivery.ack_ms is not None and delivery.ack_ms < 1000
    [body] = app.commands
    assert (body["command"], body["text"]) == ("/calico", "why shop/cart shop/db")
    assert (body["user_id"], body["channel_id"], body["team_id"]) == ("U0ANA", "C0INCIDENT", "T0LOCAL")
    assert "thread_ts" not in body
    assert slack.deliveries == [delivery]


async def test_an_acknowledgement_may_answer(app: SlackApp) -> None:
    async def whisper(ack: Any, body: Json) -> None:
        await ack(text="only you")

    async def shout(ack: Any, body: Json) -> None:
        await ack(text="everybody", response_type="in_channel")

    async def nonsense(ack: Any, body: Json) -> None:
        await ack(text="x", blocks=[{"type": "sectoin"}])

    for handler in (whisper, shout, nonsense):
        app.on_command = handler
        await app.slack.slash("ana", INCIDENT, "/calico x")
    assert texts(app.slack) == ["everybody"]
    assert texts(app.slack, viewer="bo") == ["everybody"]
    assert texts(app.slack, viewer="ana") == [
        "only you",
        "everybody",
        "/calico failed with the error “invalid_blocks”",
    ]


async def test_a_command_not_acknowledged_is_told_to_its_user(app: SlackApp) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hang(ack: Any, body: Json) -> None:
        entered.set()
        await leave.wait()

    app.on_command = hang
    asked = asyncio.ensure_future(app.slack.slash("ana", INCIDENT, "/calico x"))
    await entered.wait()
    app.slack.clock.advance(3)
    assert (await asked).result == "operation_timeout"
    leave.set()
    assert texts(app.slack, viewer="ana") == ["/calico failed with the error “operation_timeout”"]
    assert texts(app.slack, viewer="bo") == []


async def test_nobody_there_is_dispatch_failed(slack: LocalSlack) -> None:
    for url in ("", "http://127.0.0.1:9/slack/events", slack.base_url + "auth.nothing.here/there"):
        slack.request_url = url
        assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "dispatch_failed"
    assert texts(slack, viewer="ana") == ["/calico failed with the error “dispatch_failed”"] * 3


async def test_an_error_status_is_dispatch_failed(slack: LocalSlack) -> None:
    async with connected(slack, "http") as app:

        async def broken(ack: Any, body: Json) -> None:
            raise RuntimeError("broken on purpose")

        app.on_command = broken
        assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "dispatch_failed"


async def test_commands_are_not_for_threads(app: SlackApp) -> None:
    ts = await app.post()
    delivery = await app.slack.say("ana", INCIDENT, "/calico why a b", thread_ts=ts)
    assert delivery is not None and delivery.result == "refused"
    assert texts(app.slack, thread_ts=ts, viewer="ana") == ["/calico is not supported in threads. Sorry!"]
    assert texts(app.slack, thread_ts=ts, viewer="bo") == []
    assert (await app.slack.slash("ana", INCIDENT, "/other x")).result == "refused"
    assert texts(app.slack, viewer="ana")[-1] == "/other is not a valid command."
    assert app.commands == []


async def test_who_is_not_there_cannot_speak(slack: LocalSlack) -> None:
    for person, channel in (("eve", "general"), ("bo", "leads"), ("nobody", INCIDENT), ("ana", "nowhere")):
        with pytest.raises(LookupError):
            await slack.slash(person, channel, "/calico x")
    with pytest.raises(ValueError, match="slash"):
        await slack.slash("ana", INCIDENT, "calico x")
    assert slack.deliveries == []


async def test_a_wrong_signature_is_the_apps_to_refuse(slack: LocalSlack) -> None:
    async with connected(slack, "http") as app:
        slack.workspace.config.signing_secret = "another"
        assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "dispatch_failed"
        assert app.commands == []


async def test_the_clock_does_not_age_a_signature(slack: LocalSlack) -> None:
    async with connected(slack, "http"):
        slack.clock.advance(3600)
        assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "ok"


# -- mentions


async def test_a_mention_is_an_event(app: SlackApp) -> None:
    slack = app.slack
    delivery = await slack.say("ana", INCIDENT, "hey @calico why a b")
    assert delivery is not None and delivery.result == "ok"
    await slack.wait_for(lambda: app.mentions)
    body, retry = app.mentions[0]
    event = body["event"]
    assert retry == 0
    assert event["text"] == "hey <@U0CALICO> why a b"
    assert (event["user"], event["channel"], event["team"]) == ("U0ANA", "C0INCIDENT", "T0LOCAL")
    [message] = slack.messages(INCIDENT)
    assert message["ts"] == event["ts"] and "thread_ts" not in event
    await slack.mention("eve", INCIDENT, "help", thread_ts=event["ts"])
    await app.slack.wait_for(lambda: len(app.mentions) == 2)
    event = app.mentions[1][0]["event"]
    assert event["thread_ts"] == message["ts"]
    assert event["user_team"] == "T0OTHER" and app.mentions[1][0]["team_id"] == "T0LOCAL"
    assert texts(slack, thread_ts=message["ts"]) == ["<@U0CALICO> help"]
    assert await slack.say("bo", INCIDENT, "nothing to see") is None


async def test_a_mention_where_the_bot_is_not(app: SlackApp) -> None:
    delivery = await app.slack.say("ana", "general", "@calico help")
    assert delivery is not None and delivery.result == "refused"
    told = [message["text"] for message in app.slack.messages("general", viewer="ana")]
    assert told[1:] == ["You mentioned @calico, but they are not in this channel."]


async def test_an_event_not_acknowledged_comes_again(app: SlackApp) -> None:
    slack = app.slack
    slack.faults.drop_acks = 3

    async def heard(times: int) -> None:
        await slack.wait_for(lambda: len(app.mentions) == times and slack.faults.drop_acks == 3 - times)

    asked = asyncio.ensure_future(slack.mention("ana", INCIDENT, "help"))
    for times, seconds in ((1, 3), (2, 60), (3, 300)):
        await heard(times)
        slack.clock.advance(seconds)
    assert (await asked).result == "operation_timeout"
    await slack.wait_for(lambda: [one.result for one in slack.deliveries] == ["operation_timeout"] * 3 + ["ok"])
    assert [retry for _, retry in app.mentions] == [0, 1, 2, 3]
    assert len({body["event_id"] for body, _ in app.mentions}) == 1


async def test_an_event_may_arrive_twice(app: SlackApp) -> None:
    app.slack.faults.deliver_twice = 1
    await app.slack.mention("ana", INCIDENT, "help")
    await app.slack.wait_for(lambda: len(app.mentions) == 2)
    assert [retry for _, retry in app.mentions] == [0, 1]
    await app.slack.mention("ana", INCIDENT, "help")
    await app.slack.wait_for(lambda: len(app.mentions) == 3)


# -- clicks


async def test_a_click(app: SlackApp) -> None:
    slack = app.slack
    parent = await app.post("parent")
    ts = await app.post("card", thread_ts=parent, blocks=[button("fx-1", style="danger")])
    await slack.click("bo", INCIDENT, ts, "go")
    [body] = app.clicks
    assert body["actions"][0]["value"] == "fx-1"
    assert body["actions"][0]["block_id"] == body["message"]["blocks"][0]["block_id"]
    assert body["user"]["id"] == "U0BO" and body["user"]["team_id"] == body["team"]["id"] == "T0LOCAL"
    assert body["container"] == {
        "type": "message",
        "message_ts": ts,
        "channel_id": "C0INCIDENT",
        "is_ephemeral": False,
        "thread_ts": parent,
    }
    await slack.click("eve", INCIDENT, ts, "go", "fx-1")
    assert app.clicks[1]["user"]["team_id"] == "T0OTHER"


async def test_only_what_is_seen_can_be_clicked(app: SlackApp) -> None:
    slack = app.slack
    ts = await app.post(blocks=[button("v1"), button("v2")])
    await slack.click("ana", INCIDENT, ts, "go", "v2")
    assert app.clicks[0]["actions"][0]["value"] == "v2"
    secret = await app.client.chat_postEphemeral(channel="C0INCIDENT", user="U0ANA", text="psst", blocks=[button("v3")])
    for person, where, action, value in (
        ("ana", ts, "stop", None),
        ("ana", ts, "go", "v3"),
        ("ana", "1.000001", "go", None),
        ("bo", secret["message_ts"], "go", None),
    ):
        with pytest.raises(LookupError):
            await slack.click(person, INCIDENT, where, action, value)
    await slack.click("ana", INCIDENT, secret["message_ts"], "go")
    assert app.clicks[1]["container"]["is_ephemeral"] is True
    assert len(app.clicks) == 2


async def test_a_menu_tells_the_option_picked(app: SlackApp) -> None:
    def option(value: str) -> Json:
        return {"text": {"type": "plain_text", "text": value}, "value": value}

    menu = {"type": "overflow", "action_id": "go", "options": [option("one"), option("two")]}
    ts = await app.post(blocks=[{"type": "actions", "elements": [menu]}])
    await app.slack.click("ana", INCIDENT, ts, "go", "two")
    assert app.clicks[0]["actions"][0]["selected_option"]["value"] == "two"


async def test_a_click_that_does_not_arrive_is_told(app: SlackApp) -> None:
    slack = app.slack
    ts = await app.post(blocks=[button()])
    slack.faults.drop_acks = 1
    clicked = asyncio.ensure_future(slack.click("ana", INCIDENT, ts, "go"))
    await slack.wait_for(lambda: slack.faults.drop_acks == 0)
    slack.clock.advance(3)
    assert (await clicked).result == "operation_timeout"
    assert texts(slack, viewer="ana")[1:] == ["That button did not reach the app (operation_timeout). Try again."]
    assert texts(slack, viewer="bo") == ["hello"]


async def test_without_interactivity_in_the_manifest_no_click_and_no_modal_arrives(app: SlackApp) -> None:
    slack, space = app.slack, app.slack.workspace
    ts = await app.post(blocks=[button()])
    view = await open_form(app)
    space.manifest = msgspec.structs.replace(space.manifest, interactive=False)
    assert (await slack.click("ana", INCIDENT, ts, "go")).result == "refused"
    assert texts(slack, viewer="ana")[-1] == "This app is not configured to handle interactive responses."
    assert "not configured" not in texts(slack, viewer="bo")[-1]
    assert (await slack.submit_view("ana", view["id"], {"why": "x"})).result == "refused"
    assert "not configured" in space.views[view["id"]].errors[""]
    assert (len(app.clicks), app.submissions) == (1, []), "but for the one that opened the modal"


# -- response_url


async def test_a_response_url_has_five_uses(app: SlackApp) -> None:
    slack = app.slack
    await slack.slash("ana", INCIDENT, "/calico x")
    hook = AsyncWebhookClient(app.commands[0]["response_url"])
    assert (await hook.send(text="one")).status_code == 200
    assert (await hook.send(text="two", response_type="in_channel")).status_code == 200
    assert (await hook.send(text="x", blocks=[{"type": "sectoin"}])).status_code == 400
    for _ in range(2):
        assert (await hook.send(text="more")).status_code == 200
    last = await hook.send(text="six")
    assert (last.status_code, json.loads(last.body)["error"]) == (404, "used_url")
    assert texts(slack) == ["two"]
    assert texts(slack, viewer="ana") == ["one", "two", "more", "more"]


async def test_a_response_url_lives_half_an_hour(app: SlackApp) -> None:
    await app.slack.slash("ana", INCIDENT, "/calico x")
    hook = AsyncWebhookClient(app.commands[0]["response_url"])
    app.slack.clock.advance(29 * 60)
    assert (await hook.send(text="in time")).status_code == 200
    app.slack.clock.advance(2 * 60)
    late = await hook.send(text="late")
    assert (late.status_code, json.loads(late.body)["error"]) == (404, "expired_url")
    assert (await AsyncWebhookClient(app.slack.page_url + "hooks/none").send(text="x")).status_code == 404


async def test_a_response_may_replace_its_original(app: SlackApp) -> None:
    slack = app.slack
    parent = await app.post("parent")
    ts = await app.post("card", thread_ts=parent, blocks=[button()])
    await slack.click("ana", INCIDENT, ts, "go")
    hook = AsyncWebhookClient(app.clicks[0]["response_url"])
    await hook.send(text="psst")
    assert texts(slack, thread_ts=parent, viewer="ana") == ["card", "psst"]
    assert texts(slack, thread_ts=parent, viewer="bo") == ["card"]
    await hook.send(text="decided", replace_original=True, blocks=[])
    [card] = slack.messages(INCIDENT, thread_ts=parent)
    assert (card["text"], card["ts"], card["edited"]["user"]) == ("decided", ts, "U0CALICO") and "blocks" not in card
    await hook.send(delete_original=True)
    assert texts(slack, thread_ts=parent) == []


# -- modals


async def open_form(app: SlackApp, **more: Any) -> Json:
    """The modal ana has open after she pressed the button."""

    async def show(ack: Any, body: Json) -> None:
        await ack()
        await app.client.views_open(trigger_id=body["trigger_id"], view=form(**more))

    app.on_click = show
    ts = await app.post(blocks=[button()])
    await app.slack.click("ana", INCIDENT, ts, "go")
    [view] = await app.slack.wait_for(lambda: app.slack.workspace.open_views("U0ANA"))
    return app.slack.workspace.view_shape(view)


async def test_a_modal_is_opened_and_sent(app: SlackApp) -> None:
    slack = app.slack
    view = await open_form(app, private_metadata="fx-1")
    empty = await slack.submit_view("ana", view["id"], {})
    assert empty.result == "refused" and app.submissions == []
    await slack.submit_view("ana", view["id"], {"why": {"words": {"type": "plain_text_input", "value": "because"}}})
    [body] = app.submissions
    assert body["view"]["private_metadata"] == "fx-1"
    assert body["view"]["state"]["values"] == {"why": {"words": {"type": "plain_text_input", "value": "because"}}}
    assert slack.workspace.open_views("U0ANA") == []
    with pytest.raises(LookupError):
        await slack.submit_view("ana", view["id"], {"why": "again"})


async def test_a_modal_is_its_users_own(app: SlackApp) -> None:
    view = await open_form(app)
    with pytest.raises(LookupError):
        await app.slack.submit_view("bo", view["id"], {"why": "mine"})


async def test_what_an_app_answers_to_a_modal(app: SlackApp) -> None:
    slack, space = app.slack, app.slack.workspace
    first = await open_form(app)
    answers = iter(
        (
            {"response_action": "errors", "errors": {"why": "more words"}},
            {"response_action": "update", "view": form(private_metadata="updated")},
            {"response_action": "push", "view": form(private_metadata="pushed")},
            {"response_action": "update", "view": {"type": "modal"}},
            {"response_action": "clear"},
        )
    )

    async def answer(ack: Any, body: Json) -> None:
        await ack(**next(answers))

    app.on_view = answer
    await slack.submit_view("ana", first["id"], {"why": "x"})
    assert space.views[first["id"]].errors == {"why": "more words"}
    await slack.submit_view("ana", first["id"], {"why": "x"})
    assert space.views[first["id"]].content["private_metadata"] == "updated"
    assert space.views[first["id"]].errors == {}
    await slack.submit_view("ana", first["id"], {"why": "x"})
    below, top = space.open_views("U0ANA")
    assert (below.id, top.content["private_metadata"]) == (first["id"], "pushed")
    shape = space.view_shape(top)
    assert (shape["previous_view_id"], shape["root_view_id"]) == (first["id"], first["id"])
    await slack.submit_view("ana", top.id, {"why": "x"})
    assert "Slack would not take this modal" in top.errors[""]
    await slack.submit_view("ana", top.id, {"why": "x"})
    assert space.open_views("U0ANA") == []


async def test_a_modal_may_ask_to_be_told_of_its_end(app: SlackApp) -> None:
    view = await open_form(app, notify_on_close=True)
    async with aiohttp.ClientSession() as session:
        body = {"user": "U0ANA", "view_id": view["id"]}
        async with session.post(f"{app.slack.page_url}page/close", json=body) as response:
            assert await response.json() == {"ok": True}
    assert [closed["view"]["id"] for closed in app.closed] == [view["id"]]


async def test_a_trigger_is_for_one_use_and_three_seconds(slack: LocalSlack, client: AsyncWebClient) -> None:
    trigger = slack.workspace.new_trigger("U0ANA")
    view = (await client.views_open(trigger_id=trigger, view=form()))["view"]
    assert (await refused(client.views_open(trigger_id=trigger, view=form())))["error"] == "exchanged_trigger_id"
    assert (await refused(client.views_open(trigger_id="none", view=form())))["error"] == "invalid_trigger_id"
    late = slack.workspace.new_trigger("U0ANA")
    slack.clock.advance(4)
    assert (await refused(client.views_open(trigger_id=late, view=form())))["error"] == "expired_trigger_id"
    told = await refused(client.views_open(trigger_id=late, view=form(title={"type": "plain_text", "text": "x" * 25})))
    assert told["error"] == "invalid_arguments" and "/view/title/text" in told["response_metadata"]["messages"][0]
    pushed = await client.views_push(trigger_id=slack.workspace.new_trigger("U0ANA"), view=form())
    assert pushed["view"]["previous_view_id"] == view["id"]
    stale = await refused(client.views_update(view_id=view["id"], hash="1.0", view=form()))
    assert stale["error"] == "hash_conflict"
    fresh = await client.views_update(view_id=view["id"], hash=view["hash"], view=form(private_metadata="new"))
    assert fresh["view"]["private_metadata"] == "new"
    assert (await refused(client.views_update(view_id="V0", view=form())))["error"] == "not_found"


# -- the Web API


async def test_who_asks(slack: LocalSlack, client: AsyncWebClient) -> None:
    told = await client.auth_test()
    assert (told["team_id"], told["user_id"], told["bot_id"]) == ("T0LOCAL", "U0CALICO", "B0CALICO")
    assert (await client.api_test(foo="bar"))["args"]["foo"] == "bar"
    for token, method, error in (
        ("xoxb-other", "auth.test", "invalid_auth"),
        ("", "chat.postMessage", "not_authed"),
        (slack.app_token, "chat.postMessage", "not_allowed_token_type"),
        (slack.bot_token, "apps.connections.open", "not_allowed_token_type"),
    ):
        other = AsyncWebClient(token=token or None, base_url=slack.base_url, retry_handlers=[])
        assert (await refused(other.api_call(method)))["error"] == error
    assert not any("token" in call.arguments for call in slack.calls)


async def test_scopes_are_the_manifests(client: AsyncWebClient) -> None:
    told = await refused(client.team_info())
    assert (told["error"], told["needed"]) == ("missing_scope", "team:read")
    granted = "app_mentions:read,channels:read,chat:write,commands,files:write,groups:read,usergroups:read,users:read"
    assert told["provided"] == granted
    for call in (client.conversations_history(channel="C0INCIDENT"), client.files_info(file="F0")):
        assert (await refused(call))["error"] == "missing_scope"


async def test_a_channel_is_shown_by_the_scope_of_its_kind(slack: LocalSlack, client: AsyncWebClient) -> None:
    manifest, leads = slack.workspace.manifest, slack.workspace.channels["leads"]

    async def asked(channel: str, *scopes: str) -> Any:
        others = manifest.scopes - {"channels:read", "groups:read"}
        slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=others | set(scopes))
        try:
            return (await client.conversations_info(channel=channel))["channel"]["is_member"]
        except SlackApiError as error:
            return error.response["error"], error.response.get("needed", "")

    assert await asked("C0INCIDENT", "channels:read") is True
    assert await asked("C0GENERAL", "channels:read") is False
    assert await asked("C0INCIDENT", "groups:read") == ("missing_scope", "channels:read")
    assert (await asked("C0INCIDENT"))[0] == "missing_scope"
    assert await asked("C0LEADS", "channels:read", "groups:read") == ("channel_not_found", "")
    leads.has_bot = True
    assert await asked("C0LEADS", "channels:read") == ("missing_scope", "groups:read")
    assert await asked("C0LEADS", "groups:read") is True


async def test_what_other_scopes_would_show(slack: LocalSlack, client: AsyncWebClient) -> None:
    wider = {"team:read", "channels:read", "channels:history", "files:read"}
    manifest = slack.workspace.manifest
    slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=manifest.scopes | wider)
    eve = (await client.users_info(user="U0EVE"))["user"]
    assert (eve["team_id"], eve["is_stranger"]) == ("T0OTHER", False), "a channel is shared, so only the team tells"
    assert (await refused(client.users_info(user="U0NOBODY")))["error"] == "user_not_found"
    assert (await client.team_info())["team"]["domain"] == "local"
    assert (await client.bots_info(bot="B0CALICO"))["bot"]["app_id"] == "A0CALICO"
    info = (await client.conversations_info(channel="C0INCIDENT"))["channel"]
    assert (info["is_member"], info["is_ext_shared"]) == (True, True)
    assert "U0CALICO" in (await client.conversations_members(channel="C0INCIDENT"))["members"]
    posted = [(await client.chat_postMessage(channel="C0INCIDENT", text=text))["ts"] for text in ("one", "two")]
    await client.chat_postMessage(channel="C0INCIDENT", text="reply", thread_ts=posted[0])
    history = await client.conversations_history(channel="C0INCIDENT", limit=1)
    assert ([message["text"] for message in history["messages"]], history["has_more"]) == (["two"], True)
    replies = (await client.conversations_replies(channel="C0INCIDENT", ts=posted[0]))["messages"]
    assert [message["text"] for message in replies] == ["one", "reply"] and replies[0]["reply_count"] == 1
    assert (await refused(client.conversations_replies(channel="C0INCIDENT", ts="1.1")))["error"] == "thread_not_found"
    assert (await refused(client.conversations_history(channel="C0GENERAL")))["error"] == "not_in_channel"


async def test_posting(slack: LocalSlack, client: AsyncWebClient) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*hi*"}}]
    answer = await client.chat_postMessage(channel="C0INCIDENT", text="hi", blocks=blocks)
    [message] = slack.messages(INCIDENT)
    assert answer["message"] == message
    assert (message["bot_id"], message["user"], message["ts"]) == ("B0CALICO", "U0CALICO", answer["ts"])
    assert message["blocks"][0]["block_id"] and message["blocks"][0]["text"] == blocks[0]["text"]
    reply = (await client.chat_postMessage(channel="C0INCIDENT", text="reply", thread_ts=answer["ts"]))["ts"]
    await client.chat_postMessage(channel="C0INCIDENT", text="to a reply", thread_ts=reply)
    assert [one["text"] for one in slack.messages(INCIDENT, thread_ts=answer["ts"])] == ["reply", "to a reply"]
    assert slack.messages(INCIDENT)[0]["reply_count"] == 2
    link = (await client.chat_getPermalink(channel="C0INCIDENT", message_ts=reply))["permalink"]
    assert link.endswith(f"p{reply.replace('.', '')}?thread_ts={answer['ts']}&cid=C0INCIDENT")


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        ("channel_not_found", {"channel": "C0NOWHERE", "text": "x"}),
        ("channel_not_found", {"channel": "C0LEADS", "text": "x"}),
        ("not_in_channel", {"channel": "C0GENERAL", "text": "x"}),
        ("no_text", {"channel": "C0INCIDENT"}),
        ("invalid_arguments", {"text": "x"}),
        ("msg_too_long", {"channel": "C0INCIDENT", "text": "x" * 40_001}),
        ("thread_not_found", {"channel": "C0INCIDENT", "text": "x", "thread_ts": "1.000001"}),
        ("invalid_blocks", {"channel": "C0INCIDENT", "text": "x", "blocks": [{"type": "sectoin"}]}),
        ("invalid_blocks_format", {"channel": "C0INCIDENT", "text": "x", "blocks": "[{"}),
    ],
)
async def test_posts_slack_refuses(slack: LocalSlack, client: AsyncWebClient, error: str, arguments: Json) -> None:
    told = await refused(client.api_call("chat.postMessage", json=arguments))
    assert told["error"] == error
    if error == "invalid_blocks":
        pointer = "[ERROR] unsupported type: sectoin [json-pointer:/blocks/0]"
        assert told["response_metadata"]["messages"] == [pointer]
    assert [call.error for call in slack.calls] == [error]
    assert slack.workspace.messages == {}


async def test_updating(slack: LocalSlack, client: AsyncWebClient) -> None:
    ts = (await client.chat_postMessage(channel="C0INCIDENT", text="one", blocks=[button()]))["ts"]
    await client.chat_update(channel="C0INCIDENT", ts=ts, text="two")
    [message] = slack.messages(INCIDENT)
    assert (message["text"], message["edited"]["user"]) == ("two", "U0CALICO")
    assert message["blocks"][0]["elements"][0]["value"] == "v1"  # kept where the update does not speak of them
    await client.chat_update(channel="C0INCIDENT", ts=ts, text="three", blocks=[])
    assert "blocks" not in slack.messages(INCIDENT)[0]
    await slack.say("ana", INCIDENT, "mine")
    hers = slack.messages(INCIDENT)[1]["ts"]
    whispered = await client.chat_postEphemeral(channel="C0INCIDENT", user="U0ANA", text="psst")
    for call, error in (
        (client.chat_update(channel="C0INCIDENT", ts="1.1", text="x"), "message_not_found"),
        (client.chat_update(channel="C0INCIDENT", ts=whispered["message_ts"], text="x"), "message_not_found"),
        (client.chat_update(channel="C0INCIDENT", ts=hers, text="x"), "cant_update_message"),
        (client.chat_delete(channel="C0INCIDENT", ts=hers), "cant_delete_message"),
        (client.chat_getPermalink(channel="C0INCIDENT", message_ts="1.1"), "message_not_found"),
    ):
        assert (await refused(call))["error"] == error


async def test_deleting(slack: LocalSlack, client: AsyncWebClient) -> None:
    ts = (await client.chat_postMessage(channel="C0INCIDENT", text="one"))["ts"]
    reply = (await client.chat_postMessage(channel="C0INCIDENT", text="reply", thread_ts=ts))["ts"]
    await client.chat_delete(channel="C0INCIDENT", ts=ts)
    assert texts(slack) == ["This message was deleted."] and texts(slack, thread_ts=ts) == ["reply"]
    await client.chat_delete(channel="C0INCIDENT", ts=reply)
    assert texts(slack, thread_ts=ts) == []


async def test_whispering(slack: LocalSlack, client: AsyncWebClient) -> None:
    await client.chat_postEphemeral(channel="C0INCIDENT", user="U0BO", text="psst")
    assert texts(slack, viewer="bo") == ["psst"] and texts(slack, viewer="ana") == texts(slack) == []
    assert slack.messages(INCIDENT, viewer="bo")[0]["is_ephemeral"] is True
    stranger = client.chat_postEphemeral(channel="C0INCIDENT", user="U0NOBODY", text="x")
    assert (await refused(stranger))["error"] == "user_not_found"
    slack.workspace.channel(INCIDENT).members.remove("U0BO")
    gone = client.chat_postEphemeral(channel="C0INCIDENT", user="U0BO", text="x")
    assert (await refused(gone))["error"] == "user_not_in_channel"


async def test_user_groups(slack: LocalSlack, client: AsyncWebClient) -> None:
    group = slack.group_id("netops")
    assert (group, slack.user_id("ana")) == ("S0NETOPS", "U0ANA")
    assert (await client.usergroups_users_list(usergroup=group))["users"] == ["U0ANA", "U0BO"]
    assert (await refused(client.usergroups_users_list(usergroup="S0NONE")))["error"] == "no_such_subteam"
    [bare] = (await client.usergroups_list())["usergroups"]
    [full] = (await client.usergroups_list(include_users=True))["usergroups"]
    assert (bare["handle"], bare["user_count"], full["users"]) == ("netops", 2, ["U0ANA", "U0BO"])
    assert "users" not in bare


async def test_form_and_query_say_the_same(slack: LocalSlack) -> None:
    arguments: Json = {"channel": "C0INCIDENT", "text": "hi", "blocks": json.dumps([{"type": "divider"}])}
    url = slack.base_url + "chat.postMessage"
    async with aiohttp.ClientSession() as session:
        arguments["token"] = slack.bot_token
        for form_fields, query in ((arguments, {}), ({}, arguments)):
            async with session.post(url, data=form_fields, params=query) as response:
                assert (await response.json())["ok"] is True
        async with session.post(url, data="{", headers={"Content-Type": "application/json"}) as response:
            assert (await response.json())["error"] == "invalid_json"
    assert [message["blocks"][0]["type"] for message in slack.messages(INCIDENT)] == ["divider"] * 2
    assert all(slack.bot_token not in repr(call) for call in slack.calls)


async def test_an_unknown_method_is_loud(
    slack: LocalSlack, client: AsyncWebClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert (await refused(client.api_call("chat.shout")))["error"] == "unknown_method"
    assert "chat.shout is a method this local Slack does not have" in caplog.text
    assert [(call.method, call.error) for call in slack.calls] == [("chat.shout", "unknown_method")]


# -- files


async def test_a_file_in_a_thread(slack: LocalSlack, client: AsyncWebClient) -> None:
    ts = (await client.chat_postMessage(channel="C0INCIDENT", text="parent"))["ts"]
    await client.files_upload_v2(
        channel="C0INCIDENT",
        thread_ts=ts,
        filename="facts.json",
        content='{"a": 1}',
        title="Facts",
        initial_comment="all of it",
    )
    [message] = slack.messages(INCIDENT, thread_ts=ts)
    [file] = message["files"]
    assert message["text"] == "all of it"
    assert (file["name"], file["title"], file["size"]) == ("facts.json", "Facts", 8)
    async with aiohttp.ClientSession() as session, session.get(file["url_private"]) as response:
        assert await response.read() == b'{"a": 1}'
        # never shown as a page of this origin, whatever it contains
        assert response.headers["Content-Disposition"] == "attachment"
        assert response.content_type == "application/octet-stream"


async def test_a_file_has_the_length_announced(slack: LocalSlack, client: AsyncWebClient) -> None:
    told = await client.files_getUploadURLExternal(filename="picture.png", length=4)
    async with aiohttp.ClientSession() as session:
        for data, status in ((b"12345", 400), (b"1234", 200), (b"1234", 404)):
            async with session.post(told["upload_url"], data=data) as response:
                assert response.status == status
        async with session.get(f"{slack.page_url}page/file/{told['file_id']}") as response:
            assert (response.content_type, await response.read()) == ("image/png", b"1234")
        async with session.get(f"{slack.page_url}page/file/F0") as response:
            assert response.status == 404
    await client.files_completeUploadExternal(files=[{"id": told["file_id"]}])
    for file_id in (str(told["file_id"]), "F0"):
        call = client.files_completeUploadExternal(files=[{"id": file_id}])
        assert (await refused(call))["error"] == "file_not_found"
    for length in (0, -1, "many"):
        call = client.api_call("files.getUploadURLExternal", params={"filename": "x", "length": length})
        assert (await refused(call))["error"] == "invalid_arguments"


# -- faults


async def test_a_failing_api(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.faults.fail("chat.postMessage", "429", retry_after=7)
    slack.faults.fail("*", "500", times=2)
    post: Json = {"channel": "C0INCIDENT", "text": "x"}
    with pytest.raises(SlackApiError) as limited:
        await client.chat_postMessage(**post)
    assert (limited.value.response.status_code, limited.value.response.headers["Retry-After"]) == (429, "7")
    for _ in range(2):
        with pytest.raises(SlackApiError) as broken:
            await client.auth_test()
        assert broken.value.response.status_code == 500
    slack.faults.fail("chat.postMessage", "reset")
    with pytest.raises(aiohttp.ClientError):
        await client.chat_postMessage(**post)
    assert slack.messages(INCIDENT) == []
    await client.chat_postMessage(**post)
    assert [call.status for call in slack.calls] == [429, 500, 500, 0, 200]
    with pytest.raises(ValueError, match="no failure"):
        slack.faults.fail("*", "418")


async def test_an_answer_lost_after_the_deed(slack: LocalSlack) -> None:
    slack.faults.fail("chat.postMessage", "timeout")
    impatient = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, timeout=1, retry_handlers=[])
    with pytest.raises(TimeoutError):
        await impatient.chat_postMessage(channel="C0INCIDENT", text="said all the same")
    assert texts(slack) == ["said all the same"]


async def test_an_answer_whose_connection_breaks_after_the_deed(slack: LocalSlack) -> None:
    slack.faults.fail("chat.postMessage", "lost")
    once = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
    with pytest.raises(aiohttp.ClientError):
        await once.chat_postMessage(channel="C0INCIDENT", text="said all the same")
    assert texts(slack) == ["said all the same"]


async def test_any_refusal_and_an_archived_channel(slack: LocalSlack, client: AsyncWebClient) -> None:
    ts = str((await client.chat_postMessage(channel="C0INCIDENT", text="x"))["ts"])
    slack.faults.refuse("chat.update", "msg_too_long")
    assert (await refused(client.chat_update(channel="C0INCIDENT", ts=ts, text="y")))["error"] == "msg_too_long"
    slack.workspace.channel(INCIDENT).archived = True
    assert (await refused(client.chat_update(channel="C0INCIDENT", ts=ts, text="y")))["error"] == "is_inactive"
    assert (await refused(client.chat_postMessage(channel="C0INCIDENT", text="y")))["error"] == "is_archived"
    assert texts(slack) == ["x"]


async def test_a_slack_that_says_nothing_and_one_that_is_gone(app: SlackApp) -> None:
    slack = app.slack
    once = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, timeout=1, retry_handlers=[])
    slack.faults.hush()
    silent = asyncio.ensure_future(slack.slash("ana", INCIDENT, "/calico help"))
    with pytest.raises(TimeoutError):
        await once.chat_postMessage(channel="C0INCIDENT", text="never said")
    slack.clock.advance(4)
    assert (await silent).result == "operation_timeout"
    slack.faults.clear()
    assert texts(slack) == []
    await slack.go_away()
    with pytest.raises(aiohttp.ClientConnectorError):
        await once.auth_test()
    assert slack.connections == 0
    await slack.come_back()
    await once.auth_test()


async def test_an_app_with_retries_gets_through(app: SlackApp) -> None:
    for failure in ("reset", "429", "500"):
        app.slack.faults.fail("chat.postMessage", failure, retry_after=0)
        await app.post(f"after {failure}")
    assert texts(app.slack) == ["after reset", "after 429", "after 500"]


async def test_a_slow_api(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.faults.latency = 0.2
    begun = asyncio.get_running_loop().time()
    await client.api_test()
    assert asyncio.get_running_loop().time() - begun >= 0.2
    slack.faults.clear()
    assert not any(slack.faults.shape().values())


async def test_one_message_a_second_after_a_burst() -> None:
    now = 1_700_000_000.0
    async with LocalSlack(clock=Clock(lambda: now)) as slack:
        slack.faults.rate_limit = True
        client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url, retry_handlers=[])
        for _ in range(5):
            await client.chat_postMessage(channel="C0INCIDENT", text="x")
        assert (await refused(client.chat_postMessage(channel="C0INCIDENT", text="x")))["error"] == "ratelimited"
        await client.chat_postEphemeral(channel="C0INCIDENT", user="U0ANA", text="x")
        slack.clock.advance(1)
        await client.chat_postMessage(channel="C0INCIDENT", text="x")
        assert (await refused(client.chat_postMessage(channel="C0INCIDENT", text="x")))["error"] == "ratelimited"


# -- Socket Mode


async def test_a_ticket_opens_one_connection(slack: LocalSlack) -> None:
    opener = AsyncWebClient(token=slack.app_token, base_url=slack.base_url)
    url = (await opener.apps_connections_open(app_token=slack.app_token))["url"]
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        assert (await socket.receive_json())["type"] == "hello"
        await slack.wait_for(lambda: slack.connections == 1)
        for again in (url, url + "x"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(again)
        asked = asyncio.ensure_future(slack.slash("ana", INCIDENT, "/calico x"))
        envelope = await socket.receive_json()
        assert (envelope["type"], envelope["accepts_response_payload"]) == ("slash_commands", True)
        assert "retry_attempt" not in envelope
        for noise in ("ping", "[]", json.dumps({"envelope_id": "another"})):
            await socket.send_str(noise)
        await socket.send_json({"envelope_id": envelope["envelope_id"], "payload": {"text": "words"}})
        delivery = await asked
        assert (delivery.envelope_id, delivery.body) == (envelope["envelope_id"], {"text": "words"})
        told = asyncio.ensure_future(slack.mention("ana", INCIDENT, "x"))
        envelope = await socket.receive_json()
        assert (envelope["type"], envelope["accepts_response_payload"]) == ("events_api", False)
        assert (envelope["retry_attempt"], envelope["retry_reason"]) == (0, "")
        await socket.send_json({"envelope_id": envelope["envelope_id"]})
        assert (await told).result == "ok"
    await slack.wait_for(lambda: slack.connections == 0)


async def test_each_delivery_goes_to_one_of_several_connections(slack: LocalSlack) -> None:
    async with connected(slack, "socket") as first, connected(slack, "socket", connections=2) as second:
        for _ in range(40):
            assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "ok"
        assert len(first.commands) + len(second.commands) == 40
        assert first.commands and second.commands


async def test_a_disconnected_app_comes_back(slack: LocalSlack) -> None:
    async with connected(slack, "socket") as app:
        await slack.disconnect()
        assert slack.connections == 0
        await slack.wait_for(lambda: slack.connections == 1)
        assert (await slack.slash("ana", INCIDENT, "/calico x")).result == "ok"
        assert len(app.commands) == 1


# -- the page


async def snapshots(slack: LocalSlack, user: str) -> AsyncIterator[Json]:
    url = f"{slack.page_url}page/stream?user={user}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.content_type == "text/event-stream"
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


async def test_the_page_is_told_of_every_change(slack: LocalSlack, client: AsyncWebClient) -> None:
    stream = snapshots(slack, "U0BO")
    first = await anext(stream)
    assert (first["me"], first["ahead"], first["team"]["id"]) == ("U0BO", 0, "T0LOCAL")
    assert [user["id"] for user in first["users"] if user["stranger"]] == ["U0EVE"]
    assert [(channel["name"], channel["has_bot"]) for channel in first["channels"]] == [
        ("incident", True),
        ("general", False),
    ]
    await client.chat_postEphemeral(channel="C0INCIDENT", user="U0ANA", text="for ana")
    await client.chat_postEphemeral(channel="C0INCIDENT", user="U0BO", text="for bo")
    slack.clock.advance(60)
    slack.faults.fail("*", "429")
    slack.workspace.changed()
    async for snapshot in stream:
        if snapshot["ahead"]:
            break
    assert snapshot["revision"] > first["revision"]
    assert [message["text"] for message in snapshot["messages"]["C0INCIDENT"]] == ["for bo"]
    assert [(call["method"], call["ok"]) for call in snapshot["calls"]] == [("chat.postEphemeral", True)] * 2
    assert snapshot["faults"]["429"] == 1
    await stream.aclose()  # type: ignore[attr-defined]


async def test_what_is_done_on_the_page(app: SlackApp) -> None:
    slack = app.slack
    ts = await app.post(blocks=[button()])

    async def tell(path: str, **body: Any) -> Json:
        async with session.post(f"{slack.page_url}page/{path}", json=body) as response:
            answer: Json = await response.json()
            assert answer["ok"] == (response.status == 200)
            return answer

    ana = {"user": "U0ANA", "channel": "C0INCIDENT"}
    async with aiohttp.ClientSession() as session:
        assert await tell("say", **ana, text="/calico fixes") == {"ok": True}
        assert await tell("say", **ana, text="plain", thread_ts=ts) == {"ok": True}
        assert await tell("click", **ana, ts=ts, action_id="go", value="") == {"ok": True}
        for path, body, error in (
            ("click", ana | {"ts": ts, "action_id": "stop"}, "no 'stop'"),
            ("click", ana | {"ts": ts}, "'action_id' is missing"),
            ("say", ana | {"text": " "}, "nothing to say"),
            ("say", ana | {"text": 5}, "text must be a string"),
            ("say", {"user": "U0EVE", "channel": "C0GENERAL", "text": "x"}, "not a member"),
            ("submit", {"user": "U0ANA", "view_id": "V0", "values": {}}, "no modal"),
            ("clock", {"seconds": -1}, "forward only"),
            ("fault", {"kind": "418"}, "no failure"),
        ):
            assert error in (await tell(path, **body))["error"]
        await tell("clock", seconds=900)
        for kind in ("429", "500", "drop_ack", "latency"):
            await tell("fault", kind=kind)
    assert [body["text"] for body in app.commands] == ["fixes"] and len(app.clicks) == 1
    assert texts(slack, thread_ts=ts) == ["plain"]
    assert slack.clock.ahead == 900
    shape = slack.faults.shape()
    assert (shape["429"], shape["500"], shape["drop_ack"], shape["latency"] > 0) == (1, 1, 1, True)


async def test_no_other_site_gets_in(slack: LocalSlack) -> None:
    async with aiohttp.ClientSession() as session:
        for headers, status in (
            ({}, 200),
            ({"Origin": slack.page_url.rstrip("/")}, 200),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": "evil.example"}, 403),
        ):
            for path in ("page/clock", "api/api.test"):
                url = slack.page_url + path
                async with session.post(url, json={"seconds": 1}, headers=headers) as response:
                    assert response.status == status, (path, headers)
        async with session.post(slack.page_url + "page/clock", data='{"seconds": 1}') as response:
            assert response.status == 415
    assert slack.clock.ahead == 2


async def test_the_pages_files(slack: LocalSlack) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("page/../server.py", "page/%2e%2e%2fserver.py", "page/none.js", "page/"):
            async with session.get(URL(slack.page_url + path, encoded=True)) as response:
                assert response.status == 404, path
        async with session.get(slack.page_url) as response:
            assert response.status == 200
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:")
            assert "unsafe" not in policy
        async with session.get(f"{slack.page_url}page/stream", params={"user": "U0NOBODY"}) as response:
            assert response.status == 404


# -- by itself


async def test_waiting_in_vain_shows_what_was_said(slack: LocalSlack) -> None:
    await slack.say("ana", INCIDENT, "something else")
    with pytest.raises(TimeoutError, match=r"(?s)something else.*last calls"):
        await slack.wait_for(lambda: False, timeout=0.01)


def test_it_runs_as_a_command() -> None:
    words = [sys.executable, "-m", "lab.slack"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["base_url"] == told["page_url"] + "api/"
        assert told["page_url"].startswith("http://127.0.0.1:")
        with urllib.request.urlopen(told["base_url"] + "api.test?token=" + told["bot_token"]) as answer:
            assert json.load(answer)["ok"] is True
        taken = told["page_url"].rstrip("/").rpartition(":")[2]
        again = subprocess.run([*words, "--port", taken], capture_output=True, text=True, timeout=30)
        process.terminate()
        assert process.wait(10) == 0
    assert again.returncode == 3 and "Choose another --port" in again.stderr


def test_a_workspace_that_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "workspace.yaml"
    broken.write_text("team: 5")
    with pytest.raises(ValueError, match="does not describe a local Slack"):
        load_config(broken)
    broken.write_text(SEED.read_text().replace("[ana, bo]", "[ana, zoe]"))
    with pytest.raises(ValueError, match="members who are not among its users: zoe"):
        load_config(broken)
    with pytest.raises(ValueError, match="not a Slack app manifest"):
        load_manifest(broken)
