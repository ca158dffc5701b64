"""The log of each program: a line is whole, says what it is about, and holds no secret however it came there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from facts import redaction
from facts.redaction import hide, redact

ROOT = Path(__file__).parents[1]
SIGNING = "8f742231b10e8888abcd99yyyzzz85a5"
PLANTED = "xoxb-900-planted-in-an-error"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())
    hide(SIGNING, "short")


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("auth failed for xoxb-12-34-abcDEF", "12-34-abcDEF"),
        ("xoxe.xoxp-1-abc", "1-abc"),
        ("app token xapp-1-A0-b_c", "1-A0-b_c"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("POST https://hooks.slack.com/commands/T1/2/xyz failed", "xyz"),
        ("sent to http://127.0.0.1:9/hooks/k3y", "k3y"),
        ("wss://x https://wss-primary.slack.com/link/?ticket=abc https://h/link/t1ck", "t1ck"),
        ("{'token': 'legacyT0ken', 'team': 'T1'}", "legacyT0ken"),
        ('{"token": "legacyT0ken"}', "legacyT0ken"),
        ("token=legacyT0ken&team_id=T1", "legacyT0ken"),
        ("xoxa-2-a xoxo-b xoxs-3-c xoxr-4-d", "3-c"),
        ("authorization: bearer sekretvalue", "sekretvalue"),
        ("Authorization: Basic dXNlcjpwdw==", "dXNlcjpwdw"),
        ("OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20sekretvalue", "sekretvalue"),
        ("InvalidURL: wss://wss-primary.slack.com/link/?ticket=sekret&app_id=1", "sekret"),
        ("respond to https://hooks.slack.com/actions/T1/2/sekret", "sekret"),
        ("the proxy http://me:sekret@proxy:3128 cannot be reached", "sekret"),
        ("401 for eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\nx9\n-----END EC PRIVATE KEY-----", "MHcCAQ"),
        ("of the shell: SLACK_SIGNING_SECRET=8f742231b10e8888abcd99yyyzzz85a5", "8f742231"),
    ],
)
def test_no_secret_in_a_log_line(line: str, secret: str) -> None:
    assert secret not in redact(line)
    assert "[secret]" in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "fx-abcdefgh: Verified. 10.244.218.64 on vxlan.calico is 66:89:3a:22:7a:ac now.",
        "SLACK_BOT_TOKEN is not set; it is the bot token (xoxb-...).",  # how a token begins is what somebody looks for
    ],
)
def test_ordinary_lines_stay_readable(line: str) -> None:
    assert redact(line) == line


def test_a_short_secret_blackens_no_words() -> None:
    assert redact("a short line") == "a short line"


SCRIPT = """
import asyncio, logging, sys, threading, warnings
from facts import logs
logs.start({form!r})
token = {token!r}

class Strange:
    def __del__(self): raise RuntimeError(token)

def thread(): raise RuntimeError(token)

async def task(): raise RuntimeError(token)

async def main():
    with logs.about(question="Ev1"):
        await asyncio.to_thread(logging.info, "asked\\nin two lines")
    for work in (asyncio.ensure_future(task()),): await asyncio.wait({{work}})
    del work
    asyncio.get_running_loop().call_soon(lambda: 1 / len(token[:0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

{what}
"""
WAYS = {
    "message": "logging.warning('it is %s', token)",
    "exception": "try: raise RuntimeError(token)\nexcept RuntimeError: logging.exception('broke')",
    "cause": "try:\n  try: raise OSError(token)\n  except OSError as e: raise RuntimeError('x') from e\n"
    "except RuntimeError: logging.exception('broke')",
    "stack": "logging.warning('here', stack_info=True)",
    "a message that cannot be put together": "logging.warning('%d', token)",
    "a warning": "warnings.warn(token)",
    "a thread": "one = threading.Thread(target=thread); one.start(); one.join()",
    "a finalizer": "one = Strange(); del one",
    "a task nobody waits for": "asyncio.run(main()); import gc; gc.collect()",
    "the end": "raise SystemError(token)",
}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("way", WAYS)
def test_what_goes_wrong_anywhere_is_told_without_the_token(way: str, form: str) -> None:
    script = SCRIPT.format(form=form, token=PLANTED, what=WAYS[way])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr
    assert "planted-in-an-error" not in done.stderr + done.stdout
    if form == "json":
        lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)


def test_a_line_of_json_says_which_question_it_is_about_and_stays_one_line() -> None:
    script = SCRIPT.format(form="json", token=PLANTED, what=WAYS["a task nobody waits for"])
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    first, *rest = [json.loads(line) for line in done.stderr.splitlines()]
    assert (first["message"], first["question"]) == ("asked\nin two lines", "Ev1")
    assert rest and all("question" not in line for line in rest)
    assert any("RuntimeError: [secret]" in line.get("error", "") for line in rest)


@pytest.mark.parametrize("word", ["bot", "probe", "fixer"])
def test_another_form_is_answered_with_those_there_are(word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", word, *(["--node", "a"] if word != "bot" else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"CALICO_WHY_LOG": "xml", "PATH": ""},
    )
    assert done.returncode == 2
    assert re.search(r"'xml' is .*\btext (nor|or) json", done.stderr), done.stderr


def test_an_unforeseen_end_leaves_no_token_on_the_terminal_or_in_its_file(tmp_path: Path) -> None:
    code = (
        "import sys; from bot import cli\n"
        "def broken(words): raise RuntimeError('" + PLANTED + "')\n"
        "cli._run = broken; sys.exit(cli.main(sys.argv[1:]))"
    )
    for words in (["why"], ["--debug", "why"]):
        environment = {"CALICO_WHY_STATE": str(tmp_path), "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 3 and "planted-in" not in done.stderr + done.stdout
        assert ("RuntimeError: [secret]" in done.stderr) == (words[0] == "--debug")
    (file,) = tmp_path.iterdir()
    assert "RuntimeError: [secret]" in file.read_text() and "planted-in" not in file.read_text()
