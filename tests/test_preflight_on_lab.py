"""`preflight` as people run it, on the lab and in Slack: all in order, and what is missing is named, with a remedy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from bot import cli
from bot.errors import COULD_NOT_JUDGE, WRONG_USAGE
from bot.preflight import cluster as preflight
from bot.preflight.model import NOT, OK, Line
from bot.settings import Settings
from bot.sources.kubernetes import Cluster
from lab.client import Lab
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR, BOT
from tests.fix_cluster import POLICIES, FixCluster, fix_cluster
from tests.runbook_words import context_of
from tests.test_bot_slack import Room, _all_text
from tests.test_lab import Remains


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """A terminal in the bot's pod: `preflight` looks for what the bot needs."""
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)
    yield lab


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    status = cli.main(["preflight", *words])
    return status, capsys.readouterr().out.splitlines()


def test_all_is_in_order_and_what_was_not_looked_at_is_told(here: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = said(capsys)
    assert (status, lines[0]) == (0, "All that was looked at is in order; not looked at: slack, state.")
    assert "-    Slack: not looked at: SLACK_BOT_TOKEN is not set here" in lines
    assert "ok   version of the probes: 0.1.0 on 3 nodes, as here" in lines
    assert "ok   capabilities of the probes: NET_ADMIN, NET_RAW, SYSLOG, SYS_ADMIN, SYS_PTRACE on 3 nodes" in lines
    assert "ok   Calico: v3.32.1, its objects are in crd.projectcalico.org/v1" in lines
    assert "ok   datastore: it is ready (datastoreReady)" in lines
    assert "ok   admission policies: all are there, as in this version" in lines
    assert "ok   clock of the API server: it agrees with the one here" in lines
    assert {line[:2] for line in lines[1:]} == {"- ", "ok"}


def test_a_locked_datastore_is_told_first(here: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    here.inflict("datastore_not_ready")
    status, lines = said(capsys, "calico")
    assert status == COULD_NOT_JUDGE
    assert lines[1].startswith("not  datastore: it is locked (datastoreReady is false). Calico changes nothing in it")


def test_a_probe_that_hangs_is_named_and_the_others_are_judged(here: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    probe = Remains(here).called("probe node-b")
    os.kill(probe, signal.SIGSTOP)
    try:
        status, lines = said(capsys, "nodes", "--deadline", "1")
        again, _ = said(capsys, "rights", "fixes")
    finally:
        os.kill(probe, signal.SIGCONT)
    assert status == COULD_NOT_JUDGE and lines[0] == "1 of 6 things are not in order."
    assert any(line.startswith("ok   certificates of bot and probes: 3 are valid until 20") for line in lines)
    assert lines[1].startswith("not  probe of node-b: its probe at ")
    assert "did not answer in 1 s. Nothing on it can be seen" in lines[1]
    assert "ok   probes: 2 of 3 answer" in lines
    assert again == 0, "a node's probe must not keep a bot down that is started by other parts"


def test_probes_that_nobody_reaches_are_told_for_programs(
    here: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CALICO_WHY_CERTS")
    status, lines = said(capsys, "nodes", "-o", "json")
    told = json.loads("\n".join(lines))
    assert status == COULD_NOT_JUDGE and told["counts"] == {"ok": 0, "not": 1, "unseen": 0, "skipped": 0}
    assert told["lines"][0]["about"] == "probe of node-a, node-b, node-c", "the same trouble is told once"
    assert [(one["node"], one["answered"]) for one in told["nodes"]] == [
        ("node-a", False),
        ("node-b", False),
        ("node-c", False),
    ]


def test_a_missing_right_is_named_with_what_it_means(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lab.environment(denied=["ippools"]).items():
        monkeypatch.setenv(name, value)
    status, lines = said(capsys, "rights")
    assert status == COULD_NOT_JUDGE and lines[0] == "1 of 1 things are not in order."
    assert " may not get, list ippools.crd.projectcalico.org. Answers that rest on it say" in lines[1]
    assert "kubectl apply -k" in lines[1]


def test_in_chinese(here: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = said(capsys, "calico", "--lang", "zh")
    assert lines[0] == "一切正常。" and "ok   数据存储：已就绪（datastoreReady）" in lines


@pytest.mark.parametrize(
    ("words", "hint"), [(["right"], "did you mean rights?"), (["--channel", "#incident"], "--channel C0123ABC")]
)
def test_bad_words_get_the_nearest_form(
    here: Lab, capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    assert cli.main(["preflight", *words]) == WRONG_USAGE
    assert hint in capsys.readouterr().err


def test_where_accepted_questions_are_kept(
    here: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert said(capsys, "state", "--state", str(tmp_path / "state"))[0] == 0
    assert not (tmp_path / "state").exists(), "nothing is changed by looking"
    (tmp_path / "file").touch()
    status, lines = said(capsys, "state", "--state", str(tmp_path / "file"))
    assert status == COULD_NOT_JUDGE and "/file is no directory. A question or a click accepted" in lines[1]
    assert said(capsys, "state")[0] == COULD_NOT_JUDGE
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "")
    status, lines = said(capsys, "approvers")
    assert status == COULD_NOT_JUDGE and lines[1].startswith("not  approvers: CALICO_WHY_APPROVERS is empty")


# ---- Slack


@pytest.fixture
async def slack(here: Lab, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[LocalSlack]:
    async with LocalSlack() as slack:
        monkeypatch.setenv("CALICO_WHY_DEVELOPMENT", "1")
        monkeypatch.setenv("SLACK_API_URL", slack.base_url)
        monkeypatch.setenv("CALICO_WHY_DEVELOPMENT", "1")
        monkeypatch.setenv("SLACK_BOT_TOKEN", slack.bot_token)
        monkeypatch.setenv("SLACK_APP_TOKEN", slack.app_token)
        yield slack


async def beside(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """In a thread: the Slack of the test runs in this one."""
    return await asyncio.to_thread(said, capsys, *words)


async def test_slack_is_in_order(
    slack: LocalSlack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALICO_WHY_APPROVERS", "S0NETOPS")
    status, lines = await beside(capsys, "slack")
    assert (status, lines[0]) == (0, "All is in order.")
    assert "ok   scopes: those of the manifest, and no more" in lines
    assert "ok   app token: Slack says where Socket Mode connects to" in lines
    assert "ok   approvers' group S0NETOPS: 2 people" in lines


async def test_wrong_tokens_and_a_missing_scope_are_told_apart(
    slack: LocalSlack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = slack.workspace.manifest
    slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=manifest.scopes - {"files:write"})
    status, lines = await beside(capsys, "slack")
    assert status == COULD_NOT_JUDGE and lines[1].startswith("not  scopes: the app lacks files:write. Slack refuses")
    assert "calico-why slack-manifest" in lines[1]
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp-wrong")
    _, lines = await beside(capsys, "slack")
    assert any(line.startswith("not  app token: Slack does not accept the token (invalid_auth).") for line in lines)
    assert any(line.startswith("ok   bot token: ") for line in lines)
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-wrong")
    _, lines = await beside(capsys, "slack")
    assert any(line.startswith("not  bot token: Slack does not accept the token (invalid_auth).") for line in lines)
    monkeypatch.delenv("SLACK_APP_TOKEN")
    _, lines = await beside(capsys, "slack")
    assert lines[1].startswith("not  Slack: SLACK_APP_TOKEN is not set")


async def test_whether_the_bot_is_in_a_channel(slack: LocalSlack, capsys: pytest.CaptureFixture[str]) -> None:
    slack.workspace.channels["incident"].members.remove("U0EVE")  # whose workspace it is shared with
    status, lines = await beside(capsys, "slack", "--channel", "C0INCIDENT")
    assert status == 0 and "ok   channel #incident (C0INCIDENT): the bot is in it" in lines
    elsewhere = [word for one in ("C0GENERAL", "C0LEADS", "C0NOWHERE") for word in ("--channel", one)]
    status, lines = await beside(capsys, "slack", *elsewhere)
    assert status == COULD_NOT_JUDGE
    assert lines[1].startswith("not  channel #general (C0GENERAL): the bot is not in it. Nobody there gets an answer")
    for line, channel in zip(lines[2:4], ("C0LEADS", "C0NOWHERE"), strict=True):
        assert line.startswith(f"not  channel {channel}: the bot is not in it, or there is no such channel.")


async def test_what_an_app_of_an_older_manifest_may_not_see_is_not_known(
    slack: LocalSlack, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = slack.workspace.manifest
    older = manifest.scopes - {"channels:read", "groups:read"}
    slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=older)
    status, lines = await beside(capsys, "slack", "--channel", "C0INCIDENT")
    assert status == COULD_NOT_JUDGE and lines[1].startswith("not  scopes: the app lacks channels:read, groups:read.")
    assert lines[2].startswith("?    channel C0INCIDENT: the app lacks channels:read, groups:read. Whether the bot")
    assert "calico-why slack-manifest" in lines[2]
    slack.workspace.manifest = msgspec.structs.replace(manifest, scopes=older | {"groups:read"})
    _, lines = await beside(capsys, "slack", "--channel", "C0INCIDENT")
    assert any(line.startswith("?    channel C0INCIDENT: The app lacks the scope channels:read.") for line in lines)


async def test_a_channel_that_another_workspace_reads_is_told(
    slack: LocalSlack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, lines = await beside(capsys, "slack", "--channel", "C0INCIDENT")
    assert status == COULD_NOT_JUDGE
    assert lines[1].startswith("not  channel #incident (C0INCIDENT): it is shared with another workspace. People of")
    for setting, said in (("refuse", "so the bot answers nothing there"), ("answer", "the bot is in it")):
        monkeypatch.setenv("CALICO_WHY_SLACK_SHARED", setting)
        status, lines = await beside(capsys, "slack", "--channel", "C0INCIDENT")
        assert status == 0 and any("(C0INCIDENT): " in line and line.endswith(said) for line in lines)
    monkeypatch.setenv("CALICO_WHY_SLACK_SHARED", "no")
    assert (await beside(capsys, "slack"))[0] == WRONG_USAGE


async def test_the_channel_of_the_question_is_looked_at(slack: LocalSlack, lab: Lab, tmp_path: Path) -> None:
    async with fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        async with context_of(lab.environment()) as room.context, room.bot():
            await room.ask("/calico preflight slack")
            text = _all_text(await room.answered("things are not in order"))
            assert "channel #incident (C0INCIDENT): it is shared with another workspace." in text


async def test_in_slack(lab: Lab, tmp_path: Path) -> None:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room("socket", slack, cluster, store, tmp_path / "state")
        async with context_of(lab.environment()) as room.context, room.bot():
            await room.ask("/calico preflight calico nodes")
            text = _all_text(await room.answered("All is in order."))
            assert "ok   probes: 3 of 3 answer" in text and "datastoreReady" in text
            await room.ask("/calico preflight node")
            assert await room.whisper("ana", "did you mean nodes?")


# ---- what fixes rest on


@contextlib.asynccontextmanager
async def looked_at(cluster: FixCluster) -> AsyncGenerator[Cluster]:
    async with Cluster(Settings(kubeconfig=cluster.kubeconfig(BOT))) as looking:
        yield looking


async def fixes(cluster: FixCluster) -> list[Line]:
    async with looked_at(cluster) as looking:
        return await preflight.fixes(looking, await preflight.served(looking))


async def test_kinds_and_policies_that_nobody_installed(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path, with_crd=False) as cluster:
        (line,) = await fixes(cluster)
    assert line.state == NOT and "does not serve fixrequests.calico-why.io" in line.found
    assert "kubectl apply -k fixes/" in line.remedy
    async with fix_cluster(tmp_path) as cluster:
        kinds, *policies = await fixes(cluster)
    assert kinds.state == OK and {one.state for one in policies} == {NOT}
    assert "there is no ValidatingAdmissionPolicy calico-why-fixrequests" in {str(one.found) for one in policies}


async def test_a_policy_that_denies_less_is_not_the_one_of_this_version(tmp_path: Path) -> None:
    async with fix_cluster(tmp_path, with_policies=True) as cluster:
        assert {one.state for one in await fixes(cluster)} == {OK}
    async with fix_cluster(tmp_path) as cluster:
        for one in yaml.safe_load_all(POLICIES.read_text()):
            weak = one["kind"].endswith("Binding") and one["metadata"]["name"] == "calico-why-switch"
            cluster.objects.create({**one, "spec": {**one["spec"], "validationActions": ["Audit"]}} if weak else one)
        _, line = await fixes(cluster)
    assert line.state == NOT
    assert line.found == "ValidatingAdmissionPolicyBinding calico-why-switch is not the one of this version"
