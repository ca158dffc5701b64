"""The contract of `-o json`: what is printed is what the schema promises, and the documentation's example too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bot.reply import json as contract
from tests import answers

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "bot/reply/schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("make", [answers.wrong_mac, answers.well, answers.unseen, answers.no_engine])
def test_every_verdict_fulfils_the_contract(make: Any) -> None:
    document = json.loads(contract.render(make()))
    VALIDATOR.validate(document)
    undeclared(document, SCHEMA)


def undeclared(value: Any, schema: dict[str, Any], at: str = "") -> None:
    """Fails on a field the schema does not describe: it would be a promise nobody wrote down."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    if isinstance(value, dict) and "properties" in schema:
        assert set(value) <= set(schema["properties"]), at
        for name, item in value.items():
            undeclared(item, schema["properties"][name], f"{at}/{name}")
    if isinstance(value, list):
        for item in value:
            undeclared(item, schema["items"], at)


def test_what_the_contract_says_of_a_cause() -> None:
    document = json.loads(contract.render(answers.wrong_mac()))
    (cause,) = document["causes"]
    facts = {fact["id"]: fact for fact in document["facts"]}
    assert document["verdict"] == "cause"
    assert (cause["rule"], cause["node"], cause["leg"]) == ("neighbor_wrong_mac", "node-a", "forward")
    evidence = {facts[one]["kind"]: facts[one]["fields"] for one in cause["evidence"]}
    assert evidence["Neighbor"]["mac"] == answers.WRONG_MAC
    assert document["question"] == {
        "asked": "shop/cart shop/db 5432/tcp",
        "asked_by": "U0ANA",
        "source": "shop/cart",
        "target": "shop/db",
        "protocol": "tcp",
        "port": 5432,
    }
    forward = next(leg for leg in document["path"] if leg["direction"] == "forward")
    assert (forward["last_good"], forward["first_bad"]) == ("source node", "source tunnel")


def test_without_an_engine_the_words_are_the_question() -> None:
    question = json.loads(contract.render(answers.no_engine()))["question"]
    assert (question["source"], question["target"], question["port"]) == ("shop/cart", "shop/db", 5432)


def test_the_schema_refuses_what_is_not_the_contract() -> None:
    document = json.loads(contract.render(answers.wrong_mac()))
    for broken in (
        {**document, "version": 2},
        {**document, "verdict": "maybe"},
        {key: value for key, value in document.items() if key != "blind"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(broken)


def test_the_documented_example_is_true() -> None:
    text = (ROOT / "docs/json.md").read_text()
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found, "docs/json.md has no example"
    example = json.loads(found[1])
    VALIDATOR.validate(example)
    undeclared(example, SCHEMA)
    real = json.loads(contract.render(answers.wrong_mac()))
    assert set(example) == set(real)
    assert {one["rule"] for one in example["causes"]} == {one["rule"] for one in real["causes"]}
    assert set(example["causes"][0]["evidence"]) == {fact["id"] for fact in example["facts"]}
