"""What people write in a channel becomes one of a few words, or a sentence; nothing of it goes further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import words
from bot.errors import UserError
from bot.speech import HELP, Said, help_text, reads, understand


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("why shop/cart shop/db 5432/tcp", ["shop/cart", "shop/db", "5432/tcp"]),
        ("<@U0CALICO> why can't shop/cart reach shop/db on 5432?", ["shop/cart", "shop/db", "5432"]),
        ("<@U0CALICO|calico> why can’t `shop/cart` reach `shop/db` any more?", ["shop/cart", "shop/db"]),
        ("can shop/cart talk to shop/db on port tcp/5432", ["shop/cart", "shop/db", "tcp/5432"]),
        ("Why isn't shop/cart able to connect to shop/db?", ["shop/cart", "shop/db"]),
        ("why can <http://10.1.2.3|10.1.2.3> not reach 10.1.2.4 over udp 53", ["10.1.2.3", "10.1.2.4", "udp", "53"]),
        ("does shop/cart reach shop/db.", ["shop/cart", "shop/db"]),
        ("WHY shop/cart shop/db", ["shop/cart", "shop/db"]),
        ("why shop/cart shop/db 5432 watch", ["shop/cart", "shop/db", "5432", "watch"]),
        ("why can't shop/cart reach shop/db, watch 120?", ["shop/cart", "shop/db", "watch", "120"]),
    ],
)
def test_a_question_in_plain_words(text: str, rest: list[str]) -> None:
    assert understand(text) == Said("why", rest)
    words.parse(words.watched(rest)[0])


@pytest.mark.parametrize("word", ["help", "policy", "fixes", "approve", "reject"])
def test_the_other_words(word: str) -> None:
    assert understand(f"<@U0CALICO>  {word} `fx-7k2pabcd` now")[:2] == (word, ["fx-7k2pabcd", "now"])
    assert word in help_text("/calico ")


def test_nothing_said_is_a_call_for_help() -> None:
    assert understand(" <@U0CALICO> ").word == "help"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wyh shop/cart shop/db", "Did you mean `why shop/cart shop/db`?"),
        ("fixs", "Did you mean `fixes`?"),
        ("shop/cart shop/db 53/udp", "Did you mean `why shop/cart shop/db 53/udp`?"),
        (
            "flush",
            "I do not know 'flush'. I know why, capture, policy, ipam, node, keep, get, create, fixes, approve, "
            "reject, cancel, preflight, audit, help; try `help`.",
        ),
        ("why shop/cart", "only 'shop/cart' was said"),
        ("why shop/cart shop/db watch 9000", "from 5 to 600"),
        ("why $(reboot) shop/db", "why shop/cart shop/db"),
    ],
)
def test_what_is_not_understood_is_answered_with_the_nearest_right_form(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        understand(text)
    assert sentence in error.value.sentence


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*HELP, "shop/a", "shop/b", "<@U1>", "`", "why", "watch", "53", "&"])).map(" ".join)
)
def test_any_text_gives_known_words_or_a_sentence(text: str) -> None:
    try:
        said = understand(text)
    except UserError as error:
        assert error.sentence
        return
    assert said.word in HELP
    if said.word == "why":
        words.parse(words.watched(said.rest)[0])


@pytest.mark.parametrize(
    ("words", "only_reads"),
    [
        ("policy shop/cart shop/db", True),
        ("ipam show --show-blocks", True),
        ("node diags", True),
        ("get ippools", True),
        ("keep shop/cart shop/db", True),
        ("fixes", True),
        ("fixes show fx-7k2pabcd", True),
        ("audit export", True),
        ("preflight", True),
        ("wyh", True),
        ("ipam release --ip 10.244.1.7", False),
        ("fixes OFF it is enough", False),
        ("fixes on", False),
        ("fixes now fx-7k2pabcd", False),
        ("create ```kind: IPPool```", False),
        ("apply ```kind: IPPool```", False),
        ("replace ```kind: IPPool```", False),
        ("patch ippool blue -p {}", False),
        ("delete gnp deny-all", False),
        ("capture shop/cart shop/db", False),
        ("approve fx-7k2pabcd", False),
    ],
)
def test_what_may_be_answered_twice(words: str, only_reads: bool) -> None:
    assert reads(f"<@U0CALICO> {words}") is only_reads
