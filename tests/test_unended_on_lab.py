"""Connections that begin and bring nothing: a handshake alone is no path that works, and whoever is in doubt accuses
nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from facts import ProbeResult
from lab.client import Lab
from tests.asking import ask

ASKED = "shop/cart shop/db 5432/tcp"
BEHIND = "tcp flags & (syn | rst | ack) == ack drop"  # everything but the handshake's first two
RULES = """
add table inet later
add chain inet later passing { type filter hook HOOK priority -200; }
add rule inet later passing RULE
"""


@pytest.fixture
def later(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.heal()


def rule(lab: Lab, place: str, hook: str, words: str) -> None:
    assert lab.exec(place, "nft", "-f", "-", input=RULES.replace("HOOK", hook).replace("RULE", words)).returncode == 0


@pytest.mark.parametrize(
    ("place", "hook", "words"),
    [
        ("node-b", "forward", f"tcp dport 5432 {BEHIND}"),
        ("node-a", "forward", f"tcp dport 5432 ct state established {BEHIND}"),
        ("node-a", "forward", f"tcp sport 5432 {BEHIND}"),
        ("shop/db", "input", f"tcp dport 5432 {BEHIND}"),
    ],
)
async def test_a_connection_in_which_nothing_follows_is_not_called_healthy(
    later: Lab, place: str, hook: str, words: str
) -> None:
    rule(later, place, hook, words)
    told = (await ask(later.environment(), ASKED)).diagnosis
    assert told.verdict == "unknown" and told.causes == (), (told.summary, told.causes)
    assert "connections are made, and nothing that follows in them comes back" in told.summary
    assert any("a rule that ends what follows in a connection was not seen" in one.reason for one in told.blind)
    (tried,) = [one for one in told.facts if isinstance(one, ProbeResult) and one.port == 5432 and not one.size]
    assert (tried.sent, tried.answered, tried.unended) == (2, 0, 2)
