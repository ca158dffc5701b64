"""Calico's selector language against its documented meaning, and against text nobody would write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facts.selector import SelectorError, matches, parse

LABELS = {"zone": "east-1", "role": "db", "kubernetes.io/os": "linux", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("   ", True),
        ("all()", True),
        ("!all()", False),
        ("global()", False),
        ("has(zone)", True),
        ("has(rack)", False),
        ("!has(rack)", True),
        ("!!has(zone)", True),
        ("has( kubernetes.io/os )", True),
        ("zone == 'east-1'", True),
        ('zone == "east-1"', True),
        ("zone=='west'", False),
        ("zone != 'west'", True),
        ("rack != 'r1'", True),  # an absent label differs from every value
        ("rack == ''", False),
        ("empty == ''", True),
        ("role in {'db', 'web'}", True),
        ("role in {'web'}", False),
        ("role in {}", False),
        ("role in {'db',}", True),
        ("role in{'db'}", True),
        ("role notin {'db'}", False),
        ("role not in {}", True),
        ("rack in {'r1'}", False),
        ("role not in {'web'}", True),
        ("role not in {'db'}", False),
        ("rack not in {'r1'}", True),
        ("zone contains 'ast'", True),
        ("zone contains''", True),
        ('zone == "it\'s" || zone == \'say "x"\'', False),
        ("has == 'x' || all != 'x'", True),  # only with a parenthesis are these more than labels
        ("zone contains 'west'", False),
        ("rack contains ''", False),
        ("zone starts with 'east'", True),
        ("zone starts with '1'", False),
        ("zone ends with '-1'", True),
        ("rack ends with '1'", False),
        ("has(zone) && role == 'db'", True),
        ("has(zone) && role == 'web'", False),
        ("has(rack) || role == 'db'", True),
        # && binds before ||
        ("has(zone) || has(rack) && has(rack)", True),
        ("(has(zone) || has(rack)) && has(rack)", False),
        ("!(has(zone) && has(rack))", True),
        ("! has(zone) || has(role)", True),
        ("kubernetes.io/os == 'linux'", True),
    ],
)
def test_meaning(text: str, selected: bool) -> None:
    assert matches(text, LABELS) is selected


@pytest.mark.parametrize(
    "text",
    [
        "zone",
        "zone ==",
        "zone == east",
        "== 'a'",
        "zone == 'a",
        "has()",
        "has('zone')",
        "some()",
        "(has(zone)",
        "has(zone))",
        "role in {'a' 'b'}",
        "role in {,}",
        "role in {'a',,}",
        "role in 'a'",
        "role not 'a'",
        "zone starts 'a'",
        "has(a) &&",
        "has(a) & has(b)",
        "has(a) has(b)",
        "a > 'b'",
        "(" * 5000 + "has(a)" + ")" * 5000,
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(SelectorError):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    try:
        parse(text)(LABELS)
    except SelectorError as error:
        assert "not a selector" in str(error) or "nested" in str(error)


_value = st.text("abc", max_size=3)
_label = st.sampled_from(["a", "b", "c/d"])
_atoms = st.one_of(
    st.builds(lambda one: (f"has({one})", lambda labels: one in labels), _label),
    st.builds(lambda one, value: (f"{one} == '{value}'", lambda labels: labels.get(one) == value), _label, _value),
    st.builds(lambda one, value: (f'{one} != "{value}"', lambda labels: labels.get(one) != value), _label, _value),
    st.builds(
        lambda one, values: (
            f"{one} in {{{','.join(repr(v) for v in values)}}}",
            lambda labels: labels.get(one) in values if one in labels else False,
        ),
        _label,
        st.lists(_value, max_size=3),
    ),
)
_selectors = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.builds(lambda x: (f"!({x[0]})", lambda labels: not x[1](labels)), inner),
        st.builds(lambda x, y: (f"({x[0]}) && ({y[0]})", lambda labels: x[1](labels) and y[1](labels)), inner, inner),
        st.builds(lambda x, y: (f"({x[0]}) || ({y[0]})", lambda labels: x[1](labels) or y[1](labels)), inner, inner),
    ),
    max_leaves=6,
)


@given(_selectors, st.dictionaries(_label, _value))
def test_composition_means_what_python_means(pair, labels) -> None:
    text, expected = pair
    assert matches(text, labels) == bool(expected(labels))
