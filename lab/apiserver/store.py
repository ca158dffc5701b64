"""Holds the objects, their versions and their history; without it nothing would remember, conflict or be watched.

Use inside one process, on one event loop (it takes no lock). Objects are plain dicts and are copied on the way in and
out, so nobody's later edit reaches into the store. Refusals are `ApiError(status, reason, message)`.

    store = Store()
    store.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"}})
    node = store.get("nodes", "node-a")
    node["metadata"]["labels"] = {"zone": "1"}
    store.update(node)                                  # 409 Conflict if somebody wrote since the get
    async for kind, pod in store.watch("pods", since=None): ...    # ADDED for all there is, then what happens
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import NamedTuple

from lab.apiserver import admission, defaults, errors, fields, schema
from lab.apiserver.errors import ApiError, Object
from lab.apiserver.plain import copy, now
from lab.apiserver.registry import Registry, Resource, resource_of_definition

HISTORY = 20_000
DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES = ("", "namespaces")
# Deleted in two writes, marked first: what watches a real cluster sees of them.
TWO_STEPS = frozenset({NAMESPACES, ("", "pods")})
FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

Objects = list[Object]
Events = list["Event"]


class Event(NamedTuple):
    """One change. `type` is ADDED, MODIFIED or DELETED; `previous` is the object before it (None for ADDED).
    The objects are the store's own: look, do not edit."""

    version: int
    type: str
    resource: Resource
    object: Object
    previous: Object | None


Subscriber = Callable[[Event], None]


class Watch:
    """What happens to one resource, as an async iterator of (type, object). It listens from the moment it is made.
    Close it (or use `with`) when done."""

    def __init__(self, store: Store, resource: Resource, backlog: Iterable[tuple[str, Object]], namespace: str) -> None:
        self._queue: asyncio.Queue[tuple[str, Object] | None] = asyncio.Queue()
        for entry in backlog:
            self._queue.put_nowait(entry)

        def heard(event: Event) -> None:
            if namespace in ("", event.object["metadata"].get("namespace", "")):
                self._queue.put_nowait((event.type, copy(event.object)))

        self._unsubscribe = store.subscribe(heard, resource)

    def close(self) -> None:
        """Stops listening; a consumer waiting for the next event is let go."""
        self._unsubscribe()
        self._queue.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[tuple[str, Object]]:
        return self

    async def __anext__(self) -> tuple[str, Object]:
        entry = await self._queue.get()
        if entry is None:
            raise StopAsyncIteration
        return entry

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Store:
    """All objects of one cluster, with one ever-increasing resourceVersion."""

    def __init__(self, history: int = HISTORY, beside: Sequence[Resource] = ()) -> None:
        """beside: kinds that are served as well, of which no part of a lab has a use."""
        self.registry = Registry()
        for resource in beside:
            self.registry.add(resource)
        self._version = 1
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
        self._events: deque[Event] = deque()
        self._history = history
        self._forgotten = 0
        self._since: dict[tuple[str, str], int] = {}
        self._subscribers: dict[int, tuple[tuple[str, str] | None, Subscriber]] = {}
        self._next_subscriber = 0
        for resource in self.registry:
            self._objects[resource.key] = {}
            self._since[resource.key] = 0
        for name in FIRST_NAMESPACES:
            self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    @property
    def version(self) -> int:
        """The resourceVersion of the latest write."""
        return self._version

    # ---- reading -----------------------------------------------------------------------------------------------

    def resource(self, name: str | Resource) -> Resource:
        """`pods`, `ippools`, `ippools.crd.projectcalico.org` or a Resource. Raises ApiError 404."""
        return name if isinstance(name, Resource) else self.registry.find(name)

    def get(self, resource: str | Resource, name: str, namespace: str | None = None) -> Object:
        """One object. A namespaced resource without `namespace` is looked for in `default`. Raises ApiError 404."""
        return copy(self.peek(self.resource(resource), name, namespace))

    def list(
        self, resource: str | Resource, namespace: str | None = None, where: Callable[[Object], bool] | None = None
    ) -> Objects:
        """All objects (of one namespace), ordered by namespace and name; `where` sees uncopied objects."""
        return [copy(entry) for entry in self.view(self.resource(resource), namespace) if where is None or where(entry)]

    def peek(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """The store's own object, uncopied: to read only. Raises ApiError 404."""
        found = self.find(resource, name, namespace)
        if found is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return found

    def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """As `peek`, None where there is no such object."""
        return self._objects[resource.key].get(self._key(resource, name, namespace))

    def view(self, resource: Resource, namespace: str | None = None) -> Objects:
        """The store's own objects, uncopied, ordered by namespace and name: to read only."""
        objects = self._objects[resource.key]
        if namespace:
            return [objects[key] for key in sorted(key for key in objects if key[0] == namespace)]
        return [objects[key] for key in sorted(objects)]

    # ---- writing -----------------------------------------------------------------------------------------------

    def create(self, obj: Object, resource: str | Resource | None = None, *, dry_run: bool = False) -> Object:
        """Adds an object and returns it as stored. uid, creationTimestamp and status are kept when given (the lab plays
        scheduler and kubelet too); what comes over HTTP has had them removed. Raises ApiError 404 (unknown kind,
        missing namespace), 409 AlreadyExists."""
        target = self._resource_of(obj) if resource is None else self.resource(resource)
        stored = copy(obj)
        stored["apiVersion"], stored["kind"] = target.api_version, target.kind
        metadata = stored.setdefault("metadata", {})
        name = metadata["name"]
        key = self._key(target, name, metadata.get("namespace"))
        if target.namespaced:
            metadata["namespace"] = key[0]
            if ("", key[0]) not in self._objects[NAMESPACES]:
                raise errors.not_found("", "namespaces", key[0])
        objects = self._objects[target.key]
        if key in objects:
            raise errors.already_exists(target.group, target.plural, name)
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", now())
        if target.has_generation:
            metadata["generation"] = 1
        if target.key == NAMESPACES:
            metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = name
            stored.setdefault("spec", {"finalizers": ["kubernetes"]})
            stored.setdefault("status", {"phase": "Active"})
        if target.key == DEFINITIONS:
            resource_of_definition(stored)
            schema.check(stored)
            defaults.fill(target, stored)
        admission.check(target, stored)
        if dry_run:
            return stored
        self._write("ADDED", target, key, stored, None)
        created = copy(stored)
        if target.key == DEFINITIONS:
            self._establish(created)
        return created

    def update(self, obj: Object, resource: str | Resource | None = None, *, dry_run: bool = False) -> Object:
        """Replaces an object. With metadata.resourceVersion it is a compare-and-swap (409 Conflict when somebody wrote
        in between), without it unconditional. The status is left as it was where the kind has a status subresource."""
        target = self._resource_of(obj) if resource is None else self.resource(resource)
        return self._replace(target, obj, status_only=False, dry_run=dry_run)

    def update_status(self, obj: Object, resource: str | Resource | None = None, *, dry_run: bool = False) -> Object:
        """Replaces the status of an object, and nothing else of a custom resource; of a built-in kind metadata is taken
        too (Calico writes its node annotations this way). Compare-and-swap as in `update`."""
        target = self._resource_of(obj) if resource is None else self.resource(resource)
        if not target.has_status:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return self._replace(target, obj, status_only=True, dry_run=dry_run)

    def delete(
        self,
        resource: str | Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Deletes an object and returns its last state; with finalizers it is only marked, until they are gone.
        A namespace takes its objects with it, a CRD those of its kind. `uid` and `resource_version` are preconditions
        (409 Conflict)."""
        target = self.resource(resource)
        current = self.peek(target, name, namespace)
        metadata = current["metadata"]
        for field, wanted, found, happened in (
            ("UID", uid, metadata["uid"], "deleted and then recreated"),
            ("ResourceVersion", resource_version, metadata["resourceVersion"], "modified"),
        ):
            if wanted and wanted != found:
                raise errors.conflict(
                    target.group,
                    target.kind,
                    name,
                    f"the {field} in the precondition ({wanted}) does not match the {field} in record ({found}). "
                    f"The object might have been {happened}",
                )
        key = self._key(target, name, namespace)
        if metadata.get("finalizers") and metadata.get("deletionTimestamp"):
            return copy(current)
        last = copy(current)
        if metadata.get("finalizers") or target.key in TWO_STEPS:
            _mark_deleted(target, last)
        if dry_run:
            return last
        if last["metadata"].get("deletionTimestamp"):
            self._write("MODIFIED", target, key, last, current)
            if metadata.get("finalizers"):
                return copy(last)
            current, last = last, copy(last)
        self._remove(target, key, last, current)
        return copy(last)

    # ---- watching ----------------------------------------------------------------------------------------------

    def subscribe(self, callback: Subscriber, resource: str | Resource | None = None) -> Callable[[], None]:
        """`callback(event)` is called inside every write, after it took effect. Returns the call that ends it."""
        number = self._next_subscriber
        self._next_subscriber += 1
        self._subscribers[number] = (None if resource is None else self.resource(resource).key, callback)

        def unsubscribe() -> None:
            self._subscribers.pop(number, None)

        return unsubscribe

    def watch(self, resource: str | Resource, since: str | int | None = None, namespace: str | None = None) -> Watch:
        """What happened after resourceVersion `since`, then what happens. Without `since`: ADDED for everything there
        is first. Raises ApiError 410 when the history no longer reaches back that far."""
        target = self.resource(resource)
        if since is None:
            backlog = [("ADDED", copy(entry)) for entry in self.view(target, namespace)]
        else:
            backlog = [
                (event.type, copy(event.object))
                for event in self.history(target, int(since))
                if not namespace or event.object["metadata"].get("namespace") == namespace
            ]
        return Watch(self, target, backlog, namespace or "")

    def history(self, resource: Resource, since: int) -> Events:
        """The events of one resource after version `since`. Raises ApiError 410 when they are forgotten."""
        oldest = max(self._forgotten, self._since[resource.key])
        if since < oldest:
            raise errors.expired(since, oldest)
        found: Events = []
        for event in reversed(self._events):
            if event.version <= since:
                break
            if event.resource.key == resource.key:
                found.append(event)
        found.reverse()
        return found

    def snapshot(self, resource: Resource, version: int, namespace: str | None = None) -> Objects:
        """As `view`, as it was at `version`: what the pages of one list are cut from. Raises ApiError 410."""
        state = dict(self._objects[resource.key])
        for event in reversed(self.history(resource, version)):
            metadata = event.object["metadata"]
            key = self._key(resource, metadata["name"], metadata.get("namespace"))
            if event.previous is None:
                del state[key]
            else:
                state[key] = event.previous
        return [state[key] for key in sorted(state) if not namespace or key[0] == namespace]

    # ---- inside ------------------------------------------------------------------------------------------------

    def _resource_of(self, obj: Object) -> Resource:
        api_version, kind = obj.get("apiVersion", ""), obj.get("kind", "")
        resource = self.registry.by_kind(api_version, kind)
        if resource is None:
            raise ApiError(404, "NotFound", f'no matches for kind "{kind}" in version "{api_version}"')
        return resource

    @staticmethod
    def _key(resource: Resource, name: str, namespace: str | None) -> tuple[str, str]:
        return ((namespace or "default") if resource.namespaced else "", name)

    def _replace(self, resource: Resource, obj: Object, *, status_only: bool, dry_run: bool) -> Object:
        given = copy(obj)
        metadata = given["metadata"]
        name = metadata["name"]
        key = self._key(resource, name, metadata.get("namespace"))
        current = self.peek(resource, name, key[0])
        kept = current["metadata"]
        if metadata.get("uid", kept["uid"]) != kept["uid"]:
            raise errors.conflict(
                resource.group,
                resource.plural,
                name,
                f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {kept['uid']}",
            )
        if metadata.get("resourceVersion", kept["resourceVersion"]) != kept["resourceVersion"]:
            raise errors.stale(resource.group, resource.plural, name)
        stored = self.merged(resource, given, current, status_only)
        if _without_times(stored) == _without_times(current):
            return copy(current)
        if not status_only and resource.has_generation and _desired(resource, stored) != _desired(resource, current):
            stored["metadata"]["generation"] = kept.get("generation", 0) + 1
        if resource.key == DEFINITIONS:
            schema.check(stored)
        admission.check(resource, stored)
        if dry_run:
            return stored
        if stored["metadata"].get("deletionTimestamp") and not stored["metadata"].get("finalizers"):
            # The event shows the object as it last was; the answer, what the writer made of it.
            self._remove(resource, key, copy(current), current)
            return stored
        self._write("MODIFIED", resource, key, stored, current)
        if resource.key == DEFINITIONS:
            self.registry.add(resource_of_definition(stored))
        return copy(stored)

    @staticmethod
    def merged(resource: Resource, given: Object, current: Object, status_only: bool) -> Object:
        """What is to be stored: the given object, with everything that this way of writing may not touch as it was."""
        if status_only:
            stored = copy(current)
            stored.pop("status", None)
            if "status" in given:
                stored["status"] = given["status"]
            metadata = given["metadata"] if not resource.custom else copy(current["metadata"])
            if "managedFields" in given["metadata"]:
                metadata["managedFields"] = given["metadata"]["managedFields"]
            stored["metadata"] = metadata
        else:
            stored = given
            stored["apiVersion"], stored["kind"] = resource.api_version, resource.kind
            if resource.has_status:
                stored.pop("status", None)
                if "status" in current:
                    stored["status"] = copy(current)["status"]
        metadata = stored["metadata"]
        for field in (
            "uid",
            "creationTimestamp",
            "resourceVersion",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
        ):
            if field in current["metadata"]:
                metadata[field] = current["metadata"][field]
            else:
                metadata.pop(field, None)
        if resource.namespaced:
            metadata["namespace"] = current["metadata"]["namespace"]
        return stored

    def _write(self, kind: str, resource: Resource, key: tuple[str, str], obj: Object, previous: Object | None) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        if kind == "DELETED":
            del self._objects[resource.key][key]
        else:
            self._objects[resource.key][key] = obj
        event = Event(self._version, kind, resource, obj, previous)
        self._events.append(event)
        if len(self._events) > self._history:
            self._forgotten = self._events.popleft().version
        for wanted, callback in list(self._subscribers.values()):
            if wanted is None or wanted == resource.key:
                callback(event)

    def _remove(self, resource: Resource, key: tuple[str, str], last: Object, previous: Object) -> None:
        """Deletes for good, what belongs to it first."""
        if resource.key == NAMESPACES:
            for entry in self.registry:
                if entry.namespaced:
                    self._remove_all(entry, key[1])
        if resource.key == DEFINITIONS:
            custom = resource_of_definition(last)
            self._remove_all(custom, None)
            self.registry.remove(custom.key)
        self._write("DELETED", resource, key, last, previous)

    def _remove_all(self, resource: Resource, namespace: str | None) -> None:
        for entry in self.view(resource, namespace):
            metadata = entry["metadata"]
            self._write(
                "DELETED",
                resource,
                self._key(resource, metadata["name"], metadata.get("namespace")),
                copy(entry),
                entry,
            )

    def _establish(self, crd: Object) -> None:
        """Serves what a CustomResourceDefinition defines, and says so in its status."""
        resource = resource_of_definition(crd)
        self.registry.add(resource)
        self._objects.setdefault(resource.key, {})
        self._since.setdefault(resource.key, self._version + 1)
        established = copy(crd)
        moment = now()
        established["status"]["acceptedNames"] = copy(crd["spec"]["names"])
        established["status"]["conditions"] = [
            {
                "type": "NamesAccepted",
                "status": "True",
                "lastTransitionTime": moment,
                "reason": "NoConflicts",
                "message": "no conflicts found",
            },
            {
                "type": "Established",
                "status": "True",
                "lastTransitionTime": moment,
                "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted",
            },
        ]
        definitions = self.resource("customresourcedefinitions")
        key = ("", crd["metadata"]["name"])
        current = self._objects[DEFINITIONS][key]
        fields.updated(definitions, current, established, "kube-apiserver", "status")
        self._write("MODIFIED", definitions, key, established, current)


def _mark_deleted(resource: Resource, obj: Object) -> None:
    metadata = obj["metadata"]
    metadata["deletionTimestamp"] = now()
    metadata["deletionGracePeriodSeconds"] = 0
    if resource.has_generation:
        metadata["generation"] = metadata.get("generation", 0) + 1
    if resource.key == NAMESPACES:
        obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}


def _without_times(obj: Object) -> Object:
    """For "did anything change": managedFields carry the time of the last write and must not count by it alone."""
    metadata = dict(obj["metadata"])
    managed = metadata.pop("managedFields", None) or []
    metadata["managedFields"] = [{key: value for key, value in entry.items() if key != "time"} for entry in managed]
    return {**obj, "metadata": metadata}


def _desired(resource: Resource, obj: Object) -> Object:
    """What counts for metadata.generation: all but metadata, and but status where that is a subresource."""
    ignored = {"metadata", "status"} if resource.has_status or not resource.custom else {"metadata"}
    return {key: value for key, value in obj.items() if key not in ignored}
