"""The drawn path in pixels: Slack shows a PNG in the thread, and of an SVG nothing but a name to click on."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import struct
import subprocess
import sys

from bot.reply.picture import STYLE
from bot.reply.pixels import fonts, pixels

log = logging.getLogger(__name__)

ZOOM = 2.0  # pixels of an SVG's one
DRAWN_S = 30.0  # by a process that yields to every other
_COLOUR = re.compile(r"--([a-z]+):([^;}]+)")


def render(svg: str) -> bytes:
    """PNG of what `picture.render` drew, in light colours.

    b"" for "", and where our fonts lack one of its characters or the renderer does not take it: then the SVG says more.
    """
    if not (light := _drawable(svg)):
        return b""
    try:
        return pixels(light, ZOOM)
    except ValueError as error:
        log.warning("no PNG: %s", error)
        return b""


async def drawn(svg: str) -> bytes:
    """The same by a process of its own, while everything else here goes on."""
    light = await asyncio.to_thread(_drawable, svg)
    if not light:
        return b""
    pipe = subprocess.PIPE
    command = [sys.executable, "-P", "-m", "bot.reply.pixels", str(ZOOM)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        log.warning("no PNG: %s", error)
        return b""
    try:
        content, said = await asyncio.wait_for(process.communicate(light.encode()), DRAWN_S)
    except TimeoutError:
        content, said = b"", f"not drawn within {DRAWN_S:g} s".encode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return content
    log.warning("no PNG: %s", said.decode(errors="replace").strip() or process.returncode)
    return b""


def _drawable(svg: str) -> str:
    """In light colours; "" where our fonts lack one of its characters."""
    if strange := lacking(svg):
        log.info("no PNG: no font for %s", " ".join(f"U+{ord(one):04X}" for one in sorted(strange)))
        return ""
    return svg.replace(STYLE, _light(STYLE))


def lacking(text: str) -> set[str]:
    """Characters that none of our fonts has."""
    return {one for one in text if one.isprintable() and one not in _known()}


def _light(style: str) -> str:
    """The same without variables and choices of the reader's, which are a browser's affair."""
    variables, _, rules = style.partition("\ntext{")
    colours = dict(_COLOUR.findall(variables.partition("@media")[0]))
    return re.sub(r"var\(--([a-z]+)\)", lambda found: colours[found[1]], "text{" + rules)


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(one for path in fonts() for one in _characters(path.read_bytes()))


def _characters(font: bytes) -> set[str]:
    """What a TrueType font has glyphs for: the segments of its format 4 `cmap`."""
    (tables,) = struct.unpack_from(">H", font, 4)
    at = next(
        offset
        for tag, _, offset, _ in (struct.unpack_from(">4sIII", font, 12 + 16 * number) for number in range(tables))
        if tag == b"cmap"
    )
    (subtables,) = struct.unpack_from(">H", font, at + 2)
    for number in range(subtables):
        (offset,) = struct.unpack_from(">I", font, at + 8 + 8 * number)
        kind, _, _, twice = struct.unpack_from(">4H", font, at + offset)
        if kind == 4:
            ends = struct.unpack_from(f">{twice // 2}H", font, at + offset + 14)
            starts = struct.unpack_from(f">{twice // 2}H", font, at + offset + 16 + twice)
            segments = zip(starts, ends, strict=True)
            return {chr(code) for start, end in segments for code in range(start, end + 1) if code != 0xFFFF}
    return set()
