"""RBAC of deploy/ is what the product asks for, neither less nor more: everything it does is done here once by accounts
that have these rights alone, in front of both of Calico's API groups.

The calls of the whole suite are compared in the same way at its end (tests/calls.py). Here it takes two minutes, and
all calls are the product's."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client

from bot import cli
from bot.approvals import Approvals
from bot.fix_requests import requested
from bot.investigate import Investigation
from bot.settings import from_environment
from certificates.cluster import AUTHORITY, BOT_CERTS
from facts import Typha
from fixes.calico import Calico
from fixes.claims import Claims
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.kind import ClusterKind, kinds
from fixes.limits import NAME as SWITCH
from fixes.request import FixRequest, Phase
from fixes.resources.kinds import KINDS, V3
from fixes.store import FixStore, connect
from lab.apiserver import rbac
from lab.apiserver.calls import CALLS, NOW, Noted, read
from lab.apiserver.rbac import Grant
from lab.client import Lab
from lab.slack import LocalSlack
from tests import calls, deployed, manifests
from tests.asking import ask, words_for
from tests.deployed import APPROVER, ASKER, BOT, CLUSTER_FIXER, NAMESPACE, NODE, SIGNER
from tests.fix_samples import ANA, BO
from tests.fixing import at_once, end_of

OVERLAY = "dev"  # whose Calico is where the lab has it
APPROVERS = from_environment({"CALICO_WHY_APPROVERS": BO.id}).approvers
ENVIRONMENT = {"CALICO_WHY_APPROVERS": BO.id}
# Both API groups; one of the versions that have AdminNetworkPolicies.
VARIANTS = ("", "native-api+calico-3.31")
QUESTION = ["shop/cart", "shop/db", "5432/tcp"]
# What the bot does when somebody asks for it.
WORDS = (
    ["why", *QUESTION],
    ["why", "shop/cart", "node-b"],
    ["why", "node-a", "shop/db"],
    ["why", "shop/cart", "203.0.113.5", "443/tcp"],
    ["why", "shop/cart", "2001:db8::5", "443/tcp"],
    ["why", *QUESTION, "--watch", "5"],
    ["policy", *QUESTION],
    ["policy", "shop/cart", "203.0.113.5", "443/tcp"],
    ["keep", *QUESTION, "--to", "kept.tar.gz"],
    ["capture", *QUESTION, "--seconds", "1", "-o", "packets.pcapng"],
    ["node", "status"],
    ["node", "status", "node-a"],
    ["node", "diags", "node-a", "--to", "diags.tar.gz"],
    ["ipam", "show", "--show-blocks"],
    ["ipam", "show", "--show-configuration"],
    ["ipam", "show", "--show-borrowed"],
    ["ipam", "show", "--ip", "10.244.1.7"],
    ["ipam", "release", "--ip", "10.244.1.7"],
    ["ipam", "explain"],
    ["ipam", "plan", "--nodes", "10", "--pods-per-node", "20"],
    ["ipam", "check"],
    ["fixes"],
    ["audit"],
    ["audit", "verify"],
    ["audit", "export"],
    ["preflight"],
)
# Where it is not 0: a flow that is not there, an address that nobody has.
STATUS = {"why": (0, 3), "capture": (0, 3), "release": (1,)}
READ = [one.plural for one in KINDS.values() if one.written or one.plural in ("nodes", "clusterinformations")]


# A node on which nothing is asked, and kinds whose objects are of one name.
AWAY = "node-c"
ALONE = ("ipamconfigs", "kubecontrollersconfigurations")
OF_A_NODE = ("felixconfigurations", "bgpconfigurations")
NOBODY = {"selector": "app == 'nobody'", "types": ["Ingress"]}
# Of each kind that people write: what is made, and what it becomes.
SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ippools": (
        {"cidr": "10.99.0.0/16", "vxlanMode": "Always", "natOutgoing": True},
        {"cidr": "10.99.0.0/16", "vxlanMode": "Always"},
    ),
    "ipreservations": ({"reservedCIDRs": ["192.0.2.0/30"]}, {"reservedCIDRs": ["192.0.2.0/29"]}),
    "ipamconfigs": (
        {"strictAffinity": True, "maxBlocksPerHost": 20},
        {"strictAffinity": True, "maxBlocksPerHost": 30},
    ),
    "felixconfigurations": ({"logSeverityScreen": "Info"}, {"logSeverityScreen": "Warning"}),
    "bgpconfigurations": ({"logSeverityScreen": "Info"}, {"logSeverityScreen": "Warning"}),
    "bgppeers": ({"peerIP": "192.0.2.1", "asNumber": 64512}, {"peerIP": "192.0.2.1", "asNumber": 64513}),
    "bgpfilters": (
        {"exportV4": [{"action": "Accept", "matchOperator": "In", "cidr": "192.0.2.0/24"}]},
        {"exportV4": [{"action": "Reject", "matchOperator": "In", "cidr": "192.0.2.0/24"}]},
    ),
    "networkpolicies": (NOBODY, {**NOBODY, "order": 7}),
    "globalnetworkpolicies": (NOBODY, {**NOBODY, "order": 7}),
    "stagednetworkpolicies": (NOBODY, {**NOBODY, "order": 7}),
    "stagedglobalnetworkpolicies": (NOBODY, {**NOBODY, "order": 7}),
    "stagedkubernetesnetworkpolicies": (
        {"podSelector": {"matchLabels": {"app": "nobody"}}, "policyTypes": ["Ingress"]},
        {"podSelector": {"matchLabels": {"app": "nobody"}}, "policyTypes": ["Ingress", "Egress"]},
    ),
    "networksets": ({"nets": ["192.0.2.0/24"]}, {"nets": ["198.51.100.0/24"]}),
    "globalnetworksets": ({"nets": ["192.0.2.0/24"]}, {"nets": ["198.51.100.0/24"]}),
    "tiers": ({"order": 500}, {"order": 600}),
    "hostendpoints": ({"node": AWAY, "interfaceName": "eth9"}, {"node": AWAY, "interfaceName": "eth8"}),
    "kubecontrollersconfigurations": (
        {"controllers": {}, "healthChecks": "Enabled"},
        {"controllers": {}, "healthChecks": "Disabled"},
    ),
    "caliconodestatuses": (
        {"node": AWAY, "classes": ["Agent"], "updatePeriodSeconds": 10},
        {"node": AWAY, "classes": ["Agent"], "updatePeriodSeconds": 20},
    ),
}


class Tour:
    """A lab whose accounts have the rights of deploy/, and all that the product does in it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.accounts = {name: lab.account(name) for name in (BOT, CLUSTER_FIXER, SIGNER, ASKER, APPROVER)}
        self.accounts[NODE] = lab.account(NODE, "node-a")

    def environment(self, account: str) -> dict[str, str]:
        return {**self.lab.environment(), "KUBECONFIG": self.accounts[account]}

    def say(self, account: str, *words: str, expected: Sequence[int] = (0,)) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(self.directory)
            for name, value in self.environment(account).items():
                patched.setenv(name, value)
            status = cli.main(list(words))
        assert status in expected, f"{' '.join(words)}: {status}"

    @contextlib.asynccontextmanager
    async def store(self, account: str = "") -> AsyncGenerator[FixStore]:
        """Of an account; "" for who may everything."""
        path = self.accounts[account] if account else self.lab.administrator()["KUBECONFIG"]
        async with connect(path, NAMESPACE) as store:
            yield store

    async def asked(self, mode: str) -> Investigation:
        """What the bot answers about a fresh wound."""
        await asyncio.to_thread(self.lab.heal)
        inflicted = await asyncio.to_thread(self.lab.inflict, mode)
        answer = await ask(self.environment(BOT), words_for(inflicted))
        assert mode in {one.rule for one in (*answer.diagnosis.causes, *answer.diagnosis.warnings)}
        return answer

    # ---- the parts

    async def install(self) -> None:
        """What manifests bring beside rights, with limits that let more be done than a cluster does in an hour."""
        async with self.store() as store:
            limits = {"enabled": "true", "perNodePerHour": "10000", "perKindPerHour": "10000"}
            core = client.CoreV1Api(store.api)
            await core.patch_namespaced_config_map(SWITCH, NAMESPACE, {"data": limits})
            for name in (AUTHORITY, BOT_CERTS):
                await core.create_namespaced_secret(NAMESPACE, manifests.one(OVERLAY, "Secret", name))

    async def certify(self) -> None:
        """A node's probe gets a certificate, while the signer watches for who asks."""
        directory = self.directory / f"certs-{self.lab.name}"
        directory.mkdir()
        words = ("certificate", "--node", "node-a", "--certs", str(directory))
        async with self.running("signer", account=SIGNER), self.running(*words, account=NODE):
            async with asyncio.timeout(60):
                while not (directory / "probe.crt").exists():  # noqa: ASYNC110  # of another process
                    await asyncio.sleep(0.1)

    def read(self) -> None:
        for words in WORDS:
            self.say(BOT, *words, expected=STATUS.get(words[1] if words[0] == "ipam" else words[0], (0,)))
        for plural in READ:
            self.say(BOT, "get", plural, *(["-A"] if KINDS[plural].namespaced else []))
            self.say(BOT, "get", plural, "nobody", expected=(2,))

    async def write_as_the_bot(self) -> None:
        """What people in Slack have written down, which the bot asks for in their stead."""
        document_of_a_set, changed = self.directory / "set.yaml", '{"spec": {"natOutgoing": false}}'
        made = {"apiVersion": V3, "kind": "GlobalNetworkSet", "metadata": {"name": "of-a-bot"}, "spec": {"nets": []}}
        document_of_a_set.write_text(yaml.safe_dump(made))
        async with self.store() as admin:
            pool = (await Calico(admin.api).list("ippools"))[0]["metadata"]["name"]
            for words in (
                ["create", "-f", str(document_of_a_set)],
                ["apply", "-f", str(document_of_a_set)],
                ["patch", "ippools", pool, "-p", changed],
                ["delete", "felixconfigurations", "default"],
            ):
                before = {one.name for one in await admin.all()}
                await asyncio.to_thread(self.say, BOT, *words)
                (name,) = [one.name for one in await admin.all() if one.name not in before]
                for more in (["fixes", "show", name], ["audit", name], ["cancel", name]):
                    await asyncio.to_thread(self.say, BOT, *more)

    async def claim(self) -> None:
        """What Slack delivers to two replicas."""
        async with self.store(BOT) as store:
            assert [await Claims(store, replica).take("Ev1") for replica in ("one", "two", "one")] == [
                True,
                False,
                True,
            ]

    async def look_at_wounds(self) -> None:
        for mode in ("ipam_gc_stuck", "service_endpoint_stale", "policy_denies_ingress", "route_owner_conflict"):
            await self.asked(mode)
        await asyncio.to_thread(self.lab.heal)
        async with self.store() as admin:  # as an install by manifest tells calico-node where Typha is
            named = {"metadata": {"name": "calico-config"}, "data": {"typha_service_name": "calico-typha"}}
            await client.CoreV1Api(admin.api).create_namespaced_config_map("kube-system", named)
            calico = Calico(admin.api)
            for pod in await calico.list("pods", labelSelector="k8s-app=calico-node"):
                reference = {"configMapKeyRef": {"name": "calico-config", "key": "typha_service_name"}}
                changed = copy.deepcopy(pod)
                changed["spec"]["containers"][0]["env"] = [
                    {"name": "FELIX_TYPHAK8SSERVICENAME", "valueFrom": reference}
                ]
                await calico.delete("pods", pod)
                await made(calico, changed, pod["metadata"]["name"])
        answer = await ask(self.environment(BOT), " ".join(QUESTION))
        assert [one.service for one in answer.diagnosis.facts if isinstance(one, Typha)]

    async def mend_nodes(self) -> None:
        for mode in ("neighbor_wrong_mac", "ip_forwarding_off"):
            answer = await self.asked(mode)
            async with self.store(BOT) as store:
                for request in await self.approved(store, answer, mode):
                    done = await end_of(store, request.name)
                    assert done.status.phase is Phase.VERIFIED, done.status.message

    async def mend_the_cluster(self) -> None:
        for mode in ("pool_disabled", "block_affinity_conflict", "ip_leaked", "felix_not_ready"):
            answer = await self.asked(mode)
            async with self.store(BOT) as asking, self.store(CLUSTER_FIXER) as fixing, self.store() as admin:
                calico = Later(fixing.api, Calico(admin.api))
                executor = Executor(ClusterHands(calico), fixing, APPROVERS)
                requests = await self.approved(asking, answer, mode)
                assert requests
                for request in requests:
                    done = await executor.handle(request.name)
                    assert done.status.phase is Phase.VERIFIED, f"{mode}: {done.status.message}"

    async def approved(self, store: FixStore, answer: Investigation, mode: str) -> list[FixRequest]:
        found = [one for one in (*answer.diagnosis.causes, *answer.diagnosis.warnings) if one.rule == mode]
        fixes = {name for cause in found for name in (cause.fix, *cause.other_fixes)}
        approvals, names = Approvals(store, APPROVERS), []
        for request in await requested(answer, store, ANA):
            if request.spec.kind not in fixes:
                continue
            if "again_after_s" in request.spec.arguments and not isinstance(kinds()[request.spec.kind], ClusterKind):
                request = await at_once(store, request)
            decision = await approvals.decide(request.name, Phase.APPROVED, BO)
            assert decision.changed, decision.sentence
            names.append(request)
        return names

    async def write_resources(self) -> None:
        """One of each kind made, changed and deleted, as people in terminals have it done."""
        async with self.running("fixer", "--cluster", account=CLUSTER_FIXER):
            async with self.store() as admin:
                there = [one for one in ALONE if await Calico(admin.api).get(one, "default")]
            for plural in there:
                await self.done("delete", plural, "default")
            for word, number in (("create", 0), ("apply", 1)):
                documents = [document(plural, specs[number]) for plural, specs in SAMPLES.items()]
                (self.directory / "all.yaml").write_text(yaml.safe_dump_all(documents))
                await self.done(word, "-f", "all.yaml")
            for plural in SAMPLES:
                within = ["-n", "shop"] if KINDS[plural].namespaced else []
                await self.done("delete", plural, document(plural, {})["metadata"]["name"], *within)

    async def done(self, *words: str) -> None:
        """What is asked for is approved by RBAC's verb, and waited for."""
        async with self.store(APPROVER) as store:
            before = {one.name for one in await store.all()}
            await asyncio.to_thread(self.say, ASKER, *words)
            approvals = Approvals(store, APPROVERS, right=store.right_to_approve, writer="terminal")
            new = [one.name for one in await store.all() if one.name not in before]
            assert new
            person = await store.whoami()
            for name in new:
                decision = await approvals.decide(name, Phase.APPROVED, person)
                assert decision.changed, decision.sentence
            for name in new:
                async with self.store() as admin:
                    done = await end_of(admin, name)
                assert done.status.phase is Phase.VERIFIED, f"{done.spec.arguments}: {done.status.message}"

    async def decide_in_terminals(self) -> None:
        for word in ("reject", "cancel"):
            inflicted = await asyncio.to_thread(self.lab.inflict, "neighbor_wrong_mac")
            question = words_for(inflicted).split()
            async with self.store() as admin:
                before = {one.name for one in await admin.all()}
                await asyncio.to_thread(self.say, ASKER, "why", *question, "--request-fix")
                names = [one.name for one in await admin.all() if one.name not in before]
            for name in names:
                await asyncio.to_thread(self.say, ASKER if word == "cancel" else APPROVER, word, name)
            await asyncio.to_thread(self.lab.heal)
        for account in (ASKER, APPROVER):
            for words in (["fixes"], ["fixes", "show", names[0]], ["audit", names[0]], ["audit", "verify"]):
                await asyncio.to_thread(self.say, account, *words)
        for words in (["fixes", "off", "a test"], ["fixes", "on"]):
            await asyncio.to_thread(self.say, APPROVER, *words)

    async def speak_in_slack(self) -> None:
        """The bot's own process: a question, its fix approved and verified, fixes off and on, a capture approved."""
        await asyncio.to_thread(self.lab.heal)
        async with LocalSlack() as slack, self.running("bot", account=BOT, **_tokens(slack)):
            await slack.wait_for(lambda: slack.connections > 0, timeout=30)
            inflicted = await asyncio.to_thread(self.lab.inflict, "neighbor_wrong_mac")

            async def said(text: str, user: str = "ana") -> None:
                delivery = await slack.slash(user, "incident", text)
                assert delivery.result == "ok"

            async def seen(text: str) -> dict[str, Any]:
                found: dict[str, Any] = await slack.wait_for(lambda: _message(slack, text), timeout=60)
                return found

            await said(f"/calico why {words_for(inflicted)}")
            card = await seen('"fix_approve"')
            await slack.click("bo", "incident", card["ts"], "fix_approve")
            await seen("verified:")
            for words in ("fixes off a test", "fixes on"):
                await said(f"/calico {words}", "bo")
            await said("/calico capture shop/cart shop/db 5432/tcp --seconds 1")
            await slack.wait_for(lambda: len(_cards(slack)) > 0, timeout=30)
            await slack.click("bo", "incident", _cards(slack)[0]["ts"], "fix_approve")
            await seen("No packet passed")

    @contextlib.asynccontextmanager
    async def running(self, *words: str, account: str, **more: str) -> AsyncGenerator[None]:
        """`calico-why WORDS` as a process of its own, with the rights of an account."""
        with (self.directory / f"{words[0]}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot.cli", *words),
                env={**os.environ, **self.environment(account), **ENVIRONMENT, **more},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                yield
                assert process.returncode is None, (self.directory / f"{words[0]}.log").read_text()
            finally:
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()


def document(plural: str, spec: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS[plural]
    place = {"namespace": "shop"} if kind.namespaced else {}
    name = "default" if plural in ALONE else f"node.{AWAY}" if plural in OF_A_NODE else "of-a-test"
    return {"apiVersion": V3, "kind": kind.shown, "metadata": {"name": name, **place}, "spec": spec}


def _tokens(slack: LocalSlack) -> dict[str, str]:
    return {
        "SLACK_API_URL": slack.base_url,
        "CALICO_WHY_DEVELOPMENT": "1",
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "CALICO_WHY_SLACK_CAPTURE": "approval",
    }


def _all(slack: LocalSlack) -> list[dict[str, Any]]:
    above = slack.messages("incident")
    return [*above, *(one for message in above for one in slack.messages("incident", thread_ts=message["ts"]))]


def _message(slack: LocalSlack, text: str) -> dict[str, Any] | None:
    return next((one for one in _all(slack) if text in json.dumps(one, ensure_ascii=False)), None)


def _cards(slack: LocalSlack) -> list[dict[str, Any]]:
    """Messages that wait for a decision."""
    return [one for one in _all(slack) if '"fix_approve"' in json.dumps(one)]


class Later(Calico):
    """The API server as the fixer meets it when a second look is due. When it has a pod of calico-node restarted, the
    lab, which has neither kubelet nor DaemonSet, gets a new one from somebody who may do that."""

    def __init__(self, api: Any, admin: Calico) -> None:
        super().__init__(api, now=lambda: datetime.now(UTC) + timedelta(minutes=16), pause=self._start)
        self._admin, self._pod = admin, dict[str, Any]()

    async def delete(self, resource: str, seen: dict[str, Any]) -> None:
        if resource == "pods":
            self._pod = copy.deepcopy(seen)
        await super().delete(resource, seen)

    async def _start(self, _: float) -> None:
        if not self._pod:
            return
        pod, self._pod = self._pod, {}
        await made(self._admin, pod, "calico-node-anew")


async def made(calico: Calico, pod: dict[str, Any], name: str) -> None:
    """A pod like this one that runs, is ready, and has another uid."""
    metadata = {key: value for key, value in pod["metadata"].items() if key not in ("uid", "resourceVersion")}
    fresh = await calico.create("pods", {**pod, "metadata": {**metadata, "name": name}})
    fresh["status"] = {**pod["status"], "conditions": [{"type": "Ready", "status": "True"}]}
    await client.CoreV1Api(calico._api).replace_namespaced_pod_status(name, metadata["namespace"], fresh)


PARTS = (
    Tour.install,
    Tour.certify,
    Tour.read,
    Tour.write_as_the_bot,
    Tour.claim,
    Tour.look_at_wounds,
    Tour.mend_nodes,
    Tour.mend_the_cluster,
    Tour.write_resources,
    Tour.decide_in_terminals,
    Tour.speak_in_slack,
)


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[Noted]]:
    """All calls of all accounts, in labs of both groups."""
    directory, within = tmp_path_factory.mktemp("tour"), Path(os.environ[CALLS]) / "tour"
    within.mkdir()
    (within / NOW).write_text(f"tests/{Path(__file__).name}")
    (directory / "rbac.yaml").write_text(yaml.safe_dump_all([*manifests.objects(OVERLAY), *deployed.bindings()]))
    for variant in VARIANTS:
        with Lab.up(
            variant=variant, rbac=directory / "rbac.yaml", environment={**ENVIRONMENT, CALLS: str(within)}
        ) as lab:
            tour = Tour(lab, directory)
            for part in PARTS:
                done = part(tour)
                if done is not None:
                    asyncio.run(done)
    yield read(within)


def test_nothing_that_the_product_does_is_refused(noted: set[Noted]) -> None:
    assert {one.user for one in noted} == {rbac.account(one, NAMESPACE) for one in calls.rights()}
    assert not calls.refused(noted)


def test_everything_that_is_granted_is_needed(noted: set[Noted]) -> None:
    assert not calls.unused(noted)


def test_verbs_that_nobody_calls_are_those_the_admission_policies_ask_about() -> None:
    assert {"relay", "approve", "execute", "execute-on-own-node"} == calls.SAID_ONLY
    has = {
        account: {one.verb for one in granted if one.group == "calico-why.io" and one.verb in calls.SAID_ONLY}
        for account, granted in calls.rights().items()
    }
    assert has == {
        BOT: {"relay"},
        NODE: {"execute-on-own-node"},
        CLUSTER_FIXER: {"execute"},
        SIGNER: set(),
        ASKER: set(),
        APPROVER: {"approve"},
    }


def rights(overlay: str, calico: str) -> dict[str, set[Grant]]:
    """Of each account of an overlay, as if Calico's own pods were in kube-system."""
    objects = manifests.objects(overlay)
    return {
        one["metadata"]["name"]: {
            grant._replace(namespace="kube-system") if grant.namespace == calico else grant
            for grant in rbac.grants(objects, rbac.account(one["metadata"]["name"], NAMESPACE))
        }
        for one in objects
        if one["kind"] == "ServiceAccount"
    }


def test_what_labs_hold_the_product_to_is_what_kubectl_makes_of_the_same_files() -> None:
    for place, overlay in zip(deployed.PLACES, (OVERLAY, "socket-mode"), strict=True):
        for account in deployed.ACCOUNTS:
            name = rbac.account(account, NAMESPACE)
            granted = [set(rbac.grants(one, name)) for one in (deployed.manifests(place), manifests.objects(overlay))]
            assert granted[0] == granted[1], account
    of_people = {role for roles in deployed.PEOPLE.values() for role in roles}
    roles = [
        [one for one in found if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"] in of_people]
        for found in (deployed.manifests(), manifests.objects(OVERLAY))
    ]
    assert roles[0] and sorted(roles[0], key=str) == sorted(roles[1], key=str)


def test_every_overlay_grants_the_same_and_the_restricted_one_nothing_of_the_fixers() -> None:
    here = rights(OVERLAY, "kube-system")
    assert rights("socket-mode", "calico-system") == rights("http", "calico-system") == here
    certificates = {
        Grant("create", "certificates.k8s.io", "certificatesigningrequests"),
        Grant("get", "certificates.k8s.io", "certificatesigningrequests"),
        Grant("get", "", "configmaps", NAMESPACE, (AUTHORITY,)),
    }
    asking = certificates | set(rbac.grants([], ""))
    assert rights("restricted", "calico-system") == {BOT: here[BOT], SIGNER: here[SIGNER], NODE: asking}


def test_the_signer_reads_and_writes_its_own_secrets_and_signs_for_probes_alone() -> None:
    granted = {
        (one.verb, one.resource, one.namespace, one.names)
        for one in rights(OVERLAY, "kube-system")[SIGNER] - set(rbac.grants([], ""))
    }
    requests, probe = "certificatesigningrequests", ("calico-why.io/probe",)
    assert granted == {
        *((verb, requests, "", ()) for verb in ("list", "watch")),
        *(("update", f"{requests}/{part}", "", ()) for part in ("approval", "status")),
        *((verb, "signers", "", probe) for verb in ("approve", "sign")),
        *((verb, "secrets", NAMESPACE, (AUTHORITY, BOT_CERTS)) for verb in ("get", "update")),
        *((verb, "configmaps", NAMESPACE, (AUTHORITY,)) for verb in ("get", "update")),
    }


def test_the_bot_writes_requests_the_trail_the_switch_and_claims_and_nothing_else() -> None:
    writes = {
        (one.verb, one.resource, one.namespace, one.names)
        for one in rights(OVERLAY, "kube-system")[BOT] - set(rbac.grants([], ""))
        if one.verb not in ("get", "list", "watch")
    }
    assert writes == {
        ("create", "fixrequests", NAMESPACE, ()),
        ("relay", "fixrequests", NAMESPACE, ()),
        ("update", "fixrequests/status", NAMESPACE, ()),
        ("create", "auditrecords", NAMESPACE, ()),
        ("create", "events", NAMESPACE, ()),
        ("update", "configmaps", NAMESPACE, ("calico-why-fixes",)),
    }


def test_no_wildcard_no_secret_but_the_signers_and_no_right_to_give_rights_is_granted() -> None:
    for name, granted in rights(OVERLAY, "kube-system").items():
        for one in granted:
            assert "*" not in (one.verb, one.group, one.resource), name
            assert one.resource != "secrets" or (name == SIGNER and one.names == (AUTHORITY, BOT_CERTS)), name
            assert one.verb not in ("bind", "escalate", "impersonate"), name
            assert one.resource not in ("pods/exec", "pods/attach", "pods/portforward", "nodes/proxy"), name
