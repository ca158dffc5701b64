"""The life of a fix request: no path outside the table, ends stay ends, a late or changed one goes nowhere."""

from __future__ import annotations

import itertools
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fixes.request import (
    ENDS,
    LIFETIME,
    NAME,
    TRANSITIONS,
    WAITING,
    Evidence,
    Person,
    Phase,
    Refused,
    Spec,
    Status,
    advance,
    digest,
    document,
    new_name,
    parse,
)
from tests.fix_samples import ANA, BO, NOW, a_request


@given(st.sampled_from(Phase), st.sampled_from(Phase), st.integers(-2000, 2000), st.booleans(), st.booleans())
def test_a_step_goes_where_the_table_says_or_nowhere(
    phase: Phase, to: Phase, seconds: int, tampered: bool, named: bool
) -> None:
    request = a_request(phase, **({"node": "node-b"} if tampered else {}))
    now = NOW + timedelta(seconds=seconds)
    late = seconds >= LIFETIME.total_seconds()
    try:
        after = advance(request, to, now=now, by=BO if named else None).phase
    except Refused as refused:
        assert refused.sentence.startswith("fx-abcdefgh ")
        allowed = to in TRANSITIONS[phase]
        unexpired = phase in WAITING and to is Phase.EXPIRED and not late
        nobody = to in (Phase.APPROVED, Phase.REJECTED) and not named
        assert not allowed or unexpired or nobody
        return
    assert to in TRANSITIONS[phase]
    assert after in TRANSITIONS[phase]
    if phase in WAITING:
        assert after is (Phase.EXPIRED if late else Phase.STALE if tampered else to)
    else:
        assert after is to


@given(st.lists(st.tuples(st.sampled_from(Phase), st.integers(0, 300)), max_size=20))
def test_every_life_is_a_path_through_the_table_and_ends_once(steps: list[tuple[Phase, int]]) -> None:
    request, now, walked = a_request(), NOW, [Phase.PENDING]
    for to, seconds in steps:
        now += timedelta(seconds=seconds)
        try:
            request = msgspec.structs.replace(request, status=advance(request, to, now=now, by=BO, message="m"))
        except Refused:
            continue
        walked.append(request.status.phase)
    assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(walked))
    assert sum(phase in ENDS for phase in walked) <= 1
    assert [event.phase for event in request.status.history] == walked[1:]
    if Phase.RUNNING in walked:  # nothing is ever done that nobody approved
        assert walked.index(Phase.APPROVED) == walked.index(Phase.RUNNING) - 1
        assert request.status.approved_by == BO


def test_ends_are_ends() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert {phase for phase in Phase if not TRANSITIONS[phase]} == ENDS
    for phase in ENDS:
        for to in Phase:
            with pytest.raises(Refused, match="already"):
                advance(a_request(phase), to, now=NOW, by=BO)


def test_a_deadline_nobody_can_read_is_over() -> None:
    for broken in ("", "soon", "2026-11-22T22:19:00"):  # the last one names no time zone
        assert advance(a_request(expires_at=broken), Phase.APPROVED, now=NOW, by=BO).phase is Phase.EXPIRED


def test_refusal_names_who_decided() -> None:
    request = a_request()
    approved = msgspec.structs.replace(request, status=advance(request, Phase.APPROVED, now=NOW, by=BO))
    with pytest.raises(Refused, match=r"already approved \(by U0BO at 2026-11-22T22:04:00Z\)"):
        advance(approved, Phase.REJECTED, now=NOW, by=ANA)


@given(
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.text(),
    st.text(),
)
def test_digest_is_of_the_content_and_of_all_of_it(
    arguments: dict[str, str], others: dict[str, str], node: str, other: str
) -> None:
    evidence = (Evidence(id="a", fact={"x": "1"}),)
    first = digest("replace_neighbor", node, arguments, evidence)
    assert first == digest("replace_neighbor", node, dict(reversed(arguments.items())), list(evidence))
    assert (first == digest("replace_neighbor", other, arguments, evidence)) == (node == other)
    assert (first == digest("replace_neighbor", node, others, evidence)) == (arguments == others)
    assert first != digest("replace_neighbor", node, arguments, ())
    assert first != digest("replace_neighbor", node, arguments, (Evidence(id="a", fact={"x": "2"}),))


def test_a_request_survives_the_cluster() -> None:
    request = a_request()
    status = advance(request, Phase.APPROVED, now=NOW, by=BO)
    request = msgspec.structs.replace(request, status=status, resource_version="7")
    assert parse(document(request, "calico-why")) == request
    written = document(a_request(), "calico-why")
    assert written["status"] == {"phase": "Pending"}
    del written["status"]
    assert parse(written) == a_request()


def test_names_are_random_and_fit_a_button() -> None:
    names = {new_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(NAME.fullmatch(name) for name in names)


def test_the_custom_resource_knows_every_field_and_phase() -> None:
    crd = yaml.safe_load((Path(__file__).parents[1] / "fixes" / "fixrequest.yaml").read_text())
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    assert set(schema["spec"]["properties"]) == {field.encode_name for field in msgspec.structs.fields(Spec)}
    assert set(schema["status"]["properties"]) == {field.encode_name for field in msgspec.structs.fields(Status)}
    assert schema["status"]["properties"]["phase"]["enum"] == [str(phase) for phase in Phase]
    assert schema["spec"]["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
    assert version["subresources"] == {"status": {}}
    columns = [column["name"] for column in version["additionalPrinterColumns"]]
    assert columns == ["Phase", "Kind", "Node", "Requested-by", "Approved-by", "Age"]
    people = [schema["spec"]["properties"]["requestedBy"], schema["status"]["properties"]["approvedBy"]]
    for person in people:
        assert set(person["properties"]) == {field.encode_name for field in msgspec.structs.fields(Person)}
