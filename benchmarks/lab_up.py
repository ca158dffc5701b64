"""How long a lab takes to come up and to heal, and how it grows with its nodes; without it slowness would creep in.

usage: python -m benchmarks.lab_up [NODES ...]      3 and 9 by default; numbers only, no thresholds
"""

from __future__ import annotations

import statistics
import sys
import time

from lab.client import Lab

RUNS = 3


def measured(nodes: int) -> dict[str, float]:
    """Medians in seconds: kernels programmed, all ready as the starter sees it, one heal, down."""
    times: dict[str, list[float]] = {"kernel": [], "ready": [], "heal": [], "down": []}
    for _ in range(RUNS):
        began = time.perf_counter()
        lab = Lab.up(nodes=nodes, workers=False)
        times["ready"].append(time.perf_counter() - began)
        times["kernel"].append(lab.status()["times"]["kernel_s"])
        began = time.perf_counter()
        lab.heal()
        times["heal"].append(time.perf_counter() - began)
        began = time.perf_counter()
        lab.down()
        times["down"].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def main(sizes: list[int]) -> None:
    print(f"{'nodes':>6} {'kernel s':>9} {'ready s':>8} {'heal s':>7} {'down s':>7}   without probes and fixers")
    first: dict[str, float] = {}
    for nodes in sizes:
        found = measured(nodes)
        first = first or found
        row = f"{nodes:>6} {found['kernel']:>9.3f} {found['ready']:>8.3f} {found['heal']:>7.3f} {found['down']:>7.3f}"
        print(f"{row}   kernel x{found['kernel'] / first['kernel']:.1f} for nodes x{nodes / sizes[0]:.1f}", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [3, 9])
