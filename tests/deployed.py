"""The accounts of deploy/ with their rights, read from its files; without it whatever the product does in a
test would be done by who may everything.

No kubectl is needed: what it makes of these files grants the same (tests/test_deploy_rbac.py).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from lab.apiserver import User, rbac
from lab.apiserver.access import service_account
from lab.apiserver.rbac import Grant
from lab.settings import BOT, CLUSTER_FIXER, NODE, PERSON, SIGNER

DEPLOY = Path(__file__).parents[1] / "deploy"
NAMESPACE = "calico-why"
ACCOUNTS = (BOT, NODE, CLUSTER_FIXER, SIGNER)
# People in terminals, who have the rights that deploy/ keeps for people.
ASKER, APPROVER = "asker", "approver"
PEOPLE = {ASKER: ("calico-why-reader", "calico-why-asker"), APPROVER: ("calico-why-approver",)}
READER = "calico-why-reader"  # a ClusterRole, and a Role where Calico's own pods are
# Who may everything: what a test prepares, breaks and looks at beside the product, and whatever holds kubectl.
ADMINISTRATOR = "kubernetes-admin"
# Where Calico's own pods may be.
PLACES = ("kube-system", "calico-system")
FILES = (
    "base/rbac-bot.yaml",
    "base/rbac-people.yaml",
    "base/rbac-certificates.yaml",
    "base/switch.yaml",
    "components/fixers/rbac.yaml",
    "components/fixers/lease.yaml",
)


@functools.cache
def manifests(place: str = "kube-system") -> tuple[rbac.Manifest, ...]:
    """Accounts and rights, and what is there so that nobody needs the right to create it."""
    files = (*FILES, f"components/calico-in-{place}/rbac.yaml")
    return tuple(one for file in files for one in rbac.read(DEPLOY / file))


def write(directory: Path) -> None:
    """For labs, whose `--rbac` it can be."""
    for place in PLACES:
        person = {"kind": "User", "name": PERSON}
        (directory / f"{place}.yaml").write_text(yaml.safe_dump_all([*manifests(place), *bindings(place, person)]))


def user(account: str, *, node: str = "", place: str = "kube-system") -> User:
    """Somebody of deploy/. node: of the pod that the token is made for."""
    extra = {"authentication.kubernetes.io/node-name": (node,)} if node else dict[str, tuple[str, ...]]()
    return service_account(manifests(place), NAMESPACE, account, extra)


def person(name: str, *sorts: str) -> User:
    """Somebody in a terminal, with what deploy/ keeps for people of these sorts, by default of all."""
    return User(name, groups=("system:authenticated",), grants=_of_people(sorts or tuple(PEOPLE)))


@functools.cache
def _of_people(sorts: tuple[str, ...]) -> tuple[Grant, ...]:
    bound = [*manifests(), *bindings()]
    return tuple(dict.fromkeys(one for sort in sorts for one in rbac.grants(bound, named(sort))))


def bindings(place: str = "kube-system", person: rbac.Manifest | None = None) -> list[rbac.Manifest]:
    """Of roles that deploy/ binds to nobody, as the head of rbac-people.yaml says it: to one account for each sort of
    people, or all to this subject. place: where Calico's own pods are."""
    return [
        {
            "kind": f"{kind}Binding",
            "metadata": {"name": f"{who}-{role}", **({"namespace": namespace} if namespace else {})},
            "roleRef": {"kind": kind, "name": role},
            "subjects": [person or {"kind": "ServiceAccount", "name": who, "namespace": NAMESPACE}],
        }
        for who, roles in PEOPLE.items()
        for role in roles
        for kind, namespace in ([("ClusterRole", ""), ("Role", place)] if role == READER else [("Role", NAMESPACE)])
    ]


def named(account: str) -> str:
    """As the API server knows it."""
    return rbac.account(account, NAMESPACE)


def objects(place: str = "kube-system") -> list[dict[str, Any]]:
    """What is there from the start, so that nobody needs the right to create it."""
    return [dict(one) for one in manifests(place) if one["kind"] in ("ConfigMap", "Lease")]
