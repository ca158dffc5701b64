"""An address that IPAM holds as free, where nothing but its allocation is routed to: other nodes lose the way to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.client import Lab
from tests.asking import ask


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    """Pods of node-c: one's address is borrowed, the other's block belongs to nobody."""
    with Lab.up(variant="borrowed-pod-address+block-without-affinity") as lab:
        yield lab


@pytest.mark.parametrize("source", ["shop/cart", "shop/db"])
@pytest.mark.parametrize("target", ["shop/mail", "shop/search"])
async def test_an_address_that_only_its_allocation_leads_to(shared: Lab, source: str, target: str) -> None:
    """The route that is gone is its echo, also on the node that lent the address and swallows what is free of it."""
    shared.heal()
    assert (await ask(shared.environment(), f"{source} {target} 8080/tcp")).diagnosis.verdict == "healthy"
    shared.inflict("allocation_missing", source, target, "target")
    for words, leg in ((f"{source} {target} 8080/tcp", "forward"), (f"{target} {source}", "reverse")):
        diagnosis = (await ask(shared.environment(), words)).diagnosis
        told = [(one.rule, one.severity, one.node, one.leg) for one in diagnosis.causes]
        assert told == [("allocation_missing", "breaks", "node-c", leg)], diagnosis
        assert diagnosis.warnings == ()


async def test_between_pods_of_its_own_node_it_is_a_warning(shared: Lab) -> None:
    shared.heal()
    shared.inflict("allocation_missing", "shop/mail", "shop/search", "target")
    diagnosis = (await ask(shared.environment(), "shop/mail shop/search 8080/tcp")).diagnosis
    assert (diagnosis.verdict, diagnosis.causes) == ("healthy", ())
    assert [one.rule for one in diagnosis.warnings] == ["allocation_missing"]
