"""What the probe's commands tell people instead of a traceback."""

from __future__ import annotations


class CannotStart(Exception):
    """`sentence`: what happened, what it means, what to do. `status`: exit status (2 wrong usage, 3 could not)."""

    def __init__(self, sentence: str, status: int = 3) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
