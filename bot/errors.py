"""Without this file a person would get a traceback where a sentence is due."""

from __future__ import annotations

from collections.abc import Sequence

WRONG_USAGE = 2
COULD_NOT_JUDGE = 3


class UserError(Exception):
    """Something a person can act on. `sentence`: what happened, what it means, what to do.

    status: of the command line: WRONG_USAGE when other words would help, COULD_NOT_JUDGE when they would not.
    word, choices: what was written that fits nothing, and what would fit in its place (buttons in Slack).
    """

    def __init__(
        self, sentence: str, *, status: int = WRONG_USAGE, word: str = "", choices: Sequence[str] = ()
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.word = word
        self.choices = tuple(choices)
