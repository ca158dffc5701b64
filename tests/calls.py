"""What the accounts of deploy/ asked the API servers of a whole test run for, compared with what they may; without it a
right that one test needs, or none does, would be found by who installs.

Every API server of a session writes each call down once, in whatever process it runs (lab/apiserver/calls.py). At the
end a call that no right covers fails the session, also of one test alone; so does a right that no call used, but only
where all tests ran: a few use a few.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lab.apiserver import Call, rbac
from lab.apiserver.calls import CALLS, NOW, Noted, Outcome, read
from lab.apiserver.rbac import Grant
from lab.settings import RBAC
from tests import deployed, exhaustive
from tests.deployed import ASKER, NAMESPACE, PEOPLE

# Of a run of all tests, in pytest's cache: what failed may be run again, and ask for the rest.
KEPT = "calico-why-calls"
BEFORE = "CALICO_WHY_CALLS_BEFORE"  # the directory of the run that this one goes on with
# They try what they have others do: who may not write may not try it either, and then the fixer does.
TRYING = (deployed.BOT, ASKER)
ON_PURPOSE = "on purpose"  # goes on while a test looks at what is refused
# Verbs that nobody calls: fixes/admission.yaml asks whether somebody has them, and so does the product.
SAID_ONLY = set(re.findall(r"check\('([a-z-]+)'\)", (deployed.DEPLOY.parent / "fixes" / "admission.yaml").read_text()))
# Options of a session that runs fewer tests than there are.
FEWER = ("keyword", "markexpr", "lf", "deselect", "ignore", "ignore_glob", "stepwise", "collectonly")


def rights() -> dict[str, tuple[Grant, ...]]:
    """Of each account by its short name, where Calico's own pods are in kube-system."""
    manifests = [*deployed.manifests(), *deployed.bindings()]
    return {who: rbac.grants(manifests, rbac.account(who, NAMESPACE)) for who in (*deployed.ACCOUNTS, *PEOPLE)}


def refused(noted: Iterable[Noted]) -> list[str]:
    """A sentence for each call of the product that no right covers."""
    short = {rbac.account(who, NAMESPACE): who for who in rights()}
    found: dict[Call, str] = {}
    for one in sorted(noted):
        who = short.get(one.user)
        if who is None or one.outcome == Outcome.GRANTED or one.during == ON_PURPOSE:
            continue
        if one.outcome == Outcome.TRIED and who in TRYING:
            continue
        named = f' "{one.name}"' if one.name else ""
        place = f" in the namespace {one.namespace}" if one.namespace else ""
        found.setdefault(
            one.call,
            f"{who} may not {one.verb} {_word(one.call)}{named} of the API group {one.group!r}{place}, and asked to"
            f" in {one.during or 'a test'}. Grant it in deploy/, or do not ask.",
        )
    return list(found.values())


def unused(noted: Iterable[Noted]) -> list[str]:
    """A sentence for each right that no call used."""
    by: dict[str, set[Call]] = {}
    for one in noted:
        place = deployed.PLACES[0] if one.namespace in deployed.PLACES else one.namespace
        by.setdefault(one.user, set()).add(one.call._replace(namespace=place))
    everybodys, found = set(rbac.grants([], "")), []
    used: set[Grant] = set()
    for who, granted in rights().items():
        for call in by.get(rbac.account(who, NAMESPACE), ()):
            used.update(
                one for one in granted if one.covers(call.verb, call.group, _word(call), call.namespace, call.name)
            )
    holders: dict[Grant, list[str]] = {}
    for who, granted in rights().items():
        for one in dict.fromkeys(granted):
            holders.setdefault(one, []).append(who)
    for one, whose in holders.items():
        if one in used | everybodys or (one.group == "calico-why.io" and one.verb in SAID_ONLY):
            continue
        named = f" {', '.join(one.names)}" if one.names else ""
        place = f" in the namespace {one.namespace}" if one.namespace else ""
        found.append(
            f"{' and '.join(whose)} may {one.verb} {one.resource}{named} of the API group {one.group!r}{place}, and"
            " nobody asked to. Take it out of deploy/, or have a test do what needs it."
        )
    return found


@contextlib.contextmanager
def on_purpose() -> Iterator[None]:
    """What is refused meanwhile a test wants to see refused."""
    now = Path(os.environ[CALLS]) / NOW
    before = now.read_text()
    now.write_text(ON_PURPOSE)
    try:
        yield
    finally:
        now.write_text(before)


def _word(call: Call) -> str:
    return f"{call.resource}/{call.subresource}" if call.subresource else call.resource


# ---- in a session


class Here:
    """Of each process that runs tests: where its API servers write, and during what."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        os.environ[CALLS] = str(directory)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        (self._directory / NOW).write_text(nodeid.partition("::")[0])


class Comparison:
    """Of the process that started them. In its environment all labs find the rights that they hold the product to."""

    def __init__(self, config: pytest.Config) -> None:
        before = os.environ.pop(BEFORE, "")
        self._all = bool(before) or runs_all(config)
        self._begun_anew = not before
        self._kept = False  # for who runs again what failed
        self._found: list[str] = []
        cache = getattr(config, "cache", None)
        if before:
            self.directory = Path(before)
        elif self._all and cache is not None:
            self.directory = cache.mkdir(KEPT)
            shutil.rmtree(self.directory)
        else:
            self.directory = Path(tempfile.mkdtemp(prefix="calico-why-calls-"))
        rights = self.directory / "rights"
        rights.mkdir(parents=True, exist_ok=True)
        deployed.write(rights)
        os.environ[RBAC] = str(rights)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        noted = read(self.directory)
        self._found = refused(noted)
        # Where this machine forbids labs, nobody asks for most: not even a person in a terminal for anything.
        labs = any(one.user == rbac.account(ASKER, NAMESPACE) for one in noted)
        if self._all and labs and exitstatus == pytest.ExitCode.OK:
            self._found += unused(noted)
        if self._found and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._kept = self._all and self._begun_anew and exitstatus == pytest.ExitCode.TESTS_FAILED

    def pytest_unconfigure(self) -> None:
        if not self._kept:
            shutil.rmtree(self.directory, ignore_errors=True)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._found:
            return
        terminalreporter.section("rights of deploy/ against calls", red=True, bold=True)
        for sentence in self._found:
            terminalreporter.line(sentence)


def plugins(config: pytest.Config) -> list[object]:
    """What takes part in this process: a worker of xdist, or the one that everybody starts from."""
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is not None:
        return [Here(Path(os.environ[CALLS]).with_name(worker["workerid"]))]
    comparison = Comparison(config)
    return [comparison, Here(comparison.directory / "alone")]


def runs_all(config: pytest.Config) -> bool:
    """Every file, and every cell of what tests/exhaustive.py leaves out else."""
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS and exhaustive.wanted()
    return everything and not any(config.getoption(name, None) for name in FEWER)
