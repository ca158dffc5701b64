"""`calico-why apply`: resources as they are to be, once a second person approved it."""

from __future__ import annotations

from functools import partial

from bot.resources import writing

HELP = "apply -f FILE: have resources of Calico made or changed, once approved, for example: apply -f policy.yaml"
TAKES_TEXT = True

add_words = writing.add_words
check_words = partial(writing.check_words, "apply")
answer = partial(writing.answer, "apply")
