"""The shapes a healthy cluster can have, to be put together at will; without them "no false accusation" would be
a promise about one drawing.

VARIANTS has them by name. A variant is one function in one of these modules, by what it changes.
"""

from __future__ import annotations

from lab.errors import LabError
from lab.variants import firewalls, machines, networks, pods, pools, settings, traffic
from lab.variants.variant import Variant

__all__ = ["VARIANTS", "Variant", "chosen"]

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for module in (networks, settings, pools, pods, firewalls, machines, traffic)
    for variant in vars(module).values()
    if isinstance(variant, Variant)
}


def chosen(words: str) -> list[Variant]:
    """The variants of NAME[+NAME...] in the order of VARIANTS, "" for none.

    Raises LabError for unknown ones and such as exclude each other.
    """
    names = [name for name in words.split("+") if name]
    for name in names:
        if name not in VARIANTS:
            raise LabError(f"There is no variant {name}; calico-why lab variants lists them.", 2)
    order = list(VARIANTS)
    found = [VARIANTS[name] for name in sorted(names, key=order.index)]
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            if not one.combines_with(other):
                raise LabError(f"No cluster is both {one.name} and {other.name}.", 2)
    return found
