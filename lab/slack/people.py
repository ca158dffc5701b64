"""What a person does in a channel, as Slack tells it to the bot; without it nobody would ask, click or submit."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from lab.slack.api import Api
from lab.slack.config import Channel, User
from lab.slack.delivery import Deliverer
from lab.slack.records import Delivery
from lab.slack.validation import validate_view
from lab.slack.workspace import Json, Message, SlackError, View, Workspace

NOT_IN_THREADS = "{command} is not supported in threads. Sorry!"
NOT_A_COMMAND = "{command} is not a valid command."
COMMAND_FAILED = "{command} failed with the error “{error}”"
CLICK_FAILED = "That button did not reach the app ({error}). Try again."
NOT_INTERACTIVE = "This app is not configured to handle interactive responses."
NOT_INVITED = "You mentioned @{bot}, but they are not in this channel."
REQUIRED = "Please complete this required field."
VERIFICATION = "local-stand-in-verification"  # the deprecated token every payload still carries


class People:
    """Every method takes users and channels by id or name, raises LookupError for unknown ones, and ValueError for what
    no Slack client could send."""

    def __init__(self, workspace: Workspace, deliverer: Deliverer, api: Api) -> None:
        self._space, self._deliverer, self._api = workspace, deliverer, api

    # -- talking

    async def say(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery | None:
        """A command, a mention or a plain message, as its text has it; None when the bot is not told."""
        if text.startswith("/"):
            return await self.slash(user, channel, text, thread_ts)
        bot = self._space.config.bot
        if re.search(rf"@{re.escape(bot.name)}\b|<@{bot.user_id}>", text):
            return await self.mention(user, channel, text, thread_ts)
        self._write(*self._member(user, channel), text, thread_ts)
        return None

    async def slash(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery:
        person, place = self._member(user, channel)
        command, _, rest = text.partition(" ")
        if not command.startswith("/"):
            raise ValueError(f"a command begins with a slash: {text!r}")
        refused = ""
        if thread_ts:
            refused = NOT_IN_THREADS.format(command=command)
        elif command not in self._space.manifest.commands:
            refused = NOT_A_COMMAND.format(command=command)
        if refused:
            self._space.say_as_slackbot(place.id, person.id, refused, thread_ts)
            return self._deliverer.refuse("slash_commands", text)
        bot = self._space.config.bot
        form: Json = {
            "token": VERIFICATION,
            "team_id": self._space.team_of(person),
            "team_domain": self._space.config.team.domain,
            "channel_id": place.id,
            "channel_name": "privategroup" if place.private else place.name,
            "user_id": person.id,
            "user_name": person.name,
            "command": command,
            "text": rest.strip(),
            "api_app_id": bot.app_id,
            "is_enterprise_install": "false",
            "response_url": self._response_url(person, place),
            "trigger_id": self._space.new_trigger(person.id),
        }
        delivery = await self._deliverer.deliver("slash_commands", form, text, form)
        if delivery.result == "ok":
            self._show_answer(delivery, person, place, command)
        else:
            self._tell(person, place, COMMAND_FAILED.format(command=command, error=delivery.result))
        return delivery

    async def mention(self, user: str, channel: str, text: str, thread_ts: str = "") -> Delivery:
        """`@name` of the bot becomes Slack's `<@U…>`; where it is missing it is put in front."""
        person, place = self._member(user, channel)
        bot, team = self._space.config.bot, self._space.config.team.id
        code = f"<@{bot.user_id}>"
        text = re.sub(rf"@{re.escape(bot.name)}\b", code, text)
        text = text if code in text else f"{code} {text}"
        message = self._write(person, place, text, thread_ts)
        if not place.has_bot:
            self._tell(person, place, NOT_INVITED.format(bot=bot.name), message.thread_ts)
            return self._deliverer.refuse("events_api", text)
        home = self._space.team_of(person)
        event: Json = {
            "type": "app_mention",
            "user": person.id,
            "text": text,
            "ts": message.ts,
            "channel": place.id,
            "event_ts": message.ts,
            "team": home,
            "client_msg_id": secrets.token_hex(16),
        }
        if message.thread_ts:
            event["thread_ts"] = message.thread_ts
        if home != team:
            event |= {"user_team": home, "source_team": home}
        payload: Json = {
            "token": VERIFICATION,
            "team_id": team,
            "api_app_id": bot.app_id,
            "event": event,
            "type": "event_callback",
            "event_id": "Ev" + secrets.token_hex(5).upper(),
            "event_time": int(self._space.clock.now()),
            "is_ext_shared_channel": any(self._space.user(member).team_id for member in place.members),
            "authorizations": [
                {
                    "enterprise_id": None,
                    "team_id": team,
                    "user_id": bot.user_id,
                    "is_bot": True,
                    "is_enterprise_install": False,
                }
            ],
        }
        return await self._deliverer.deliver("events_api", payload, text)

    # -- clicking

    async def click(self, user: str, channel: str, ts: str, action_id: str, value: str | None = None) -> Delivery:
        """Uses a button, or picks the option `value` of a menu. Raises LookupError when the user sees none."""
        person, place = self._member(user, channel)
        message = self._space.messages.get((place.id, ts))
        if message is None or message.viewer not in ("", person.id):
            raise LookupError(f"{person.name} sees no message {ts} in #{place.name}")
        block, element = _element(message.blocks, action_id, value)
        container: Json = {
            "type": "message",
            "message_ts": ts,
            "channel_id": place.id,
            "is_ephemeral": bool(message.viewer),
        }
        if thread_ts := self._thread_of(message):
            container["thread_ts"] = thread_ts
        action = {
            "type": element["type"],
            "action_id": action_id,
            "block_id": block["block_id"],
            "action_ts": self._space.next_ts(),
            **_chosen(element, value),
        }
        payload = self._interaction("block_actions", person) | {
            "container": container,
            "channel": {"id": place.id, "name": place.name},
            "message": self._space.message_shape(message),
            "state": {"values": {}},
            "response_url": self._response_url(person, place, message),
            "actions": [action],
        }
        if not self._space.manifest.interactive:
            self._tell(person, place, NOT_INTERACTIVE, message.thread_ts)
            return self._deliverer.refuse("interactive", f"click on {action_id}")
        delivery = await self._deliverer.deliver("interactive", payload, f"click on {action_id}")
        if delivery.result != "ok":
            self._tell(person, place, CLICK_FAILED.format(error=delivery.result), message.thread_ts)
        return delivery

    # -- modals

    async def submit_view(self, user: str, view_id: str, values: Json) -> Delivery:
        """Sends a modal. values: Slack's own view.state.values, or {block_id: what was entered, or the option's value}.

        A required field left empty stays with the user, as in Slack's own client: the delivery is `refused`.
        """
        person, view = self._own_view(user, view_id)
        state, missing = _state(view, values)
        if missing:
            view.errors = dict.fromkeys(missing, REQUIRED)
            return self._deliverer.refuse("interactive", "a modal with empty fields")
        if not self._space.manifest.interactive:
            view.errors = {"": NOT_INTERACTIVE}
            return self._deliverer.refuse("interactive", f"modal {view.content.get('callback_id', '')}")
        shape = self._space.view_shape(view) | {"state": {"values": state}}
        payload = self._interaction("view_submission", person) | {"view": shape, "response_urls": []}
        delivery = await self._deliverer.deliver("interactive", payload, f"modal {view.content.get('callback_id', '')}")
        if delivery.result == "ok":
            self._answer_view(delivery, view, person)
        else:
            view.errors = {"": f"We had some trouble connecting ({delivery.result}). Try again?"}
            self._space.changed()
        return delivery

    async def close_view(self, user: str, view_id: str) -> Delivery | None:
        """Closes a modal without sending it; the bot is told where the modal asks for that."""
        person, view = self._own_view(user, view_id)
        self._space.close_views([view])
        if not view.content.get("notify_on_close") or not self._space.manifest.interactive:
            return None
        shape = self._space.view_shape(view)
        payload = self._interaction("view_closed", person) | {"view": shape, "is_cleared": False}
        return await self._deliverer.deliver("interactive", payload, "a modal was closed")

    def _answer_view(self, delivery: Delivery, view: View, person: User) -> None:
        body = delivery.body if isinstance(delivery.body, dict) else {}
        action = body.get("response_action")
        if action == "errors":
            view.errors = {str(block): str(text) for block, text in (body.get("errors") or {}).items()}
            self._space.changed()
        elif action in ("update", "push"):
            problems = validate_view(body.get("view"))
            if problems:
                view.errors = {"": f"Slack would not take this modal: {problems[0]}"}
                self._space.changed()
            elif action == "update":
                self._space.fill_view(view, body["view"])
            else:
                self._space.put_view(person.id, body["view"], below=view)
        elif action == "clear":
            self._space.close_views(self._space.open_views(person.id))
        else:
            self._space.close_views([view])

    # -- what several need

    def _member(self, user: str, channel: str) -> tuple[User, Channel]:
        person, place = self._space.user(user), self._space.channel(channel)
        if person.id not in place.members:
            raise LookupError(f"{person.name} is not a member of #{place.name}")
        return person, place

    def _own_view(self, user: str, view_id: str) -> tuple[User, View]:
        person = self._space.user(user)
        view = self._space.views.get(view_id)
        if view is None or view.user != person.id:
            raise LookupError(f"{person.name} has no modal {view_id} open")
        return person, view

    def _write(self, person: User, place: Channel, text: str, thread_ts: str) -> Message:
        parent = self._space.messages.get((place.id, thread_ts))
        if thread_ts and (parent is None or parent.viewer):
            raise LookupError(f"there is no thread {thread_ts} in #{place.name}")
        thread = (parent.thread_ts or parent.ts) if parent else ""
        return self._space.post(Message(place.id, self._space.next_ts(), person.id, text, thread_ts=thread))

    def _thread_of(self, message: Message) -> str:
        if message.thread_ts:
            return message.thread_ts
        return message.ts if len(self._space.thread(message.channel, message.ts)) > 1 else ""

    def _interaction(self, kind: str, person: User) -> Json:
        team = self._space.config.team
        return {
            "type": kind,
            "team": {"id": team.id, "domain": team.domain},
            "user": {
                "id": person.id,
                "username": person.name,
                "name": person.name,
                "team_id": self._space.team_of(person),
            },
            "api_app_id": self._space.config.bot.app_id,
            "token": VERIFICATION,
            "trigger_id": self._space.new_trigger(person.id),
            "enterprise": None,
            "is_enterprise_install": False,
        }

    def _response_url(self, person: User, place: Channel, original: Message | None = None) -> str:
        thread_ts, ts = (original.thread_ts, original.ts) if original else ("", "")
        return f"{self._space.origin}/hooks/{self._space.new_response_url(person.id, place.id, thread_ts, ts)}"

    def _show_answer(self, delivery: Delivery, person: User, place: Channel, command: str) -> None:
        """An acknowledgement may carry the answer itself, as words or as a message."""
        body = {"text": delivery.body} if isinstance(delivery.body, str) else delivery.body
        if not isinstance(body, dict) or not (body.get("text") or body.get("blocks")):
            return
        try:
            self._api.answer(person.id, place.id, body)
        except SlackError as error:
            self._tell(person, place, COMMAND_FAILED.format(command=command, error=error.error))

    def _tell(self, person: User, place: Channel, text: str, thread_ts: str = "") -> None:
        self._space.say_as_slackbot(place.id, person.id, text, thread_ts)


def _elements(blocks: list[Json]) -> Iterator[tuple[Json, Json]]:
    for block in blocks:
        for element in (*block.get("elements", []), block.get("accessory")):
            if isinstance(element, dict) and "action_id" in element:
                yield block, element


def _element(blocks: list[Json], action_id: str, value: str | None) -> tuple[Json, Json]:
    """The element with that action_id, and its block; of several, the one that has this value."""
    there = list(_elements(blocks))
    for block, element in there:
        if element["action_id"] == action_id and (value is None or value in _values(element)):
            return block, element
    names = ", ".join(sorted({element["action_id"] for _, element in there})) or "none"
    with_value = "" if value is None else f" with value {value!r}"
    raise LookupError(f"the message has no {action_id!r}{with_value}; it has: {names}")


def _values(element: Json) -> list[str]:
    if "options" in element:
        return [option["value"] for option in element["options"]]
    return [element.get("value", "")]


def _chosen(element: Json, value: str | None) -> Json:
    """The part of an action that says what was chosen."""
    if "options" not in element:
        return {"text": element["text"]} | ({"value": element["value"]} if "value" in element else {})
    options = [option for option in element["options"] if value in (None, option["value"])]
    return {"selected_option": options[0]}


def _state(view: View, values: Json) -> tuple[Json, list[str]]:
    """What the inputs of a modal hold, in Slack's shape, and the block ids of required ones that hold nothing."""
    state: Json = {}
    missing = []
    for block in view.content["blocks"]:
        if block["type"] != "input":
            continue
        element, block_id = block["element"], block["block_id"]
        entered = _entered(values.get(block_id), element["action_id"])
        state[block_id] = {
            element["action_id"]: {"type": element["type"], **ENTERED[element["type"]](element, entered)}
        }
        if not entered and not block.get("optional"):
            missing.append(block_id)
    return state, missing


def _entered(value: Any, action_id: str) -> Any:
    """The bare value inside `{action_id: {"type": ..., "value": ...}}`, or what stands there instead of it."""
    if isinstance(value, dict):
        value = value.get(action_id)
    if isinstance(value, dict):
        value = value.get("value") or value.get("selected_option") or value.get("selected_options")
    if isinstance(value, list):
        return [item["value"] if isinstance(item, dict) else item for item in value]
    return value["value"] if isinstance(value, dict) else value


def _text(element: Json, entered: Any) -> Json:
    return {"value": str(entered) if entered else None}


def _one(element: Json, entered: Any) -> Json:
    return {"selected_option": next((o for o in element["options"] if o["value"] == entered), None)}


def _several(element: Json, entered: Any) -> Json:
    return {"selected_options": [o for o in element["options"] if o["value"] in (entered or ())]}


ENTERED: dict[str, Callable[[Json, Any], Json]] = {
    "plain_text_input": _text,
    "static_select": _one,
    "radio_buttons": _one,
    "checkboxes": _several,
}
