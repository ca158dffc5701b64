"""The drawn path: one look must tell where packets are lost, whatever the names; a picture may not lie or break."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import cli
from bot.investigate import Investigation
from bot.language import ENGLISH, language
from bot.reply import blocks, json, picture, text, wording
from engine.diagnosis import diagnose
from engine.plan import expected_legs
from facts import ProbeResult, Sysctl
from facts.flow import STAGES, mirrored
from tests import answers
from tests.browser import chromium, open_page
from tests.scene import CART, WEB, change, healthy
from tests.test_sights import silent, until

SVG = "{http://www.w3.org/2000/svg}"
TEXTS_OUTSIDE = """(() => {
    const all = document.documentElement.viewBox.baseVal, out = [];
    for (const text of document.querySelectorAll('text')) {
        const box = text.getBBox();
        if (box.x < 0 || box.x + box.width > all.width || box.y < 0 || box.y + box.height > all.height)
            out.push(text.textContent);
    }
    return out;
})()"""
NAMES_OVERLAPPING = """(() => {
    const names = [...document.querySelectorAll('text.middle')].map(one => [one.textContent, one.getBBox()]), out = [];
    for (const [name, a] of names) for (const [other, b] of names)
        if (a !== b && a.x < b.x && a.x + a.width > b.x && Math.abs(a.y - b.y) < 8) out.push(name + ' ' + other);
    return out;
})()"""


def lost_in_the_network() -> Investigation:
    facts = silent()
    return answers.investigation(diagnose([*facts, *until(expected_legs(facts), "forward", "source tunnel")]))


def not_forwarded() -> Investigation:
    facts = change(silent(), Sysctl, {"node": "node-a", "switch": "forwarding"}, value="0")
    return answers.investigation(diagnose([*facts, *until(expected_legs(facts), "forward", "source veth")]))


def lost_on_the_way_back() -> Investigation:
    facts = silent()
    return answers.investigation(diagnose([*facts, *until(expected_legs(facts), "reverse", "source node")]))


def within_one_node() -> Investigation:
    facts = change(healthy(CART, WEB, port=8080), ProbeResult, {"pod": "shop/cart"}, answered=0, outcome="silence")
    found = diagnose([*facts, *until(expected_legs(facts), "forward", "source node")])
    return answers.investigation(found, asked="shop/cart shop/web 8080/tcp")


def both_families() -> Investigation:
    return answers.investigation(diagnose(healthy(families=(4, 6))))


ANSWERS = {
    "lost in the network": lost_in_the_network,
    "a cause on both ways": not_forwarded,
    "lost on the way back": lost_on_the_way_back,
    "within one node": within_one_node,
    "healthy by both families": both_families,
    "wrong MAC": answers.wrong_mac,
    "a node that could not be seen": answers.unseen,
}


def drawn(answer: Investigation, lang: str = "en") -> ElementTree.Element:
    return ElementTree.fromstring(picture.render(answer, language(lang)))


def circles(svg: ElementTree.Element, state: str) -> list[tuple[float, float]]:
    return [
        (float(one.get("cx", 0)), float(one.get("cy", 0)))
        for one in svg.iter(f"{SVG}circle")
        if one.get("class") == state and one.get("r") == "9"
    ]


def words(svg: ElementTree.Element) -> str:
    return " ".join(one.text or "" for one in svg.iter(f"{SVG}text"))


@pytest.mark.parametrize("name", ANSWERS)
def test_each_lost_stage_is_marked_and_nothing_else_is_red(name: str) -> None:
    answer = ANSWERS[name]()
    svg = drawn(answer)
    bad = [leg for leg in answer.diagnosis.path if leg.first_bad]
    assert len(circles(svg, "bad")) == len(bad)
    leads = [one for one in svg.iter(f"{SVG}line") if one.get("class") == "lead"]
    assert len(leads) == len(bad), "from each of them a line leads to what is said of it"
    assert sorted(float(one.get("x1", 0)) for one in leads) == sorted(x for x, _ in circles(svg, "bad"))


def test_the_two_ways_share_their_columns_and_the_loss_stands_where_it_is() -> None:
    svg = drawn(lost_on_the_way_back())
    ((bad, row),) = circles(svg, "bad")
    forward = [x for x, y in circles(svg, "ok") if y != row]
    assert len(forward) == len(STAGES)
    # The answers' source tunnel is the forward packets' target tunnel.
    assert bad == sorted(forward)[STAGES.index(mirrored("source tunnel"))]
    assert [x for x, y in circles(svg, "ok") if y == row] == [x for x in sorted(forward, reverse=True) if x > bad]
    told = words(svg)
    assert "Lost here, and no cause was found" in told
    assert "An answer from shop/db to shop/cart was seen going into vxlan.calico of node-b, and never" in told


def test_a_cause_is_told_beside_both_ways_once_and_unseen_hops_are_no_seen_ones() -> None:
    svg = drawn(not_forwarded())
    assert words(svg).count("are 0 on node-a") == 1
    ((x, there), (same, back)) = circles(svg, "bad")
    assert x == same and there < back
    assert {y for _, y in circles(svg, "ok")} == {there}, "of the answers' way nobody saw packets"
    assert {y for _, y in circles(svg, "checked")} == {back}


def test_where_packets_came_back_all_of_it_is_good() -> None:
    svg = drawn(answers.well())
    assert len(circles(svg, "ok")) == 2 * len(STAGES)
    assert not circles(svg, "bad") and not circles(svg, "unknown") and not circles(svg, "checked")


def test_within_one_node_routing_is_one_place() -> None:
    svg = drawn(within_one_node())
    assert words(svg).count("routing") == 1 and words(svg).count("network") == 0


def test_the_numbers_are_those_of_packets_seen() -> None:
    svg = drawn(lost_in_the_network())
    counts = [one.text for one in svg.iter(f"{SVG}text") if "count" in (one.get("class") or "")]
    assert counts == ["2", "2", "2", "2", "0"]


def test_who_cannot_see_it_is_told_the_same() -> None:
    svg = drawn(lost_in_the_network())
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == wording.path_in_words(lost_in_the_network().diagnosis)
    assert "last good source tunnel, first bad underlay" in (svg.get("aria-label") or "")


def test_in_chinese_nothing_is_left_in_english() -> None:
    told = words(drawn(lost_in_the_network(), "zh"))
    assert "之后从未看到它到达 node-b" in told
    assert not re.search(r"seen|lost|known|routing|network|forward|reverse|cause", told), told


def test_without_a_path_there_is_no_picture() -> None:
    assert picture.render(answers.no_engine(), ENGLISH) == ""


@given(st.text(min_size=1, max_size=300), st.integers(1, 5))
def test_no_name_breaks_it_or_gets_into_it_as_markup(name: str, count: int) -> None:
    made = picture.render(answers.hostile(f"{name}<script>&\"'", count))
    svg = ElementTree.fromstring(made)
    assert {one.tag.removeprefix(SVG) for one in svg.iter()} <= {
        "svg", "title", "desc", "style", "rect", "text", "line", "path", "circle",
    }  # fmt: skip
    assert "href" not in made and "url(" not in made, "nothing is loaded from anywhere"


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    with chromium() as address:
        yield address


@pytest.mark.parametrize("lang", ["en", "zh"])
async def test_in_a_browser_every_word_is_within_the_picture_and_none_over_another(
    browser: str, tmp_path: Path, lang: str
) -> None:
    long = {"source": "a-namespace/" + "checkout-" * 12, "target": "b/" + "W" * 250}
    named = lost_in_the_network()
    path = tuple(msgspec.structs.replace(leg, **long, lost=leg.lost * 4) for leg in named.diagnosis.path)
    many = msgspec.structs.replace(named, diagnosis=msgspec.structs.replace(named.diagnosis, path=path))
    everything = {**{name: make() for name, make in ANSWERS.items()}, "long names": many}
    for name, answer in everything.items():
        file = tmp_path / f"{name}.svg"
        file.write_text(picture.render(answer, language(lang)))
        async with open_page(browser, file.as_uri()) as page:
            assert await page.evaluate(TEXTS_OUTSIDE) == [], name
            assert await page.evaluate(NAMES_OVERLAPPING) == [], name


async def test_it_is_light_for_who_reads_light_and_dark_for_who_reads_dark(browser: str, tmp_path: Path) -> None:
    file = tmp_path / "path.svg"
    file.write_text(picture.render(lost_in_the_network()))
    seen = {}
    async with open_page(browser, file.as_uri()) as page:
        for scheme in ("light", "dark"):
            await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            seen[scheme] = [
                await page.evaluate(f"getComputedStyle(document.querySelector('{what}')).fill")
                for what in ("rect.paper", "text.head", "circle.bad")
            ]
    for scheme, (paper, ink, bad) in seen.items():
        assert contrast(paper, ink) > 7 and contrast(paper, bad) > 3, scheme
    assert brightness(seen["light"][0]) > 0.5 > brightness(seen["dark"][0])


def brightness(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "inv.json"
    file.write_bytes(msgspec.json.encode(lost_in_the_network()))
    return file


def test_a_saved_answer_is_drawn_into_a_file(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved.with_suffix(".svg")
    assert cli.main(["replay", str(saved), "--picture", str(file)]) == 3
    assert len(circles(ElementTree.fromstring(file.read_text()), "bad")) == 1
    assert "never reaching node-b" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_told_behind_the_answer(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["replay", str(saved), "--picture", str(saved / "x.svg")]) == 2
    told = capsys.readouterr()
    assert "never reaching node-b" in told.out and "cannot be written" in told.err


def test_the_other_forms_tell_the_place_as_well() -> None:
    """In the terminal below the hops, in the thread below them, for programs in fields of their own."""
    said = "A packet from shop/cart to shop/db was seen coming in by cali4c1aaaaaaaa of node-a, and never going into"
    answer = not_forwarded()
    lines = text.render(answer).splitlines()
    hops = next(number for number, line in enumerate(lines) if "eth0 ok > cali4c1aaaaaaaa ok > node-a x" in line)
    assert said in " ".join(lines[hops : hops + 3])
    (path, *_) = blocks.thread(answer)
    assert any(
        said in element["text"] for block in path.blocks for element in block.get("elements", ()) if "text" in element
    )
    (forward, reverse) = json.document(answer)["path"]
    assert said in forward["lost"] and reverse["lost"] == ""
    assert [hop["met"] for hop in forward["hops"]][:4] == [2, 2, 0, 0] and {hop["met"] for hop in reverse["hops"]} == {
        -1
    }
