"""What makes pixels of an SVG, also as a process of its own: the renderer lets nothing else of its process run, so
without it each picture would hold up everybody who waits for the bot to say that it heard them.

`python -m bot.reply.pixels ZOOM` reads an SVG and writes a PNG. It imports nothing of the bot, to be there at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FONTS = Path(__file__).parent / "fonts"  # of our own: a container has none, and what lacks a glyph is an empty box
SANS, MONO = "DejaVu Sans", "DejaVu Sans Mono"
NICE = 10  # an answer is worth more than its picture


def fonts() -> list[Path]:
    return sorted(FONTS.glob("*.ttf"))


def pixels(svg: str, zoom: float) -> bytes:
    """PNG, zoom of its pixels to one of the SVG. Raises ValueError for what the renderer does not take."""
    import resvg_py

    return resvg_py.svg_to_bytes(
        svg_string=svg,
        zoom=zoom,
        skip_system_fonts=True,
        font_files=[str(path) for path in fonts()],
        font_family=SANS,
        sans_serif_family=SANS,
        monospace_family=MONO,
    )


def main(zoom: str) -> int:
    os.nice(NICE)
    try:
        sys.stdout.buffer.write(pixels(sys.stdin.buffer.read().decode(), float(zoom)))
    except ValueError as error:
        sys.stderr.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
