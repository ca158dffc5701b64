"""Knows who may do what; without it "the bot has no permission" could not be tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lab.apiserver import rbac
from lab.apiserver.errors import ApiError, Object, qualified
from lab.apiserver.rbac import Grant

Denial = tuple[str, str, str]
ANONYMOUS_NAME = "system:anonymous"
# What everybody may read, token or not.
PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})


@dataclass(frozen=True, slots=True)
class User:
    """Who a token stands for. `extra`: what else is known of it, such as the node of a pod's token.

    It may what is granted: everything where `grants` is None, which nobody comes to by leaving it out. `denied` are
    (verb, group, resource) that are refused all the same, "*" for any; a subresource is written `pods/status`.
    """

    name: str
    groups: tuple[str, ...] = ("system:masters", "system:authenticated")
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    denied: frozenset[Denial] = frozenset()
    grants: tuple[Grant, ...] | None = ()

    def info(self) -> Object:
        """The user as reviews show it."""
        found: Object = {"username": self.name}
        if self.uid:
            found["uid"] = self.uid
        found["groups"] = list(self.groups)
        if self.extra:
            found["extra"] = {key: list(told) for key, told in self.extra.items()}
        return found


ANONYMOUS = User(ANONYMOUS_NAME, groups=("system:unauthenticated",))


def service_account(
    manifests: Iterable[rbac.Manifest], namespace: str, name: str, extra: Mapping[str, tuple[str, ...]] | None = None
) -> User:
    """One with the rights that these manifests give it."""
    user, groups = rbac.account(name, namespace), rbac.groups_of_account(namespace)
    return User(user, groups, extra=extra or {}, grants=rbac.grants(manifests, user, groups))


class Call(NamedTuple):
    """One request for a resource, as access is decided about."""

    verb: str
    group: str
    resource: str
    subresource: str
    user: str
    namespace: str
    name: str


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def authenticate(header: str, tokens: Mapping[str, User]) -> User:
    """The user of an Authorization header; nobody in particular without one. Raises ApiError 401 for a bad token."""
    if not header:
        return ANONYMOUS
    scheme, _, token = header.partition(" ")
    user = tokens.get(token.strip())
    if scheme.lower() != "bearer" or user is None:
        raise unauthorized()
    return user


def granted(
    user: User, verb: str, group: str, resource: str, subresource: str = "", namespace: str = "", name: str = ""
) -> bool:
    """Whether the rights of `user` cover this, whatever is denied to it. Anonymous users have none to resources."""
    if user is ANONYMOUS:
        return False
    word = f"{resource}/{subresource}" if subresource else resource
    return user.grants is None or any(grant.covers(verb, group, word, namespace, name) for grant in user.grants)


def allowed(
    user: User, verb: str, group: str, resource: str, subresource: str = "", namespace: str = "", name: str = ""
) -> bool:
    """Whether `user` may do this."""
    word = f"{resource}/{subresource}" if subresource else resource
    return granted(user, verb, group, resource, subresource, namespace, name) and not any(
        denial[0] in (verb, "*") and denial[1] in (group, "*") and denial[2] in (word, "*") for denial in user.denied
    )


def forbidden(call: Call) -> ApiError:
    """403 in the words of the real server."""
    subject = qualified(call.group, call.resource) + (f' "{call.name}"' if call.name else "")
    word = f"{call.resource}/{call.subresource}" if call.subresource else call.resource
    where = f'in the namespace "{call.namespace}"' if call.namespace else "at the cluster scope"
    details = {"name": call.name, "group": call.group, "kind": call.resource}
    return ApiError(
        403,
        "Forbidden",
        f'{subject} is forbidden: User "{call.user}" cannot {call.verb} resource "{word}" in API group '
        f'"{call.group}" {where}',
        {key: value for key, value in details.items() if value},
    )


def forbidden_path(user: User, verb: str, path: str) -> ApiError:
    return ApiError(403, "Forbidden", f'forbidden: User "{user.name}" cannot {verb} path "{path}"', {})
