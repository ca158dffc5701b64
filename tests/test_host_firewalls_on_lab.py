"""Firewalls of a node's own, written by their own tools into real kernels: what they drop is named with their words,
and what they let pass is nobody's fault."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from engine.foreign import limits
from facts import CalicoFirewall, ConnectionTable, Diagnosis, RuleDrop
from lab.client import Lab
from tests import exhaustive
from tests.asking import ask

TOOLS = {4: ("iptables-nft", "iptables-legacy"), 6: ("ip6tables-nft", "ip6tables-legacy")}
BY_TOOL = [(tool, family) for family, tools in TOOLS.items() for tool in tools]
ASKED = "shop/cart shop/db 5432/tcp"
PING = "shop/cart shop/db"
TABLES = ("raw", "mangle", "nat", "filter")


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab.up(variant="dualstack", fixers=False) as lab:
        yield lab


class Hosts:
    """The nodes of the lab, written to by iptables, and emptied again."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._written: set[tuple[str, str]] = set()

    def write(self, node: str, tool: str, *lines: str) -> None:
        """Skips where this machine has no such tool, or its kernel no such tables."""
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
        self._written.add((node, tool))
        for line in lines:
            done = self._lab.exec(node, tool, "-w", *line.split())
            if done.returncode and "legacy" in tool and "Table does not exist" in done.stderr:
                pytest.skip(f"this machine's kernel has no tables of {tool}")
            assert done.returncode == 0, (line, done.stderr)

    def clear(self) -> None:
        """`lab heal` knows nothing of iptables-legacy."""
        for node, tool in self._written:
            for table in TABLES:
                for words in (("-F",), ("-X",)):
                    self._lab.exec(node, tool, "-w", "-t", table, *words)
            for chain in ("INPUT", "FORWARD", "OUTPUT"):
                self._lab.exec(node, tool, "-w", "-P", chain, "ACCEPT")


@pytest.fixture
def hosts(shared: Lab) -> Iterator[Hosts]:
    shared.heal()
    found = Hosts(shared)
    yield found
    found.clear()


async def answer(lab: Lab, family: int, words: str = ASKED) -> Diagnosis:
    """By the addresses of that family alone."""
    source, target, *port = words.split()
    return (await ask(lab.environment(), " ".join((source, address(lab, target, family), *port)))).diagnosis


def address(lab: Lab, name: str, family: int) -> str:
    (pod,) = [pod for pod in lab.status()["pods"] if pod["name"] == name]
    return next(str(one) for one in pod["addresses"] if (":" in one) == (family == 6))


def named(diagnosis: Diagnosis) -> list[tuple[str, str, str]]:
    return [(cause.rule, cause.node, cause.stage) for cause in diagnosis.causes]


TUNNEL = [
    ("node-b", "-A INPUT -p udp -m udp --dport 4789 -j DROP", "target tunnel"),
    ("node-a", "-A OUTPUT -p udp --dport 4789 -j DROP", "source tunnel"),
    ("node-b", "-t raw -A PREROUTING -p udp --dport 4789 -j DROP", "target tunnel"),
    ("node-a", "-t mangle -A POSTROUTING -p udp --dport 4789 -j DROP", "source tunnel"),
    ("node-b", "-P INPUT DROP", "target tunnel"),
]
PASSING = [
    ("node-b", "-A FORWARD -s {source} -j REJECT"),
    ("node-a", "-A FORWARD -d {target} -j DROP"),
    ("node-b", "-t mangle -A FORWARD -d {target} -j DROP"),
    ("node-a", "-t raw -A PREROUTING -s {source} -d {target} -j DROP"),
    ("node-b", "-P FORWARD DROP"),
]


OWNERS = [
    ("DOCKER-USER", "docker"),
    ("ufw-user-forward", "ufw"),
    ("FWDI_public_deny", "firewalld"),
    ("KUBE-FORWARD", "kube-proxy"),
]


def by_tools(cases: list[Any]) -> list[Any]:
    """Every case with both tools of IPv4, the first and the last one with those of IPv6."""
    four, six = ([(tool, family) for tool in TOOLS[family]] for family in (4, 6))
    return exhaustive.matrix(2, four, cases) + exhaustive.matrix(2, six, (cases[0], cases[-1]))


@pytest.mark.parametrize(("tool", "family", "node", "line", "stage"), by_tools(TUNNEL))
async def test_a_rule_that_drops_the_tunnel_is_named_and_not_the_network(
    shared: Lab, hosts: Hosts, tool: str, family: int, node: str, line: str, stage: str
) -> None:
    keep = [] if family == 4 else ["-A INPUT -p ipv6-icmp -j ACCEPT"]  # neighbors find each other
    # What asks the probe, and what the nodes tell each other of their probes, comes by TCP and UDP too.
    hosts.write(node, tool, *keep, "-A INPUT -p tcp -j ACCEPT", line)
    diagnosis = await answer(shared, family)
    assert named(diagnosis) == [("host_firewall_drops_vxlan", node, stage)], diagnosis.summary
    chain = "INPUT" if "-P" in line else line.split("-A ")[1].split()[0]
    assert f"chain {chain} " in diagnosis.causes[0].text
    assert tool.replace("6", "") in diagnosis.causes[0].text


@pytest.mark.parametrize(("tool", "family", "node", "line"), by_tools(PASSING))
async def test_a_rule_that_drops_what_passes_is_named(
    shared: Lab, hosts: Hosts, tool: str, family: int, node: str, line: str
) -> None:
    ends = {"source": address(shared, "shop/cart", family), "target": address(shared, "shop/db", family)}
    hosts.write(node, tool, line.format(**ends))
    diagnosis = await answer(shared, family)
    end = "source" if node == "node-a" else "target"
    assert named(diagnosis) == [("host_firewall_drops_forward", node, f"{end} node")], diagnosis.summary
    if "-P" in line:
        assert "policy" in diagnosis.causes[0].text
    else:
        verdict = line.split()[-1]
        assert f"-j {verdict}" in diagnosis.causes[0].text
        assert diagnosis.causes[0].text.startswith(f"{node} {'refuses' if verdict == 'REJECT' else 'drops'} tcp 5432")


@pytest.mark.parametrize(
    "words",
    ["tcp dport 5432 limit rate over 1/minute burst 1 packets drop", "udp dport 4789 limit rate over 1/minute drop"],
)
async def test_what_a_limit_ends_is_not_said_to_be_cut_off(shared: Lab, hosts: Hosts, words: str) -> None:
    hook = "forward" if "tcp" in words else "input"
    chain = f"add chain inet hardening limited {{ type filter hook {hook} priority -10; }}"
    rules = f"add table inet hardening\n{chain}\nadd rule inet hardening limited {words}\n"
    assert shared.exec("node-b", "nft", "-f", "-", input=rules).returncode == 0
    await answer(shared, 4)  # by what is sent for it the limit is reached
    diagnosis = await answer(shared, 4)
    rule = "host_firewall_drops_forward" if "tcp" in words else "host_firewall_drops_vxlan"
    assert {(one.rule, one.node, one.severity) for one in diagnosis.causes} == {(rule, "node-b", "degrades")}
    assert "It is a limit: a flow that opens fewer connections at once" in diagnosis.causes[0].text


@pytest.mark.parametrize(
    ("above", "severity"),
    [
        ("tcp dport 5432 limit rate 1/minute burst 1 packets accept", "degrades"),
        ("limit rate 1/minute burst 1 packets accept", "degrades"),
        ("tcp dport 443 limit rate 1/minute accept", "breaks"),
        ("icmp type echo-request limit rate 1/minute accept", "breaks"),
        ("ip saddr 192.0.2.1 limit rate 1/minute accept", "breaks"),
        ("tcp dport 5432 limit rate 1/minute counter", "breaks"),  # it decides nothing
    ],
)
async def test_what_is_above_a_limit_for_its_like_is_not_said_to_be_cut_off(
    shared: Lab, hosts: Hosts, above: str, severity: str
) -> None:
    rules = "add table inet hardening\nadd chain inet hardening guard { type filter hook forward priority -10; }\n"
    for words in (above, "tcp dport 5432 drop"):
        rules += f"add rule inet hardening guard {words}\n"
    assert shared.exec("node-b", "nft", "-f", "-", input=rules).returncode == 0
    await answer(shared, 4)  # by what is sent for it the limit is reached
    (cause,) = (await answer(shared, 4)).causes
    assert (cause.rule, cause.node, cause.severity) == ("host_firewall_drops_forward", "node-b", severity)
    assert ("A rule above it lets so many pass and no more" in cause.text) == (severity == "degrades")


@pytest.mark.parametrize(
    ("chain", "text", "limit"),
    [
        ("INPUT", "-p tcp --dport 22 -m hashlimit --hashlimit-above 25/sec --hashlimit-name ssh -j DROP", True),
        ("INPUT", "-p tcp -m connlimit --connlimit-above 50 --connlimit-mask 32 -j REJECT", True),
        ("INPUT", "-m recent --update --seconds 30 --hitcount 6 --name DEFAULT --rsource -j DROP", True),
        ("ufw-user-limit", "-j REJECT --reject-with icmp-port-unreachable", True),
        ("o", "tcp dport 5432 ct count over 20 drop", True),
        ("o", "tcp dport 5432 quota over 10 bytes used 10 bytes drop", False),
        ("FORWARD", "-s 10.244.1.2/32 -j DROP", False),
    ],
)
def test_which_rules_are_limits(chain: str, text: str, limit: bool) -> None:
    drop = RuleDrop(
        node="node-b", source_address="10.244.1.2", target_address="10.244.2.3", protocol="tcp", port=5432,
        verdict="drop", chain=chain, text=text, how="trace", backend="nft", family=4, table="filter",
    )  # fmt: skip
    assert limits(drop) == limit


@pytest.mark.parametrize(
    ("nodes", "lines"),
    [
        (("node-a",), ("-A OUTPUT -p icmpv6 -j DROP",)),
        (("node-a", "node-b"), ("-P INPUT DROP", "-A INPUT -p tcp -j ACCEPT")),
    ],
)
async def test_nodes_that_drop_neighbor_discovery_are_not_told_to_have_a_dead_network(
    shared: Lab, hosts: Hosts, nodes: tuple[str, ...], lines: tuple[str, ...]
) -> None:
    """By their packets nobody can tell: they never send one. Who does not learn whose MAC is told."""
    for node in nodes:
        hosts.write(node, "ip6tables-nft", *lines)
        shared.exec(node, "ip", "-6", "neigh", "flush", "all")  # those of its pods age as well
    shared.exec("node-b", "ip", "-6", "neigh", "flush", "dev", "eth0")
    diagnosis = await answer(shared, 6)
    assert {cause.rule for cause in diagnosis.causes} == {"underlay_neighbor_wrong"}
    assert "must let neighbor discovery (ICMPv6) pass" in diagnosis.causes[0].remedy


@pytest.mark.parametrize(("tool", "chain", "owner"), exhaustive.matrix(2, TOOLS[4], OWNERS))
async def test_whose_rule_it_is_is_told_by_its_chains(
    shared: Lab, hosts: Hosts, tool: str, chain: str, owner: str
) -> None:
    target = address(shared, "shop/db", 4)
    hosts.write("node-b", tool, f"-N {chain}", f"-A FORWARD -j {chain}", f"-A {chain} -d {target} -j DROP")
    diagnosis = await answer(shared, 4)
    assert [cause.rule for cause in diagnosis.causes] == ["host_firewall_drops_forward"]
    assert f"By its chains it is {owner}'s." in diagnosis.causes[0].text


async def test_a_rule_that_somebody_put_into_calicos_chain_is_said_to_be_none_of_calicos(
    shared: Lab, hosts: Hosts
) -> None:
    target = address(shared, "shop/db", 4)
    hosts.write(
        "node-b", TOOLS[4][0], "-N cali-FORWARD", "-A FORWARD -j cali-FORWARD", f"-A cali-FORWARD -d {target} -j DROP"
    )
    (cause,) = (await answer(shared, 4)).causes
    assert cause.rule == "host_firewall_drops_forward"
    assert "The chain is Calico's and the rule is not: Felix takes it away" in cause.text


@pytest.mark.parametrize("tool", TOOLS[4])
async def test_a_rule_about_pings_is_no_reason_for_a_port(shared: Lab, hosts: Hosts, tool: str) -> None:
    """With the port the path is well; without one nobody can say that it is not."""
    hosts.write("node-b", tool, "-A FORWARD -p icmp -j DROP")
    with_port, without = await answer(shared, 4), await answer(shared, 4, PING)
    assert (with_port.verdict, with_port.causes, with_port.warnings) == ("healthy", (), ())
    assert (without.verdict, without.causes) == ("unknown", ())
    assert [cause.rule for cause in without.warnings] == ["host_firewall_drops_forward"]
    assert "ask again with the port" in without.warnings[0].text


@pytest.mark.parametrize(("tool", "family"), BY_TOOL)
async def test_what_a_refusal_is_told_by_does_not_make_its_rule_one_about_pings(
    shared: Lab, hosts: Hosts, tool: str, family: int
) -> None:
    hosts.write("node-b", tool, "-A FORWARD -j REJECT")
    diagnosis = await answer(shared, family, PING)
    assert named(diagnosis) == [("host_firewall_drops_forward", "node-b", "target node")], diagnosis.summary
    assert diagnosis.causes[0].text.startswith("node-b refuses icmp from shop/cart")


@pytest.mark.parametrize(("tool", "family"), BY_TOOL)
async def test_what_an_older_calico_left_is_told_where_it_drops_and_not_where_it_lets_pass(
    shared: Lab, hosts: Hosts, tool: str, family: int
) -> None:
    left = ["-N cali-FORWARD", "-N cali-to-wl-dispatch", "-A FORWARD -j cali-FORWARD"]
    enter = "-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch"
    unknown = "-A cali-to-wl-dispatch -m comment --comment cali:HmNZxmHPdaZP7nZL -m comment --comment Unknown -j"
    hosts.write("node-b", tool, *left, enter, f"{unknown} ACCEPT")
    well = await answer(shared, family)
    assert (well.verdict, well.causes, well.warnings) == ("healthy", (), ())
    seen = {one.node: one for one in well.facts if isinstance(one, CalicoFirewall) and one.family == family}
    filters = ("nftables", tool.replace("6", ""))
    assert (seen["node-a"].backends, seen["node-b"].backends) == (("nftables",), filters)
    assert seen["node-b"].entered == filters
    hosts.write("node-b", tool, "-F cali-to-wl-dispatch", f"{unknown} DROP")
    diagnosis = await answer(shared, family)
    assert [(cause.rule, cause.node) for cause in diagnosis.causes] == [("firewall_backends_mixed", "node-b")]


BY_SIZE = [
    ("node-b", "-A FORWARD -m length --length 1001:65535 -j DROP", "forward", "target node"),
    ("node-a", "-A FORWARD -s {target} -m length --length 1001:65535 -j DROP", "forward", "target node"),
    ("node-b", "-A INPUT -p udp --dport 4789 -m length --length 1001:65535 -j DROP", "vxlan", "target tunnel"),
]


@pytest.mark.parametrize(("tool", "family", "node", "line", "of", "stage"), by_tools(BY_SIZE))
async def test_a_rule_that_drops_large_packets_is_not_taken_for_a_narrow_network(
    shared: Lab, hosts: Hosts, tool: str, family: int, node: str, line: str, of: str, stage: str
) -> None:
    hosts.write(node, tool, line.format(target=address(shared, "shop/db", family)))
    diagnosis = await answer(shared, family)
    assert named(diagnosis) == [(f"host_firewall_drops_{of}", node, stage)], diagnosis.summary
    assert diagnosis.causes[0].severity == "degrades"
    assert "--length 1001:65535" in diagnosis.causes[0].text and "small ones pass" in diagnosis.causes[0].text


@pytest.mark.parametrize(("words", "verdict"), [(ASKED, "healthy"), (PING, "unknown")])
async def test_a_rule_about_large_pings_accuses_neither_itself_nor_the_network(
    shared: Lab, hosts: Hosts, words: str, verdict: str
) -> None:
    """Large segments of TCP pass, and are sent where a port was asked."""
    hosts.write("node-b", "iptables-nft", "-A FORWARD -p icmp -m length --length 1001:65535 -j DROP")
    diagnosis = await answer(shared, 4, words)
    assert (diagnosis.verdict, diagnosis.causes) == (verdict, ()), diagnosis.summary
    assert [cause.rule for cause in diagnosis.warnings] == ["host_firewall_drops_forward"]
    assert "the rule may be about pings alone" in diagnosis.warnings[0].text


WIRE = "udp dport 4789"
AT_DEVICES = [  # node, hook, device, condition, failure mode, stage
    ("node-a", "ingress", "{cart}", "", "forward", "source veth"),
    ("node-a", "egress", "eth0", WIRE, "vxlan", "source tunnel"),
    ("node-b", "ingress", "eth0", WIRE, "vxlan", "target tunnel"),
    ("node-b", "ingress", "{tunnel}", "", "forward", "target tunnel"),
    ("node-b", "egress", "{db}", "", "forward", "target veth"),
]


@pytest.mark.parametrize(
    ("node", "hook", "device", "condition", "of", "stage", "family"), exhaustive.matrix(2, AT_DEVICES, (4, 6))
)
async def test_a_rule_at_a_device_is_named_and_neither_the_network_nor_the_pod(
    shared: Lab, hosts: Hosts, node: str, hook: str, device: str, condition: str, of: str, stage: str, family: int
) -> None:
    if shutil.which("nft") is None:
        pytest.skip("this machine has no nft")
    pods = {pod["name"].removeprefix("shop/"): pod["interface"] for pod in shared.status()["pods"]}
    device = device.format(**pods, tunnel="vxlan.calico" if family == 4 else "vxlan-v6.calico")
    condition = condition or f"{'ip' if family == 4 else 'ip6'} daddr {address(shared, 'shop/db', family)}"
    chain = f"chain wall {{ type filter hook {hook} device {device} priority 0; {condition} counter drop\n}}"
    done = shared.exec(node, "nft", "-f", "-", input=f"table netdev hardening {{ {chain}\n}}\n")
    assert done.returncode == 0, done.stderr
    diagnosis = await answer(shared, family)
    assert named(diagnosis) == [(f"host_firewall_drops_{of}", node, stage)], diagnosis.summary
    assert f"{condition} counter drop" in diagnosis.causes[0].text and f" by {device}" in diagnosis.causes[0].text


TAKING = [
    ("node-b", "-A FORWARD -p tcp -j NFQUEUE --queue-num 9", "forward", "target node"),
    ("node-b", "-t raw -A PREROUTING -p tcp --dport 5432 -j NFQUEUE --queue-num 9", "forward", "target node"),
    ("node-b", "-A INPUT -p udp --dport 4789 -j NFQUEUE --queue-num 9", "vxlan", "target tunnel"),
]


@pytest.mark.parametrize(("family", "node", "line", "of", "stage"), exhaustive.matrix(2, (4, 6), TAKING))
async def test_a_rule_that_hands_packets_to_a_program_which_is_gone_is_named(
    shared: Lab, hosts: Hosts, family: int, node: str, line: str, of: str, stage: str
) -> None:
    tool = TOOLS[family][0]
    hosts.write(node, tool, f"{line} --queue-bypass")  # which lets them pass where no program is
    assert (await answer(shared, family)).verdict == "healthy"
    hosts.clear()
    hosts.write(node, tool, line)
    diagnosis = await answer(shared, family)
    assert named(diagnosis) == [(f"host_firewall_drops_{of}", node, stage)], diagnosis.summary
    assert "NFQUEUE --queue-num 9. It hands them to a program" in diagnosis.causes[0].text


@pytest.mark.parametrize(
    ("node", "device", "condition", "to", "of"),
    [
        ("node-a", "{cart}", "ip daddr {db}", "eth0", "forward"),
        ("node-b", "eth0", "udp dport 4789", "lo", "vxlan"),
    ],
)
async def test_a_rule_that_hands_packets_to_another_device_is_named(
    shared: Lab, hosts: Hosts, node: str, device: str, condition: str, to: str, of: str
) -> None:
    if shutil.which("nft") is None:
        pytest.skip("this machine has no nft")
    pods = {pod["name"].removeprefix("shop/"): pod["interface"] for pod in shared.status()["pods"]}
    rule = f'{condition.format(db=address(shared, "shop/db", 4))} fwd to "{to}"'
    chain = f"chain wall {{ type filter hook ingress device {device.format(**pods)} priority 0; {rule}\n}}"
    done = shared.exec(node, "nft", "-f", "-", input=f"table netdev hardening {{ {chain}\n}}\n")
    assert done.returncode == 0, done.stderr
    diagnosis = await answer(shared, 4)
    assert [(one.rule, one.node) for one in diagnosis.causes] == [(f"host_firewall_drops_{of}", node)]
    assert f"{rule}. It takes them off their way" in diagnosis.causes[0].text


async def test_a_mark_that_has_the_node_take_packets_for_its_own_is_named(shared: Lab, hosts: Hosts) -> None:
    hosts.write("node-a", "iptables-nft", "-t mangle -A PREROUTING -p tcp --dport 5432 -j MARK --set-mark 0x200")
    words = ("rule", "add", "fwmark", "0x200/0xf00", "lookup", "2004", "pref", "9")
    try:
        for one in (words, ("route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "2004")):
            assert shared.exec("node-a", "ip", *one).returncode == 0
        diagnosis = await answer(shared, 4)
        assert named(diagnosis) == [("routing_mark_diverts", "node-a", "source node")], diagnosis.summary
        assert "lookup 2004" in diagnosis.causes[0].text
    finally:
        shared.exec("node-a", "ip", "rule", "del", "pref", "9")
        shared.exec("node-a", "ip", "route", "flush", "table", "2004")


async def test_who_filters_what_nodes_and_pods_ask_for_macs_by_is_no_dead_network(shared: Lab, hosts: Hosts) -> None:
    hosts.write("node-a", "ip6tables-nft", "-A INPUT -i cali+ -p icmpv6 -j DROP")
    assert shared.exec("shop/cart", "ip", "-6", "neigh", "flush", "dev", "eth0").returncode == 0
    diagnosis = await answer(shared, 6)
    for _ in range(4):  # what is forgotten while nobody asks is no silence
        diagnosis = diagnosis if diagnosis.causes else await answer(shared, 6)
    assert named(diagnosis) == [("pod_gateway_silent", "node-a", "source veth")], diagnosis.summary
    hosts.clear()
    mac = shared.exec("node-a", "ip", "-br", "link", "show", "eth0").stdout.split()[2]
    fixed = "neigh", "replace", "172.30.0.11", "lladdr", mac, "dev", "eth0", "nud", "permanent"
    try:
        for place, *words in (
            ("node-b", "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=8"),
            ("node-b", "ip", *fixed),  # by its own questions node-a would learn its MAC
            ("node-a", "ip", "neigh", "flush", "dev", "eth0"),
        ):
            assert shared.exec(place, *words).returncode == 0
        diagnosis = await answer(shared, 4)
        assert named(diagnosis) == [("underlay_neighbor_wrong", "node-a", "underlay")], diagnosis.summary
        assert "nobody answers" in diagnosis.causes[0].text and "arp_ignore" in diagnosis.causes[0].remedy
    finally:
        shared.exec("node-b", "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=0")
        shared.exec("node-b", "ip", "neigh", "del", "172.30.0.11", "dev", "eth0")


async def test_what_is_normal_of_a_node_is_seen_without_any_tool(shared: Lab, hosts: Hosts) -> None:
    diagnosis = await answer(shared, 6)
    assert (diagnosis.verdict, diagnosis.blind) == ("healthy", ())
    walls = [one for one in diagnosis.facts if isinstance(one, CalicoFirewall)]
    assert {(one.node, one.family, one.entered) for one in walls} == {
        ("node-a", 6, ("nftables",)),
        ("node-b", 6, ("nftables",)),
    }
    assert all(one.from_pods == one.to_pods == 2 and one.vxlan_peers > 0 for one in walls)
    tables = [one for one in diagnosis.facts if isinstance(one, ConnectionTable)]
    assert {one.node for one in tables} == {"node-a", "node-b"}
    assert all(0 <= one.count < one.limit for one in tables)


NAT = [
    ("node-a", "-A POSTROUTING -s {source} -j MASQUERADE", " on to shop/db under "),
    ("node-a", "-A PREROUTING -d {target} -p tcp -j DNAT --to-destination {source}", " instead of shop/db"),
    ("node-b", "-A PREROUTING -p tcp --dport 5432 -j REDIRECT --to-ports 15001", " 15001 instead of shop/db"),
]


@pytest.mark.parametrize(("tool", "family", "node", "line", "said"), by_tools(NAT))
async def test_who_gives_pods_packets_other_addresses_is_named_and_nobody_is_said_to_lose_them(
    shared: Lab, hosts: Hosts, tool: str, family: int, node: str, line: str, said: str
) -> None:
    source, target = (address(shared, name, family) for name in ("shop/cart", "shop/db"))
    hosts.write(node, tool, "-t nat -N MASQ-AGENT", "-t nat -A MASQ-AGENT -j RETURN")
    hosts.write(node, tool, f"-t nat {line.format(source=source, target=target)}")
    if "MASQUERADE" in line:  # by itself that harms nobody
        assert (await answer(shared, family)).verdict == "healthy"
        hosts.write("node-b", tool, f"-A FORWARD ! -s {source} -d {target} -j DROP")
    diagnosis = await answer(shared, family)
    end = "source" if node == "node-a" else "target"
    assert named(diagnosis) == [("nat_between_pods", node, f"{end} node")], diagnosis.summary
    assert said in diagnosis.causes[0].text and f"{tool.replace('6', '')}): -A " in diagnosis.causes[0].text
    assert not any(leg.lost for leg in diagnosis.path)


WITHIN = [
    ("shop/db", "-A INPUT -p tcp --dport 5432 -j DROP", "inside shop/db a rule drops tcp 5432 from", "forward"),
    ("shop/db", "-A INPUT -p tcp -j REJECT", "inside shop/db a rule refuses tcp 5432 from", "forward"),
    ("shop/cart", "-A OUTPUT -p tcp -j DROP", "inside shop/cart a rule drops tcp 5432 from", "forward"),
    ("shop/cart", "-A INPUT -p tcp -j DROP", "inside shop/cart a rule drops the answers of shop/db", "reverse"),
]


@pytest.mark.parametrize(("family", "pod", "line", "said", "leg"), exhaustive.matrix(2, (4, 6), WITHIN))
async def test_a_rule_inside_a_pod_is_named_and_not_the_server(
    shared: Lab, hosts: Hosts, family: int, pod: str, line: str, said: str, leg: str
) -> None:
    hosts.write(pod, TOOLS[family][0], line)
    diagnosis = await answer(shared, family)
    (cause,) = diagnosis.causes
    assert (cause.rule, cause.leg) == ("pod_firewall_drops", leg), diagnosis.summary
    assert cause.stage == ("source pod" if "OUTPUT" in line else "target pod")  # of the leg
    assert cause.text.startswith(said) and ", iptables-nft): -A " in cause.text


@pytest.mark.parametrize(("pod", "hook"), [("shop/db", "ingress"), ("shop/cart", "egress")])
async def test_a_rule_at_the_device_inside_a_pod_is_named_too(shared: Lab, hosts: Hosts, pod: str, hook: str) -> None:
    if shutil.which("nft") is None:
        pytest.skip("this machine has no nft")
    chain = f"chain wall {{ type filter hook {hook} device eth0 priority 0; tcp dport 5432 drop\n}}"
    done = shared.exec(pod, "nft", "-f", "-", input=f"table netdev hardening {{ {chain}\n}}\n")
    assert done.returncode == 0, done.stderr
    diagnosis = await answer(shared, 4)
    (cause,) = diagnosis.causes
    assert (cause.rule, cause.stage) == ("pod_firewall_drops", "target pod" if hook == "ingress" else "source pod")
    assert "tcp dport 5432 drop" in cause.text and " by eth0" in cause.text


async def test_what_only_counts_inside_a_pod_is_named_too(shared: Lab, hosts: Hosts) -> None:
    hosts.write("shop/db", "iptables-legacy", "-A INPUT -p tcp --dport 5432 -j DROP", "-A INPUT -p udp -j DROP")
    diagnosis = await answer(shared, 4)
    assert [cause.rule for cause in diagnosis.causes] == ["pod_firewall_drops"]
    assert "Only rule 1 of chain INPUT" in diagnosis.causes[0].text


@pytest.mark.parametrize("node", ["node-a", "node-b"])
async def test_who_refuses_on_the_way_is_not_taken_for_the_pod(shared: Lab, hosts: Hosts, node: str) -> None:
    """Nothing listens on that port, and the packets do not come so far as to be told."""
    hosts.write(node, "iptables-nft", "-A FORWARD -p tcp --dport 81 -j REJECT --reject-with tcp-reset")
    diagnosis = await answer(shared, 4, "shop/cart shop/db 81/tcp")
    assert [cause.rule for cause in diagnosis.causes] == ["host_firewall_drops_forward"], diagnosis.summary
