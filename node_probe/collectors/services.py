"""Do Calico's own programs on this node stay alive? One that dies each second answers its health port in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from facts import CalicoService, Fact, NodeAsk
from node_probe.processes import Process, of_calico
from node_probe.progress import progress
from node_probe.view import View

SERVICES = ("felix", "node-services")
YOUNG_S = 10.0  # one that has run longer does not die each second
WATCH_S = 4.0
PAUSE_S = 0.05  # one that is given no tunnel address lives a tenth of a second, and is away for more than one
ENOUGH = 3  # starts that can be nothing but a loop


async def collect(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
    """CalicoService of Felix and of node-services; where the ask allows it watched for a few seconds when one is young,
    or ought to run and does not."""
    if not ask.felix:
        return
    began = time.monotonic()
    first = await asyncio.to_thread(of_calico)
    ages = {one.pid: one.age_s for one in first}
    met = {service: _met(service, first) for service in SERVICES}
    last = first
    counted = asyncio.ensure_future(progress(ask.node, ask.felix_metrics_port)) if ask.felix_metrics_port else None
    until = began + (WATCH_S if ask.felix_again else 0)
    while time.monotonic() < until and any(_suspect(service, last, met[service]) for service in SERVICES):
        await asyncio.sleep(PAUSE_S)
        last = await asyncio.to_thread(of_calico)
        for service in SERVICES:
            met[service] |= _met(service, last)
    applies, still_s = await counted if counted else (-1, 0)
    watched = round((time.monotonic() - began) * 1000) if last is not first else 0
    for service in SERVICES:
        started_by = [one for one in first if one.supervises == service]
        running = [one for one in first if one.role == service]
        parents = {one.parent for one in running}
        above = started_by or [one for one in first if one.pid in parents]
        yield CalicoService(
            node=ask.node,
            service=service,
            seen=bool(first or last),
            running=bool(_met(service, last)),
            supervised=bool(started_by),
            starts=len(met[service]),
            watched_ms=watched,
            age_s=round(min((ages[one.pid] for one in running), default=-1)),
            supervisor_age_s=round(min((ages[one.pid] for one in above), default=-1)),
            applies=applies if service == "felix" else -1,
            still_s=still_s if service == "felix" else 0,
        )


def _met(service: str, processes: list[Process]) -> set[tuple[int, int]]:
    return {(one.pid, one.started) for one in processes if one.role == service}


def _suspect(service: str, processes: list[Process], met: set[tuple[int, int]]) -> bool:
    running = [one for one in processes if one.role == service]
    if not running:
        return len(met) < ENOUGH and (bool(met) or any(one.supervises == service for one in processes))
    return len(met) < ENOUGH and min(one.age_s for one in running) < YOUNG_S
