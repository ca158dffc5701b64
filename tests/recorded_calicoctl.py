"""What calicoctl printed of every recorded state; without it our tables would be held to what we believe of its own.

`python -m tests.recorded_calicoctl DIRECTORY` packs it anew out of DIRECTORY/real-calico. Its texts are many and much
the same, so they are packed by what finds that.
"""

from __future__ import annotations

import functools
import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.recordings import VERSIONS

PACKED = Path(__file__).parent / "fixtures" / "recordings" / "calicoctl.json.xz"
# Beside what it printed: the reports it wrote, and what the plugins said to who wanted an address.
BESIDE = ("leaks/[23]-*/*.txt", "leaks/3-from-report/report-*.json", "exhaustion/*/cni-add*.json")

_PRINTED = re.compile(
    r"\$ (?P<command>calico ?ctl .*)\n(?P<text>(?s:.*?))(?:\[stderr\]\n(?P<error>(?s:.*?)))?\[exit (?P<status>\d+)\]\n*"
)


class Printed(NamedTuple):
    """One run. text and error are what it wrote to both outputs, newlines at their ends included."""

    command: str
    text: str
    error: str
    status: int


@functools.cache
def files() -> dict[str, str]:
    """Text by path: "v3.32.1/healthy/calicoctl/ipam-show.txt"."""
    found: dict[str, str] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return found


def printed(path: str) -> Printed:
    """Of a recorded run. Raises ValueError for a file that is no run's, KeyError for one that was not recorded."""
    found = _PRINTED.fullmatch(files()[path])
    if not found:
        raise ValueError(f"{path} is not what a run printed")
    return Printed(found["command"], found["text"], found["error"] or "", int(found["status"]))


def runs(name: str) -> dict[str, Printed]:
    """State -> what the run of this file printed: runs("ipam-show.txt")["v3.32.1/healthy"]."""
    end = f"/calicoctl/{name}"
    return {path.removesuffix(end): printed(path) for path in files() if path.endswith(end)}


def every_run(version: str) -> list[Printed]:
    """All of a version, whatever they were asked."""
    return [printed(path) for path, text in files().items() if path.startswith(f"{version}/") and text[:1] == "$"]


def parsed(path: str) -> Any:
    """A file that is JSON: what `ipam check -o` wrote, and what `get -o json` printed. Raises ValueError where it
    printed an error."""
    return json.loads(files()[path])


def packed(directory: Path) -> dict[str, str]:
    """All of it below the directory of recordings."""
    recorded = directory / "real-calico"
    paths = {path for version in VERSIONS for path in (recorded / version).rglob("calicoctl/*")}
    paths |= {path for version in VERSIONS for pattern in BESIDE for path in (recorded / version).glob(pattern)}
    paths |= {
        path
        for version in VERSIONS
        for path in (recorded / version).rglob("*.txt")
        if path.read_bytes().startswith(b"$ calicoctl ")
    }
    return {str(path.relative_to(recorded)): path.read_text() for path in sorted(paths)}


def main() -> None:
    plain = json.dumps(packed(Path(sys.argv[1])), separators=(",", ":"), sort_keys=True).encode()
    PACKED.write_bytes(lzma.compress(plain, preset=9))


if __name__ == "__main__":
    main()
