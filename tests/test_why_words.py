"""What people type after `why`: a question, or a sentence that tells the nearest right form."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import WRONG_USAGE, UserError
from bot.words import Asked, parse


@pytest.mark.parametrize(
    ("words", "protocol", "port"),
    [
        (["shop/cart", "shop/db"], "", 0),
        (["shop/cart", "shop/db", "5432/tcp"], "tcp", 5432),
        (["shop/cart", "shop/db", "5432/UDP"], "udp", 5432),
        (["shop/cart", "shop/db", "tcp/5432"], "tcp", 5432),
        (["shop/cart", "shop/db", "udp", "53"], "udp", 53),
        (["shop/cart", "shop/db", "5432", "(tcp)"], "tcp", 5432),
        (["shop/cart", "shop/db", "5432 (tcp)"], "tcp", 5432),
        (["shop/cart", "shop/db", "5432"], "tcp", 5432),
        (["shop/cart shop/db 65535/tcp"], "tcp", 65535),
        (["shop/cart", "->", "shop/db", "1/tcp"], "tcp", 1),
        (["shop/cart", "to", "shop/db"], "", 0),
    ],
)
def test_forms_of_a_question(words: list[str], protocol: str, port: int) -> None:
    assert parse(words) == Asked(source="shop/cart", target="shop/db", protocol=protocol, port=port)


@pytest.mark.parametrize("word", ["cart", "cart-0", "shop/cart.v1", "10.244.1.5", "fd00::1", "node-a", "a" * 253])
def test_words_that_can_be_a_side(word: str) -> None:
    assert parse([word, "x"]).source == word


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing was said"),
        (["shop/cart"], "only 'shop/cart'"),
        (["a", "b", "http"], "why a b 5432/tcp"),
        (["a", "b", "0/tcp"], "from 1 to 65535"),
        (["a", "b", "65536/tcp"], "from 1 to 65535"),
        (["a", "b", "99999999999/tcp"], "PORT/tcp"),
        (["a", "b", "5432/sctp"], "PORT/tcp or PORT/udp"),
        (["a", "b", "5432/tcp", "now"], "PORT/tcp"),
        (["shop/cart", "shop/db:5432"], "why shop/cart shop/db 5432/tcp"),
        (["shop/cart:80/udp", "shop/db"], "why shop/cart shop/db 80/udp"),
        (["Shop/Cart", "shop/db"], "Perhaps 'shop/cart'?"),
        (["shop/cart/x", "shop/db"], "neither a name nor an IP address"),
        (["/cart", "shop/db"], "neither a name nor an IP address"),
        (["shop/", "shop/db"], "neither a name nor an IP address"),
        (["a" * 254, "b"], "neither a name nor an IP address"),
        (["10.0.0.300x_", "b"], "neither a name nor an IP address"),
        (["fe80::1%eth0", "b"], "neither a name nor an IP address"),
        (["a\x1b[31m", "b"], "\\x1b"),
        (["10.244.1.300", "b"], "four numbers from 0 to 255"),
        (["a", "0.0.0.0"], "never leave the pod"),
        (["a", "127.0.0.1"], "never leave the pod"),
        (["a", "::1"], "never leave the pod"),
        (["a", "::ffff:127.0.0.1"], "never leave the pod"),
        (["a", "224.0.0.18"], "a group's address"),
        (["a", "ff02::1"], "a group's address"),
        (["a", "255.255.255.255"], "a group's address"),
    ],
)
def test_nonsense_is_told_the_right_form(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(words)
    assert told in caught.value.sentence
    assert caught.value.status == WRONG_USAGE


@given(st.lists(st.text(max_size=30), max_size=5))
def test_anything_is_a_question_or_one_sentence(words: list[str]) -> None:
    try:
        asked = parse(words)
    except UserError as error:
        assert "\n" not in error.sentence and error.sentence.isprintable()
        assert len(error.sentence) < 600
    else:
        assert asked.source and asked.target
        assert (asked.protocol == "") == (asked.port == 0)


_names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
_groups_and_oneself = [ip_network(one) for one in ("0.0.0.0/32", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")]
_groups_and_oneself += [ip_network(one) for one in ("::/127", "ff00::/8", "::ffff:0:0/96")]
_addresses = st.ip_addresses().filter(lambda one: not any(one in network for network in _groups_and_oneself))
_sides = st.one_of(_names, st.builds("{}/{}".format, _names, _names), _addresses.map(str))


@given(_sides, _sides, st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
def test_a_question_survives_being_written_down(source: str, target: str, port: int, protocol: str) -> None:
    asked = parse([source, target, f"{port}/{protocol}"])
    assert parse([str(asked)]) == asked
    assert (asked.source, asked.target, asked.port, asked.protocol) == (source, target, port, protocol)
