"""Holds writes of policies to the rights on their tier, as Calico does where its objects are in projectcalico.org/v3;
without it what it refuses would be known on a real cluster only.

There its webhook (`webhooks/pkg/rbac`), or its own API server, asks Kubernetes whether who writes may get the tier,
and may do the same to `tier.<resource>` of the policy's name or of all in the tier (`TIER.*`). Of a policy that moves
it asks for both tiers.
"""

from __future__ import annotations

from collections.abc import Callable

from lab.apiserver import access
from lab.apiserver.access import Call, User
from lab.apiserver.admission import Write
from lab.apiserver.errors import ApiError, Object, qualified

GROUP = "projectcalico.org"
TIERED = frozenset({"networkpolicies", "globalnetworkpolicies", "stagednetworkpolicies", "stagedglobalnetworkpolicies"})
Asked = Callable[[Call, User, bool], None]


def admit(user: User, write: Write, asked: Asked) -> None:
    """asked: is told of each right that is needed, and whether the write is only tried. Raises ApiError 403."""
    resource = write.resource
    if resource.group != GROUP or resource.plural not in TIERED:
        return
    verb = write.operation.lower()

    def may(verb: str, plural: str, namespace: str, *names: str) -> bool:
        """Of one of these names."""
        allowed = [one for one in names if access.allowed(user, verb, GROUP, plural, namespace=namespace, name=one)]
        asked(Call(verb, GROUP, plural, "", user.name, namespace, (allowed or names)[0]), user, write.dry_run)
        return bool(allowed)

    for tier in dict.fromkeys(_tier(obj) for obj in (write.obj, write.old) if obj is not None):
        seen = may("get", "tiers", "", tier)
        if seen and may(verb, f"tier.{resource.plural}", write.namespace, write.name, f"{tier}.*"):
            continue
        named = qualified(GROUP, resource.plural)
        place = f' and namespace "{write.namespace}"' if write.namespace else ""
        why = "" if seen else " (user cannot get tier)"
        raise ApiError(
            403,
            "Forbidden",
            f'admission webhook denied the request: Authorization failed: {named} "{write.name}" is forbidden: User '
            f'"{user.name}" cannot {verb} {named} in tier "{tier}"{place}{why}',
        )


def _tier(policy: Object) -> str:
    return str((policy.get("spec") or {}).get("tier") or "default")
