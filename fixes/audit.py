"""Who asked, decided, was refused and did what, in a chain in the cluster; without it nobody could prove any of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from fixes.request import GROUP, IN_WORDS, NAME, VERSION, FixRequest, Person, Phase, stamp
from fixes.store import CALL_TIMEOUT_S, FixStore, StoreError

PLURAL = "auditrecords"
KIND = "AuditRecord"
LABEL = f"{GROUP}/request"
START = "sha256:" + "0" * 64  # what the first record names as its predecessor
REFUSED = "refused"
PUBLISHED = "published"
PAGE = 500
ATTEMPTS = 256  # each lost one is somebody else's record
TEXT_MAX = 1000


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a writer says; number, previous hash, time, writer and hash are added when it is written."""

    event: str  # a phase of the request, or what else there is: refused, published, switched on, switched off
    key: str = ""  # of what happens once: two records with one key are never written
    request: str = ""
    digest: str = ""
    by: Person | None = None
    place: str = ""  # where in Slack: channel and ts
    text: str = ""


class Line(NamedTuple):
    """A record as it is in the cluster."""

    name: str
    spec: Mapping[str, Any]


class AuditError(StoreError):
    """The audit trail could not be read or written."""


class Audit:
    """The trail of one namespace. Every method raises AuditError when the API server does not do it."""

    def __init__(self, store: FixStore, writer: str) -> None:
        """writer: who writes here, as it stands in the records: "bot", "fixer of node-a"."""
        self._objects = client.CustomObjectsApi(store.api)
        self._at = {"group": GROUP, "version": VERSION, "namespace": store.namespace, "plural": PLURAL}
        self._store = store
        self._writer = writer
        self._number, self._hash = 0, ""  # the newest record known here; "" before anything was read
        self._writing = asyncio.Lock()

    async def append(self, record: Record) -> Line | None:
        """The record as it was written at the end of the trail; None when one with its key is there already."""
        async with self._writing:
            await self._begin()
            return await self._append(record, await self._keys(record.request) if record.key else set())

    async def follow(self, request: FixRequest) -> None:
        """Everything that the request's status says happened is in the trail afterwards, each once.

        Whoever moves a request calls this, and whoever sees one moved: what one could not write any more, another does.
        """
        async with self._writing:
            await self._begin()
            known = await self._keys(request.name)
            for record in events(request):
                await self._append(record, known)

    async def read(self, request: str = "") -> list[Line]:
        """All records, oldest first, or those of one request (by what they say, not by their label)."""
        lines = [line for line in await self._list() if not request or line.spec.get("request") == request]
        return sorted(lines, key=lambda line: line.name)

    # -- the end of the chain ---------------------------------------------------------------------------------------

    async def _append(self, record: Record, known: set[str]) -> Line | None:
        """Creating the next number is the compare-and-swap: who comes second reads on and tries the one after.

        known: the keys of this request up to the newest record known here; kept up to date.
        """
        for _ in range(ATTEMPTS):
            if record.key and record.key in known:
                return None
            spec = self._spec(record)
            body = {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "metadata": {
                    "name": name_of(spec["number"]),
                    "namespace": self._store.namespace,
                    **({"labels": {LABEL: record.request}} if NAME.fullmatch(record.request) else {}),
                },
                "spec": spec,
            }
            if await self._create(body):
                self._number, self._hash = spec["number"], spec["hash"]
                return Line(name_of(spec["number"]), spec)
            await self._read_on()
            if record.key:
                known |= await self._keys(record.request)
        raise AuditError("The audit trail is being written by others all the time; nothing was added to it. Try again.")

    def _spec(self, record: Record) -> dict[str, Any]:
        spec = {
            "number": self._number + 1,
            "previous": self._hash,
            "at": stamp(self._store.now()),
            "writer": self._writer,
            **_said(record),
        }
        return spec | {"hash": hash_of(spec)}

    async def _begin(self) -> None:
        if not self._hash:
            self._hash = START
            try:
                await self._read_on()
            except BaseException:
                self._hash = ""
                raise

    async def _read_on(self) -> None:
        """Find the newest record from the newest known one: in ever larger steps, then halving the last of them."""
        last, step, newest = self._number, 1, None
        while found := await self._get(last + step):
            last, step, newest = last + step, step * 2, found
        beyond = last + step
        while beyond - last > 1:
            middle = (last + beyond) // 2
            if found := await self._get(middle):
                last, newest = middle, found
            else:
                beyond = middle
        if newest is not None:
            self._number, self._hash = last, str(newest.get("spec", {}).get("hash", ""))

    # -- calls ------------------------------------------------------------------------------------------------------

    async def _keys(self, request: str) -> set[str]:
        selector = f"{LABEL}={request}" if NAME.fullmatch(request) else ""
        return {str(line.spec["key"]) for line in await self._list(selector) if line.spec.get("key")}

    async def _list(self, selector: str = "") -> list[Line]:
        found: list[Line] = []
        further = ""
        while True:
            asked: dict[str, Any] = {"label_selector": selector} if selector else {}
            if further:
                asked["_continue"] = further
            answer = await self._call(
                self._objects.list_namespaced_custom_object(**self._at, limit=PAGE, **asked, **_patience())
            )
            found += [Line(str(item["metadata"]["name"]), item.get("spec") or {}) for item in answer.get("items", [])]
            further = answer["metadata"].get("continue") or ""
            if not further:
                return found

    async def _get(self, number: int) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call(
                self._objects.get_namespaced_custom_object(**self._at, name=name_of(number), **_patience())
            )
        except AuditError as error:
            if error.missing:
                return None
            raise
        return found

    async def _create(self, body: Mapping[str, Any]) -> bool:
        """False when the number is taken."""
        try:
            await self._objects.create_namespaced_custom_object(**self._at, body=body, **_patience())
        except ApiException as error:
            if error.status == 409:
                return False
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        return True

    async def _call(self, call: Any) -> Any:
        try:
            return await call
        except ApiException as error:
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None


def events(request: FixRequest) -> list[Record]:
    """What happened to a request by its own status, as records."""
    first = Record(
        event=str(Phase.PENDING),
        key=f"{request.name}/asked",
        request=request.name,
        digest=request.spec.digest,
        by=request.spec.requested_by,
        text=request.spec.title,
    )
    return [
        first,
        *(
            Record(
                event=str(event.phase),
                key=f"{request.name}/{number}",
                request=request.name,
                digest=request.spec.digest,
                by=event.by,
                text=event.message,
            )
            for number, event in enumerate(request.status.history)
        ),
    ]


def name_of(number: int) -> str:
    return f"a-{number:010d}"


def hash_of(spec: Mapping[str, Any]) -> str:
    """Of everything a record says, what a newer version says in it included."""
    content = {key: value for key, value in spec.items() if key != "hash"}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def verify(lines: Sequence[Line], requests: Sequence[FixRequest] = (), head: str = "") -> list[str]:
    """What is wrong with a whole trail, a sentence each, the first break of the chain first; [] when nothing is.

    requests: all there are; each event in their status has to be in the trail. head: a hash that was published.
    """
    wrong = _breaks(sorted(lines, key=lambda line: line.name))[:1]
    numbers = {line.name for line in lines}
    last = max((int(line.name[2:]) for line in lines if line.name[2:].isdigit()), default=0)
    missing = [name_of(number) for number in range(1, last + 1) if name_of(number) not in numbers]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        wrong.append(f"Missing: {shown}.")
    if head and head not in {line.spec.get("hash") for line in lines}:
        wrong.append(f"The published head {head} is not in the trail: its end was cut off, or all of it was rewritten.")
    kept = {str(line.spec["key"]): line for line in lines if line.spec.get("key")}
    for request in requests:
        for record in events(request):
            line = kept.get(record.key)
            what = f"{request.name}, {IN_WORDS[Phase(record.event)]}"
            if line is None:
                wrong.append(f"{what}: there is no record of it.")
            elif not _agrees(line.spec, record):
                wrong.append(f"{what}: {line.name} says something else than the request now does.")
    return wrong


def _breaks(lines: Sequence[Line]) -> list[str]:
    before, after = START, "the beginning"
    found = []
    for number, line in enumerate(lines, 1):
        if line.spec.get("hash") != hash_of(line.spec):
            found.append(f"{line.name} is not what its hash says: it was changed.")
        elif line.spec.get("previous") != before:
            found.append(f"The chain breaks at {line.name}: it does not follow {after}.")
        elif line.spec.get("number") != number or line.name != name_of(number):
            found.append(f"The chain breaks at {line.name}: it is not record {number}, which its place says.")
        before, after = str(line.spec.get("hash")), line.name
    return found


def _agrees(spec: Mapping[str, Any], record: Record) -> bool:
    said = _said(record)
    return all(spec.get(field) == said.get(field) for field in ("event", "by", "digest", "request", "text"))


def _said(record: Record) -> dict[str, Any]:
    """A record's own fields as they are written, lists and all as JSON has them."""
    text = record.text.encode("utf-8", "replace").decode()
    short = msgspec.structs.replace(record, text=text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…")
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(short))
    return said


def told(line: Line) -> str:
    """A record as a line for people."""
    spec = line.spec
    by: Mapping[str, Any] = spec.get("by") or {}
    who = f" by {by.get('name') or by.get('id')}" if by else ""
    through = f" ({by['entry']})" if by.get("entry") and by.get("entry") != by.get("id") else ""
    text = f": {spec['text']}" if spec.get("text") else ""
    words = [line.name, str(spec.get("at", "")), str(spec.get("request") or "-")]
    return f"{'  '.join(words)}  {spec.get('event', '?')}{who}{through}{text} [{spec.get('writer', '?')}]"


def exported(line: Line) -> str:
    """A record as one line of JSON, everything in it that its hash covers."""
    return msgspec.json.encode(dict(line.spec), order="deterministic").decode()


def _failed(error: ApiException) -> AuditError:
    try:
        said = str(msgspec.json.decode(error.body or b"").get("message", "")) or str(error.reason)
    except (msgspec.DecodeError, AttributeError, TypeError):
        said = str(error.reason)
    if error.status == 404 and f'"{name_of(0)[:2]}' in said:
        return AuditError(f"There is no such record: {said}.", missing=True)
    if error.status == 404:
        return AuditError(
            f"This cluster has no audit trail ({said}). Install it once: kubectl apply -f auditrecord.yaml"
        )
    if error.status in (401, 403):
        return AuditError(f"The API server does not allow it: {said}. Grant create, get and list on {PLURAL}.{GROUP}.")
    return AuditError(f"The audit trail: the API server answered {error.status}: {said}.")


def _unreachable(error: Exception) -> AuditError:
    return AuditError(
        f"The API server cannot be reached ({error or type(error).__name__}), so the audit trail can neither be read "
        "nor written. Check the kubeconfig and the network, then try again."
    )


def _patience() -> dict[str, float]:
    return {"_request_timeout": CALL_TIMEOUT_S}
