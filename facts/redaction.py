"""What no program here may write down, taken out of text; without it a token would lie in a log for ever."""

from __future__ import annotations

import re

SHORTEST = 8  # characters of a secret that is known by its value; a shorter one would blacken ordinary words

_SECRET = re.compile(
    r"xox[a-z](?:\.xox[a-z])?-[%.-]*\w[\w%.-]*|xapp-[\w-]+|xwfp-[\w-]+"
    r"|(?<=bearer )[\w.~+/=-]+|(?<=bearer%20)[\w.~+/=%-]+|(?<=authorization: basic )[\w+/=]+"
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*"  # a token of Kubernetes
    r"|(?:https?|wss?)://[^\s\"'<>]*/(?:services|commands|actions|hooks|workflows|link)/[^\s\"'<>]+"
    r"|https://hooks\.slack[^\s\"'<>]+"
    r"|(?<=://)[^/\s@\"'<>]+:[^/\s@\"'<>]+(?=@)"  # a proxy's password
    r"|(?<=['\"]token['\"]: ['\"])[^'\"]+|(?<=['\"]token['\"]:['\"])[^'\"]+|(?<=\btoken=)[^&\s]+"
    r"|(?<=\bticket=)[^&\s]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_known: set[str] = set()


def hide(*secrets: str) -> None:
    """Secrets of this process that have no form to know them by, such as Slack's signing secret."""
    _known.update(one for one in secrets if len(one) >= SHORTEST)


def redact(text: str) -> str:
    """The text without tokens, without URLs that are as good as tokens, and without what `hide` was told."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return _SECRET.sub("[secret]", text)
