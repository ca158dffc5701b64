"""What a test's engine runs that tells all it knows; kept apart, for a child to import without the tests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from facts import Endpoint, Fact


def leaks(facts: Sequence[Fact]) -> NoReturn:
    """Prints and raises the name of the one endpoint."""
    (fact,) = facts
    assert isinstance(fact, Endpoint)
    print("on stdout", fact.name)
    sys.stderr.write(f"on stderr {fact.name}\n")
    raise RuntimeError(fact.name)
