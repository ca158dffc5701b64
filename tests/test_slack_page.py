"""The local Slack's page in a real browser: what a bot says is drawn, what people do arrives, nothing hostile runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.reply import block_kit, blocks, picture
from bot.reply.fix_card import APPROVE, REJECT, fix_card
from fixes.request import document
from lab.slack import LocalSlack
from lab.slack.workspace import Message
from tests import answers, fix_samples
from tests.browser import Page, chromium, open_page

CHANNEL = "C0INCIDENT"
HOSTILE = (
    """<script>window.hacked = 1</script> <!channel> <img src=x onerror="window.hacked=1"> "quotes" 'too' & &amp;"""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as address:
        yield address


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with LocalSlack() as local:
        yield local


Heard = asyncio.Queue[dict[str, Any]]


async def next_of(heard: Heard) -> dict[str, Any]:
    return await asyncio.wait_for(heard.get(), 20)


@dataclass
class App:
    """A small real app: what it hears, in order."""

    client: AsyncWebClient
    actions: Heard = field(default_factory=asyncio.Queue)
    commands: Heard = field(default_factory=asyncio.Queue)
    mentions: Heard = field(default_factory=asyncio.Queue)
    submitted: Heard = field(default_factory=asyncio.Queue)

    async def post(self, message: block_kit.Message, thread_ts: str | None = None) -> str:
        answer = await self.client.chat_postMessage(
            channel=CHANNEL, text=message.text, blocks=message.blocks, thread_ts=thread_ts
        )
        return str(answer["ts"])


MODAL = {
    "type": "modal",
    "callback_id": "reject",
    "title": {"type": "plain_text", "text": "Reject this fix"},
    "submit": {"type": "plain_text", "text": "Reject"},
    "blocks": [
        {
            "type": "input",
            "block_id": "reason",
            "label": {"type": "plain_text", "text": "Reason"},
            "element": {"type": "plain_text_input", "action_id": "text"},
        },
        {
            "type": "input",
            "block_id": "kind",
            "optional": True,
            "label": {"type": "plain_text", "text": "Kind"},
            "element": {
                "type": "static_select",
                "action_id": "pick",
                "options": [{"text": {"type": "plain_text", "text": "Wrong node"}, "value": "node"}],
            },
        },
    ],
}


@pytest.fixture
async def app(slack: LocalSlack) -> AsyncIterator[App]:
    """Connected by Socket Mode, as the product's bot is."""
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.base_url)
    bolt = AsyncApp(client=client)
    heard = App(client)

    @bolt.action(APPROVE)
    async def approve(ack: AsyncAck, body: dict[str, Any]) -> None:
        await ack()
        heard.actions.put_nowait(body)

    @bolt.action(REJECT)
    async def reject(ack: AsyncAck, body: dict[str, Any]) -> None:
        await ack()
        await client.views_open(trigger_id=body["trigger_id"], view=MODAL)

    @bolt.view("reject")
    async def submitted(ack: AsyncAck, body: dict[str, Any]) -> None:
        heard.submitted.put_nowait(body)
        if body["view"]["state"]["values"]["reason"]["text"]["value"] == "no":
            await ack(response_action="errors", errors={"reason": "Say more than that"})
        else:
            await ack()

    @bolt.command("/calico")
    async def command(ack: AsyncAck, body: dict[str, Any]) -> None:
        heard.commands.put_nowait(body)
        await ack(text=f"you said `{body['text']}`")

    @bolt.event("app_mention")
    async def mention(body: dict[str, Any]) -> None:
        heard.mentions.put_nowait(body["event"])

    app_client = AsyncWebClient(token=slack.app_token, base_url=slack.base_url)
    handler = AsyncSocketModeHandler(bolt, slack.app_token, web_client=app_client)
    await handler.connect_async()  # type: ignore[no-untyped-call]
    await slack.wait_for(lambda: slack.connections > 0)
    yield heard
    await handler.close_async()  # type: ignore[no-untyped-call]


@contextlib.asynccontextmanager
async def sitting(browser: str, slack: LocalSlack, user: str = "U0ANA") -> AsyncIterator[Page]:
    async with open_page(browser, f"{slack.page_url}?user={user}&channel={CHANNEL}") as page:
        await page.shows("connected", "#connection")
        yield page


def card() -> block_kit.Message:
    now = datetime.now(UTC)
    request = document(fix_samples.a_request(), "calico-why")
    request["spec"] |= {"requestedAt": now.isoformat(), "expiresAt": (now + timedelta(minutes=15)).isoformat()}
    return fix_card(request, now, approvers=["S0NETOPS"])


def action(name: str) -> str:
    return f"[data-action={name}]"


async def test_an_answer_its_thread_and_its_card_are_drawn_whole(browser: str, slack: LocalSlack, app: App) -> None:
    said = answers.wrong_mac()
    async with sitting(browser, slack) as page:
        parent = await app.post(blocks.answer(said))
        thread = blocks.thread(said, [card()])
        for message in thread:
            await app.post(message, parent)
        await page.wait_for(f"document.querySelectorAll('#replies article').length === {len(thread) + 1}")
        await page.shows("@ana asked: why shop/cart shop/db 5432/tcp", "#messages")
        await page.shows(f"{len(thread)} replies", "#messages")
        await page.shows("May approve: @netops", "#replies")
        assert await page.text("#messages .badge") == "APP"
        assert await page.text(f"#replies {action(APPROVE)}") == "Approve"
        cells = await page.evaluate("[...document.querySelectorAll('.grid tr:nth-child(1) td')].map(c => c.innerText)")
        assert cells[0] == "node-a" and answers.WRONG_MAC in cells[3]
        assert await page.evaluate("document.querySelector('#messages .mark.bad').getAttribute('aria-label')") == "x"
        assert await page.count(".unsupported") == 0
        assert len(await page.screenshot()) > 2 * await _size_of_nothing(page)


async def test_on_a_phone_too_a_thread_opens_with_the_answer_and_has_the_whole_width(
    browser: str, slack: LocalSlack, app: App
) -> None:
    said = answers.wrong_mac()
    parent = await app.post(blocks.answer(said))
    for message in blocks.thread(said, [card()]):
        await app.post(message, parent)
    async with sitting(browser, slack) as page:
        await page.resize(390, 844)
        if not await page.evaluate("Boolean(document.querySelector('#thread').offsetParent)"):
            await page.click(action("thread"))
        await page.shows("May approve: @netops", "#replies")
        wide, list_, screen = await page.evaluate(
            "[document.documentElement.scrollWidth, document.querySelector('#replies').clientWidth, innerWidth]"
        )
        assert wide == screen and list_ > 0.9 * screen
        seen = "(one => one.scrollHeight > one.clientHeight && one.scrollTop === 0)(document.querySelector('#replies'))"
        assert await page.evaluate(seen), "the first words are what broke, not what came last"


async def _size_of_nothing(page: Page) -> int:
    await page.go("about:blank")
    return len(await page.screenshot())


async def test_every_sort_of_message_can_be_drawn(browser: str, slack: LocalSlack, app: App) -> None:
    messages = [blocks.progress("shop/cart shop/db", "asking node-a", asked_by="U0ANA", cluster="prod-eu-1")]
    for said in (answers.well(), answers.unseen(), answers.no_engine(), answers.hostile(HOSTILE)):
        messages += [blocks.answer(said), *blocks.thread(said)]
    for message in messages:
        await app.post(message)
    async with sitting(browser, slack) as page:
        await page.wait_for(f"document.querySelectorAll('#messages article').length === {len(messages)}")
        assert await page.count(".unsupported") == 0
        assert await page.count(".mention") == 4  # @ana, who asked four times; nothing hostile mentions anybody
        assert await page.evaluate("window.hacked") is None
        await page.shows("<!channel> <img src=x", "#messages")


async def test_another_person_approves_after_being_asked(browser: str, slack: LocalSlack, app: App) -> None:
    ts = await app.post(card())
    async with sitting(browser, slack) as page:
        await page.shows("Approve", f"[data-ts='{ts}']")
        await page.click("[data-key=U0BO]")
        await page.wait_for(
            "document.querySelector('[data-key=U0BO] input').checked && location.search.includes('U0BO')"
        )
        await page.click(action(APPROVE))
        await page.shows("Approve this change?", "#confirm")
        await page.click("#confirm-no")
        await page.wait_for("!document.querySelector('#confirm').open")
        assert slack.deliveries == []
        await page.click(action(APPROVE))
        await page.click("#confirm-yes")
        body = await next_of(app.actions)
    assert (body["type"], body["user"]["id"]) == ("block_actions", "U0BO")
    assert body["actions"][0]["value"] == fix_samples.a_request().name
    assert body["container"]["message_ts"] == ts
    assert app.actions.empty()


async def test_a_question_opened_right_after_another_was_denied_is_heard(
    browser: str, slack: LocalSlack, app: App
) -> None:
    await app.post(card())
    async with sitting(browser, slack, "U0BO") as page:
        await page.text(action(APPROVE))
        await page.evaluate(
            f"""(() => {{
                const approve = document.querySelector("{action(APPROVE)}");
                approve.click();
                document.querySelector("#confirm-no").click();
                approve.click();
            }})()"""
        )
        await page.click("#confirm-yes")
        assert (await next_of(app.actions))["user"]["id"] == "U0BO"
    assert app.actions.empty()


async def test_a_fix_is_approved_with_the_keyboard_alone(browser: str, slack: LocalSlack, app: App) -> None:
    await app.post(card())
    async with sitting(browser, slack, "U0BO") as page:
        await page.text(action(APPROVE))
        await page.evaluate(f"document.querySelector('{action(APPROVE)}').focus()")
        await page.press("Enter")
        await page.wait_for("document.activeElement.id === 'confirm-no'")  # a second Enter approves nothing
        await page.press("Tab")
        await page.press("Enter")
        assert (await next_of(app.actions))["user"]["id"] == "U0BO"
        await page.wait_for(f"!document.querySelector('{action(APPROVE)}').ariaDisabled")
        assert await page.evaluate("document.activeElement.textContent") == "Approve"


async def test_a_button_is_not_pressed_again_while_its_click_is_under_way(
    browser: str, slack: LocalSlack, app: App
) -> None:
    await app.post(card())
    async with sitting(browser, slack, "U0BO") as page:
        await page.evaluate("void (window.fetch = () => new Promise(() => { window.sent = (window.sent ?? 0) + 1; }))")
        await page.click(action(REJECT))
        await page.wait_for(f"document.querySelector('{action(REJECT)}').ariaDisabled === 'true'")
        await page.evaluate(f"document.querySelector('{action(REJECT)}').click()")
        await page.evaluate(f"document.querySelector('{action(APPROVE)}').click()")
        assert await page.evaluate("window.sent") == 1
        assert not await page.evaluate("document.querySelector('#confirm').open")


async def test_a_double_click_is_delivered_twice(browser: str, slack: LocalSlack, app: App) -> None:
    await app.post(card())
    async with sitting(browser, slack, "U0BO") as page:
        await page.click("#double")
        await page.click(action(APPROVE))
        await page.click("#confirm-yes")
        assert [(await next_of(app.actions))["user"]["id"] for _ in range(2)] == ["U0BO", "U0BO"]
        await page.wait_for("document.querySelector('#double').getAttribute('aria-pressed') === 'false'")


async def test_a_command_is_completed_sent_and_answered_to_its_author_alone(
    browser: str, slack: LocalSlack, app: App
) -> None:
    async with sitting(browser, slack) as page:
        await page.type("#composer-text", "/cal")
        await page.shows("Tab completes /calico", "#composer-hint")
        await page.press("Tab")
        await page.call("Input.insertText", text="help")
        await page.press("Enter")
        await page.shows("you said help", "#messages")
        await page.shows("Only visible to you", "#messages")
        assert await page.evaluate("document.querySelector('#composer-text').value") == ""
        await page.click("#drawer-toggle")
        await page.shows("/calico help", "#deliveries")
        await page.shows("auth.test", "#calls")
        await page.click("[data-key=U0BO]")
        await page.wait_for("document.querySelectorAll('#messages article').length === 0")
    told = await next_of(app.commands)
    assert (told["command"], told["text"], told["user_id"]) == ("/calico", "help", "U0ANA")


async def test_a_reply_in_the_thread_reaches_the_app_there(browser: str, slack: LocalSlack, app: App) -> None:
    parent = await app.post(blocks.answer(answers.well()))
    async with sitting(browser, slack) as page:
        await page.shows("calico", "#messages")
        assert not await page.evaluate("Boolean(document.querySelector('#thread').offsetParent)")
        await app.post(card(), parent)
        await page.shows("May approve: @netops", "#replies")
        await page.type("#reply-text", "@calico why shop/cart shop/db")
        await page.press("Enter")
        assert (await next_of(app.mentions))["thread_ts"] == parent
        await page.shows("@calico why", "#replies")
        await page.click("#thread-close")
        await app.post(card(), parent)
        await page.shows("3 replies", "#messages")
        assert not await page.evaluate("Boolean(document.querySelector('#thread').offsetParent)")
        await page.click(action("thread"))
        await page.shows("@calico why", "#replies")


async def test_what_a_person_types_is_text_and_nothing_else(browser: str, slack: LocalSlack, app: App) -> None:
    async with sitting(browser, slack) as page:
        await page.type("#composer-text", HOSTILE)
        await page.press("Enter")
        assert await page.text("#messages article .text") == HOSTILE
        await page.type("#composer-text", "@bo and @netops, not me@bo.example or @nobody")
        await page.press("Enter")
        await page.wait_for("document.querySelectorAll('#messages .mention').length === 2")
        assert await page.evaluate("window.hacked") is None
        assert await page.count("#messages :is(script, img)") == 0
    assert slack.messages(CHANNEL)[1]["text"].startswith(
        "<@U0BO> and <!subteam^S0NETOPS>, not me@bo.example or @nobody"
    )


async def test_markup_is_drawn_and_a_dangerous_link_is_not(browser: str, slack: LocalSlack, app: App) -> None:
    text = (
        "*bold `a*b`* _it_ ~no~ 2*3*4 snake_case_x <https://example.org/?a=1&amp;b=2|link> <javascript:alert(1)|bad>\n"
        "&gt; quoted\n```\npre &lt;b&gt;\n```\n<!date^86400^{date_num}|1970>"
    )
    await app.client.chat_postMessage(channel=CHANNEL, text=text)
    async with sitting(browser, slack) as page:
        await page.shows("quoted", "#messages")
        drawn = await page.evaluate(
            "Object.fromEntries(['strong','em','del','code','blockquote','pre','a'].map("
            "tag => [tag, [...document.querySelectorAll('#messages ' + tag)].map(node => node.textContent)]))"
        )
        assert drawn == {
            "strong": ["bold a*b"],
            "em": ["it"],
            "del": ["no"],
            "code": ["a*b"],
            "blockquote": ["quoted"],
            "pre": ["pre <b>"],
            "a": ["link"],
        }
        assert await page.evaluate("document.querySelector('#messages a').href") == "https://example.org/?a=1&b=2"
        await page.shows("2*3*4 snake_case_x", "#messages")
        assert await page.evaluate("document.querySelector('#messages .text time').title") == "1970"


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({"type": "carousel"}, "unsupported block: carousel"),
        ({"type": "header"}, "malformed block: header"),
        ({"type": "actions", "elements": [{"type": "datepicker"}]}, "unsupported element: datepicker"),
        (
            {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [{"type": "canvas"}]}]},
            "unsupported rich text: canvas",
        ),
    ],
)
async def test_what_cannot_be_drawn_is_said_in_red(
    browser: str, slack: LocalSlack, block: dict[str, Any], told: str
) -> None:
    ts = slack.workspace.next_ts()
    after = {"type": "section", "text": {"type": "mrkdwn", "text": "what follows is still there"}}
    slack.workspace.post(Message(CHANNEL, ts, "U0CALICO", "odd", [block, after], by_bot=True))
    async with sitting(browser, slack) as page:
        assert await page.text(".unsupported") == told
        await page.shows("what follows is still there", "#messages")


async def test_every_block_slack_knows_of_that_a_bot_needs(browser: str, slack: LocalSlack, app: App) -> None:
    inline = [
        {"type": "text", "text": "fat ", "style": {"bold": True, "code": True}},
        {"type": "emoji", "name": "wave", "unicode": "1f44b"},
        {"type": "user", "user_id": "U0BO"},
        {"type": "usergroup", "usergroup_id": "S0NETOPS"},
        {"type": "date", "timestamp": 86400, "format": "{date_num}", "fallback": "then"},
        {"type": "link", "url": "https://example.org", "text": "there"},
    ]
    section = {"type": "rich_text_section", "elements": inline}
    every: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": "Head"}},
        {"type": "divider"},
        {"type": "markdown", "text": "## Title\nSome **fat** `code`\n\n- one\n- two\n\n```\n*kept*\n```"},
        {
            "type": "rich_text",
            "elements": [
                section,
                {"type": "rich_text_list", "style": "ordered", "elements": [section]},
                {"type": "rich_text_quote", "elements": inline[:1]},
                {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "a  b"}]},
            ],
        },
        {
            "type": "section",
            "fields": [{"type": "mrkdwn", "text": "*left*"}, {"type": "plain_text", "text": "*right*"}],
            "accessory": {
                "type": "static_select",
                "action_id": "pick",
                "options": [{"text": {"type": "plain_text", "text": "One"}, "value": "1"}],
            },
        },
        {"type": "image", "image_url": "https://example.org/a.png", "alt_text": "elsewhere"},
    ]
    slack.workspace.post(Message(CHANNEL, slack.workspace.next_ts(), "U0CALICO", "every", every, by_bot=True))
    async with sitting(browser, slack) as page:
        await page.shows("Head", "h3")
        for told in ("Title", "@netops", "*right*", "*kept*", "a  b"):
            await page.shows(told, "#messages")
        assert await page.count("#messages img") == 0  # nothing is fetched from elsewhere
        assert await page.evaluate("document.querySelectorAll('.markdown li').length") == 2
        assert await page.count("strong > code, code > strong") == 3
        assert await page.count(".unsupported") == 0
        await page.evaluate(
            "(menu => { menu.value = '1'; menu.dispatchEvent(new Event('change')); })(document.querySelector('select'))"
        )
        await slack.wait_for(lambda: [one.what for one in slack.deliveries] == ["click on pick"])


async def test_a_shared_picture_is_shown_with_its_words(browser: str, slack: LocalSlack, app: App) -> None:
    async with sitting(browser, slack) as page:
        await app.client.files_upload_v2(
            channel=CHANNEL,
            filename="path.png",
            content=await page.screenshot(),
            title="Path",
            alt_txt="the path, drawn",
        )
        await page.wait_for("document.querySelector('figure img')?.alt === 'the path, drawn'")
        await page.evaluate("document.querySelector('figure img').decode()")


async def test_a_drawn_path_is_shown_in_the_thread_and_may_do_nothing_but_colour_itself(
    browser: str, slack: LocalSlack, app: App
) -> None:
    drawn = picture.render(answers.wrong_mac())
    async with sitting(browser, slack) as page:
        told = await app.client.files_upload_v2(
            channel=CHANNEL, filename="path.svg", content=drawn.encode(), title="Path", alt_txt="the path, drawn"
        )
        await page.wait_for("document.querySelector('figure img')?.alt === 'the path, drawn'")
        await page.evaluate("document.querySelector('figure img').decode()")
        shown = await page.evaluate(
            "(one => [one.naturalWidth, one.naturalHeight])(document.querySelector('figure img'))"
        )
        width, height = (float(one) for one in re.findall(r' (?:width|height)="([\d.]+)"', drawn)[:2])
        assert shown == [round(width), round(height)]
        headers = await page.evaluate(
            f"fetch('/page/file/{told['files'][0]['id']}').then(one => one.headers.get('content-security-policy'))"
        )
        assert "default-src 'none'" in headers and "sandbox" in headers and "script" not in headers


async def test_a_modal_is_filled_in_refused_and_sent(browser: str, slack: LocalSlack, app: App) -> None:
    await app.post(card())
    async with sitting(browser, slack, "U0BO") as page:
        await page.click(action(REJECT))
        await page.shows("Reject this fix", "#modal")
        await page.click("#modal [type=submit]")
        await page.shows("Please fill in this field", "#modal")
        assert app.submitted.empty()
        await page.type("#modal input", "no")
        await page.press("Enter")
        await page.shows("Say more than that", "#modal")
        assert (await next_of(app.submitted))["user"]["id"] == "U0BO"
        assert await page.evaluate("document.querySelector('#modal input').value") == "no"
        await page.type("#modal input", "t this node")
        await page.evaluate("document.querySelector('#modal select').value = 'node'")
        await page.click("#modal [type=submit]")
        await page.wait_for("!document.querySelector('#modal').open")
        assert slack.workspace.open_views("U0BO") == []
        await page.click(action(REJECT))
        await page.shows("Reject this fix", "#modal")
        await page.press("Escape")
        await slack.wait_for(lambda: slack.workspace.open_views("U0BO") == [])
        await page.wait_for("!document.querySelector('#modal').open")
    values = (await next_of(app.submitted))["view"]["state"]["values"]
    assert values["reason"]["text"]["value"] == "not this node"
    assert values["kind"]["pick"]["selected_option"]["value"] == "node"


async def test_the_clock_is_pushed_and_things_are_broken_from_the_page(
    browser: str, slack: LocalSlack, app: App
) -> None:
    async with sitting(browser, slack) as page:
        await page.click("[data-seconds='900']")
        await page.shows("(+15 min)", "#clock")
        assert slack.clock.ahead == 900
        await page.click("[data-fault='429']")
        await page.wait_for("document.querySelector('[data-fault=\"429\"]').classList.contains('armed')")
        with pytest.raises(Exception, match="ratelimited"):
            await app.client.auth_test()
        await page.wait_for("!document.querySelector('[data-fault=\"429\"]').classList.contains('armed')")
        await page.shows("ratelimited", "#drawer-last")


async def test_a_refusal_is_told(browser: str, slack: LocalSlack) -> None:
    async with sitting(browser, slack) as page:
        refused = json.dumps(json.dumps({"ok": False, "error": "that message is gone"}))
        await page.evaluate(f"void (window.fetch = async () => new Response({refused}, {{status: 400}}))")
        await page.type("#composer-text", "hello")
        await page.press("Enter")
        await page.shows("that message is gone", "#toasts")
        await page.wait_for("document.querySelector('#composer-text').value === 'hello'")


async def test_the_page_says_when_its_workspace_is_gone_and_finds_it_again(browser: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with LocalSlack() as first:
            page = await stack.enter_async_context(sitting(browser, first))
            port = int(first.page_url.rsplit(":", 1)[1].strip("/"))
        await page.shows("connection lost", "#connection")
        async with LocalSlack(port=port) as second:
            await page.wait_for("document.querySelector('#connection').textContent === 'connected'")
            await second.say("ana", "incident", "back")
            await page.shows("back", "#messages")
            page.problems.clear()  # of the time without it


async def test_an_address_that_names_nobody_still_opens(browser: str, slack: LocalSlack) -> None:
    async with open_page(browser, f"{slack.page_url}?user=U0NOBODY") as page:
        await page.shows("# incident", "#channel-name")
        assert await page.evaluate("document.querySelector('[data-key=U0ANA] input').checked")
        assert [problem for problem in page.problems if "404" not in problem] == []
        page.problems.clear()


async def test_a_link_to_a_message_leads_to_its_thread(browser: str, slack: LocalSlack, app: App) -> None:
    parent = await app.post(blocks.answer(answers.well()))
    reply = await app.post(card(), parent)
    link = (await app.client.chat_getPermalink(channel=CHANNEL, message_ts=reply))["permalink"]
    await app.client.chat_postMessage(channel=CHANNEL, text=f"see <{link}|its card>")
    async with sitting(browser, slack) as page:
        await page.click("#thread-close")
        await page.click("#messages a")
        await page.shows("waits for approval", "#replies")


async def test_a_stranger_and_a_channel_without_the_app_are_marked(browser: str, slack: LocalSlack) -> None:
    async with sitting(browser, slack, "U0EVE") as page:
        await page.shows("of another workspace", "[data-key=U0EVE]")
        await page.click("[data-key=C0GENERAL] button")
        await page.wait_for("document.querySelector('#composer-text').disabled")
        await page.shows("no app, not a member", "[data-key=C0GENERAL]")
        await page.shows("not Slack", ".note")
        assert await page.count("[data-key=C0LEADS]") == 0
