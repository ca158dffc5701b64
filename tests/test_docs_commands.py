"""Every command in the pages does what they say: it is run on a lab, or read by the program it is for. A page that has
people type what nobody understands any more is worse than none, at three in the morning above all."""

from __future__ import annotations

import argparse
import ast
import asyncio
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot import asking, cli, in_terminal, speech, words
from bot.capture import wanted
from bot.errors import UserError
from bot.trail import audit_said, fixes_said
from fixes.audit import Audit
from fixes.store import connect
from lab.client import Lab
from lab.settings import SIGNER
from tests.doc_commands import (
    CLUSTER,
    MODULES,
    NODE_TOOLS,
    OURS,
    PAGES,
    PLACEHOLDERS,
    ROOT,
    SLACK,
    TOOLS,
    Written,
    commands,
    first,
    is_command,
    typed,
    written,
)

WRITE = ("create", "apply", "replace")  # whose files need not be there

# What stays until it is stopped, or takes minutes: understood here, run as a program by the test file of this name.
STAYS = {
    "bot": ("test_tracing.py", '"bot.cli", "bot"'),
    "probe": ("test_lab.py", '"bot.cli", "probe", "--node", "node-a", "--certs"'),
    "fixer --cluster": ("test_cluster_fixes.py", '"bot.cli", "fixer", "--cluster"'),
    "fixer --node": ("test_executor.py", '"bot.cli", "fixer", "--node", "node-a"'),
    "lab up": ("test_lab.py", 'command_line("up"'),
    "lab down": ("test_lab.py", 'command_line("down"'),
    "ipam check --watch": ("test_ipam_check_on_lab.py", '"bot.cli", "ipam", "check", "--watch"'),
    "why --watch": ("test_watch.py", '"bot.cli", "why", *PAIR.split(), "--watch"'),
}
# Exit status where it is not 0. In a healthy lab nothing leaks, and between its pods nobody sends; it has no IPv6.
STATUS = {
    "calico-why ipam release --ip 10.244.1.7": 1,
    "calico-why audit verify sha256:" + "0" * 64: 3,
    "calico-why preflight slack": 3,  # there is none
    "calico-why preflight slack rights fixes": 3,
    "calico-why preflight slack --channel C0123ABC": 3,
    "calico-why preflight approvers slack": 3,
    "calico-why approve fx-abcdefgh": 3,  # who asked is no second person
    "calico-why capture shop/cart shop/db": 3,
    "calico-why capture shop/cart shop/db 5432/tcp": 3,
    "calico-why capture shop/cart shop/db 5432/tcp --seconds 10": 3,
    "calico-why why shop/cart fd00::5": 3,
    "calico-why lab inflict neighbor_wrong_mac --family 6": 2,
    "calico-why fixes now fx-abcdefgh": 2,  # it waits for a person, not for its second look
}
SHORTER = {"capture": ["--seconds", "1"]}

WRITTEN = list(written())
COMMANDS = commands()


def ours(one: Written) -> list[list[str]]:
    """The words after calico-why, for each way to read them; none where it is another program's."""
    text = one.text
    if inner := re.fullmatch(r'eval "\$\((.*)\)".*', text):
        text = inner[1]
    found = list[list[str]]()
    for words_ in typed(text):
        word = words_[0].removeprefix(".venv/bin/")
        if word == OURS:
            found.append(words_[2:] if words_[1:2] == ["--debug"] else words_[1:])
        elif word in MODULES and not one.block:
            found.append(words_)
        elif "--" in words_ and words_[words_.index("--") + 1 :][:1] == [OURS]:
            found.append(words_[words_.index("--") + 2 :])  # kubectl exec POD -- calico-why ...
    return found


@functools.cache
def parser_of(word: str) -> asking.Parser:
    module: Any = importlib.import_module(MODULES[word])
    parser = asking.Parser(prog=f"{OURS} {word}", description=module.HELP)
    if hasattr(module, "answer"):
        module.add_words(parser)
        in_terminal.add_arguments(parser)
    else:
        module.add_arguments(parser)
    return parser


def below(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the subcommand that these words name. Raises UserError for one that is not there."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and argv and not argv[0].startswith("-"):
            if argv[0] not in action.choices:
                raise UserError(f"{parser.prog} has no {argv[0]}")
            return below(action.choices[argv[0]], argv[1:])
    return parser


def understood(argv: Sequence[str], *, whole: bool) -> bool:
    """Whether it can be typed as it is; where not, and it need not be, what it names is there. Raises UserError."""
    word, rest = argv[0], list(argv[1:])
    if word in ("--help", "help"):
        return True
    if word not in MODULES:
        raise UserError(f"{OURS} has no {word}")
    parser, module = parser_of(word), importlib.import_module(MODULES[word])
    if "…" not in rest:
        try:
            args = parser.parse_args(rest)
            if check := word not in WRITE and getattr(module, "check_words", None):
                check(args, "")
            if meant := {
                "fixes": lambda: fixes_said(args.words),
                "audit": lambda: audit_said(args.words),
                "why": lambda: words.parse(words.watched(args.words)[0]),
                "policy": lambda: words.parse(args.words),
                "capture": lambda: wanted(args.words, seconds=args.seconds, packets=args.packets, payload=args.payload),
                **dict.fromkeys(WRITE, lambda: args.file or parser.error("-f FILE is missing")),
                "certs": lambda: args.nodes or parser.error("--nodes NODE is missing"),
            }.get(word):
                meant()
            return True
        except (asking.HelpAsked, SystemExit):
            return True
        except UserError:
            if whole:
                raise
    leaf = below(parser, [one for one in rest if one != "…"])
    for flag in rest:
        if flag.startswith("-") and flag != "--" and flag.split("=")[0] not in leaf._option_string_actions:
            raise UserError(f"{leaf.prog} has no {flag}")
    return False


def stays(argv: Sequence[str]) -> str:
    """The key of STAYS that this is, "" where it ends by itself."""
    given = list(argv)
    if given[0] == "why" and "watch" in given:
        given.append("--watch")
    return next((key for key in STAYS if set(key.split()) <= set(given) and key.split()[0] == given[0]), "")


def whole(one: Written) -> list[list[str]]:
    return [argv for argv in ours(one) if understood(argv, whole=one.block)]


def test_nothing_is_written_as_a_command_that_is_none_we_know() -> None:
    """A line of a code block is of a program that a test looks at, and so is what begins with a program's name."""
    known = {OURS, "eval", *SLACK, *CLUSTER, *NODE_TOOLS, *TOOLS, *MODULES}
    assert [str(one) for one in COMMANDS if first(one.text) not in known] == []
    others = {"curl", "crictl", "dig", "dmesg", "ethtool", "journalctl", "nsenter", "ping", "systemctl", "tcpdump"}
    missed = [
        str(one)
        for one in WRITTEN
        if not is_command(one) and " " in one.text and (first(one.text) in others or is_program(one.text))
    ]
    assert missed == []


def is_program(text: str) -> bool:
    """Sentences of ours are none, which have an ellipsis for what is told."""
    return first(text).islower() and "…" not in text and shutil.which(first(text)) is not None


def test_what_stays_is_run_elsewhere() -> None:
    """Under the names of a page's own command, by the file that is named."""
    assert [key for key, (path, how) in STAYS.items() if how not in (ROOT / "tests" / path).read_text()] == []
    used = {stays(argv) for one in COMMANDS for argv in ours(one)}
    assert STAYS.keys() - used == set(), "no page has it any more"
    run = {shlex.join([OURS, *argv]) for one in COMMANDS for argv in ours(one)}
    assert STATUS.keys() - run == set(), "no page has it any more"


OWN = [one for one in COMMANDS if ours(one)]


def test_every_command_of_ours_is_understood() -> None:
    """By the parsers that read it when it is typed: words, subcommands, flags, names and ports."""
    wrong = list[str]()
    for one in OWN:
        try:
            whole(one)
        except UserError as error:
            wrong.append(f"{one}\n  {error.sentence}")
    assert wrong == []


PARTS = ("bot", "certificates", "engine", "facts", "fixes", "lab", "node_probe")


def sentences() -> Iterator[Written]:
    """What stands in backquotes in a text of our code that is no docstring."""
    for path in sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py")):
        tree = ast.parse(path.read_text())
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                for text in re.findall("`([^`]+)`", node.value):
                    yield Written(str(path.relative_to(ROOT)), node.lineno, " ".join(text.split()))


def test_every_command_that_our_own_sentences_tell_people_is_understood() -> None:
    """Remedies, refusals and help have people type it, too."""
    found = [one for one in sentences() if is_command(one) and "..." not in one.text and ours(one)]
    assert len(found) > 30
    wrong = list[str]()
    for one in found:
        try:
            whole(one)
        except UserError as error:
            wrong.append(f"{one}\n  {error.sentence}")
    assert wrong == []


def typeable() -> dict[str, list[str]]:
    """Each command of ours that can be typed as it stands, once."""
    found = dict[str, list[str]]()
    for one in OWN:
        try:
            for argv in whole(one):
                found.setdefault(shlex.join([OURS, *argv]), argv)
        except UserError:
            continue  # told by the test above
    return {text: argv for text, argv in found.items() if not stays(argv)}


TYPEABLE = typeable()


@pytest.fixture(scope="module")
def desk(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of somebody who reads the pages with the rights of people, and has the files they speak of."""
    shared_lab.heal()
    directory = tmp_path_factory.mktemp("desk")
    (directory / "policy.yaml").write_text(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: allow-db, namespace: shop}\n"
        "spec: {selector: \"app == 'db'\", types: [Ingress], ingress: [{action: Allow}]}\n"
    )
    shutil.copy(shared_lab.person()["KUBECONFIG"], directory / "kubeconfig")
    (directory / "slack.env").write_text("SLACK_BOT_TOKEN=xoxb-1\nSLACK_APP_TOKEN=xapp-1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for name, value in shared_lab.person().items():
            patch.setenv(name, value)
        patch.setenv("CALICO_WHY_STATE", "state")
        for word in (
            "certs --directory certs --nodes node-a,node-b,node-c",
            "why shop/cart shop/db",
            "keep shop/cart shop/db --to keep.tar.gz",
            "ipam check -o json --to report.json",
            "fixes on",
        ):
            assert cli.main(word.split()) == 0, word
        saved, *_ = sorted((directory / "state/investigations").glob("inv-*.json"))
        saved.rename(directory / PLACEHOLDERS["inv-….json"])
        yield directory


def a_request(capfd: pytest.CaptureFixture[str]) -> str:
    """The name of a request of this terminal's own that waits for a second person."""
    capfd.readouterr()
    assert cli.main(["apply", "-f", "policy.yaml", "-o", "json"]) == 0
    name: str = json.loads(capfd.readouterr().out)["requests"][0]["name"]
    return name


async def all_written_down(lab: Lab) -> None:
    """What terminals asked for is put into the trail by a bot, and none runs here."""
    async with connect(lab.environment()["KUBECONFIG"], "calico-why") as store:
        for request in await store.all():
            await Audit(store, "desk").follow(request)


@pytest.mark.parametrize("text", TYPEABLE)
def test_a_command_of_ours_does_its_work(
    text: str, desk: Path, shared_lab: Lab, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = list(TYPEABLE[text])
    if argv[0] == "lab":
        argv[2:2] = ["--name", shared_lab.name]
    if PLACEHOLDERS["fx-NAME"] in argv:
        name = a_request(capfd)
        argv = [name if word == PLACEHOLDERS["fx-NAME"] else word for word in argv]
    if argv[0] == "audit":
        asyncio.run(all_written_down(shared_lab))
    if argv[0] == "certs":
        shutil.rmtree("certs", ignore_errors=True)  # which the desk has already
        monkeypatch.delenv("CALICO_WHY_CERTS")  # the lab's own
    if argv[0] == "preflight":  # it looks for what the bot needs, as in the bot's pod
        monkeypatch.setenv("KUBECONFIG", shared_lab.environment()["KUBECONFIG"])
    if argv[0] == "signer":  # it fills what is there, and a lab has it not by itself
        if shutil.which("kubectl") is None:
            pytest.skip("no kubectl on this machine: it makes what the signer fills")
        applied = ["kubectl", "apply", "--filename", str(ROOT / "deploy/base/authority.yaml")]
        subprocess.run(applied, env={**os.environ, **shared_lab.administrator()}, check=True)
        monkeypatch.setenv("KUBECONFIG", shared_lab.environment(account=SIGNER)["KUBECONFIG"])
    argv += SHORTER.get(argv[0], [])
    try:
        status = cli.main(argv)
    finally:
        out, err = capfd.readouterr()
        if argv[0] == "lab":
            shared_lab.heal()
        if argv[:2] == ["fixes", "off"]:
            assert cli.main(["fixes", "on"]) == 0
    assert status == STATUS.get(text, 0), out + err


# ---- in Slack


SAID = [one for one in COMMANDS if first(one.text) in SLACK]


def test_slack_is_in_the_pages() -> None:
    assert SAID


@pytest.mark.parametrize("one", SAID, ids=str)
def test_a_word_in_slack_is_understood_there(one: Written) -> None:
    for argv in typed(one.text):
        said = speech.understand(" ".join(argv[1:]))
        if said.word in ("fixes", "audit"):
            (fixes_said if said.word == "fixes" else audit_said)(said.rest)
        elif said.word == "policy":
            words.parse(said.rest)
        elif said.word == "capture":
            wanted_of(said.rest)
        elif hasattr(importlib.import_module(MODULES.get(said.word, "bot.cli")), "add_words"):
            asking.understand(said.word, importlib.import_module(MODULES[said.word]), said.rest)
        else:
            assert said.word in speech.HELP or said.word in speech.ALIKE


def wanted_of(rest: Sequence[str]) -> None:
    from bot.capture import understand

    understand(rest)


def test_every_word_that_the_pages_say_to_the_bot_is_one() -> None:
    """Also where it stands in a comment, or is left open with an ellipsis."""
    known = {*speech.HELP, *speech.ALIKE, *speech._FILLERS}
    wrong = [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for path in PAGES
        for found in re.finditer(r"(?<![\w/])[/@]calico ([a-z-]+)", path.read_text())
        if found[1] not in known
    ]
    assert wrong == []


# ---- what they speak of


def test_every_flag_that_is_spoken_of_exists() -> None:
    flags = set[str]()
    for word in MODULES:
        for leaf in [parser_of(word), *asking.leaves(parser_of(word))]:
            flags |= leaf._option_string_actions.keys()
    wrong = [str(one) for one in WRITTEN if one.text.startswith("--") and first(one.text).split("=")[0] not in flags]
    assert wrong == []


def test_every_variable_that_is_spoken_of_is_read() -> None:
    source = "".join(path.read_text() for part in PARTS for path in (ROOT / part).rglob("*.py"))
    for path in PAGES:
        for name in re.findall(r"\b(?:CALICO_WHY|SLACK)_[A-Z_]+[A-Z]\b", path.read_text()):
            assert name in source, f"{path.name}: nobody reads {name}"


PATH = re.compile(r"(?:bot|engine|facts|fixes|node_probe|lab|tests|deploy|docs|benchmarks)/[\w./-]*\w")


def test_every_file_that_is_spoken_of_is_there() -> None:
    wrong = [
        str(one)
        for one in WRITTEN
        if one.file.endswith(".md") and not one.block and PATH.fullmatch(one.text) and not example(one.text)
    ]
    assert wrong == []


def example(path: str) -> bool:
    """Whether there is such a file. `x` stands for a failure mode, a word in capitals for whatever is there."""
    pattern = re.sub(r"\b[A-Z]{3,}(?=[/.])", "*", re.sub(r"/x(?=\.)", "/neighbor_wrong_mac", path))
    return any(ROOT.glob(pattern.rstrip("/"))) or any(ROOT.glob(f"{pattern}.py"))


@functools.cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings, and those that are written out."""
    text = page.read_text()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
    return {*slugs, *re.findall(r'<a (?:id|name)="([^"]+)"', text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page if not path else (page.parent / path).resolve()
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target
