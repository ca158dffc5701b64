"""A running Calico's packet filters and what their traces told: without it rules would be named right by us alone.

`python -m tests.recorded_firewall DIRECTORY` packs them anew out of DIRECTORY/real-calico. They are far larger than the
other recordings and much the same, so they are packed by what finds that.
"""

from __future__ import annotations

import functools
import json
import lzma
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from node_probe.firewall.event import Event
from node_probe.firewall.ruleset import (
    IPTABLES_LEGACY,
    IPTABLES_NFT,
    Element,
    Ruleset,
    from_nft,
    from_save,
    with_handles,
)

PACKED = Path(__file__).parent / "fixtures" / "recordings" / "firewall.json.xz"
VERSION = "v3.32.1"
TABLE, MAP = re.compile(r"table (\S+) (\S+) \{"), re.compile(r"\tmap (\S+) \{")
COMMENTED = re.compile(r'(?:\{|,|^)\s*((?:[\w.:-]+ \. )*\w+) comment "([^"]*)" :')
PROTOCOLS = {"tcp": "6", "udp": "17", "sctp": "132"}
LISTINGS = ("nft.txt", "iptables-nft-save.txt", "iptables-legacy-save.txt")
TRACES = (
    *(f"trace/*/*/{name}" for name in ("meta.json", *LISTINGS, "nft-monitor-trace.txt", "legacy-trace-nflog.txt")),
    "trace/*/*/xtables-monitor-trace.txt",
    *(f"services/trace/node-[ac]/{name}" for name in (*LISTINGS, "*-nft-monitor.txt", "*-xtables-monitor.txt")),
)
COUNTERS = (
    "policy-zoo/*/*/node-a/iptables-nft-save.txt",
    "policy-zoo/*/*/node-c/nft.txt",
    "policy-iptables/[1-6]*/node-c/iptables-legacy-save.txt",
    "policy-nftables/[1-6]*/node-c/nft.txt",
    "dualstack/policy-v6/[12]*/node-b/ip6tables-nft-save.txt",
    "dualstack/policy-v6/[12]*/node-c/nft-ip6-calico.txt",
)
BOTH_FAMILIES = ("dualstack/healthy/node-c/nft.txt", "dualstack/healthy/node-[ab]/ip*tables-nft-save.txt")
IPTABLES_MODE = (
    "policy-zoo/*/0-idle/node-b/iptables-legacy-save.txt",
    *(f"{directory}/node-[ab]/ipset-save.txt" for directory in ("policy-zoo/*/0-idle", "dualstack/healthy")),
)

_NFT = re.compile(r"trace id (\w+) (\S+) (\S+) (\S+) (rule|return|policy) (.*)")
_VERDICT = re.compile(r"\(verdict (\S+?)(?: (\S+))?\)$")
_HANDLE = re.compile(r"# handle (\d+)")
_LEGACY = re.compile(r"TRACE: (\w+):(\S+):(rule|return|policy):(\d+) ")


@functools.cache
def files() -> dict[str, str]:
    """Text by path below the version's directory; the empty ones are left out."""
    found: dict[str, str] = json.loads(lzma.decompress(PACKED.read_bytes()))
    return found


def directories(pattern: str) -> list[str]:
    """Of the files whose path matches the whole pattern."""
    return sorted({path.rpartition("/")[0] for path in files() if re.fullmatch(pattern, path)})


def ruleset(directory: str) -> Ruleset:
    """What the tools had listed there. Handles, which the kernel tells, are those that nft printed."""
    text, new, legacy = (files().get(f"{directory}/{name}", "") for name in LISTINGS)
    six, of_six = (files().get(f"{directory}/{name}", "") for name in ("nft-ip6-calico.txt", "ip6tables-nft-save.txt"))
    nft = {chain.key: chain for chain in from_nft(text or six)}
    saved = [
        with_handles(chain, [rule.handle for rule in nft[chain.key].rules] if chain.key in nft else [])
        for family, told in (("ip", new), ("ip6", of_six))
        for chain in from_save(told, backend=IPTABLES_NFT, family=family)
    ]
    chains = [*nft.values(), *saved, *from_save(legacy, backend=IPTABLES_LEGACY, family="ip")]
    return Ruleset(chains, elements=_elements(text))


def _elements(text: str) -> dict[tuple[str, str, str], list[Element]]:
    """Of `nft -n list ruleset`: by family, table and map the elements that have a comment."""
    found: dict[tuple[str, str, str], list[Element]] = defaultdict(list)
    family = table = inside = ""
    for line in text.splitlines():
        if match := TABLE.match(line):
            family, table = match.groups()
        elif match := MAP.match(line):
            inside = match[1]
        elif line.rstrip() == "\t}":
            inside = ""
        elif inside:
            for key, comment in COMMENTED.findall(line):
                fields = tuple(PROTOCOLS.get(one, one) for one in key.split(" . "))
                found[family, table, inside].append(Element(key=fields, comment=comment))
    return found


def events(directory: str, name: str = "") -> list[Event]:
    """What both tracers told, in the order they did. name: of one of several traces beside each other."""
    prefix = f"{directory}/{name}-" if name else f"{directory}/"
    nft = files().get(f"{prefix}nft-monitor.txt" if name else f"{prefix}nft-monitor-trace.txt", "")
    return [*_from_nft(nft), *_from_legacy(files().get(f"{prefix}legacy-trace-nflog.txt", ""))]


def _from_nft(text: str) -> Iterator[Event]:
    for line in text.splitlines():
        if match := _NFT.match(line):
            packet, family, table, chain, kind, rest = match.groups()
            verdict, handle = _VERDICT.search(rest.strip()), _HANDLE.search(rest)
            yield Event(
                packet=packet,
                backend="nft",
                family=family,
                table=table,
                chain=chain,
                kind=kind,
                handle=int(handle[1]) if handle else -1,
                verdict=verdict[1] if verdict else rest.split()[0],  # a policy stands there alone
                target=(verdict[2] or "") if verdict else "",
            )


def _from_legacy(text: str) -> Iterator[Event]:
    """Its rules were listed before the rule that traces was put first in raw PREROUTING; there they count on."""
    packet = 0
    for line in text.splitlines():
        if match := _LEGACY.search(line):
            table, chain, kind, number = match[1], match[2], match[3], int(match[4])
            if (table, chain) == ("raw", "PREROUTING"):
                number -= 1
            if number == 0:
                packet += 1
                continue
            yield Event(
                packet=f"legacy {packet}",
                backend=IPTABLES_LEGACY,
                family="ip",
                table=table,
                chain=chain,
                kind=kind,
                number=number,
            )


def main(directory: Path) -> None:
    version = directory / "real-calico" / VERSION
    paths = [
        path
        for pattern in (*TRACES, *COUNTERS, *BOTH_FAMILIES, *IPTABLES_MODE)
        for path in sorted(version.glob(pattern))
        if path.stat().st_size
    ]
    plain = {str(path.relative_to(version)): path.read_text() for path in paths}
    PACKED.write_bytes(lzma.compress(json.dumps(plain, separators=(",", ":")).encode(), preset=9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
