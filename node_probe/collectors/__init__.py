"""One kernel question a file; without this list a new file would be asked nothing.

A collector is a module with `collect(ask, view)`, which yields facts; an async one may wait. Its file's name is what a
`Blind` calls it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Callable, Iterator

from facts import Fact, NodeAsk
from node_probe.view import View

Collector = Callable[[NodeAsk, View], Iterator[Fact] | AsyncIterator[Fact]]


def discover() -> dict[str, Collector]:
    """Every collector by its name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").collect for name in modules}
