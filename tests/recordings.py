"""What was recorded of a running Calico, one file a state: a clone alone has the real thing to be judged by.

`python -m tests.recordings DIRECTORY` packs them anew out of the directory they were recorded to (docs/decisions/011).
"""

from __future__ import annotations

import functools
import gzip
import json
import sys
from pathlib import Path
from typing import Any

PACKED = Path(__file__).parent / "fixtures" / "recordings"
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
    "policy-zoo/00-no-policy/objects/*.json",
    "services/results.json",
    "services/objects/*.json",
    "felix-health/*/node-*/health.txt",
)

Files = dict[str, Any]  # path below the state's directory -> parsed JSON, or text


def states() -> list[str]:
    """Names such as "v3.32.1/healthy"; what is no whole state is "v3.32.1/loose"."""
    return sorted(str(path.relative_to(PACKED)).removesuffix(".json.gz") for path in PACKED.rglob("*.json.gz"))


@functools.cache
def load(state: str) -> Files:
    """The files of a state; not to be changed. Raises FileNotFoundError for one that was not recorded."""
    found: Files = json.loads(gzip.decompress((PACKED / f"{state}.json.gz").read_bytes()))
    return found


def unpack(state: str, directory: Path) -> Path:
    """The same as files below `directory`, which it gives back."""
    for name, content in load(state).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def packed(recorded: Path) -> dict[str, Files]:
    """Every state below the directory of recordings, as it is to be packed."""
    found: dict[str, Files] = {}
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
