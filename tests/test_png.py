"""The path in pixels: red where packets are lost, as in the drawing, and every character of it is one."""

from __future__ import annotations

import asyncio
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import cli
from bot.language import language, names
from bot.reply import picture, png
from tests import answers
from tests.test_picture import ANSWERS, circles, drawn, lost_in_the_network, saved

__all__ = ["saved"]

OK, BAD, PAPER = (0x1A, 0x7F, 0x37), (0xCF, 0x22, 0x2E), (0xFF, 0xFF, 0xFF)
EDGE = 7  # px from the middle of a circle, beside the sign in it


def pixels(file: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of red, green, blue and opacity of a PNG of 8 bits each."""
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    width = height = 0
    while at < len(file):
        (length,), kind = struct.unpack_from(">I", file, at), file[at + 4 : at + 8]
        body = file[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", file, at + 8 + length)[0]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert (depth, colour, interlaced) == (8, 6, 0)
        if kind == b"IDAT":
            data += body
        at += length + 12
    raw, rows, size = zlib.decompress(data), [], width * 4
    above = bytearray(size)
    for number in range(height):
        start = number * (size + 1)
        row = bytearray(raw[start + 1 : start + 1 + size])
        for x in range(size):
            left, up, corner = (row[x - 4], above[x], above[x - 4]) if x >= 4 else (0, above[x], 0)
            row[x] = (row[x] + _guess(raw[start], left, up, corner)) & 0xFF
        rows.append(bytes(row))
        above = row
    return width, height, rows


def _guess(kind: int, left: int, up: int, corner: int) -> int:
    """What a PNG's filter took off a byte (RFC 2083, 6)."""
    if kind == 4:
        near = left + up - corner
        return min((left, up, corner), key=lambda one: abs(near - one))
    return (0, left, up, (left + up) // 2)[kind]


def colour(rows: list[bytes], x: float, y: float) -> tuple[int, ...]:
    at = int(x * png.ZOOM) * 4
    return tuple(rows[int(y * png.ZOOM)][at : at + 3])


@pytest.mark.parametrize("lang", names())
@pytest.mark.parametrize("name", ["lost in the network", "a cause on both ways"])
def test_the_lost_stage_is_red_in_it_and_what_passed_is_green(
    name: str, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png, "ZOOM", 1.0)  # a quarter of the pixels to read
    svg = picture.render(ANSWERS[name](), language(lang))
    width, height, rows = pixels(png.render(svg))
    there = drawn(ANSWERS[name](), lang)
    assert (width, height) == (float(there.get("width", 0)) * png.ZOOM, float(there.get("height", 0)) * png.ZOOM)
    bad, ok = circles(there, "bad"), circles(there, "ok")
    assert bad and ok
    assert {colour(rows, x, y - EDGE) for x, y in bad} == {BAD}
    assert {colour(rows, x, y - EDGE) for x, y in ok} == {OK}
    assert colour(rows, width / png.ZOOM - 4, height / png.ZOOM / 2) == PAPER


def ink(text: str) -> int:
    """Pixels that are not white where this stands."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><style>{picture.STYLE}</style>'
    _, _, rows = pixels(png.render(f'{svg}<text x="5" y="20">{text}</text></svg>'))
    return sum(row[x + 3] > 0 for row in rows for x in range(0, len(row), 4))


@pytest.mark.parametrize("text", ["a", "→", "é", "路", "，"])
def test_with_no_font_on_the_machine_it_is_there_all_the_same(text: str) -> None:
    assert ink(text) > 0 == ink(" ")


@pytest.mark.parametrize("name", [one for one in names() if one != "en"])
def test_every_character_of_a_language_has_a_glyph(name: str) -> None:
    folder = Path(picture.__file__).parents[1] / "lang"
    said = "".join(path.read_text() for path in (folder / f"{name}.yaml", *(folder / name).glob("*.yaml")))
    assert png.lacking(said) == set(), "bot/reply/fonts/LICENSES.md tells how the fonts were made"


def test_what_no_font_has_is_left_to_the_readers_fonts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert png.lacking("shop/db 🐘 →") == {"🐘"}
    named = lost_in_the_network()
    path = tuple(msgspec.structs.replace(leg, source="shop/🐘") for leg in named.diagnosis.path)
    strange = msgspec.structs.replace(named, diagnosis=msgspec.structs.replace(named.diagnosis, path=path))
    assert png.render(picture.render(strange)) == b"" and "U+1F418" in caplog.text


def test_without_a_picture_there_is_none_in_pixels() -> None:
    assert png.render("") == b""
    assert png.render("<svg") == b"", "nor of what the renderer does not take"


async def test_while_it_is_drawn_the_bot_goes_on_hearing() -> None:
    svg = picture.render(lost_in_the_network())
    drawing, turns = asyncio.ensure_future(png.drawn(svg)), 0
    while not drawing.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert drawing.result() == png.render(svg) != b""
    assert turns > 10, "the renderer lets nothing else of its own process run"
    assert await png.drawn("<svg") == b"" == await png.drawn("")


@settings(max_examples=10, deadline=None)
@given(st.text(min_size=1, max_size=60), st.integers(1, 5))
def test_no_name_breaks_it(name: str, count: int) -> None:
    made = png.render(picture.render(answers.hostile(f"{name}<script>&\"'", count)))
    assert made == b"" or made.startswith(b"\x89PNG")


def test_a_saved_answer_is_drawn_into_a_png(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "ZOOM", 1.0)
    file = saved.with_suffix(".PNG")
    assert cli.main(["replay", str(saved), "--picture", str(file)]) == 3
    _, _, rows = pixels(file.read_bytes())
    ((x, y),) = circles(drawn(lost_in_the_network()), "bad")
    assert colour(rows, x, y - EDGE) == BAD
