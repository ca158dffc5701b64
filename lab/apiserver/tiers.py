"""Holds who writes and reads policies to the rights on their tier, as Calico does where its objects are in
projectcalico.org/v3; without it what it refuses would be known on a real cluster only.

There its webhook (`webhooks/pkg/rbac`), or its own API server, asks Kubernetes whether who writes may get the tier,
and may do the same to `tier.<resource>` of the policy's name or of all in the tier (`TIER.*`). Of a policy that moves
it asks for both tiers. Of who reads the newest one asks the same, where somebody switched that on
(`webhooks/pkg/authz`), as is always so here; of a list of all tiers it asks for the right that names none.
"""

from __future__ import annotations

from collections.abc import Callable

from lab.apiserver import access
from lab.apiserver.access import Call, User
from lab.apiserver.admission import Write
from lab.apiserver.errors import ApiError, Object, qualified

GROUP = "projectcalico.org"
TIERED = frozenset(
    {
        "networkpolicies",
        "globalnetworkpolicies",
        "stagednetworkpolicies",
        "stagedglobalnetworkpolicies",
        "stagedkubernetesnetworkpolicies",  # of no field for it: always of the tier default
    }
)
Asked = Callable[[Call, User, bool], None]


def admit(user: User, write: Write, asked: Asked) -> None:
    """asked: is told of each right that is needed, and whether the write is only tried. Raises ApiError 403."""
    resource = write.resource
    if resource.group != GROUP or resource.plural not in TIERED:
        return
    call = Call(write.operation.lower(), GROUP, resource.plural, "", user.name, write.namespace, write.name)
    for tier in dict.fromkeys(_tier(obj) for obj in (write.obj, write.old) if obj is not None):
        if refusal := _refusal(user, call, tier, lambda one: asked(one, user, write.dry_run)):
            raise ApiError(403, "Forbidden", f"admission webhook denied the request: Authorization failed: {refusal}")


def let_read(user: User, call: Call, policy: Object | None, asked: Callable[[Call], None]) -> None:
    """policy: the one that is named; None for all. Raises ApiError 403."""
    if call.group != GROUP or call.resource not in TIERED:
        return
    tier = _tier(policy) if policy is not None else ""
    if refusal := _refusal(user, call, tier, asked):
        error = access.forbidden(call)
        raise ApiError(403, "Forbidden", f"{error.message}: {refusal}", error.details)


def _refusal(user: User, call: Call, tier: str, asked: Callable[[Call], None]) -> str:
    """Why this may not be done in a tier, "" where it may."""

    def may(verb: str, plural: str, namespace: str, *names: str) -> bool:
        """Of one of these names."""
        allowed = [one for one in names if access.allowed(user, verb, GROUP, plural, namespace=namespace, name=one)]
        asked(Call(verb, GROUP, plural, "", user.name, namespace, (allowed or names)[0]))
        return bool(allowed)

    seen = may("get", "tiers", "", tier)
    if seen and may(call.verb, f"tier.{call.resource}", call.namespace, call.name, f"{tier}.*"):
        return ""
    named = qualified(GROUP, call.resource)
    place = f' and namespace "{call.namespace}"' if call.namespace else ""
    why = "" if seen else " (user cannot get tier)"
    return (
        f'{named} "{call.name}" is forbidden: User "{user.name}" cannot {call.verb} {named} in tier "{tier}"'
        f"{place}{why}"
    )


def _tier(policy: Object) -> str:
    return str((policy.get("spec") or {}).get("tier") or "default")
