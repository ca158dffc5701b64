"""Without this file a person would get a traceback where a sentence is due."""

from __future__ import annotations

WRONG_USAGE = 2
COULD_NOT_JUDGE = 3


class UserError(Exception):
    """Something a person can act on. `sentence`: what happened, what it means, what to do.

    status is the exit status of the command line: WRONG_USAGE when other words would help, COULD_NOT_JUDGE when the world is in the way.
    """

    def __init__(self, sentence: str, *, status: int = WRONG_USAGE) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
