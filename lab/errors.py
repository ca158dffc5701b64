"""What the lab tells people when it cannot do what they asked; without it they would meet a traceback."""

from __future__ import annotations


class LabError(Exception):
    """`sentence`: what happened, what it means, what to do. `status`: exit status (2 wrong usage, 3 could not)."""

    def __init__(self, sentence: str, status: int = 3) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class NamespacesForbidden(LabError):
    """This machine lets this user make no namespaces, or no TUN devices: no such lab here, whatever else is done."""
