"""The wounds of the lab, one a file; without it nothing could be broken on purpose, and no rule could be proved.

A fault's file name is the name of the failure mode its rule finds. Each module has WHERE, the nodes of the asked pair
it can wound ("source", "target"), and inflict(cluster, wound), called in the thread that owns the kernels. Where it
wounds what belongs to one address family, and not to IPv4 alone, FAMILIES says to which.
"""

from __future__ import annotations

import functools
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
    peer: str  # the node of the other pod; another node where both pods are on one
    pod: str  # the asked pod on the wounded node
    other: str  # the asked pod on the peer
    bystander: str  # a third node, "" when there is none
    family: int = 4  # of the leg that is wounded

    def third(self) -> str:
        """The bystander. Raises LabError in a lab too small to have one."""
        if not self.bystander:
            raise LabError("This fault needs a third node; start the lab with --nodes 3.", 2)
        return self.bystander


def names() -> list[str]:
    """Every fault, by file name."""
    return list(_names())


@functools.cache  # each fault that is loaded is looked for here
def _names() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@functools.cache
def load(name: str) -> ModuleType:
    """Raises LabError for an unknown one."""
    if name not in names():
        raise LabError(f"There is no fault called {name}. calico-why lab faults lists them.", 2)
    return importlib.import_module(f"{__name__}.{name}")


def families(name: str) -> tuple[int, ...]:
    """The address families it can wound, the one it wounds by default first."""
    found: tuple[int, ...] = getattr(load(name), "FAMILIES", (4,))
    return found


def needs(name: str) -> str:
    """What no lab has so far and this fault needs, such as "an ipip device"; "" for nothing."""
    return str(getattr(load(name), "NEEDS", ""))


def beside(name: str) -> str:
    """The failure mode that is the cause where this one can only be a warning beside it, or where too little is seen to
    tell the two apart; "" for none."""
    return str(getattr(load(name), "BESIDE", ""))


def variant(name: str) -> str:
    """The shape of lab this fault can be inflicted on, such as "dualstack"; "" for the one that comes up by itself."""
    return str(getattr(load(name), "VARIANT", ""))


def describe(name: str) -> str:
    """The first line of its docstring."""
    return (load(name).__doc__ or "").strip().splitlines()[0]
