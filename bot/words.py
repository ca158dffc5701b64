"""What a person typed, made a question or a sentence about what is wrong with it; Slack and terminal share it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import msgspec

from bot.errors import UserError

USAGE = "why POD|NODE|IP POD|SERVICE|NODE|IP [PORT/tcp|udp], for example: why shop/cart shop/db 5432/tcp"

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_PART = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_PART}(?:\.{_PART})*")
_NAMESPACE = re.compile(_LABEL)
_PORT_FIRST = re.compile(r"(\d{1,9})(?:/|\s*)(?:\(?(tcp|udp)\)?)?", re.ASCII | re.IGNORECASE)
_PORT_LAST = re.compile(r"(tcp|udp)(?:/|\s*)(\d{1,9})", re.ASCII | re.IGNORECASE)
_WITH_PORT = re.compile(r"(?P<name>.*[a-z0-9]):(?P<port>\d{1,5})(?:/(?P<protocol>tcp|udp))?", re.ASCII | re.IGNORECASE)
_NUMBERS = re.compile(r"\d+(?:\.\d+){3}", re.ASCII)
_FILLERS = {"->", "→", "to", "and"}
_SHOWN = 80
BROADCAST = ipaddress.IPv4Address("255.255.255.255")
WATCH = "watch"
WATCH_S, LEAST_WATCH_S, MOST_WATCH_S = 60, 5, 600


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides as they were written, and the port. protocol is "" and port 0 when none was asked for."""

    source: str
    target: str
    protocol: str = ""
    port: int = 0

    def __str__(self) -> str:
        return " ".join(filter(None, (self.source, self.target, f"{self.port}/{self.protocol}" if self.port else "")))


def parse(words: Sequence[str]) -> Asked:
    """Two sides and perhaps a port, out of the words after `why`. Raises UserError with the nearest right form."""
    plain = [word for text in words for word in text.split() if word]
    if len(plain) > 2 and plain[1] in _FILLERS:
        del plain[1]
    if len(plain) < 2:
        said = f"only {_quoted(plain[0])} was said" if plain else "nothing was said"
        raise UserError(f"A question has two sides, and {said}. Write: {USAGE}")
    source, target = (_side(word, plain[0], plain[1]) for word in plain[:2])
    rest = " ".join(plain[2:])
    protocol, port = _port(rest, source, target) if rest else ("", 0)
    return Asked(source=source, target=target, protocol=protocol, port=port)


def _port(text: str, source: str, target: str) -> tuple[str, int]:
    if found := _PORT_FIRST.fullmatch(text):
        number, protocol = found[1], (found[2] or "tcp").lower()
    elif found := _PORT_LAST.fullmatch(text):
        number, protocol = found[2], found[1].lower()
    else:
        raise UserError(
            f"{_quoted(text)} is not a port; write PORT/tcp or PORT/udp: why {_cut(source)} {_cut(target)} 5432/tcp"
        )
    if not 0 < int(number) < 65536:
        raise UserError(f"{number} is not a port: ports go from 1 to 65535. Write: {USAGE}")
    return protocol, int(number)


def _side(word: str, source: str, target: str) -> str:
    """The word, when it can be a name or an address at all."""
    if _is_address(word):
        return _target(ipaddress.ip_address(word))
    if _NUMBERS.fullmatch(word):
        raise UserError(
            f"{_quoted(word)} is no IP address: four numbers from 0 to 255, without leading zeros. Write: {USAGE}"
        )
    if _is_name(word):
        return word
    if found := _WITH_PORT.fullmatch(word):
        sides = [found["name"] if side == word else side for side in (source, target)]
        right = f"why {_cut(sides[0])} {_cut(sides[1])} {found['port']}/{(found['protocol'] or 'tcp').lower()}"
        raise UserError(f"{_quoted(word)} carries a port; the port is a word of its own. Write: {right}")
    lower = word.lower()
    if lower != word and _is_name(lower):
        raise UserError(
            f"{_quoted(word)} cannot be a name in Kubernetes, which are lower case. Perhaps {_quoted(lower)}?"
        )
    raise UserError(f"{_quoted(word)} is neither a name nor an IP address. Write: {USAGE}")


def _target(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """The address, when it can be one side of a flow."""
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_unspecified or plain.is_loopback:
        raise UserError(
            f"{address} is whoever sends to it: such packets never leave the pod. Name the pod, node or Service "
            f"that is meant. Write: {USAGE}"
        )
    if plain.is_multicast or plain == BROADCAST:
        raise UserError(
            f"{address} is a group's address, and a question is about two sides. Name one of the group. Write: {USAGE}"
        )
    return str(address)


def _is_name(word: str) -> bool:
    namespace, slash, name = word.rpartition("/")
    return bool(_NAME.fullmatch(name) and (not slash or _NAMESPACE.fullmatch(namespace)))


def _is_address(word: str) -> bool:
    try:
        ipaddress.ip_address(word)
    except ValueError:
        return False
    return "%" not in word


def _cut(word: str) -> str:
    plain = "".join(one if one.isprintable() else "?" for one in word)
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…"


def _quoted(word: str) -> str:
    """What was typed, safe to print: control characters shown as what they are, never obeyed."""
    return repr(word if len(word) <= _SHOWN else word[: _SHOWN - 1] + "…")


def watched(words: Sequence[str]) -> tuple[list[str], int]:
    """The words of a question without `watch` or `watch SECONDS` at their end, and for how long; 0 for no such word.

    Raises UserError for a time nobody can mean.
    """
    plain = [word for text in words for word in text.split()]
    if len(plain) > 2 and plain[-1].lower() == WATCH:
        return plain[:-1], WATCH_S
    number = plain[-1].lower().removesuffix("s") if plain else ""
    if len(plain) > 3 and plain[-2].lower() == WATCH and number.isdecimal():
        return plain[:-2], watch_seconds(float(number))
    return list(words), 0


def watches(words: str) -> bool:
    """Whether a question, as it was written, goes on for minutes."""
    try:
        return bool(watched(words.split())[1])
    except UserError:  # it is told so, at once
        return False


def watch_seconds(wanted: float) -> int:
    """Raises UserError for a time nobody can mean."""
    if not LEAST_WATCH_S <= wanted <= MOST_WATCH_S:
        raise UserError(f"{WATCH} {wanted:g}: give the seconds to go on, from {LEAST_WATCH_S} to {MOST_WATCH_S}.")
    return int(wanted)
