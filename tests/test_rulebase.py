"""What a rule author may rely on; without it the engine's quirks would come back through the one door."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import engine
from engine import rulebase
from engine.rule import CauseRule, Deduction, Pattern, Ref, Rule, Text, cause, derive, say, some, the
from engine.rulebase import EngineFault, Rulebase, fnv1a_32
from facts import Checked, Fact, FdbEntry, Leg, Link, LinkAddresses, Neighbor, Sysctl

MAC = "66:00:00:00:00:02"


def neighbor(node: str = "node-a", address: str = "10.244.2.0", mac: str = MAC, **more: Any) -> Neighbor:
    return Neighbor(node=node, device="vxlan.calico", address=address, found=True, mac=mac, **more)


def fdb(node: str = "node-a", mac: str = MAC, peer: str = "172.30.0.12") -> FdbEntry:
    return FdbEntry(node=node, device="vxlan.calico", mac=mac, found=True, peer=peer)


def leg(direction: str = "forward", **more: Any) -> Leg:
    texts = [field.name for field in msgspec.structs.fields(Leg) if field.required]
    values = dict.fromkeys(texts, "")
    ends = {"source_node": "node-a", "target_node": "node-b", "target_tunnel_address": "10.244.2.0"}
    if direction == "reverse":
        ends = {"source_node": "node-b", "target_node": "node-a", "target_tunnel_address": "10.244.1.0"}
    return Leg(**values | ends | {"direction": direction, "encapsulation": "vxlan", "target_tunnel_mac": MAC} | more)


@cause(
    title="Wrong MAC",
    severity="breaks",
    remedy="replace it",
    at=the.leg.source_node,
    leg=some(Leg, encapsulation="vxlan"),
    seen=some(Neighbor, node=the.leg.source_node, address=the.leg.target_tunnel_address, found=True),
)
def wrong_mac(leg: Leg, seen: Neighbor) -> Text | None:
    if seen.mac == leg.target_tunnel_mac:
        return None
    return say("{mac} is not {expected}", mac=seen.mac, expected=leg.target_tunnel_mac)


@derive(seen=some(Neighbor), entry=some(FdbEntry, node=the.seen.node, mac=the.seen.mac))
def peer_of(seen: Neighbor, entry: FdbEntry) -> Iterator[Sysctl]:
    yield Sysctl(node=seen.node, name=seen.address, found=True, value=entry.peer)


def always(name: str = "always", /, **patterns: Pattern) -> CauseRule:
    return CauseRule(name, "", tuple(patterns.items()), lambda **matched: say("so it is"))


def matches(rule: Rule, *facts: Fact) -> list[tuple[str, ...]]:
    return [found.evidence for found in Rulebase([rule]).evaluate(facts).causes]


# --- finding rules --------------------------------------------------------------------------------------------------


def module(name: str, *rules: Rule) -> ModuleType:
    made = ModuleType(name)
    for number, rule in enumerate(rules):
        setattr(made, f"anything{number}", rule)
    return made


def test_every_file_of_rules_and_deductions_is_loaded() -> None:
    base = rulebase.load()
    home = Path(engine.__path__[0])
    for folder, kind in (("rules", CauseRule), ("deductions", Deduction)):
        files = {path.stem for path in (home / folder).glob("*.py")} - {"__init__"}
        assert {rule.name for rule in base.rules if isinstance(rule, kind)} == files
    assert rulebase.load() is base


def test_a_file_holds_one_rule_of_its_own_name_and_sort() -> None:
    assert rulebase.rule_of(module("engine.rules.wrong_mac", wrong_mac), CauseRule) is wrong_mac
    for wrong in (
        module("engine.rules.wrong_mac"),
        module("engine.rules.other_name", wrong_mac),
        module("engine.rules.wrong_mac", wrong_mac, always("another", seen=some(Neighbor))),
        module("engine.rules.peer_of", peer_of),
    ):
        with pytest.raises(TypeError, match=f"{wrong.__name__} must hold exactly one CauseRule"):
            rulebase.rule_of(wrong, CauseRule)


def test_a_rule_the_engine_cannot_bear_is_refused_by_name() -> None:
    many = {f"c{number}": some(Neighbor) for number in range(15)}
    with pytest.raises(TypeError, match="long has 15 conditions"):
        Rulebase([always("long", **many)])
    with pytest.raises(TypeError, match="empty has 0 conditions"):
        Rulebase([always("empty")])
    wide = Pattern(Neighbor, tuple(("mac", Ref("first", "mac")) for _ in range(27)))
    with pytest.raises(TypeError, match="wide: second has 27 joins"):
        Rulebase([always("wide", first=some(Neighbor), second=wide)])
    with pytest.raises(TypeError, match=r"tuples compares LinkAddresses\.addresses"):
        Rulebase([always("tuples", seen=some(LinkAddresses, addresses="10.0.0.1/24"))])
    with pytest.raises(TypeError, match="two rules are called same"):
        Rulebase([always("same", seen=some(Neighbor)), always("same", seen=some(FdbEntry))])


def test_the_longest_rule_and_the_widest_condition_work() -> None:
    many = {f"c{number}": some(Neighbor, mac=Ref(f"c{number - 1}", "mac") if number else MAC) for number in range(14)}
    assert matches(always(**many), neighbor()) == [(neighbor().id,) * 14]
    wide = Pattern(Neighbor, tuple(("mac", Ref("first", "mac")) for _ in range(26)))
    assert len(matches(always(first=some(Neighbor), second=wide), neighbor(), neighbor(mac="other"))) == 2


# --- what matches ---------------------------------------------------------------------------------------------------


def test_constants_and_joins() -> None:
    rule = always(seen=some(Neighbor, found=True), entry=some(FdbEntry, node=the.seen.node, mac=the.seen.mac))
    facts = [neighbor(), neighbor("node-b"), fdb(), fdb("node-c"), fdb(mac="other")]
    assert matches(rule, *facts) == [(neighbor().id, fdb().id)]


def test_unknown_joins_nothing_not_even_itself() -> None:
    by_mac = always(seen=some(Neighbor), entry=some(FdbEntry, mac=the.seen.mac))
    assert matches(by_mac, neighbor(mac=""), fdb(mac="")) == []
    same = always(one=some(Neighbor), other=some(Neighbor, mac=the.one.mac))
    assert matches(same, neighbor(mac="")) == []
    by_size = always(one=some(Link), other=some(Link, mtu=the.one.mtu))
    assert len(matches(by_size, Link(node="node-a", device="eth0", found=True, mtu=-1))) == 0
    assert len(matches(by_size, Link(node="node-a", device="eth0", found=True, mtu=1450))) == 1


def test_a_condition_may_ask_for_the_empty_text() -> None:
    assert len(matches(always(seen=some(Neighbor, mac="")), neighbor(mac=""), neighbor())) == 1


def test_one_fact_may_stand_in_two_conditions() -> None:
    """Both ends of a flow can be on one node."""
    rule = always(one=some(Neighbor), other=some(Neighbor, node=the.one.node))
    assert matches(rule, neighbor()) == [(neighbor().id, neighbor().id)]


def test_equal_facts_are_one() -> None:
    assert len(matches(always(seen=some(Neighbor)), neighbor(), neighbor())) == 1


@pytest.mark.parametrize("text", ['"', "\\", "a\nb", "a\0b", "{}", "$m", "fe80::1%eth0", "ü", "true", "1", "t0"])
def test_any_text_equals_itself_only(text: str) -> None:
    rule = always(seen=some(Neighbor, address=text), entry=some(FdbEntry, mac=the.seen.mac))
    facts = [neighbor(address=text, mac=text), neighbor(), fdb(mac=text), fdb()]
    assert matches(rule, *facts) == [(facts[0].id, facts[2].id)]


def test_long_texts_of_equal_length_are_not_equal() -> None:
    """The engine keeps lengths in 16 bits; it never sees the text."""
    rule = always(seen=some(Neighbor), entry=some(FdbEntry, mac=the.seen.mac))
    long = 65_536
    assert len(matches(rule, neighbor(mac="a" * long), fdb(mac="b" * long), fdb(mac="a" * long))) == 1


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_match_becomes_a_cause_or_a_check() -> None:
    base = Rulebase([wrong_mac])
    wrong, right = neighbor(mac="aa"), neighbor("node-b", "10.244.1.0")
    result = base.evaluate([leg(), leg("reverse"), wrong, right])
    (found,) = result.causes
    assert (found.rule, found.node, found.leg, found.evidence) == (
        "wrong_mac",
        "node-a",
        "forward",
        (leg().id, wrong.id),
    )
    assert result.checked == (Checked(rule="wrong_mac", node="node-b", leg="reverse"),)
    assert (result.unjudged, result.blind) == ((), ())


def test_a_rule_that_accuses_has_not_found_all_well() -> None:
    result = Rulebase([wrong_mac]).evaluate([leg(), neighbor(mac="aa"), neighbor(state="STALE")])
    assert (len(result.causes), result.checked, result.unjudged) == (1, (), ())


def test_an_anchored_rule_without_its_facts_is_unjudged() -> None:
    result = Rulebase([wrong_mac, peer_of]).evaluate([leg(), leg("reverse"), neighbor()])
    assert result.unjudged == ((wrong_mac, leg("reverse")),)
    assert Rulebase([wrong_mac]).evaluate([leg(encapsulation="local")]).unjudged == ()  # none of its business
    nowhere = leg(target_tunnel_address="")
    assert Rulebase([wrong_mac]).evaluate([nowhere, neighbor(address="")]).unjudged == ((wrong_mac, nowhere),)


def test_deductions_chain_and_leave_proofs() -> None:
    @derive(peer=some(Sysctl, value="172.30.0.12"))
    def again(peer: Sysctl) -> list[Neighbor]:
        return [neighbor(peer.node, "again")]

    result = Rulebase([peer_of, again]).evaluate([neighbor(), fdb()])
    observed = sorted([neighbor(), fdb()], key=lambda fact: fact.id)
    first = Sysctl(node="node-a", name="10.244.2.0", found=True, value="172.30.0.12")
    second = neighbor("node-a", "again")
    third = Sysctl(node="node-a", name="again", found=True, value="172.30.0.12")
    assert result.facts == (*observed, first, second, third)
    assert result.proofs == {
        first.id: ("peer_of", (neighbor().id, fdb().id)),
        second.id: ("again", (first.id,)),
        third.id: ("peer_of", (second.id, fdb().id)),
    }
    assert first.id not in Rulebase([peer_of]).evaluate([neighbor(), fdb(), first]).proofs  # seen, not deduced


def test_a_deduction_may_return_one_fact_or_none() -> None:
    @derive(seen=some(Neighbor))
    def one(seen: Neighbor) -> Fact | None:
        return fdb(seen.node, seen.mac) if seen.mac else None

    assert Rulebase([one]).evaluate([neighbor(), neighbor(mac="")]).facts[2:] == (fdb(),)


def test_the_order_of_facts_changes_nothing() -> None:
    base = Rulebase([wrong_mac, peer_of, always(seen=some(Neighbor), peer=some(Sysctl, node=the.seen.node))])
    facts = [
        leg(),
        leg("reverse"),
        *(neighbor(mac=f"m{i}") for i in range(5)),
        *(fdb("node-a", f"m{i}", f"p{i}") for i in range(5)),
    ]
    expected = base.evaluate(facts)
    assert len(expected.causes) == 5 + 25
    for seed in range(20):
        shuffled = random.Random(seed).sample(facts, len(facts))
        again = base.evaluate(shuffled)
        assert again == expected
        assert list(again.proofs.items()) == list(expected.proofs.items())


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_sentence_that_cannot_be_said_in_another_language_is_refused() -> None:
    hard_coded = CauseRule("hard_coded", "", (("leg", some(Leg)),), lambda leg: f"{leg.source} is broken")
    with pytest.raises(TypeError, match="hard_coded: what a body returns is made by say"):
        hard_coded.judge({"leg": leg()}, ())


def test_a_failing_rule_is_told_and_the_others_go_on() -> None:
    @cause(title="t", severity="breaks", remedy="r", at=the.leg.source_node, leg=some(Leg), seen=some(Neighbor))
    def fails_on_one(leg: Leg, seen: Neighbor) -> Text | None:
        return None if seen.mac == MAC else say("{last}", last=seen.mac[99])

    @derive(seen=some(Neighbor))
    def yields_no_fact(seen: Neighbor) -> list[Any]:
        return ["no fact"]

    result = Rulebase([fails_on_one, yields_no_fact, wrong_mac]).evaluate([leg(), neighbor(), neighbor(mac="aa")])
    assert [(blind.look, blind.reason) for blind in result.blind] == [
        ("fails_on_one", "the rule itself failed: IndexError: string index out of range"),
        ("yields_no_fact", "the rule itself failed: TypeError: it yields 'no fact', which is no fact"),
    ]
    assert result.unjudged == ((fails_on_one, leg()),)
    assert [found.rule for found in result.causes] == ["wrong_mac"]
    assert result.checked == ()  # what fails_on_one found well on this leg does not count


def test_an_engine_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("error code: 311")

    base = Rulebase([wrong_mac])
    monkeypatch.setattr(rulebase.Ruleset, "put", broken)
    with pytest.raises(EngineFault, match=r"the rule engine failed: RuntimeError: error code: 311"):
        base.evaluate([leg()])


def test_a_match_the_engine_tells_in_other_words_is_no_answer() -> None:
    base = Rulebase([always(seen=some(Neighbor))])
    base.chunks[0].definitions[0]["all"][0]["other"] = base.chunks[0].definitions[0]["all"][0].pop("p0")
    with pytest.raises(EngineFault, match="the rule engine failed: KeyError: 'p0'"):
        base.evaluate([neighbor()])


def test_a_match_that_is_none_is_no_answer() -> None:
    with pytest.raises(EngineFault, match=r"matched wrong_mac with neighbor-\w+ as seen, which it is not"):
        rulebase.verify(wrong_mac, [leg(), neighbor("node-b")])
    with pytest.raises(EngineFault, match="as leg"):
        rulebase.verify(wrong_mac, [leg(encapsulation="direct"), neighbor()])
    with pytest.raises(EngineFault, match="as seen"):
        rulebase.verify(wrong_mac, [leg(), fdb()])
    rulebase.verify(wrong_mac, [leg(), neighbor()])


def test_deductions_without_end_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    @derive(seen=some(Neighbor))
    def more(seen: Neighbor) -> list[Fact]:
        return [neighbor(address=f"{seen.address}+")]

    monkeypatch.setattr(rulebase, "MOST_FACTS", 50)
    with pytest.raises(EngineFault, match="more than 50 facts"):
        Rulebase([more]).evaluate([neighbor()])


def test_too_many_matches_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebase, "MOST_MATCHES", 50)
    with pytest.raises(EngineFault, match="more than 50 matches"):
        matches(always(one=some(Neighbor), other=some(Neighbor)), *(neighbor(mac=f"m{i}") for i in range(8)))


# --- the engine's ceilings ------------------------------------------------------------------------------------------


def sharing(count: int) -> list[Rule]:
    return [always(f"r{number:03d}", seen=some(Neighbor, found=True)) for number in range(count)]


def joining(count: int) -> list[Rule]:
    entry = some(FdbEntry, found=True, node=the.seen.node, mac=the.seen.mac)
    return [always(f"r{number:03d}", seen=some(Neighbor, mac=MAC), entry=entry) for number in range(count)]


def siblings(count: int) -> list[Rule]:
    return [always(f"r{number:03d}", seen=some(Neighbor, address=f"10.0.0.{number}")) for number in range(count)]


@pytest.mark.parametrize(("rules", "count", "chunks"), [(sharing, 450, 3), (joining, 170, 3), (siblings, 900, 3)])
def test_more_rules_than_one_ruleset_bears_are_spread(rules: Any, count: int, chunks: int) -> None:
    base = Rulebase(rules(count))
    assert len(base.chunks) == chunks
    facts = [neighbor(address=f"10.0.0.{number}") for number in range(count)] if rules is siblings else [neighbor()]
    found = base.evaluate([*facts, fdb()]).causes
    assert [cause.rule for cause in found] == [rule.name for rule in base.rules]


def test_derived_facts_reach_every_ruleset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulebase, "MOST_SHARING", 1)
    seen = some(Sysctl, value="172.30.0.12")
    base = Rulebase([always("z1", seen=seen), always("z2", seen=seen), peer_of])
    assert len(base.chunks) == 2
    assert [found.rule for found in base.evaluate([neighbor(), fdb()]).causes] == ["z1", "z2"]


def test_the_engine_bears_what_we_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, another engine has other limits than MOST_PENDING was chosen for.

    The other two ceilings cannot be tried: one above them, the engine writes past the end of a list, or hangs.
    """
    monkeypatch.setattr(rulebase, "MOST_PENDING", 10_000)
    assert len(Rulebase(joining(64)).evaluate([neighbor(), fdb()]).causes) == 64
    with pytest.raises(EngineFault, match="error code: 303"):
        Rulebase(joining(65)).evaluate([neighbor(), fdb()])


def test_ids_and_attributes_are_told_apart_by_a_hash_we_know() -> None:
    """`costarring` and `liquid` have one FNV-1a-32 hash: for the engine they are one fact. Our ids never do that."""
    assert fnv1a_32("costarring") == fnv1a_32("liquid")
    ruleset = rulebase.Ruleset({"a": {"all": [{"p0": {"kind": "k"}}]}})
    assert [rule for rule, _ in ruleset.put('{"id":"costarring","kind":"k"}')] == ["a"]
    with pytest.raises(EngineFault, match="takes liquid for a fact it had before"):
        list(ruleset.put('{"id":"liquid","kind":"k"}'))
    ruleset.delete_state()
    with pytest.raises(TypeError, match="cannot tell costarring from liquid"):
        rulebase._refuse_equal_hashes(["liquid", "kind", "costarring"])
    ids = [f"f{number}" for number in range(rulebase.MOST_FACTS)] + [rulebase.WARM_UP["id"], "sid-0"]
    assert len({fnv1a_32(one) for one in ids}) == len(ids)


def test_threads_share_a_rulebase_and_none_is_left() -> None:
    base = Rulebase([wrong_mac, peer_of])
    facts = [leg(), leg("reverse"), neighbor(mac="aa"), fdb(mac="aa"), neighbor("node-b", "10.244.1.0")]
    expected, before = base.evaluate(facts), threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(base.evaluate, [facts] * 100))
    assert threading.active_count() == before
