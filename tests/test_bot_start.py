"""The bot starts only with settings that can be meant, says what is missing, and prints no secret."""

from __future__ import annotations

import pytest

from bot.commands.serve import slack_settings
from bot.errors import UserError
from bot.slack import api_url, escape_but_mentions

SOCKET = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1"}
HTTP = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_SIGNING_SECRET": "s", "CALICO_WHY_SLACK_MODE": "http"}


def test_both_modes_start_with_what_they_need() -> None:
    assert slack_settings(SOCKET).mode == "socket"
    assert slack_settings(SOCKET).api_url == "https://slack.com/api/"
    found = slack_settings({**HTTP, "CALICO_WHY_SLACK_LISTEN": "[::1]:8080"})
    assert (found.mode, found.listen) == ("http", ("::1", 8080))


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "SLACK_BOT_TOKEN is not set"),
        ({"SLACK_BOT_TOKEN": "x"}, "SLACK_APP_TOKEN is not set"),
        ({**HTTP, "SLACK_SIGNING_SECRET": ""}, "SLACK_SIGNING_SECRET is not set"),
        ({**SOCKET, "CALICO_WHY_SLACK_MODE": "pigeon"}, "it is socket or http"),
        ({**HTTP, "CALICO_WHY_SLACK_LISTEN": "8080"}, "host:port"),
        ({**HTTP, "CALICO_WHY_SLACK_LISTEN": "localhost:x"}, "host:port"),
        ({**SOCKET, "SLACK_API_URL": "https://slack.example.org/api/"}, "not on this machine"),
    ],
)
def test_what_is_missing_or_wrong_is_said(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        slack_settings(environment)
    assert sentence in error.value.sentence


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/api/", "http://localhost:8000/api", "http://[::1]:8000/api/"])
def test_the_api_may_be_on_this_machine(url: str) -> None:
    assert api_url(url) == url.rstrip("/") + "/"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/api/",
        "http://127.0.0.1.evil.org/api/",
        "http://127.0.0.1@evil.org/api/",
        "ftp://127.0.0.1/",
        "x",
    ],
)
def test_tokens_are_sent_to_no_other_host(url: str) -> None:
    with pytest.raises(UserError):
        api_url(url)


def test_only_people_and_groups_come_alive_in_our_own_sentences() -> None:
    text = "<!subteam^S0NETOPS> or <@U0BO> may; not <!channel>, <https://x|y> & co"
    assert escape_but_mentions(text) == (
        "<!subteam^S0NETOPS> or <@U0BO> may; not &lt;!channel&gt;, &lt;https://x|y&gt; &amp; co"
    )
