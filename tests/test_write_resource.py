"""Resources of Calico's that people write down: refused before anybody is asked, or done once it is approved."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bot import cli
from bot.approvals import Approvals
from bot.errors import WRONG_USAGE
from bot.settings import from_environment
from fixes.calico import Calico
from fixes.executor import Executor
from fixes.hands import ClusterHands
from fixes.request import FixRequest, Person, Phase, digest_of
from fixes.store import FixStore
from lab.apiserver.calico_definitions import Group, install
from tests.deployed import BOT, CLUSTER_FIXER
from tests.fix_cluster import FixCluster, fix_cluster
from tests.recordings import changeable, load

BO = Person(id="bo", name="bo", via="kubectl")
APPROVERS = from_environment({"CALICO_WHY_APPROVERS": "kubernetes:bo"}).approvers
HEALTHY = "v3.32.1/healthy"
GROUPS: tuple[Group, ...] = ("crd.projectcalico.org", "projectcalico.org")
Object = dict[str, Any]

DENY = """\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: deny-web
  labels:
    team: shop
spec:
  selector: app == 'web'
  types:
  - Ingress
  - Egress
  egress:
  - action: Allow
"""
POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: second
spec:
  cidr: 10.99.0.0/16
  vxlanMode: Always
  natOutgoing: true
"""


class Scene:
    """A recorded cluster, and words in a terminal in front of it. The stores: the bot's, the fixer's."""

    def __init__(
        self,
        cluster: FixCluster,
        store: FixStore,
        fixing: FixStore,
        directory: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.cluster = cluster
        self.store = store
        self.fixing = fixing
        self._directory = directory
        self._capsys = capsys

    async def say(self, *words: str, text: str = "", user: str = "dana") -> tuple[int, str, str]:
        """Exit status and both outputs. text: into the file that is given by -f."""
        if text:
            (self._directory / "written.yaml").write_text(text)
            words = (*words, "-f", str(self._directory / "written.yaml"))
        kubeconfig = self.cluster.kubeconfig(user)
        status = await asyncio.to_thread(cli.main, [*words, "--kubeconfig", kubeconfig])
        told = self._capsys.readouterr()
        return status, told.out, told.err

    async def asked(self, *words: str, text: str = "") -> FixRequest:
        """The request that this makes."""
        before = {one.name for one in await self.store.all()}
        status, out, err = await self.say(*words, text=text)
        assert status == 0, err
        (new,) = [one for one in await self.store.all() if one.name not in before]
        assert new.name in out and f"calico-why approve {new.name}" in out
        return new

    async def approved(self, request: FixRequest) -> FixRequest:
        """At its end, done by the cluster's fixer."""
        decision = await Approvals(self.store, APPROVERS).decide(request.name, Phase.APPROVED, BO)
        assert decision.changed, decision.sentence
        return await self.fixer.handle(request.name)

    async def previewed(self, request: FixRequest) -> list[str]:
        return list((await self.fixer.handle(request.name)).status.preview)

    @property
    def fixer(self) -> Executor:
        return Executor(ClusterHands(Calico(self.fixing.api, environment={})), self.fixing, APPROVERS)

    async def shown(self, *words: str) -> Any:
        status, out, err = await self.say("get", *words, "-o", "json")
        assert status == 0, err
        return json.loads(out)

    def raw(self, plural: str, name: str, namespace: str = "") -> Object:
        found: Object = (
            self.cluster.objects.get(plural, name, namespace) if namespace else self.cluster.objects.get(plural, name)
        )
        return found


@pytest.fixture(params=GROUPS)
async def scene(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncGenerator[Scene]:
    async with fix_cluster(tmp_path) as cluster:
        fill(cluster, request.param)
        async with cluster.store(BOT) as store, cluster.store(CLUSTER_FIXER) as fixing:
            yield Scene(cluster, store, fixing, tmp_path, capsys)


@pytest.fixture
async def classic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncGenerator[Scene]:
    async with fix_cluster(tmp_path) as cluster:
        fill(cluster, "crd.projectcalico.org")
        async with cluster.store(BOT) as store, cluster.store(CLUSTER_FIXER) as fixing:
            yield Scene(cluster, store, fixing, tmp_path, capsys)


def fill(cluster: FixCluster, group: Group) -> None:
    from tests.recorded import native

    install(cluster.objects, group)
    files = load(HEALTHY)
    there = {"default", "kube-system", "kube-public", "kube-node-lease"}
    for name in ("k8s/namespaces", "k8s/nodes", "k8s/pods", *sorted(p[:-5] for p in files if p.startswith("cr/"))):
        for one in files[f"{name}.json"]["items"]:
            if one["kind"] == "Namespace" and one["metadata"]["name"] in there:
                continue
            cluster.objects.create(native(one) if group == "projectcalico.org" else changeable(one))


# ---- asked for, approved, done


async def test_a_policy_is_asked_for_approved_and_there(scene: Scene) -> None:
    request = await scene.asked("apply", text=DENY)
    assert request.spec.title == "Create GlobalNetworkPolicy deny-web"
    assert "3 of 9 pods (shop/web-" in request.spec.blast_radius and "It lets nothing in" in request.spec.blast_radius
    assert request.spec.undo == "Delete it: calico-why delete globalnetworkpolicy deny-web"
    preview = await scene.previewed(request)
    assert preview[0] == "--- GlobalNetworkPolicy deny-web (now)" and "+  selector: app == 'web'" in preview
    assert await scene.shown("gnp") == {**await scene.shown("gnp"), "items": []}
    done = await scene.approved(request)
    assert (done.status.phase, "is what was asked for" in done.status.message) == (Phase.VERIFIED, True)
    found = await scene.shown("gnp", "deny-web")
    assert found["metadata"]["labels"] == {"team": "shop", "projectcalico.org/tier": "default"}
    assert found["spec"]["tier"] == "default" and found["spec"]["egress"] == [{"action": "Allow"}]
    again, out, _ = await scene.say("apply", text=DENY)
    assert again == 0 and "is like that already" in out and "Nothing is to be changed" in out


async def test_labels_of_a_stored_policy_stand_where_calico_looks(classic: Scene) -> None:
    await classic.approved(await classic.asked("create", text=DENY))
    own = classic.raw("globalnetworkpolicies", "deny-web")
    kept = json.loads(own["metadata"]["annotations"]["projectcalico.org/metadata"])
    assert kept["name"] == "deny-web" and kept["labels"]["team"] == "shop" and kept["creationTimestamp"]
    assert own["metadata"]["labels"] == {"projectcalico.org/tier": "default"}
    assert own["kind"] == "GlobalNetworkPolicy" and own["apiVersion"] == "crd.projectcalico.org/v1"


async def test_a_change_keeps_what_it_does_not_speak_of(scene: Scene) -> None:
    pool = scene.raw("ippools", "default-ipv4-ippool")
    pool["spec"]["ofANewerVersion"] = {"x": 1795379363042234849}
    pool["metadata"]["finalizers"] = ["calico.example/keep"]
    scene.cluster.objects.update(pool)
    request = await scene.asked("patch", "ipp", "default-ipv4-ippool", "-p", '{"spec": {"natOutgoing": false}}')
    assert request.spec.title == "Change IPPool default-ipv4-ippool"
    assert "of 10.244.0.0/16 are in use" in request.spec.blast_radius and "3 of 3 nodes" in request.spec.blast_radius
    preview = await scene.previewed(request)
    assert [line for line in preview if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        "-  natOutgoing: true",
        "+  natOutgoing: false",
    ]
    assert (await scene.approved(request)).status.phase is Phase.VERIFIED
    now = scene.raw("ippools", "default-ipv4-ippool")
    assert now["spec"] == {**pool["spec"], "natOutgoing": False}
    assert now["metadata"]["finalizers"] == pool["metadata"]["finalizers"]
    assert now["metadata"]["uid"] == pool["metadata"]["uid"]


async def test_a_resource_is_deleted(scene: Scene) -> None:
    await scene.approved(await scene.asked("create", text=DENY))
    request = await scene.asked("delete", "gnp", "deny-web")
    assert (request.spec.kind, request.spec.title) == ("delete_resource", "Delete GlobalNetworkPolicy deny-web")
    assert request.spec.evidence[0].fact["before"]["spec"]["selector"] == "app == 'web'"
    assert "-  selector: app == 'web'" in await scene.previewed(request)
    done = await scene.approved(request)
    assert (done.status.phase, done.status.message) == (
        Phase.VERIFIED,
        "There is no GlobalNetworkPolicy deny-web any more.",
    )
    assert (await scene.shown("gnp"))["items"] == []


async def test_each_of_several_documents_is_a_request_of_its_own(scene: Scene) -> None:
    tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: platform}\nspec: {order: 100}\n"
    policy = DENY.replace("deny-web", "platform.deny").replace("spec:\n", "spec:\n  tier: platform\n")
    status, _, err = await scene.say("apply", text=f"{tier}---\n{policy}---\n{POOL}")
    assert status == 0, err
    requests = {one.spec.title: one for one in await scene.store.all()}
    assert set(requests) == {"Create Tier platform", "Create GlobalNetworkPolicy platform.deny", "Create IPPool second"}
    early = await scene.fixer.handle(requests["Create GlobalNetworkPolicy platform.deny"].name)
    assert "there is no tier platform" in early.status.preview[0]
    assert (await scene.approved(requests["Create Tier platform"])).status.phase is Phase.VERIFIED
    policy_done = await scene.approved(requests["Create GlobalNetworkPolicy platform.deny"])
    assert policy_done.status.phase is Phase.VERIFIED
    pool_done = await scene.approved(requests["Create IPPool second"])
    assert pool_done.status.phase is Phase.VERIFIED
    spec = (await scene.shown("ippool", "second"))["spec"]
    assert (spec["blockSize"], spec["nodeSelector"], spec["allowedUses"]) == (26, "all()", ["Workload", "Tunnel"])
    stuck, _, err = await scene.say("delete", "tier", "platform")
    assert stuck == WRONG_USAGE and "has policies: GlobalNetworkPolicy platform.deny. Delete them first" in err


# ---- what happens meanwhile


async def test_who_changes_it_between_request_and_approval_is_not_overwritten(scene: Scene) -> None:
    request = await scene.asked("patch", "ipp", "default-ipv4-ippool", "-p", "spec: {natOutgoing: false}")
    pool = scene.raw("ippools", "default-ipv4-ippool")
    pool["spec"]["disableBGPExport"] = True
    scene.cluster.objects.update(pool)
    done = await scene.approved(request)
    assert done.status.phase is Phase.STALE
    assert "IPPool default-ipv4-ippool was changed since it was asked for" in done.status.message
    assert scene.raw("ippools", "default-ipv4-ippool")["spec"]["natOutgoing"] is True


async def test_what_was_made_meanwhile_is_not_made_again(scene: Scene) -> None:
    first, second = (
        await scene.asked("apply", text=DENY),
        await scene.asked("create", text=DENY.replace("Allow", "Deny")),
    )
    assert (await scene.approved(first)).status.phase is Phase.VERIFIED
    done = await scene.approved(second)
    assert done.status.phase is Phase.STALE and "GlobalNetworkPolicy deny-web is there by now" in done.status.message
    assert (await scene.shown("gnp", "deny-web"))["spec"]["egress"] == [{"action": "Allow"}]


async def test_a_pool_that_overlaps_by_now_is_not_made(scene: Scene) -> None:
    request = await scene.asked("create", text=POOL)
    other = scene.raw("ippools", "default-ipv4-ippool")
    metadata = {"name": "other"}
    scene.cluster.objects.create({**other, "metadata": metadata, "spec": {**other["spec"], "cidr": "10.99.128.0/17"}})
    done = await scene.approved(request)
    assert done.status.phase is Phase.STALE and "overlaps with 10.99.128.0/17 of IPPool other" in done.status.message


async def test_a_request_that_says_one_thing_and_writes_another_does_nothing(classic: Scene) -> None:
    request = await classic.asked("create", text=DENY)
    said = dict(request.spec.arguments)
    block = json.dumps({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMBlock",
                        "metadata": {"name": "10-244-0-0-26"}, "spec": {"cidr": "10.244.0.0/26"}})  # fmt: skip
    for forged in (
        {"plural": "ipamblocks", "manifest": block, "stored": "10-244-0-0-26", "name": "10-244-0-0-26"},
        {"plural": "pods"},
        {"name": "harmless"},
        {"stored": "other"},
        {"manifest": said["manifest"].replace("app == 'web'", "app ==")},
        {"manifest": "{}"},
        {"plural": "networkpolicies"},
    ):
        spec = msgspec.structs.replace(request.spec, arguments={**said, **forged})
        made = await classic.store.create(msgspec.structs.replace(spec, digest=digest_of(spec)))
        done = await classic.approved(made)
        assert done.status.phase is Phase.FAILED and done.status.message.startswith("Nothing was done"), forged
    assert (await classic.shown("gnp"))["items"] == []


async def test_a_pool_in_use_goes_by_its_typed_name_only(scene: Scene) -> None:
    status, _, err = await scene.say("delete", "ippool", "default-ipv4-ippool")
    assert status == WRONG_USAGE and "are in use" in err
    assert "delete ippool default-ipv4-ippool --confirm default-ipv4-ippool" in err
    status, _, err = await scene.say("delete", "ippool", "default-ipv4-ippool", "--confirm", "default")
    assert status == WRONG_USAGE and "is not the name of the pool" in err
    assert await scene.store.all() == []
    request = await scene.asked("delete", "ippool", "default-ipv4-ippool", "--confirm", "default-ipv4-ippool")
    assert "12 addresses of 10.244.0.0/16 are in use, in 3 blocks" in request.spec.blast_radius
    arguments = {**request.spec.arguments, "confirm": ""}
    forged = msgspec.structs.replace(request.spec, arguments=arguments)
    made = await scene.store.create(msgspec.structs.replace(forged, digest=digest_of(forged)))
    assert "its name was not typed" in (await scene.approved(made)).status.message
    blocks = await Calico(scene.fixing.api, environment={}).list("ipamblocks")
    done = await scene.approved(request)
    assert done.status.phase is Phase.VERIFIED
    assert await Calico(scene.fixing.api, environment={}).list("ipamblocks") == blocks
    assert (await scene.shown("ippools"))["items"] == []


async def test_an_address_that_is_taken_meanwhile_keeps_the_pool(classic: Scene) -> None:
    await classic.approved(await classic.asked("create", text=POOL))
    request = await classic.asked("delete", "ippool", "second")
    block = {"cidr": "10.99.0.0/26", "allocations": [0], "unallocated": [], "attributes": [{"handle_id": "x"}]}
    classic.cluster.objects.create(
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMBlock",
            "metadata": {"name": "10-99-0-0-26"},
            "spec": block,
        }
    )
    done = await classic.approved(request)
    assert (
        done.status.phase is Phase.STALE and "1 of its addresses are in use by now, and 0 were" in done.status.message
    )


# ---- what it reaches


async def test_a_staged_kubernetes_policy_says_whom_it_is_about(scene: Scene) -> None:
    staged = """\
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: deny, namespace: default}
spec:
  podSelector: {matchExpressions: [{key: app, operator: Exists}]}
"""
    request = await scene.asked("apply", text=staged)
    labelled = [one for one in scene.cluster.objects.list("pods", namespace="default")
                if "app" in (one["metadata"].get("labels") or {})]  # fmt: skip
    assert f"It is about {len(labelled) or 'none'} of " in request.spec.blast_radius
    assert request.spec.blast_radius.endswith("It is staged: nothing is enforced by it.")
    request = await scene.asked("apply", text=staged.split("spec:")[0].replace("deny", "gone") +
                                "spec: {stagedAction: Delete}\n")  # fmt: skip
    assert request.spec.blast_radius.endswith("asked for: It is staged: nothing is enforced by it.")


async def test_a_host_endpoint_of_no_node_reaches_nothing(scene: Scene) -> None:
    host = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}\nspec: "
    request = await scene.asked("apply", text=host + "{node: node-z, interfaceName: eth0}\n")
    assert "Nothing as long as there is no node node-z." in request.spec.blast_radius


# ---- refused before anybody is asked


@pytest.mark.parametrize(
    ("words", "text", "why"),
    [
        ("create", "apiVersion: projectcalico.org/v3\nkind: IPPool\n metadata: {}\n", "This is not YAML: line 3"),
        ("create", "", "create -f FILE"),
        ("create", "a: 1", "A resource says its kind and its apiVersion"),
        ("create", POOL.replace("IPPool", "IPPol"), "did you mean"),
        ("create", POOL.replace("projectcalico.org/v3", "crd.projectcalico.org/v1"), "write projectcalico.org/v3"),
        ("create", POOL.replace("vxlanMode", "vxlanmode"), "no such field; did you mean vxlanMode"),
        ("create", POOL.replace("10.99.0.0/16", "10.244.128.0/17"), "overlaps with 10.244.0.0/16 of IPPool"),
        ("create", POOL.replace("10.99.0.0/16", "10.99.0.1/16"), "write 10.99.0.0/16"),
        ("create", POOL.replace("natOutgoing: true", "ipipMode: Always"), "VXLAN or IPIP and not both"),
        ("create", POOL.replace("natOutgoing: true", "blockSize: 33"), "33 is not between 20 and 32"),
        ("create", POOL.replace("10.99.0.0/16", "10.99.0.0/28"), "is smaller than one block of /26"),
        ("create", POOL.replace("name: second", "name: default-ipv4-ippool"), "default-ipv4-ippool is there already"),
        ("replace", POOL, "IPPool second is not there to be replaced"),
        ("create", DENY.replace("== 'web'", "== web"), "spec.selector: "),
        ("create", DENY.replace("action: Allow", "action: Permit"), "'Permit' is not one of Allow, Deny"),
        ("create", DENY + "    destination: {ports: [80]}\n", "a rule with ports says the protocol"),
        ("create", DENY.replace("spec:\n", "spec:\n  tier: other\n"), "there is no tier other"),
        ("create", DENY.replace("labels:", "lables:"), "metadata.lables: there is no such field; did you mean labels"),
        ("create", DENY.replace("labels:", "namespace: shop\n  labels:"), "is a kind of no namespace"),
        ("delete pod cart", "", "'pod' is Kubernetes' own; .*: kubectl get pod. What Calico makes of it: get work"),
        ("get svc", "", "kubectl get service"),
        ("apply", "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n", "kubectl edit node"),
        ("apply", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n", "kubectl apply -f"),
        ("apply", f"{POOL}---\n{POOL}", "is written twice: resource 1 and resource 2"),
        ("delete ipamblock 10-244-0-0-26", "", "IPAM's blocks are not written by hand"),
        ("delete handle x", "", "`ipam release`"),
        ("delete node node-a", "", "kubectl edit node"),
        ("delete wep x", "", "kubectl edit pod"),
        ("delete clusterinfo default", "", "is only read"),
        ("delete tier default", "", "is Calico's own"),
        ("delete ippool second", "", "There is no IPPool second"),
        ("patch ipp default-ipv4-ippool -p {sepc:1}", "", "only metadata and spec"),
        ("patch ipp default-ipv4-ippool --type strategic -p {}", "", "strategic patch needs merge keys"),
        ("patch ipp default-ipv4-ippool -p spec:", "", "spec: has to be given"),
    ],
)  # fmt: skip
async def test_what_calico_refuses_is_refused_before_a_request_exists(
    classic: Scene, words: str, text: str, why: str
) -> None:
    status, out, err = await classic.say(*words.split(), text=text)
    assert (status, out) == (WRONG_USAGE, "") and re.search(why, err), err
    assert await classic.store.all() == []


async def test_what_may_not_change_of_a_pool_is_refused(classic: Scene) -> None:
    for patch, why in (
        ('{"spec": {"cidr": "10.240.0.0/12"}}', "the CIDR of a pool cannot be modified; it is 10.244.0.0/16"),
        ('{"spec": {"blockSize": 24}}', "the block size of a pool cannot be modified; it is 26"),
        ('{"metadata": {"name": "x"}}', "labels and annotations only"),
        ('{"kind": "Tier"}', "does not change kind"),
    ):
        status, _, err = await classic.say("patch", "ipp", "default-ipv4-ippool", "-p", patch)
        assert status == WRONG_USAGE and why in err
    status, _, err = await classic.say(
        "patch", "ipp", "default-ipv4-ippool", "--type", "json", "-p", '[{"op": "remove", "path": "/spec/nothing"}]'
    )
    assert status == WRONG_USAGE and "The patch does not fit: remove /spec/nothing" in err
    assert await classic.store.all() == []


async def test_who_read_an_older_one_is_told(classic: Scene) -> None:
    shown = await classic.shown("ippool", "default-ipv4-ippool")
    shown["spec"]["natOutgoing"] = False
    shown["metadata"]["resourceVersion"] = "1"
    status, _, err = await classic.say("replace", text=json.dumps(shown))
    assert status == WRONG_USAGE and "was changed since you read it: this is resourceVersion 1" in err


async def test_what_get_prints_can_be_applied(scene: Scene) -> None:
    _, out, _ = await scene.say("get", "felixconfig", "default", "-o", "yaml")
    request = await scene.asked("apply", text=out.replace("logSeverityScreen: Info", "logSeverityScreen: Debug"))
    assert request.spec.blast_radius.endswith("All 3 nodes; their Felix restarts for most of its settings.")
    assert (await scene.approved(request)).status.phase is Phase.VERIFIED
    assert (await scene.shown("felixconfig", "default"))["spec"]["logSeverityScreen"] == "Debug"


async def test_the_clusters_own_schema_is_held_to(classic: Scene) -> None:
    """As a real cluster publishes it: fields, types, enumerations and patterns."""
    crd = classic.raw("customresourcedefinitions", "bgppeers.crd.projectcalico.org")
    spec = {"type": "object", "properties": {
        "peerIP": {"type": "string"}, "asNumber": {"type": "integer", "maximum": 4294967295},
        "maxRestartTime": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))*$"},
        "sourceAddress": {"type": "string", "enum": ["UseNodeIP", "None"]},
        "newInThisVersion": {"type": "boolean"}}}  # fmt: skip
    schema = {"type": "object", "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
                                               "metadata": {"type": "object"}, "spec": spec}}  # fmt: skip
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    classic.cluster.objects.update(crd)
    text = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: x}\nspec: {peerIP: 10.0.0.1, "
    for more, why in (
        ("asnumber: 1}", "spec.asnumber: there is no such field; did you mean asNumber?"),
        ("asNumber: many}", "spec.asNumber: 'many' is not of the type integer"),
        ("maxRestartTime: 1w}", "does not have the form"),
        ("sourceAddress: Other}", "'Other' is not one of UseNodeIP, None"),
    ):
        status, _, err = await classic.say("create", text=text + more)
        assert status == WRONG_USAGE and why in err, err
    request = await classic.asked("create", text=text + "asNumber: 64512, newInThisVersion: true}")
    assert (await classic.approved(request)).status.phase is Phase.VERIFIED


async def test_who_may_not_write_may_ask_and_the_fixer_tries_it(classic: Scene) -> None:
    """The bot needs no right to write: what the API server makes of it is shown by the fixer before anybody decides."""
    (classic._directory / "p.yaml").write_text(DENY)
    as_reader = classic.cluster.kubeconfig("reader")
    words = ["apply", "-f", str(classic._directory / "p.yaml"), "--kubeconfig", as_reader]
    status = await asyncio.to_thread(cli.main, words)
    out = classic._capsys.readouterr().out
    (request,) = await classic.store.all()
    assert status == 0 and request.name in out and "+  selector: app == 'web'" in out
    assert "+  selector: app == 'web'" in await classic.previewed(request)
    assert request.spec.requested_by == Person(id="reader", name="reader", via="kubectl")
