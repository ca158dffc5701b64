"""A failure mode is three files of one name: a rule that finds it, a wound that makes it, a case that shows it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from pkgutil import iter_modules

import engine.rules
import fixes.kinds
import lab.faults
from engine import rulebase
from engine.rule import CauseRule

CASES = Path(__file__).parent / "cases"
FIRST = {
    "pool_exhausted", "vxlan_device_missing", "vxlan_device_down", "vxlan_device_mac_wrong",
    "vxlan_device_address_wrong", "tunnel_address_missing", "tunnel_address_not_owned", "route_missing",
    "route_wrong_next_hop", "route_blackholed", "pod_route_missing", "neighbor_missing", "neighbor_wrong_mac",
    "fdb_entry_missing", "fdb_entry_wrong_node", "pod_interface_down", "ip_forwarding_off", "target_not_listening",
    "pod_not_running",
}  # fmt: skip


def modules_of(package: object) -> set[str]:
    return {module.name for module in iter_modules(package.__path__)}  # type: ignore[attr-defined]


def test_rules_faults_and_cases_have_the_same_names() -> None:
    rules = {rule.name for rule in rulebase.load().rules if isinstance(rule, CauseRule)}
    assert rules == modules_of(engine.rules)
    assert modules_of(lab.faults) == rules
    assert {path.stem for path in CASES.glob("*.json")} == rules
    assert rules >= FIRST


def test_every_rule_tells_a_person_what_to_do() -> None:
    kinds = modules_of(fixes.kinds)
    for rule in rulebase.load().rules:
        if isinstance(rule, CauseRule):
            assert rule.title and rule.remedy and rule.doc, rule.name
            assert not rule.fix or rule.fix in kinds, f"{rule.name} names the fix {rule.fix!r}, which does not exist"


def test_every_fault_says_what_it_does() -> None:
    for name in modules_of(lab.faults):
        assert importlib.import_module(f"lab.faults.{name}").__doc__, name


def test_after_names_failure_modes_of_the_catalogue() -> None:
    """A misspelt `after` would let an echo be told as a cause."""
    known = {rule.name for rule in rulebase.load().rules}
    for rule in rulebase.load().rules:
        if isinstance(rule, CauseRule):
            assert set(rule.after) | set(rule.after_peer) <= known, rule.name


def test_the_readme_and_the_changelog_count_the_failure_modes_right() -> None:
    for page in ("README.md", "CHANGELOG.md"):
        counts = re.findall(r"(\d+) failure modes", (Path(__file__).parents[1] / page).read_text())
        assert counts == [str(len(modules_of(engine.rules)))], page
