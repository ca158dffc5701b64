"""What kind of lab is wanted; without this file the command line would load the whole lab to say so."""

from __future__ import annotations

from dataclasses import dataclass

# The accounts of deploy/.
BOT, NODE, CLUSTER_FIXER, SIGNER = "calico-why-bot", "calico-why-node", "calico-why-cluster-fixer", "calico-why-signer"
PERSON = "kubernetes-admin"  # who sits at a lab's terminal
SWITCH, LEASE = "calico-why-fixes", "calico-why-fixer"  # a ConfigMap and a Lease of deploy/
RBAC = "CALICO_WHY_LAB_RBAC"  # what --rbac is where it is not given


@dataclass(frozen=True, slots=True)
class Settings:
    """What kind of lab."""

    nodes: int = 3
    pods_per_node: int = 2
    variant: str = ""  # NAME[+NAME...] of lab.variants
    objects: str = ""  # directory of a recording; then the three above do not count
    heal: bool = False
    workers: bool = True  # probes and fixers
    fixers: bool = True  # False: probes only
    rbac: str = ""  # file of manifests, or directory of such; then the product has what these give its accounts
    environment: tuple[tuple[str, str], ...] = ()  # further lines of the env file
