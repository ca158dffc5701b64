"""The drawn path in pixels: Slack shows a PNG in the thread, and of an SVG nothing but a name to click on."""

from __future__ import annotations

import functools
import logging
import re
import struct
from pathlib import Path

from bot.reply.picture import STYLE

log = logging.getLogger(__name__)

FONTS = Path(__file__).parent / "fonts"  # of our own: a container has none, and what lacks a glyph is an empty box
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
ZOOM = 2.0  # pixels of an SVG's one
_COLOUR = re.compile(r"--([a-z]+):([^;}]+)")


def render(svg: str) -> bytes:
    """PNG of what `picture.render` drew, in light colours.

    b"" for "", and where our fonts lack one of its characters or the renderer does not take it: then the SVG says more.
    """
    if not svg:
        return b""
    if strange := lacking(svg):
        log.info("no PNG: no font for %s", " ".join(f"U+{ord(one):04X}" for one in sorted(strange)))
        return b""
    import resvg_py

    try:
        return resvg_py.svg_to_bytes(
            svg_string=svg.replace(STYLE, _light(STYLE)),
            zoom=ZOOM,
            skip_system_fonts=True,
            font_files=[str(path) for path in _files()],
            font_family=SANS,
            sans_serif_family=SANS,
            monospace_family=MONO,
        )
    except ValueError as error:
        log.warning("no PNG: %s", error)
        return b""


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
    return frozenset(one for path in _files() for one in _characters(path.read_bytes()))


def _files() -> list[Path]:
    return sorted(FONTS.glob("*.ttf"))


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
