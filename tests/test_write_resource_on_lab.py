"""A policy that is written down in front of a lab, approved by somebody else, and enforced by the lab's nodes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot import cli
from bot.errors import WRONG_USAGE
from bot.settings import from_environment
from fixes.calico import Calico
from fixes.request import Phase
from fixes.store import connect
from lab.client import Lab
from tests.fix_samples import ANA
from tests.fixing import ENVIRONMENT, approved_and_done, asked, up
from tests.runbook_words import terminal

APPROVERS = from_environment({**ENVIRONMENT, "CALICO_WHY_PEOPLE": f"{ANA.id}=kubernetes-admin"}).approvers
QUESTION = "shop/cart shop/db 5432/tcp"
DENY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: deny-to-db
spec:
  selector: projectcalico.org/namespace == 'shop' && app == 'db'
  types: [Ingress]
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from up()


@pytest.fixture
def here(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return terminal(lab, monkeypatch, tmp_path)


def request_of(out: str) -> str:
    """The request that the terminal told of."""
    [name] = set(re.findall(r"fx-[a-z2-7]{8}", out))
    return str(name)


def test_a_policy_is_written_approved_enforced_and_deleted(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "deny.yaml").write_text(DENY)
    capsys.readouterr()
    assert cli.main(["apply", "-f", "deny.yaml"]) == 0
    out = capsys.readouterr().out
    assert "Create GlobalNetworkPolicy deny-to-db" in out and "shop/db" in out and "It lets nothing in" in out
    done = asyncio.run(approved_and_done(lab, request_of(out), APPROVERS))
    assert done.status.phase is Phase.VERIFIED, done.status.message
    assert cli.main(["get", "gnp", "-o", "wide"]) == 0
    [head, row] = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "TIER", "ORDER", "SELECTOR"]
    assert row.split()[:3] == ["deny-to-db", "default", "<nil>"]
    answer = asyncio.run(asked(lab, QUESTION))
    assert [cause.rule for cause in answer.causes] == ["policy_denies_ingress"]
    assert "deny-to-db" in answer.causes[0].text
    assert cli.main(["delete", "gnp", "deny-to-db", "-o", "json"]) == 0
    [told] = json.loads(capsys.readouterr().out)["requests"]
    assert "-  selector: projectcalico.org/namespace == 'shop' && app == 'db'" in told["difference"]
    done = asyncio.run(approved_and_done(lab, told["name"], APPROVERS))
    assert done.status.phase is Phase.VERIFIED, done.status.message
    assert asyncio.run(asked(lab, QUESTION)).verdict == "healthy"


def test_a_pool_that_somebody_changed_meanwhile_stays_as_that_one_left_it(
    lab: Lab, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["get", "ippool", "-o", "json"]) == 0
    [pool] = json.loads(capsys.readouterr().out)["items"]
    name = pool["metadata"]["name"]
    assert cli.main(["delete", "ippool", name]) == WRONG_USAGE
    assert f"--confirm {name}" in capsys.readouterr().err
    assert cli.main(["patch", "ippool", name, "-p", '{"spec": {"disableBGPExport": true}}']) == 0
    request = request_of(capsys.readouterr().out)

    async def changed_by_another() -> None:
        settings = from_environment(lab.administrator())
        async with connect(settings.kubeconfig, settings.namespace) as store:
            calico = Calico(store.api)
            found = await calico.get("ippools", name)
            assert found is not None
            found["spec"]["natOutgoing"] = not found["spec"].get("natOutgoing", False)
            await calico.replace("ippools", found)

    asyncio.run(changed_by_another())
    done = asyncio.run(approved_and_done(lab, request, APPROVERS))
    assert done.status.phase is Phase.STALE and "was changed since it was asked for" in done.status.message
    assert cli.main(["get", "ippool", name, "-o", "json"]) == 0
    assert "disableBGPExport" not in json.loads(capsys.readouterr().out)["spec"]
    lab.heal()
