"""The scorecard in docs keeps its promise, asks about every pair of shapes, and notices an answer that was lost."""

from __future__ import annotations

import json
from itertools import combinations

from benchmarks.score import DOCS, GOOD, Result, Task, as_data, as_page, covering, lost, tasks
from lab.faults import families, load, names, needs, variant
from lab.variants import VARIANTS
from tests.two_wounds import MODES, Wounded

CARD = json.loads((DOCS / "scorecard.json").read_text())


def test_the_committed_card_is_what_was_promised() -> None:
    totals = CARD["totals"]
    assert totals["right at first place"] == totals["faults injected"] >= 120
    assert totals["called healthy"] == totals["healthy clusters"] >= 60
    assert totals["both named"] == totals["two faults at once"] >= 105
    assert (totals["false accusations"], totals["unknown"]) == (0, 0)
    assert {answer["state"] for answer in CARD["answers"].values()} <= {*GOOD, "not here"}


def test_every_fault_a_lab_can_have_is_on_the_card_for_both_its_sides() -> None:
    injected = [mode for mode in names() if not (needs(mode) or variant(mode)) and 4 in families(mode)]
    wanted = {f"{mode} at {where}, two nodes" for mode in injected for where in load(mode).WHERE}
    right = {key for key, answer in CARD["answers"].items() if answer["state"] == "right"}
    # The card also holds faults that a lab of another shape is meant for, under the name they have here.
    others = {f"{mode} at {where}, two nodes" for mode in names() if variant(mode) for where in load(mode).WHERE}
    assert {key for key in right if key.endswith(", two nodes")} - others == wanted


def test_every_two_variants_that_can_be_together_are_asked_about() -> None:
    packs = [set(pack.split("+")) for pack in covering(list(VARIANTS.values()))]
    for name in VARIANTS:
        assert {name} in packs
    for one, two in combinations(VARIANTS.values(), 2):
        together = any({one.name, two.name} <= pack for pack in packs)
        assert together == one.combines_with(two), (one.name, two.name)
    for pack in packs:
        assert all(VARIANTS[a].combines_with(VARIANTS[b]) for a, b in combinations(sorted(pack - {""}), 2))


def test_every_question_has_a_name_of_its_own() -> None:
    keys = [task.key for task in tasks()]
    assert len(keys) == len(set(keys))
    assert {wound.mode for task in tasks() if len(task.wounds) == 2 for wound in task.wounds} == set(MODES)


def test_a_right_answer_that_is_lost_is_noticed() -> None:
    fault = Task("", "a fault", wounds=(Wounded("route_missing", "source"),))
    new = Task("", "a new fault", wounds=(Wounded("route_missing", "target"),))
    healthy = Task("", "a healthy cluster")
    results = [
        Result(fault, "unknown", ms=1200),
        Result(new, "unknown", ms=1200),
        Result(healthy, "wrong", "shop/cart shop/db: route_missing", 1, 90),
    ]
    assert lost(results, {"a fault": {"state": "right"}}) == [results[0], results[2]]
    assert as_data(results)["totals"]["false accusations"] == 1
    assert "a fault: unknown" in as_page(results)


def test_a_flow_that_was_healthy_beside_the_wound_must_stay_so() -> None:
    result = Result(Task("", "a fault", wounds=(Wounded("path_mtu_too_small", "source"),)), "open", ms=1043)
    assert lost([result], {"a fault": {"state": "harmless"}}) == [result]
    assert lost([result], {"a fault": {"state": "open"}}) == []
