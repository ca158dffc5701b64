"""What a local Slack was asked and what it delivered; without it a test could only see how a conversation ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.slack.workspace import Json


@dataclass(slots=True)
class Call:
    """One call of the Web API. `status` is the HTTP status, 0 for a broken connection; `error` is Slack's word."""

    at: float
    method: str
    arguments: Json
    status: int = 200
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.status == 200 and not self.error

    def shape(self) -> Json:
        return {
            "at": self.at,
            "method": self.method,
            "ok": self.ok,
            "error": self.error or ("" if self.ok else str(self.status)),
        }


@dataclass(slots=True)
class Delivery:
    """One thing told to the bot.

    `kind` is Slack's envelope type. `result` is `pending`, `ok`, `operation_timeout` (not acknowledged within 3 s),
    `dispatch_failed` (nobody there, or not answered with 200) or `refused` (Slack itself answered the user instead).
    `ack_ms` is None until acknowledged. `body` is what the acknowledgement carried.
    """

    at: float
    kind: str
    what: str
    envelope_id: str
    retry: int = 0
    ack_ms: float | None = None
    result: str = "pending"
    body: Any = None

    def shape(self) -> Json:
        ack_ms = None if self.ack_ms is None else round(self.ack_ms, 1)
        return {"at": self.at, "kind": self.kind, "what": self.what, "ack_ms": ack_ms, "result": self.result}
