"""`policy` before anything is sent: which policies stand where, and that nobody takes what they say for the kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.errors import COULD_NOT_JUDGE, WRONG_USAGE
from bot.language import language
from bot.reply import second_opinion as reply
from bot.second_opinion import SecondOpinion, second_opinion, understand
from bot.words import Asked
from lab.apiserver.kubeconfig import kubeconfig
from lab.slack import LocalSlack
from tests.deployed import ADMINISTRATOR
from tests.fix_cluster import fix_cluster
from tests.recorded import Object, World, objects, served
from tests.test_bot_slack import ROOM, Room, _all_text
from tests.test_policy_source import A1, B1, HEALTHY, calico, network_policy
from tests.test_recorded_policies import DROPPED, FLOWS, NODES, of_set
from tests.test_service_source import resources

SECOND = "A second opinion: nothing was sent and the kernel, which decides, was not asked."
WOULD = calico("StagedGlobalNetworkPolicy", "would", types=["Ingress"], ingress=[
    {"action": "Allow", "protocol": "TCP", "destination": {"ports": [5432]}}])  # fmt: skip


async def judged(resources: Sequence[Object], directory: Path, *said: str, **fields: Any) -> SecondOpinion:
    """What `policy SAID` says of these objects."""
    denied = fields.pop("denied", None)
    async with served(resources, directory, denied=denied) as world, world.cluster(**fields) as cluster:
        return await second_opinion(understand(said), cluster=cluster)


def words_of(flow: Object) -> list[str]:
    address, _, port = flow["dst"].partition(":")
    return [flow["src"].replace("host-", "node-"), NODES.get(address, address), f"{port}/tcp"]


@pytest.mark.parametrize("flow", FLOWS[::5], ids=[f"{one['set']}: {one['flow']}" for one in FLOWS[::5]])
async def test_the_verdict_is_what_a_running_calico_did(flow: Object, tmp_path: Path) -> None:
    found = await judged(of_set(flow["set"]), tmp_path, *words_of(flow))
    assert found.verdict == ("deny" if flow["result"] == DROPPED else "allow"), reply.text(found)
    for gate in (gate for walk in found.walks for gate in walk.gates):  # the tiers say the same as the verdict
        ends = [step.end for step in gate.steps]
        decided = [end for end in ends if end not in ("pass", "not reached")]
        assert decided in ([gate.opinion.verdict], []), ends
        assert ends == sorted(ends, key=["pass", "allow", "deny", "not reached"].index), ends
        assert bool(decided) == (gate.opinion.by in ("rule", "end of tier"))


async def test_the_walk_goes_tier_by_tier_in_order(tmp_path: Path) -> None:
    found = await judged(of_set("07-tier-pass"), tmp_path, "shop/shop-b", "default/pod-a1", "9090/tcp")
    assert reply.text(found) == (
        "x By the policies in the API tcp 9090 does not pass from shop/shop-b to default/pod-a1.   [calico-why-lab]\n"
        f"  {SECOND} What it does: calico-why why shop/shop-b default/pod-a1 9090/tcp\n"
        "\n"
        "  shop/shop-b to default/pod-a1 over IPv4: tcp 9090\n"
        "    out of shop/shop-b, on node-b\n"
        "      No policy decides on tcp 9090 out of shop/shop-b, and its profile allows it.\n"
        "    into default/pod-a1, on node-a\n"
        "      tier platform (GlobalNetworkPolicy platform.pass-shop): lets it go on to the next\n"
        "      tier default (Calico NetworkPolicy default/only-8080): denies it\n"
        "      tcp 9090 into default/pod-a1 is dropped at the end of tier default: none of its policies there allows "
        "it (Calico NetworkPolicy default/only-8080).\n"
        "    What they let pass from shop/shop-b to default/pod-a1: 8080/tcp.\n"
    )
    chinese = reply.text(found, language("zh"))
    assert (
        "按 API 中的策略，tcp 9090 不能从 shop/shop-b 到达 default/pod-a1" in chinese and "交给下一个 tier" in chinese
    )
    assert "calico-why why shop/shop-b" in chinese and "kernel" not in chinese


async def test_what_comes_after_the_tier_that_decides_is_not_asked(tmp_path: Path) -> None:
    found = await judged(of_set("14-clusternetworkpolicy"), tmp_path, "ops/ops-b", "default/pod-a1", "8080/tcp")
    told = reply.text(found)
    assert "tier kube-admin (ClusterNetworkPolicy admin-deny-ops): denies it" in told
    assert "tier kube-baseline (ClusterNetworkPolicy baseline-deny): not asked any more" in told
    assert "denied by rule 1 (deny-ops) of ClusterNetworkPolicy admin-deny-ops in tier kube-admin" in told


async def test_without_a_port_it_tells_what_passes(tmp_path: Path) -> None:
    """A dropped ping beside ports that pass is not a denied way."""
    found = await judged(of_set("03-knp-named-port"), tmp_path, "pod-b1", "np-a")
    assert found.verdict == "some"
    told = reply.text(found)
    assert told.startswith("! By the policies in the API not everything passes from default/pod-b1 to default/np-a.")
    assert "What they let pass from default/pod-b1 to default/np-a: 8080/tcp." in told
    none = await judged(of_set("01-knp-ingress"), tmp_path, "pod-b2", "pod-a1")
    assert (none.verdict, "They let nothing pass" in reply.text(none)) == ("deny", True)
    everything = await judged(objects(HEALTHY), tmp_path, A1, B1)
    assert everything.verdict == "allow" and "What they let pass" in reply.text(everything)


async def test_staged_policies_decide_nothing_and_what_they_would_change_is_told(tmp_path: Path) -> None:
    found = await judged([*objects(HEALTHY), WOULD], tmp_path, A1, B1, "80/tcp")
    told = reply.text(found)
    assert found.verdict == "allow"
    assert f"Were the staged policies enforced, tcp 80 into {B1} would be denied (GlobalNetworkPolicy would)." in told
    assert f"Were the staged policies enforced: What they let pass from {A1} to {B1}: 5432/tcp." in told
    harmless = calico("StagedGlobalNetworkPolicy", "would", types=["Ingress"], ingress=[{"action": "Allow"}])
    same = reply.text(await judged([*objects(HEALTHY), harmless], tmp_path, A1, B1, "80/tcp"))
    assert "The staged policies (GlobalNetworkPolicy would) would change nothing of what passes." in same


async def test_what_could_not_be_read_is_said_and_makes_it_unknown(tmp_path: Path) -> None:
    for denied, verdict, sentence in (
        ("globalnetworkpolicies", "unknown", "globalnetworkpolicies: the API server answered 403"),
        ("stagednetworkpolicies", "deny", "Staged policies could not all be read"),
    ):
        less = frozenset({("list", "*", denied)})
        found = await judged(
            [*objects(HEALTHY), network_policy("deny-all")],
            tmp_path,
            A1,
            B1,
            "80/tcp",
            denied={"some": less},
            token="some",
        )
        assert found.verdict == verdict
        assert sentence in reply.text(found)
        if verdict == "unknown":
            assert "deny-all): cannot be said" in reply.text(found) and "They let" not in reply.text(found)


async def test_ends_that_are_no_pods(tmp_path: Path) -> None:
    node = await judged(objects(HEALTHY), tmp_path, "node-a", A1, "80/tcp")
    assert node.verdict == "allow" and "A node reaches its own pods whatever policies say." in reply.text(node)
    own = await judged(objects(HEALTHY), tmp_path, A1, "node-a", "80/tcp")
    assert own.verdict == "allow" and "judged where it leaves the pod" in reply.text(own)
    outside = await judged(objects(HEALTHY), tmp_path, A1, "192.0.2.7", "443/tcp")
    assert outside.verdict == "allow"
    assert "192.0.2.7 is outside of the cluster: no policy stands there." in reply.text(outside)


@pytest.mark.parametrize(("addresses", "verdict"), [(["172.30.0.11"], "deny"), ([], "unknown")])
async def test_a_host_endpoint_of_an_interface_nobody_asked_the_node_for(
    addresses: list[str], verdict: str, tmp_path: Path
) -> None:
    """Its expected addresses say that it is the uplink's; without them it may be, and nothing is said to pass."""
    host = calico("HostEndpoint", "a-eth0", node="node-a", interfaceName="eth0", expectedIPs=addresses)
    found = await judged([*objects(HEALTHY), host], tmp_path, "node-b", "node-a", "8081/tcp")
    assert found.verdict == verdict
    assert ("Whether host endpoint a-eth0 is in the way only its node knows" in reply.text(found)) == (not addresses)


async def test_each_family_has_a_walk_of_its_own(tmp_path: Path) -> None:
    only4 = network_policy("only4", ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    found = await judged([*objects("v3.32.1/dualstack/healthy"), only4], tmp_path, A1, B1, "8080/tcp")
    assert {walk.family: walk.verdict for walk in found.walks} == {4: "allow", 6: "deny"}
    assert found.verdict == "some" and "on some of the ways there only" in reply.text(found)


async def test_a_service_is_judged_at_every_endpoint(tmp_path: Path) -> None:
    """The asked port is the Service's; policies see the one its endpoints serve."""
    found = await judged(resources(), tmp_path, "default/pod-b2", "default/svc-ok", "80/tcp")
    assert {walk.target for walk in found.walks} == {A1, B1} and {walk.port for walk in found.walks} == {8080}
    assert reply.text(found).startswith(
        "ok By the policies in the API tcp 80 passes from default/pod-b2 to default/svc-ok"
    )
    shut = network_policy("shut", podSelector={"matchLabels": {"shut": "yes"}})
    labelled = resources()
    (pod,) = [one for one in labelled if (one["kind"], one["metadata"]["name"]) == ("Pod", "pod-b1")]
    pod["metadata"].setdefault("labels", {})["shut"] = "yes"
    part = await judged([*labelled, shut], tmp_path, "default/pod-b2", "default/svc-ok", "80/tcp")
    assert part.verdict == "some"
    assert {walk.target for walk in part.walks if walk.verdict == "deny"} == {B1}


async def test_a_port_that_may_be_a_services_is_not_judged_as_the_nodes(tmp_path: Path) -> None:
    less = frozenset({("list", "*", "services")})
    asked = ("default/pod-b2", "node-a", "30080/tcp")
    found = await judged(resources(), tmp_path, *asked, denied={"some": less}, token="some")
    assert found.verdict == "unknown" and "services: the API server answered 403" in reply.text(found)
    readable = await judged(resources(), tmp_path, *asked)
    assert readable.verdict == "unknown" and "ask for default/svc-np." in reply.text(readable)
    own = await judged(resources(), tmp_path, "default/pod-b2", "node-a", "30099/tcp")
    assert own.verdict == "allow" and {walk.target for walk in own.walks} == {"node-a"}


async def test_endpoints_nobody_looked_up_are_not_said_to_be_reached(tmp_path: Path) -> None:
    many = resources()
    (ends,) = [one for one in many if one["metadata"]["name"] == "svc-ok-x1"]
    ends["endpoints"] += [{"addresses": [f"10.244.218.{number}"], "conditions": {"ready": True},
                           "targetRef": {"kind": "Pod", "namespace": "default", "name": f"copy-{number}"}}
                          for number in range(80, 100)]  # fmt: skip
    found = await judged(many, tmp_path, "default/pod-b2", "default/svc-ok", "80/tcp")
    judged_ends = len({walk.target for walk in found.walks})
    assert found.verdict == "unknown" and found.unjudged > 0
    assert f"Of the endpoints of default/svc-ok {judged_ends} were judged and {found.unjudged} were not." in reply.text(
        found
    )


async def test_a_service_nobody_serves_leads_nowhere(tmp_path: Path) -> None:
    found = await judged(resources(), tmp_path, A1, "default/svc-none", "80/tcp")
    assert (found.verdict, found.walks) == ("unknown", ())
    assert "No way there is known" in reply.text(found)


# -- the command -------------------------------------------------------------------------------------------------------


async def command(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    path = world._directory / "for-the-command"
    path.write_text(kubeconfig(world.url, "asker"))
    status = await asyncio.to_thread(cli.main, ["policy", *words, "--kubeconfig", str(path)])
    said = capsys.readouterr()
    return status, said.out, said.err


async def test_forms_and_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with served([*objects(HEALTHY), network_policy("deny-all")], tmp_path) as world:
        status, out, _ = await command(world, capsys, A1, B1, "80/tcp", "-o", "json")
        found = json.loads(out)
        assert (status, found["version"], found["verdict"], found["kernel_asked"]) == (0, 1, "deny", False)
        (flow,) = found["flows"]
        assert [(gate["endpoint"], gate["direction"], gate["verdict"]) for gate in flow["gates"]] == [
            (A1, "egress", "allow"),
            (B1, "ingress", "deny"),
        ]
        assert flow["gates"][1]["tiers"] == [
            {"tier": "default", "policies": ["NetworkPolicy default/deny-all"], "end": "deny", "early": False}
        ]
        assert flow["passes"] == []
        status, out, _ = await command(world, capsys, A1, B1, "80/tcp", "--exit-code", "-o", "slack")
        (message,) = json.loads(out)
        assert status == 1 and SECOND in json.dumps(message) and ":x: *By the policies" in json.dumps(message)
        status, out, _ = await command(world, capsys, A1, B1, "80/tcp", "--lang", "zh")
        assert status == 0 and out.startswith("x 按 API 中的策略")
        status, out, err = await command(world, capsys, A1, "default/nobody")
        assert status == WRONG_USAGE and out == "" and "nobody" in err
        status, out, err = await command(world, capsys, A1)
        assert status == WRONG_USAGE and "Write: policy " in err
        world.change("pods", "pod-b1", "default", nodeName="gone")
        status, out, _ = await command(world, capsys, A1, B1, "80/tcp")
        assert status == COULD_NOT_JUDGE and out.startswith("? ")


# -- in Slack ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["socket", "http"])
async def room(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Room]:
    async with LocalSlack() as slack, fix_cluster(tmp_path) as cluster, cluster.store(ADMINISTRATOR) as store:
        room = Room(request.param, slack, cluster, store, tmp_path / "state")
        yield room
        refused = [(call.method, call.error) for call in slack.calls if call.error]
        assert not refused, "the bot sent what Slack does not take"


async def test_slack_answers_in_the_channel_and_a_mention_in_its_thread(room: Room, tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    async with (
        served([*objects(HEALTHY), network_policy("deny-all")], tmp_path / "world") as world,
        world.cluster() as cluster,
    ):

        async def judge(asked: Asked) -> SecondOpinion:
            return await second_opinion(asked, cluster=cluster)

        room.judge = judge
        async with room.bot():
            await room.ask(f"/calico policy {A1} {B1} 80/tcp", user="cleo")
            message = await room.answered(f"By the policies in the API tcp 80 does not pass from {A1} to {B1}.")
            told = _all_text(message)
            assert f"<@U0CLEO> asked: policy `{A1} {B1} 80/tcp`" in told
            assert SECOND in told and f"/calico why {A1} {B1} 80/tcp" in told
            assert "tier default (NetworkPolicy default/deny-all): denies it" in told
            await room.slack.mention("ana", ROOM, f"policy {A1} {B1}")
            ts = room.slack.messages(ROOM)[-1]["ts"]
            await room.slack.wait_for(lambda: room.posted("By the policies in the API nothing passes", ts))
            await room.ask(f"/calico policy {A1} default/nobody")
            await room.whisper("ana", "nobody")
            await room.ask("/calico policy")
            await room.whisper("ana", "nothing was said. Write: policy ")


async def test_trouble_is_told_to_who_asked_alone(room: Room) -> None:
    async def broken(asked: Asked) -> SecondOpinion:
        raise RuntimeError("a mistake")

    room.judge = broken
    async with room.bot(language("zh")):
        await room.ask(f"/calico policy {A1} {B1}")
        await room.whisper("ana", "我内部出了错")
    assert room.slack.messages(ROOM) == []
