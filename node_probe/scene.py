"""Keeps the scene of a fault: what the tools of a node print and its kernel's files hold, by a closed list; without it
somebody would have to log in to every node before it changes.

Everything here reads. No word of an asker becomes part of a command or of a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from facts.scene import SCENE_BYTES, SCENE_SECONDS, SceneEnd, SceneLine, SceneMissing, ScenePart
from node_probe import ethtool

TOOL_S = 8.0  # an asker hangs up after ten seconds of silence
LARGEST_FILE = 8 << 20
PART = 64 << 10  # a line of JSON that the asker reads at once
LOG_TAIL = 1 << 20
LOGS = 20  # files below /var/log/calico, the newest first
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

# Where calicoctl's own bundle has the same, it has it in the same words.
TOOLS = {
    "link.txt": ("ip", "-d", "-s", "link", "show"),
    "link.json": ("ip", "-d", "-s", "-j", "link", "show"),
    "addr.txt": ("ip", "addr", "show"),
    "route-4.txt": ("ip", "-4", "route", "show", "table", "all"),
    "route-6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "rule-4.txt": ("ip", "-4", "rule", "show"),
    "rule-6.txt": ("ip", "-6", "rule", "show"),
    "neighbor-4.txt": ("ip", "-4", "-s", "neigh", "show"),
    "neighbor-6.txt": ("ip", "-6", "-s", "neigh", "show"),
    "fdb.txt": ("bridge", "-d", "-s", "fdb", "show"),
    "qdisc.txt": ("tc", "-s", "qdisc", "show"),
    "nft.txt": ("nft", "-n", "-a", "list", "ruleset"),
    "iptables-nft.txt": ("iptables-nft-save", "-c"),
    "ip6tables-nft.txt": ("ip6tables-nft-save", "-c"),
    "iptables-legacy.txt": ("iptables-legacy-save", "-c"),
    "ip6tables-legacy.txt": ("ip6tables-legacy-save", "-c"),
    "ipset.txt": ("ipset", "save"),
    "sockets.txt": ("ss", "-an"),
    "wireguard.txt": ("wg", "show"),  # which hides private keys
    "kernel-log.txt": ("dmesg",),
}
FILES = {
    "proc/uptime": "/proc/uptime",
    "proc/loadavg": "/proc/loadavg",
    "proc/meminfo": "/proc/meminfo",
    "proc/version": "/proc/version",
    "proc/net/dev": "/proc/net/dev",
    "proc/net/snmp": "/proc/net/snmp",
    "proc/net/snmp6": "/proc/net/snmp6",
    "proc/net/netstat": "/proc/net/netstat",
    "proc/net/sockstat": "/proc/net/sockstat",
    "proc/net/softnet_stat": "/proc/net/softnet_stat",
    "proc/net/stat/nf_conntrack": "/proc/net/stat/nf_conntrack",
    "calico/mtu": "/proc/1/root/var/lib/calico/mtu",  # the node's own files, where its processes can be seen
    "calico/nodename": "/proc/1/root/var/lib/calico/nodename",
}
NODE_LOGS = Path("/proc/1/root/var/log/calico")
ALL_SYSCTLS = Path("/proc/sys")
# By name, since others hold secrets (stable_secret, tcp_fastopen_key). Of each device, where a path has a star.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/ip_no_pmtu_disc",
    "net/ipv4/tcp_mtu_probing",
    "net/ipv4/fwmark_reflect",
    "net/ipv4/icmp_echo_ignore_all",
    "net/ipv4/ip_local_port_range",
    *(
        f"net/ipv4/conf/*/{name}"
        for name in (
            "forwarding",
            "rp_filter",
            "proxy_arp",
            "arp_ignore",
            "arp_announce",
            "arp_filter",
            "accept_local",
            "route_localnet",
            "send_redirects",
            "accept_redirects",
            "src_valid_mark",
        )
    ),
    *(
        f"net/ipv6/conf/*/{name}"
        for name in ("disable_ipv6", "forwarding", "accept_ra", "proxy_ndp", "accept_dad", "addr_gen_mode")
    ),
    *(f"net/ipv{family}/neigh/default/gc_thresh{number}" for family in (4, 6) for number in (1, 2, 3)),
    *(f"net/ipv{family}/neigh/*/base_reachable_time_ms" for family in (4, 6)),
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_checksum",
    "net/bridge/bridge-nf-call-iptables",
    "net/core/netdev_max_backlog",
    "net/core/somaxconn",
)


async def scene(node: str) -> AsyncGenerator[SceneLine]:
    """All of it, as it is read; at most SCENE_BYTES in SCENE_SECONDS, and what is too much is named."""
    until = time.monotonic() + SCENE_SECONDS
    size = 0
    async with contextlib.aclosing(_lines(node, until)) as lines:
        async for line in lines:
            if isinstance(line, ScenePart):
                if size + len(line.content) > SCENE_BYTES:
                    yield SceneMissing(path=line.path, reason=f"a node may send {SCENE_BYTES >> 20} MiB at most")
                    continue
                size += len(line.content)
            yield line
    yield SceneEnd(size=size)


async def _lines(node: str, until: float) -> AsyncGenerator[SceneLine]:
    about = {"node": node, "date": datetime.now(UTC).isoformat(timespec="seconds"), "host": os.uname().nodename}
    about |= {"kernel": " ".join(os.uname()[2:5])}
    yield ScenePart(path="about.txt", content="".join(f"{name}: {value}\n" for name, value in about.items()).encode())
    for path, command in TOOLS.items():
        async with contextlib.aclosing(_tool(path, command, until)) as lines:
            async for line in lines:
                yield line
    for line in await asyncio.to_thread(lambda: [*_offloads(), *_files(), *_sysctls(), *_logs()]):
        yield line


async def _tool(path: str, command: tuple[str, ...], until: float) -> AsyncGenerator[SceneLine]:
    seconds = min(TOOL_S, until - time.monotonic())
    if seconds <= 0:
        yield SceneMissing(path=path, reason=f"the time was over ({SCENE_SECONDS:g} s)")
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    except OSError as error:
        yield SceneMissing(path=path, reason=f"{command[0]} cannot be run beside the probe: {error.strerror}")
        return
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("asyncio made no pipes")
    trouble = asyncio.ensure_future(process.stderr.read(4096))
    size = 0
    try:
        yield ScenePart(path=path, content=b"")  # that there are no rules is worth a file, too
        async with asyncio.timeout(seconds):
            while part := await process.stdout.read(PART):
                size += len(part)
                if size > LARGEST_FILE:
                    yield SceneMissing(path=path, reason=f"cut after {LARGEST_FILE >> 20} MiB")
                    return
                yield ScenePart(path=path, content=part)
            status = await process.wait()
        if status:
            said = (await trouble).decode("utf-8", "replace").strip().splitlines()
            yield SceneMissing(path=path, reason=f"{' '.join(command)} ended with {status}: {' '.join(said[:1])[:200]}")
    except TimeoutError:
        yield SceneMissing(path=path, reason=f"{' '.join(command)} did not end in {seconds:.0f} s")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            while await process.stdout.read(PART):  # asyncio knows of no end before the pipe's
                pass
            await process.wait()
        trouble.cancel()
        await asyncio.gather(trouble, return_exceptions=True)


def _offloads() -> Iterator[SceneLine]:
    """All devices in one file, as `ethtool -k` prints each."""
    for _, device in socket.if_nameindex():
        try:
            features = ethtool.features(device)
        except OSError as error:
            features = f"{error.strerror}\n"
        yield ScenePart(path="offloads.txt", content=f"Features for {device}:\n{features}\n".encode())


def _files() -> Iterator[SceneLine]:
    for path, source in FILES.items():
        try:
            yield ScenePart(path=path, content=Path(source).read_bytes()[:LARGEST_FILE])
        except OSError as error:
            yield SceneMissing(path=path, reason=f"{source}: {error.strerror}")


def _sysctls() -> Iterator[SceneLine]:
    """All in one file, as `sysctl -a` prints them."""
    lines = []
    for pattern in SYSCTLS:
        for path in sorted(ALL_SYSCTLS.glob(pattern)):
            with contextlib.suppress(OSError):  # of a device that has just gone
                name = str(path.relative_to(ALL_SYSCTLS)).translate(str.maketrans("./", "/."))
                lines.append(f"{name} = {path.read_text().strip()}\n")
    yield ScenePart(path="sysctl.txt", content="".join(lines).encode())


def _logs() -> Iterator[SceneLine]:
    """The ends of the node's own log files of Calico: the plugin's, and what else writes there."""
    found = []
    for directory, _, names in os.walk(NODE_LOGS):
        for path in (Path(directory, name) for name in names if name.endswith(".log")):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path))
    if not found:
        yield SceneMissing(path="logs", reason="no log file below the node's /var/log/calico can be seen from here")
    for _, path in sorted(found, reverse=True)[:LOGS]:
        name = f"logs/{path.relative_to(NODE_LOGS)}"
        try:
            with path.open("rb") as file:
                file.seek(max(path.stat().st_size - LOG_TAIL, 0))
                yield ScenePart(path=name, content=file.read(LOG_TAIL))
        except OSError as error:
            yield SceneMissing(path=name, reason=f"{error.strerror}")
