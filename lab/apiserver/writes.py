"""Takes an object from a client to the store; without it nothing would be defaulted, validated, owned or refused.

Everything here is about one request and does not wait for anything, so that a write is one step for all others.
"""

from __future__ import annotations

from typing import NamedTuple

from lab.apiserver import admission, certificates, defaults, errors, fields, names, patch, schema, tiers
from lab.apiserver.access import User
from lab.apiserver.errors import Object, bad_request
from lab.apiserver.plain import copy
from lab.apiserver.registry import Resource
from lab.apiserver.requests import (
    Target,
    WriteOptions,
    checked_kind,
    decode,
    decode_patch,
    decode_yaml,
    unsupported,
)
from lab.apiserver.store import DEFINITIONS, Store

# Kinds that must say which version they replace.
_CONDITIONAL = frozenset({DEFINITIONS, ("coordination.k8s.io", "leases")})
# A delete answers with the object for these, with a Status for all others.
_ANSWERED_WITH_OBJECT = frozenset({("", "pods"), ("", "namespaces"), ("", "serviceaccounts")})
_STATUS_AT_BIRTH = frozenset({("", "nodes")})


class Written(NamedTuple):
    """What the client is answered: HTTP status, object, and one Warning per text."""

    status: int
    obj: Object
    warnings: list[str]


class Writer:
    """The writing verbs on one store."""

    def __init__(self, store: Store, asked: tiers.Asked = lambda call, user, dry: None) -> None:
        """asked: is told of the rights that a write needs beside the right to it."""
        self.store = store
        self._asked = asked

    # ---- verbs

    def create(
        self, resource: Resource, target: Target, body: bytes, content_type: str, options: WriteOptions
    ) -> Written:
        """POST"""
        obj = checked_kind(decode(body, content_type, resource), resource)
        self._place(resource, target, obj)
        metadata = obj["metadata"]
        if target.name:
            _same_name(obj, target.name)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = names.generate(metadata["generateName"])
        warnings = self._read_fields(resource, obj, options)
        self._bear(resource, obj)
        if resource.key == certificates.KEY and options.user is not None:
            certificates.born(obj, options.user)
        fields.updated(resource, None, obj, options.manager)
        return Written(201, self._create(resource, obj, options), warnings)

    def update(
        self, resource: Resource, target: Target, body: bytes, content_type: str, options: WriteOptions
    ) -> Written:
        """PUT"""
        obj = checked_kind(decode(body, content_type, resource), resource)
        obj["metadata"].setdefault("name", target.name)
        _same_name(obj, target.name)
        self._place(resource, target, obj)
        current = self.store.peek(resource, target.name, target.namespace)
        if not obj["metadata"].get("resourceVersion"):
            if resource.custom or resource.key in _CONDITIONAL:
                raise errors.invalid(
                    resource.group,
                    resource.plural,
                    target.name,
                    [
                        {
                            "reason": "FieldValueInvalid",
                            "message": "Invalid value: 0: must be specified for an update",
                            "field": "metadata.resourceVersion",
                        }
                    ],
                )
            obj["metadata"].pop("resourceVersion", None)
        return self._replace(resource, target, obj, current, options)

    def patch(
        self, resource: Resource, target: Target, body: bytes, content_type: str, options: WriteOptions
    ) -> Written:
        """PATCH in its four forms"""
        if content_type == patch.APPLY:
            return self._apply(resource, target, body, options)
        accepted = [patch.JSON, patch.MERGE, *(() if resource.custom else (patch.STRATEGIC,)), patch.APPLY]
        if content_type not in accepted:
            raise unsupported(*accepted)
        told = decode_patch(body)
        current = self.store.peek(resource, target.name, target.namespace)
        if content_type == patch.JSON:
            obj = patch.json_patch(current, told)
        elif not isinstance(told, dict):
            raise bad_request("error decoding patch: a JSON object expected")
        elif content_type == patch.MERGE:
            obj = copy(patch.merge(current, told))
        else:
            obj = patch.strategic(resource, current, told)
        _same_name(checked_kind(obj, resource), target.name)
        self._place(resource, target, obj)
        return self._replace(resource, target, obj, current, options)

    def _apply(self, resource: Resource, target: Target, body: bytes, options: WriteOptions) -> Written:
        if not options.manager_given:
            raise errors.invalid(
                "meta.k8s.io",
                "PatchOptions",
                "",
                [
                    {
                        "reason": "FieldValueRequired",
                        "message": "Required value: is required for apply patch",
                        "field": "fieldManager",
                    }
                ],
            )
        config = checked_kind(decode_yaml(body), resource)
        config["metadata"].setdefault("name", target.name)
        _same_name(config, target.name)
        self._place(resource, target, config)
        if config["metadata"].pop("managedFields", None):
            raise bad_request("metadata.managedFields must be nil")
        found = self.store.find(resource, target.name, target.namespace)
        warnings = self._read_fields(resource, config, options, fill=False)
        obj = fields.applied(resource, found, config, options.manager, target.subresource, options.force)
        if found is None:
            self._fill(resource, obj)
            self._bear(resource, obj)
            return Written(201, self._create(resource, obj, options), warnings)
        obj["metadata"]["resourceVersion"] = config["metadata"].get(
            "resourceVersion", found["metadata"]["resourceVersion"]
        )
        written = self._replace(resource, target, obj, found, options, owned=True)
        return Written(200, written.obj, warnings)

    def delete(
        self, resource: Resource, target: Target, wanted: Object, dry_run: bool, user: User | None = None
    ) -> Object:
        """DELETE of one object; `wanted` are DeleteOptions. Returns the object or a Status."""
        told = wanted.get("preconditions") or {}
        if user is not None and (last := self.store.find(resource, target.name, target.namespace)) is not None:
            place = (target.subresource, target.namespace, target.name)
            write = admission.Write("DELETE", resource, *place, None, last, dry_run)
            tiers.admit(user, write, self._asked)
            admission.admit(self.store, user, write)
        last = self.store.delete(
            resource,
            target.name,
            target.namespace,
            uid=told.get("uid"),
            resource_version=told.get("resourceVersion"),
            dry_run=dry_run,
        )
        if resource.key in _ANSWERED_WITH_OBJECT or last["metadata"].get("finalizers"):
            return last
        details = {
            "name": target.name,
            "group": resource.group,
            "kind": resource.plural,
            "uid": last["metadata"]["uid"],
        }
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }

    # ---- steps

    @staticmethod
    def _place(resource: Resource, target: Target, obj: Object) -> None:
        """Puts the object into the namespace of the path. Raises ApiError 400 where it says another."""
        metadata = obj["metadata"]
        if not resource.namespaced:
            metadata.pop("namespace", None)
            return
        if not target.namespace:
            raise bad_request("an empty namespace may not be set during creation")
        if metadata.get("namespace", target.namespace) != target.namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request"
                f" ({metadata['namespace']} != {target.namespace})"
            )
        metadata["namespace"] = target.namespace

    def _read_fields(self, resource: Resource, obj: Object, options: WriteOptions, *, fill: bool = True) -> list[str]:
        """Drops fields that do not exist and fills in defaults. Returns what to warn of; raises ApiError 400 where the
        client asked for strictness. What a built-in kind may hold below its metadata is not known here."""
        if resource.key == DEFINITIONS:
            names.check_definition(obj)
        unknown = names.prune(obj)
        if resource.custom:
            unknown += schema.prune(schema.schema_of(resource.definition or {}), obj)
        told = [f'unknown field "{path}"' for path in unknown]
        if told and options.validation == "Strict":
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {', '.join(told)}"
            )
        if fill:
            self._fill(resource, obj)
        return told if options.validation == "Warn" else []

    @staticmethod
    def _fill(resource: Resource, obj: Object) -> None:
        if resource.custom:
            schema.default(schema.schema_of(resource.definition or {}), obj)
        else:
            defaults.fill(resource, obj)
        if resource.key == ("", "namespaces"):
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"].get("name", "")

    @staticmethod
    def _bear(resource: Resource, obj: Object) -> None:
        """Takes away what only the server gives a new object."""
        metadata = obj["metadata"]
        for name in (
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ):
            metadata.pop(name, None)
        if resource.has_status and resource.key not in _STATUS_AT_BIRTH:
            obj.pop("status", None)
            if not resource.custom:
                defaults.fill(resource, obj)

    def _create(self, resource: Resource, obj: Object, options: WriteOptions) -> Object:
        defaults.admit(resource, obj)
        self._check(resource, obj, None)
        self._admit(resource, "", obj, None, options)
        return self.store.create(obj, resource, dry_run=options.dry_run)

    def _replace(
        self,
        resource: Resource,
        target: Target,
        obj: Object,
        current: Object,
        options: WriteOptions,
        *,
        owned: bool = False,
    ) -> Written:
        """The common end of PUT and PATCH. `owned`: managedFields are settled already."""
        wanted, kept = obj["metadata"].get("resourceVersion"), current["metadata"]
        if wanted and wanted != kept["resourceVersion"]:
            raise errors.stale(resource.group, resource.plural, target.name)
        warnings = self._read_fields(resource, obj, options)
        status_only = bool(target.subresource)
        # Ownership is settled before what this endpoint may not write is put back: so a real server does it, too.
        if status_only:
            untouched = (set(obj) | set(current)) - {"apiVersion", "kind", "metadata", "status"}
        else:
            untouched = {"status"} if resource.has_status else set()
        for name in untouched:
            obj.pop(name, None)
            if name in current:
                obj[name] = copy({name: current[name]})[name]
        if not owned:
            fields.updated(resource, current, obj, options.manager, target.subresource)
        if resource.key == certificates.KEY:
            certificates.settle(target.subresource, obj, current)
        candidate = self.store.merged(resource, copy(obj), current, status_only)
        self._check(resource, candidate, current, target.subresource)
        self._admit(resource, target.subresource, candidate, current, options)
        write = self.store.update_status if status_only else self.store.update
        return Written(200, write(obj, resource, dry_run=options.dry_run), warnings)

    def _admit(
        self, resource: Resource, subresource: str, obj: Object, old: Object | None, options: WriteOptions
    ) -> None:
        """Raises ApiError where an admission policy denies it."""
        if options.user is not None:
            place = (subresource, obj["metadata"].get("namespace", ""), obj["metadata"].get("name", ""))
            operation = "CREATE" if old is None else "UPDATE"
            write = admission.Write(operation, resource, *place, obj, old, options.dry_run)
            tiers.admit(options.user, write, self._asked)
            admission.admit(self.store, options.user, write)

    @staticmethod
    def _check(resource: Resource, obj: Object, old: Object | None, subresource: str = "") -> None:
        """Raises ApiError 422 for an object that must not be."""
        causes = names.check(resource, obj) if old is None else []
        if resource.custom:
            causes += schema.validate(schema.schema_of(resource.definition or {}), obj, old)
        elif resource.key == ("", "pods"):
            causes += _pod_causes(obj, old)
        elif resource.key == ("", "events"):
            causes += _event_causes(obj)
        elif resource.key == certificates.KEY:
            causes += certificates.check(obj, old, subresource)
        if causes:
            raise errors.invalid(resource.group, resource.kind, obj["metadata"].get("name", ""), causes)


def _event_causes(event: Object) -> list[Object]:
    """Where an event is and what it is about; one that has `eventTime` says who reports what, too."""
    namespace, about = event["metadata"]["namespace"], (event.get("involvedObject") or {}).get("namespace", "")
    causes = []
    if event.get("eventTime"):
        misplaced = not about and namespace not in ("default", "kube-system")
        needed = ("reportingComponent", "reportingInstance", "action", "reason")
        causes += [
            {"reason": "FieldValueRequired", "message": "Required value", "field": field}
            for field in needed
            if not event.get(field)
        ]
    else:
        misplaced = about != namespace if about else namespace != "default"
    if misplaced:
        told = f'Invalid value: "{about}": does not match event.namespace'
        causes.insert(0, {"reason": "FieldValueInvalid", "message": told, "field": "involvedObject.namespace"})
    return causes


def _pod_causes(pod: Object, old: Object | None) -> list[Object]:
    spec = pod.get("spec") or {}
    if not spec.get("containers"):
        return [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}]
    if old is None or _fixed(spec) == _fixed(old.get("spec") or {}):
        return []
    told = (
        "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    return [{"reason": "FieldValueForbidden", "message": told, "field": "spec"}]


def _fixed(spec: Object) -> Object:
    """The part of a pod's spec that stays as it is. A pod that the lab made by itself may get its defaults late."""
    kept = {
        name: value
        for name, value in spec.items()
        if name not in ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds")
    }
    for name in ("containers", "initContainers"):
        if kept.get(name):
            kept[name] = [{key: value for key, value in entry.items() if key != "image"} for entry in kept[name]]
    filled: Object = {"spec": copy(kept)}
    defaults.fill_pod(filled)
    found: Object = filled["spec"]
    found.pop("terminationGracePeriodSeconds")
    return found


def _same_name(obj: Object, name: str) -> None:
    found = obj["metadata"].get("name", "")
    if found != name:
        raise bad_request(f"the name of the object ({found}) does not match the name on the URL ({name})")
