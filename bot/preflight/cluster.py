"""What of the cluster the bot rests on: its clock, Calico's store, the kinds and policies of fixes; without it only
the first approval would tell that nobody installed them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from bot.errors import UserError
from bot.preflight.model import NOT, OK, UNSEEN, Line
from bot.sources.api import Missing, Refused, Unreachable
from bot.sources.kubernetes import Cluster
from bot.sources.upkeep import CALICO_NODE
from engine.rules.datastore_not_ready import datastore_not_ready
from facts import Text, say
from fixes.request import GROUP, VERSION

SKEW_S = 5  # a lease of a fixer takes three times as long
POLICIES = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
KINDS = ("fixrequests", "fixrequests/status", "auditrecords")

Object = Mapping[str, Any]


async def served(cluster: Cluster) -> frozenset[str]:
    """The API groups. Raises Refused, Unreachable, UserError."""
    return frozenset(str(one.get("name")) for one in (await cluster.api.get("/apis")).get("groups") or ())


async def calico_namespace(cluster: Cluster) -> str:
    """Where Calico's own pods are, "" where none is seen."""
    try:
        found = await cluster.api.get("/api/v1/pods", labelSelector=CALICO_NODE, limit=1)
    except (Missing, Refused, Unreachable, UserError):
        return ""
    return next((str(one["metadata"]["namespace"]) for one in found.get("items") or ()), "")


async def server(cluster: Cluster) -> list[Line]:
    """That it answers, and its clock. Raises UserError, Unreachable, where nothing else can be asked either."""
    part, about = "cluster", say("API server")
    try:
        version = str((await cluster.api.get("/version")).get("gitVersion") or "?")
    except (Missing, Refused):
        version = "?"
    said = say("{server} answers, Kubernetes {version}", server=cluster.api.server, version=version)
    found = [Line(part=part, about=about, state=OK, found=said)]
    ahead = await cluster.api.clock()
    return [*found, clock(part, say("clock of the API server"), ahead)]


def clock(part: str, about: Text, ahead: float | None) -> Line:
    """Of a machine whose clock is so many seconds ahead of ours."""
    if ahead is None:
        return Line(part=part, about=about, state=UNSEEN, found=say("it does not say what time it has"))
    if abs(ahead) < SKEW_S:
        return Line(part=part, about=about, state=OK, found=say("it agrees with the one here"))
    late = say("{seconds} s ahead of the one here", seconds=f"{ahead:.0f}")
    early = say("{seconds} s behind the one here", seconds=f"{-ahead:.0f}")
    return Line(
        part=part,
        about=about,
        state=NOT,
        found=late if ahead > 0 else early,
        means=say("Approvals and certificates run out early or late, and what was seen when is told wrongly."),
        remedy=say("Let chrony or systemd-timesyncd set both clocks."),
    )


async def calico(cluster: Cluster) -> list[Line]:
    """Its store, its version, and whether it lets itself be changed. Raises Unreachable."""
    part, about = "calico", say("Calico")
    try:
        group = await cluster.group()
    except UserError as error:
        return [Line(part=part, about=about, state=NOT, found=error.sentence)]
    try:
        resource = await cluster.api.get(f"/apis/{group}/clusterinformations/default")
    except Refused as error:
        return [Line(part=part, about=about, state=UNSEEN, found=error.reason)]
    except Missing:
        return [
            Line(
                part=part,
                about=about,
                state=NOT,
                found=say("there is no ClusterInformation"),
                means=say("No calico-node of this cluster has ever started."),
                remedy=say("See why: kubectl get pods --all-namespaces --selector k8s-app=calico-node"),
            )
        ]
    spec = resource.get("spec") or {}
    said = say("{version}, its objects are in {group}", version=spec.get("calicoVersion") or "?", group=group)
    ready = Line(part=part, about=say("datastore"), state=OK, found=say("it is ready (datastoreReady)"))
    if not spec.get("datastoreReady", True):
        ready = Line(
            part=part,
            about=say("datastore"),
            state=NOT,
            found=say("it is locked (datastoreReady is false)"),
            means=say("Calico changes nothing in it: new pods get no addresses."),
            remedy=datastore_not_ready.remedy,
        )
    return [Line(part=part, about=about, state=OK, found=said), ready]


async def fixes(cluster: Cluster, groups: frozenset[str]) -> list[Line]:
    """The kinds of fixes and the policies that keep them honest. Raises Unreachable."""
    part, about = "fixes", say("kinds of fixes")
    remedy = say("Install them: kubectl apply -k fixes/ of this version.")
    means = say("Fixes are shown in answers, and nobody can ask for or approve one.")
    names = set[str]()
    if GROUP in groups:
        try:
            resources = (await cluster.api.get(f"/apis/{GROUP}/{VERSION}")).get("resources") or ()
        except (Missing, Refused):
            resources = ()
        names = {str(one.get("name")) for one in resources}
    lacking = [one for one in KINDS if one not in names]
    if lacking:
        said = say("the API server does not serve {names}", names=", ".join(f"{one}.{GROUP}" for one in lacking))
        return [Line(part=part, about=about, state=NOT, found=said, means=means, remedy=remedy)]
    found = [Line(part=part, about=about, state=OK, found=say("the API server serves them"))]
    wanted = [one for one in yaml.safe_load_all((files("fixes") / "admission.yaml").read_text()) if one]
    trouble = [line for one in wanted if (line := await _policy(cluster, one, remedy))]
    if not trouble:
        trouble = [
            Line(part=part, about=say("admission policies"), state=OK, found=say("all are there, as in this version"))
        ]
    return found + trouble


async def _policy(cluster: Cluster, wanted: Object, remedy: Text) -> Line | None:
    """What is wrong with a policy or binding, None where nothing is."""
    name, kind = wanted["metadata"]["name"], wanted["kind"]
    about = say("admission policies")
    means = say("Approvals could be forged by whoever may write fix requests.")
    try:
        found = await cluster.api.get(f"{POLICIES}/{PLURALS[kind]}/{name}")
    except Missing:
        said = say("there is no {kind} {name}", kind=kind, name=name)
    except Refused as error:
        if error.status != 404:
            return Line(part="fixes", about=about, state=UNSEEN, found=error.reason)
        said = say("this API server has no {kind}, which Kubernetes 1.30 brought", kind=kind)
    else:
        if _says(found) == _says(wanted):
            return None
        said = say("{kind} {name} is not the one of this version", kind=kind, name=name)
    return Line(part="fixes", about=about, state=NOT, found=said, means=means, remedy=remedy)


def _says(policy: Object) -> object:
    """What decides in a policy or binding, without what an API server adds."""
    spec = policy.get("spec") or {}
    if policy.get("kind") == "ValidatingAdmissionPolicyBinding":
        return spec.get("policyName"), sorted(spec.get("validationActions") or ())
    checks = [str(one.get("expression")).strip() for one in spec.get("validations") or ()]
    variables = [(one.get("name"), str(one.get("expression")).strip()) for one in spec.get("variables") or ()]
    return checks, variables, spec.get("failurePolicy", "Fail")
