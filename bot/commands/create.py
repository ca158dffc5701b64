"""`calico-why create`: new resources, once a second person approved them, from Slack and a terminal alike."""

from __future__ import annotations

from functools import partial

from bot.resources import writing

HELP = "create -f FILE: have new resources of Calico made, once somebody approved it, for example: create -f pool.yaml"
TAKES_TEXT = True

add_words = writing.add_words
check_words = partial(writing.check_words, "create")
answer = partial(writing.answer, "create")
