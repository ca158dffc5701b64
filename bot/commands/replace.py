"""`calico-why replace`: resources in place of those that are there, once a second person approved it."""

from __future__ import annotations

from functools import partial

from bot.resources import writing

HELP = "replace -f FILE: have resources of Calico replaced, once approved, for example: replace -f felix.yaml"
TAKES_TEXT = True

add_words = writing.add_words
check_words = partial(writing.check_words, "replace")
answer = partial(writing.answer, "replace")
