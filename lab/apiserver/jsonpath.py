"""Reads the small JSONPath that CRDs use; without it printer columns and selectable fields would stay empty."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from lab.apiserver.errors import ApiError

_TOKEN = re.compile(
    r"""\.(?P<name>(?:\\.|[^.\[\]\\])+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(@\.(?P<key>[\w./-]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]""",
    re.VERBOSE,
)


@lru_cache(maxsize=256)
def _parse(path: str) -> tuple[tuple[str, str, str], ...]:
    steps: list[tuple[str, str, str]] = []
    position = 0
    while position < len(path):
        found = _TOKEN.match(path, position)
        if found is None:
            raise ApiError(500, "InternalError", f"this server cannot read the JSONPath {path!r}")
        position = found.end()
        if found["name"] is not None:
            steps.append(("name", re.sub(r"\\(.)", r"\1", found["name"]), ""))
        elif found["quoted"] is not None:
            steps.append(("name", found["quoted"], ""))
        elif found["index"] is not None:
            steps.append(("index", found["index"], ""))
        elif found["all"] is not None:
            steps.append(("all", "", ""))
        else:
            steps.append(("where", found["key"], found["value"]))
    return tuple(steps)


def find(path: str, obj: Any) -> list[Any]:
    """Every value at `.spec.node`, `.status.conditions[?(@.type=="Ready")].status`, `.items[0]`, `.items[*].name`.
    Raises ApiError 500 for a path it cannot read."""
    values = [obj]
    for kind, word, wanted in _parse(path):
        after: list[Any] = []
        for value in values:
            if kind == "name" and isinstance(value, dict) and word in value:
                after.append(value[word])
            elif kind == "index" and isinstance(value, list) and -len(value) <= int(word) < len(value):
                after.append(value[int(word)])
            elif kind == "all" and isinstance(value, list):
                after.extend(value)
            elif kind == "where" and isinstance(value, list):
                after.extend(entry for entry in value if isinstance(entry, dict) and entry.get(word) == wanted)
        values = after
    return values
