"""Answers "who am I, and may I"; without it `kubectl auth can-i` and a preflight could not ask."""

from __future__ import annotations

from collections.abc import Mapping

from lab.apiserver import access, fields
from lab.apiserver.access import User
from lab.apiserver.errors import Object
from lab.apiserver.plain import now
from lab.apiserver.registry import Resource

_EVERYTHING: Object = {
    "resourceRules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {
            "verbs": ["create"],
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        },
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
    ],
    "nonResourceRules": [
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
        {
            "verbs": ["get"],
            "nonResourceURLs": [
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        },
        {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]},
    ],
}


def answer(resource: Resource, asked: Object, user: User, tokens: Mapping[str, User], manager: str) -> Object:
    """The review with its status."""
    spec = asked.get("spec") or {}
    reviewed: Object = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
    if resource.plural == "selfsubjectreviews":
        reviewed["metadata"] = {"creationTimestamp": now()}
        reviewed["status"] = {"userInfo": user.info()}
    elif resource.plural == "selfsubjectrulesreviews":
        reviewed["spec"] = {}
        reviewed["status"] = {**_EVERYTHING, "incomplete": bool(user.denied)}
        if user.denied:
            reviewed["status"]["evaluationError"] = "what is denied to this user is not listed"
    elif resource.plural == "selfsubjectaccessreviews":
        reviewed["spec"] = spec
        fields.updated(resource, None, reviewed, manager)
        reviewed["status"] = {"allowed": _allowed(spec, user)}
    elif resource.plural == "subjectaccessreviews":
        # Of a name nobody has here: there is no RBAC that could say yes.
        asked_about = next((one for one in tokens.values() if one.name == spec.get("user", "")), access.ANONYMOUS)
        reviewed["spec"] = spec
        fields.updated(resource, None, reviewed, manager)
        reviewed["status"] = {"allowed": _allowed(spec, asked_about)}
    else:
        reviewed["spec"] = spec
        fields.updated(resource, None, reviewed, manager)
        found = tokens.get(spec.get("token", ""))
        if found is None:
            reviewed["status"] = {"user": {}, "error": "invalid bearer token"}
        else:
            reviewed["status"] = {"authenticated": True, "user": found.info()}
    return reviewed


def _allowed(spec: Object, user: User) -> bool:
    asked = spec.get("resourceAttributes")
    if asked is None:
        return user is not access.ANONYMOUS
    return access.allowed(
        user,
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
    )
