"""Holds writes to ValidatingAdmissionPolicies; without it what a policy denies would be known on a real cluster only.

Of a policy are known resource rules, variables, match conditions and validations; what else one asks for is refused
when it is created, and so is an expression that `cel` cannot read. Namespaces and objects are not selected.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from lab.apiserver import access, cel
from lab.apiserver.access import User
from lab.apiserver.errors import ApiError, Object, qualified
from lab.apiserver.registry import Resource

if TYPE_CHECKING:
    from lab.apiserver.store import Store

GROUP = "admissionregistration.k8s.io"
POLICIES, BINDINGS = (GROUP, "validatingadmissionpolicies"), (GROUP, "validatingadmissionpolicybindings")

_VARIABLES = frozenset({"object", "oldObject", "request", "authorizer", "namespaceObject", "variables"})
_KNOWN = frozenset({"failurePolicy", "matchConstraints", "matchConditions", "variables", "validations"})
_KNOWN_CONSTRAINTS = frozenset({"resourceRules", "matchPolicy"})
_KNOWN_OF_BINDINGS = frozenset({"policyName", "validationActions"})
_NEEDED = {POLICIES: frozenset({"matchConstraints"}), BINDINGS: _KNOWN_OF_BINDINGS}
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class Write(NamedTuple):
    """What is about to be written. obj: None for a deletion; old: None for a creation."""

    operation: str  # CREATE, UPDATE, DELETE
    resource: Resource
    subresource: str
    namespace: str
    name: str
    obj: Object | None
    old: Object | None
    dry_run: bool = False


def check(resource: Resource, obj: Object) -> None:
    """Raises ApiError 500 for a policy or binding that asks for what is unknown here."""
    if resource.key not in (POLICIES, BINDINGS):
        return
    spec: Object = obj.get("spec") or {}
    unknown = set(spec) - (_KNOWN if resource.key == POLICIES else _KNOWN_OF_BINDINGS)
    unknown |= set(spec.get("matchConstraints") or {}) - _KNOWN_CONSTRAINTS
    try:
        if unknown:
            raise cel.CelError(f"{', '.join(sorted(unknown))} is unknown here")
        if missing := _NEEDED[resource.key] - set(spec):
            raise cel.CelError(f"{', '.join(sorted(missing))} is missing")
        for entry in (*spec.get("variables", []), *spec.get("matchConditions", []), *spec.get("validations", [])):
            _compiled(entry["expression"])
    except cel.CelError as error:
        name = obj["metadata"].get("name", "")
        raise ApiError(500, "InternalError", f"this server cannot evaluate {resource.kind} {name}: {error}") from None


def admit(store: Store, user: User, write: Write) -> None:
    """Raises ApiError, 403 or what the policy says, for a write that a bound policy denies."""
    bindings = store.view(store.resource(BINDINGS[1]))
    for policy in store.view(store.resource(POLICIES[1])):
        name = policy["metadata"]["name"]
        bound = [one for one in bindings if one["spec"]["policyName"] == name]
        denying = next((one for one in bound if "Deny" in one["spec"]["validationActions"]), None)
        if denying is not None and (denied := _denied(store, user, write, policy["spec"])):
            message, reason = denied
            subject = qualified(write.resource.group, write.resource.plural) + f' "{write.name}"'
            told = (
                f"{subject} is forbidden: ValidatingAdmissionPolicy '{name}' with binding "
                f"'{denying['metadata']['name']}' denied request: {message}"
            )
            details = {"name": write.name, "group": write.resource.group, "kind": write.resource.plural}
            raise ApiError(_CODES[reason], reason, told, details)


def _denied(store: Store, user: User, write: Write, spec: Object) -> tuple[str, str] | None:
    """message and reason of the first validation that does not hold."""
    if not any(_matches(rule, write) for rule in spec["matchConstraints"].get("resourceRules", [])):
        return None
    lenient = spec.get("failurePolicy", "Fail") == "Ignore"
    values = _values(store, user, write)
    for entry in spec.get("variables", []):
        try:
            values["variables"][entry["name"]] = _value(entry["expression"], values)
        except cel.CelError:
            continue  # whoever asks for it finds it missing
    for condition in spec.get("matchConditions", []):
        try:
            if not _value(condition["expression"], values):
                return None
        except cel.CelError as error:
            return None if lenient else (f"match condition {condition['name']}: {error}", "Forbidden")
    for validation in spec.get("validations", []):
        expression, reason = validation["expression"], validation.get("reason", "Invalid")
        try:
            holds = _value(expression, values)
        except cel.CelError as error:
            if lenient:
                continue
            return f"expression '{expression}' resulted in error: {error}", reason
        if holds is not True:
            return validation.get("message") or f"failed expression: {expression}", reason
    return None


def _matches(rule: Object, write: Write) -> bool:
    word = f"{write.resource.plural}/{write.subresource}" if write.subresource else write.resource.plural
    if rule.get("resourceNames") and write.name not in rule["resourceNames"]:
        return False
    return all(
        wanted in said or "*" in said
        for wanted, said in (
            (write.resource.group, rule["apiGroups"]),
            (write.resource.version, rule["apiVersions"]),
            (write.operation, rule["operations"]),
            (word, rule["resources"]),
        )
    )


@functools.cache
def _compiled(expression: str) -> cel.Rule:
    return cel.compile_rule(expression, _VARIABLES)


def _value(expression: str, values: dict[str, Any]) -> Any:
    return _compiled(expression).evaluate(values)


def _values(store: Store, user: User, write: Write) -> dict[str, Any]:
    resource = write.resource
    namespace = store.find(store.resource("namespaces"), write.namespace) if write.namespace else None
    return {
        "object": write.obj,
        "oldObject": write.old,
        "request": {
            "kind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
            "subResource": write.subresource,
            "name": write.name,
            "namespace": write.namespace,
            "operation": write.operation,
            "userInfo": user.info(),
            "dryRun": write.dry_run,
        },
        "authorizer": _Authorizer(user, {}),
        "namespaceObject": namespace,
        "variables": {},
    }


class _Authorizer(cel.Answering):
    """`authorizer.group(G).resource(R).namespace(N).check(VERB).allowed()`: may the one who writes do that, too."""

    def __init__(self, user: User, asked: dict[str, str]) -> None:
        self._user = user
        self._asked = asked

    def call(self, name: str, arguments: list[Any]) -> Any:
        if name == "allowed" and "check" in self._asked:
            asked = self._asked
            return access.allowed(
                self._user,
                asked["check"],
                asked["group"],
                asked["resource"],
                asked.get("subresource", ""),
                asked.get("namespace", ""),
                asked.get("name", ""),
            )
        if name not in ("group", "resource", "subresource", "namespace", "name", "check"):
            raise cel.CelError(f"no such overload: {name}()")
        if name == "check" and not {"group", "resource"} <= set(self._asked):
            raise cel.CelError("no such overload: check() without group and resource")
        return _Authorizer(self._user, {**self._asked, name: str(arguments[0])})
