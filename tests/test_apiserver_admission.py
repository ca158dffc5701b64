"""The lab's admission policies: what denies a write, whom it asks about, and what is refused instead of passed over."""

from __future__ import annotations

from typing import Any

import pytest

from lab.apiserver import ApiError, Object, Store, User, admission
from lab.apiserver.admission import Write, admit

POLICY, BINDING = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
EVE = User("eve", groups=("people",), denied=frozenset({("bless", "example.org", "widgets")}), grants=None)
RULE: Object = {
    "apiGroups": [""],
    "apiVersions": ["*"],
    "operations": ["CREATE", "UPDATE"],
    "resources": ["configmaps"],
}


def policy(*expressions: str, **spec: Any) -> Store:
    """A store with this policy, bound."""
    store = Store()
    validations = [{"expression": one, "message": "no", "reason": "Forbidden"} for one in expressions]
    told: Object = {"matchConstraints": {"resourceRules": [RULE]}, "validations": validations, **spec}
    store.create({"metadata": {"name": "p"}, "spec": told}, POLICY)
    store.create({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}, BINDING)
    return store


def write(store: Store, user: User = EVE, operation: str = "CREATE", resource: str = "configmaps", **obj: Any) -> str:
    """What the policy said against it, "" where nothing."""
    old = {"data": {"a": "0"}} if operation == "UPDATE" else None
    try:
        admit(store, user, Write(operation, store.resource(resource), "", "default", "c", obj, old))
    except ApiError as error:
        return f"{error.status} {error.message}"
    return ""


@pytest.mark.parametrize(
    ("expression", "denied"),
    [
        ("request.userInfo.username == 'eve' && 'people' in request.userInfo.groups", False),
        ("has(request.userInfo.extra)", True),
        ("object.data.a == '1' && oldObject == null && request.operation == 'CREATE'", False),
        ("authorizer.group('example.org').resource('widgets').namespace('x').check('bless').allowed()", True),
        ("authorizer.group('example.org').resource('widgets').check('praise').allowed()", False),
        ("authorizer.group('example.org').check('praise').allowed()", True),
        ("authorizer.allowed()", True),
        ("{'a': 1, 'b': [2]} == {'a': 1, 'b': [2]} && !has({}.a)", False),
        ("object.nothing == 1", True),
        ("'not a bool'", True),
        ("variables.doubled == '11' && !has(variables.broken)", False),
        ("variables.broken", True),
    ],
)
def test_a_validation_that_does_not_hold_denies(expression: str, denied: bool) -> None:
    variables = [
        {"name": "doubled", "expression": "object.data.a + object.data.a"},
        {"name": "broken", "expression": "object.nothing"},
    ]
    said = write(policy(expression, variables=variables), data={"a": "1"})
    assert bool(said) is denied, said
    if denied:
        assert said.startswith(
            "403 configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied"
        )


def test_what_no_rule_or_binding_or_condition_names_is_let_through() -> None:
    store = policy("false")
    assert write(store)
    assert write(store, operation="UPDATE")
    assert not write(store, operation="DELETE")
    assert not write(store, resource="secrets")
    assert not write(
        policy("false", matchConditions=[{"name": "bo", "expression": "request.userInfo.username == 'bo'"}])
    )
    assert write(policy("false", matchConditions=[{"name": "broken", "expression": "object.nothing"}]))
    assert not write(policy("object.nothing", failurePolicy="Ignore"))
    store.delete(BINDING, "b")
    assert not write(store)


@pytest.mark.parametrize(
    "spec",
    [
        {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}},
        {"matchConstraints": {"resourceRules": [RULE], "namespaceSelector": {}}},
        {"variables": [{"name": "a", "expression": "params.a"}]},
        {"matchConditions": [{"name": "a", "expression": "object.a."}]},
        {"validations": [{"expression": "object.spec.url.isURL()"}]},
    ],
)
def test_what_it_cannot_hold_anybody_to_is_refused(spec: Object) -> None:
    with pytest.raises(ApiError, match="cannot evaluate ValidatingAdmissionPolicy p"):
        policy(**spec)
    with pytest.raises(ApiError, match="cannot evaluate ValidatingAdmissionPolicyBinding"):
        admission.check(Store().resource(BINDING), {"metadata": {"name": "b"}, "spec": {"paramRef": {}}})
