"""Why a connection failed, in words a person knows; without it bot, fixers and signers would tell the libraries' own
texts, which repeat hosts, types and numbers, and of a time-out nothing."""

from __future__ import annotations

import os
import ssl

LONGEST = 200


def brief(error: BaseException) -> str:
    """The innermost reason: `connection refused`, `certificate has expired`, `name or service not known`."""
    inner: BaseException = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(inner, ssl.SSLError):
        text = getattr(inner, "verify_message", "") or (inner.reason or "").replace("_", " ").lower() or str(inner)
    elif isinstance(inner, OSError) and inner.errno and inner.errno > 0:
        text = os.strerror(inner.errno).lower()
    else:
        text = str(getattr(inner, "strerror", None) or inner).strip()
    text = text or ("no answer in time" if isinstance(inner, TimeoutError) else type(inner).__name__)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def unanswered(error: BaseException) -> str:
    """The same of what a client raises that meets no server, behind the address that it tried, where it tells that."""
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    return f"{host}:{port}: {brief(error)}" if host and port else brief(error)
