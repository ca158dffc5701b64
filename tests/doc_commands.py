"""What the pages tell people to type, taken out of them; without it nobody would notice that a command has changed."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bot import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MANIFESTS = [
    ROOT / "deploy/Dockerfile",
    *sorted(path for part in ("deploy", "fixes") for path in (ROOT / part).rglob("*.yaml") if not path.is_symlink()),
]

MODULES = {one.name: one.value for one in entry_points(group=cli.GROUP)}
OURS = "calico-why"
SLACK = ("/calico", "@calico")
CLUSTER = ("kubectl", "helm")  # tests/test_docs_cluster.py
NODE_TOOLS = (
    *("ip", "bridge", "tc", "nft", "iptables", "iptables-save", "ipset", "ss", "sysctl", "nstat", "wg", "conntrack"),
    *("bpftool", "tcpdump"),
)
OF_IPTABLES_NODES = ("ipset",)  # tests/test_answers_iptables.py; a lab's nodes are in nftables mode by themselves
TOOLS = ("apt", "calicoctl", "docker", "export", "kill", "kind", "kustomize", "make", "python")  # test_docs_tools.py
SETTING = re.compile(r"[A-Z_]+=\S*")  # of settings.env, or of a unit's environment
DRAWN = re.compile("[─│▶◀┌└]")

ALERTS = ROOT / "deploy/observability/alerts.yaml"  # what to do, for who is woken by them

# What stands in a page for something of the reader's own, and what it is while it is tried.
PLACEHOLDERS = {
    "A": "shop/cart",
    "B": "shop/db",
    "SOURCE": "shop/cart",
    "TARGET": "shop/db",
    "PORT/proto": "5432/tcp",
    "PORT/PROTOCOL": "5432/tcp",
    "SERVICE": "shop/db",
    "NODE...": "node-a",
    "NODE": "node-a",
    "NODE-BLOCK": "node-a-10-244-174-128-26",
    "N": "3",
    "MS": "400",
    "SECONDS": "1",
    "KIND": "ippools",
    "NAME": "default-ipv4-ippool",
    "PATCH": '\'{"spec": {"natOutgoing": false}}\'',
    "DIR": "state",
    "DIRECTORY": "certs",
    "FILE": "report.json",
    "FILE.svg": "path.svg",
    "FILE.png": "path.png",
    "FILE.pcapng": "path.pcapng",
    "BUNDLE": "keep.tar.gz",
    "inv-….json": "investigation.json",
    "fx-NAME": "fx-abcdefgh",
    "fx-…": "fx-abcdefgh",
    "REASON": "maintenance",
    "sha256:HEAD": "sha256:" + "0" * 64,
    "sha256:…": "sha256:" + "0" * 64,
    "ADDRESS": "10.244.218.65",
    "DEVICE": "vxlan.calico",
    "INTERFACE": "eth0",
    "CARD": "eth0",
    "MAC": "66:00:00:00:00:01",
    "MARK": "0x10000",
    "DESTINATION": "10.244.218.65",
    "INCOMING": "eth0",
    "<host>": "node-a",
    "<your host>": "calico.example.org",
    "<registry>": "registry.example.org",
    "PART...": "rights",
}
OPTIONAL = re.compile(r"\[([^\[\]]*)\]")


class Written(NamedTuple):
    """A command as a page has it. block: on a line of its own, so that it is whole; else it may only be named."""

    file: str
    line: int
    text: str
    block: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def written() -> Iterator[Written]:
    """All of it, in the order of the pages."""
    for path in PAGES:
        name, text = str(path.relative_to(ROOT)), path.read_text()
        for number, line, fence in _lines(text):
            if fence in ("", "sh", "console") and line.strip():
                yield Written(name, number, line.strip(), True)
            if not fence or fence in ("text", "sh", "console"):
                yield from (Written(name, number, span) for span in _spans(line))
    text = ALERTS.read_text()
    for found in re.finditer("`([^`]+)`", text):
        number = text.count("\n", 0, found.start()) + 1
        yield Written(str(ALERTS.relative_to(ROOT)), number, " ".join(found[1].split()))
    for path in MANIFESTS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.lstrip().startswith("#") and (
                found := re.search(r"(?:kubectl (?=[a-z-])(?!or )|kustomize |docker |kind (?=load )).*", line)
            ):
                yield Written(str(path.relative_to(ROOT)), number, re.split(r"\)$|\)\.|`|;", found[0])[0].strip())


def first(text: str) -> str:
    """The program."""
    return text.split()[0].removeprefix(".venv/bin/") if text.split() else ""


def is_command(one: Written) -> bool:
    """Of what stands in backquotes, what begins like one; of a code block every line."""
    word = first(one.text)
    if DRAWN.search(one.text) or SETTING.fullmatch(one.text):
        return False
    if one.block:
        return True
    return " " in one.text and (word in (OURS, *SLACK, *CLUSTER, *NODE_TOOLS, *TOOLS) or word in MODULES)


def commands(*programs: str) -> list[Written]:
    """Those of these programs, each once; all of them, as often as they are written, without a program."""
    found = list(_commands())
    return list({one.text: one for one in found if first(one.text) in programs}.values()) if programs else found


@functools.cache
def _commands() -> tuple[Written, ...]:
    return tuple(one for one in written() if is_command(one))


def _lines(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Each line with its number, and of which code block it is: None none, "" an indented one or one of no language."""
    fence: str | None = None
    before_blank, indented = True, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fence = line.strip().removeprefix("```") if fence is None else None
            continue
        indented = line.startswith("    ") and (indented or before_blank)
        before_blank = not line.strip()
        yield number, line, "" if indented and fence is None else fence


def _spans(line: str) -> list[str]:
    return [span.strip() for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", line.replace(r"\|", "|"))]


@functools.cache
def placed() -> re.Pattern[str]:
    names = sorted(PLACEHOLDERS, key=len, reverse=True)
    return re.compile(rf"(?<![\w.…-])({'|'.join(map(re.escape, names))})(?![\w…=-]|\.\w)")


def typed(text: str, there: Mapping[str, str] = MappingProxyType({})) -> list[list[str]]:
    """The words somebody would type: one list for each way to read optional and alternative parts. A comment goes.

    there: what placeholders stand for in this place.
    """
    known = PLACEHOLDERS | there
    ways = [text]
    while any(OPTIONAL.search(one) for one in ways):
        ways = [
            one[: found.start()] + inner + one[found.end() :]
            for one in ways
            for found in [OPTIONAL.search(one)]
            if found
            for inner in ("", *([found[1]] if "|" not in found[1] else found[1].split("|")))
        ] + [one for one in ways if not OPTIONAL.search(one)]
    filled = [placed().sub(lambda name: known[name[1]], one) for one in ways]
    return [
        list(words)
        for one in dict.fromkeys(filled)
        for words in itertools.product(*(_alternatives(word) for word in shlex.split(one, comments=True)))
    ]


def _alternatives(word: str) -> list[str]:
    return word.split("|") if re.fullmatch(r"[\w.-]+(\|[\w.-]+)+", word) else [word]
