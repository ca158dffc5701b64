"""Why no answer came, in words a person knows; a time-out has none of its own and would be told as nothing."""

from __future__ import annotations


def unanswered(error: Exception) -> str:
    """Of what a client raises that meets no server."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
