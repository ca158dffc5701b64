"""The bot starts only with settings that can be meant, says what is missing, and prints no secret."""

from __future__ import annotations

import pytest

from bot.commands.serve import slack_settings
from bot.errors import UserError
from bot.slack import api_url, escape_but_mentions
from lab.slack.config import SEED, load_config

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
        ({**SOCKET, "SLACK_API_URL": "https://slack.example.org/api/"}, "your token would go there"),
        ({**SOCKET, "SLACK_API_URL": "http://slack.com/api/"}, "your token would go there"),
        ({**SOCKET, "SLACK_API_URL": "http://127.0.0.1:8000/api/"}, "is for development only"),
        ({**SOCKET, "SLACK_BOT_TOKEN": "xapp-1"}, "SLACK_BOT_TOKEN: this does not look like the bot token"),
        ({**SOCKET, "SLACK_APP_TOKEN": "xoxb-1"}, "SLACK_APP_TOKEN: this does not look like the app-level token"),
        ({**HTTP, "CALICO_WHY_OBSERVE": "127.0.0.1:3000"}, "is where Slack is heard"),
    ],
)
def test_what_is_missing_or_wrong_is_said(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        slack_settings(environment)
    assert sentence in error.value.sentence


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UserError) as error:
        slack_settings(
            {"CALICO_WHY_SLACK_LISTEN": "x", "CALICO_WHY_PROBE_PORT": "x", "SLACK_API_URL": "http://10.0.0.1/"}
        )
    head, *lines = error.value.sentence.splitlines()
    assert head == "5 things are wrong with the configuration:"
    assert [line.split()[0].rstrip(":") for line in lines] == [
        "CALICO_WHY_SLACK_LISTEN",
        "CALICO_WHY_PROBE_PORT",
        "SLACK_BOT_TOKEN",
        "SLACK_APP_TOKEN",
        "SLACK_API_URL",
    ]


def test_no_secret_of_the_local_slack_is_taken_in_production() -> None:
    """Everybody knows them: who reads its source could pose as Slack."""
    local = load_config(SEED)
    secrets = {
        "SLACK_BOT_TOKEN": local.bot_token,
        "SLACK_APP_TOKEN": local.app_token,
        "SLACK_SIGNING_SECRET": local.signing_secret,
    }
    for mode, needed in (("socket", "SLACK_APP_TOKEN"), ("http", "SLACK_SIGNING_SECRET")):
        told = {**secrets, "CALICO_WHY_SLACK_MODE": mode}
        with pytest.raises(UserError) as error:
            slack_settings(told)
        for variable in ("SLACK_BOT_TOKEN", needed):
            assert f"{variable}: this is the local Slack's" in error.value.sentence
        assert slack_settings({**told, "CALICO_WHY_DEVELOPMENT": "1"}).mode == mode


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/api/", "http://localhost:8000/api", "http://[::1]:8000/api/"])
def test_in_development_the_api_may_be_on_this_machine(url: str) -> None:
    assert api_url(url, development=True) == url.rstrip("/") + "/"
    with pytest.raises(UserError):
        api_url(url)


@pytest.mark.parametrize("url", ["https://slack.com/api/", "https://slack-gov.com/api"])
def test_the_api_is_one_of_slacks_own(url: str) -> None:
    assert api_url(url) == url.rstrip("/") + "/"


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/api/",
        "http://127.0.0.1.evil.org/api/",
        "http://127.0.0.1@evil.org/api/",
        "ftp://127.0.0.1/",
        "x",
        "http://slack.com/api/",
        "https://slack.com.evil.org/api/",
        "https://slack.com:8443/api/",
        "https://x@slack.com/api/",
    ],
)
@pytest.mark.parametrize("development", [False, True])
def test_tokens_are_sent_to_no_other_host(url: str, development: bool) -> None:
    with pytest.raises(UserError):
        api_url(url, development=development)


def test_only_people_and_groups_come_alive_in_our_own_sentences() -> None:
    text = "<!subteam^S0NETOPS> or <@U0BO> may; not <!channel>, <https://x|y> & co"
    assert escape_but_mentions(text) == (
        "<!subteam^S0NETOPS> or <@U0BO> may; not &lt;!channel&gt;, &lt;https://x|y&gt; &amp; co"
    )
