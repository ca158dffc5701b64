"""What was recorded of a running Calico, one file a state: a clone alone has the real thing to be judged by.

`python -m tests.recordings DIRECTORY` packs them anew out of DIRECTORY/real-calico/VERSION and
DIRECTORY/kubernetes-api/VERSION; docs/decisions/011 says why.
"""

from __future__ import annotations

import atexit
import functools
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import msgspec

PACKED = Path(__file__).parent / "fixtures" / "recordings"
API_SERVER = "kubernetes-api/v1.34"  # exchanges with one, and what its watches said
VERSIONS = ("v3.31.7", "v3.32.1", "master-87c15906f20c")
NODE = ("ip-link", "ip-addr", "ip-route", "ip-rule", "ip6-rule", "ip-neigh", "bridge-fdb", "nft")
# What is not a state of the whole cluster, in its own words: a run, a table of what was tried, an answer of Felix.
LOOSE = (
    "heal/*.json",
    "dualstack/heal/*",
    "leaks/1-before/ipam*.json",
    "leaks/2-release/pods-after-del-before-api-delete.json",
    "leaks/3-from-report/after/ipam*.json",
    "leaks/3-from-report/clusterinformation-locked.json",
    "ip-cooldown/ipamblocks-*.json",
    "policy-zoo/table.json",
    "policy-*tables/*/*policies*.json",
    "policy-zoo/00-no-policy/objects/*.json",
    "policy-zoo/*/objects/*policies.*.json",
    "policy-zoo/*/objects/*networksets.*.json",
    "policy-zoo/*/objects/hostendpoints.*.json",
    "policy-zoo/*/objects/tiers.*.json",
    "services/results.json",
    "services/objects/*.json",
    "felix-health/*/node-*/health.txt",
    "exhaustion/*/*node-c-services.log.txt",
)

Files = dict[str, Any]  # path below the state's directory -> parsed JSON, or text
T = TypeVar("T")


def states() -> list[str]:
    """Names such as "v3.32.1/healthy"; what is no whole state is "v3.32.1/loose"."""
    found = {str(path.relative_to(PACKED)).removesuffix(".json.gz") for path in PACKED.rglob("*.json.gz")}
    return sorted(found - {API_SERVER})


@functools.cache
def load(state: str) -> Files:
    """The files of a state; not to be changed. Raises FileNotFoundError for one that was not recorded."""
    found: Files = json.loads(gzip.decompress((PACKED / f"{state}.json.gz").read_bytes()))
    return found


def changeable(recorded: T) -> T:
    """A deep copy of what `load` gave, several times faster than copy.deepcopy: every state is copied when tests are
    collected, by each worker."""
    copied: T = msgspec.json.decode(msgspec.json.encode(recorded))
    return copied


@functools.cache
def unpacked(state: str) -> Path:
    """The same as files, below a directory that is there as long as this program runs."""
    directory = _room() / state
    for name, content in load(state).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


@functools.cache
def _room() -> Path:
    room = tempfile.TemporaryDirectory(prefix="calico-why-recordings-")
    atexit.register(room.cleanup)
    return Path(room.name)


def packed(directory: Path) -> dict[str, Files]:
    """Every state below the directory of recordings, as it is to be packed."""
    exchanges = sorted((directory / API_SERVER).glob("*.json"))
    found: dict[str, Files] = {API_SERVER: {path.name: _content(path) for path in exchanges}}
    recorded = directory / "real-calico"
    for version in VERSIONS:
        for directory in sorted({path.parent.parent for path in (recorded / version).rglob("node-*/ip-link.json")}):
            found[str(directory.relative_to(recorded))] = {
                str(path.relative_to(directory)): _content(path) for path in _files(directory)
            }
        loose = sorted(path for pattern in LOOSE for path in (recorded / version).glob(pattern))
        found[f"{version}/loose"] = {str(path.relative_to(recorded / version)): _content(path) for path in loose}
    return {state: files for state, files in found.items() if files}


def _files(state: Path) -> list[Path]:
    return sorted(
        [
            *(path for name in NODE for path in state.glob(f"node-*/{name}.json")),
            *state.glob("node-*/sysctl.txt"),
            *(path for path in state.glob("pods/*/ip*.json") if path.stem in NODE),
            *state.glob("k8s/*.json"),
            *state.glob("cr/*.json"),
        ]
    )


def _content(path: Path) -> Any:
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else text


def main() -> None:
    for state, files in packed(Path(sys.argv[1])).items():
        path = PACKED / f"{state}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = json.dumps(files, separators=(",", ":"), sort_keys=True).encode()
        path.write_bytes(gzip.compress(plain, mtime=0))


if __name__ == "__main__":
    main()
