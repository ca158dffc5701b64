"""Lets only this machine's own page and programs in; without it any web page open in a browser could press Approve."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

NAMES = ("127.0.0.1", "localhost")


@web.middleware
async def own_origin_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """403 for a Host that is not this server (a name rebound to loopback) and for an Origin of another site."""
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    hosts = {f"{name}:{port}" for name in NAMES}
    origin = request.headers.get("Origin")
    if request.host not in hosts or (origin is not None and origin not in {f"http://{host}" for host in hosts}):
        return web.Response(status=403, text="only this machine's own page and programs may ask here")
    return await handler(request)
