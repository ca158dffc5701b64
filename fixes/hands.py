"""Who carries a fix out: a node's fixer in its kernel, or the cluster's in its objects; the executor need not know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from fixes.kernel import Kernel
from fixes.kind import ClusterKind, Kind, NodeKind, kinds
from fixes.request import FixRequest, Spec

if TYPE_CHECKING:
    from fixes.calico import Calico


class Hands(Protocol):
    """Each method raises what the functions of the kind raise (fixes.kind)."""

    @property
    def name(self) -> str:
        """As it is said to people: a node, or "the cluster"."""

    def mine(self, request: FixRequest) -> bool: ...

    async def preview(self, spec: Spec) -> list[str]: ...

    async def holds(self, spec: Spec) -> None: ...

    async def execute(self, spec: Spec) -> None: ...

    async def verify(self, spec: Spec) -> tuple[bool, str]: ...


class NodeHands:
    """Fixes of one node, in the kernel of this process's network namespace."""

    def __init__(self, node: str, kernel: Kernel, known: Mapping[str, Kind] | None = None) -> None:
        self.name = node
        self._kernel = kernel
        self._kinds = kinds() if known is None else known

    def mine(self, request: FixRequest) -> bool:
        """Kinds it does not know are its node's, too: it is the one to say so."""
        return request.spec.node == self.name and not isinstance(self._kinds.get(request.spec.kind), ClusterKind)

    async def preview(self, spec: Spec) -> list[str]:
        return await asyncio.to_thread(self._kind(spec).preview, self._kernel, spec.arguments)

    async def holds(self, spec: Spec) -> None:
        await asyncio.to_thread(self._kind(spec).holds, self._kernel, spec.arguments)

    async def execute(self, spec: Spec) -> None:
        await asyncio.to_thread(self._kind(spec).execute, self._kernel, spec.arguments)

    async def verify(self, spec: Spec) -> tuple[bool, str]:
        return await asyncio.to_thread(self._kind(spec).verify, self._kernel, spec.arguments)

    def _kind(self, spec: Spec) -> NodeKind:
        kind = self._kinds.get(spec.kind)
        if not isinstance(kind, NodeKind):
            raise ValueError(f"{self.name} does not know the fix {spec.kind!r}")
        return kind


class ClusterHands:
    """Fixes in the cluster's objects."""

    name = "the cluster"

    def __init__(self, calico: Calico, known: Mapping[str, Kind] | None = None) -> None:
        self._calico = calico
        self._kinds = kinds() if known is None else known

    def mine(self, request: FixRequest) -> bool:
        return isinstance(self._kinds.get(request.spec.kind), ClusterKind)

    async def preview(self, spec: Spec) -> list[str]:
        return await self._kind(spec).preview(self._calico, spec.arguments)

    async def holds(self, spec: Spec) -> None:
        await self._kind(spec).holds(self._calico, spec.arguments)

    async def execute(self, spec: Spec) -> None:
        await self._kind(spec).execute(self._calico, spec.arguments)

    async def verify(self, spec: Spec) -> tuple[bool, str]:
        return await self._kind(spec).verify(self._calico, spec.arguments)

    def _kind(self, spec: Spec) -> ClusterKind:
        kind = self._kinds.get(spec.kind)
        if not isinstance(kind, ClusterKind):
            raise ValueError(f"the cluster's fixer does not know the fix {spec.kind!r}")
        return kind
