"""`slack-manifest` is what Slack takes: pasted as it is, the app has all the bot needs, over both transports."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bot import cli
from bot.commands import slack_manifest
from bot.errors import WRONG_USAGE
from lab.slack.config import MANIFEST, load_manifest


def test_it_is_the_one_the_local_slack_grants(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["slack-manifest"]) == 0
    assert capsys.readouterr().out == MANIFEST.read_text()
    assert slack_manifest.scopes() == load_manifest().scopes


def test_over_http_slack_is_told_where_to_send(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["slack-manifest", "--http", "https://calico.example/"]) == 0
    out = capsys.readouterr().out
    app, socket = yaml.safe_load(out), yaml.safe_load(MANIFEST.read_text())
    where = "https://calico.example/slack/events"
    assert app["settings"]["socket_mode_enabled"] is False
    assert app["settings"]["event_subscriptions"] == {"bot_events": ["app_mention"], "request_url": where}
    assert app["settings"]["interactivity"] == {"is_enabled": True, "request_url": where}
    assert [one["url"] for one in app["features"]["slash_commands"]] == [where]
    assert app["oauth_config"] == socket["oauth_config"]
    (tmp_path / "app.yaml").write_text(out)
    assert load_manifest(tmp_path / "app.yaml") == load_manifest()


@pytest.mark.parametrize("url", ["http://calico.example", "calico.example", "https://", "https://calico.example/bot"])
def test_a_url_slack_does_not_take_is_refused(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert cli.main(["slack-manifest", "--http", url]) == WRONG_USAGE
    told = capsys.readouterr()
    assert told.out == "" and "give --http https://HOST" in told.err
