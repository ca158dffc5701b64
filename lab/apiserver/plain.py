"""Copies and times of plain JSON objects; without it each file would have its own, some of them slow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lab.apiserver.errors import Object


def copy(value: Object) -> Object:
    """A deep copy of JSON data; several times faster than copy.deepcopy."""
    copied: Object = _copy(value)
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(entry) if isinstance(entry, dict | list) else entry for key, entry in value.items()}
    if isinstance(value, list):
        return [_copy(entry) if isinstance(entry, dict | list) else entry for entry in value]
    return value


def now() -> str:
    """This second as the API writes it: 2026-11-22T20:34:47Z"""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
