"""How long a probe takes to answer on nodes with 100, 5,000 and 50,000 routes; without it "flat" would be a word.

    python -m benchmarks.probe        no root: runs in namespaces of its own

Prints the median of many answers (all collectors, no packets), the ratio to the smallest table, what the answer takes
when the flow ends in a blackhole (the one look that walks the table), and the memory of a process that holds a probe.
"""

from __future__ import annotations

import asyncio
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from facts import NodeAsk, Way
from node_probe import netlink
from node_probe.answer import Prober
from node_probe.netlink_messages import HEADER, NLM_F_REQUEST, U32, attribute
from tests.namespaces import isolated
from tests.two_nodes import BLOCK, TUNNEL, TwoNodes, ask

SIZES = (100, 5_000, 50_000)
TIMES = 200
RTM_NEWROUTE, NLM_F_CREATE, NLM_F_EXCL = 24, 0x400, 0x200
SWALLOWED = "10.99.0.9"


def main() -> None:
    rows = [isolated(lambda size=size: measure(size)) for size in SIZES]
    smallest = rows[0]
    print("routes   answer ms   ratio   in a blackhole ms   ratio   filling s")
    for size, (usual, swallowed, filling) in zip(SIZES, rows, strict=True):
        print(
            f"{size:>6}   {usual:>9.2f}   {usual / smallest[0]:>5.2f}   {swallowed:>17.2f}   "
            f"{swallowed / smallest[1]:>5.2f}   {filling:>9.1f}"
        )
    print(f"resident: {isolated(memory):.1f} MB, a probe that has answered {TIMES} asks at {SIZES[-1]:,} routes")


def measure(size: int) -> tuple[float, float, float]:
    """Median ms of an answer, of one whose way ends in a blackhole, and the seconds it took to fill the table."""
    nodes = TwoNodes()
    began = time.perf_counter()
    fill(size)
    filling = time.perf_counter() - began
    nodes.at("a", lambda ip: ip.route("add", dst="10.99.0.0/16", type="blackhole", proto=4))
    question = ask()
    lost = msgspec.structs.replace(question, ways=(*question.ways, Way(destination=SWALLOWED)))
    return asyncio.run(median_ms(question)), asyncio.run(median_ms(lost)), filling


async def median_ms(question: NodeAsk) -> float:
    prober = Prober("node-a")
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await prober.answer(question, time.monotonic() + 30)
        taken.append((time.perf_counter() - began) * 1000)
    await prober.close()
    return statistics.median(taken)


def fill(size: int) -> None:
    """Routes of /29 by the tunnel, all with one gateway, a hundred to a message: pyroute2 would take minutes."""
    with netlink.Netlink() as kernel:
        tunnel = kernel.link(TUNNEL).index
        gateway = attribute(netlink.RTA_GATEWAY, netlink._pack(BLOCK["b"])[1])
        out = attribute(netlink.RTA_OIF, U32.pack(tunnel))
        flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
        batch = b""
        for number in range(size):
            address = struct.pack("!I", (11 << 24) + number * 8)
            head = netlink.ROUTE.pack(2, 29, 0, 0, netlink.RT_TABLE_MAIN, 80, 0, 1, netlink.RTNH_F_ONLINK)
            body = head + attribute(netlink.RTA_DST, address) + gateway + out
            batch += HEADER.pack(HEADER.size + len(body), RTM_NEWROUTE, flags, 0, 0) + body
            if number % 100 == 99:
                kernel._socket.send(batch)
                batch = b""
        if kernel.route("11.0.0.1").prefix != "11.0.0.0/29" or kernel.route(last(size)).length != 29:
            raise RuntimeError("the kernel did not take the routes")


def last(size: int) -> str:
    return ".".join(str(byte) for byte in struct.pack("!I", (11 << 24) + (size - 1) * 8 + 1))


def memory() -> float:
    """MB resident of the real program's modules in a fresh process, after its answers."""
    TwoNodes()
    fill(SIZES[-1])
    code = f"""
import asyncio, sys, time, msgspec
import node_probe.server
from facts import NodeAsk
from node_probe.answer import Prober
async def run():
    prober = Prober("node-a")
    for _ in range({TIMES}):
        await prober.answer(msgspec.json.decode(sys.argv[1], type=NodeAsk), time.monotonic() + 30)
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
    await prober.close()
asyncio.run(run())
"""
    run: Any = subprocess.run(
        [sys.executable, "-c", code, msgspec.json.encode(ask()).decode()],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return int(run.stdout) / 1024


if __name__ == "__main__":
    main()
