"""A fault that is over before its packets are followed: without these tests an answer could say that nothing is wrong
and that nothing passes, and leave out that it does now."""

from __future__ import annotations

import shutil

import pytest

from bot.investigate import Means, investigate
from bot.settings import from_environment
from bot.sources.kubernetes import Cluster
from bot.sources.probes import Probes
from facts import Diagnosis
from lab.client import Lab
from tests.asking import worker

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
PASSED = "When the same packets were followed, a few seconds later, they passed"
RULE = """table ip corporate {
    chain forward { type filter hook forward priority -20; ip protocol { icmp, tcp } ip daddr 10.244.0.0/16 drop; }
}
"""


async def answer(lab: Lab, words: str, *, mended: bool) -> Diagnosis:
    """With a firewall that drops everything at first; mended: and nothing more when packets are followed."""
    assert lab.exec("node-b", "nft", "-f", "-", input=RULE).returncode == 0
    there = True

    def mend() -> None:
        nonlocal there
        if there:
            there = lab.exec("node-b", "nft", "delete", "table", "ip", "corporate").returncode != 0

    async def progress(text: str) -> None:
        if mended and "following packets" in text:
            mend()

    settings = from_environment(lab.environment())
    try:
        async with Cluster(settings) as cluster, Probes(settings) as probes:
            found = await investigate(words.split(), Means(cluster, probes, worker()), progress=progress)
        assert there != mended
        return found.diagnosis
    finally:
        mend()


@pytest.mark.parametrize("words", ["shop/cart shop/db", "shop/cart shop/db 5432/tcp"])
async def test_what_is_mended_before_it_can_be_followed_is_said_to_pass_again(lab: Lab, words: str) -> None:
    diagnosis = await answer(lab, words, mended=True)
    assert not diagnosis.causes
    assert diagnosis.verdict == "unknown" and PASSED in diagnosis.summary, diagnosis.summary


async def test_what_is_not_mended_is_named_and_not_said_to_pass(lab: Lab) -> None:
    diagnosis = await answer(lab, "shop/cart shop/db 5432/tcp", mended=False)
    assert [one.rule for one in diagnosis.causes] == ["host_firewall_drops_forward"]
    assert PASSED not in diagnosis.summary
