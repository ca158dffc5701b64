"""What a test's worker runs in place of a diagnosis: kept apart, for a child to import without the tests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from facts import Diagnosis, Endpoint, Fact


def answers(facts: Sequence[Fact]) -> Diagnosis:
    """Its process id as the summary; noisy, as a careless rule is."""
    print("this is no answer")
    sys.stderr.write("told on stderr\n")
    return Diagnosis(verdict="healthy", summary=str(os.getpid()), facts=tuple(facts))


def obeys(facts: Sequence[Fact]) -> Diagnosis:
    """Does what the name of the one endpoint says, and `answers` to anything else."""
    (fact,) = facts
    assert isinstance(fact, Endpoint)
    order, _, where = fact.name.partition(" ")
    if order == "hang":
        Path(where).write_text(str(os.getpid()))
        while True:
            time.sleep(60)
    if order == "crash":
        os.abort()
    if order == "fail":
        raise KeyError("x")
    if order == "exhaust":
        return Diagnosis(verdict="healthy", summary=str(len(bytes(8 * 2**30))))
    if order == "quit":
        os._exit(3)
    return answers(facts)
