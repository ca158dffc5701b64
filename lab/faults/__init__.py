"""The wounds of the lab, one a file; without it nothing could be broken on purpose, and no rule could be proved.

A fault's file name is the name of the failure mode its rule finds. Each module has WHERE, the nodes of the asked pair
it can wound ("source", "target"), and inflict(cluster, wound), called in the thread that owns the kernels.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType

from lab.errors import LabError


@dataclass(frozen=True, slots=True)
class Wound:
    """Where a fault strikes. Pods are namespace/name."""

    source: str
    target: str
    where: str  # "source" | "target": which pod's node is wounded
    node: str  # the wounded node
    peer: str  # the node of the other pod
    pod: str  # the asked pod on the wounded node
    other: str  # the asked pod on the peer
    bystander: str  # a third node, "" when there is none

    def third(self) -> str:
        """The bystander. Raises LabError in a lab too small to have one."""
        if not self.bystander:
            raise LabError("This fault needs a third node; start the lab with --nodes 3.", 2)
        return self.bystander


def names() -> list[str]:
    """Every fault, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """Raises LabError for an unknown one."""
    if name not in names():
        raise LabError(f"There is no fault called {name}. calico-why lab faults lists them.", 2)
    return importlib.import_module(f"{__name__}.{name}")


def describe(name: str) -> str:
    """The first line of its docstring."""
    return (load(name).__doc__ or "").strip().splitlines()[0]
