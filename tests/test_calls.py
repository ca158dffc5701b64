"""A session fails for a call that no right of deploy/ covers, and where all tests ran for a right that no call used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import exhaustive

ROOT = Path(__file__).parents[1]
CONFTEST = "from tests.conftest import pytest_configure"
ASKING = """
import asyncio, json, os, urllib.error, urllib.request
from dataclasses import replace
from pathlib import Path
from lab.apiserver import ApiServer, Store, rbac
from lab.apiserver.calls import CALLS, Noted, Outcome
from tests import calls, deployed

async def ask(path, denied=()):
    bot = replace(deployed.user(deployed.BOT), denied=frozenset(denied))
    server = ApiServer(Store(), {"bot": bot})
    url = await server.start()
    request = urllib.request.Request(url + path, headers={"Authorization": "Bearer bot"})
    try:
        await asyncio.to_thread(urllib.request.urlopen, request)
    except urllib.error.HTTPError as error:
        assert error.code == 403
    await server.stop()

def use(*without):
    noted = [
        Noted(one.verb, one.group, *word, rbac.account(who, calls.NAMESPACE), one.namespace, name, Outcome.GRANTED, "")
        for who, granted in calls.rights().items()
        for one in granted
        for word in [(one.resource + "/").split("/")[:2]]
        for name in one.names or [""]
        if (one.verb, one.resource) not in without
    ]
    path = Path(os.environ[CALLS]) / "all.calls"
    path.write_text("".join(json.dumps(one) + "\\n" for one in noted))
"""
REFUSED = "calico-why-bot may not list secrets of the API group '' in the namespace shop, and asked to in test_one.py."
UNUSED = "calico-why-bot may create events of the API group '' in the namespace calico-why, and nobody asked to."
EVENTS = '("create", "events")'


def program(directory: Path, *words: str, every_cell: str = "1") -> tuple[int, str]:
    """`python -m WORDS` where the tests are: its exit status, and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), exhaustive.ALL: every_cell}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=directory, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a project of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\nasyncio_mode = auto\n")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "asking.py").write_text(ASKING)
    (tmp_path / "test_another.py").write_text("def test_nothing():\n    pass\n")
    return tmp_path


def write(directory: Path, *lines: str) -> None:
    """The tests of test_one.py, a line each."""
    made = [f"async def test_{number}():\n    {line}\n" for number, line in enumerate(lines)]
    (directory / "test_one.py").write_text("\n".join(["from asking import *", *made]))


def test_a_call_that_no_right_covers_fails_the_session_and_what_is_refused_on_purpose_does_not(directory: Path) -> None:
    secrets = "/api/v1/namespaces/shop/secrets"
    wanted = f"with calls.on_purpose():\n        await ask({secrets!r})"
    granted, denied = 'await ask("/api/v1/pods")', 'await ask("/api/v1/nodes", [("*", "*", "nodes")])'
    write(directory, granted, denied, wanted)
    status, said = program(directory, "pytest", "test_one.py")
    assert status == 0, said
    write(directory, granted, denied, wanted, f"await ask({secrets!r})")
    status, said = program(directory, "pytest", "-n", "2", "test_another.py", "test_one.py")
    assert (status, REFUSED in said, "5 passed" in said) == (1, True, True), said
    assert said.count("Grant it in deploy/") == 1


def test_a_right_that_no_call_used_fails_a_run_of_all_tests_alone(directory: Path) -> None:
    write(directory, f"use({EVENTS})")
    status, said = program(directory, "pytest")
    assert (status, UNUSED in said, said.count("nobody asked to")) == (1, True, 1), said
    status, said = program(directory, "pytest", "-k", "one")
    assert status == 0, said
    status, said = program(directory, "pytest", every_cell="")
    assert status == 0, said


def test_what_failed_and_is_run_again_goes_on_with_the_calls_of_the_rest(directory: Path) -> None:
    second = "flag = Path('flag'); again = flag.exists(); flag.touch(); assert again"
    for uses, status, told in (("use()", 0, 0), (f"use({EVENTS})", 1, 1)):
        write(directory, uses, second)
        assert program(directory, "pytest")[0] == 1
        found, said = program(directory, "tests.again")
        assert (found, said.count(UNUSED)) == (status, told), said
        (directory / "flag").unlink()
        assert not list(directory.glob(".pytest_cache/d/*"))
