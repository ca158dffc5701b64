"""What clients of recorded Services met, behind a real kube-proxy: each symptom leads to its reason, or to nobody.

The Services were recorded on the dual stack cluster. What listens in its pods was not, so a wrong target port, which
only that proves, stays unknown, and a Service that answers is never more than unaccused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facts import NodeAsk, SendProbe
from tests.recorded_answers import cluster_of, judged, known
from tests.recorded_kernel import Recording
from tests.recorded_states import recorded, replace
from tests.recordings import load

CLUSTER = "v3.32.1/dualstack/healthy"
TARGETS = {
    "svc-ok": "",
    "svc-none": "service_without_endpoints",
    "svc-notready": "service_without_endpoints",
    "svc-noslice": "service_without_endpoints",
    "svc-wrongport": "",
    "svc-np": "",
    "svc-stale": "service_endpoint_stale",
    "svc-intlocal": "service_local_policy_without_endpoint",
    "svc-policy": "",  # dropped by a policy, which is not looked at
    "svc-self": "",
    "no-such-svc": "",
    "svc-ok wrong service port": "service_wrong_port",
}


def clients() -> list[Any]:
    """(pod, what it asked for, address and port, what it met) of every pod's attempt on a ClusterIP, each once."""
    tried = {
        (one["client"], one["service"]): (one["target"], one["result"])
        for one in load("v3.32.1/loose")["services/results.json"]
        if one["client"].startswith("pod-") and one["target"].startswith("10.96.")
    }
    return [pytest.param(*who, *met, id=" ".join(who)) for who, met in tried.items()]


def with_services() -> Recording:
    found = recorded(CLUSTER)
    for resource in ("services", "endpointslices"):
        replace(found, load("v3.32.1/loose")[f"services/objects/{resource}.json"]["items"])
    return found


@pytest.mark.parametrize(("client", "service", "target", "result"), clients())
async def test_what_a_client_met_leads_to_its_reason(
    client: str, service: str, target: str, result: str, tmp_path: Path
) -> None:
    outcome = "answered" if result.startswith("connected") else "refused" if "REFUSED" in result else "silence"
    address, _, port = target.partition(":")
    asked = address if service == "no-such-svc" else f"default/{service.split()[0]}"
    recording = with_services()

    def met(ask: NodeAsk, probe: SendProbe) -> str:
        """A Service leads to its endpoint, which met what the client met."""
        return outcome if probe.protocol == "tcp" else "answered"

    async with cluster_of(recording, tmp_path) as cluster:
        diagnosis = judged(await known(cluster, f"default/{client}", f"{asked} {port}/tcp", family=4), recording, met)
    wanted = TARGETS[service]
    assert [cause.rule for cause in diagnosis.causes] == ([wanted] if wanted else []), diagnosis.summary
    assert outcome == "answered" or diagnosis.verdict == ("cause" if wanted else "unknown")


def test_every_recorded_service_was_tried_by_a_pod_of_either_backend() -> None:
    """pod-a2's node has kube-proxy's iptables rules, pod-c2's its nftables."""
    tried = {(param.values[0], param.values[1]) for param in clients()}
    assert tried == {(client, service) for client in ("pod-a2", "pod-c2") for service in TARGETS}
