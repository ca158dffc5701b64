"""`python -m tests.again`: runs alone what failed beside others; without it a machine that was too busy for a moment
would look like a product that is wrong.

The packets of the labs are real, and six workers share two processors: an answer that comes a second late is lost.
What fails alone as well is wrong. More than a few that fail are no accident, and are not run again. What API servers
were asked for is compared with the rights of deploy/ over both runs (tests/calls.py).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests import calls

LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
CALLS = Path(".pytest_cache/d", calls.KEPT)  # there is none where not all tests were run
A_FEW = 5


def main() -> int:
    """The exit status of the tests that failed last, 1 where there are too many of them."""
    failed = sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    if not 0 < len(failed) <= A_FEW:
        return 1
    print(f"\nThese failed beside others, and are run once more, alone: {', '.join(failed)}", flush=True)
    if CALLS.exists():
        os.environ[calls.BEFORE] = str(CALLS.resolve())
    return int(pytest.main(["-v", "-p", "no:xdist", "--last-failed", "--last-failed-no-failures", "none"]))


if __name__ == "__main__":
    sys.exit(main())
