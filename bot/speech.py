"""What somebody wrote to the bot, made into a word it knows; without it channel text would go where it may not."""

from __future__ import annotations

import contextlib
import difflib
import re
from typing import NamedTuple

from bot import words
from bot.errors import UserError

HELP = {
    "why": "why POD|NODE POD|SERVICE|NODE|IP [PORT/tcp|udp] [watch [SECONDS]]   why the first does not reach the second"
    " (watch: look on until there is a cause)",
    "capture": "capture POD POD [PORT/tcp|udp] [--seconds N] [--packets N] [--payload]   the packets between the two, "
    "as a file",
    "policy": "policy POD|NODE|IP POD|SERVICE|NODE|IP [PORT/tcp|udp]   what the policies let pass, nothing is sent",
    "ipam": "ipam show|explain|plan|check|release ...   addresses and blocks: used, lacking, leaked (ipam --help)",
    "node": "node status|diags [NODE...]   how Calico does on the nodes; all about them as a file",
    "keep": "keep POD POD [PORT/tcp|udp]   the scene of a fault, and all about both nodes, as a file",
    "get": "get KIND [NAME] [-o wide|yaml|json]   Calico's resources",
    "create": "create YAML, and apply, replace, patch KIND NAME PATCH, delete KIND NAME   change them, once approved",
    "fixes": "fixes [show fx-NAME | now fx-NAME | off [REASON] | on]   the fix requests, all of one; one without "
    "its second look; stop them all",
    "approve": "approve fx-NAME   have a fix carried out",
    "reject": "reject fx-NAME [REASON]   refuse it",
    "cancel": "cancel fx-NAME [REASON]   take it back",
    "preflight": "preflight [PART...] [--channel ID]   is all there that I need: Slack, rights, probes, Calico",
    "audit": "audit [fx-NAME | verify [sha256:HEAD] | export [fx-NAME]]   who asked, decided, was refused and did what",
    "help": "help   this list",
}

ANYWHERE = "--cluster NAME behind any of these: in that cluster, where I serve several"

# Phones and some keyboards make a dash of two hyphens.
_CLUSTER = re.compile(r"(?<!\S)[`'\"]?(?:--|—|–)cluster(?:(?:=|\s+)(?P<name>\S+)|=?\s*$|=(?=\s))", re.IGNORECASE)

ALIKE = {"apply": "create", "replace": "create", "patch": "create", "delete": "create"}  # told in one line of HELP

TAKE_TEXT = frozenset({"create", *ALIKE})
READ = frozenset({"policy", "ipam", "node", "keep", "get", "fixes", "preflight", "audit", "help"})
DO = frozenset({("ipam", "release"), ("fixes", "off"), ("fixes", "on"), ("fixes", "now")})  # these do not only read

# The words of a question asked in plain English that are neither a name nor a port. Whatever is left has to be one:
# text from a channel goes no further than this list and `words.parse`.
_FILLERS = frozenset(
    [
        "why",
        "can",
        "can't",
        "cant",
        "cannot",
        "can",
        "not",
        "could",
        "couldn't",
        "couldnt",
        "does",
        "doesn't",
        "doesnt",
        "do",
        "don't",
        "dont",
        "is",
        "isn't",
        "isnt",
        "it",
        "able",
        "unable",
        "to",
        "the",
        "a",
        "pod",
        "pods",
        "from",
        "reach",
        "reaching",
        "reached",
        "talk",
        "talking",
        "connect",
        "connecting",
        "see",
        "ping",
        "get",
        "through",
        "access",
        "speak",
        "on",
        "at",
        "over",
        "via",
        "port",
        "with",
        "and",
        "please",
        "hey",
        "hi",
        "failing",
        "fail",
        "fails",
        "anymore",
        "any",
        "more",
        "now",
        "longer",
        "no",
    ]
)
_LINK = re.compile(r"<(?:[a-z]+://|mailto:)[^|>]*\|([^>]*)>|<(?:[a-z]+://)([^>]*)>")
_MENTION = re.compile(r"<@[UW][A-Z0-9]+(?:\|[^>]*)?>")
_TRIM = "?!.,;:`'\"*_()[]"


class Said(NamedTuple):
    """word is a key of HELP or of ALIKE; rest its arguments as plain words; written all after it as it was written.
    cluster: of `--cluster`, which is in neither; "" where nothing was said of it."""

    word: str
    rest: list[str]
    written: str = ""
    cluster: str = ""


def understand(text: str) -> Said:
    """One word of HELP and its arguments; for "why", arguments that `words.parse` takes. Raises UserError."""
    text, cluster = _of_cluster(text)
    return _understand(text)._replace(cluster=cluster)


def _understand(text: str) -> Said:
    plain = _LINK.sub(lambda link: link[1] or link[2], _MENTION.sub(" ", text)).replace("’", "'").split()
    if not plain:
        return Said("help", [])
    first, rest = plain[0].strip(_TRIM).lower(), plain[1:]
    if (first in HELP or first in ALIKE) and first != "why":
        return Said(first, [word.strip("`*_\"',;") for word in rest], text.partition(plain[0])[2].strip())
    if first == "why" or first in _FILLERS:
        return Said("why", _question(plain[1:] if first == "why" else plain))
    near = difflib.get_close_matches(first, [*HELP, *ALIKE], n=1, cutoff=0.6)
    if near:
        raise UserError(f"I do not know {_shown(plain[0])}. Did you mean `{' '.join([near[0], *map(_safe, rest)])}`?")
    if any("/" in word for word in plain):
        question = _question(plain)
        raise UserError(f"Did you mean `why {' '.join(question)}`?")
    raise UserError(f"I do not know {_shown(plain[0])}. I know {', '.join(HELP)}; try `help`.")


def reads(text: str) -> bool:
    """Whether these words change nothing, so that they may be answered once more."""
    try:
        said = understand(text)
    except UserError:
        return True  # of which the answer is what is wrong with them
    return said.word in READ and not any((said.word, word.lower()) in DO for word in said.rest)


def help_text(prefix: str = "") -> str:
    """One line a word."""
    return "\n".join([*(prefix + line for line in HELP.values()), ANYWHERE])


def _of_cluster(text: str) -> tuple[str, str]:
    """The text without `--cluster NAME`, and the name. Raises UserError."""
    word = next(iter(_MENTION.sub(" ", text).split()), "").strip(_TRIM).lower()
    head, tail = text, ""
    if word in TAKE_TEXT:  # in which the same words may stand
        begin = re.search(r"```|\n|[{\[]", text)
        if begin:
            ends = ("}", "]") if begin[0] in "{[" else ("```",)  # as asking.with_text has it
            end = max(text.rfind(one) + len(one) for one in ends)
            end = end if end > begin.end() else len(text)
            head, tail = text[: begin.start()], text[end:]
    said = [*_CLUSTER.finditer(head), *_CLUSTER.finditer(tail)]
    if not said:
        return text, ""
    name = (said[0]["name"] or "").strip("`'\"“”,;?!")
    if len(said) > 1 or not name:
        raise UserError("Name one cluster, such as: why shop/cart shop/db --cluster prod")
    body = text[len(head) : len(text) - len(tail)]
    return f"{_CLUSTER.sub(' ', head).rstrip(' ')} {body}{_CLUSTER.sub(' ', tail)}".rstrip(), name


def _question(plain: list[str]) -> list[str]:
    """Two names, perhaps a port, and perhaps for how long to watch. Raises UserError."""
    left = [word for part in plain if (word := part.strip(_TRIM)) and word.lower() not in _FILLERS]
    with contextlib.suppress(UserError):
        words.parse(words.watched(left)[0])
        return left
    words.parse(words.watched(plain)[0])  # a pod may be called "access"; what is wrong is told of what was written
    return plain


def _safe(word: str) -> str:
    return re.sub(r"[^\w./:-]", "", word)[:60]


def _shown(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:39] + "…")
