"""Whether Felix is alive: it decides if a wound heals by itself.

A Felix that restarts is not ready for a moment, which is no fault; so a bad answer is asked for again.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

import aiohttp
import msgspec

from facts import Fact, FelixHealth, NodeAsk
from node_probe.view import View

TIMEOUT_S = 0.7
AGAIN_S = 3.0  # between two answers that are to count as more than a moment
PATIENCE_S = 2 * TIMEOUT_S + AGAIN_S + 0.2  # what both may take


async def collect(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
    """FelixHealth from /liveness and /readiness; where the ask wants it, the second answer instead of a bad first one.

    Felix listens on the node's loopback only.
    """
    first = await _asked(ask)
    if _good(first) or not ask.felix_again:
        yield first
        return
    await asyncio.sleep(AGAIN_S)
    second = await _asked(ask)
    yield msgspec.structs.replace(second, confirmed=not _good(second))


def _good(health: FelixHealth) -> bool:
    return health.reachable and health.live and health.ready


async def _asked(ask: NodeAsk) -> FelixHealth:
    where = f"127.0.0.1:{ask.felix_health_port}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            (live, said), (ready, more) = await asyncio.gather(
                _get(session, f"http://{where}/liveness"), _get(session, f"http://{where}/readiness")
            )
    except aiohttp.ClientConnectorError as error:
        refused = error.errno == errno.ECONNREFUSED
        detail = f"nothing listens on {where}" if refused else f"{where}: {error.strerror}"
        return FelixHealth(node=ask.node, reachable=False, detail=detail)
    except (aiohttp.ClientError, TimeoutError) as error:
        detail = (
            f"no answer from {where} within {TIMEOUT_S} s" if isinstance(error, TimeoutError) else f"{where}: {error}"
        )
        return FelixHealth(node=ask.node, reachable=False, detail=detail)
    else:
        return FelixHealth(node=ask.node, reachable=True, live=live, ready=ready, detail=said or more)


async def _get(session: aiohttp.ClientSession, address: str) -> tuple[bool, str]:
    async with session.get(address) as answer:
        said = _complaints((await answer.content.read(1 << 14)).decode(errors="replace"))
        good = answer.status == 200
        return good, said or ("" if good else f"HTTP {answer.status}")


def _complaints(table: str) -> str:
    """The components that do not report live and ready, out of Felix's table; "" when all do."""
    found = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] != "COMPONENT":
            said = [cell for cell in cells[2:] if cell not in ("", "reporting live", "reporting ready")]
            found += [f"{cells[0]}: {', '.join(said)}"] if said else []
    return "; ".join(found)
