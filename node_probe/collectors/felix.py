"""Whether Felix is alive: it decides if a wound heals by itself."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

import aiohttp

from facts import Fact, FelixHealth, NodeAsk
from node_probe.view import View

TIMEOUT_S = 0.7


async def collect(ask: NodeAsk, view: View) -> AsyncIterator[Fact]:
    """FelixHealth from /liveness and /readiness. Felix listens on the node's loopback only."""
    where = f"127.0.0.1:{ask.felix_health_port}"
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
            (live, said), (ready, more) = await asyncio.gather(
                _get(session, f"http://{where}/liveness"), _get(session, f"http://{where}/readiness")
            )
    except aiohttp.ClientConnectorError as error:
        refused = error.errno == errno.ECONNREFUSED
        detail = f"nothing listens on {where}" if refused else f"{where}: {error.strerror}"
        yield FelixHealth(node=ask.node, reachable=False, detail=detail)
    except (aiohttp.ClientError, TimeoutError) as error:
        detail = (
            f"no answer from {where} within {TIMEOUT_S} s" if isinstance(error, TimeoutError) else f"{where}: {error}"
        )
        yield FelixHealth(node=ask.node, reachable=False, detail=detail)
    else:
        yield FelixHealth(node=ask.node, reachable=True, live=live, ready=ready, detail=said or more)


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
