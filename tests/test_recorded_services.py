"""What clients of recorded Services met, behind a real kube-proxy: each symptom leads to its reason, or to nobody.

The Services were recorded on the dual stack cluster. What listens in its pods was not looked at, and yet is known of
those that answered one Service and reset another; where it is not known a wrong target port stays unknown, and a
Service that answers is never more than unaccused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.plan import plan
from facts import Fact, Listener, NodeAsk, SendProbe
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
    "svc-wrongport": "service_wrong_target_port",
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


def listening() -> dict[str, set[int]]:
    """The ports of pods by which some client was answered, by the pod's name: that of the Service it had asked."""
    answered: dict[str, set[int]] = {}
    for one in load("v3.32.1/loose")["services/results.json"]:
        if found := re.match(r"connected: (\S+) sees", one["result"]):
            answered.setdefault(found[1], set()).update(target_ports(one["service"]))
    return answered


def target_ports(service: str) -> set[int]:
    """Of the Service's recorded EndpointSlices."""
    slices = load("v3.32.1/loose")["services/objects/endpointslices.json"]["items"]
    label = "kubernetes.io/service-name"
    behind = [one for one in slices if one["metadata"].get("labels", {}).get(label) == service]
    return {port["port"] for one in behind for port in one["ports"]}


def listeners(ask: NodeAsk, *, refused: bool) -> list[Fact]:
    """What the probe would have seen in the pods it is asked about; a pod that resets does not listen on that port."""
    return [
        Listener(
            node=ask.node, pod=pod.name, family=ask.family, protocol=pod.protocol, port=pod.port,
            found=pod.port in known_ports, other_ports=() if pod.port in known_ports else tuple(sorted(known_ports)),
        )
        for pod in ask.local_pods
        if pod.port and (known_ports := listening().get(pod.name, set())) and (pod.port in known_ports or refused)
    ]  # fmt: skip


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
        facts = await known(cluster, f"default/{client}", f"{asked} {port}/tcp", family=4)
        unseen = judged(facts, recording, met)
        seen = [one for ask in plan(facts) for one in listeners(ask, refused=outcome == "refused")]
        diagnosis = judged([*facts, *seen], recording, met)
    if service == "svc-wrongport":
        assert (unseen.verdict, unseen.causes) == ("unknown", ())
    wanted = TARGETS[service]
    assert [cause.rule for cause in diagnosis.causes] == ([wanted] if wanted else []), diagnosis.summary
    assert outcome == "answered" or diagnosis.verdict == ("cause" if wanted else "unknown")


def test_every_recorded_service_was_tried_by_a_pod_of_either_backend() -> None:
    """pod-a2's node has kube-proxy's iptables rules, pod-c2's its nftables."""
    tried = {(param.values[0], param.values[1]) for param in clients()}
    assert tried == {(client, service) for client in ("pod-a2", "pod-c2") for service in TARGETS}
