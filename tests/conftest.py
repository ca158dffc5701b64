"""One lab for all tests that need a real kernel; without it each of them would start its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.client import Lab
from lab.errors import NamespacesForbidden


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """Three nodes, six pods, probes and fixers; skipped where this machine forbids user namespaces."""
    try:
        lab = Lab.up()
    except NamespacesForbidden as error:
        pytest.skip(error.sentence)
    with lab:
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The shared lab as it was when it came up, whatever the last test did to it."""
    shared_lab.heal()
    return shared_lab
