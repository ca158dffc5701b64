"""How the time of a judgement grows with the facts; without it "the engine is fast enough" would be a feeling.

Run `python -m benchmarks.rulebase` in the checkout. The ratios come from one run on one machine; nothing is judged.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

from engine import rulebase
from engine.diagnosis import diagnose
from facts import Fact, FdbEntry, Neighbor, RouteLookup
from tests.scene import DEVICE, healthy
from tests.test_engine_oracle import oracle

SIZES = (50, 500)


def flow(size: int) -> list[Fact]:
    """A healthy flow and, up to `size` facts, the entries both nodes have for other peers."""
    facts = healthy()
    for number in itertools.count():
        tunnel, mac, peer = f"10.245.{number}.0", f"66:00:00:00:00:{number:02x}", f"172.30.1.{number}"
        for node in ("node-a", "node-b"):
            facts += [
                Neighbor(node=node, device=DEVICE, address=tunnel, found=True, mac=mac, state="PERMANENT"),
                FdbEntry(node=node, device=DEVICE, mac=mac, found=True, peer=peer),
                RouteLookup(node=node, destination=f"10.245.{number}.7", found=True, device=DEVICE, next_hop=tunnel),
            ]
        if len(facts) >= size:
            break
    return facts[:size]


def median_ms(work: Callable[[], object], rounds: int = 30) -> float:
    """Median time of one call in milliseconds, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def main() -> None:
    base = rulebase.load()
    print(f"{len(base.rules)} rules in {len(base.chunks)} ruleset(s); medians")
    engine = {}
    for size in SIZES:
        facts = flow(size)
        engine[size] = median_ms(lambda facts=facts: base.evaluate(facts))  # type: ignore[misc]
        whole = median_ms(lambda facts=facts: diagnose(facts))  # type: ignore[misc]
        print(f"{size:4} facts: rules {engine[size]:6.2f} ms, diagnosis {whole:6.2f} ms", flush=True)
    few, many = SIZES
    print(f"{many} against {few} facts: {engine[many] / engine[few]:.1f} x")
    # At more facts it takes minutes.
    brute = median_ms(lambda: oracle(base.rules, flow(few)), rounds=3)
    print(f"brute force at {few} facts: {brute:.1f} ms, against the engine {brute / engine[few]:.1f} x")


if __name__ == "__main__":
    main()
