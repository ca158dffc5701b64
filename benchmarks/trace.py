"""How soon a path trace tells that its packets arrived, or where they were lost; without it "300 ms" would be a word.

    python -m benchmarks.trace [--repeat 10]

A lab is wounded at one stage after the other. Of each wound the packets are lost once as a question loses them, which
is not measured, and are then traced again and again: from the moment both nodes are asked until it is known between
which two stages they were lost, with the rule that ended them where one did. The ratio is to the time that the packets'
answers are waited for, of which a trace that arrives needs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence

from bot.followed import kept
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from bot.words import parse
from engine.plan import expected_legs, following, plan, second
from engine.sights import tracks
from facts import CalicoNode, Fact, NodeAsk, RuleDrop
from lab.client import Lab
from lab.errors import LabError

PORT = "5432/tcp"
PROMISED_MS = 300
REST_S = 0.2  # between two traces: a kernel takes a while to undo a tracer
WOUNDS = (  # along the way there, then one on the way back
    ("pod_eth0_down", "source"),
    ("policy_denies_egress", "source"),
    ("route_blackholed", "source"),
    ("fdb_entry_missing", "source"),
    ("underlay_drops_vxlan", "source"),
    ("vxlan_device_down", "target"),
    ("host_firewall_drops_forward", "target"),
    ("policy_denies_ingress", "target"),
    ("pod_interface_down", "target"),
    ("pod_firewall_drops", "target"),
    ("fdb_entry_missing", "target"),
)


async def measure(lab: Lab, repeat: int) -> int:
    """Prints a row for each; returns how many were slower than promised."""
    print(f"{'lost by':<38} {'ms':>5} {'best':>5} {'worst':>5} {'ratio':>5}  seen last, and not behind")
    slow = 0
    settings = from_environment({**os.environ, **lab.environment()})
    async with Cluster(settings) as cluster, Probes(settings) as probes:
        for fault, where in (("", ""), *WOUNDS):
            ends = lab.inflict(fault, where=where) if fault else {"source": "shop/cart", "target": "shop/db"}
            known = await cluster.look(parse([ends["source"], ends["target"], PORT]))
            addresses = {fact.name: fact.internal_address for fact in known if isinstance(fact, CalicoNode)}
            seen = await probes.ask(plan(known), addresses)
            asks = second(known, seen)
            if not fault:
                asks = following(known, [leg for leg in expected_legs(known) if leg.direction == "forward"])
            if not asks:
                raise LabError(f"{fault} loses no packet here, so there is nothing to trace")
            taken, told = [], ""
            for _ in range(repeat):
                await asyncio.sleep(REST_S)
                began = time.perf_counter()
                found = [*known, *seen, *kept(asks, await probes.ask(asks, addresses))]
                told = _told(found)
                taken.append((time.perf_counter() - began) * 1000)
            slow += max(taken) > PROMISED_MS
            print(_row(f"{fault} ({where})" if fault else "nothing: it arrives", taken, asks, told), flush=True)
            if fault:
                lab.heal()
    return slow


def _told(facts: Sequence[Fact]) -> str:
    legs = expected_legs(facts)
    lost = tracks(legs, facts)
    if not lost:
        return "everywhere"
    rule = next((f", by {one.backend} {one.chain} {one.number}" for one in facts if isinstance(one, RuleDrop)), "")
    return f"{lost[-1].leg.direction}: {lost[-1].last_good or 'nowhere'}, {lost[-1].missing or 'everywhere'}{rule}"


def _row(name: str, taken: Sequence[float], asks: Sequence[NodeAsk], told: str) -> str:
    middle = statistics.median(taken)
    wait = max(ask.patience_ms for ask in asks)
    return f"{name:<38} {middle:>5.0f} {min(taken):>5.0f} {max(taken):>5.0f} {middle / wait:>5.2f}  {told}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=10)
    args = parser.parse_args()
    try:
        with Lab.up() as lab:
            slow = asyncio.run(measure(lab, args.repeat))
    except LabError as error:
        print(f"no lab, so no answer: {error}")
        return 3
    print(f"rows with a trace above {PROMISED_MS} ms: {slow} of {1 + len(WOUNDS)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
