"""FixRequests in the cluster, one winner per change; without it two clicks or restarts could execute one fix twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, cast
from urllib.parse import quote

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.watch import Watch

from certificates.kubeconfig import NoCluster, opened, own
from certificates.trouble import unanswered
from fixes.request import (
    GROUP,
    PLURAL,
    VERSION,
    Card,
    FixRequest,
    Person,
    Phase,
    Refused,
    SecondLook,
    Spec,
    Status,
    Waits,
    advance,
    document,
    new_name,
    parse,
)

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 15.0
WATCH_S = 240  # the server ends a watch after this
SILENT_S = 150.0  # a watch that says nothing for so long has died: a bookmark comes every minute or so
STEADY_S = 10.0  # a watch that held for so long was a good one
BACKOFF_MAX_S = 15.0
RETRY_AFTER_MAX_S = 60.0
ATTEMPTS = 64  # each lost compare-and-swap is somebody else's write, and a request does not live through that many

_DENIED = re.compile(r"ValidatingAdmissionPolicy '(?P<policy>[^']+)' with binding '[^']+' denied request: (?P<why>.+)")

STATUS_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Status))

Seen = Literal["listed", "changed", "deleted"]


class StoreError(Exception):
    """The requests could not be read or written. `sentence`: what happened, what it means, what to do."""

    def __init__(
        self,
        sentence: str,
        *,
        missing: bool = False,
        denied: bool = False,
        gone: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = 3
        self.missing = missing  # there is no such request
        self.denied = denied  # who asked may not, says the API server
        self.gone = gone  # the API server is not there, or cannot for now: later it may
        self.retry_after_s = retry_after_s  # what it asks for


class FixStore:
    """FixRequests of one namespace. Every method raises StoreError when the API server does not do it."""

    def __init__(
        self, api: client.ApiClient, namespace: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._api = api
        self._objects = client.CustomObjectsApi(api)
        self._at = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
        self.namespace = namespace
        self.now = now

    @property
    def api(self) -> client.ApiClient:
        """For what stands beside the requests: the audit trail, the switch."""
        return self._api

    async def create(self, spec: Spec) -> FixRequest:
        """A new Pending request."""
        request = FixRequest(name=new_name(), spec=spec)
        body = document(request, self.namespace)
        created = await self._call(self._objects.create_namespaced_custom_object(**self._at, body=body, **_limits()))
        # A status is not taken on creation. Without this write the request would still read as Pending, only
        # `kubectl get fixrequests` would show no phase.
        return await self._write(request.name, lambda current: current.status, first=created)

    async def core(self, method: str, plural: str, *name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Of the namespace's core/v1 objects, without the client's CoreV1Api, whose models take a second of a processor
        to load. Raises as the client does."""
        path = "/".join(("/api/v1/namespaces", quote(self.namespace, safe=""), plural, *name))
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        api = self.api
        asked = await api.param_serialize(method, path, header_params=headers, body=body, auth_settings=["BearerToken"])
        answer = await api.call_api(*asked, _request_timeout=CALL_TIMEOUT_S)
        await answer.read()
        return cast("dict[str, Any]", api.response_deserialize(answer, {"2XX": "object"}).data)

    async def get(self, name: str) -> FixRequest:
        return parse(await self._get(name))

    async def all(self) -> list[FixRequest]:
        """All that can be read, newest first; one that cannot is logged, not hidden."""
        found, _, _ = await self._list()
        return sorted(found, key=lambda request: request.spec.requested_at, reverse=True)

    async def transition(
        self,
        name: str,
        to: Phase,
        *,
        by: Person | None = None,
        message: str = "",
        check: Callable[[FixRequest], None] | None = None,
    ) -> FixRequest:
        """Move a request on by compare-and-swap on its resourceVersion and return it as it is now.

        `check` may raise on every fresh read. The phase reached is Expired or Stale where `request.advance` says so.
        Raises request.Refused when the request has already gone elsewhere.
        """

        def step(current: FixRequest) -> Status:
            if check is not None:
                check(current)
            return advance(current, to, now=self.now(), by=by, message=message)

        return await self._write(name, step)

    async def place(self, name: str, card: Card) -> FixRequest:
        """Remember where in Slack the request is shown; the first place stays: one request has one card."""

        def step(current: FixRequest) -> Status:
            return msgspec.structs.replace(current.status, slack=current.status.slack or card)

        return await self._write(name, step)

    async def note_preview(self, name: str, lines: Sequence[str]) -> FixRequest:
        """Remember what would be written, for those who decide; nothing is remembered once that was done."""

        def step(current: FixRequest) -> Status:
            if current.status.phase is not Phase.PENDING:
                raise Refused(f"{name} was decided already.")
            return msgspec.structs.replace(current.status, preview=tuple(lines))

        return await self._write(name, step)

    async def note_waits(self, name: str, waits: Waits) -> FixRequest:
        """Remember why it is approved and not done yet, for its card and for the case that its time goes by."""

        def step(current: FixRequest) -> Status:
            if current.status.phase is not Phase.APPROVED:
                raise Refused(f"{name} does not wait any more.")
            return msgspec.structs.replace(current.status, waits=waits)

        return await self._write(name, step)

    async def note_second_look(self, name: str, look: SecondLook) -> FixRequest:
        """Remember what the question answered after the fix; the first answer stays."""

        def step(current: FixRequest) -> Status:
            if current.status.second_look is not None:
                raise Refused(f"{name} was looked at again already.")
            return msgspec.structs.replace(current.status, second_look=look)

        return await self._write(name, step)

    async def watch(self) -> AsyncGenerator[tuple[Seen, FixRequest]]:
        """All requests ("listed"), then each change, for ever; after a broken connection all are listed again, and what
        is not there any more is "deleted".

        Only a reader that is cancelled or leaves ends it. What is listed again may be known already.
        """
        failures = 0
        known: dict[str, FixRequest] = {}
        while True:
            begun, wait_s = time.monotonic(), 0.0
            try:
                found, names, version = await self._list()
                for name in known.keys() - names:
                    yield "deleted", known.pop(name)
                for request in found:
                    known[request.name] = request
                    yield "listed", request
                begun = time.monotonic()
                async with contextlib.aclosing(self._changes(version)) as changes:
                    async for seen, request in changes:
                        if seen == "deleted":
                            known.pop(request.name, None)
                        else:
                            known[request.name] = request
                        yield seen, request
            except StoreError as error:
                log.warning("watching the fix requests: %s", error.sentence)
                wait_s = min(error.retry_after_s, RETRY_AFTER_MAX_S)
            else:
                if time.monotonic() - begun > STEADY_S:
                    failures = 0
                    continue
            # A server that lists, and ends each watch at once, would else be asked without a pause.
            failures = 1 if time.monotonic() - begun > STEADY_S + CALL_TIMEOUT_S else failures + 1
            backoff_s = min(BACKOFF_MAX_S, 0.25 * 2 ** min(failures, 8)) * random.uniform(0.5, 1.0)
            await asyncio.sleep(max(backoff_s, wait_s))

    async def whoami(self) -> Person:
        """Who the API server says this client is."""
        name = (await self._user()).username
        return Person(id=name, name=name, via="kubectl")

    async def own_pod(self) -> tuple[str, str]:
        """Name and uid of the pod of this namespace whose token this client has, "" twice for any other client."""
        user = await self._user()
        found = [(user.extra or {}).get(f"authentication.kubernetes.io/pod-{one}") or [""] for one in ("name", "uid")]
        name, uid = (str(one[0]) for one in found)
        here = str(user.username).startswith(f"system:serviceaccount:{self.namespace}:")
        return (name, uid) if here and name and uid else ("", "")

    async def right_to_approve(self) -> tuple[str, ...] | None:
        """This client's Kubernetes groups where RBAC lets it approve here, None where it does not."""
        if not await self.allowed(self._approving()):
            return None
        return tuple((await self._user()).groups or ())

    async def _user(self) -> Any:
        """authentication.k8s.io/v1 UserInfo."""
        review = await self._call(
            client.AuthenticationV1Api(self._api).create_self_subject_review(
                {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}, **_limits()
            )
        )
        return review.status.user_info

    async def allowed(self, attributes: Mapping[str, str]) -> bool:
        """Whether this client may do what these resourceAttributes of a SelfSubjectAccessReview say."""
        review = await self._call(
            client.AuthorizationV1Api(self._api).create_self_subject_access_review(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": dict(attributes)},
                },
                **_limits(),
            )
        )
        return bool(review.status.allowed)

    async def may_approve(self, person: Person) -> bool:
        """Whether RBAC lets this Kubernetes user approve here, now."""
        review = await self._call(
            client.AuthorizationV1Api(self._api).create_subject_access_review(
                {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SubjectAccessReview",
                    "spec": {"resourceAttributes": self._approving(), "user": person.id, "groups": list(person.groups)},
                },
                **_limits(),
            )
        )
        return bool(review.status.allowed)

    def _approving(self) -> dict[str, str]:
        return {"verb": "approve", "group": GROUP, "resource": PLURAL, "namespace": self.namespace}

    async def _changes(self, version: str) -> AsyncGenerator[tuple[Seen, FixRequest]]:
        watch = Watch()
        stream = watch.stream(
            self._objects.list_namespaced_custom_object,
            **self._at,
            resource_version=version,
            timeout_seconds=WATCH_S,
            allow_watch_bookmarks=True,
            _request_timeout=WATCH_S + 30.0,
        )
        try:
            while True:
                try:
                    event = await self._call(_next(stream))
                except StopAsyncIteration:
                    return
                except StoreError:
                    raise
                except Exception as error:  # the client has no error of its own for a line it cannot read
                    raise StoreError(f"The watch broke off: {unanswered(error)}.", gone=True) from error
                if event["type"] == "BOOKMARK":
                    continue
                if request := _readable(event["object"]):
                    yield "deleted" if event["type"] == "DELETED" else "changed", request
        finally:
            await watch.close()

    async def _list(self) -> tuple[list[FixRequest], frozenset[str], str]:
        """Those that can be read, the names of all, and the version they are of."""
        answer = await self._call(self._objects.list_namespaced_custom_object(**self._at, **_limits()))
        found = [request for item in answer.get("items", []) if (request := _readable(item))]
        names = frozenset(str(item["metadata"]["name"]) for item in answer.get("items", []))
        return found, names, answer["metadata"].get("resourceVersion", "")

    async def _get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._call(
            self._objects.get_namespaced_custom_object(**self._at, name=name, **_limits()), name
        )
        return found

    async def _write(
        self, name: str, step: Callable[[FixRequest], Status], first: dict[str, Any] | None = None
    ) -> FixRequest:
        """Read, let `step` make the next status, write it if nobody wrote meanwhile, else begin again."""
        for _ in range(ATTEMPTS):
            current = first or await self._get(name)
            first = None
            request = parse(current)
            advanced = msgspec.structs.replace(request, status=step(request))
            # What a newer version keeps in the status stays there.
            others = {key: value for key, value in current.get("status", {}).items() if key not in STATUS_FIELDS}
            body = {**current, "status": others | document(advanced, self.namespace)["status"]}
            write = self._objects.replace_namespaced_custom_object_status(**self._at, name=name, body=body, **_limits())
            try:
                return parse(await self._call(write, name))
            except _Conflict:
                continue
        raise StoreError(f"{name} is being changed by others all the time; nothing was changed here. Try again.")

    async def _call(self, call: Awaitable[Any], name: str = "") -> Any:
        try:
            return await call
        except ApiException as error:
            raise self._sentence(error, name) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StoreError(
                f"The API server cannot be reached ({unanswered(error)}), so no fix request can be read or "
                "changed. Check the kubeconfig and the network, then try again.",
                gone=True,
            ) from None

    def _sentence(self, error: ApiException, name: str) -> StoreError:
        reason, text = reason_of(error)
        if error.status == 409 and reason != "AlreadyExists":
            return _Conflict(f"{name} was changed by somebody else at the same moment. Try again.")
        if error.status == 404 and name:
            return StoreError(
                f"There is no fix request {name} in namespace {self.namespace}; `calico-why fixes` lists them.",
                missing=True,
            )
        if error.status == 404:
            return StoreError(
                f"This cluster does not know fix requests ({text}). Install them once: "
                f"kubectl create namespace {self.namespace}; kubectl apply -f fixrequest.yaml"
            )
        if why := denial(text):
            return StoreError(why, denied=True)
        if error.status in (401, 403):
            return StoreError(
                f"The API server does not allow it: {text}. Grant it on {PLURAL}.{GROUP} and their status.", denied=True
            )
        return StoreError(
            f"The API server answered {error.status}: {text}.",
            gone=error.status == 429 or (error.status or 0) >= 500,
            retry_after_s=_retry_after_s(error),
        )


class _Conflict(StoreError):
    """Somebody else's write came first."""


@contextlib.asynccontextmanager
async def connect(kubeconfig: str, namespace: str, context: str = "") -> AsyncGenerator[FixStore]:
    """A store on the cluster of this kubeconfig ("": ~/.kube/config where it exists, else the pod's own account).
    context: of the kubeconfig, its current one by default."""
    try:
        async with opened(kubeconfig or own(), context) as api:
            yield FixStore(api, namespace)
    except NoCluster as error:
        raise StoreError(error.sentence) from error


def denial(text: str) -> str:
    """What an admission policy says of the write that it denied, "" where none did."""
    found = _DENIED.search(text)
    if not found:
        return ""
    return f"The API server does not allow it: {found['why']} (ValidatingAdmissionPolicy {found['policy']})."


def _limits() -> dict[str, float]:
    return {"_request_timeout": CALL_TIMEOUT_S}


def _retry_after_s(error: ApiException) -> float:
    """As Kubernetes says it: in whole seconds. 0: it asks for nothing."""
    asked = str((error.headers or {}).get("Retry-After", ""))
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def reason_of(error: ApiException) -> tuple[str, str]:
    """reason and message of the Status object in the answer, else the HTTP reason."""
    try:
        status = msgspec.json.decode(error.body or b"")
        return str(status.get("reason", "")), str(status.get("message", "")) or str(error.reason)
    except (msgspec.DecodeError, AttributeError, TypeError):
        return "", str(error.reason)


async def _next(stream: AsyncGenerator[Any]) -> Any:
    """Not by wait_for: up to Python 3.11 it forgets that it was cancelled when an event comes at the same moment, and a
    fixer that was told to end would go on. Raises StopAsyncIteration, TimeoutError."""
    async with asyncio.timeout(SILENT_S):
        return await anext(stream)


def _readable(item: Mapping[str, Any]) -> FixRequest | None:
    try:
        return parse(item)
    except msgspec.ValidationError as error:
        log.warning("fix request %s cannot be read: %s", item.get("metadata", {}).get("name"), error)
        return None
