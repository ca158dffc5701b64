"""Tables as calicoctl draws them; without it who compares ours with calicoctl's would compare dashes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from facts.version import since

_NUMBER = re.compile(r"-?(\d{1,3}(,\d{3})*|\d+)(\.\d+)?%?")
PLAIN_SINCE = (3, 33)  # from here on heads stand left, and columns of numbers right as a whole


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, version: str = "", numbers: Collection[str] = ()
) -> str:
    """Lines of fixed width, as the calicoctl of that version draws them.

    numbers: heads of the columns that newer ones draw to the right. Older ones do so with each cell that is a number,
    and set heads in the middle.
    """
    newer = since(version, PLAIN_SINCE, unknown=True)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def cell(text: str, width: int, name: str) -> str:
        right = name in numbers if newer else bool(_NUMBER.fullmatch(text))
        return text.rjust(width) if right else text.ljust(width)

    def title(name: str, width: int) -> str:
        left = 0 if newer else (width - len(name)) // 2
        return (" " * left + name).ljust(width)

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rule = f"+-{'-+-'.join('-' * width for width in widths)}-+"
    body = [
        line([cell(text, width, name) for text, width, name in zip(row, widths, head, strict=True)]) for row in rows
    ]
    return "\n".join(
        [rule, line([title(name, width) for name, width in zip(head, widths, strict=True)]), rule, *body, rule]
    )
